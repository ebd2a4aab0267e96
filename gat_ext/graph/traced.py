"""Graphs inside functions that are traced by torch.compile, torch.export, make_fx or torch.func."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from gat_ext.graph.graph import Graph
from gat_ext.graph.protocol import GraphLike
from gat_ext.ops.adjacency_attention import num_slots
from gat_ext.ops.registry import ops
from gat_ext.ops.slots import with_loops


class TracedGraph:
    """The edges of an edge_index or a graph, which ``adjacency_attention`` sorts; it has no CSR.

    It is a :class:`gat_ext.graph.protocol.GraphLike`. Tensors of edges that go with it have a row
    for each slot: the edges given, in their order, then, with ``self_loops``, one loop for each
    node that is source and destination. The loops take the place of those among the edges given,
    whose slots are neither read nor attended to.

    Args:
        adjacency: an edge_index [2, E], or a graph.
        num_src: number of sources.
        num_dst: number of destinations.
        self_loops: replace the loops.
    """

    def __init__(
        self, adjacency: Tensor | Graph, num_src: int, num_dst: int, self_loops: bool
    ) -> None:
        """Takes the edges as they are."""
        parts: tuple[Tensor, Tensor | None, Tensor | None] = (
            (adjacency.rowptr, adjacency.col, adjacency.edge_id)
            if isinstance(adjacency, Graph)
            else (adjacency, None, None)
        )
        self.given, self.self_loops = adjacency, self_loops
        self.arguments = (*parts, num_src, num_dst, self_loops)  # the first of the operator's
        self.num_src, self.num_dst = num_src, num_dst
        self.num_given = adjacency.num_edges if isinstance(adjacency, Graph) else parts[0].shape[1]
        self.num_edges = num_slots(parts[0], parts[1], num_src, num_dst, self_loops)

    @property
    def device(self) -> torch.device:
        """Where the edges lie."""
        return self.given.device

    @property
    def edge_index(self) -> Tensor:
        """int64 [2, num_edges], of all slots."""
        return self._slots(torch.int64)

    def edges_with(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(edge_index [2, E'], weights [E', H]) of weights [num_edges, H], without replaced loops.

        The edge_index has the dtype of the one that was given, and is that one where no loops are
        replaced.
        """
        edge_index = self._slots(None)
        if not self.self_loops:
            return edge_index, weights
        slots = ops.edge_slots(*self.arguments)
        return edge_index[:, slots], weights[slots]

    def _slots(self, dtype: torch.dtype | None) -> Tensor:
        given = self.given.edge_index if isinstance(self.given, Graph) else self.given
        given = given if dtype is None else given.to(dtype)
        return with_loops(given, self.num_edges - self.num_given) if self.self_loops else given

    def __getattr__(self, name: str) -> NoReturn:
        """Raises for what a Graph has and this has not."""
        if hasattr(Graph, name) and not name.startswith("__"):
            raise NotImplementedError(
                f"a graph inside a function that is traced has no {name}: its edges are not sorted "
                "before the function runs; build a Graph outside of the function and pass it in"
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __repr__(self) -> str:
        """The counts."""
        return (
            f"TracedGraph(num_src={self.num_src}, num_dst={self.num_dst}, "
            f"num_edges={self.num_edges})"
        )


def traced(graph: GraphLike) -> TracedGraph:
    """The graph for operators that sort inside, without other self-loops."""
    if isinstance(graph, TracedGraph):
        return graph
    assert isinstance(graph, Graph)
    return TracedGraph(graph, graph.num_src, graph.num_dst, self_loops=False)
