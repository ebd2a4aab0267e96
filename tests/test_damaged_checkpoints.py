"""A file that is not a checkpoint of the run raises before anything is trained or written."""

from __future__ import annotations

import copy
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves
from typer.testing import CliRunner

from gat_ext import datasets, training
from gat_ext.training import Recipe, checkpoint
from gat_ext.training.checkpointed import Interrupted
from gat_ext.training.cli import app
from gat_ext.training.embedding_loop import EmbeddingRecipe
from gat_ext.training.embedding_run import EmbeddingRun, EmbeddingRunConfig
from gat_ext.training.graph_loop import GraphRecipe
from gat_ext.training.graph_run import GraphRun, GraphRunConfig
from gat_ext.training.pooled_loop import PooledRecipe
from gat_ext.training.pooled_run import PooledRun, PooledRunConfig
from gat_ext.training.run import Run, RunConfig

FOLDER = Path(__file__).parent


def node_run(folder):
    recipe = Recipe(epochs=4)
    return Run(RunConfig("gat", "karate", 0, 3, recipe, {}), datasets.load("karate"), folder)


def graph_run(folder):
    graphs, recipe = datasets.load_graphs("shapes", num_graphs=24), GraphRecipe(epochs=4)
    sizes = {"hidden_channels": 4, "num_agents": 2, "num_steps": 2}
    config = GraphRunConfig("gam", "shapes", 0, 3, None, recipe, sizes)
    return GraphRun(config, graphs, folder)


def pooled_run(folder):
    graphs, recipe = datasets.load_graphs("shapes", num_graphs=24), PooledRecipe(epochs=4)
    sizes = {"hidden_channels": 4, "heads": 2, "pooling": "attention"}
    config = PooledRunConfig("gat", "shapes", 0, 3, None, recipe, sizes)
    return PooledRun(config, graphs, folder)


def embedding_run(folder):
    recipe = EmbeddingRecipe(epochs=4, walks_per_epoch=1, num_pairs=16)
    options = {"embedding_channels": 4, "window": 3}
    config = EmbeddingRunConfig("attention-walk", "karate", 0, 3, recipe, options)
    return EmbeddingRun(config, datasets.load("karate"), folder)


RUNS = {
    "nodes": node_run,
    "graphs": graph_run,
    "pooled graphs": pooled_run,
    "embeddings": embedding_run,
}


def interrupt(run, epochs=6):
    """Trains until the middle of the second training."""
    count = 0

    def progress(trainer):
        nonlocal count
        count += 1
        if count == epochs:
            run.save_checkpoint()
            raise Interrupted

    with pytest.raises(Interrupted):
        run.train(progress)


def running(state):
    """The state of the second training, which was interrupted."""
    return state["trainers"][1]


def moments(state):
    """The optimizer's state of the first parameter with more than one element."""
    states = running(state)["optimizer"]["state"]
    return next(s for s in states.values() if s["exp_avg"].numel() > 1)


def put(*path):
    """Sets a place of the checkpoint: its keys and the value."""

    def change(state):
        *keys, last, value = path
        for key in keys:
            state = state[key]
        state[last] = value

    return change


def drop(*path):
    """Takes a key out."""

    def change(state):
        *keys, last = path
        for key in keys:
            state = state[key]
        del state[last]

    return change


def moment(name, make):
    def change(state):
        moments(state)[name] = make(moments(state)[name])

    return change


def weight(place, make):
    """Another first tensor of a dictionary of weights."""

    def change(state):
        weights = place(state)
        name = next(n for n, w in weights.items() if w.numel() > 1)
        weights[name] = make(weights[name])

    return change


def trained(state):
    return running(state)["model"]


def best(state):
    return running(state)["best_state"]


def kept(state):
    return state["best_models"][-1]


def each_history(state):
    running(state)["history"]["val_loss"].append(0.5)


RUNNING = ("trainers", 1)
OPTIMIZER = (*RUNNING, "optimizer")
GROUP = (*OPTIMIZER, "param_groups", 0)
# What is changed, and what the error says.
FAULTS = {
    "moment of another shape": (
        moment("exp_avg", lambda m: torch.zeros(1)),
        "exp_avg is a float32",
    ),
    "moment of no elements": (moment("exp_avg_sq", lambda m: torch.zeros(0)), "exp_avg_sq is a fl"),
    "moment with stride 0": (
        moment("exp_avg", lambda m: torch.zeros(()).expand(m.shape)),
        "exp_avg has strides",
    ),
    "moment of another dtype": (moment("exp_avg", lambda m: m.half()), "exp_avg is a float16"),
    "sparse moment": (moment("exp_avg", lambda m: m.to_sparse_coo()), "layout torch.sparse_coo"),
    "moment on meta": (moment("exp_avg", lambda m: m.to("meta")), "on meta"),
    "moment that is a number": (moment("exp_avg", lambda m: 0.5), "exp_avg is of type float"),
    "step that is a vector": (moment("step", lambda s: torch.ones(3)), "step is a float32 tensor"),
    "step that is a number": (moment("step", lambda s: 2), "step is of type int"),
    "integral step": (moment("step", lambda s: s.long()), "step is a int64 tensor"),
    "step missing": (lambda state: moments(state).pop("step"), "lacks 'step'"),
    "moment missing": (lambda state: moments(state).pop("exp_avg_sq"), "lacks 'exp_avg_sq'"),
    "moment too many": (
        lambda state: moments(state).update(max_exp_avg_sq=torch.ones(1)),
        "has 'max_exp_avg_sq'",
    ),
    "state of no parameter": (put(*OPTIMIZER, "state", 10**6, {}), "optimizer.state has 1000000"),
    "state of a parameter that is a list": (
        put(*OPTIMIZER, "state", 0, []),
        "state.0 is of type list",
    ),
    "no state": (put(*OPTIMIZER, "state", {}), "optimizer.state lacks 0"),
    "state None": (put(*OPTIMIZER, "state", None), "optimizer.state is None"),
    "empty optimizer": (put(*OPTIMIZER, {}), "optimizer lacks 'param_groups'"),
    "no optimizer": (drop(*OPTIMIZER), "trainer lacks 'optimizer'"),
    "no groups": (put(*OPTIMIZER, "param_groups", []), "param_groups has 0 values"),
    "group None": (put(*GROUP, None), "param_groups[0] is None"),
    "empty group": (put(*GROUP, {}), "param_groups[0] lacks 'amsgrad'"),
    "amsgrad": (put(*GROUP, "amsgrad", True), "amsgrad is True; expected False"),
    "unfused": (put(*GROUP, "fused", None), "fused is None"),
    "betas": (put(*GROUP, "betas", (0.5, 0.5)), "betas is (0.5, 0.5); expected (0.9, 0.999)"),
    "rate a tensor": (put(*GROUP, "lr", torch.ones(2)), "lr is a float32 tensor"),
    "parameters": (put(*GROUP, "params", [0]), "params has 1 values"),
    "weights of another shape": (
        weight(trained, lambda w: w.flatten()[:1]),
        "of another model: model.",
    ),
    "weights of another dtype": (weight(trained, lambda w: w.double()), "is a float64 tensor"),
    "weights that are numbers": (weight(trained, lambda w: 1), "is of type int"),
    "no weights": (put(*RUNNING, "model", {}), "of another model: model lacks"),
    "best weights of another shape": (weight(best, lambda w: w.flatten()[:1]), "best_state."),
    "best weights None": (put(*RUNNING, "best_state", None), "best_state is None"),
    "kept weights of another shape": (weight(kept, lambda w: w.flatten()[:1]), "best_models[0]."),
    "kept weights too few": (put("best_models", []), "best_models has 0 values; expected 1"),
    "kept weights a tensor": (put("best_models", torch.ones(2)), "best_models is a float32"),
    "random state too short": (put(*RUNNING, "random", "cpu", torch.ones(3)), "random.cpu is a"),
    "random state of zeros": (
        lambda state: running(state)["random"]["cpu"].zero_(),
        "random is not the state",
    ),
    "random state None": (put(*RUNNING, "random", None), "random is None"),
    "random state of a device a number": (put(*RUNNING, "random", "cuda", 3), "random.cuda is of"),
    "config None": (put("config", None), "config is of type NoneType"),
    "config of tensors": (put("config", "recipe", "lr", torch.ones(2)), "--lr is of type Tensor"),
    "recipe a list": (put("config", "recipe", [1]), "recipe is of type list"),
    "options a number": (put("config", "options", 1), "options is 1 there"),
    "results that are numbers": (put("results", [1]), "results[0] is of type int"),
    "results None": (put("results", None), "results is None"),
    "result without a field": (drop("results", 0, "seconds"), "results[0] lacks 'seconds'"),
    "result with a list for a score": (
        put("results", 0, "test_score", [1]),
        "test_score is of type",
    ),
    "history of a result": (put("results", 0, "history", "val_loss", []), "of [4, 0, 4] numbers"),
    "too many results": (
        lambda state: state.update(results=state["results"] * 4),
        "4 results of 3",
    ),
    "trainers a number": (put("trainers", 1), "trainers is of type int"),
    "trainer a number": (put(*RUNNING, 1), "trainer is of type int"),
    "trainer of a later seed": (
        lambda state: state["trainers"].update({2: running(state)}),
        "trainers has 2",
    ),
    "trainer of no number": (
        lambda state: state["trainers"].update({"x": running(state)}),
        "trainers has 'x'",
    ),
    "no trainers": (drop("trainers"), "it has no trainers"),
    "no root": (drop("root"), "it has no root"),
    "no history": (drop(*RUNNING, "history"), "trainer lacks 'history'"),
    "history empty": (put(*RUNNING, "history", {}), "history lacks 'train_loss'"),
    "history None": (put(*RUNNING, "history", "val_loss", None), "val_loss is None"),
    "history of strings": (put(*RUNNING, "history", "val_loss", ["a"]), "val_loss[0] is of type"),
    "history of one epoch more": (each_history, "history has lists of [2, 3, 2] numbers"),
    "stopping empty": (put(*RUNNING, "stopping", {}), "stopping lacks 'best_accuracy'"),
    "stopping of strings": (put(*RUNNING, "stopping", "waited", "1"), "waited is of type str"),
    "best epoch None": (put(*RUNNING, "best_epoch", None), "best_epoch is None"),
    "best epoch to come": (put(*RUNNING, "best_epoch", 99), "best_epoch is 99 of 2 epochs"),
    "seconds None": (put(*RUNNING, "seconds", None), "seconds is None"),
    "seed a tensor": (put(*RUNNING, "seed", torch.ones(2)), "has seed tensor"),
    "recipe a tensor": (put(*RUNNING, "recipe", torch.ones(2)), "has recipe tensor"),
    "format a tensor": (put("format", torch.ones(2)), "has checkpoint format tensor"),
}
# Runs of nodes have them all, each other kind a third of them.
FAULTY = [
    (kind, name)
    for (place, kind), (number, name) in itertools.product(enumerate(RUNS), enumerate(FAULTS))
    if place in (0, 1 + number % 3)
]


def try_faults(folder):
    """Continues from each faulty checkpoint; in another process, which some would end unchecked."""
    for kind, name in FAULTY:
        run = RUNS[kind](Path(folder) / kind / name)
        try:
            run.resume()
            run.train(lambda trainer: None)
            print("taken")
        except ValueError as error:
            print(str(error).replace("\n", " "))
        except Exception as error:
            print(f"{type(error).__name__} at {name}: {error}".replace("\n", " "))


def test_faults(tmp_path):
    before = {}
    for kind in RUNS:
        good = RUNS[kind](tmp_path / kind / "good")
        interrupt(good)
        state = checkpoint.load(good.checkpoint_path)
        for name in [name for other, name in FAULTY if other == kind]:
            change, faulty = FAULTS[name][0], copy.deepcopy(state)
            change(faulty)
            path = tmp_path / kind / name / "checkpoint.pt"
            path.parent.mkdir()
            torch.save(faulty, path)
            before[path] = path.read_bytes()
    code = f"import test_damaged_checkpoints as t; t.try_faults({str(tmp_path)!r})"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(FOLDER)])},
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, (result.returncode, result.stdout, result.stderr[-2000:])
    lines = result.stdout.splitlines()
    for case, (path, content), line in zip(FAULTY, before.items(), lines, strict=True):
        words = FAULTS[case[1]][1]
        assert words in line and str(path) in line and "Error at" not in line, (case, line)
        assert path.read_bytes() == content and len(list(path.parent.iterdir())) == 1, case


@pytest.mark.parametrize("kind", RUNS)
def test_settings_of_another_type_are_not_loaded(kind, tmp_path):
    run = RUNS[kind](tmp_path)
    interrupt(run)
    state = checkpoint.load(run.checkpoint_path)
    changes = [{"options": 1}, {"options": {"depth": 3}}, {"dataset": [1]}, {"dataset": None}]
    changes += [{f"{run.unit}s": "3"}, {"seed": "3"}]
    recipe = state["config"]["recipe"]
    changes += [{"recipe": recipe | {"lr": "x"}}, {"recipe": recipe | {"patience": None}}]
    for change in changes:
        torch.save(state | {"config": state["config"] | change}, run.checkpoint_path)
        with pytest.raises(ValueError) as caught:
            training.load(tmp_path)
        assert str(run.checkpoint_path) in str(caught.value), change


@pytest.mark.parametrize("kind", RUNS)
def test_good_ones_are_taken(kind, tmp_path):
    """In the middle, before the first epoch, between two trainings, and when all is done."""
    interrupt(RUNS[kind](tmp_path))
    whole, saved = RUNS[kind](tmp_path), []
    whole.resume()
    save = whole.save_checkpoint

    def save_and_keep():
        save()
        saved.append(whole.checkpoint_path.read_bytes())

    whole.save_checkpoint = save_and_keep
    whole.train(lambda trainer: None)
    assert len(saved) == 4  # begin and end of two trainings
    for content in saved:
        whole.checkpoint_path.write_bytes(content)
        other = RUNS[kind](tmp_path)
        other.resume()
        other.train(lambda trainer: None)
        assert [r.history for r in other.results] == [r.history for r in whole.results]


# ---- the command line


def cli(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


OPTIONS = ("train", "gat", "--dataset", "karate", "--epochs", 2)


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert cli(*OPTIONS, "--out", folder).exit_code == 0
    return folder


@pytest.fixture
def finished(trained_run, tmp_path):
    """The options of a run that is done, and its checkpoint."""
    folder = shutil.copytree(trained_run, tmp_path / "run")
    return (*OPTIONS, "--out", folder), folder / "checkpoint.pt"


def assert_refused(options, path, words):
    """In one sentence, with every file as it was."""
    before = {p: p.read_bytes() for p in path.parent.iterdir()}
    result = cli(*options, "--resume")
    assert result.exit_code == 1 and result.output.startswith("Error: "), result.output
    assert words in result.output and str(path) in result.output
    assert {p: p.read_bytes() for p in path.parent.iterdir()} == before


def test_truncated(finished):
    options, path = finished
    content = path.read_bytes()
    for length in (0, 1, 4, 100, len(content) // 2, len(content) - 100, len(content) - 1):
        path.write_bytes(content[:length])
        assert_refused(options, path, "it is damaged")
    path.write_bytes(content[:1000] + bytes(1000) + content[2000:])
    assert_refused(options, path, "it is damaged")


def values_of(state):
    """All that is in a checkpoint, tensors as bytes."""
    return [v.numpy().tobytes() if isinstance(v, torch.Tensor) else v for v in tree_leaves(state)]


def test_flipped_bits(finished):
    """Each is refused, in the weights too, or is in bytes that nothing reads."""
    _, path = finished
    content, state = path.read_bytes(), checkpoint.load(path)
    names = [name for name, weight in state["best_models"][0].items() if weight.numel() > 30]
    stored = state["best_models"][0][names[0]].numpy().tobytes()
    weights = content.index(stored)
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(len(content), (60,), generator=generator).tolist()
    refused = 0
    for place in [weights, weights + len(stored) - 1, *places]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        try:
            again = checkpoint.load(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert place not in (weights, weights + len(stored) - 1)
            assert values_of(again) == values_of(state)
    assert refused > 20


def test_command_line(finished):
    options, path = finished
    state = checkpoint.load(path)
    assert cli(*options, "--resume").exit_code == 0
    for change, words in (
        (put("config", None), "config"),
        (put("results", [3]), "results[0]"),
        (put("best_models", []), "best_models"),
        (weight(kept, lambda w: w.flatten()[:1]), "best_models[0]"),
    ):
        faulty = copy.deepcopy(state)
        change(faulty)
        torch.save(faulty, path)
        assert_refused(options, path, words)


def test_a_folder_in_its_place_is_an_error_of_the_system(finished):
    options, path = finished
    path.unlink()
    path.mkdir()
    result = cli(*options, "--resume")
    assert result.exit_code == 1 and "Is a directory" in result.output
