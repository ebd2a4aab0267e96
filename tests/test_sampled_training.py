"""Training on sampled mini-batches, in one process and in several."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Processes
from typer.testing import CliRunner

from gat_ext import datasets
from gat_ext.models import GAT
from gat_ext.training import Recipe, Trainer, recipe
from gat_ext.training.cli import app
from gat_ext.training.dist_run import SampledRun
from gat_ext.training.processes import Team
from gat_ext.training.run import Run, RunConfig
from gat_ext.training.sampled_loop import SampledTrainer, fanouts_of

ALL = Recipe(epochs=6, lr=0.02, sample="-1,-1", batch_size=1000)


def make_model(layers: int = 2) -> GAT:
    data = datasets.load("digits")
    sizes = data.num_features, 4, data.num_classes
    return GAT(*sizes, num_layers=layers, heads=2, dropout=0.0, attn_dropout=0.0)


def train(trainer: Any) -> list[float]:
    while trainer.step():
        pass
    losses: list[float] = trainer.history["train_loss"] + trainer.history["val_loss"]
    return losses


def test_all_neighbours_in_one_batch_train_as_the_whole_graph() -> None:
    """Without dropout, which numbers the edges of a batch."""
    data = datasets.load("digits")
    whole = train(Trainer(make_model, data, dataclasses.replace(ALL, sample=""), seed=0))
    torch.testing.assert_close(
        train(SampledTrainer(make_model, data, ALL, seed=0)), whole, rtol=2e-4, atol=1e-5
    )


def steps_of(group: Any, rank: int, size: int, batch_size: int) -> list[float]:
    data = datasets.load("digits")
    how = dataclasses.replace(ALL, batch_size=batch_size)
    place = {"group": group, "rank": rank, "size": size}
    trainer = SampledTrainer(make_model, data, how, seed=0, **place)
    losses = train(trainer)
    return [*losses, *torch.cat([p.flatten() for p in trainer.model.parameters()]).tolist()]


@pytest.mark.parametrize("size", [2, 3])
def test_processes_divide_a_batch(processes: Processes, size: int) -> None:
    """One batch of each process is together the batch of one process; weights stay equal."""
    data = datasets.load("digits")
    alone = train(SampledTrainer(make_model, data, ALL, seed=0))
    found = processes.run(steps_of, size, 1000)
    assert all(each == found[0] for each in found)
    torch.testing.assert_close(found[0][: len(alone)], alone, rtol=2e-3, atol=1e-4)


def test_processes_have_different_numbers_of_batches(processes: Processes) -> None:
    count = int(datasets.load("digits").train_mask.sum())
    found = processes.run(steps_of, 2, count // 3 + 1)
    assert found[0] == found[1]


def test_an_epoch_has_other_samples_and_resumes(tmp_path: Path) -> None:
    data = datasets.load("digits")
    how = Recipe(epochs=4, lr=0.02, sample="3,2", batch_size=20)

    def run(folder: Path, epochs: int) -> Run:
        config = RunConfig("gat", "digits", 0, 1, dataclasses.replace(how, epochs=epochs), {})
        return Run(config, data, folder)

    straight = run(tmp_path / "straight", 4)
    straight.train(lambda trainer: None)
    halted = run(tmp_path / "halted", 2)
    halted.train(lambda trainer: None)
    again = run(tmp_path / "halted", 4)
    again.resume()
    again.train(lambda trainer: None)
    ours, theirs = again.results[0].history, straight.results[0].history
    assert ours == theirs
    assert len(set(ours["train_loss"])) == 4


def resumed(group: Any, rank: int, size: int, folder: str) -> list[float]:
    data = datasets.load("karate")
    how = Recipe(epochs=5, sample="2,2", batch_size=4)
    team = Team(rank, size, torch.device("cpu"), group)
    run = SampledRun(RunConfig("gat", "karate", 0, 1, how, {}), data, Path(folder), None, team)
    run.resume()
    run.train(lambda trainer: None)
    run.report()
    losses: list[float] = run.results[0].history["train_loss"]
    return losses


def test_another_number_of_processes_resumes(processes: Processes, tmp_path: Path) -> None:
    data = datasets.load("karate")
    how = Recipe(epochs=2, sample="2,2", batch_size=4)
    first = Run(RunConfig("gat", "karate", 0, 1, how, {}), data, tmp_path)
    first.train(lambda trainer: None)
    found = processes.run(resumed, 3, str(tmp_path))
    assert found[0] == found[1] == found[2]
    assert found[0][:2] == first.results[0].history["train_loss"] and len(found[0]) == 5
    assert json.loads((tmp_path / "metrics.json").read_text())["processes"] == 3


def test_command_line(tmp_path: Path) -> None:
    options = "train gat --dataset karate --epochs 4 --sample 3,-1 --batch-size 2 --out"
    result = CliRunner().invoke(app, [*options.split(), str(tmp_path)])
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "metrics.json").read_text())["config"]["recipe"]
    assert (settings["sample"], settings["batch_size"]) == ("3,-1", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("gat --dataset karate --sample 5", "expected a number of neighbours for each"),
        ("gat --dataset karate --sample five", "expected a number of neighbours for each"),
        ("gat --dataset karate --sample 5,-2", "expected a number of neighbours for each"),
        ("gat --dataset karate --sample 5,5 --parts p", "--sample reads the whole data set"),
        ("gat --dataset ppi --sample 5,5,5", "in batches of graphs"),
        ("gat --dataset karate --batch-size 64", "it is of sampled batches; give --sample"),
        ("gam --sample 5,5", "for models that classify nodes"),
    ],
)
def test_wrong_options(options: str, message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", *options.split(), "--out", str(tmp_path / "out")])
    assert result.exit_code != 0
    assert message in " ".join(result.output.replace("│", " ").split()), result.output


def test_fanouts() -> None:
    assert fanouts_of("10, 5,-1") == [10, 5, -1]
    with pytest.raises(ValueError, match="expected a number of neighbours"):
        fanouts_of("")


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["cora", "citeseer", "digits"])
def test_sampled_training_is_as_accurate_as_full_batches(dataset: str, tmp_path: Path) -> None:
    """The mean over 5 seeds is within one point."""
    try:
        data = datasets.load(dataset)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    scores = []
    for sample in ("", "10,10"):
        how = dataclasses.replace(recipe("gat", dataset), sample=sample)
        run = Run(RunConfig("gat", dataset, 0, 5, how, {}), data, tmp_path / f"of {sample}")
        run.train(lambda trainer: None)
        scores.append(statistics.fmean(100 * result.test_score for result in run.results))
    assert scores[1] > scores[0] - 1, scores
