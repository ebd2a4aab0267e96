"""Training on a graph in parts: the losses of one process; checkpoints for any number of them."""

from __future__ import annotations

import dataclasses
import json
import os
import runpy
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Processes
from short_lived import ShortLived
from torch.nn.parallel import DistributedDataParallel

from gat_ext import SparseFeatures, datasets, training
from gat_ext.datasets import NodeDataset
from gat_ext.distributed import (
    DistGraph,
    average_gradients,
    cross_entropy,
    global_mean,
    input_features,
    load_checkpoint,
    make_part,
    partition,
    save,
    save_checkpoint,
)
from gat_ext.models import AGNN, GAT, GATv2, GraphTransformer
from gat_ext.training import Recipe, Trainer, part_data
from gat_ext.training.dist_loop import DistTrainer
from gat_ext.training.dist_run import Cut, start
from gat_ext.training.processes import Team
from gat_ext.training.run import Run, RunConfig

SIZE = 3


def team_of(group: Any, rank: int, size: int) -> Team:
    return Team(rank, size, torch.device("cpu"), group)


# ---- trainers


def made_up(case: str) -> NodeDataset:
    """A data set of 40 nodes; sparse features, several labels, and what parts may lack."""
    generator = torch.Generator().manual_seed(1)
    edges = torch.randint(30, (2, 150), generator=generator)  # the last ten nodes are isolated
    if case == "no edges":
        edges = edges[:, :0]
    x = torch.randn(40, 6, generator=generator)
    if case == "sparse":
        x = (torch.rand(40, 6, generator=generator) < 0.2).float()
    y = torch.randint(3, (40,), generator=generator)
    if case == "labels":
        y = torch.nn.functional.one_hot(y, 3).float()
    split = torch.arange(40) % 3
    if case == "few":  # training nodes of one part only
        split = torch.tensor([0, *[1] * 20, *[2] * 19])
    masks = (split == 0, split == 1, split == 2)
    return NodeDataset(case, x, y, edges, *masks, num_classes=3, multilabel=case == "labels")


MODELS = {
    "gat": lambda: GAT(6, 4, 3, heads=2, dropout=0.5, attn_dropout=0.3),
    "gatv2": lambda: GATv2(6, 4, 3, heads=2, norm="batch", dropout=0.2),
    "agnn": lambda: AGNN(6, 8, 3, dropout=0.2),
    "transformer": lambda: GraphTransformer(6, 4, 3, heads=2, dropout=0.2),
}
CASES = {
    "dense": ("gat", "overlap"),
    "sparse": ("gat", "sequential"),
    "labels": ("agnn", "heads"),
    "few": ("transformer", "gather"),
    "no edges": ("gatv2", "overlap"),
    "empty part": ("gatv2", "sequential"),
}


def own_data(data: NodeDataset, team: Team, mode: str, method: str = "range") -> Any:
    own = part_data.cut(data, team, method, mode)
    return dataclasses.replace(own, x=input_features(own.x, own.graph))


def train_like_one(group: Any, rank: int, size: int, case: str) -> None:
    """Ten epochs have the losses, scores and weights of one process; all ranks the same bits."""
    name, mode = CASES[case]
    data, recipe = made_up(case), Recipe(epochs=10, patience=10, lr=0.02)
    data = dataclasses.replace(data, x=data.x.float())
    alone = Trainer(MODELS[name], data, recipe, seed=5)
    team = team_of(group, rank, size)
    if case == "empty part":
        nodes = torch.zeros(40, dtype=torch.int64)
        part = make_part(data.edge_index, nodes, rank, size)
        fields = {n: getattr(data, n)[part.dst_nodes] for n in part_data._TENSORS}
        own = part_data._data_of(part, fields, case, 3, False, "given", team, mode)
    else:
        own = own_data(data, team, mode)
    assert isinstance(own.x, SparseFeatures) == (case == "sparse")
    together = DistTrainer(MODELS[name], own, recipe, 5, group)
    for trainer in (alone, together):
        torch.manual_seed(11)
        for parameters in trainer.optimizer.param_groups:
            parameters["eps"] = 1e-3  # else Adam enlarges gradients that are rounding errors
        while trainer.step():
            pass
    torch.testing.assert_close(together.history, alone.history, rtol=1e-4, atol=1e-5)
    assert together.best_epoch == alone.best_epoch
    for ours, theirs in zip(together.model.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    mine = [*together.history.values(), [p.tolist() for p in together.model.parameters()]]
    assert all(other == mine for other in team.gathered(mine))
    results = together.result(), alone.result()
    assert results[0].test_score == pytest.approx(results[1].test_score, abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_training_is_that_of_one_process(processes: Processes, case: str) -> None:
    processes.run(train_like_one, SIZE, case)


def check_value(group: Any, rank: int, size: int) -> None:
    """The value has the same bits in all processes, whatever they add to it."""
    total = torch.tensor([1e-7, 3.3333, 1e6][rank], requires_grad=True)
    value = global_mean(total, rank + 1, group)
    assert len({v.item() for v in team_of(group, rank, size).gathered(value.detach())}) == 1
    value.backward()
    assert total.grad.item() == pytest.approx(size / 6)


def test_the_value_of_a_loss_is_the_same_everywhere(processes: Processes) -> None:
    processes.run(check_value, SIZE)


def lacking(group: Any, rank: int, size: int) -> str:
    data = made_up("dense")
    data = dataclasses.replace(data, val_mask=torch.zeros(40, dtype=torch.bool))
    with pytest.raises(ValueError, match="val_mask is empty; every split needs a node"):
        part_data.cut(data, team_of(group, rank, size), "range", "overlap")
    data = made_up("dense")
    if rank == 1:
        data = dataclasses.replace(data, edge_index=data.edge_index.flip(1))
    with pytest.raises(ValueError, match="the first process loaded") as info:
        part_data.cut(data, team_of(group, rank, size), "range", "overlap")
    return str(info.value)


def test_splits_without_nodes_and_other_data(processes: Processes) -> None:
    messages = processes.run(lacking, SIZE)
    assert messages[0].startswith("rank 1: ") and messages[1].startswith("dense has ")


# ---- runs


def run_of(group: Any, rank: int, size: int, folder: str, epochs: int, seeds: int = 1) -> Any:
    data = made_up("sparse")
    recipe = Recipe(epochs=epochs, patience=100, lr=0.02)
    config = RunConfig("gat", "sparse", 0, seeds, recipe, {"heads": 2, "hidden_channels": 4})
    if group is None:
        return Run(config, data, Path(folder))
    team = team_of(group, rank, size)
    from gat_ext.training.dist_run import DistRun

    return DistRun(config, own_data(data, team, "overlap"), Path(folder), None, team)


def train_run(group: Any, rank: int, size: int, folder: str, *settings: int) -> None:
    run = run_of(group, rank, size, folder, *settings)
    if settings[0] > 4:
        run.resume()
    run.train(lambda trainer: None)
    lines = run.report()
    assert lines == [] if rank else "no attention.png" in lines[0]


def test_a_run_is_resumed_by_other_numbers_of_processes(
    processes: Processes, tmp_path: Path
) -> None:
    """1, 3 and 2 processes, then one without torch.distributed, have the losses of one run."""
    whole = run_of(None, 0, 1, str(tmp_path / "whole"), 16, 2)
    whole.train(lambda trainer: None)
    folder = str(tmp_path / "parts")
    for size, epochs, seeds in ((1, 4, 1), (3, 8, 1), (2, 12, 2)):
        processes.run(train_run, size, folder, epochs, seeds)
    report = json.loads((tmp_path / "parts" / "metrics.json").read_text())
    assert (report["processes"], report["partition_method"], report["mode"]) == (
        *(2, "range"),
        "overlap",
    )
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == [
        *("checkpoint.pt", "curves.png", "metrics.json")
    ]
    last = run_of(None, 0, 1, folder, 16, 2)
    last.resume()
    last.train(lambda trainer: None)
    for found, wanted in zip(last.results, whole.results, strict=True):
        torch.testing.assert_close(found.history, wanted.history, rtol=1e-3, atol=1e-4)
        assert (found.epochs, found.best_epoch) == (wanted.epochs, wanted.best_epoch)


def stored_run(group: Any, rank: int, size: int, folder: str, out: str) -> list[str]:
    config = RunConfig("gat", "karate", 0, 1, Recipe(epochs=3), {})
    lines: list[str] = []
    cut = Cut(Path(folder), "", "heads")
    run = start(config, cut, Path(out), None, team_of(group, rank, size), lines.append)
    run.train(lambda trainer: None)
    run.report()
    return [*lines, run.headline]


def test_parts_in_files_give_the_run_of_parts_in_memory(
    processes: Processes, tmp_path: Path
) -> None:
    data = datasets.load("karate")
    found = partition(data.graph, 2, "range")
    folder = save(tmp_path / "parts", data, found)
    first, second = processes.run(stored_run, 2, str(folder), str(tmp_path / "out"))
    report = found.report
    assert first == [
        *(
            f"rank {r} of 2: {report.nodes[r]} nodes, {report.edges[r]} edges, {report.halo[r]} "
            "halo rows"
            for r in range(2)
        ),
        "gat on karate: 34 nodes, 156 edges, 34 features, 2 classes; 2 processes, parts by range",
    ]
    assert second == first[-1:]
    saved = training.load(tmp_path / "out")
    assert saved.model(saved.data.x, saved.data.edge_index).shape == (34, 2)


# ---- checkpoints of users' own loops

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2, 1], [1, 2, 3, 4, 5, 0, 3, 5, 4]])


def own_loop(
    group: Any, rank: int, size: int, folder: str, first: int, last: int, wrapped: bool
) -> list[float]:
    """Epochs with dropout from a checkpoint of ``first`` epochs; the losses."""
    torch.manual_seed(3 if first == 0 else 99 + rank)
    part = make_part(EDGES, torch.arange(6) % size, rank, size)
    graph = DistGraph(part, group)
    x, y = torch.eye(6)[part.dst_nodes], (torch.arange(6) % 3)[part.dst_nodes]
    model: Any = GAT(6, 4, 3, heads=2, dropout=0.5, norm="batch")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    if wrapped:
        model = DistributedDataParallel(model, process_group=group, broadcast_buffers=False)
    if first:
        found = load_checkpoint(folder, model, optimizer, group=group)
        assert found == (first, {"note": ["é", first, None]})
    losses = []
    for epoch in range(first, last):
        loss = cross_entropy(model(x, graph), y, group=group)
        optimizer.zero_grad()
        loss.backward()
        if not wrapped:
            average_gradients(model, group)
        optimizer.step()
        losses.append(float(loss))
        extra = {"note": ["é", epoch + 1, None]}
        options = {"epoch": epoch + 1, "extra": extra, "keep": 2, "group": group}
        save_checkpoint(folder, model, optimizer, **options)
    return losses


def test_checkpoints_of_1_are_loaded_by_3_and_then_by_2(
    processes: Processes, tmp_path: Path
) -> None:
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    wanted = processes.run(own_loop, 1, whole, 0, 9, False)[0]
    losses: list[float] = []
    for size, wrapped in ((1, False), (3, True), (2, False)):
        found = processes.run(own_loop, size, parts, len(losses), len(losses) + 3, wrapped)
        assert all(other == found[0] for other in found)
        losses += found[0]
    torch.testing.assert_close(losses, wanted, rtol=1e-4, atol=1e-5)
    assert sorted(os.listdir(parts)) == ["epoch-000000008", "epoch-000000009"]


def cannot_load(group: Any, rank: int, size: int, folder: str) -> None:
    save_checkpoint(folder, torch.nn.Linear(2, 3), group=group)
    with pytest.raises(ValueError, match=r"another model: weight is .*\[3, 2\]; expected .*\[4, 2"):
        load_checkpoint(folder, torch.nn.Linear(2, 4), group=group)
    with pytest.raises(ValueError, match="another model: it has 'bias'"):
        load_checkpoint(folder, torch.nn.Linear(2, 3, bias=False), group=group)
    model = torch.nn.Linear(2, 3)
    with pytest.raises(ValueError, match="has the optimizer None; expected SGD over"):
        load_checkpoint(folder, model, torch.optim.SGD(model.parameters(), 0.1), group=group)
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        load_checkpoint(f"{folder}/none", model, group=group)
    # One process cannot write: all raise.
    place = folder if rank else f"{folder}/epoch-000000000/checkpoint.json"
    with pytest.raises(OSError):
        save_checkpoint(place, model, group=group)


def test_what_cannot_be_loaded(processes: Processes, tmp_path: Path) -> None:
    processes.run(cannot_load, 2, str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"epoch": -1}, ValueError),
        ({"epoch": 1.0}, TypeError),
        ({"keep": 0}, ValueError),
        ({"extra": {"a": object()}}, TypeError),
        ({"extra": [1]}, TypeError),
    ],
)
def test_wrong_arguments_of_checkpoints(tmp_path: Path, arguments: Any, error: Any) -> None:
    with pytest.raises(error, match="expected"):
        save_checkpoint(tmp_path / "c", torch.nn.Linear(1, 1), **arguments)
    assert not (tmp_path / "c").exists()


class Killed(BaseException):
    pass


class Steps:
    """Ends all work at the call of a number."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, step: Any, *arguments: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed
        step(*arguments)


def test_a_kill_at_any_step_leaves_a_complete_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same epoch, which is replaced; the steps are all calls that change the folder."""
    count = 99
    for place in range(count):
        folder = tmp_path / str(place)
        model = torch.nn.Linear(1, 1, bias=False)
        model.weight.data.fill_(1)
        save_checkpoint(folder, model, epoch=4)
        model.weight.data.fill_(2)
        steps = Steps(place)
        with monkeypatch.context() as patch:
            for name in ("rename", "fsync"):
                patch.setattr(os, name, partial(steps, getattr(os, name)))
            with suppress(Killed, ValueError):  # torch's writer catches everything
                save_checkpoint(folder, model, epoch=4)
                assert place >= 5
                return
        loaded = torch.nn.Linear(1, 1, bias=False)
        assert load_checkpoint(folder, loaded) == (4, {})
        assert loaded.weight.item() in (1.0, 2.0)
        save_checkpoint(folder, model, epoch=4)  # and the next one is written
        assert os.listdir(folder) == ["epoch-000000004"]
    raise AssertionError(f"more than {count} steps")


# ---- torchrun


def torchrun(*arguments: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join(path for path in sys.path if path)
    more = {"PYTHONPATH": search, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"),
            *map(str, arguments),
        ],
        env=os.environ | more,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_torchrun_trains(tmp_path: Path) -> None:
    command = ("-m", "gat_ext.training.cli", "train", "gat", "--dataset", "karate")
    result = torchrun(2, *command, "--epochs", 3, "--out", tmp_path / "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["rank 0 of 2", "rank 1 of 2"]
    assert len([line for line in lines if line.startswith("Test accuracy")]) == 1
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["processes"] == 2


def run_example(name: str) -> None:
    example = Path(__file__).parents[1] / "examples" / name
    runpy.run_path(str(example), run_name="__main__")


@pytest.mark.parametrize(
    ("name", "lines"), [("several_processes.py", 2), ("sampled_training.py", 6)]
)
def test_examples_run_with_the_variables_of_torchrun(name: str, lines: int, tmp_path: Path) -> None:
    first, second = ShortLived(tmp_path).run(run_example, 2, name)
    assert (first.code, second.code) == (0, 0), (first.err, second.err)
    assert len(first.out.splitlines()) == lines and "processes: 2" in first.out and not second.out


# ---- accuracy


def train_cora(group: Any, rank: int, size: int, folder: str, epochs: int) -> Any:
    config = RunConfig("gat", "cora", 0, 1, Recipe(epochs=epochs), {})
    cut = Cut(None, "range", "overlap")
    team = team_of(group, rank, size)
    run = start(config, cut, Path(folder), None, team, lambda line: None)
    run.train(lambda trainer: None)
    return dataclasses.asdict(run.results[0])


def cora_alone(folder: Path, epochs: int) -> Any:
    data = datasets.load("cora")
    run = Run(RunConfig("gat", "cora", 0, 1, Recipe(epochs=epochs), {}), data, folder)
    run.train(lambda trainer: None)
    return dataclasses.asdict(run.results[0])


def test_cora_has_the_losses_of_one_process(
    processes: Processes, tmp_path: Path, data_dir: Path
) -> None:
    """With dropout of its sparse features, of which each process draws those of its rows."""
    found = processes.run(train_cora, 2, str(tmp_path / "2"), 10)
    assert found[0]["history"] == found[1]["history"]
    wanted = cora_alone(tmp_path / "1", 10)
    torch.testing.assert_close(found[0]["history"], wanted["history"], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_accuracy_of_cora_in_two_processes(tmp_path: Path, data_dir: Path) -> None:
    """The whole training; rounding may end it at another epoch."""
    scores = {}
    for size in (1, 2):
        command = ("-m", "gat_ext.training.cli", "train", "gat", "--dataset", "cora")
        out = tmp_path / str(size)
        result = torchrun(size, *command, "--epochs", 400, "--out", out, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        scores[size] = json.loads((out / "metrics.json").read_text())["test_score_mean"]
    assert scores[1] > 0.81 and scores[2] == pytest.approx(scores[1], abs=0.005)
