"""Sparse matrices of torch, with a row for each destination: COO, CSR and CSC."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.graph.formats.form import Edges, Form
from gat_ext.graph.formats.pointers import expand

_LAYOUTS = (torch.sparse_csr, torch.sparse_csc, torch.sparse_coo)


def is_torch_sparse(value: Any) -> bool:
    """True for a tensor with a sparse layout."""
    return isinstance(value, Tensor) and value.layout != torch.strided


def _check_layout(matrix: Any) -> None:
    if not isinstance(matrix, Tensor) or matrix.layout not in _LAYOUTS:
        given = getattr(matrix, "layout", type(matrix).__name__)
        raise TypeError(
            f"from_torch_sparse got {given}; expected a tensor of layout torch.sparse_csr, "
            "torch.sparse_csc or torch.sparse_coo: convert it with to_sparse_csr()"
        )


def torch_sparse_edges(matrix: Tensor) -> Edges:
    """Stored entries of a CSR, CSC or COO tensor, in their order: A[i, j] is an edge j -> i."""
    _check_layout(matrix)
    if matrix.dim() - matrix.dense_dim() != 2:
        raise ValueError(
            f"from_torch_sparse got shape {list(matrix.shape)} with {matrix.dense_dim()} dense "
            "dimensions; expected one matrix, with two sparse dimensions"
        )
    if matrix.layout == torch.sparse_coo:
        # Uncoalesced entries are multi-edges; indices() would raise for them.
        row, col = matrix._indices()
    elif matrix.layout == torch.sparse_csr:
        col = matrix.col_indices().long()
        pointers = matrix.crow_indices()
        row = expand(pointers, col.shape[0], matrix.shape[0], "crow_indices of the matrix")
    else:
        row = matrix.row_indices().long()
        pointers = matrix.ccol_indices()
        col = expand(pointers, row.shape[0], matrix.shape[1], "ccol_indices of the matrix")
    return torch.stack([col, row]), (matrix.shape[1], matrix.shape[0])


def index_tensors(matrix: Tensor) -> tuple[Tensor, ...]:
    """The index tensors of a torch CSR, CSC or COO tensor, without copies."""
    _check_layout(matrix)
    if matrix.layout == torch.sparse_coo:
        return (matrix._indices(),)
    if matrix.layout == torch.sparse_csr:
        return matrix.crow_indices(), matrix.col_indices()
    return matrix.ccol_indices(), matrix.row_indices()


def _values(matrix: Tensor) -> Tensor | None:
    """The values of more than one dimension."""
    return None if matrix.dense_dim() == 0 else stored_values(matrix)


def stored_values(matrix: Tensor) -> Tensor:
    """The values, in the order of the edges.

    Raises:
        ValueError: those of an uncoalesced matrix need gradients, which torch drops.
    """
    if matrix.layout != torch.sparse_coo or matrix.is_coalesced():
        return matrix.values()
    if matrix.requires_grad:
        raise ValueError(
            "edge_index is a COO matrix that is not coalesced and whose values need gradients; "
            "expected a coalesced one: pass edge_index.coalesce(), or the values as edge_attr"
        )
    return matrix._values()


def _with_weights(
    matrix: Tensor, sizes: tuple[int, int], edge_index: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor]:
    """(matrix with alpha as values, alpha), as PyG's layers return them."""
    by_column = matrix.layout == torch.sparse_csc
    src, dst, alpha = in_order_of_lines(edge_index, alpha, sizes, by_column=by_column)
    num_src, num_dst = sizes
    shape = (num_dst, num_src, *alpha.shape[1:])
    if matrix.layout == torch.sparse_coo:
        indices = torch.stack([dst, src])
        return torch.sparse_coo_tensor(indices, alpha, shape, check_invariants=False), alpha
    major, minor = (src, dst) if by_column else (dst, src)
    pointers = torch.bincount(major, minlength=num_src if by_column else num_dst).cumsum(0)
    pointers = torch.cat([pointers.new_zeros(1), pointers])
    make = torch.sparse_csc_tensor if by_column else torch.sparse_csr_tensor
    return make(pointers, minor, alpha, shape, check_invariants=False), alpha


def in_order_of_lines(
    edge_index: Tensor, alpha: Tensor, sizes: tuple[int, int], *, by_column: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """(src, dst, alpha) of the edges by row, or by column; rows are destinations."""
    src, dst = edge_index
    major, minor = (src, dst) if by_column else (dst, src)
    order = torch.argsort(major * (max(sizes) + 1) + minor, stable=True)
    return src[order], dst[order], alpha[order]


FORM = Form(
    "a torch sparse matrix",
    is_torch_sparse,
    torch_sparse_edges,
    constructor="from_torch_sparse",
    depends_on=lambda matrix: ((matrix,), "graph"),
    values=_values,
    with_weights=_with_weights,
)
