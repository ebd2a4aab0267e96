"""Graphs of PyTorch Geometric, for ``Graph.from_pyg`` and ``Graph.to_pyg``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gat_ext.graph.formats.edge_index import plain_tensor
from gat_ext.graph.formats.form import Edges, check_one_set_of_nodes, library
from gat_ext.graph.formats.sparse_tensor import is_sparse_tensor, sparse_tensor_edges
from gat_ext.graph.formats.torch_sparse import torch_sparse_edges

if TYPE_CHECKING:
    from gat_ext.graph.protocol import GraphLike


def pyg_edges(data: Any) -> Edges:
    """Edges of an object of PyTorch Geometric.

    It is a ``Data`` object, an ``edge_index`` (a tensor or an ``EdgeIndex``), or a transposed
    adjacency matrix: a ``SparseTensor`` or a torch sparse tensor with a row for each destination.
    """
    if isinstance(data, Tensor):
        return _pyg_tensor_edges(data)
    if is_sparse_tensor(data):
        return sparse_tensor_edges(data)
    for name in ("edge_index", "adj_t"):
        found = getattr(data, name, None)
        if found is not None:
            edge_index, counts = pyg_edges(found)
            num_nodes = getattr(data, "num_nodes", None)
            return edge_index, counts if num_nodes is None else (num_nodes, num_nodes)
    raise TypeError(
        f"from_pyg got a {type(data).__name__} without edge_index or adj_t; expected a homogeneous "
        "Data object, an edge_index, an EdgeIndex or a SparseTensor: for a HeteroData, pass the "
        "edge_index of one edge type"
    )


def _pyg_tensor_edges(edge_index: Tensor) -> Edges:
    if edge_index.layout != torch.strided:
        return torch_sparse_edges(edge_index)
    if not hasattr(edge_index, "sparse_size"):
        return edge_index, None
    num_src, num_dst = edge_index.sparse_size()
    known = num_src is not None and num_dst is not None
    return plain_tensor(edge_index), (num_src, num_dst) if known else None


def to_pyg(graph: GraphLike) -> Any:
    """A homogeneous ``Data``."""
    check_one_set_of_nodes(
        graph,
        "to_pyg",
        "for PyG's layers, torch_geometric.EdgeIndex(graph.edge_index, "
        "sparse_size=(num_src, num_dst))",
    )
    data = library("torch_geometric.data", "to_pyg").Data
    return data(edge_index=graph.edge_index, num_nodes=graph.num_src)
