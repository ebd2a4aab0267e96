"""Graphs inside functions that are traced by torch.compile, torch.export, make_fx or torch.func."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from gat_ext.graph.csr import adjacency_csr
from gat_ext.graph.graph import Graph
from gat_ext.ops.slots import are_attended, num_slots, with_loops


class TracedGraph:
    """A graph without CSR, whose edges the operator ``adjacency_csr`` sorts in the traced program.

    It is a :class:`gat_ext.graph.protocol.GraphLike`. Per-edge tensors have a row for each slot:
    the given edges, in their order, then, with ``self_loops``, one loop for each node that is
    source and destination. These replace the given self-loops, whose slots are not read.

    Args:
        adjacency: an edge_index [2, E], or a graph.
        num_src: number of sources.
        num_dst: number of destinations.
        self_loops: replace the self-loops.
    """

    def __init__(
        self, adjacency: Tensor | Graph, num_src: int, num_dst: int, self_loops: bool
    ) -> None:
        """Stores the edges without reading them."""
        parts: tuple[Tensor, Tensor | None, Tensor | None] = (
            (adjacency.rowptr, adjacency.col, adjacency.edge_id)
            if isinstance(adjacency, Graph)
            else (adjacency, None, None)
        )
        self.given, self.self_loops = adjacency, self_loops
        self._parts = parts
        self.num_src, self.num_dst = num_src, num_dst
        self.num_given = adjacency.num_edges if isinstance(adjacency, Graph) else parts[0].shape[1]
        self.num_edges = num_slots(parts[0], parts[1], num_src, num_dst, self_loops)
        self._with_csr: Graph | None = None

    @property
    def device(self) -> torch.device:
        """The device of the edges."""
        return self.given.device

    @property
    def edge_index(self) -> Tensor:
        """int64 [2, num_edges], the edges of all slots."""
        return self._slots(torch.int64)

    @property
    def attended(self) -> Tensor:
        """[num_edges], bool: False for the slots of the given self-loops, if they are replaced."""
        if not self.self_loops:
            return torch.ones(self.num_edges, dtype=torch.bool, device=self.device)
        src, dst = self._slots(None)[:, : self.num_given]
        return are_attended(src, dst, self.num_edges - self.num_given)

    @property
    def edge_number(self) -> Tensor | None:
        """int64 [num_edges], numbers without the slots that are not attended; None: positions."""
        return (self.attended.cumsum(0) - 1).clamp(min=0) if self.self_loops else None

    def sorted(self, for_backward: bool) -> tuple[Tensor | None, ...]:
        """The CSR of the slots: rowptr, col, edge_id, and t_rowptr, t_col, t_pos, t_edge_id.

        The slots that are not attended are behind the last row. Programs compute equal calls, those
        of other layers, once.
        """
        csr, transpose = adjacency_csr(
            self._parts,
            (self.num_src, self.num_dst),
            self._index_dtype,
            self_loops=self.self_loops,
            transpose=for_backward,
        )
        return *csr, *(transpose or (None,) * 4)

    @property
    def _index_dtype(self) -> torch.dtype | None:
        wide = isinstance(self.given, Graph) and self.given.index_dtype == torch.int64
        return torch.int64 if wide else None

    def with_csr(self) -> Graph:
        """A graph with an edge for every slot, sorted inside the traced program.

        Those of slots that are not attended over need a weight of 0.
        """
        if isinstance(self.given, Graph) and not self.self_loops:
            return self.given
        if self._with_csr is None:
            parts, counts = (self._slots(None), None, None), (self.num_src, self.num_dst)
            self._with_csr = Graph._from_csr(adjacency_csr(parts, counts)[0], self.num_src)
        return self._with_csr

    def edges_with(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(edge_index [2, E'], weights [E', H]) of weights [num_edges, H], without replaced loops.

        The edge_index has the dtype of the given one, and is the given one without ``self_loops``.
        """
        edge_index = self._slots(None)
        if not self.self_loops:
            return edge_index, weights
        slots = self.attended.nonzero().flatten()
        return edge_index[:, slots], weights[slots]

    def _slots(self, dtype: torch.dtype | None) -> Tensor:
        given = self.given.edge_index if isinstance(self.given, Graph) else self.given
        given = given if dtype is None else given.to(dtype)
        return with_loops(given, self.num_edges - self.num_given) if self.self_loops else given

    def __getattr__(self, name: str) -> NoReturn:
        """Raises NotImplementedError for the attributes of Graph that this class lacks."""
        if hasattr(Graph, name) and not name.startswith("__"):
            raise NotImplementedError(
                f"a graph inside a traced function has no {name}, because its edges are not sorted "
                "before the function runs; build a Graph outside the function and pass it in"
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __repr__(self) -> str:
        """The counts."""
        return (
            f"TracedGraph(num_src={self.num_src}, num_dst={self.num_dst}, "
            f"num_edges={self.num_edges})"
        )
