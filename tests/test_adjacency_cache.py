"""Graphs of other libraries are cached until their tensors are modified."""

from __future__ import annotations

import pytest
import scipy.sparse
import torch
import torch_geometric.nn as pyg
from forms import COLS, DENSE, EDGES, FORMS, NUM_NODES, ROWS, SparseTensor, networkx_graph
from torch.testing import assert_close
from torch_geometric.edge_index import EdgeIndex

from gat_ext import Graph, nn
from gat_ext.graph.cache import _cache
from gat_ext.interop import patch_pyg
from gat_ext.nn import adjacency


@pytest.mark.parametrize("form", ["COO", "CSR", "CSC", "SparseTensor"])
def test_graph_of_a_matrix_is_cached(form):
    matrix = FORMS[form]()
    assert adjacency.unwrap(matrix) is adjacency.unwrap(matrix)
    assert adjacency.unwrap(FORMS[form]()) is not adjacency.unwrap(matrix)


def test_matrices_that_share_one_of_their_index_tensors():
    rows, sizes = ROWS.clone(), (NUM_NODES, NUM_NODES)
    one = SparseTensor(ROWS, COLS, sparse_sizes=sizes)
    other = SparseTensor(rows, COLS, sparse_sizes=sizes)
    third = SparseTensor(ROWS, COLS, sparse_sizes=sizes)
    other.col, third.row = one.col, one.row
    other.row = one.row.flip(0)
    third.col = one.col.flip(0)
    for matrix in (one, other, third, one):
        expected = torch.stack([matrix.col, matrix.row])
        assert torch.equal(adjacency.unwrap(matrix).edge_index, expected)
    same = SparseTensor(ROWS, COLS, sparse_sizes=sizes)
    same.row, same.col = one.row, one.col
    assert adjacency.unwrap(same) is adjacency.unwrap(one)


INDICES = {
    "COO": lambda matrix: matrix._indices()[0],
    "CSR": lambda matrix: matrix.col_indices(),
    "CSC": lambda matrix: matrix.row_indices(),
    "SparseTensor": lambda matrix: matrix.row,
    "SparseTensor's columns": lambda matrix: matrix.col,
}


@pytest.mark.parametrize("form", INDICES)
def test_writes_to_the_indices_of_a_matrix_are_noticed(form):
    matrix = FORMS[form.removesuffix("'s columns")]()
    before = adjacency.unwrap(matrix).edge_index
    INDICES[form](matrix).fill_(3)
    after = adjacency.unwrap(matrix).edge_index
    assert not torch.equal(before, after)
    assert torch.equal(after, Graph.from_pyg(matrix).edge_index)


def test_edge_index_objects_share_the_cache_of_their_tensor():
    edges = FORMS["EdgeIndex"]()
    assert type(adjacency.unwrap(edges)) is torch.Tensor
    assert adjacency.unwrap(edges) is adjacency.unwrap(edges)


def test_mutable_objects_are_read_at_every_call():
    layer, x = nn.GATConv(5, 4), torch.randn(NUM_NODES, 5)
    graph = networkx_graph()
    layer(x, graph)
    graph.remove_edge(*EDGES.t().tolist()[0])
    assert_close(layer(x, graph), layer(x, EDGES[:, 1:]))
    matrix = scipy.sparse.lil_array(DENSE.numpy())
    layer(x, matrix)
    matrix[0, :] = 0
    assert_close(layer(x, matrix), layer(x, EDGES[:, EDGES[1] != 0]))


def test_cache_drops_the_graph_with_the_matrix():
    matrix = FORMS["CSR"]()
    adjacency.unwrap(matrix)
    count = len(_cache)
    del matrix
    assert len(_cache) == count - 1


WRITES = {
    "copy": lambda edges, other: edges.copy_(other),
    "rows": lambda edges, other: edges.__setitem__(slice(None), other),
    "inner tensor": lambda edges, other: edges.as_tensor().copy_(other),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("patched", [False, True])
def test_writes_to_an_edge_index_of_pyg(write, patched):
    """The inner tensor does not count modifications through the EdgeIndex."""
    layer, x = (pyg if patched else nn).GATConv(5, 4), torch.randn(NUM_NODES, 5)
    if patched:
        patch_pyg(layer)
    other = EDGES.roll(1, dims=1).flip(0)
    edges = EdgeIndex(EDGES.clone(), sparse_size=(NUM_NODES, NUM_NODES))
    assert_close(layer(x, edges), layer(x, EDGES))
    for new in (other, EDGES, other):
        WRITES[write](edges, new)
        for _ in range(2):
            assert_close(layer(x, edges), layer(x, new))


@pytest.mark.parametrize("form", [form for form in FORMS if form != "Graph"])
def test_edges_made_in_inference_mode(form):
    layer, x = nn.GATConv(5, 4), torch.randn(NUM_NODES, 5)
    expected = layer(x, EDGES)
    with torch.inference_mode():
        edges = FORMS[form]()
        if isinstance(edges, torch.Tensor) and edges.layout == torch.strided:
            edges = edges.clone()
        for _ in range(2):
            assert_close(layer(x, edges), expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_returned_edges_keep_dtype_and_identity(add_self_loops, dtype):
    """As PyG's layers: the same dtype, and the same object if no self-loops were added."""
    layer, edges = nn.GATConv(5, 4, add_self_loops=add_self_loops), EDGES.to(dtype)
    x = torch.randn(NUM_NODES, 5)
    _, (found, _) = layer(x, edges, return_attention_weights=True)
    assert found.dtype == dtype and (found is edges) == (not add_self_loops)
    _, (found, _) = nn.TransformerConv(5, 4)(x, edges, return_attention_weights=True)
    assert found is edges
