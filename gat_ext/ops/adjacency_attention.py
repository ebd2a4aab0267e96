"""adjacency_attention for torch: fake kernels, gradient and autocast.

edge_attention over the edges of a traced function: an edge_index, or the CSR of a graph. The
operator replaces self-loops, sorts and transposes inside itself and caches the result; as separate
steps, the traced program would repeat these at every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gat_ext.ops import composed
from gat_ext.ops.arguments import (
    AdjacencyAttention,
    AdjacencyAttentionBackward,
    Inputs,
    Results,
    gradients,
    is_absent,
    save,
    saved,
    select,
)
from gat_ext.ops.edge_attention import empty_gradients, empty_results
from gat_ext.ops.registry import Grads, ops, register_autocast
from gat_ext.ops.state import smaller


def num_slots(
    edges: Tensor, col: Tensor | None, num_src: int, num_dst: int, self_loops: bool
) -> int:
    """Rows of a tensor of edges: one for each given edge, then one for each added self-loop."""
    given = edges.shape[1] if col is None else col.shape[0]
    if not self_loops:
        return given
    return given + smaller(num_src, num_dst)


@torch.library.register_fake("gat_ext::adjacency_attention")
def _(*args: Any) -> tuple[Tensor, ...]:
    a = AdjacencyAttention(*args)
    slots = num_slots(a.edges, a.col, a.num_src, a.num_dst, a.self_loops)
    return empty_results(a, a.num_dst, slots, a.for_backward)


@torch.library.register_fake("gat_ext::adjacency_attention_backward")
def _(*args: Any) -> tuple[Tensor, ...]:
    return empty_gradients(AdjacencyAttentionBackward(*args))


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
    if self_loops:  # the number of given loops depends on the values
        count = torch.library.get_ctx().new_dynamic_size()
    return edges.new_empty(count, dtype=torch.int64)


def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Saves the arguments of the gradient, except the upstream gradients."""
    ctx.set_materialize_grads(False)
    found = Results(*output)
    ctx.mark_non_differentiable(found.softmax, found.out_acc, found.selected)
    a = select(AdjacencyAttentionBackward, AdjacencyAttention(*inputs))
    accumulated = found.out if is_absent(found.out_acc) else found.out_acc
    save(
        ctx,
        a._replace(
            out_acc=accumulated,
            softmax=found.softmax,
            selected=found.selected,
            weights=found.weights,
        ),
    )


def backward(ctx: Any, grads: tuple[Tensor | None, ...], operator: Callable[..., Any]) -> Grads:
    """The gradient by ``operator``: adjacency_attention_backward, or its transformable form."""
    a, grad = saved(ctx), Results(*grads)
    needed = select(Inputs, AdjacencyAttention(*ctx.needs_input_grad))
    grad_out = grad.out
    if grad_out is None:
        grad_out = a.value.new_zeros((*a.out_acc.shape[:2], a.value.shape[2]))
    found = operator(
        *a._replace(
            grad_out=grad_out,
            grad_lse=grad.lse,
            grad_weights=None if is_absent(a.weights) else grad.weights,
            needs_grad=[bool(n) for n in needed],
        )
    )
    by_input = zip(Inputs._fields, found, needed, strict=True)
    return gradients(AdjacencyAttention, {name: g for name, g, n in by_input if n})


def _backward(ctx: Any, *grads: Tensor | None) -> Grads:
    return backward(ctx, grads, ops.adjacency_attention_backward)


# ---- second derivatives


def backward_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Saves the arguments of double backward."""
    ctx.set_materialize_grads(False)
    a = AdjacencyAttentionBackward(*inputs)
    save(ctx, a._replace(out_acc=None, softmax=None, weights=None))  # they are recomputed


def double_backward(
    ctx: Any, upstream: tuple[Tensor | None, ...], differentiate: Callable[..., composed.Second]
) -> Grads:
    """Double backward, through the composition of torch's own operators.

    Args:
        ctx: the context of :func:`backward_setup`.
        upstream: the gradients of the first gradients.
        differentiate: ``second_by_autograd`` or ``second_by_transform`` of ``composed``.
    """
    a = saved(ctx)
    return composed.double_backward(a, composed.edges_of_slots(a), upstream, differentiate)


def _double_backward(ctx: Any, *upstream: Tensor | None) -> Grads:
    return double_backward(ctx, upstream, composed.second_by_autograd)


torch.library.register_autograd("gat_ext::adjacency_attention", _backward, setup_context=setup)
torch.library.register_autograd(
    "gat_ext::adjacency_attention_backward", _double_backward, setup_context=backward_setup
)
register_autocast("adjacency_attention", to_lower=True)
