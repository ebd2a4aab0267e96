"""Index arithmetic over edges in torch's operators: CSR rows, edge order, reductions over rows."""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.ops.state import is_exporting_to_onnx


def expand_rows(rowptr: Tensor, num_edges: int) -> Tensor:
    """int64 [E], the row of each edge in CSR order; the number of rows for those behind the last.

    Avoids repeat_interleave, which starts all threads even for a few edges.
    """
    starts = rowptr.new_zeros(num_edges + 1, dtype=torch.int64)
    ends = rowptr[1:]
    ones = torch.ones_like(ends, dtype=torch.int64)
    if is_exporting_to_onnx():
        starts = row_sum(ones, ends, num_edges + 1)
    else:
        starts.index_add_(0, ends, ones)
    return starts.cumsum_(0)[:num_edges]


def edge_rows(rowptr: Tensor, edge_id: Tensor | None, num_edges: int) -> Tensor:
    """int64 [E], the row of each edge in the caller's order."""
    return to_caller_order(expand_rows(rowptr, num_edges), edge_id)


def to_caller_order(by_position: Tensor, edge_id: Tensor | None) -> Tensor:
    """Moves values [E, …] from CSR order to the caller's order."""
    if edge_id is None:
        return by_position
    return torch.empty_like(by_position).index_copy(0, edge_id.long(), by_position)


def row_sum(values: Tensor, row: Tensor, num_rows: int) -> Tensor:
    """[num_rows, …], the sum of the values [E, …] of each row; 0 for rows without edges.

    In an export to ONNX by ScatterElements. The ScatterND that index_add becomes adds to one row
    from several threads at once in onnxruntime, and loses sums.
    """
    if is_exporting_to_onnx():
        wide = widened(values)
        zeros = wide.new_zeros((num_rows, *values.shape[1:]))
        return zeros.scatter_add(0, _row_of_each(values, row), wide).to(values.dtype)
    zeros = values.new_zeros((num_rows, *values.shape[1:]))
    return zeros.index_add(0, row, values)


def widened(values: Tensor) -> Tensor:
    """16-bit numbers as float32 in an export to ONNX: onnxruntime does not reduce 16-bit ones."""
    is_narrow = values.is_floating_point() and values.dtype.itemsize == 2
    return values.float() if is_narrow and is_exporting_to_onnx() else values


def _row_of_each(values: Tensor, row: Tensor) -> Tensor:
    """The row of each number in values [E, …]."""
    return row.long().view(-1, *[1] * (values.dim() - 1)).expand_as(values)


def row_extremum(values: Tensor, row: Tensor, num_rows: int, reduce: str) -> Tensor:
    """The largest ("amax") or smallest ("amin") of the values [E, …] of each row: [num_rows, …].

    Rows without edges have -inf ("amax") or inf ("amin").
    """
    wide = widened(values)
    empty = wide.new_full(
        (num_rows, *values.shape[1:]), -torch.inf if reduce == "amax" else torch.inf
    )
    return empty.scatter_reduce(0, _row_of_each(values, row), wide, reduce).to(values.dtype)


def row_softmax(scores: Tensor, row: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """(alpha [E, …], lse [num_rows, …]) of scores [E, …].

    Rows whose scores are all -inf have alpha 0 and lse -inf.

    The maximum must be that of exactly these scores: for large scores, a maximum that differs by a
    rounding error changes the exponentials substantially.
    """
    largest = row_extremum(scores.detach(), row, num_rows, "amax")
    empty = largest == -torch.inf
    shift = largest.masked_fill(empty, 0)
    exponential = (scores - shift[row]).exp()
    total = row_sum(exponential, row, num_rows).masked_fill(empty, 1)
    return exponential / total[row], torch.where(empty, largest, shift + total.log())


def stable_sort(values: Tensor, *, descending: bool) -> tuple[Tensor, Tensor]:
    """(sorted values, their positions), stable, along the first dimension."""
    if is_exporting_to_onnx():  # ONNX sorts by TopK, which is stable
        return torch.topk(values, values.shape[0], dim=0, largest=descending)
    return torch.sort(values, dim=0, descending=descending, stable=True)


def rank_in_row(scores: Tensor, row: Tensor, num_rows: int) -> Tensor:
    """The rank of each score among those of its row and head, from 0 for the largest: [E, H].

    NaN ranks first; equal scores rank by position.
    """
    by_score = stable_sort(scores, descending=True)[1]
    rows, by_row = stable_sort(row[by_score], descending=False)
    degree = row_sum(torch.ones_like(row), row, num_rows)
    first = (degree.cumsum(0) - degree)[rows]
    rank = torch.arange(row.shape[0], device=row.device).unsqueeze(-1) - first
    return torch.empty_like(rank).scatter(0, by_score.gather(0, by_row), rank)
