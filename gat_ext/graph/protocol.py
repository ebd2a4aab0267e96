"""GraphLike, the interface of Graph and TracedGraph; SortedGraph, that of Graph."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from gat_ext.graph.csr import Transpose


class GraphLike(Protocol):
    """A :class:`gat_ext.Graph`, or a TracedGraph inside a traced function."""

    @property
    def num_src(self) -> int:
        """Number of sources."""
        ...

    @property
    def num_dst(self) -> int:
        """Number of destinations."""
        ...

    @property
    def num_edges(self) -> int:
        """Number of rows of per-edge tensors."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the edges."""
        ...

    @property
    def edge_index(self) -> Tensor:
        """int64 [2, num_edges], in the order of per-edge tensors."""
        ...


class SortedGraph(GraphLike, Protocol):
    """What conversions read of a :class:`gat_ext.Graph`."""

    @property
    def rowptr(self) -> Tensor:
        """int64 [num_dst + 1]."""
        ...

    @property
    def col(self) -> Tensor:
        """[E], sources in CSR order."""
        ...

    @property
    def edge_id(self) -> Tensor | None:
        """[E], the caller's positions in CSR order; None if the orders agree."""
        ...

    def transpose(self) -> Transpose:
        """The CSR by source."""
        ...
