"""edge_attention for torch: fake kernels, and the gradient of the gradient through the unfused operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.ops import composed
from gat_ext.ops.registry import Grads, accumulate_dtype, register_autocast

# Positions in the argument list of edge_attention.
_FIRST_INPUT, _NUM_INPUTS = 7, 9
_INPUTS = slice(_FIRST_INPUT, _FIRST_INPUT + _NUM_INPUTS)  # value … edge_feat
_NUM_SHARED = 22  # what edge_attention_backward takes over: all before top_k


@torch.library.register_fake("gat_ext::edge_attention")
def _(*args: Any) -> tuple[Tensor, ...]:
    rowptr, col, t_rowptr, value = args[0], args[1], args[3], args[_FIRST_INPUT]
    num_dst, num_edges = rowptr.shape[0] - 1, col.shape[0]
    return empty_results(value, num_dst, num_edges, t_rowptr is not None, *args[-3:])


def empty_results(
    value: Tensor,
    num_dst: int,
    num_edges: int,
    for_backward: bool,
    top_k: int,
    return_weights: bool,
    return_lse: bool,
) -> tuple[Tensor, ...]:
    """out, lse, softmax, out_acc, selected and weights, without values; [0] stands for an absent one."""
    _, heads, channels = value.shape
    accumulate = accumulate_dtype(value.dtype)
    keep_accumulated = value.dtype != accumulate and for_backward
    return (
        value.new_empty((num_dst, heads, channels)),
        value.new_empty((num_dst, heads) if return_lse else (0,), dtype=accumulate),
        value.new_empty((num_dst, heads, 2), dtype=accumulate),
        value.new_empty((num_dst, heads, channels) if keep_accumulated else (0,), dtype=accumulate),
        value.new_empty((num_edges, heads) if top_k > 0 else (0,), dtype=torch.uint8),
        value.new_empty((num_edges, heads) if return_weights else (0,)),
    )


@torch.library.register_fake("gat_ext::edge_attention_backward")
def _(*args: Any) -> tuple[Tensor, ...]:
    value, needs_grad = args[_FIRST_INPUT], args[-1]
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if needed and tensor is not None
        else value.new_empty(0)
        for tensor, needed in zip(args[_INPUTS], needs_grad, strict=True)
    )


# ---- second derivatives


def _backward_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    shared, rest = inputs[:_NUM_SHARED], inputs[_NUM_SHARED:]
    grad_out, grad_lse, grad_weights, _, softmax, selected, _, needs_grad = rest
    ctx.num_dst, ctx.num_heads, _ = softmax.shape
    ctx.save_for_backward(*shared[:17], grad_out, grad_lse, grad_weights, selected)
    ctx.constants, ctx.needs_grad = shared[17:], needs_grad


def _double_backward(ctx: Any, *upstream: Tensor | None) -> Grads:
    """Differentiates the unfused composition twice."""
    *saved, grad_out, grad_lse, grad_weights, selected = ctx.saved_tensors
    edges = composed.edges_of_graph(
        saved[:_FIRST_INPUT], ctx.num_heads, saved[16], ctx.constants[-1], selected
    )
    return composed.double_backward(
        _FIRST_INPUT,
        lambda inputs: composed.compose(edges, inputs, ctx.constants, ctx.num_dst),
        saved[_INPUTS],
        (grad_out, grad_lse, grad_weights),
        upstream,
        ctx.needs_grad,
        composed.second_by_autograd,
    )


torch.library.register_autograd(
    "gat_ext::edge_attention_backward", _double_backward, setup_context=_backward_setup
)

register_autocast("edge_attention", to_lower=True)
