"""Chooses the operator of attention: over a sorted graph, or, while tracing, one that sorts."""

from __future__ import annotations

from typing import Any

from gat_ext.graph import Graph
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.traced import TracedGraph, traced
from gat_ext.ops.func_transforms import Attention
from gat_ext.ops.registry import ops
from gat_ext.ops.state import in_functorch, is_tracing


def operator_over(graph: GraphLike, needs_grad: bool) -> tuple[Any, tuple[Any, ...]]:
    """The operator of attention over a graph, and its graph arguments."""
    if is_tracing() or isinstance(graph, TracedGraph):
        graph = traced(graph)
        operator = Attention.apply if in_functorch() else ops.adjacency_attention
        return operator, (*graph.arguments, needs_grad)
    assert isinstance(graph, Graph)
    return ops.edge_attention, sorted_arguments(graph, needs_grad)


def sorted_arguments(graph: Graph, for_backward: bool) -> tuple[Any, ...]:
    """The graph arguments of edge_attention; with the transpose if a gradient may need it."""
    parts = graph.rowptr, graph.col, graph.edge_id
    if not for_backward:
        return *parts, None, None, None, None
    t = graph.transpose()
    return *parts, t.rowptr, t.col, t.pos, None if graph.edge_id is None else t.edge_id
