"""adjacency_attention, the operator of traces: what it makes of edges is found again as long as they are the same."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.testing import assert_close

from gat_ext import Graph, functional
from gat_ext.ops.registry import ops


def edges_of(num_nodes, num_edges, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num_nodes, (2, num_edges), generator=generator)


def arguments_of_edges(form):
    """The first arguments of the operator, of a graph of 6 nodes and 20 edges."""
    graph = Graph(edges_of(6, 20), num_nodes=6)
    csr = graph.rowptr, graph.col, graph.edge_id
    return csr if form == "csr" else (graph.edge_index, None, None)


def attend_by_operator(edge_index, x, self_loops=True):
    num_nodes, term = x.shape[0], x.sum(-1)
    return ops.adjacency_attention(
        *(edge_index, None, None, num_nodes, num_nodes, self_loops, False),
        *(x, None, None, None, term, term, None, None, None, None),
        *("additive", False, 0.2, 1.0, 0.0, 0, False, False),
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


def test_operator_tells_sizes_and_tensors_apart():
    x = torch.randn(6, 1, 4)
    edge_index = edges_of(5, 20)
    expected = [
        attend_by_operator(edge_index.clone(), x[:n], loops) for n in (5, 6) for loops in (0, 1)
    ]
    for _ in range(2):
        found = [attend_by_operator(edge_index, x[:n], loops) for n in (5, 6) for loops in (0, 1)]
        assert all(map(torch.equal, found, expected))
    for seed in range(50):  # tensors that come and go, at the addresses of those before
        fresh = edges_of(6, 20, seed)
        graph = Graph(fresh, num_nodes=6)
        term = x.sum(-1)
        expected = functional.gat_attention(graph, x, term, term)
        assert_close(attend_by_operator(fresh, x, False), expected)
        del fresh


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("form", ["csr", "edge_index"])
def test_operator_holds_on_to_nothing(form, self_loops):
    edges = arguments_of_edges(form)
    alive = weakref.ref(edges[0])
    x, term = torch.randn(6, 2, 4), torch.randn(6, 2)
    ops.adjacency_attention(
        *(*edges, 6, 6, self_loops, True, x, None, None, None, term, term, None, None, None, None),
        *("additive", False, 0.2, 1.0, 0.0, 0, False, False),
    )
    del edges
    gc.collect()
    assert alive() is None


def test_operator_notices_writes_that_torch_does_not():
    x, edge_index = torch.randn(6, 1, 4), edges_of(6, 20)
    attend_by_operator(edge_index, x)
    edge_index.numpy()[0] = 0
    assert torch.equal(attend_by_operator(edge_index, x), attend_by_operator(edge_index.clone(), x))
    graph = Graph(edges_of(6, 20), num_nodes=6)
    for self_loops in (True, False):
        term = x.sum(-1).requires_grad_()

        def run(col, graph=graph, term=term, self_loops=self_loops):
            out, *_ = ops.adjacency_attention(
                *(graph.rowptr, col, graph.edge_id, 6, 6, self_loops, True, x, None, None, None),
                *(
                    term,
                    term,
                    None,
                    None,
                    None,
                    None,
                    "additive",
                    False,
                    0.2,
                    1.0,
                    0.0,
                    0,
                    False,
                    False,
                ),
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
    edges = arguments_of_edges(form)
    x = torch.randn(6, 2, 4, requires_grad=True)
    term = torch.randn(6, 2, requires_grad=True)
    slots = torch.randn(20 + 6 * self_loops, 2, requires_grad=True)
    torch.library.opcheck(
        ops.adjacency_attention.default,
        (
            *(*edges, 6, 6, self_loops, True, x, None, None, None, term, term, slots, slots, None),
            *(torch.tensor([3]), "additive", False, 0.2, 1.0, 0.4, 2, True, True),
        ),
    )
    torch.library.opcheck(ops.edge_slots.default, (*edges, 6, 6, self_loops))
    for narrow in (False, True):
        torch.library.opcheck(ops.checked_csr.default, (edges_of(6, 20), 6, 6, narrow))


def test_large_node_numbers_are_not_cut_short():
    """A number above 32 bits, whose low bits are a node."""
    with pytest.raises(IndexError, match="4294967297"):
        attend_by_operator(torch.tensor([[0, 2**32 + 1], [1, 0]]), torch.ones(4, 1, 2))


def test_edges_of_another_kind_are_named():
    x = torch.ones(4, 1, 2)
    with pytest.raises(TypeError, match="edge_index has dtype Float; expected int32 or int64"):
        attend_by_operator(torch.ones(2, 3), x)
    with pytest.raises(ValueError, match=r"edge_index has shape \[3, 2\]; expected \[2, E\]"):
        attend_by_operator(torch.ones(3, 2, dtype=torch.int64), x)
