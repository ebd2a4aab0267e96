"""Activations that onnxruntime does not have in float64, as formulas in exports to ONNX."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gat_ext.ops.state import is_exporting_to_onnx


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    """As torch's."""
    if _lacks_kernel(x):
        return torch.where(x > 0, x, slope * x)
    return F.leaky_relu(x, slope)


def elu(x: Tensor) -> Tensor:
    """As torch's."""
    if _lacks_kernel(x):
        return torch.where(x > 0, x, x.clamp(max=0).exp() - 1)
    return F.elu(x)


def _lacks_kernel(x: Tensor) -> bool:
    return x.dtype == torch.float64 and is_exporting_to_onnx()
