"""Edges of other libraries' graphs.

Their libraries are not imported: an object is known by its methods.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# edge_index [2, E] in the order of the source, and (num_src, num_dst), None if it does not say.
Edges = tuple[Tensor, tuple[int, int] | None]


def scipy_edges(matrix: Any) -> Edges:
    """Stored entries of a SciPy sparse matrix, in their order: A[i, j] is an edge j -> i."""
    if not hasattr(matrix, "tocoo"):
        raise TypeError(
            f"from_scipy got a {type(matrix).__name__}; expected a SciPy sparse matrix or array: "
            "wrap a dense one in scipy.sparse.csr_array"
        )
    if len(matrix.shape) != 2:
        raise ValueError(f"from_scipy got shape {matrix.shape}; expected two dimensions")
    coo = matrix.tocoo(copy=False)
    edge_index = torch.stack(
        [torch.as_tensor(coo.col, dtype=torch.int64), torch.as_tensor(coo.row, dtype=torch.int64)]
    )
    return edge_index, (int(matrix.shape[1]), int(matrix.shape[0]))


def torch_sparse_edges(matrix: Tensor) -> Edges:
    """Stored entries of a torch CSR or COO tensor, in their order: A[i, j] is an edge j -> i."""
    if not isinstance(matrix, Tensor) or matrix.layout not in (torch.sparse_csr, torch.sparse_coo):
        given = getattr(matrix, "layout", type(matrix).__name__)
        raise TypeError(
            f"from_torch_sparse got {given}; expected a tensor of layout torch.sparse_csr or "
            "torch.sparse_coo: convert it with to_sparse_csr()"
        )
    if matrix.dim() - matrix.dense_dim() != 2:
        raise ValueError(
            f"from_torch_sparse got shape {list(matrix.shape)} with {matrix.dense_dim()} dense "
            "dimensions; expected one matrix, with two sparse dimensions"
        )
    if matrix.layout == torch.sparse_coo:
        # Uncoalesced entries are multi-edges; indices() would refuse them.
        row, col = matrix._indices()
    else:
        rowptr, col = matrix.crow_indices().long(), matrix.col_indices().long()
        rows = torch.arange(matrix.shape[0], device=matrix.device)
        row = rows.repeat_interleave(rowptr.diff(), output_size=col.shape[0])
    return torch.stack([col, row]), (matrix.shape[1], matrix.shape[0])


def networkx_edges(graph: Any) -> Edges:
    """Edges of a NetworkX graph, nodes numbered in the order of ``graph.nodes``.

    Edges come in the order of ``graph.edges``; the other directions of an undirected graph follow
    in the same order, without those of self-loops.
    """
    if not (hasattr(graph, "is_directed") and hasattr(graph, "edges") and hasattr(graph, "nodes")):
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
    if hasattr(data, "sparse_sizes") and hasattr(data, "coo"):
        row, col, _ = data.coo()
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
    if edge_index.layout in (torch.sparse_csr, torch.sparse_coo):
        return torch_sparse_edges(edge_index)
    if not hasattr(edge_index, "sparse_size"):
        return edge_index, None
    num_src, num_dst = edge_index.sparse_size()
    known = num_src is not None and num_dst is not None
    return plain_tensor(edge_index), (num_src, num_dst) if known else None


def plain_tensor(edge_index: Tensor) -> Tensor:
    """``edge_index``, out of the tensor subclass ``EdgeIndex`` if it is one."""
    return edge_index.as_tensor() if hasattr(edge_index, "as_tensor") else edge_index


def dgl_edges(graph: Any) -> Edges:
    """Edges of a DGL graph (1.1 or later) with one edge type, in the order of its edge ids."""
    if not (hasattr(graph, "num_src_nodes") and hasattr(graph, "num_dst_nodes")):
        raise TypeError(
            f"from_dgl got a {type(graph).__name__}; expected a dgl.DGLGraph with one edge type"
        )
    src, dst = graph.edges()
    return torch.stack([src, dst]), (int(graph.num_src_nodes()), int(graph.num_dst_nodes()))
