"""Layers sort an edge_index once, until it is modified."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from gat_ext import Graph
from gat_ext.graph import csr
from gat_ext.graph.cache import PER_OWNER, _cache
from gat_ext.nn import AGNNConv, GATConv, TransformerConv


@pytest.fixture
def sorts(monkeypatch):
    """A list that grows by one for each sorted graph."""
    calls, build = [], csr.build_csr

    def counted(*arguments):
        calls.append(1)
        return build(*arguments)

    monkeypatch.setattr(csr, "build_csr", counted)
    return calls


def make_edges():
    return torch.tensor([[0, 1, 2, 3, 3], [1, 2, 0, 0, 3]])


@pytest.mark.parametrize("add_self_loops", [True, False])
def test_sorted_once(sorts, add_self_loops):
    edges, x = make_edges(), torch.randn(4, 5)
    layers = [GATConv(5, 3, add_self_loops=add_self_loops) for _ in range(2)]
    first = [layer(x, edges) for layer in layers]
    again = [layer(x, edges) for layer in layers]
    assert len(sorts) == 1
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first[0], layers[0](x, edges.clone())) and len(sorts) == 2


def test_cache_distinguishes_loops_and_sizes(sorts):
    edges = make_edges()
    looped, plain = AGNNConv(), TransformerConv(5, 3)
    for nodes in (4, 6):
        assert looped(torch.randn(nodes, 5), edges).shape == (nodes, 5)
        assert plain(torch.randn(nodes, 5), edges).shape == (nodes, 3)
    assert len(sorts) == 4
    pair = GATConv((5, 5), 3, add_self_loops=False)
    assert pair((torch.randn(4, 5), torch.randn(7, 5)), edges).shape == (7, 3)
    assert len(sorts) == 5


WRITES = {
    "row": lambda edges: edges[1].fill_(2),
    "copy": lambda edges: edges.copy_(edges.flip(0)),
    "view": lambda edges: edges.view(-1)[3:4].sub_(1),
    "size": lambda edges: edges.resize_(2, 4),
    "strides": lambda edges: edges.set_(torch.tensor([[1, 0], [2, 0], [3, 0]]).t()),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes_are_noticed(name):
    layer, x, edges = GATConv(5, 3), torch.randn(4, 5), make_edges()
    before = layer(x, edges)
    WRITES[name](edges)
    expected = layer(x, Graph(edges, num_nodes=4))
    assert torch.equal(layer(x, edges), expected) and not torch.equal(before, expected)


def test_a_write_to_the_base_is_noticed():
    layer, x, base = GATConv(5, 3), torch.randn(4, 5), make_edges()
    edges = base[:, :4]
    before = layer(x, edges)
    base[1] = 3
    after = layer(x, edges)
    assert not torch.equal(before, after)
    assert torch.equal(after, layer(x, edges.clone()))


def test_the_graph_goes_with_the_tensor():
    layer, x, edges = TransformerConv(5, 3), torch.randn(4, 5), make_edges()
    layer(x, edges)
    ((graph, _),) = _cache._slots[id(edges),].results.values()
    known = weakref.ref(graph)
    del edges, graph
    gc.collect()
    assert known() is None


def test_errors_are_not_cached_with_edges():
    layer, edges = GATConv(5, 3), make_edges()
    for _ in range(2):
        with pytest.raises(IndexError, match="edge_index"):
            layer(torch.randn(3, 5), edges)
    assert layer(torch.randn(4, 5), edges).shape == (4, 3)


def test_inference_mode_before_training():
    layer, x, edges = GATConv(5, 3), torch.randn(4, 5), make_edges()
    with torch.inference_mode():
        expected = layer(x, edges)
        assert torch.equal(layer(x, make_edges()), expected)
    out = layer(x, edges)
    out.sum().backward()
    assert torch.equal(out, expected) and layer.lin.weight.grad.isfinite().all()


def test_a_trace_holds_no_cached_graph():
    layer, x, edges = GATConv(5, 3), torch.randn(4, 5), make_edges()
    layer(x, edges)
    compiled = torch.compile(layer, backend="eager")
    for each in (edges, edges.flip(0)):
        torch.testing.assert_close(compiled(x, each), layer(x, each))


def test_few_graphs_of_one_edge_index():
    """An edge_index used with many different numbers of nodes does not fill the memory."""
    edges, layer = make_edges(), GATConv(5, 3)
    for nodes in range(4, 60):
        layer(torch.randn(nodes, 5), edges)
    assert len(_cache._slots[id(edges),].results) <= PER_OWNER
