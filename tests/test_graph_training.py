"""Training on graphs: loop, cross-validation, checkpoint, pictures and the command line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from matplotlib.image import imread
from small_graphs import paths
from torch.nn import functional as F
from typer.testing import CliRunner

from gat_ext.training import walk_plots
from gat_ext.training.checkpointed import Interrupted
from gat_ext.training.cli import app
from gat_ext.training.graph_loop import GraphRecipe, GraphTrainer
from gat_ext.training.graph_run import GraphRun, GraphRunConfig

SMALL = {"hidden_channels": 8, "num_agents": 2, "num_steps": 4, "step_channels": (6, 8)}
OUTPUTS = {"metrics.json", "curves.png", "walks.png", "checkpoint.pt"}


def config(model="gam", **changes):
    recipe = GraphRecipe(epochs=4, batch_size=8).with_overrides(**changes.pop("recipe", {}))
    fields = {"dataset": "paths", "seed": 0, "folds": 2, "subset": None, "options": SMALL}
    return GraphRunConfig(model=model, recipe=recipe, **{**fields, **changes})


def train(run):
    run.train(lambda trainer: None)
    return run


@pytest.mark.parametrize("model", ["gam", "gam-mem"])
def test_learns_what_is_easy(model, tmp_path):
    recipe = {"epochs": 80, "lr": 0.01, "final_lr": 0.005}
    run = train(GraphRun(config(model, recipe=recipe), paths(), tmp_path))
    mean, deviation = run.summary()
    scores = [result.test_score for result in run.results]
    assert mean == pytest.approx(sum(scores) / 2) and mean >= 0.9
    assert deviation == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
    losses = run.results[0].history["train_loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_learning_rate_falls_from_first_to_last_epoch():
    data, rates = paths(), []
    recipe = GraphRecipe(epochs=3, lr=0.01, final_lr=1e-4)
    trainer = GraphTrainer(lambda: config().make_model(data), data, data.folds(2)[0], recipe, 0)
    more = True
    while more:
        more = trainer.step()
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.001, 0.0001])
    assert not trainer.step() and trainer.epoch == 3


def test_training_stops_when_validation_stops_improving():
    data = paths()
    recipe = GraphRecipe(epochs=100, patience=2, lr=1e-12, final_lr=1e-12)
    trainer = GraphTrainer(lambda: config().make_model(data), data, data.folds(2)[0], recipe, 0)
    while trainer.step():
        pass
    assert trainer.epoch - trainer.best_epoch == 2 and trainer.epoch < 100


def test_kept_weights_are_those_of_the_best_epoch_and_test_graphs_play_no_part():
    data = paths()
    fold = data.folds(2)[0]
    flipped = data.y.clone()
    flipped[fold.test] = 1 - flipped[fold.test]
    results = []
    for labels in (data.y, flipped):
        given = data._derive(y=labels)
        make = lambda given=given: config().make_model(given)  # noqa: E731
        trainer = GraphTrainer(make, given, fold, GraphRecipe(epochs=5, lr=0.02), seed=3)
        while trainer.step():
            pass
        results.append(trainer.result())
    one, two = results
    assert one.history == two.history and one.best_epoch == two.best_epoch
    assert one.val_score == one.history["val_score"][one.best_epoch - 1]
    assert one.test_score == pytest.approx(1 - two.test_score)


def test_loss_that_is_not_finite():
    data = paths()
    trainer = GraphTrainer(
        lambda: config().make_model(data), data, data.folds(2)[0], GraphRecipe(), 0
    )
    with torch.no_grad():
        trainer.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="epoch 1; try a smaller learning rate"):
        trainer.step()


def test_interrupted_and_resumed_is_as_if_never_stopped(tmp_path):
    whole = train(GraphRun(config(), paths(), tmp_path / "whole"))
    cut = GraphRun(config(), paths(), tmp_path / "cut")
    epochs = []

    def stop(trainer):
        epochs.append(trainer.epoch)
        if len(epochs) == 6:  # in the second fold
            cut.save_checkpoint()
            raise Interrupted

    with pytest.raises(Interrupted):
        cut.train(stop)
    resumed = GraphRun(config(), paths(), tmp_path / "cut")
    resumed.resume()
    train(resumed)
    for one, two in zip(whole.results, resumed.results, strict=True):
        assert (one.history, one.test_score) == (two.history, two.test_score)
    other = GraphRun(config(seed=1), paths(), tmp_path / "cut")
    with pytest.raises(ValueError, match="--seed is 0 there and 1 here"):
        other.resume()


def test_pictures(tmp_path):
    run = train(GraphRun(config(), paths(), tmp_path))
    run.report()
    assert {path.name for path in tmp_path.iterdir()} == OUTPUTS
    for name in ("curves.png", "walks.png"):
        image = imread(tmp_path / name)
        assert min(image.shape[:2]) > 300 and image[..., :3].std() > 0.01
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["test_score_mean"] == run.summary()[0]
    assert [fold["fold"] for fold in report["folds"]] == [1, 2]


def test_layout_follows_the_distances():
    position = walk_plots._layout(paths(2).subset([0]))
    gaps = ((position[1:] - position[:-1]) ** 2).sum(1) ** 0.5
    ends = ((position[0] - position[4]) ** 2).sum() ** 0.5
    assert gaps.max() < 1.2 * gaps.min() and ends > 3.5 * gaps.mean()


def cli(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("model", "walk"), [("gam", "attention"), ("gam", "greedy"), ("gam-mem", "uniform")]
)
def test_command_line(model, walk, tmp_path):
    options = ("--folds", 2, "--subset", 40, "--epochs", 2, "--hidden", 8, "--walk", walk)
    result = cli("train", model, *options, "--seed", 1, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == OUTPUTS
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["config"]["options"] == {"walk": walk, "hidden_channels": 8}
    assert report["graphs"] == 40 and report["config"]["dataset"] == "shapes"
    mean, deviation = 100 * report["test_score_mean"], 100 * report["test_score_std"]
    last = result.output.strip().splitlines()[-1]
    assert last == f"Test accuracy: {mean:.1f} ± {deviation:.1f} % (2 folds)"
    if walk == "greedy":
        again = cli("train", model, *options, "--seed", 1, "--out", tmp_path, "--resume")
        assert again.exit_code == 0 and again.output.strip().splitlines()[-1] == last


def test_agents_see_attributes_where_they_are_asked_to(tmp_path):
    """The classes differ in x alone, which types do not tell."""
    plain = replace(paths(), node_type=torch.zeros(200, dtype=torch.int64), signal_types=())
    data = replace(plain, x=F.one_hot(paths().node_type, 3).float())
    recipe = {"epochs": 40, "lr": 0.01, "final_lr": 0.005}
    run = train(GraphRun(config(recipe=recipe, attributes=True), data, tmp_path))
    assert run.summary()[0] >= 0.9
    blind = train(GraphRun(config(recipe={"epochs": 2}), data, tmp_path))
    assert blind.summary()[0] == 0.5
    with pytest.raises(ValueError, match="paths has no attributes of nodes; leave --attributes"):
        train(GraphRun(config(attributes=True), plain, tmp_path))


def test_colours_tell_the_surroundings(tmp_path):
    """The middle of a path, which has the type, is told apart from its neighbours by them."""
    run = GraphRun(config(types="wl1"), paths(), tmp_path)
    # Ends, and what is beside the middle and the middle itself of each class.
    assert run.data.num_types == 5
    options = ("--folds", 2, "--subset", 100, "--epochs", 1, "--hidden", 8, "--types", "degree")
    result = CliRunner().invoke(app, ["train", "gam", *map(str, options), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["config"]["types"] == "degree" and not report["config"]["attributes"]


MISTAKES = [
    (
        ("gam", "--seeds", "2"),
        "--seeds: it is for models that classify nodes or embed nodes or classify nodes of several "
        "types, and gam",
    ),
    (("gam-mem", "--heads", "2"), "--heads: it is for models that classify nodes"),
    (("gam", "--weight-decay", "0"), "--weight-decay: it is for models that classify nodes"),
    (
        ("gat", "--folds", "5"),
        "--folds: it is for models that classify graphs or classify graphs by pooling, and gat is "
        "for those that classify nodes; leave it out, or give --task graph",
    ),
    (
        ("gat", "--dataset", "tu:MUTAG", "--seeds", "2"),
        "--seeds: it is for models that classify nodes or embed nodes or classify nodes of several "
        "types, and gat is for those that classify graphs by pooling; leave it out ",
    ),
    (("gam", "--pooling", "sum"), "--pooling: it is for models that classify graphs by pooling"),
    (("gat", "--task", "graph", "--walk", "greedy"), "--walk: it is for models that classify gr"),
    (("gat", "--task", "graph", "--pooling", "median"), "no pooling is called 'median'; choose"),
    (("agnn", "--task", "graph", "--heads", "2"), "--heads: agnn has no heads; leave it out"),
    (
        ("agnn", "--task", "graph", "--edge-attributes"),
        "--edge-attributes: agnn sees no attributes of edges; leave it out",
    ),
    (("gam", "--task", "node"), "--task: gam has no task 'node'; expected graph; or leave it out"),
    (("gat", "--task", "edge"), "no task is called 'edge'; choose one of"),
    (
        ("gat", "--task", "graph", "--dataset", "cora"),
        "'cora' is for models that classify nodes or embed nodes; give --task node, or one of",
    ),
    (
        ("gat", "--task", "node", "--dataset", "tu:NCI1"),
        "'tu:NCI1' is for models that classify graphs or classify graphs by pooling; give --task "
        "graph, or one of",
    ),
    (("gat", "--walk", "greedy"), "--walk: it is for models that classify graphs"),
    (("gat", "--subset", "10"), "--subset: it is for models that classify graphs"),
    (
        ("gam", "--dataset", "cora"),
        "'cora' is for models that classify nodes or embed nodes; gam needs one of",
    ),
    (
        ("gam", "--dataset", "shpes"),
        "no data set of graphs is called 'shpes'; choose one of shapes",
    ),
    (
        ("gat", "--dataset", "tu-MUTAG"),
        "no data set is called 'tu-MUTAG'; choose one of tu:NAME, ",
    ),
    (
        ("gat", "--task", "graph", "--dataset", "MUTAG"),
        "no data set of graphs is called 'MUTAG'; choose one of",
    ),
    (("gam", "--walk", "random"), "no walk is called 'random'"),
    (("gam", "--folds", "1"), "folds"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=lambda v: str(v))
def test_mistakes_of_the_command_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    result = cli("train", *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_mistakes_in_the_data(tmp_path):
    for options, words in (
        (("--subset", 7), "--subset is 7; expected a multiple of 2, the number of classes of"),
        (("--subset", 2000), "the smallest class of shapes has 500: give at most 1000"),
        (("--folds", 600), "--folds is 600; expected at most 500, the size of the smallest class"),
        (
            ("--dataset", "digit_grids", "--subset", 100, "--folds", 2),
            "--folds is 2: the validation part of a fold, a tenth of its training graphs, cannot",
        ),
    ):
        result = cli("train", "gam", *options, "--out", tmp_path / "a")
        assert result.exit_code == 1 and result.output.startswith("Error: "), result.output
        assert words in result.output
    result = cli(
        "train", "gam", "--dataset", "tu:NCI1", "--root", tmp_path, "--out", tmp_path / "b"
    )
    assert result.exit_code == 1 and result.output.startswith("Error: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_other_targets_than_classes(task, tmp_path):
    y = torch.eye(40)[:, :3]
    data = replace(paths(), y=y, num_classes=0 if task == "regression" else 3)
    words = rf"needs one class for each graph, and paths has targets for {task}, y \[40, 3\]"
    with pytest.raises(ValueError, match=f"gam {words}"):
        GraphRun(config(), data, tmp_path)
    with pytest.raises(ValueError, match=f"training {words}"):
        GraphTrainer(config().make_model, data, data.folds(2)[0], GraphRecipe(), 0)


def test_other_targets_than_classes_on_the_command_line(tmp_path):
    files = {"A": "1,2\n2,1\n", "graph_indicator": "1\n1\n2\n", "graph_labels": "0.5\n-1\n"}
    for part, content in files.items():
        (tmp_path / f"REAL_{part}.txt").write_text(content)
    out = tmp_path / "out"
    result = cli("train", "gam", "--dataset", "tu:REAL", "--root", tmp_path, "--out", out)
    assert result.exit_code == 1 and not out.exists()
    assert result.output.startswith("Error: gam needs one class for each graph, and tu:REAL has")
