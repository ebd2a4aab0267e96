"""What layers and models take for edges besides an edge_index and a Graph: the sparse matrices and graphs of other libraries."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gat_ext.graph import Graph
from gat_ext.graph import formats as io
from gat_ext.graph.cache import remembered
from gat_ext.graph.contents import State, state_of
from gat_ext.ops.state import is_tracing


class _Known(NamedTuple):
    state: State
    graph: Graph


_graphs_of_matrices = WeakTensorKeyDictionary()


def is_plain(adjacency: Any) -> bool:
    """Whether it is an edge_index or a Graph."""
    if type(adjacency) is Tensor:
        return adjacency.layout == torch.strided
    return isinstance(adjacency, Graph)


def unwrap(adjacency: Any) -> Tensor | Graph:
    """The edge_index or the graph of anything that holds edges.

    A torch sparse matrix and a SparseTensor have a row for each destination, as PyG's adj_t; their graph is cached for as
    long as they live and nobody writes to their index tensors. Other objects can change unnoticed and are read at every call.

    Args:
        adjacency: an edge_index [2, E], a Graph, an ``EdgeIndex`` or ``SparseTensor`` of PyG, a torch sparse matrix (COO, CSR,
            CSC), a SciPy sparse matrix [N_dst, N_src], a NetworkX graph, a DGL graph or block.

    Raises:
        TypeError: it is none of these.
    """
    if is_plain(adjacency):
        return adjacency  # type: ignore[no-any-return]
    if isinstance(adjacency, Tensor):
        if adjacency.layout == torch.strided:
            return _plain_edge_index(adjacency)
        return _graph_of_matrix(adjacency)
    if io.is_sparse_tensor(adjacency):
        return _graph_of_sparse_tensor(adjacency)
    for looks_like, make in (
        (io.is_dgl, Graph.from_dgl),
        (io.is_scipy, Graph.from_scipy),
        (io.is_networkx, Graph.from_networkx),
    ):
        if looks_like(adjacency):
            return make(adjacency)
    raise TypeError(
        f"edge_index is a {type(adjacency).__name__}; expected an int32 or int64 tensor [2, E], a "
        "gat_ext.Graph, an EdgeIndex or SparseTensor of PyG, a torch or SciPy sparse matrix, a "
        "NetworkX graph, or a DGL graph or block"
    )


class _Alias(NamedTuple):
    version: int
    inner: Tensor
    alias: Tensor


_aliases = WeakTensorKeyDictionary()


def _plain_edge_index(wrapper: Tensor) -> Tensor:
    """The tensor within an EdgeIndex; after each write to the EdgeIndex, which that tensor does not count, another object."""
    inner = io.plain_tensor(wrapper)
    if inner is wrapper or is_tracing() or wrapper.is_inference() or wrapper._version == 0:
        return inner
    known: _Alias | None = _aliases.get(wrapper)
    if known is None or known.version != wrapper._version or known.inner is not inner:
        known = _aliases[wrapper] = _Alias(wrapper._version, inner, inner.detach())
    return known.alias


def _graph_of_sparse_tensor(matrix: Any) -> Graph:
    """Remembered by both of its index tensors: others may share one of them."""
    row, col, _ = io.sparse_tensor_parts(matrix)
    if row.is_inference() or col.is_inference():
        return Graph.from_pyg(matrix)
    this_col = remembered(col, "column", object)  # another object once somebody wrote to it
    key = (this_col, tuple(matrix.sparse_sizes()))
    return remembered(row, key, lambda: Graph.from_pyg(matrix))


def _graph_of_matrix(matrix: Tensor) -> Graph:
    if is_tracing() or matrix.is_inference():  # without a version
        return Graph.from_torch_sparse(matrix)
    state: State = (matrix._version, matrix.shape, *map(state_of, io.index_tensors(matrix)))
    known: _Known | None = _graphs_of_matrices.get(matrix)
    if known is None or known.state != state:
        known = _graphs_of_matrices[matrix] = _Known(state, Graph.from_torch_sparse(matrix))
    return known.graph


def stored_values(adjacency: Any) -> Tensor | None:
    """The entries of a sparse matrix that PyG's layers take for edge features where none are given, else None.

    Raises:
        ValueError: they need gradients, which torch does not pass on to the entries of a matrix that is not coalesced.
    """
    if isinstance(adjacency, Tensor) and adjacency.layout != torch.strided:
        if adjacency.dense_dim() == 0:
            return None
        if adjacency.layout != torch.sparse_coo or adjacency.is_coalesced():
            return adjacency.values()
        if adjacency.requires_grad:
            raise ValueError(
                "edge_index is a COO matrix that is not coalesced and whose values need gradients; "
                "give the result of its coalesce(), or the values as edge_attr"
            )
        return adjacency._values()
    if io.is_sparse_tensor(adjacency):
        values = io.sparse_tensor_parts(adjacency)[2]
        return values if isinstance(values, Tensor) else None
    return None


def plain_inputs(
    x: Any, adjacency: Any, edge_attr: Tensor | None = None, edge_dim: int | None = None
) -> tuple[Any, Tensor | Graph, Tensor | None]:
    """The inputs of a layer that was given something else than an edge_index or a Graph.

    Args:
        x: features; of a DGL block they may be those of the sources, of which the destinations are the first.
        adjacency: what :func:`unwrap` takes.
        edge_attr: edge features, or None for the values of a sparse matrix where it has some.
        edge_dim: of the layer; None: it takes no edge features.

    Returns:
        (x, edge_index or graph, edge_attr).
    """
    if isinstance(x, Tensor) and getattr(adjacency, "is_block", False) is True:
        x = x, x[: int(adjacency.num_dst_nodes())]
    if edge_attr is None and edge_dim is not None:
        edge_attr = stored_values(adjacency)
    return x, unwrap(adjacency), edge_attr


def attention_of(adjacency: Any, graph: Graph, edge_index: Tensor, alpha: Tensor) -> Any:
    """(edge_index, alpha), or alpha in the form of the adjacency where PyG's layers return that.

    Args:
        adjacency: what the layer was given.
        graph: what it attended over.
        edge_index: its edges.
        alpha: [E', H].

    Returns:
        Of a SparseTensor one with alpha for values; of a torch sparse matrix (matrix with alpha for values, alpha).
    """
    is_matrix = isinstance(adjacency, Tensor) and adjacency.layout != torch.strided
    if not is_matrix and not io.is_sparse_tensor(adjacency):
        return edge_index, alpha
    src, dst = edge_index
    columns = adjacency.layout == torch.sparse_csc if is_matrix else False
    major, minor = (src, dst) if columns else (dst, src)
    order = torch.argsort(major * (max(graph.num_src, graph.num_dst) + 1) + minor, stable=True)
    src, dst, alpha = src[order], dst[order], alpha[order]
    sizes = (graph.num_dst, graph.num_src)
    if not is_matrix:
        return type(adjacency)(row=dst, col=src, value=alpha, sparse_sizes=sizes)
    shape = (*sizes, *alpha.shape[1:])
    if adjacency.layout == torch.sparse_coo:
        rows_and_columns = torch.stack([dst, src])
        return torch.sparse_coo_tensor(
            rows_and_columns, alpha, shape, check_invariants=False
        ), alpha
    count = graph.num_src if columns else graph.num_dst
    pointers = torch.bincount(major, minlength=count).cumsum(0)
    pointers = torch.cat([pointers.new_zeros(1), pointers])
    make = torch.sparse_csc_tensor if columns else torch.sparse_csr_tensor
    return make(pointers, dst if columns else src, alpha, shape, check_invariants=False), alpha
