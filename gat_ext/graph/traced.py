"""Graphs within functions that are traced: by torch.compile, torch.export, make_fx, or transformed by torch.func."""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.graph import Graph
from gat_ext.ops.adjacency_attention import num_slots
from gat_ext.ops.registry import ops


class TracedGraph(Graph):
    """The edges of an edge_index or a graph, for ``adjacency_attention`` to sort; it has no CSR of its own.

    Edge tensors that go with it have a row for each slot: the edges given, in their order, then, with ``self_loops``, one loop
    for each node that is source and destination. The loops take the place of those among the edges given, whose slots are
    neither read nor attended to.

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
        self.sizes = num_src, num_dst
        self.num_given = adjacency.num_edges if isinstance(adjacency, Graph) else parts[0].shape[1]
        self.num_slots = num_slots(parts[0], parts[1], num_src, num_dst, self_loops)

    @property
    def num_src(self) -> int:
        """Number of sources."""
        return self.sizes[0]

    @property
    def num_dst(self) -> int:
        """Number of destinations."""
        return self.sizes[1]

    @property
    def num_edges(self) -> int:
        """Number of slots."""
        return self.num_slots

    @property
    def device(self) -> torch.device:
        """Where the edges lie."""
        return self.given.device

    @property
    def edge_index(self) -> Tensor:
        """int64 [2, E], without the loops that are added."""
        return self.given.edge_index if isinstance(self.given, Graph) else self.given.long()

    def edges_with(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(edge_index [2, E'], weights [E', H]) of weights [slots, H]: without the slots of loops that were replaced.

        The edge_index has the dtype of the one that was given, and is that one where no loops are replaced.
        """
        edge_index = self.given.edge_index if isinstance(self.given, Graph) else self.given
        if not self.self_loops:
            return edge_index, weights
        count = self.num_slots - self.num_given
        loops = torch.arange(count, dtype=edge_index.dtype, device=self.device).expand(2, -1)
        slots = ops.edge_slots(*self.arguments)
        return torch.cat([edge_index, loops], dim=1)[:, slots], weights[slots]

    def __repr__(self) -> str:
        """The counts."""
        return f"Graph(num_src={self.num_src}, num_dst={self.num_dst}, num_edges={self.num_slots})"
