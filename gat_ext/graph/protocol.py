"""What attention needs of a graph, wherever its edges are sorted."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class GraphLike(Protocol):
    """A :class:`gat_ext.Graph`, or what stands for one inside a function that is traced."""

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
        """Number of rows of a tensor of edges."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the edges lie."""
        ...

    @property
    def edge_index(self) -> Tensor:
        """int64 [2, num_edges], in the order of the tensors of edges."""
        ...
