"""edge_attention for torch: fake kernels, and double backward through the unfused operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.ops import composed
from gat_ext.ops.arguments import (
    EdgeAttention,
    EdgeAttentionBackward,
    Inputs,
    Results,
    absent,
    saved,
    select,
)
from gat_ext.ops.registry import Grads, accumulate_dtype, register_autocast
from gat_ext.ops.scores import accumulated_channels


@torch.library.register_fake("gat_ext::edge_attention")
def _(*args: Any) -> tuple[Tensor, ...]:
    a = EdgeAttention(*args)
    num_dst, num_edges, for_backward = a.rowptr.shape[0] - 1, a.col.shape[0], a.t_rowptr is not None
    _, heads, channels = a.value.shape
    accumulate = accumulate_dtype(a.value.dtype)
    accumulated = accumulated_channels(a)
    rounds = a.value.dtype != accumulate or accumulated != channels

    def empty(present: bool, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        empty: Tensor = a.value.new_empty(shape if present else (0,), dtype=dtype)
        return empty

    results: tuple[Tensor, ...] = Results(
        out=empty(True, num_dst, heads, channels),
        lse=empty(a.return_lse, num_dst, heads, dtype=accumulate),
        softmax=empty(True, num_dst, heads, 2, dtype=accumulate),
        out_acc=empty(rounds and for_backward, num_dst, heads, accumulated, dtype=accumulate),
        selected=empty(a.top_k > 0, num_edges, heads, dtype=torch.uint8),
        weights=empty(a.return_weights, num_edges, heads),
    )
    return tuple(results)


@torch.library.register_fake("gat_ext::edge_attention_backward")
def _(*args: Any) -> tuple[Tensor, ...]:
    a = EdgeAttentionBackward(*args)
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if needed and tensor is not None
        else absent(a.value)
        for tensor, needed in zip(select(Inputs, a), a.needs_grad, strict=True)
    )


# ---- second derivatives


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    composed.save_for_double_backward(ctx, inputs)


def _double_backward(ctx: Any, *upstream: Tensor | None) -> Grads:
    """Differentiates the unfused composition twice."""
    return composed.double_backward(saved(ctx), upstream, composed.second_by_autograd)


torch.library.register_autograd(
    "gat_ext::edge_attention_backward", _double_backward, setup_context=_setup
)

register_autocast("edge_attention", to_lower=True)
