"""Fake kernels of the operators that build a graph."""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.ops.slots import num_slots


@torch.library.register_fake("gat_ext::csr_of_edges")
def _(src: Tensor, dst: Tensor, num_dst: int) -> tuple[Tensor, Tensor, Tensor]:
    rowptr = src.new_empty((num_dst + 1,), dtype=torch.int64)
    return rowptr, torch.empty_like(src), torch.empty_like(src)


@torch.library.register_fake("gat_ext::adjacency_csr")
def _(
    edges: Tensor,
    col: Tensor | None,
    edge_id: Tensor | None,
    num_src: int,
    num_dst: int,
    self_loops: bool,
    narrow: bool,
    transpose: bool,
) -> tuple[Tensor, ...]:
    slots = num_slots(edges, col, num_src, num_dst, self_loops)
    dtype = torch.int32 if narrow else torch.int64

    def rows(count: int) -> Tensor:
        return edges.new_empty((count,), dtype=torch.int64)

    def indices(present: bool) -> Tensor:
        return edges.new_empty((slots if present else 0,), dtype=dtype)

    by_source = rows(num_src + 1 if transpose else 0), *(indices(transpose) for _ in range(3))
    return rows(num_dst + 1), indices(True), indices(True), *by_source


def _no_vmap(*_: object) -> None:
    raise NotImplementedError(
        "vmap over edges is not supported, because each graph would be sorted separately; join "
        "the graphs with Graph.batch, and map over features only"
    )


torch.library.register_vmap("gat_ext::adjacency_csr", _no_vmap)


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
