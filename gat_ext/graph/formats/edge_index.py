"""The tensor inside an ``EdgeIndex`` of PyTorch Geometric, which is a subclass of Tensor."""

from __future__ import annotations

from torch import Tensor


def plain_tensor(edge_index: Tensor) -> Tensor:
    """The inner tensor of an ``EdgeIndex``; other tensors are returned unchanged."""
    return edge_index.as_tensor() if hasattr(edge_index, "as_tensor") else edge_index
