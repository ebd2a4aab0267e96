"""Edges of other libraries' graphs.

Their libraries are not imported: an object is known by its methods.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.ops.scatter import expand_rows

# edge_index [2, E] in the order of the source, and (num_src, num_dst), None if it does not say.
Edges = tuple[Tensor, tuple[int, int] | None]

_SPARSE = (torch.sparse_csr, torch.sparse_csc, torch.sparse_coo)


def is_scipy(value: Any) -> bool:
    """Whether it is a sparse matrix or array of SciPy."""
    return hasattr(value, "tocoo")


def is_networkx(value: Any) -> bool:
    """Whether it is a graph of NetworkX."""
    return all(hasattr(value, name) for name in ("is_directed", "edges", "nodes"))


def is_sparse_tensor(value: Any) -> bool:
    """Whether it is a SparseTensor of torch_sparse."""
    return hasattr(value, "sparse_sizes") and hasattr(value, "coo")


def is_dgl(value: Any) -> bool:
    """Whether it is a graph or a block of DGL."""
    return hasattr(value, "num_src_nodes") and hasattr(value, "num_dst_nodes")


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
    if matrix.format in ("csr", "csc"):  # whose tocoo() would write wherever indptr leads
        minor, pointers = torch.as_tensor(matrix.indices), torch.as_tensor(matrix.indptr)
        lines = num_rows if matrix.format == "csr" else num_columns
        major = _expand(pointers, minor.shape[0], lines, "indptr of the matrix")
        col, row = (minor, major) if matrix.format == "csr" else (major, minor)
    else:
        coo = matrix.tocoo(copy=False)
        col, row = torch.as_tensor(coo.col), torch.as_tensor(coo.row)
    return torch.stack([col.long(), row.long()]), (num_columns, num_rows)


def scipy_to_torch(matrix: Any) -> Tensor:
    """A SciPy sparse matrix as a torch sparse CSR or COO tensor that shares nothing with it.

    Not by SciPy's own conversions, which write wherever faulty indices lead.
    """
    if matrix.format not in ("csr", "csc", "coo"):
        matrix = matrix.tocoo()
    (col, row), _ = scipy_edges(matrix)
    values, shape = torch.tensor(matrix.data), tuple(matrix.shape)
    if values.shape != col.shape:
        raise ValueError(
            f"the matrix has {values.numel()} values and {col.shape[0]} indices; expected as many"
        )
    if matrix.format == "csr":
        pointers = torch.tensor(matrix.indptr, dtype=torch.int64)
        return torch.sparse_csr_tensor(pointers, col, values, shape, check_invariants=False)
    edges = torch.stack([row, col])
    return torch.sparse_coo_tensor(edges, values, shape, check_invariants=False)


def _check_layout(matrix: Any) -> None:
    if not isinstance(matrix, Tensor) or matrix.layout not in _SPARSE:
        given = getattr(matrix, "layout", type(matrix).__name__)
        raise TypeError(
            f"from_torch_sparse got {given}; expected a tensor of layout torch.sparse_csr, "
            "torch.sparse_csc or torch.sparse_coo: convert it with to_sparse_csr()"
        )


def torch_sparse_edges(matrix: Tensor) -> Edges:
    """Stored entries of a torch CSR, CSC or COO tensor, in their order: A[i, j] is an edge j -> i."""
    _check_layout(matrix)
    if matrix.dim() - matrix.dense_dim() != 2:
        raise ValueError(
            f"from_torch_sparse got shape {list(matrix.shape)} with {matrix.dense_dim()} dense "
            "dimensions; expected one matrix, with two sparse dimensions"
        )
    if matrix.layout == torch.sparse_coo:
        # Uncoalesced entries are multi-edges; indices() would refuse them.
        row, col = matrix._indices()
    elif matrix.layout == torch.sparse_csr:
        col = matrix.col_indices().long()
        pointers = matrix.crow_indices()
        row = _expand(pointers, col.shape[0], matrix.shape[0], "crow_indices of the matrix")
    else:
        row = matrix.row_indices().long()
        pointers = matrix.ccol_indices()
        col = _expand(pointers, row.shape[0], matrix.shape[1], "ccol_indices of the matrix")
    return torch.stack([col, row]), (matrix.shape[1], matrix.shape[0])


def index_tensors(matrix: Tensor) -> tuple[Tensor, ...]:
    """What says where the entries of a torch CSR, CSC or COO tensor are; shares their memory."""
    _check_layout(matrix)
    if matrix.layout == torch.sparse_coo:
        return (matrix._indices(),)
    if matrix.layout == torch.sparse_csr:
        return matrix.crow_indices(), matrix.col_indices()
    return matrix.ccol_indices(), matrix.row_indices()


def _expand(pointers: Tensor, count: int, lines: int, name: str) -> Tensor:
    """The row of each of ``count`` entries, of pointers to so many lines that are rows; or likewise the column.

    Raises:
        ValueError: they do not ascend from 0 to ``count``: to follow them would write out of bounds.
    """
    _check_pointers(pointers, count, lines, name)
    return expand_rows(pointers.long(), count)


def _check_pointers(pointers: Tensor, count: int, lines: int, name: str) -> None:
    if pointers.shape != (lines + 1,):
        raise ValueError(
            f"{name} has shape {list(pointers.shape)}; expected [{lines + 1}], one pointer more than "
            "the matrix has rows or columns"
        )
    if pointers.is_meta:
        return
    falls = pointers[1:] < pointers[:-1]
    # One transfer from the device for all three numbers.
    ends = pointers[0], pointers[-1], falls.any()
    first, last, faulty = torch.stack([end.long() for end in ends]).tolist()
    if (first, last) != (0, count):
        raise ValueError(
            f"{name} goes from {first} to {last}; expected 0 to {count}, the number of stored entries"
        )
    if faulty:
        place = int(falls.nonzero()[0])
        before, after = pointers[place : place + 2].tolist()
        raise ValueError(
            f"{name} falls from {before} at position {place} to {after} at position {place + 1}; "
            "expected numbers that ascend"
        )


def networkx_edges(graph: Any) -> Edges:
    """Edges of a NetworkX graph, nodes numbered in the order of ``graph.nodes``.

    Edges come in the order of ``graph.edges``; the other directions of an undirected graph follow
    in the same order, without those of self-loops.
    """
    if not is_networkx(graph):
        raise TypeError(f"from_networkx got a {type(graph).__name__}; expected a networkx graph")
    number = {node: position for position, node in enumerate(graph.nodes)}
    pairs = [(number[u], number[v]) for u, v, *_ in graph.edges]
    edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t()
    if not graph.is_directed():
        other = edge_index[:, edge_index[0] != edge_index[1]].flip(0)
        edge_index = torch.cat([edge_index, other], dim=1)
    return edge_index, (len(number), len(number))


def pyg_edges(data: Any) -> Edges:
    """Edges of what PyTorch Geometric takes for a graph.

    A ``Data`` object, an ``edge_index`` (a tensor or an ``EdgeIndex``), or a transposed adjacency
    matrix as its layers take it: a ``SparseTensor`` or a torch sparse tensor with a row for each
    destination.
    """
    if isinstance(data, Tensor):
        return _pyg_tensor_edges(data)
    if is_sparse_tensor(data):
        row, col, _ = sparse_tensor_parts(data)
        num_dst, num_src = data.sparse_sizes()
        return torch.stack([col, row]), (num_src, num_dst)
    for name in ("edge_index", "adj_t"):
        found = getattr(data, name, None)
        if found is not None:
            edge_index, counts = pyg_edges(found)
            num_nodes = getattr(data, "num_nodes", None)
            return edge_index, counts if num_nodes is None else (num_nodes, num_nodes)
    raise TypeError(
        f"from_pyg got a {type(data).__name__} without edge_index or adj_t; expected a homogeneous "
        "Data object, an edge_index, an EdgeIndex or a SparseTensor: of a HeteroData pass the "
        "edge_index of one edge type"
    )


def _pyg_tensor_edges(edge_index: Tensor) -> Edges:
    if edge_index.layout in _SPARSE:
        return torch_sparse_edges(edge_index)
    if not hasattr(edge_index, "sparse_size"):
        return edge_index, None
    num_src, num_dst = edge_index.sparse_size()
    known = num_src is not None and num_dst is not None
    return plain_tensor(edge_index), (num_src, num_dst) if known else None


def sparse_tensor_parts(matrix: Any) -> tuple[Tensor, Tensor, Any]:
    """(row, col, values or None) of a SparseTensor, whose row pointers are checked where it has no rows yet.

    Raises:
        ValueError: they do not ascend from 0 to the number of entries.
    """
    storage = getattr(matrix, "storage", None)
    if storage is not None and not storage.has_row():
        pointers, count = storage.rowptr(), storage.col().shape[0]
        _check_pointers(pointers, count, matrix.sparse_sizes()[0], "rowptr of the SparseTensor")
    row, col, values = matrix.coo()
    return row, col, values


def plain_tensor(edge_index: Tensor) -> Tensor:
    """``edge_index``, out of the tensor subclass ``EdgeIndex`` if it is one."""
    return edge_index.as_tensor() if hasattr(edge_index, "as_tensor") else edge_index


def dgl_edges(graph: Any) -> Edges:
    """Edges of a DGL graph (1.1 or later) with one edge type, in the order of its edge ids."""
    if not is_dgl(graph):
        raise TypeError(
            f"from_dgl got a {type(graph).__name__}; expected a dgl.DGLGraph with one edge type"
        )
    src, dst = graph.edges()
    return torch.stack([src, dst]), (int(graph.num_src_nodes()), int(graph.num_dst_nodes()))
