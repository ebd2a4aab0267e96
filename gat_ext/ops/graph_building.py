"""Fake kernels of the operators that build a graph."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.register_fake("gat_ext::csr_of_edges")
def _(src: Tensor, dst: Tensor, num_dst: int) -> tuple[Tensor, Tensor, Tensor]:
    rowptr = src.new_empty((num_dst + 1,), dtype=torch.int64)
    return rowptr, torch.empty_like(src), torch.empty_like(src)


@torch.library.register_fake("gat_ext::checked_csr")
def _(
    edge_index: Tensor, num_src: int, num_dst: int, narrow: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dtype, num_edges = torch.int32 if narrow else torch.int64, edge_index.shape[1]
    return (
        edge_index.new_empty((num_dst + 1,), dtype=torch.int64),
        edge_index.new_empty((num_edges,), dtype=dtype),
        edge_index.new_empty((num_edges,), dtype=dtype),
    )


@torch.library.register_fake("gat_ext::csr_transpose")
def _(rowptr: Tensor, col: Tensor, num_src: int) -> tuple[Tensor, Tensor, Tensor]:
    return rowptr.new_empty((num_src + 1,)), torch.empty_like(col), torch.empty_like(col)


@torch.library.register_fake("gat_ext::csr_with_loops")
def _(
    rowptr: Tensor, col: Tensor, edge_id: Tensor | None, num_loops: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    context = torch.library.get_ctx()
    looped = col.new_empty((context.new_dynamic_size(),))
    kept = rowptr.new_empty((context.new_dynamic_size(),))
    return torch.empty_like(rowptr), looped, torch.empty_like(looped), kept
