"""AGNNConv between two sets of nodes: the formula, written edge by edge, is the oracle."""

from __future__ import annotations

import itertools

import pytest
import torch
from beside_pyg import TOLERANCE, compare, normal
from layers import random_edges
from torch.nn import functional as F

from gat_ext import Graph, nn
from gat_ext.graph.self_loops import with_self_loops

SIZES = [(11, 6), (6, 11), (9, 9)]
BOTH = (True, False)


def by_formula(layer, x_src, x_dst, edge_index):
    """x'_i is the sum of alpha_ij x_j, with the loops of every number that both ends have."""
    num_src, num_dst = x_src.shape[0], x_dst.shape[0]
    if layer.add_self_loops:
        loops = torch.arange(min(num_src, num_dst)).expand(2, -1)
        edge_index = torch.cat([edge_index[:, edge_index[0] != edge_index[1]], loops], 1)
    rows = []
    for i in range(num_dst):
        near = x_src[edge_index[0, edge_index[1] == i]]
        scores = layer.beta * F.cosine_similarity(x_dst[i : i + 1], near, eps=1e-12)
        rows.append(scores.softmax(0) @ near)
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("learned", "loops"), [*itertools.product(BOTH, BOTH)])
def test_the_formula(learned, loops, sizes, dtype):
    layer = nn.AGNNConv(requires_grad=learned, add_self_loops=loops).to(dtype)
    if learned:
        torch.nn.init.constant_(layer.beta, 1.7)
    x_src, x_dst = normal(sizes[0], 5, dtype=dtype), normal(sizes[1], 5, dtype=dtype, seed=2)
    edges = random_edges(*sizes)
    outs = layer((x_src, x_dst), edges), by_formula(layer, x_src, x_dst, edges)
    leaves = [("x_src", (x_src, x_src)), ("x_dst", (x_dst, x_dst))]
    leaves += [("beta", (layer.beta, layer.beta))] if learned else []
    compare(outs, leaves, dtype)


@pytest.mark.parametrize("as_graph", BOTH)
def test_a_pair_of_one_tensor_is_this_tensor(as_graph):
    layer, x, edges = nn.AGNNConv(), torch.randn(9, 5), random_edges(9, 9)
    edges = Graph(edges, num_nodes=9) if as_graph else edges
    expected = layer(x, edges)
    assert torch.equal(layer((x, x), edges), expected)
    torch.testing.assert_close(layer([x, x.clone()], edges), expected)


def test_weights_and_their_edges():
    edges, layer = random_edges(11, 6), nn.AGNNConv()
    out, (index, alpha) = layer(
        (torch.randn(11, 5), torch.randn(6, 5)), edges, return_attention_weights=True
    )
    assert out.shape == (6, 5) and alpha.shape == (index.shape[1], 1)
    assert torch.equal(index, with_self_loops(edges, 11, 6).graph.edge_index)
    sums = torch.zeros(6, 1).index_add(0, index[1], alpha)
    torch.testing.assert_close(sums, torch.ones(6, 1))


def test_gradients_of_gradients():
    layer, edges = nn.AGNNConv().double(), random_edges(5, 4)
    x = normal(5, 3), normal(4, 3, seed=2)

    def call(x_src, x_dst, beta, weight):
        given = {"edge_weight": weight}
        return torch.func.functional_call(layer, {"beta": beta}, ((x_src, x_dst), edges), given)

    inputs = (*x, normal(1, seed=4), normal(edges.shape[1], seed=3))
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


X = torch.randn(3, 4)
PAIR = torch.tensor([[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ((X, X, X), TypeError, r"x is a tuple of 3 elements; AGNNConv\(\) expects .* a pair"),
        ((X, None), ValueError, "expects features of the destinations too"),
        ((X, X[:, :3]), ValueError, r"\[3, 4\], .* destinations \[3, 3\]; .* same number of chan"),
        ((X, X.double()), TypeError, "x of the sources has dtype torch.float32 and x of the dest"),
        ((X.to_sparse(), X), TypeError, r"x is sparse .* project x first"),
        ((X, X.to_sparse_csr()), TypeError, r"x of the destinations is sparse"),
        ((X, [1.0]), TypeError, "x of the destinations is a list"),
        ((X[None], X), ValueError, r"expected \[B, N_src, F\] and \[B, N_dst, F\]"),
    ],
)
def test_faulty_pairs_are_refused(x, error, message):
    with pytest.raises(error, match=message):
        nn.AGNNConv()(x, PAIR)
