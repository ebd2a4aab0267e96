"""Lets layers and models take every form of edges in ``graph.formats``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.graph import Graph
from gat_ext.graph.cache import cached
from gat_ext.graph.formats import Form, form_of
from gat_ext.graph.formats.edge_index import plain_tensor
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.ops.state import is_tracing


def is_plain(adjacency: Any) -> bool:
    """True for an edge_index, a Graph or a DistGraph."""
    if type(adjacency) is Tensor:
        return adjacency.layout == torch.strided
    return isinstance(adjacency, (Graph, ShardedGraph))


def unwrap(adjacency: Any) -> Tensor | Graph:
    """Converts any supported form of edges to an edge_index or a Graph.

    The graph of a matrix of tensors is cached until its index tensors are modified. Other objects
    can change unnoticed and are read at every call.

    Args:
        adjacency: an edge_index [2, E], a Graph, an ``EdgeIndex`` of PyG, or one of
            ``graph.formats.FORMS``.

    Raises:
        TypeError: adjacency is none of these.
    """
    if is_plain(adjacency):
        return adjacency  # type: ignore[no-any-return]
    if _is_dense(adjacency):
        return _plain_edge_index(adjacency)
    form = form_of(adjacency)
    if form.depends_on is None:
        return _graph_of(form, adjacency)
    tensors, key = form.depends_on(adjacency)
    return cached(tensors, key, lambda: _graph_of(form, adjacency))


def _graph_of(form: Form, adjacency: Any) -> Graph:
    return Graph._from_edges(form.edges(adjacency))


def _is_dense(adjacency: Any) -> bool:
    return isinstance(adjacency, Tensor) and adjacency.layout == torch.strided


def _plain_edge_index(wrapper: Tensor) -> Tensor:
    """The tensor inside an EdgeIndex.

    In-place operations on the EdgeIndex raise its version, not the inner tensor's. So after each of
    them this returns a new alias of the inner tensor, for which nothing is cached.
    """
    inner = plain_tensor(wrapper)
    if inner is wrapper or is_tracing() or wrapper.is_inference() or wrapper._version == 0:
        return inner
    return cached((wrapper,), "alias", inner.detach)


def _form(adjacency: Any) -> Form | None:
    """The form of an adjacency; None for an edge_index or a Graph."""
    return None if _is_dense(adjacency) or is_plain(adjacency) else form_of(adjacency)


def plain_inputs(
    x: Any, adjacency: Any, edge_attr: Tensor | None = None, edge_dim: int | None = None
) -> tuple[Any, Tensor | Graph, Tensor | None]:
    """The inputs of a layer that was given something other than an edge_index or a Graph.

    Args:
        x: node features; for a block, may be those of the sources alone, whose first rows are
            those of the destinations.
        adjacency: see :func:`unwrap`.
        edge_attr: edge features, or None for the values of a sparse matrix, if it has any.
        edge_dim: the layer's, None if it takes no edge features.

    Returns:
        (x, edge_index or graph, edge_attr).
    """
    form = _form(adjacency)
    if form is not None:
        num_first = form.num_first(adjacency)
        if num_first is not None and isinstance(x, Tensor):
            x = x, x[:num_first]
        if edge_attr is None and edge_dim is not None:
            edge_attr = form.values(adjacency)
    return x, unwrap(adjacency), edge_attr


def values_of(adjacency: Any) -> Tensor | None:
    """The values of a SparseTensor, or those that a sparse matrix has as edge features, or None."""
    form = _form(adjacency)
    return None if form is None else form.values(adjacency)


def attention_of(adjacency: Any, graph: GraphLike, edge_index: Tensor, alpha: Tensor) -> Any:
    """(edge_index, alpha), or alpha in the form of the adjacency if PyG's layers return that.

    Args:
        adjacency: the layer's argument.
        graph: the graph that the layer attended over.
        edge_index: the edges of this graph.
        alpha: [E', H].

    Returns:
        For a SparseTensor, a SparseTensor with alpha as values; for a torch sparse matrix, the
        matrix with alpha as values, and alpha.
    """
    form = _form(adjacency)
    if form is None or form.with_weights is None:
        return edge_index, alpha
    return form.with_weights(adjacency, (graph.num_src, graph.num_dst), edge_index, alpha)
