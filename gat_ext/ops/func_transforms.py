"""adjacency_attention under torch.func: grad, vjp, jacrev and vmap, in any order.

vmap makes the batch more heads, of which the operator takes any number: the edges are read once for all of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.ops import adjacency_attention as adjacency
from gat_ext.ops.composed import second_by_transform
from gat_ext.ops.registry import Grads, ops

# The dimension of the heads in each tensor argument, by position in the argument list of the forward and of the backward.
_FORWARD_HEADS = dict(zip(range(7, 16), (1, 1, 1, 0, 1, 1, 1, 1, 1), strict=True))
_BACKWARD_HEADS = dict(zip((*range(6, 15), *range(21, 28)), (1, 1, 1, 0, *([1] * 12)), strict=True))
_GRAD_HEADS = (1, 1, 1, 0, 1, 1, 1, 1, 1)
_FORWARD_DROPOUT, _BACKWARD_DROPOUT = 21, 20


class Attention(torch.autograd.Function):
    """``ops.adjacency_attention``, transformable."""

    @staticmethod
    def forward(*args: Any) -> Any:
        """As the operator."""
        return ops.adjacency_attention(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """As the operator's."""
        adjacency.setup(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        """As the operator's."""
        return adjacency.backward(ctx, grads, AttentionBackward.apply)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        """The batch as heads."""
        _refuse(in_dims, args[_FORWARD_DROPOUT])
        folded = _fold(info.batch_size, in_dims, args, _FORWARD_HEADS)
        return _unfold(info.batch_size, Attention.apply(*folded), (1,) * 6)


class AttentionBackward(torch.autograd.Function):
    """``ops.adjacency_attention_backward``, transformable."""

    @staticmethod
    def forward(*args: Any) -> Any:
        """As the operator."""
        return ops.adjacency_attention_backward(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """As the operator's."""
        adjacency.backward_setup(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        """The gradient of the gradient, by operators of torch, which can be transformed further."""
        return adjacency.double_backward(ctx, grads, second_by_transform)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        """The batch as heads."""
        _refuse(in_dims, args[_BACKWARD_DROPOUT])
        folded = _fold(info.batch_size, in_dims, args, _BACKWARD_HEADS)
        return _unfold(info.batch_size, AttentionBackward.apply(*folded), _GRAD_HEADS)


def _refuse(in_dims: tuple[Any, ...], dropout_p: float) -> None:
    if any(dim is not None for dim in in_dims[:3]):
        raise NotImplementedError(
            "vmap over edges: each graph would have to be sorted on its own; join the graphs into "
            "one with Graph.batch, and map over features only"
        )
    if dropout_p > 0:
        raise NotImplementedError(
            f"vmap over attention with dropout {dropout_p}; call eval() on the layer, or give it "
            "features [B, N, C] instead of using vmap"
        )


def _fold(
    batch: int, in_dims: tuple[Any, ...], args: tuple[Any, ...], heads: dict[int, int]
) -> list[Any]:
    folded = list(args)
    for position, dim in heads.items():
        tensor, batch_dim = args[position], in_dims[position]
        if tensor is None or (batch_dim is None and tensor.dim() < 2):  # [0] stands for nothing
            continue
        if batch_dim is None:
            shape = list(tensor.shape)
            shape.insert(dim, batch)
            tensor = tensor.unsqueeze(dim).expand(shape)
        else:
            tensor = tensor.movedim(batch_dim, dim)
        folded[position] = tensor.flatten(dim, dim + 1)
    return folded


def _unfold(batch: int, results: tuple[Tensor, ...], heads: tuple[int, ...]) -> tuple[Any, Any]:
    absent = [result.dim() < 2 for result in results]
    unfolded = tuple(
        result if none else result.unflatten(dim, (batch, -1))
        for result, dim, none in zip(results, heads, absent, strict=True)
    )
    return unfolded, tuple(None if none else dim for dim, none in zip(heads, absent, strict=True))
