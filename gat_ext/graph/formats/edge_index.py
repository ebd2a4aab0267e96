"""The tensor inside an ``EdgeIndex`` of PyTorch Geometric, which is a subclass of Tensor."""

from __future__ import annotations

from torch import Tensor


def plain_tensor(edge_index: Tensor) -> Tensor:
    """``edge_index``, out of the tensor subclass ``EdgeIndex`` if it is one."""
    return edge_index.as_tensor() if hasattr(edge_index, "as_tensor") else edge_index
