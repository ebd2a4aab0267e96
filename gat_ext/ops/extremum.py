"""spmm_extremum for torch: fake kernels, gradients and autocast.

Once the winning edges are known, the operator is linear in x and in the weights. Its gradients of
any order are made of four operators, each of which is the gradient of another. All of them sum in
the order of the edges or of the channels, without atomics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gat_ext.ops.registry import Grads, ops, register_autocast
from gat_ext.ops.scatter import to_caller_order

_GRAPH = (
    "Tensor rowptr, Tensor col, Tensor? edge_id, Tensor? t_rowptr, Tensor? t_col, Tensor? t_edge_id"
)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


# ---- spmm_extremum


@torch.library.register_fake("gat_ext::spmm_extremum")
def _(
    rowptr: Tensor,
    col: Tensor,
    edge_id: Tensor | None,
    t_rowptr: Tensor | None,
    t_col: Tensor | None,
    t_edge_id: Tensor | None,
    weight: Tensor | None,
    x: Tensor,
    largest: bool,
) -> tuple[Tensor, Tensor]:
    shape = (rowptr.shape[0] - 1, x.shape[1], x.shape[2])
    return x.new_empty(shape), x.new_empty(shape, dtype=col.dtype)


def _extremum_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *graph, weight, x, _ = inputs
    keep_x = x if ctx.needs_input_grad[6] else None
    ctx.save_for_backward(*graph, weight, keep_x, output[1])
    ctx.mark_non_differentiable(output[1])


def _extremum_backward(ctx: Any, grad: Tensor, _: Tensor) -> Grads:
    *graph, weight, x, arg = ctx.saved_tensors
    grad_weight = grad_x = None
    if ctx.needs_input_grad[6]:
        grad_weight = _sum_of_winners(graph, grad * ops.winner_features(*graph, x, arg), arg)
    if ctx.needs_input_grad[7]:
        grad_x = ops.spmm_extremum_backward(*graph, weight, grad, arg)
    return *([None] * 6), grad_weight, grad_x, None


torch.library.register_autograd(
    "gat_ext::spmm_extremum", _extremum_backward, setup_context=_extremum_setup
)


# ---- spmm_extremum_backward: the gradient of x


@torch.library.register_fake("gat_ext::spmm_extremum_backward")
def _(
    rowptr: Tensor,
    col: Tensor,
    edge_id: Tensor | None,
    t_rowptr: Tensor,
    t_col: Tensor,
    t_edge_id: Tensor | None,
    weight: Tensor | None,
    grad: Tensor,
    arg: Tensor,
) -> Tensor:
    return grad.new_empty((t_rowptr.shape[0] - 1, grad.shape[1], grad.shape[2]))


def _extremum_double_backward(ctx: Any, upstream: Tensor) -> Grads:
    *graph, weight, grad, arg = ctx.saved_tensors
    won = ops.winner_features(*graph, upstream, arg)
    grad_weight = None
    if ctx.needs_input_grad[6]:
        grad_weight = _sum_of_winners(graph, grad * won, arg)
    if weight is not None:
        won = won * ops.winner_weights(graph[0], graph[2], weight, arg)
    return *([None] * 6), grad_weight, won, None


torch.library.register_autograd(
    "gat_ext::spmm_extremum_backward", _extremum_double_backward, setup_context=_save_inputs
)


# ---- winner_sum and winner_weights: each other's gradients


@torch.library.register_fake("gat_ext::winner_sum")
def _(
    rowptr: Tensor, edge_id: Tensor | None, num_edges: int, values: Tensor, arg: Tensor
) -> Tensor:
    return values.new_empty((num_edges, values.shape[1]))


def _sum_of_winners(graph: Sequence[Any], values: Tensor, arg: Tensor) -> Tensor:
    """[E, H], the values [N_dst, H, F] of the channels that each edge has won, summed."""
    rowptr, col, edge_id, *_ = graph
    result: Tensor = ops.winner_sum(rowptr, edge_id, col.shape[0], values, arg)
    return result


def _winner_sum_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rowptr, edge_id, _, _, arg = inputs
    ctx.save_for_backward(rowptr, edge_id, arg)


def _winner_sum_backward(ctx: Any, grad: Tensor) -> Grads:
    rowptr, edge_id, arg = ctx.saved_tensors
    return None, None, None, ops.winner_weights(rowptr, edge_id, grad, arg), None


torch.library.register_autograd(
    "gat_ext::winner_sum", _winner_sum_backward, setup_context=_winner_sum_setup
)


@torch.library.custom_op(
    "gat_ext::winner_weights",
    mutates_args=(),
    schema="(Tensor rowptr, Tensor? edge_id, Tensor weight, Tensor arg) -> Tensor",
)
def winner_weights(rowptr: Tensor, edge_id: Tensor | None, weight: Tensor, arg: Tensor) -> Tensor:
    """[N_dst, H, F], the numbers [E, H] of the winning edges; 0 for rows without edges."""
    if weight.shape[0] == 0:
        return torch.zeros_like(arg, dtype=weight.dtype)
    each = weight.unsqueeze(2).expand(-1, -1, arg.shape[2])
    return each.gather(0, arg.clamp(min=0).long()).masked_fill_(arg < 0, 0)


@winner_weights.register_fake
def _(rowptr: Tensor, edge_id: Tensor | None, weight: Tensor, arg: Tensor) -> Tensor:
    return torch.empty_like(arg, dtype=weight.dtype)


def _winner_weights_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rowptr, edge_id, weight, arg = inputs
    ctx.save_for_backward(rowptr, edge_id, arg)
    ctx.num_edges = weight.shape[0]


def _winner_weights_backward(ctx: Any, grad: Tensor) -> Grads:
    rowptr, edge_id, arg = ctx.saved_tensors
    return None, None, ops.winner_sum(rowptr, edge_id, ctx.num_edges, grad, arg), None


winner_weights.register_autograd(_winner_weights_backward, setup_context=_winner_weights_setup)


# ---- winner_features, whose gradient is spmm_extremum_backward


@torch.library.custom_op(
    "gat_ext::winner_features",
    mutates_args=(),
    schema=f"({_GRAPH}, Tensor x, Tensor arg) -> Tensor",
)
def winner_features(
    rowptr: Tensor,
    col: Tensor,
    edge_id: Tensor | None,
    t_rowptr: Tensor | None,
    t_col: Tensor | None,
    t_edge_id: Tensor | None,
    x: Tensor,
    arg: Tensor,
) -> Tensor:
    """[N_dst, H, F], x of the sources of the winning edges; 0 for rows without edges."""
    if col.numel() == 0:
        return torch.zeros_like(arg, dtype=x.dtype)
    source = to_caller_order(col, edge_id).index_select(0, arg.clamp(min=0).flatten())
    return x.gather(0, source.long().view_as(arg)).masked_fill_(arg < 0, 0)


@winner_features.register_fake
def _(
    rowptr: Tensor,
    col: Tensor,
    edge_id: Tensor | None,
    t_rowptr: Tensor | None,
    t_col: Tensor | None,
    t_edge_id: Tensor | None,
    x: Tensor,
    arg: Tensor,
) -> Tensor:
    return torch.empty_like(arg, dtype=x.dtype)


def _winner_features_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *graph, _, arg = inputs
    ctx.save_for_backward(*graph, arg)


def _winner_features_backward(ctx: Any, grad: Tensor) -> Grads:
    *graph, arg = ctx.saved_tensors
    grad_x = ops.spmm_extremum_backward(*graph, None, grad, arg)
    return *([None] * 6), grad_x, None


winner_features.register_autograd(_winner_features_backward, setup_context=_winner_features_setup)

register_autocast("spmm_extremum", to_lower=True)
