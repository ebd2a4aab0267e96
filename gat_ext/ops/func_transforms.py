"""adjacency_attention under torch.func: grad, vjp, jacrev and vmap, in any order.

vmap folds the batch into the heads, so that the edges are read once for the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.ops import adjacency_attention as adjacency
from gat_ext.ops.arguments import (
    HEADS,
    AdjacencyAttention,
    AdjacencyAttentionBackward,
    Inputs,
    Results,
    is_absent,
)
from gat_ext.ops.composed import second_by_transform
from gat_ext.ops.registry import Grads, ops


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
        a, dims = AdjacencyAttention(*args), AdjacencyAttention(*in_dims)
        results = Attention.apply(*_fold(info.batch_size, a, dims))
        return _unfold(info.batch_size, Results(*results))


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
        """Double backward by torch's operators, which can be transformed further."""
        return adjacency.double_backward(ctx, grads, second_by_transform)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        """The batch as heads."""
        a, dims = AdjacencyAttentionBackward(*args), AdjacencyAttentionBackward(*in_dims)
        gradients = AttentionBackward.apply(*_fold(info.batch_size, a, dims))
        return _unfold(info.batch_size, Inputs(*gradients))


def _check(a: Any, dims: Any) -> None:
    """Raises NotImplementedError if the batch cannot be folded into the heads."""
    if any(dim is not None for dim in (dims.edges, dims.col, dims.edge_id)):
        raise NotImplementedError(
            "vmap over edges is not supported, because each graph would be sorted separately; join "
            "the graphs with Graph.batch, and map over features only"
        )
    if a.dropout_p > 0:
        raise NotImplementedError(
            f"vmap over attention with dropout {a.dropout_p} is not supported; call eval() on the "
            "layer, or pass features [B, N, C] without vmap"
        )


def _fold(batch: int, a: Any, batch_dims: Any) -> Any:
    """The arguments with the batch as heads."""
    _check(a, batch_dims)
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
