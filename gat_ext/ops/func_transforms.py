"""edge_attention under torch.func: grad, vjp, jacrev and vmap, in any order.

vmap folds the batch into the heads, so that the edges are read once for the whole batch. Dropout
takes a call for each element, because its random numbers are those of a seed, an edge and a head;
inputs that the heads share do, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gat_ext.ops import composed
from gat_ext.ops.arguments import (
    HEADS,
    SHARED,
    EdgeAttention,
    EdgeAttentionBackward,
    Inputs,
    Results,
    gradients,
    is_absent,
    save,
    saved,
    select,
)
from gat_ext.ops.registry import Grads, ops


class Attention(torch.autograd.Function):
    """``ops.edge_attention``, transformable."""

    @staticmethod
    def forward(*args: Any) -> Any:
        """As the operator."""
        return ops.edge_attention(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Saves the arguments of the gradient, except the upstream gradients."""
        ctx.set_materialize_grads(False)
        found = Results(*output)
        ctx.mark_non_differentiable(found.softmax, found.out_acc, found.selected)
        a = select(EdgeAttentionBackward, EdgeAttention(*inputs))
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

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        """As the operator's."""
        a, grad = saved(ctx), Results(*grads)
        needed = select(Inputs, EdgeAttention(*ctx.needs_input_grad))
        grad_out = grad.out
        if grad_out is None:
            grad_out = a.value.new_zeros((*a.out_acc.shape[:2], a.value.shape[2]))
        found = AttentionBackward.apply(
            *a._replace(
                grad_out=grad_out,
                grad_lse=grad.lse,
                grad_weights=None if is_absent(a.weights) else grad.weights,
                needs_grad=[bool(n) for n in needed],
            )
        )
        by_input = zip(Inputs._fields, found, needed, strict=True)
        return gradients(EdgeAttention, {name: g for name, g, n in by_input if n})

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        """See :func:`_map`."""
        a, dims = EdgeAttention(*args), EdgeAttention(*in_dims)
        return _map(Attention.apply, info.batch_size, a, dims, Results)


class AttentionBackward(torch.autograd.Function):
    """``ops.edge_attention_backward``, transformable."""

    @staticmethod
    def forward(*args: Any) -> Any:
        """As the operator."""
        return ops.edge_attention_backward(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """As the operator's."""
        composed.save_for_double_backward(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        """Double backward by torch's operators, which can be transformed further."""
        return composed.double_backward(saved(ctx), grads, composed.second_by_transform)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        """See :func:`_map`."""
        a, dims = EdgeAttentionBackward(*args), EdgeAttentionBackward(*in_dims)
        return _map(AttentionBackward.apply, info.batch_size, a, dims, Inputs)


def _map(
    operator: Callable[..., Any], batch: int, a: Any, dims: Any, named: Callable[..., Any]
) -> tuple[Any, Any]:
    """The results of an operator for a batch, and the position of the batch in each of them.

    Args:
        operator: the operator.
        batch: size of the batch.
        a: the arguments.
        dims: the position of the batch in each argument, or None.
        named: named tuple of the results.
    """
    if a.dropout_p > 0 or any(getattr(a, name) is not None for name in SHARED):
        return _one_by_one(operator, batch, a, dims)
    return _unfold(batch, named(*operator(*_fold(batch, a, dims))))


def _one_by_one(operator: Callable[..., Any], batch: int, a: Any, dims: Any) -> tuple[Any, Any]:
    """As _map, by a call for each element."""
    batched = [name for name in a._fields if isinstance(getattr(dims, name), int)]
    results = [
        operator(*a._replace(**{n: getattr(a, n).select(getattr(dims, n), i) for n in batched}))
        for i in range(batch)
    ]
    stacked = [
        (parts[0], None) if is_absent(parts[0]) else (torch.stack(parts), 0)
        for parts in zip(*results, strict=True)
    ]
    tensors, positions = zip(*stacked, strict=True)
    return tensors, positions


def _fold(batch: int, a: Any, batch_dims: Any) -> Any:
    """The arguments with the batch as heads."""
    folded = {}
    for name in HEADS.keys() & set(a._fields):
        tensor, batch_dim, dim = getattr(a, name), getattr(batch_dims, name), HEADS[name]
        if tensor is None or (batch_dim is None and is_absent(tensor)):
            continue
        if batch_dim is None:
            shape = list(tensor.shape)
            shape.insert(dim, batch)
            tensor = tensor.unsqueeze(dim).expand(shape)
        else:
            tensor = tensor.movedim(batch_dim, dim)
        folded[name] = tensor.flatten(dim, dim + 1)
    return a._replace(**folded)


def _unfold(batch: int, results: Any) -> tuple[Any, Any]:
    """The results with the batch as a dimension before the heads, and its position in each."""
    dims = tuple(
        None if is_absent(result) else HEADS[name]
        for name, result in zip(results._fields, results, strict=True)
    )
    unfolded = tuple(
        result if dim is None else result.unflatten(dim, (batch, -1))
        for result, dim in zip(results, dims, strict=True)
    )
    return unfolded, dims
