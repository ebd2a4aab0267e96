"""Faulty and odd files of a MappedGraph."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from sampled import random_graph

from gat_ext.sampling import MappedGraph, NeighborLoader

GRAPH = random_graph(60, 300)
X = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))


def test_a_folder_without_a_graph(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no rowptr\.npy"):
        MappedGraph.open(tmp_path)


@pytest.mark.parametrize("name", ["rowptr", "col", "edge_id", "x"])
@pytest.mark.parametrize("damage", ["empty", "shorter", "header", "text", "objects", "swapped"])
def test_a_damaged_file_is_named(name, damage, tmp_path):
    MappedGraph.save(tmp_path, GRAPH, x=X)
    path = tmp_path / f"{name}.npy"
    content, array = path.read_bytes(), np.load(path)
    if damage == "objects":
        np.save(path, np.array([{}]), allow_pickle=True)
    elif damage == "swapped":
        np.save(path, array.astype(array.dtype.newbyteorder("S")))
    else:
        cut = {"empty": b"", "shorter": content[:-40], "header": content[:20], "text": b"rows"}
        path.write_bytes(cut[damage])
    with pytest.raises(ValueError, match=rf"{name}\.npy cannot be mapped .* write it again"):
        MappedGraph.open(tmp_path)


def test_files_without_numbers(tmp_path):
    MappedGraph.save(tmp_path, GRAPH, x=X)
    np.save(tmp_path / "names.npy", np.array(["a", "b"]))
    with pytest.raises(ValueError, match=r"names\.npy cannot be mapped .* move other files"):
        MappedGraph.open(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    MappedGraph.save(tmp_path, GRAPH, x=X)
    for path in tmp_path.iterdir():
        os.chmod(path, 0o444)
    os.chmod(tmp_path, 0o555)
    try:
        graph = MappedGraph.open(tmp_path)
        graph.arrays["x"].zero_()  # in the memory of this process
        assert len(list(NeighborLoader(graph, [3], batch_size=30))) == 2
        assert MappedGraph.open(tmp_path).arrays["x"].equal(X)
    finally:
        os.chmod(tmp_path, 0o755)


@pytest.mark.parametrize(
    ("arrays", "error", "text"),
    [
        ({"col": X}, ValueError, "an array is named 'col'"),
        ({"../x": X}, ValueError, "expected the name of a file"),
        ({"": X}, ValueError, "expected the name of a file"),
        ({"x": X.numpy()}, TypeError, "array 'x' is ndarray"),
        ({"x": X.to_sparse()}, TypeError, "array 'x' is torch.sparse_coo"),
        ({"x": X.bfloat16()}, TypeError, "array 'x' has dtype torch.bfloat16"),
    ],
)
def test_arrays_that_cannot_be_saved(arrays, error, text, tmp_path):
    with pytest.raises(error, match=text):
        MappedGraph.save(tmp_path / "graph", GRAPH, **arrays)
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_only_graphs_are_saved(tmp_path):
    with pytest.raises(TypeError, match="graph is a Tensor; expected a gat_ext"):
        MappedGraph.save(tmp_path / "graph", GRAPH.edge_index)
    MappedGraph.save(tmp_path / "first", GRAPH)
    MappedGraph.save(tmp_path / "second", MappedGraph.open(tmp_path / "first"))
    assert MappedGraph.open(tmp_path / "second").load().edge_index.equal(GRAPH.edge_index)


@pytest.mark.parametrize("value", [-1, 300, "twice"])
def test_edge_numbers_are_a_permutation(value, tmp_path):
    MappedGraph.save(tmp_path, GRAPH)
    graph = MappedGraph.open(tmp_path)
    lacking = int(graph.edge_id[5])
    graph.edge_id[5] = graph.edge_id[6] if value == "twice" else value
    with pytest.raises(ValueError, match=f"edge_id lacks edge {lacking}; expected each number"):
        graph.load()
