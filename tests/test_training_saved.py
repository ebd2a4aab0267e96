"""Runs can be used afterwards, and extended: training.load and --resume."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from gat_ext import datasets, models, training
from gat_ext.training import Recipe, checkpoint
from gat_ext.training.cli import app
from gat_ext.training.metrics import score
from gat_ext.training.run import Run, RunConfig


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than the runs, and other tests look at them."""
    for name in ("plots.curves", "plots.attention", "walk_plots.curves", "walk_plots.walks"):
        monkeypatch.setattr(f"gat_ext.training.{name}", lambda *arguments: None)


def cli(*arguments):
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


NODES = ("--dataset", "karate", "--epochs", 4, "--seeds", 3)
GRAPHS = ("--folds", 2, "--epochs", 1)
WALKS = ("--dataset", "karate", "--epochs", 2, "--seeds", 2)
RUNS = {
    "gat": ("gat", *NODES, "--layers", 3, "--hidden", 5, "--heads", 2),
    "gatv2 bf16": ("gatv2", *NODES, "--bf16", "--seed", 7),
    "agnn": ("agnn", *NODES, "--hidden", 6, "--layers", 4),
    "transformer renumbered": ("transformer", *NODES, "--reorder", "rcm", "--heads", 3),
    "gam": ("gam", *GRAPHS, "--subset", 40, "--types", "wl2", "--hidden", 8, "--walk", "greedy"),
    "gam-mem": ("gam-mem", *GRAPHS, "--subset", 60, "--keep", "last"),
    "gat on graphs": ("gat", "--task", "graph", *GRAPHS, "--subset", 40, "--layers", 2),
    "agnn on graphs": ("agnn", "--dataset", "digit_grids", *GRAPHS, "--pooling", "attention"),
    "hgt": ("hgt", "--epochs", 3, "--seeds", 2, "--layers", 1, "--hidden", 6, "--heads", 2),
    "han": ("han", "--epochs", 3, "--seeds", 2, "--layers", 2, "--hidden", 6, "--heads", 2),
    "embeddings": ("attention-walk", *WALKS, "--dim", 6, "--window", 3, "--context", "uniform"),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", RUNS)
def test_every_model_is_loaded_with_its_options(name, tmp_path):
    """Each seed's weights score in the test what metrics.json says of that seed."""
    cli(*RUNS[name], "--out", tmp_path)
    report = json.loads((tmp_path / "metrics.json").read_text())
    unit = "fold" if "--folds" in RUNS[name] else "seed"
    state = torch.random.get_rng_state()
    best = training.load(tmp_path)
    assert torch.equal(state, torch.random.get_rng_state())
    rows = {row[unit]: row for row in report[f"{unit}s"]}
    assert list(rows) == list(best.weights)
    assert rows[best.seed]["val_score"] == max(row["val_score"] for row in rows.values())
    assert best.metrics == {key: report[key] for key in best.metrics}
    for number, row in rows.items():
        saved = training.load(tmp_path, number)
        assert not saved.model.training and saved.seed == number
        for key, value in saved.model.state_dict().items():
            assert torch.equal(value, best.weights[number][key])
        assert test_score(saved, number) == pytest.approx(row["test_score"], abs=1e-9)


@torch.no_grad()
def test_score(saved, number):
    data, model = saved.data, saved.model
    if unit_is_fold := hasattr(data, "node_ptr"):
        index = number - 1
        test = data.folds(saved.config.folds, seed=saved.config.seed)[index].test
        if saved.config.model in models.available():
            logits = model(data.x, data.edge_index, node_ptr=data.node_ptr)
            return score(logits[test], data.y[test], False)
        seed = torch.tensor([saved.config.seed + index])
        out = model(data.graph, data.node_type, data.node_ptr, graphs=test, seed=seed)
        assert unit_is_fold
        return score(out.probabilities, data.y[test], False)
    if saved.config.model == "attention-walk":
        from torch.nn.functional import normalize

        from gat_ext.training.metrics import logistic_regression

        x = normalize(model(), dim=1)
        return logistic_regression(x, data, (0.1, 1.0, 10.0)).score(x, data.y, data.test_mask)
    if isinstance(data, datasets.NodeDataset):  # not renumbered
        assert torch.equal(data.edge_index, datasets.load("karate").edge_index)
    of_paths = getattr(model, "reads_metapaths", False)
    edges = data.metapath_edge_index if of_paths else data.edge_index
    with torch.autocast("cpu", torch.bfloat16, enabled=saved.config.recipe.bf16):
        logits = model(data.x, edges).float()
    return score(logits[data.test_mask], data.y[data.test_mask], False)


test_score.__test__ = False


def test_load_finds_the_files_that_the_run_used(data_dir, tmp_path, monkeypatch):
    monkeypatch.delenv("GAT_EXT_DATA")
    options = ("--subset", 60, "--folds", 2, "--epochs", 1, "--hidden", 4)
    monkeypatch.chdir(data_dir)  # a relative root
    cli("gam", "--dataset", "tu:MUTAG", "--root", "tudataset", *options, "--out", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert training.load("run").data.name == "tu:MUTAG"


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not the folder of a run: it has no check"):
        training.load(tmp_path)
    recipe, karate = Recipe(epochs=2), datasets.load("karate")
    run = Run(RunConfig("gat", "karate", 3, 2, recipe, {}), karate, tmp_path)
    run.save_checkpoint()
    with pytest.raises(ValueError, match=r"no seed of .* has ended yet"):
        training.load(tmp_path)
    run.train(lambda trainer: None)
    with pytest.raises(ValueError, match="has no seed 0; expected one of 3, 4"):
        training.load(tmp_path, 0)
    own = replace(karate, name="mine", x=torch.ones(34, 2))
    with pytest.raises(ValueError, match=r"checkpoint.pt: best_models\[0\]"):
        training.load(tmp_path, data=own)
    state = checkpoint.load(tmp_path / "checkpoint.pt")
    for change, words in (
        ({"model": "gta"}, "no model is called 'gta'; expected one of gat, "),
        ({"recipe": 3}, "config.recipe is not of a run"),
        ({"more": 3}, "config is not of a run to classify nodes: .*'more'"),
    ):
        checkpoint.save({**state, "config": {**state["config"], **change}}, run.checkpoint_path)
        with pytest.raises(ValueError, match=f"checkpoint.pt: {words}"):
            training.load(tmp_path)
    torch.save({**state, "format": 1}, run.checkpoint_path)
    with pytest.raises(ValueError, match="format 1, which has the weights of one seed only; expec"):
        training.load(tmp_path)


def test_load_takes_a_data_set_of_ones_own(tmp_path):
    own = replace(datasets.load("karate"), name="mine")
    Run(RunConfig("gat", "mine", 0, 1, Recipe(epochs=2), {}), own, tmp_path).train(lambda t: None)
    assert training.load(tmp_path, data=own).data.name == "mine"
    with pytest.raises(ValueError, match="unknown data set 'mine'"):
        training.load(tmp_path)


# ---- more epochs and more seeds


def make(folder, epochs, seeds=1, patience=100, **changes):
    recipe = Recipe(epochs=epochs, patience=patience)
    config = RunConfig("gat", "karate", 0, seeds, recipe, {})
    return Run(replace(config, **changes), datasets.load("karate"), folder)


def train(run, resume=True):
    """Trains and returns the seeds of all epochs that ran."""
    if resume:
        run.resume()
    trained = []
    run.train(lambda trainer: trained.append(trainer.seed))
    return trained


def outcome(run):
    return [(r.seed, r.history, r.best_epoch, r.test_score) for r in run.results]


def equal(one, other):
    return len(one) == len(other) and all(
        torch.equal(value, b[key])
        for a, b in zip(one, other, strict=True)
        for key, value in a.items()
    )


def test_more_epochs_and_seeds_end_as_if_asked_for_at_first(tmp_path):
    whole = make(tmp_path / "whole", 12, seeds=3)
    train(whole, resume=False)
    run = make(tmp_path / "run", 5, seeds=2)
    assert train(run, resume=False) == [0] * 5 + [1] * 5
    assert train(make(tmp_path / "run", 5, seeds=2)) == []
    assert train(make(tmp_path / "run", 5, seeds=3)) == [2] * 5
    longer = make(tmp_path / "run", 12, seeds=3)
    assert train(longer) == [0] * 7 + [1] * 7 + [2] * 7
    assert outcome(longer) == outcome(whole) and equal(longer.best_models, whole.best_models)
    again = make(tmp_path / "run", 12, seeds=3)
    assert train(again) == [] and outcome(again) == outcome(whole)


def test_a_seed_that_patience_ended_stays_as_it_is(tmp_path):
    first = make(tmp_path, 400, patience=2)
    epochs = len(train(first, resume=False))
    assert epochs < 400
    longer = make(tmp_path, 800, patience=2)
    assert train(longer) == [] and outcome(longer) == outcome(first)


def test_an_interrupted_extension_goes_on(tmp_path):
    """Interrupted in the second seed with fewer epochs, then in the first seed with more."""

    class Stop(Exception):
        pass

    def stop_at(run, seed, epoch, resume=True):
        def progress(trainer):
            if (trainer.seed, trainer.epoch) == (seed, epoch):
                run.save_checkpoint()
                raise Stop

        if resume:
            run.resume()
        with pytest.raises(Stop):
            run.train(progress)

    whole = make(tmp_path / "whole", 9, seeds=2)
    train(whole, resume=False)
    stop_at(make(tmp_path / "run", 5, seeds=2), 1, 3, resume=False)
    stop_at(make(tmp_path / "run", 9, seeds=2), 0, 7)
    last = make(tmp_path / "run", 9, seeds=2)
    assert train(last) == [0] * 2 + [1] * 6
    assert outcome(last) == outcome(whole) and equal(last.best_models, whole.best_models)


def test_all_other_settings_must_agree(tmp_path):
    train(make(tmp_path, 4, seeds=2), resume=False)
    other = make(tmp_path, 3, seeds=1, seed=5, options={"heads": 2}, reorder="rcm")
    with pytest.raises(ValueError) as error:
        other.resume()
    for words in (
        "--seed is 0 there and 5 here",
        "--seeds is 2 there and 1 here (it may grow only)",
        "--epochs is 4 there and 3 here (it may grow only)",
        "--heads is not set there and 2 here",
        "--reorder is not set there and rcm here",
    ):
        assert words in str(error.value)


def test_epochs_of_a_scheduled_rate_cannot_change(tmp_path):
    for model, options in (("gam", (*GRAPHS, "--subset", 60)), ("attention-walk", WALKS)):
        folder = tmp_path / model
        cli(model, *options, "--out", folder)
        arguments = ["train", model, *map(str, options), "--epochs", "3", "--out", str(folder)]
        result = CliRunner().invoke(app, [*arguments, "--resume"])
        assert result.exit_code == 1
        assert "(it cannot change: the learning rate of an epoch depends on it)" in result.output
    more = cli("attention-walk", *WALKS, "--seeds", 3, "--out", folder, "--resume")
    assert "seed 2: " in more and "(3 seeds)" in more
