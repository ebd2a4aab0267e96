"""edge_softmax, sddmm, spmm and the like for torch: fake kernels, gradients and autocast."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from gat_ext.ops.registry import Grads, ops, register_autocast


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


# ---- edge_softmax: closed under differentiation through its own backward and row sums


@torch.library.register_fake("gat_ext::edge_softmax")
def _(rowptr: Tensor, edge_id: Tensor | None, scores: Tensor) -> Tensor:
    return torch.empty_like(scores, memory_format=torch.contiguous_format)


@torch.library.register_fake("gat_ext::edge_softmax_backward")
def _(rowptr: Tensor, edge_id: Tensor | None, grad: Tensor, alpha: Tensor) -> Tensor:
    return torch.empty_like(alpha, memory_format=torch.contiguous_format)


def _edge_softmax_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rowptr, edge_id, _ = inputs
    ctx.save_for_backward(rowptr, edge_id, output)


def _edge_softmax_backward(ctx: Any, grad: Tensor) -> Grads:
    rowptr, edge_id, alpha = ctx.saved_tensors
    return None, None, ops.edge_softmax_backward(rowptr, edge_id, grad, alpha)


def _edge_softmax_double_backward(ctx: Any, grad: Tensor) -> Grads:
    # out = alpha (g - r), r the row sum of alpha g; with upstream u:
    #   d/dg = alpha (u - s), s the row sum of alpha u, which is the same operator;
    #   d/dalpha = u (g - r) - g s.
    rowptr, edge_id, g, alpha = ctx.saved_tensors
    ones = alpha.new_ones((alpha.shape[0], 1))

    def row_sum(values: Tensor) -> Tensor:  # for each edge, in an order that is always the same
        of_row = ops.edge_sum(rowptr, edge_id, values, ones)
        result: Tensor = ops.edge_dot(rowptr, edge_id, of_row, ones)
        return result

    # Meta tensors have no autocast.
    with nullcontext() if alpha.is_meta else torch.autocast(alpha.device.type, enabled=False):
        r, s = row_sum(alpha * g), row_sum(alpha * grad)
    return (
        None,
        None,
        ops.edge_softmax_backward(rowptr, edge_id, grad, alpha),
        grad * (g - r) - g * s,
    )


torch.library.register_autograd(
    "gat_ext::edge_softmax", _edge_softmax_backward, setup_context=_edge_softmax_setup
)
torch.library.register_autograd(
    "gat_ext::edge_softmax_backward",
    _edge_softmax_double_backward,
    setup_context=_save_inputs,
)


# ---- sddmm and spmm: each other's gradients


@torch.library.register_fake("gat_ext::sddmm")
def _(
    rowptr: Tensor,
    col: Tensor,
    edge_id: Tensor | None,
    t_rowptr: Tensor | None,
    t_col: Tensor | None,
    t_edge_id: Tensor | None,
    x: Tensor,
    y: Tensor,
) -> Tensor:
    return x.new_empty((col.shape[0], x.shape[1]))


def _sddmm_backward(ctx: Any, grad: Tensor) -> Grads:
    rowptr, col, edge_id, t_rowptr, t_col, t_edge_id, x, y = ctx.saved_tensors
    graph = rowptr, col, edge_id, t_rowptr, t_col, t_edge_id
    grad_x = grad_y = None
    if ctx.needs_input_grad[6]:
        grad_x = ops.spmm(*graph, grad, y)
    if ctx.needs_input_grad[7]:
        grad_y = ops.spmm(*_transposed(graph), grad, x)
    return *([None] * 6), grad_x, grad_y


def _transposed(graph: tuple[Any, ...]) -> tuple[Any, ...]:
    rowptr, col, edge_id, t_rowptr, t_col, t_edge_id = graph
    return t_rowptr, t_col, t_edge_id, rowptr, col, edge_id


torch.library.register_autograd("gat_ext::sddmm", _sddmm_backward, setup_context=_save_inputs)


@torch.library.register_fake("gat_ext::spmm")
def _(
    rowptr: Tensor,
    col: Tensor,
    edge_id: Tensor | None,
    t_rowptr: Tensor | None,
    t_col: Tensor | None,
    t_edge_id: Tensor | None,
    weight: Tensor | None,
    x: Tensor,
) -> Tensor:
    return x.new_empty((rowptr.shape[0] - 1, x.shape[1], x.shape[2]))


def _spmm_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *graph, weight, x = inputs
    ctx.save_for_backward(*graph, weight, x if ctx.needs_input_grad[6] else None)


def _spmm_backward(ctx: Any, grad: Tensor) -> Grads:
    rowptr, col, edge_id, t_rowptr, t_col, t_edge_id, weight, x = ctx.saved_tensors
    graph = rowptr, col, edge_id, t_rowptr, t_col, t_edge_id
    grad_weight = grad_x = None
    if ctx.needs_input_grad[6]:
        grad_weight = ops.sddmm(*graph, grad, x)
    if ctx.needs_input_grad[7]:
        grad_x = ops.spmm(*_transposed(graph), weight, grad)
    return *([None] * 6), grad_weight, grad_x


torch.library.register_autograd("gat_ext::spmm", _spmm_backward, setup_context=_spmm_setup)


# ---- edge_dot and edge_sum: each other's gradients; exchanging heads and channels of the query
# exchanges the edge features and what there is one of for each head


@torch.library.register_fake("gat_ext::edge_dot")
def _(rowptr: Tensor, edge_id: Tensor | None, query: Tensor, edge_attr: Tensor) -> Tensor:
    return query.new_empty((edge_attr.shape[0], query.shape[1]))


def _edge_dot_backward(ctx: Any, grad: Tensor) -> Grads:
    rowptr, edge_id, query, edge_attr = ctx.saved_tensors
    grad_query = grad_edge_attr = None
    if ctx.needs_input_grad[2]:
        grad_query = ops.edge_sum(rowptr, edge_id, grad, edge_attr)
    if ctx.needs_input_grad[3]:
        grad_edge_attr = ops.edge_dot(rowptr, edge_id, query.transpose(1, 2), grad)
    return None, None, grad_query, grad_edge_attr


@torch.library.register_fake("gat_ext::edge_sum")
def _(rowptr: Tensor, edge_id: Tensor | None, weight: Tensor, edge_attr: Tensor) -> Tensor:
    return weight.new_empty((rowptr.shape[0] - 1, weight.shape[1], edge_attr.shape[1]))


def _edge_sum_backward(ctx: Any, grad: Tensor) -> Grads:
    rowptr, edge_id, weight, edge_attr = ctx.saved_tensors
    grad_weight = grad_edge_attr = None
    if ctx.needs_input_grad[2]:
        grad_weight = ops.edge_dot(rowptr, edge_id, grad, edge_attr)
    if ctx.needs_input_grad[3]:
        grad_edge_attr = ops.edge_dot(rowptr, edge_id, grad.transpose(1, 2), weight)
    return None, None, grad_weight, grad_edge_attr


for _name, _gradient in (("edge_dot", _edge_dot_backward), ("edge_sum", _edge_sum_backward)):
    torch.library.register_autograd(f"gat_ext::{_name}", _gradient, setup_context=_save_inputs)


# ---- edge_dropout_mask: not differentiable


@torch.library.register_fake("gat_ext::edge_dropout_mask")
def _(
    seed: Tensor,
    num_edges: int,
    num_heads: int,
    dropout_p: float,
    edge_number: Tensor | None = None,
) -> Tensor:
    return seed.new_empty((num_edges, num_heads), dtype=torch.bool)


# ---- autocast: matrix-like operators run in its dtype, softmax in float32

for _name in ("sddmm", "spmm", "edge_dot", "edge_sum"):
    register_autocast(_name, to_lower=True)
register_autocast("edge_softmax", to_lower=False)
