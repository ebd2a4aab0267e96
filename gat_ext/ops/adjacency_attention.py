"""adjacency_attention for torch: fake kernels, gradient and autocast.

edge_attention over what a traced function has of its edges: an edge_index, or the CSR of a graph. The operator replaces
self-loops, sorts and transposes by itself and remembers the outcome, which a trace would have to do again at every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gat_ext.ops import composed
from gat_ext.ops.edge_attention import empty_results
from gat_ext.ops.registry import Grads, ops, register_autocast
from gat_ext.ops.state import smaller

# Positions in the argument list of adjacency_attention.
_FOR_BACKWARD, _FIRST_INPUT, _NUM_INPUTS, _SEED = 6, 7, 9, 16
_INPUTS = slice(_FIRST_INPUT, _FIRST_INPUT + _NUM_INPUTS)  # value … edge_feat


def num_slots(
    edges: Tensor, col: Tensor | None, num_src: int, num_dst: int, self_loops: bool
) -> int:
    """Rows of an edge tensor: one for each edge given, then one for each loop that is put in their place."""
    given = edges.shape[1] if col is None else col.shape[0]
    if not self_loops:
        return given
    return given + smaller(num_src, num_dst)


@torch.library.register_fake("gat_ext::adjacency_attention")
def _(*args: Any) -> tuple[Tensor, ...]:
    edges, col, _, num_src, num_dst, self_loops, for_backward, value = args[: _FIRST_INPUT + 1]
    slots = num_slots(edges, col, num_src, num_dst, self_loops)
    return empty_results(value, num_dst, slots, for_backward, *args[-3:])


@torch.library.register_fake("gat_ext::adjacency_attention_backward")
def _(*args: Any) -> tuple[Tensor, ...]:
    needs_grad = args[-1]
    inputs = args[_FIRST_INPUT - 1 : _FIRST_INPUT - 1 + _NUM_INPUTS]  # it has no for_backward
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if needed and tensor is not None
        else inputs[0].new_empty(0)
        for tensor, needed in zip(inputs, needs_grad, strict=True)
    )


@torch.library.register_fake("gat_ext::edge_slots")
def _(
    edges: Tensor,
    col: Tensor | None,
    edge_id: Tensor | None,
    num_src: int,
    num_dst: int,
    self_loops: bool,
) -> Tensor:
    count: Any = num_slots(edges, col, num_src, num_dst, self_loops)
    if self_loops:  # how many of the edges given are loops is in the data
        count = torch.library.get_ctx().new_dynamic_size()
    return edges.new_empty(count, dtype=torch.int64)


def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keeps what the gradient needs."""
    ctx.set_materialize_grads(False)
    out, _, softmax, out_acc, selected, weights = output
    ctx.mark_non_differentiable(softmax, out_acc, selected)
    edges, col, edge_id = inputs[:3]
    ctx.sizes, ctx.constants = inputs[3:_FOR_BACKWARD], inputs[_SEED + 1 : -3]
    accumulated = out if out.dtype == out_acc.dtype else out_acc
    ctx.save_for_backward(
        edges,
        col,
        edge_id,
        *inputs[_INPUTS],
        inputs[_SEED],
        accumulated,
        softmax,
        selected,
        weights,
    )


def backward(ctx: Any, grads: tuple[Tensor | None, ...], operator: Callable[..., Any]) -> Grads:
    """The gradient, by ``operator``: adjacency_attention_backward, or what stands for it."""
    edges, col, edge_id, *inputs, seed, accumulated, softmax, selected, weights = ctx.saved_tensors
    needs_grad = [bool(needed) for needed in ctx.needs_input_grad[_INPUTS]]
    grad_out, grad_lse, _, _, _, grad_weights = grads
    if grad_out is None:
        grad_out = torch.zeros_like(accumulated, dtype=inputs[0].dtype)
    found = operator(
        *(edges, col, edge_id, *ctx.sizes, *inputs, seed, *ctx.constants),
        *(grad_out, grad_lse, grad_weights if weights.dim() == 2 else None),
        *(accumulated, softmax, selected, weights, needs_grad),
    )
    by_input = [grad if needed else None for grad, needed in zip(found, needs_grad, strict=True)]
    return (*([None] * _FIRST_INPUT), *by_input, *([None] * 9))


def _backward(ctx: Any, *grads: Tensor | None) -> Grads:
    return backward(ctx, grads, ops.adjacency_attention_backward)


# ---- second derivatives

_NUM_EDGE_ARGUMENTS = 6  # of the backward: edges, col, edge_id, and three sizes
_BACKWARD_INPUTS = slice(_NUM_EDGE_ARGUMENTS, _NUM_EDGE_ARGUMENTS + _NUM_INPUTS)
_BACKWARD_CONSTANTS = slice(_BACKWARD_INPUTS.stop + 1, _BACKWARD_INPUTS.stop + 6)


def backward_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keeps what the gradient of the gradient needs."""
    ctx.set_materialize_grads(False)
    ctx.sizes = inputs[3:_NUM_EDGE_ARGUMENTS]
    ctx.constants = inputs[_BACKWARD_CONSTANTS]
    grad_out, grad_lse, grad_weights, _, softmax, selected, _, needs_grad = inputs[
        _BACKWARD_CONSTANTS.stop :
    ]
    ctx.num_dst, ctx.num_heads, _ = softmax.shape
    ctx.needs_grad = needs_grad
    seed = inputs[_BACKWARD_INPUTS.stop]
    ctx.save_for_backward(
        *inputs[:3],
        *inputs[_BACKWARD_INPUTS],
        *(seed, grad_out, grad_lse, grad_weights, selected),
    )


def double_backward(
    ctx: Any, upstream: tuple[Tensor | None, ...], differentiate: Callable[..., composed.Second]
) -> Grads:
    """The gradient of the gradient: that of the composition of torch's own operators.

    Args:
        ctx: of :func:`backward_setup`.
        upstream: the gradients of the gradients.
        differentiate: how to: one of the functions of ``composed``.
    """
    *saved, seed, grad_out, grad_lse, grad_weights, selected = ctx.saved_tensors
    edges, inputs = saved[:3], saved[3:]
    slots = composed.edges_of_slots(
        (*edges, *ctx.sizes), ctx.num_heads, seed, ctx.constants[-1], selected
    )
    return composed.double_backward(
        _NUM_EDGE_ARGUMENTS,
        lambda inputs: composed.compose(slots, inputs, ctx.constants, ctx.num_dst),
        inputs,
        (grad_out, grad_lse, grad_weights),
        upstream,
        ctx.needs_grad,
        differentiate,
    )


def _double_backward(ctx: Any, *upstream: Tensor | None) -> Grads:
    return double_backward(ctx, upstream, composed.second_by_autograd)


torch.library.register_autograd("gat_ext::adjacency_attention", _backward, setup_context=setup)
torch.library.register_autograd(
    "gat_ext::adjacency_attention_backward", _double_backward, setup_context=backward_setup
)
register_autocast("adjacency_attention", to_lower=True)
