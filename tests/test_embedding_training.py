"""Training of node embeddings: the loop, the run and its pictures, the command line."""

from __future__ import annotations

import json

import pytest
import torch
from matplotlib.image import imread
from typer.testing import CliRunner

from gat_ext import datasets
from gat_ext.training.checkpointed import Interrupted
from gat_ext.training.cli import app
from gat_ext.training.embedding_loop import EmbeddingRecipe, EmbeddingTrainer
from gat_ext.training.embedding_run import EmbeddingRun, EmbeddingRunConfig

OUTPUTS = {"metrics.json", "curves.png", "context.png", "embeddings.pt", "checkpoint.pt"}


@pytest.fixture(scope="module")
def data():
    return datasets.load("sbm", num_nodes=200, num_val=40, p_in=0.2, p_out=0.01)


def config(dataset="sbm", seeds=2, epochs=4, **options):
    recipe = EmbeddingRecipe(epochs=epochs, walks_per_epoch=2, batch_size=64)
    return EmbeddingRunConfig(
        "attention-walk", dataset, 0, seeds, recipe, {"embedding_channels": 8, **options}
    )


def train(run):
    run.train(lambda trainer: None)
    return run


def test_embeddings_of_the_graph_alone_tell_classes(data, tmp_path):
    run = train(EmbeddingRun(config(seeds=1, epochs=20, embedding_channels=16), data, tmp_path))
    result = run.results[0]
    assert result.epochs == result.best_epoch == 20
    history = result.history["train_loss"]
    assert sum(history[-3:]) < 0.93 * sum(history[:3])
    assert result.test_score > 0.9


def test_features_and_labels_play_no_part_in_the_embedding(data, tmp_path):
    other = datasets.NodeDataset(
        data.name,
        torch.zeros_like(data.x),
        data.y[torch.randperm(200, generator=torch.Generator().manual_seed(0))],
        data.edge_index,
        data.train_mask,
        data.val_mask,
        data.test_mask,
        data.num_classes,
    )
    settings = config(seeds=1, epochs=10)
    one, two = (train(EmbeddingRun(settings, each, tmp_path)) for each in (data, other))
    for name, value in one.best_models[0].items():
        assert torch.equal(value, two.best_models[0][name])
    assert one.results[0].val_score > two.results[0].val_score + 0.2


def test_interrupted_run_ends_as_if_it_had_not_been(data, tmp_path):
    whole = train(EmbeddingRun(config(), data, tmp_path / "whole"))
    cut = EmbeddingRun(config(), data, tmp_path / "cut")

    def stop(trainer):
        if trainer.seed == 1 and trainer.epoch == 2:
            cut.save_checkpoint()
            raise Interrupted

    with pytest.raises(Interrupted):
        cut.train(stop)
    resumed = EmbeddingRun(config(), data, tmp_path / "cut")
    resumed.resume()
    train(resumed)
    for one, two in zip(whole.results, resumed.results, strict=True):
        assert (one.history, one.test_score) == (two.history, two.test_score)
    assert torch.equal(whole.contexts(), resumed.contexts())


def test_pictures_and_files(data, tmp_path):
    run = train(EmbeddingRun(config(beta=0.0, window=4, seeds=2), data, tmp_path))
    lines = run.report()
    assert lines[0].startswith("Attention to walks of 1 to 4 steps: ")
    assert {path.name for path in tmp_path.iterdir()} == OUTPUTS
    for name in ("curves.png", "context.png"):
        image = imread(tmp_path / name)
        assert min(image.shape[:2]) > 300 and image[..., :3].std() > 0.01
    embeddings = torch.load(tmp_path / "embeddings.pt", weights_only=True)
    assert embeddings.shape == (200, 8)
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert torch.tensor(report["context"]).shape == (2, 4)
    assert torch.tensor(report["context"]).std() > 0.001  # learned
    assert [each["seed"] for each in report["seeds"]] == [0, 1]


def test_refuses_data_sets(data):
    make = config().make_model
    several = datasets.NodeDataset(
        "tags",
        data.x,
        torch.zeros(200, 3),
        data.edge_index,
        data.train_mask,
        data.val_mask,
        data.test_mask,
        3,
        multilabel=True,
    )
    with pytest.raises(ValueError, match="nodes of tags have several labels"):
        EmbeddingTrainer(lambda: make(several), several, EmbeddingRecipe(), 0)


def cli(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("context", ["learned", "uniform"])
def test_command_line(context, tmp_path):
    options = ("--dataset", "karate", "--epochs", 2, "--dim", 6, "--window", 3, "--seeds", 2)
    arguments = ("train", "attention-walk", *options, "--context", context, "--out", tmp_path)
    result = cli(*arguments)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == OUTPUTS
    report = json.loads((tmp_path / "metrics.json").read_text())
    expected = {"embedding_channels": 6, "window": 3, "context": context}
    assert report["config"]["options"] == expected
    uniform = torch.full((2, 3), 1 / 3)
    assert torch.equal(torch.tensor(report["context"]), uniform) == (context == "uniform")
    last = result.output.strip().splitlines()[-1]
    mean, deviation = 100 * report["test_score_mean"], 100 * report["test_score_std"]
    assert last == f"Test accuracy: {mean:.1f} ± {deviation:.1f} % (2 seeds)"
    again = cli(*arguments, "--resume")
    assert again.exit_code == 0 and again.output.strip().splitlines()[-1] == last


MISTAKES = [
    (("attention-walk", "--heads", "2"), "--heads: it is for models that classify nodes or"),
    (("attention-walk", "--folds", "3"), "--folds: it is for models that classify graphs or"),
    (("attention-walk", "--hidden", "3"), "--hidden: it is for models that classify nodes or"),
    (("gat", "--window", "3"), "--window: it is for models that embed nodes, and gat"),
    (("gam", "--context", "uniform"), "--context: it is for models that embed nodes, and gam"),
    (("attention-walk", "--dim", "7"), "--dim: 7 is odd"),
    (("attention-walk", "--context", "mine"), "no context is called 'mine'"),
    (("attention-walk", "--dataset", "shapes"), "'shapes' is for models that classify graphs"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=lambda v: str(v))
def test_mistakes_of_the_command_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    result = cli("train", *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())
