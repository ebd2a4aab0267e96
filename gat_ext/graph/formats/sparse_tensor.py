"""``SparseTensor`` of torch_sparse, with a row for each destination."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.graph.formats.form import Edges, Form
from gat_ext.graph.formats.pointers import check_pointers
from gat_ext.graph.formats.torch_sparse import in_order_of_lines


def is_sparse_tensor(value: Any) -> bool:
    """True for a SparseTensor of torch_sparse."""
    return hasattr(value, "sparse_sizes") and hasattr(value, "coo")


def parts(matrix: Any) -> tuple[Tensor, Tensor, Any]:
    """(row, col, values or None); checks the row pointers if the row indices are not computed yet.

    Raises:
        ValueError: the row pointers do not ascend from 0 to the number of entries.
    """
    storage = getattr(matrix, "storage", None)
    if storage is not None and not storage.has_row():
        pointers, count = storage.rowptr(), storage.col().shape[0]
        check_pointers(pointers, count, matrix.sparse_sizes()[0], "rowptr of the SparseTensor")
    row, col, values = matrix.coo()
    return row, col, values


def sparse_tensor_edges(matrix: Any) -> Edges:
    """Stored entries of a SparseTensor, in their order: A[i, j] is an edge j -> i."""
    row, col, _ = parts(matrix)
    num_dst, num_src = matrix.sparse_sizes()
    return torch.stack([col, row]), (num_src, num_dst)


def _values(matrix: Any) -> Tensor | None:
    values = parts(matrix)[2]
    return values if isinstance(values, Tensor) else None


def _with_weights(matrix: Any, sizes: tuple[int, int], edge_index: Tensor, alpha: Tensor) -> Any:
    """A SparseTensor with alpha as values."""
    src, dst, alpha = in_order_of_lines(edge_index, alpha, sizes)
    return type(matrix)(row=dst, col=src, value=alpha, sparse_sizes=sizes[::-1])


FORM = Form(
    "a SparseTensor of PyG",
    is_sparse_tensor,
    sparse_tensor_edges,
    constructor="from_pyg",
    # Both tensors, because other matrices may share one of them.
    depends_on=lambda matrix: (parts(matrix)[:2], ("graph", *matrix.sparse_sizes())),
    values=_values,
    with_weights=_with_weights,
)
