"""Linear maps of several matrices, with the results one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gat_ext.ops import linear_maps
from gat_ext.ops.registry import Grads, ops
from gat_ext.ops.state import is_tracing, is_transformed

Part = tuple[Tensor, Tensor, Tensor | None]
"""(x [N, C], weight [K, C], bias [K] or None)"""


def stacked_linear(parts: Sequence[Part]) -> Tensor:
    """The products of each x and the transpose of its weight, plus its bias: [Σ N, K].

    On the CPU each is written to its place, which saves a copy of the result, and its memory.
    """
    if not _are_plain(parts):
        return torch.cat([linear_maps.linear(*part) for part in parts])
    out: Tensor = _Stacked.apply(*(t for column in zip(*parts, strict=True) for t in column))
    return out


def _are_plain(parts: Sequence[Part]) -> bool:
    """True for matrices of one dtype on the CPU, if nothing but autograd records the products."""
    if is_tracing() or is_transformed() or torch.is_autocast_enabled("cpu"):
        return False
    if torch.are_deterministic_algorithms_enabled() or len(parts) < 2:
        return False
    dtype = parts[0][0].dtype
    return all(
        t is None or (t.is_cpu and t.dtype == dtype and t.layout == torch.strided)
        for part in parts
        for t in part
    ) and all(x.dim() == 2 for x, _, _ in parts)


class _Stacked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Any) -> Tensor:
        count = len(tensors) // 3
        ctx.save_for_backward(*tensors[: 2 * count])
        xs, weights, biases = tensors[:count], tensors[count : 2 * count], tensors[2 * count :]
        rows = [x.shape[0] for x in xs]
        out: Tensor = xs[0].new_empty(sum(rows), weights[0].shape[0])
        for part, x, weight, bias in zip(out.split(rows), xs, weights, biases, strict=True):
            if bias is None:
                torch.mm(x, weight.t(), out=part)
            else:
                torch.addmm(bias, x, weight.t(), out=part)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Grads:
        saved, needs_grad = ctx.saved_tensors, ctx.needs_input_grad
        count = len(saved) // 2
        xs, weights = saved[:count], saved[count:]
        gradients: list[Tensor | None] = [None] * (3 * count)
        parts = zip(grad.split([x.shape[0] for x in xs]), xs, weights, strict=True)
        for i, (of_part, x, weight) in enumerate(parts):
            needed = [bool(n) for n in needs_grad[i::count]]
            found = ops.linear_backward(of_part, x, weight, needed)
            gradients[i::count] = [g if n else None for g, n in zip(found, needed, strict=True)]
        return tuple(gradients)
