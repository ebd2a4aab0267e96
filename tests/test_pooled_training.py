"""Training attention models on graphs: loop, cross-validation, report and the command line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from matplotlib.image import imread
from small_graphs import paths
from torch.nn import functional as F
from typer.testing import CliRunner

from gat_ext import models
from gat_ext.datasets import load
from gat_ext.training import Recipe
from gat_ext.training import load as load_run
from gat_ext.training.checkpointed import Interrupted
from gat_ext.training.cli import app
from gat_ext.training.pooled_loop import PooledRecipe, PooledTrainer
from gat_ext.training.pooled_run import PooledRun, PooledRunConfig
from gat_ext.training.run import Run, RunConfig

OUTPUTS = {"metrics.json", "curves.png", "attention.png", "checkpoint.pt"}


def config(model="gat", **changes):
    recipe = PooledRecipe(epochs=4, batch_size=8).with_overrides(**changes.pop("recipe", {}))
    options = {"hidden_channels": 8, "num_layers": 2} | changes.pop("options", {})
    fields = {"dataset": "paths", "seed": 0, "folds": 2, "subset": None, "options": options}
    return PooledRunConfig(model=model, recipe=recipe, **{**fields, **changes})


def train(run):
    run.train(lambda trainer: None)
    return run


@pytest.mark.parametrize(
    ("model", "pooling"),
    [("gat", "mean"), ("gatv2", "sum"), ("agnn", "attention"), ("transformer", "mean")],
)
def test_learns_what_is_easy(model, pooling, tmp_path):
    sizes = {"pooling": pooling, "hidden_channels": 16}
    how = config(model, recipe={"epochs": 40}, options=sizes)
    run = train(PooledRun(how, paths(), tmp_path))
    assert run.summary() == (1.0, 0.0)
    losses = run.results[0].history["train_loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_models_see_attributes_where_they_are_asked_to(tmp_path):
    """The classes differ in x alone, which types do not tell."""
    plain = replace(paths(), node_type=torch.zeros(200, dtype=torch.int64), signal_types=())
    data = replace(plain, x=F.one_hot(paths().node_type, 3).float())
    seeing = train(PooledRun(config(recipe={"epochs": 15}, attributes=True), data, tmp_path))
    assert seeing.summary()[0] == 1.0 and torch.equal(seeing.data.x, data.x)
    blind = train(PooledRun(config(recipe={"epochs": 15}), data, tmp_path))
    assert blind.summary()[0] == 0.5 and blind.data.x.shape == (200, 3)
    with pytest.raises(ValueError, match="paths has no attributes of nodes; leave --attributes"):
        PooledRun(config(attributes=True), plain, tmp_path)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("model", ["gat", "gatv2", "transformer"])
def test_attention_sees_attributes_of_edges_where_it_is_asked_to(model, tmp_path):
    """The classes differ in edge_attr alone, of the edge from the second node to the third."""
    data = paths()
    source, target = data.edge_index % 5
    label = data.y[data.graph_ids[data.edge_index[0]]]
    marked = F.one_hot(torch.where((source == 1) & (target == 2), 1 + label, 0), 3).float()
    # The second node has a type of its own, so that more attention to it makes a difference.
    types = (torch.arange(200) % 5 == 1).long()
    data = replace(data, edge_attr=marked, node_type=types, num_types=2, signal_types=())
    how = config(model, recipe={"epochs": 60, "lr": 0.02}, edge_attributes=True)
    run = train(PooledRun(how, data, tmp_path))
    assert run.summary()[0] >= 0.9
    run.report()
    assert (tmp_path / "attention.png").exists()
    blind = train(PooledRun(config(model, recipe={"epochs": 5}), data, tmp_path))
    assert blind.summary()[0] == 0.5
    with pytest.raises(ValueError, match="paths has no attributes of edges; leave --edge-attri"):
        PooledRun(how, paths(), tmp_path)


def with_targets(num_graphs=60):
    """Paths with two real targets, of different scales, one for each class, and a constant."""
    data = paths(num_graphs)
    y = data.y.float()
    return replace(
        data, y=torch.stack([5000 + 800 * y, 0.01 * (1 - y), y * 0 + 3], 1), num_classes=0
    )


def test_real_targets_are_learned_in_their_own_units(tmp_path):
    data = with_targets()
    run = train(PooledRun(config(recipe={"epochs": 40, "lr": 0.02}), data, tmp_path))
    mean, _ = run.summary()
    assert run.metric.name == "mean absolute error"
    *_, baseline = run.report()
    report = json.loads((tmp_path / "metrics.json").read_text())
    # Half of the graphs are 800 or 0.01 away from the median; the third target is constant.
    assert report["error_of_medians"] == pytest.approx(400.005 / 3, rel=1e-4)
    assert baseline == "Predicting the median has a mean absolute error of 133.3"
    assert report["metric"] == "mean absolute error" and report["test_score_mean"] == mean
    assert mean < 0.1 * report["error_of_medians"]
    assert "real targets: 3" in run.headline
    fold = run.folds[0]
    model = run.make_model().eval()
    model.load_state_dict(run.best_models[0])
    out = model(run.data.x, run.data.graph, node_ptr=run.data.node_ptr)
    error = (out - data.y)[fold.test].abs().mean().item()
    assert error == pytest.approx(run.results[0].test_score, rel=1e-4)
    assert torch.equal(model.head[1].mean, data.y[fold.train].mean(0))  # of no other graphs
    history = run.results[0].history
    best = run.results[0].best_epoch - 1
    assert history["val_score"][best] == min(history["val_score"]) == run.results[0].val_score
    assert history["train_loss"][0] < 20  # whatever the units


def test_several_labels_give_micro_f1(tmp_path):
    data = paths(60)
    one_hot = torch.stack([data.y, 1 - data.y, torch.ones_like(data.y)], 1).float()
    data = replace(data, y=one_hot, num_classes=3)
    run = train(PooledRun(config(recipe={"epochs": 15}), data, tmp_path))
    assert run.summary() == (1.0, 0.0) and run.metric.name == "micro-F1"
    assert not any("class" in line for line in run.report()) and "3 labels" in run.headline
    with pytest.raises(ValueError, match="--subset needs one class for each graph, and paths has"):
        PooledRun(config(subset=20), data, tmp_path)
    with pytest.raises(
        ValueError, match="--folds is 61; expected at most 60, the number of graphs"
    ):
        PooledRun(config(folds=61), data, tmp_path)


def test_real_targets_on_the_command_line(tmp_path):
    """The lowest error chooses the fold that is loaded."""
    graphs = range(12)
    files = {
        "A": "".join(f"{2 * g + 1},{2 * g + 2}\n{2 * g + 2},{2 * g + 1}\n" for g in graphs),
        "graph_indicator": "".join(f"{g + 1}\n{g + 1}\n" for g in graphs),
        "node_labels": "".join(f"{g % 2}\n{g % 3}\n" for g in graphs),
        "graph_attributes": "".join(f"{g % 2 + 0.5}, {10 * (g % 3)}\n" for g in graphs),
    }
    for part, content in files.items():
        (tmp_path / f"REAL_{part}.txt").write_text(content)
    options = ("--root", tmp_path, "--folds", 3, "--epochs", 2, "--verbose")
    result = cli("gat", "--dataset", "tu:REAL", *options, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    mean, deviation = report["test_score_mean"], report["test_score_std"]
    *_, last = result.output.strip().splitlines()
    assert last == f"Test mean absolute error: {mean:.4g} ± {deviation:.4g} (3 folds)"
    assert "accuracy" not in result.output
    saved = load_run(tmp_path / "out")
    scores = {fold["fold"]: fold["val_score"] for fold in report["folds"]}
    assert saved.seed == min(scores, key=scores.get)


def test_types_and_subset(tmp_path):
    run = PooledRun(config(types="wl1", subset=40), paths(60), tmp_path)
    assert len(run.data) == 40 and run.data.num_types == 5
    assert torch.equal(run.data.x, F.one_hot(run.data.node_type, 5).float())


def test_test_graphs_play_no_part():
    results = []
    for flip in (False, True):
        data = paths()
        fold = data.folds(2)[0]
        labels = data.y.clone()
        labels[fold.test] ^= flip
        data = replace(data, x=F.one_hot(data.node_type, 3).float(), y=labels)
        make = lambda data=data: config().make_model(data)  # noqa: E731
        trainer = PooledTrainer(make, data, fold, PooledRecipe(epochs=3), seed=3)
        while trainer.step():
            pass
        results.append(trainer.result())
    one, two = results
    assert one.history == two.history and one.best_epoch == two.best_epoch
    assert one.test_score == pytest.approx(1 - two.test_score)


def test_learning_rate_falls_and_biases_do_not_decay():
    data = replace(paths(), x=torch.ones(200, 1))
    recipe = PooledRecipe(epochs=3, lr=0.01, final_lr=1e-4, weight_decay=0.1)
    trainer = PooledTrainer(
        lambda: config().make_model(data), data, data.folds(2)[0], recipe, seed=0
    )
    rates, more = [], True
    while more:
        more = trainer.step()
        rates.append([group["lr"] for group in trainer.optimizer.param_groups])
    assert rates == [pytest.approx([rate] * 2) for rate in (0.01, 0.001, 0.0001)]
    decayed, biases = trainer.optimizer.param_groups
    assert (decayed["weight_decay"], biases["weight_decay"]) == (0.1, 0.0)
    assert sum(len(group["params"]) for group in (decayed, biases)) == len(
        list(trainer.model.parameters())
    )


def test_trainer_needs_features():
    data = paths()
    with pytest.raises(ValueError, match="paths has no x, which the model reads; expected feat"):
        PooledTrainer(lambda: None, data, data.folds(2)[0], PooledRecipe(), 0)


def test_interrupted_and_resumed_is_as_if_never_stopped(tmp_path):
    whole = train(PooledRun(config(), paths(), tmp_path / "whole"))
    cut = PooledRun(config(), paths(), tmp_path / "cut")
    epochs = []

    def stop(trainer):
        epochs.append(trainer.epoch)
        if len(epochs) == 6:  # in the second fold
            cut.save_checkpoint()
            raise Interrupted

    with pytest.raises(Interrupted):
        cut.train(stop)
    resumed = PooledRun(config(), paths(), tmp_path / "cut")
    resumed.resume()
    train(resumed)
    for one, two in zip(whole.results, resumed.results, strict=True):
        assert (one.history, one.test_score) == (two.history, two.test_score)
    other = PooledRun(config(options={"pooling": "mean"}), paths(), tmp_path / "cut")
    with pytest.raises(ValueError, match="--pooling is not set there and mean here"):
        other.resume()


def test_run_on_nodes_is_not_continued_as_one_on_graphs(tmp_path):
    nodes = Run(RunConfig("gat", "karate", 0, 1, Recipe(epochs=1), {}), load("karate"), tmp_path)
    train(nodes)
    with pytest.raises(ValueError, match="--task is not set there and graph here"):
        PooledRun(config(), paths(), tmp_path).resume()


@pytest.mark.parametrize("model", models.available())
def test_any_number_of_threads_trains_the_same_weights(model, tmp_path):
    threads, runs = torch.get_num_threads(), []
    torch.use_deterministic_algorithms(True)
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            how = config(model, recipe={"epochs": 2}, options={"pooling": "attention"})
            runs.append(train(PooledRun(how, paths(400), tmp_path / str(number))))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    one, other = (run.best_models[0] for run in runs)
    assert runs[0].results[0].history == runs[1].results[0].history
    assert all(torch.equal(one[key], other[key]) for key in one)


def cli(*arguments):
    return CliRunner().invoke(app, list(map(str, ("train", *arguments))))


@pytest.mark.parametrize("how", [("gatv2", "--task", "graph"), ("agnn", "--dataset", "shapes")])
def test_command_line(how, tmp_path):
    options = ("--folds", 2, "--subset", 40, "--epochs", 2, "--layers", 2, "--hidden", 4)
    rest = ("--pooling", "attention", "--types", "wl1", "--weight-decay", 0.01, "--seed", 1)
    result = cli(*how, *options, *rest, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == OUTPUTS
    for name in ("curves.png", "attention.png"):
        image = imread(tmp_path / name)
        assert min(image.shape[:2]) > 300 and image[..., :3].std() > 0.01
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["config"]["options"] == {
        "pooling": "attention",
        "num_layers": 2,
        "hidden_channels": 4,
    }
    assert report["config"]["task"] == "graph" and report["config"]["types"] == "wl1"
    assert report["config"]["recipe"]["weight_decay"] == 0.01
    assert report["graphs"] == 40 and report["largest_class"] == 0.5 and report["deterministic"]
    assert [fold["fold"] for fold in report["folds"]] == [1, 2]
    *_, baseline, last = result.output.strip().splitlines()
    assert baseline == "The largest class has 50.0 % of the graphs"
    mean, deviation = 100 * report["test_score_mean"], 100 * report["test_score_std"]
    assert last == f"Test accuracy: {mean:.1f} ± {deviation:.1f} % (2 folds)"


def test_published_data_set(data_dir, tmp_path):
    """Better than the largest class, which has 66.5 % of the graphs."""
    options = ("--folds", 2, "--epochs", 30, "--keep", "last", "--types", "degree")
    result = cli("gat", "--dataset", "tu:MUTAG", "--root", data_dir, *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["largest_class"] == pytest.approx(125 / 188)
    assert report["test_score_mean"] > 0.7
