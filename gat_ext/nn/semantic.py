"""Attention over the relations of a type of nodes, of HANConv."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from gat_ext.ops import linear_maps
from gat_ext.ops.state import is_tracing, is_transformed

_ROWS = 1 << 11
"""Of a block, which stays in the cache of a core; a constant, so that sums have one order."""


def over_relations(
    outs: list[Tensor],
    weight: Tensor,
    bias: Tensor,
    q: Tensor,
    mean: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Σ_r β_r z^r with z^r = relu(out^r) and β_r = softmax_r ⟨q, mean_i tanh(W z^r_i + b)⟩.

    Large matrices on the CPU are read block by block, forward and backward: next to the result and
    the gradients of ``outs``, only the tanh of each relation is allocated.

    Args:
        outs: R tensors [N, C], or [N, B, C] of a batch, with N > 0.
        weight: W, [C, C].
        bias: b, [C].
        q: [1, C].
        mean: the mean of rows [N, …] over all nodes, if N are some of them.

    Returns:
        (out [N, C], β [R]), or (out [N, B, C], β [R, B]).
    """
    first = outs[0]
    blockwise = (
        # First, because a traced program must not depend on the size.
        not (is_tracing() or is_transformed() or torch.is_autocast_enabled("cpu"))
        and not torch.are_deterministic_algorithms_enabled()
        and first.device.type == "cpu"
        and first.dim() == 2
        and first.shape[0] > _ROWS
        and all(t.dtype == first.dtype for t in (*outs, weight, bias, q))
        and first.dtype in (torch.float32, torch.float64)
    )
    if mean is not None or not blockwise:
        return _composed(outs, weight, bias, q, mean)
    out, weights = _Blockwise.apply(weight, bias, q, *outs)
    return out, weights


def _mean(rows: Tensor) -> Tensor:
    return rows.mean(0)


def _composed(
    outs: list[Tensor],
    weight: Tensor,
    bias: Tensor,
    q: Tensor,
    mean: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """In differentiable operators."""
    zs = [linear_maps.relu(out) for out in outs]
    of_rows = _mean if mean is None else mean
    means = [of_rows(linear_maps.linear(z, weight, bias).tanh()) for z in zs]
    weights = torch.stack([(q * mean).sum(-1) for mean in means]).softmax(0)
    weights = weights.squeeze(1) if outs[0].dim() == 2 else weights
    total = linear_maps.scaled(zs[0], weights[0].unsqueeze(-1))
    for z, factor in zip(zs[1:], weights[1:], strict=True):
        total = total + linear_maps.scaled(z, factor.unsqueeze(-1))
    return total, weights


def _blocks(*matrices: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(matrix.split(_ROWS) for matrix in matrices), strict=True)


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, q: Tensor, *outs: Tensor) -> Any:
        tanhs = [linear_maps.linear(linear_maps.relu(out), weight, bias).tanh_() for out in outs]
        means = torch.stack([t.mean(0) for t in tanhs])
        weights = (q * means).sum(1).softmax(0)
        result = torch.empty_like(outs[0])
        for into, *parts in _blocks(result, *outs):
            into.zero_()
            for part, factor in zip(parts, weights.tolist(), strict=True):
                into.add_(part.relu(), alpha=factor)
        ctx.save_for_backward(weight, bias, q, weights, means, *outs, *tanhs)
        ctx.set_materialize_grads(False)
        return result, weights

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_weights: Tensor | None) -> Any:
        weight, bias, q, weights, means, *rest = ctx.saved_tensors
        outs, tanhs = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        if torch.is_grad_enabled() or is_transformed():
            return _differentiable((weight, bias, q, *outs), (grad, grad_weights))
        upstream = torch.zeros_like(weights) if grad_weights is None else grad_weights.clone()
        if grad is not None:
            for number, out in enumerate(outs):
                for g, rows in _blocks(grad, out):
                    upstream[number] += torch.dot(g.flatten(), rows.relu().flatten())
        of_scores = weights * (upstream - (weights * upstream).sum())
        grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        grads = []
        for out, tanh, factor, of_score in zip(
            outs, tanhs, weights.tolist(), of_scores, strict=True
        ):
            of_mean = of_score * q[0] / out.shape[0]
            result = torch.empty_like(out)
            for into, t, g, rows in _blocks(result, tanh, out if grad is None else grad, out):
                u = torch.addcmul(of_mean, t * t, of_mean, value=-1)
                grad_weight.addmm_(u.t(), rows.relu())
                grad_bias += u.sum(0)
                torch.mm(u, weight, out=into)
                if grad is not None:
                    into.add_(g, alpha=factor)
                torch.ops.aten.threshold_backward.grad_input(into, rows, 0, grad_input=into)
            grads.append(result)
        return grad_weight, grad_bias, (of_scores @ means).unsqueeze(0), *grads


def _differentiable(inputs: tuple[Tensor, ...], upstream: tuple[Tensor | None, ...]) -> Any:
    """The gradients in differentiable operators, for derivatives after the first."""
    weight, bias, q, *outs = inputs
    results = _composed(outs, weight, bias, q)
    given = [(r, g) for r, g in zip(results, upstream, strict=True) if g is not None]
    wanted = [t for t in inputs if t.requires_grad]
    found = iter(
        torch.autograd.grad([r for r, _ in given], wanted, [g for _, g in given], create_graph=True)
    )
    return tuple(next(found) if t.requires_grad else None for t in inputs)
