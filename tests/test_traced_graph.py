"""TracedGraph replaces a Graph while tracing: what it has, and its errors for the rest."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from gat_ext import Graph, functional
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.traced import TracedGraph

EDGES = torch.tensor([[0, 1, 2, 1], [1, 1, 0, 2]])
MEMBERS = [name for name in vars(GraphLike) if not name.startswith("_")]


def traced(**options) -> TracedGraph:
    return TracedGraph(EDGES, 3, 3, **options)


def test_it_has_the_interface_of_a_graph_and_is_not_one():
    assert not issubclass(TracedGraph, Graph)
    for graph in (Graph(EDGES), traced(self_loops=False)):
        assert graph.device == EDGES.device and torch.equal(graph.edge_index, EDGES)
        assert (graph.num_src, graph.num_dst, graph.num_edges) == (3, 3, 4)
        assert all(hasattr(graph, name) for name in MEMBERS)


@pytest.mark.parametrize("given", [EDGES, EDGES.int(), Graph(EDGES)], ids=["64", "32", "Graph"])
def test_rows_are_slots(given):
    graph = TracedGraph(given, 3, 3, self_loops=True)
    assert (graph.num_src, graph.num_dst, graph.num_edges, graph.num_given) == (3, 3, 7, 4)
    expected = torch.cat([EDGES, torch.arange(3).expand(2, -1)], dim=1)
    assert torch.equal(graph.edge_index, expected)
    edges, weights = graph.edges_with(torch.arange(7.0).unsqueeze(1))
    assert torch.equal(edges.long(), expected[:, [0, 2, 3, 4, 5, 6]])
    assert weights.flatten().tolist() == [0, 2, 3, 4, 5, 6]


MISSING = [
    name
    for name in vars(Graph)
    if not name.startswith(("_", "from_")) and name not in {*MEMBERS, *vars(TracedGraph)}
]


@pytest.mark.parametrize("name", MISSING)
def test_missing_attributes_say_what_to_do(name):
    with pytest.raises(NotImplementedError, match=rf"has no {name}, .* build a Graph outside"):
        getattr(traced(self_loops=True), name)


def test_unknown_names_are_attribute_errors():
    assert not hasattr(traced(self_loops=True), "no_such_thing")


def test_operators_accept_it_or_raise_a_clear_error():
    value, term = torch.randn(3, 2, 4), torch.randn(3, 2)
    expected = functional.gat_attention(Graph(EDGES), value, term, term)
    assert_close(functional.gat_attention(traced(self_loops=False), value, term, term), expected)
    for reduce in ("sum", "mean", "max"):
        expected = functional.spmm(Graph(EDGES), value, reduce=reduce)
        found = functional.spmm(traced(self_loops=False), value, reduce=reduce)
        assert_close(found, expected)
    expected = functional.sddmm(Graph(EDGES), value, value)
    assert_close(functional.sddmm(traced(self_loops=False), value, value), expected)
    with pytest.raises(NotImplementedError, match="build a Graph outside"):
        functional.edge_softmax(traced(self_loops=False), torch.randn(EDGES.shape[1]))
    with pytest.raises(TypeError, match=r"graph is a Tensor; expected a gat_ext\.Graph"):
        functional.gat_attention(EDGES, value, term, term)
