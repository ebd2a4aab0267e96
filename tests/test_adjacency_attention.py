"""adjacency_attention, the operator of traces, caches the graph of its edges by their contents."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.testing import assert_close

import gat_ext
from gat_ext import _C, Graph, functional
from gat_ext.ops.arguments import AdjacencyAttention
from gat_ext.ops.registry import ops

ADDITIVE = {
    **{"score": "additive", "edge_in_value": False, "negative_slope": 0.2, "scale": 1.0},
    **{"dropout_p": 0.0, "top_k": 0, "return_weights": False, "return_lse": False},
}


def edges_of(num_nodes, num_edges, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num_nodes, (2, num_edges), generator=generator)


def arguments_of_edges(form, self_loops):
    """The operator's graph arguments for 6 nodes and 20 edges."""
    graph = Graph(edges_of(6, 20), num_nodes=6)
    sizes = {"num_src": 6, "num_dst": 6, "self_loops": self_loops}
    if form == "csr":
        return sizes | {"edges": graph.rowptr, "col": graph.col, "edge_id": graph.edge_id}
    return sizes | {"edges": graph.edge_index}


def attend(**arguments):
    return ops.adjacency_attention(*AdjacencyAttention(**ADDITIVE | arguments))


def attend_by_operator(edge_index, x, self_loops=True):
    num_nodes, term = x.shape[0], x.sum(-1)
    return attend(
        **dict(edges=edge_index, num_src=num_nodes, num_dst=num_nodes, self_loops=self_loops),
        **dict(for_backward=False, value=x, dst_term=term, src_term=term),
    )[0]


def test_operator_notices_writes():
    x = torch.randn(6, 1, 4)
    edge_index = edges_of(6, 20)
    before = attend_by_operator(edge_index, x)
    assert torch.equal(attend_by_operator(edge_index, x), before)
    edge_index[0] = 0
    assert torch.equal(attend_by_operator(edge_index, x), attend_by_operator(edge_index.clone(), x))
    assert not torch.equal(attend_by_operator(edge_index, x), before)
    rows = edge_index[1]  # a view
    rows.fill_(2)
    assert torch.equal(attend_by_operator(edge_index, x), attend_by_operator(edge_index.clone(), x))
    edge_index.resize_(2, 3)
    assert torch.equal(attend_by_operator(edge_index, x), attend_by_operator(edge_index.clone(), x))


def test_operator_caches_by_sizes_and_tensors():
    x = torch.randn(6, 1, 4)
    edge_index = edges_of(5, 20)
    expected = [
        attend_by_operator(edge_index.clone(), x[:n], loops) for n in (5, 6) for loops in (0, 1)
    ]
    for _ in range(2):
        found = [attend_by_operator(edge_index, x[:n], loops) for n in (5, 6) for loops in (0, 1)]
        assert all(map(torch.equal, found, expected))
    for seed in range(50):  # new tensors at the addresses of freed ones
        fresh = edges_of(6, 20, seed)
        graph = Graph(fresh, num_nodes=6)
        term = x.sum(-1)
        expected = functional.gat_attention(graph, x, term, term)
        assert_close(attend_by_operator(fresh, x, False), expected)
        del fresh


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("form", ["csr", "edge_index"])
def test_operator_keeps_no_tensor_alive(form, self_loops):
    edges = arguments_of_edges(form, self_loops)
    alive = weakref.ref(edges["edges"])
    x, term = torch.randn(6, 2, 4), torch.randn(6, 2)
    attend(**edges, for_backward=True, value=x, dst_term=term, src_term=term)
    del edges
    gc.collect()
    assert alive() is None


def test_operator_notices_writes_without_a_version():
    x, edge_index = torch.randn(6, 1, 4), edges_of(6, 20)
    attend_by_operator(edge_index, x)
    edge_index.numpy()[0] = 0
    assert torch.equal(attend_by_operator(edge_index, x), attend_by_operator(edge_index.clone(), x))
    graph = Graph(edges_of(6, 20), num_nodes=6)
    for self_loops in (True, False):
        term = x.sum(-1).requires_grad_()

        def run(col, graph=graph, term=term, self_loops=self_loops):
            out, *_ = attend(
                **dict(edges=graph.rowptr, col=col, edge_id=graph.edge_id, num_src=6, num_dst=6),
                **dict(self_loops=self_loops, for_backward=True),
                **dict(value=x, dst_term=term, src_term=term),
            )
            return (out, *torch.autograd.grad(out.square().sum(), term))

        col = graph.col.clone()
        run(col)
        col.numpy()[:] = col.flip(0).numpy()
        for ours, theirs in zip(run(col), run(col.clone()), strict=True):
            assert torch.equal(ours, theirs)


def test_operator_in_inference_mode():
    x = torch.randn(6, 1, 4)
    with torch.inference_mode():
        edge_index = edges_of(6, 20)
        before = attend_by_operator(edge_index, x)
        edge_index[0] = 0
        after = attend_by_operator(edge_index, x)
        assert torch.equal(after, attend_by_operator(edge_index.clone(), x))
    assert not torch.equal(after, before)


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("form", ["csr", "edge_index"])
def test_opcheck(form, self_loops):
    edges = arguments_of_edges(form, self_loops)
    term = torch.randn(6, 2, requires_grad=True)
    slots = torch.randn(20 + 6 * self_loops, 2, requires_grad=True)
    inputs = {
        "value": torch.randn(6, 2, 4, requires_grad=True),
        **{"dst_term": term, "src_term": term, "edge_term": slots, "bias": slots},
        "seed": torch.tensor([3]),
    }
    options = {"dropout_p": 0.4, "top_k": 2, "return_weights": True, "return_lse": True}
    given = AdjacencyAttention(**ADDITIVE | edges | inputs | options | {"for_backward": True})
    torch.library.opcheck(ops.adjacency_attention.default, tuple(given))
    edges = [edges.get(name) for name in AdjacencyAttention._fields[:6]]
    torch.library.opcheck(ops.edge_slots.default, (*edges,))
    for narrow in (False, True):
        torch.library.opcheck(ops.checked_csr.default, (edges_of(6, 20), 6, 6, narrow))


def test_large_node_numbers_are_not_truncated():
    """A number above 32 bits whose low bits are a valid node."""
    with pytest.raises(IndexError, match="4294967297"):
        attend_by_operator(torch.tensor([[0, 2**32 + 1], [1, 0]]), torch.ones(4, 1, 2))


def test_wrong_kinds_of_edges_are_refused():
    x = torch.ones(4, 1, 2)
    with pytest.raises(TypeError, match="edge_index has dtype Float; expected int32 or int64"):
        attend_by_operator(torch.ones(2, 3), x)
    with pytest.raises(ValueError, match=r"edge_index has shape \[3, 2\]; expected \[2, E\]"):
        attend_by_operator(torch.ones(3, 2, dtype=torch.int64), x)


# ---- the operator's cache


def attend_alone(edges, num_nodes=5):
    """Without self-loops; with the transpose that a backward pass needs."""
    term = torch.zeros(num_nodes, 1)
    arguments = {"edges": edges, "num_src": num_nodes, "num_dst": num_nodes, "self_loops": False}
    arguments |= {
        "for_backward": True,
        "value": term.unsqueeze(-1),
        "dst_term": term,
        "src_term": term,
    }
    return ops.adjacency_attention(*AdjacencyAttention(**ADDITIVE | arguments))[0]


def test_empty_cache_drops_sorted_edges():
    gat_ext.empty_cache()
    edges = torch.tensor([[0, 1, 2], [2, 0, 0]])
    expected = attend_alone(edges)
    assert _C.graph_cache_size() == 1
    gat_ext.empty_cache()
    assert _C.graph_cache_size() == 0
    assert torch.equal(attend_alone(edges), expected) and _C.graph_cache_size() == 1


def test_sorted_edges_are_bounded():
    """With so many nodes a list of edges takes 64 MiB to keep: the 16 used last are kept."""
    gat_ext.empty_cache()
    first, *others = [torch.zeros(2, 1, dtype=torch.int64) for _ in range(20)]
    for edges in others:
        attend_alone(edges, 2**22)
        attend_alone(first, 2**22)
    assert _C.graph_cache_size() == 16
    del edges, others
    attend_alone(torch.zeros(2, 1, dtype=torch.int64))  # drops results of freed tensors
    assert _C.graph_cache_size() == 2
    gat_ext.empty_cache()
