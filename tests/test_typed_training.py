"""HGT and ``gat-ext train hgt``: the model, runs that stop and go on, the report."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from typer.testing import CliRunner

from gat_ext import SparseFeatures, datasets, models, training
from gat_ext.nn import HGTConv
from gat_ext.training import Recipe
from gat_ext.training.cli import app
from gat_ext.training.typed_loop import TypedTrainer
from gat_ext.training.typed_run import TypedRun, TypedRunConfig

WRITES, BY = ("author", "writes", "paper"), ("paper", "by", "author")
META = (["author", "paper", "note"], [WRITES, BY, ("note", "on", "paper")])


@pytest.fixture(scope="module")
def data():
    return datasets.load_typed(
        "academic", num_papers=300, num_authors=60, num_venues=60, num_val=50
    )


def call():
    torch.manual_seed(0)
    x = {"paper": torch.randn(6, 7), "author": torch.rand(4, 40), "note": torch.randn(2, 3)}
    x["author"][torch.rand(4, 40) > 0.1] = 0
    edges = {
        WRITES: torch.randint(4, (2, 9)),
        BY: torch.randint(4, (2, 8)),
        ("note", "on", "paper"): torch.tensor([[1], [5]]),
    }
    return x, edges


def test_the_model_is_its_layers():
    """Sizes from the first input, sparse features, masks of every layer, a type without edges."""
    x, edges = call()
    torch.manual_seed(0)
    model = models.HGT(-1, 8, 3, META, "paper", heads=2, dropout=0.5)
    model(x, edges)
    model.eval()
    assert model.lin_in.lins["author"].in_features == 40
    h = {kind: lin(x[kind]).relu() for kind, lin in model.lin_in.lins.items()}
    for layer in model.layers:
        assert isinstance(layer, HGTConv)
        h = {**h, **layer(h, edges)}
    out = model(x, edges)
    assert_close(out, model.lin_out(h["paper"]))
    assert_close(model({**x, "author": SparseFeatures(x["author"])}, edges), out)
    mask = {WRITES: torch.arange(9) % 2 == 0}
    assert torch.equal(model(x, edges, edge_mask=mask), model(x, edges, edge_weight=mask))
    assert not torch.allclose(model(x, edges, edge_mask=mask), out)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_close(compiled(x, edges), out)
    before = [p.clone() for p in model.parameters()]
    model.reset_parameters()
    assert not torch.equal(before[-1], [*model.parameters()][-1])


def test_attention_weights():
    """Of all relations, with nodes numbered type by type; the mode of the model is restored."""
    x, edges = call()
    model = models.HGT(-1, 8, 3, META, "paper", heads=2)
    model(x, edges)
    layers = model.attention_weights(x, edges)
    assert model.training and len(layers) == 2
    for joined, alpha in layers:
        assert alpha.shape == (18, 2)
        assert joined[:, -1].tolist() == [6 + 4 + 1, 5]
        assert torch.equal(joined[:, :9], edges[WRITES] + torch.tensor([[6], [0]]))
        total = torch.zeros(12, 2).index_add(0, joined[1], alpha)
        assert_close(total, (total > 0).float())


def test_han_is_its_layers_over_meta_paths(data):
    """Other types than the target are not read; a data set without meta-paths is refused."""
    edges = data.metapath_edge_index
    model = models.HAN(-1, 8, 4, (["paper"], [*edges]), "paper", num_layers=2, heads=2)
    model(data.x, edges)
    model.eval()
    h = {"paper": data.x["paper"]}
    for layer in model.layers:
        h = layer(h, edges)
    assert torch.equal(model(data.x, edges), model.lin_out(h["paper"]))
    assert model.attention_weights(data.x, edges) == []
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_close(compiled(data.x, edges), model(data.x, edges))
    model.reset_parameters()
    assert not torch.equal(model(data.x, edges), model.lin_out(h["paper"]))
    with pytest.raises(ValueError, match="expected features of the target, 'paper', too"):
        model({"author": data.x["author"]}, edges)
    with pytest.raises(ValueError, match="target is 'a'; expected a type that a meta-path"):
        models.HAN(-1, 8, 4, (["paper"], [*edges]), "a")
    with pytest.raises(ValueError, match="academic has no meta-paths"):
        TypedRunConfig("han", "academic", 0, 1, Recipe(), {}).make_model(
            replace(data, metapaths=())
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "note"}, "target is 'note'; expected a type that a relation"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": 2}, "dropout is 2"),
        ({"heads": 3}, "out_channels is 8 and heads is 3"),
    ],
)
def test_refusals(change, message):
    options = {"target": "paper"} | change
    with pytest.raises(ValueError, match=message):
        models.HGT(-1, 8, 3, META, **options)


def test_refused_calls():
    x, edges = call()
    model = models.HGT({"paper": 7, "author": 40, "note": 3}, 8, 3, META, "paper")
    for given, message in (
        ({"author": x["author"]}, "expected features of the target, 'paper', too"),
        ({**x, "paper": x["paper"][:, :5]}, r"x_dict\['paper'\] has shape \[6, 5\]; HGT"),
        ({**x, "venue": x["paper"]}, "x_dict has the key 'venue'"),
    ):
        with pytest.raises(ValueError, match=message):
            model(given, {} if "paper" not in given else edges)


def test_a_run_stops_goes_on_and_learns(data, tmp_path):
    """Bitwise as the run that was not interrupted; more epochs continue it."""
    how = Recipe(lr=0.03, epochs=8, patience=8, stopping="best")
    config = TypedRunConfig("hgt", "academic", 0, 2, how, {"hidden_channels": 8, "heads": 2})
    whole = TypedRun(config, data, tmp_path / "whole")
    whole.train(lambda trainer: None)

    class Stop(Exception):
        pass

    def stop(trainer):
        if trainer.seed == 1 and trainer.epoch == 3:
            cut.save_checkpoint()
            raise Stop

    cut = TypedRun(config, data, tmp_path / "cut")
    with pytest.raises(Stop):
        cut.train(stop)
    again = TypedRun(replace(config, seeds=3), data, tmp_path / "cut")
    again.resume()
    again.train(lambda trainer: None)
    for one, other in zip(whole.results, again.results[:2], strict=True):
        assert (one.history, one.test_score) == (other.history, other.test_score)
    losses = again.results[2].history["train_loss"]
    assert losses[-1] < 0.8 * losses[0]
    with pytest.raises(ValueError, match="--heads is 2 there and 4 here"):
        TypedRun(
            replace(config, options={"hidden_channels": 8, "heads": 4}), data, tmp_path / "cut"
        ).resume()
    no_test = replace(data, test_mask=torch.zeros(300, dtype=torch.bool))
    with pytest.raises(ValueError, match="test_mask is empty"):
        TypedTrainer(lambda: config.make_model(data), no_test, how, 0)


def test_the_command_line(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(app, list(map(str, arguments)))

    options = ("--epochs", 12, "--hidden", 32, "--layers", 1, "--lr", 0.02, "--bf16")
    result = run("train", "hgt", *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert (
        "hgt on academic: nodes: 800 author, 2000 paper, 800 venue; 21862 edges of 5"
        in result.output
    )
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["config"]["options"] == {"num_layers": 1, "hidden_channels": 32}
    assert report["test_score_mean"] > report["logistic_regression"] + 0.1
    names = {"metrics.json", "curves.png", "attention.png", "checkpoint.pt"}
    assert {path.name for path in tmp_path.iterdir()} == names
    saved = training.load(tmp_path)
    assert saved.model(saved.data.x, saved.data.edge_index).shape == (2000, 4)
    longer = run("train", "hgt", *options, "--epochs", 13, "--resume", "--out", tmp_path)
    assert longer.exit_code == 0, longer.output
    assert json.loads((tmp_path / "metrics.json").read_text())["seeds"][0]["epochs"] == 13
    for wrong, message in (
        (("--dataset", "cora"), "is for models that classify nodes"),
        (("--reorder", "rcm"), "leave it out"),
    ):
        refused = run("train", "hgt", *wrong, "--out", tmp_path / "none")
        assert refused.exit_code == 2 and message in " ".join(refused.output.split()), (
            refused.output
        )
