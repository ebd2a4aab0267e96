"""The operator of attention over a graph, and its graph arguments."""

from __future__ import annotations

from typing import Any

from gat_ext.graph import Graph
from gat_ext.graph.degrees import largest_degrees
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.traced import TracedGraph
from gat_ext.ops.func_transforms import Attention
from gat_ext.ops.registry import ops
from gat_ext.ops.state import in_functorch, is_tracing


def operator_over(graph: GraphLike, needs_grad: bool) -> tuple[Any, tuple[Any, ...]]:
    """The operator of attention over a graph, and its graph arguments."""
    transformed = in_functorch()
    operator = Attention.apply if transformed else ops.edge_attention
    needs_grad = needs_grad or transformed  # a tensor in a batch does not tell
    if isinstance(graph, TracedGraph):
        return operator, (*graph.sorted(needs_grad), None)
    assert isinstance(graph, Graph)
    return operator, sorted_arguments(graph, needs_grad)


def sorted_arguments(graph: Graph, for_backward: bool) -> tuple[Any, ...]:
    """The graph arguments of edge_attention; with the transpose if a gradient may need it."""
    parts = graph.rowptr, graph.col, graph.edge_id
    by_source: tuple[Any, ...] = (None, None, None, None)
    if for_backward:
        t = graph.transpose()
        by_source = t.rowptr, t.col, t.pos, None if graph.edge_id is None else t.edge_id
    # The CPU reads rowptr; a program with a tensor on the CPU would not become a CUDA graph.
    on_host = graph.device.type == "cpu" or is_tracing()
    return *parts, *by_source, None if on_host else largest_degrees(graph)
