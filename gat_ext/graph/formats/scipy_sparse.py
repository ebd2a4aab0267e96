"""Sparse matrices and arrays of SciPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gat_ext.graph.formats.form import Edges, Form, library
from gat_ext.graph.formats.pointers import expand

if TYPE_CHECKING:
    from gat_ext.graph.protocol import SortedGraph


def is_scipy(value: Any) -> bool:
    """True for a sparse matrix or array of SciPy."""
    return hasattr(value, "tocoo")


def scipy_edges(matrix: Any) -> Edges:
    """Stored entries of a SciPy sparse matrix, in their order: A[i, j] is an edge j -> i."""
    if not is_scipy(matrix):
        raise TypeError(
            f"from_scipy got a {type(matrix).__name__}; expected a SciPy sparse matrix or array: "
            "wrap a dense one in scipy.sparse.csr_array"
        )
    if len(matrix.shape) != 2:
        raise ValueError(f"from_scipy got shape {matrix.shape}; expected two dimensions")
    num_rows, num_columns = map(int, matrix.shape)
    if matrix.format in ("csr", "csc"):  # tocoo() would write out of bounds for invalid indptr
        minor, pointers = torch.as_tensor(matrix.indices), torch.as_tensor(matrix.indptr)
        lines = num_rows if matrix.format == "csr" else num_columns
        major = expand(pointers, minor.shape[0], lines, "indptr of the matrix")
        col, row = (minor, major) if matrix.format == "csr" else (major, minor)
    else:
        coo = matrix.tocoo(copy=False)
        col, row = torch.as_tensor(coo.col), torch.as_tensor(coo.row)
    return torch.stack([col.long(), row.long()]), (num_columns, num_rows)


def to_scipy(graph: SortedGraph, weights: Tensor | None) -> Any:
    """A ``csr_array`` whose k-th entry is the k-th edge in CSR order; shares no memory."""
    entries = torch.ones(graph.num_edges)
    if weights is not None:
        _check_weights(weights, graph.num_edges)
        order, entries = graph.edge_id, weights.detach()
        entries = entries.clone() if order is None else entries[order.to(entries.device)]
    arrays = (entries, graph.col.clone(), graph.rowptr.to(graph.col.dtype, copy=True))
    parts = tuple(array.cpu().numpy() for array in arrays)
    shape = (graph.num_dst, graph.num_src)
    return library("scipy.sparse", "to_scipy").csr_array(parts, shape=shape)


def _check_weights(weights: Tensor, num_edges: int) -> None:
    if not isinstance(weights, Tensor):
        raise TypeError(
            f"weights is a {type(weights).__name__}; expected a tensor [{num_edges}]: convert it "
            "with torch.as_tensor"
        )
    if weights.is_floating_point() and weights.element_size() < 4:
        raise TypeError(
            f"weights has dtype {weights.dtype}, which SciPy lacks; expected another one, such as "
            "that of weights.float()"
        )
    if weights.shape != (num_edges,):
        raise ValueError(
            f"weights has shape {list(weights.shape)}; expected [{num_edges}], one for each edge"
        )


def scipy_to_torch(matrix: Any) -> Tensor:
    """Copies a SciPy sparse matrix to a torch sparse CSR or COO tensor.

    SciPy's own conversions would write out of bounds for invalid indices.
    """
    if matrix.format not in ("csr", "csc", "coo"):
        matrix = matrix.tocoo()
    (col, row), _ = scipy_edges(matrix)
    values, shape = torch.tensor(matrix.data), tuple(matrix.shape)
    if values.shape != col.shape:
        raise ValueError(
            f"the matrix has {values.numel()} values and {col.shape[0]} indices; expected the same "
            "number of both"
        )
    if matrix.format == "csr":
        pointers = torch.tensor(matrix.indptr, dtype=torch.int64)
        return torch.sparse_csr_tensor(pointers, col, values, shape, check_invariants=False)
    edges = torch.stack([row, col])
    return torch.sparse_coo_tensor(edges, values, shape, check_invariants=False)


FORM = Form("a SciPy sparse matrix", is_scipy, scipy_edges, constructor="from_scipy")
