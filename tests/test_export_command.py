"""gat-ext export: a file of a run's model, compared with it before it has its name."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from gat_ext import export, training
from gat_ext.training import export_command
from gat_ext.training.cli import app

TINY = ("--epochs", 1, "--layers", 2, "--hidden", 4)
FOLDS = ("--dataset", "shapes", "--folds", 2, "--subset", 40, "--epochs", 1)
RUNS = {
    "gat": ("gat", "--dataset", "karate", "--seeds", 2, "--heads", 2, *TINY),
    "pooled": ("gatv2", *FOLDS, "--layers", 1, "--hidden", 4, "--pooling", "attention"),
    "hgt": ("hgt", "--heads", 2, *TINY),
    "han": ("han", "--heads", 2, *TINY),
    "gam": ("gam", *FOLDS, "--hidden", 8),
    "embeddings": ("attention-walk", "--dataset", "karate", "--epochs", 1, "--dim", 4),
}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    for name in ("plots.curves", "plots.attention", "walk_plots.curves", "walk_plots.walks"):
        monkeypatch.setattr(f"gat_ext.training.{name}", lambda *arguments: None)
    monkeypatch.setattr("gat_ext.training.embedding_plots.context", lambda *arguments: None)


def cli(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def trained(name, folder):
    result = cli("train", *RUNS[name], "--out", folder)
    assert result.exit_code == 0, result.output
    return folder


def test_a_program_of_torch(tmp_path):
    folder = trained("gat", tmp_path)
    before = {path.name for path in folder.iterdir()}
    result = cli("export", folder, "--seed", 1)
    assert result.exit_code == 0, result.output
    first, second, third = result.output.splitlines()
    assert first.startswith("gat of seed 1, inputs x, edge_index;")
    assert float(second.removeprefix("Largest difference from the model on karate: ")) < 1e-5
    assert third.startswith(f"Program: {folder / 'model.pt2'} (")
    assert {path.name for path in folder.iterdir()} - before == {"model.pt2"}
    model = training.load(folder, 1).model
    x, edge_index = torch.randn(50, 34), torch.randint(50, (2, 99))
    assert export.largest_difference(folder / "model.pt2", model, (x, edge_index)) < 1e-5


@pytest.mark.parametrize(
    "name",
    ["pooled", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gat", "hgt", "han"))],
)
def test_an_onnx_program(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, out = trained(name, tmp_path / "run"), tmp_path / "new" / "mine.onnx"
    result = cli("export", folder, "--format", "onnx", "--out", out)
    assert result.exit_code == 0, result.output
    names = result.output.splitlines()[0].split(", inputs ")[1].split("; ")[0].split(", ")
    session = onnxruntime.InferenceSession(out)
    assert names == [each.name for each in session.get_inputs()]
    first = {"gat": ["x", "edge_index"], "pooled": ["x", "edge_index", "node_ptr"]}
    assert names == first.get(name, names) and names[0].startswith("x")
    assert [each.name for each in session.get_outputs()] == ["logits"]
    assert [path.name for path in out.parent.iterdir()] == ["mine.onnx"]


@pytest.mark.parametrize("form", export_command.FORMATS)
def test_features_of_edges_are_an_input(form, tmp_path, recwarn):
    pytest.importorskip("pyarrow")
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    rows = "".join(f"{i},{i % 5},{'ab'[i % 2]}\n" for i in range(12))
    (tmp_path / "nodes.csv").write_text("id,size,label\n" + rows)
    rows = "".join(f"{i},{(i + 5) % 12},{i % 7}\n" for i in range(12))
    (tmp_path / "edges.csv").write_text("source,target,years\n" + rows)
    folder = tmp_path / "run"
    given = ("gatv2", "--data", tmp_path, "--edge-attributes", *TINY)
    assert cli("train", *given, "--out", folder).exit_code == 0
    recwarn.clear()
    result = cli("export", folder, "--format", form)
    assert result.exit_code == 0, result.output
    assert not recwarn and "inputs x, edge_index, edge_attr;" in result.output
    model = training.load(folder).model
    call = torch.randn(50, 1), torch.randint(50, (2, 99))
    more = {"edge_attr": torch.randn(99, 1)}
    assert export.largest_difference(folder / f"model.{form}", model, call, more) < 1e-5


def test_a_file_is_replaced_only_if_asked(tmp_path):
    folder = trained("gat", tmp_path)
    place = folder / "model.pt2"
    place.write_bytes(b"mine")
    result = cli("export", folder)
    assert result.exit_code == 1 and "--overwrite replaces it" in result.output
    assert place.read_bytes() == b"mine"
    result = cli("export", folder, "--out", tmp_path / "model.onnx")
    assert result.exit_code == 1 and "expected .pt2" in result.output
    result = cli("export", folder, "--seed", 7)
    assert result.exit_code == 1 and "--overwrite" in result.output
    result = cli("export", folder, "--seed", 7, "--overwrite")
    assert result.exit_code == 1 and "has no seed 7" in result.output
    assert place.read_bytes() == b"mine"
    assert cli("export", folder, "--overwrite").exit_code == 0
    assert place.read_bytes() != b"mine"


def test_a_wrong_program_is_not_written(tmp_path, monkeypatch):
    folder = trained("gat", tmp_path)
    before = {path.name for path in folder.iterdir()}
    monkeypatch.setattr(export_command.export, "largest_difference", lambda *given: 0.5)
    result = cli("export", folder)
    assert result.exit_code == 1
    assert "differs from the model by 5.0e-01 on karate" in " ".join(result.output.split())
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "message"), [("gam", "model is a GAM, whose agents"), ("embeddings", "AttentionWalk")]
)
@pytest.mark.parametrize("form", export_command.FORMATS)
def test_models_that_cannot_be_exported(name, message, form, tmp_path):
    folder = trained(name, tmp_path)
    before = {path.name for path in folder.iterdir()}
    result = cli("export", folder, "--format", form)
    assert result.exit_code == 1 and message in result.output
    assert {path.name for path in folder.iterdir()} == before


def test_wrong_arguments(tmp_path):
    result = cli("export", tmp_path)
    assert result.exit_code == 1 and "is not the folder of a run" in result.output
    result = cli("export", tmp_path, "--format", "tflite")
    assert result.exit_code == 2 and "pt2, onnx" in result.output
