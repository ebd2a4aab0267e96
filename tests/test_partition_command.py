"""``gat-ext partition``, as a person uses it."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from gat_ext import datasets
from gat_ext.distributed import load, partition
from gat_ext.training.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["partition", *map(str, arguments)])


@pytest.mark.parametrize(("method", "module"), [("metis", "pymetis"), ("kaminpar",) * 2])
def test_parts_of_a_data_set(method, module, tmp_path):
    pytest.importorskip(module)
    result = run("karate", "--parts", 3, "--method", method, "--seed", 1, "--out", tmp_path / "p")
    assert result.exit_code == 0, result.output
    data = datasets.load("karate")
    found = partition(data.graph, 3, method, seed=1)
    assert result.output.splitlines() == [
        f"karate: 34 nodes, 3 parts by {method}",
        *str(found.report).splitlines(),
        f"Parts: {tmp_path / 'p'}/",
    ]
    for rank in range(3):
        stored = load(tmp_path / "p", rank, parts=3)
        nodes = stored.part.dst_nodes
        assert torch.equal(nodes, (found.assignment == rank).nonzero().flatten())
        assert set(stored.tensors) == {"x", "y", "train_mask", "val_mask", "test_mask"}
        assert torch.equal(stored.tensors["y"], data.y[nodes])
        assert stored.meta == {"name": "karate", "num_classes": 2, "multilabel": False}


def test_a_folder_is_replaced_with_overwrite_only(tmp_path):
    arguments = ("karate", "--method", "range", "--out", tmp_path / "p")
    assert run(*arguments, "--parts", 2).exit_code == 0
    result = run(*arguments, "--parts", 4)
    assert result.exit_code == 1 and result.output.startswith("Error: ")
    assert "holds a partition" in result.output and "--overwrite" in result.output
    assert load(tmp_path / "p", 0).part.parts == 2
    assert run(*arguments, "--parts", 4, "--overwrite").exit_code == 0
    assert load(tmp_path / "p", 0).part.parts == 4


MISTAKES = [
    (("coar", "--parts", 2, "--out", "p"), 2, "no data set of nodes is called 'coar'; choose one"),
    (("karate", "--parts", 0, "--out", "p"), 2, "greater than or equal"),
    (("karate", "--out", "p"), 2, "--parts"),
    (("karate", "--parts", 2), 2, "--out"),
    (("karate", "--parts", 2, "--out", __file__), 2, "is a file"),
    (("karate", "--parts", 2, "--out", "p", "--method", "mets"), 2, "choose one of metis, "),
    (("karate", "--parts", 2, "--out", "p", "--seed", -1), 2, "greater than or equal"),
    (("cora", "--parts", 2, "--out", "p", "--root", "nowhere"), 1, "Error: "),
]


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES, ids=lambda v: str(v))
def test_mistakes_list_the_choices(arguments, code, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert words in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())  # nothing ran


def test_files_of_others_are_refused_before_the_work(tmp_path):
    (tmp_path / "mine").write_text("")
    arguments = ("cora", "--root", tmp_path / "nowhere", "--parts", 2, "--out", tmp_path)
    result = run(*arguments, "--overwrite")
    assert result.exit_code == 1 and "not a folder of a partition" in result.output
