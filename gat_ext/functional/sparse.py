"""The unfused operators: softmax over edges, sampled and sparse products with nodes and edges."""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.functional import checks, fallback
from gat_ext.graph import Graph
from gat_ext.graph.cache import cached
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.graph.traced import TracedGraph
from gat_ext.ops.registry import needs_grad, ops
from gat_ext.ops.state import excludes_native


def _csr(graph: Graph, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The graph arguments of sddmm and spmm; with the transpose if a gradient may need it."""
    if not needs_grad(*tensors):
        return graph.rowptr, graph.col, graph.edge_id, None, None, None
    t = graph.transpose()
    return graph.rowptr, graph.col, graph.edge_id, t.rowptr, t.col, t.edge_id


def _counts(graph: Graph, dtype: torch.dtype) -> Tensor:
    """By what the sums of the rows are divided for their means, [num_dst, 1, 1]; cached."""
    key = "counts", dtype
    return cached((graph,), key, lambda: graph.in_degrees().clamp(min=1).to(dtype).view(-1, 1, 1))


def of_slots(graph: GraphLike, weight: Tensor) -> Tensor:
    """``weight`` [E, H], but 0 for the slots of self-loops that a TracedGraph replaces."""
    if not isinstance(graph, TracedGraph) or not graph.self_loops:
        return weight
    return torch.where(graph.attended.unsqueeze(-1), weight, 0)


def edge_softmax(graph: Graph, scores: Tensor, *, by: str = "dst") -> Tensor:
    r"""Softmax over the edges that share a destination, or a source.

    .. math:: \alpha_{ij} = \exp(s_{ij}) / \sum_{k \in N(i)} \exp(s_{ik})

    Args:
        graph: the graph.
        scores: [E, H] or [E].
        by: ``"dst"`` normalises over the in-edges of each destination, ``"src"`` over the out-edges
            of each source.

    Returns:
        alpha, with the shape of ``scores``; 0 for a group whose scores are all -inf.

    Raises:
        TypeError: scores are not floating-point.
        ValueError: shape or device do not match the graph, or ``by`` is neither "dst" nor "src".

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import edge_softmax
        >>> graph = Graph(torch.tensor([[0, 1, 2], [2, 2, 0]]))
        >>> edge_softmax(graph, torch.zeros(3))
        tensor([0.5000, 0.5000, 1.0000])
    """
    checks.choice(by, ("dst", "src"), "by")
    checks.edge_values(graph, scores, "scores")
    if isinstance(graph, ShardedGraph):
        if by == "src":
            raise NotImplementedError(
                "edge_softmax by source is not available on a DistGraph, whose processes hold the "
                "in-edges of their nodes; partition graph.reverse() and normalise by destination"
            )
        graph = graph.local
    if excludes_native():
        return fallback.call(fallback.edge_softmax, graph, scores, by=by, to_lower=False)
    flat = scores.unsqueeze(-1) if scores.dim() == 1 else scores
    if by == "dst":
        alpha: Tensor = ops.edge_softmax(graph.rowptr, graph.edge_id, flat)
    else:
        t = graph.transpose()
        alpha = ops.edge_softmax(t.rowptr, t.edge_id, flat)
    return alpha.squeeze(-1) if scores.dim() == 1 else alpha


def sddmm(graph: GraphLike, x: Tensor, y: Tensor) -> Tensor:
    r"""Sampled dense-dense matrix product: a dot product for every edge and head.

    .. math:: s_{ij} = \langle x_i, y_j \rangle

    Args:
        graph: the graph.
        x: [N_dst, H, F], or [N_dst, F] for one head.
        y: [N_src, H, F], or [N_src, F].

    Returns:
        [E, H], or [E] if x and y have no head dimension.

    Raises:
        TypeError: dtypes differ or are not floating-point.
        ValueError: shapes or devices do not match each other and the graph.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import sddmm
        >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
        >>> sddmm(graph, torch.eye(2), torch.ones(2, 2))
        tensor([1., 1.])
    """
    checks.same_kind(x, "x", y, "y")
    checks.node_features(graph, x, "x", "num_dst")
    checks.node_features(graph, y, "y", "num_src")
    checks.same_tail(x, "x", y, "y")
    if isinstance(graph, ShardedGraph):
        (y,), graph = graph.extend(y), graph.local
    if excludes_native() or isinstance(graph, TracedGraph):
        return fallback.call(fallback.sddmm, graph, x, y)
    assert isinstance(graph, Graph)
    if x.dim() == 2:
        return sddmm(graph, x.unsqueeze(1), y.unsqueeze(1)).squeeze(-1)
    result: Tensor = ops.sddmm(*_csr(graph, x, y), x, y)
    return result


def spmm(
    graph: GraphLike, x: Tensor, weight: Tensor | None = None, *, reduce: str = "sum"
) -> Tensor:
    r"""Sparse-dense matrix product: a reduction over the sources of every destination.

    .. math:: \mathrm{out}_i = \mathrm{reduce}_{j \in N(i)} \; w_{ij} \, x_j

    Args:
        graph: the graph.
        x: [N_src, H, F], or [N_src, F].
        weight: [E, H], or [E] (the same for all heads); None means 1.
        reduce: ``"sum"``, ``"mean"`` (over the number of in-edges), ``"max"`` or ``"min"``
            (elementwise; the gradient goes to the first of equal values).

    Returns:
        [N_dst, H, F], or [N_dst, F]; 0 for a destination without in-edges.

    Raises:
        TypeError: dtypes differ or are not floating-point.
        ValueError: shapes or devices do not match each other and the graph, or ``reduce`` is
            unknown.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import spmm
        >>> graph = Graph(torch.tensor([[0, 1, 2], [2, 2, 0]]))
        >>> spmm(graph, torch.eye(3), reduce="mean")
        tensor([[0.0000, 0.0000, 1.0000],
                [0.0000, 0.0000, 0.0000],
                [0.5000, 0.5000, 0.0000]])
    """
    checks.choice(reduce, ("sum", "mean", "max", "min"), "reduce")
    checks.node_features(graph, x, "x", "num_src")
    if weight is not None:
        checks.same_kind(x, "x", weight, "weight")
        checks.edge_values(graph, weight, "weight")
        weight = weight.unsqueeze(-1) if weight.dim() == 1 else weight
    if x.dim() == 2:
        return spmm(graph, x.unsqueeze(1), weight, reduce=reduce).squeeze(1)
    if weight is not None:
        checks.heads(weight, x.shape[1], "weight", "x")
        weight = weight.expand(-1, x.shape[1])
    if isinstance(graph, ShardedGraph):
        (x,), graph = graph.extend(x), graph.local
    if isinstance(graph, TracedGraph) and weight is not None and reduce == "sum":
        weight = of_slots(graph, weight)
        graph = graph if excludes_native() else graph.with_csr()
    if excludes_native() or isinstance(graph, TracedGraph):
        return fallback.call(fallback.spmm, graph, x, weight, reduce=reduce)
    assert isinstance(graph, Graph)
    csr = _csr(graph, x, weight)
    if reduce in ("max", "min"):
        extremum: Tensor = ops.spmm_extremum(*csr, weight, x, reduce == "max")[0]
        return extremum
    out: Tensor = ops.spmm(*csr, weight, x)
    if reduce == "mean":
        out = out / _counts(graph, out.dtype)
    return out


def edge_dot(graph: GraphLike, query: Tensor, edge_attr: Tensor) -> Tensor:
    r"""Dot products of every edge's features with each head of its destination.

    .. math:: s_{ij}^h = \langle q_i^h, e_{ij} \rangle

    The heads share the edge features: this is ``query[dst] @ edge_attr``, row by row, without a
    tensor of E·H·K elements.

    Args:
        graph: the graph.
        query: [N_dst, H, K].
        edge_attr: [E, K].

    Returns:
        [E, H].

    Raises:
        TypeError: dtypes differ or are not floating-point.
        ValueError: shapes or devices do not match each other and the graph.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import edge_dot
        >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
        >>> edge_dot(graph, torch.eye(2).unsqueeze(1), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[2.],
                [3.]])
    """
    checks.same_kind(query, "query", edge_attr, "edge_attr")
    checks.node_features(graph, query, "query", "num_dst")
    checks.edge_features(graph, edge_attr, "edge_attr", query.shape[-1])
    if query.dim() != 3:
        raise ValueError(f"query has shape {list(query.shape)}; expected [N_dst, H, K]")
    graph = graph.local if isinstance(graph, ShardedGraph) else graph
    if excludes_native() or isinstance(graph, TracedGraph):
        return fallback.call(fallback.edge_dot, graph, query, edge_attr)
    assert isinstance(graph, Graph)
    result: Tensor = ops.edge_dot(graph.rowptr, graph.edge_id, query, edge_attr)
    return result


def edge_sum(graph: GraphLike, weight: Tensor, edge_attr: Tensor) -> Tensor:
    r"""Weighted sums of the features of every destination's in-edges, for each head.

    .. math:: r_i^h = \sum_{j \in N(i)} w_{ij}^h \, e_{ij}

    With attention weights, W r_i adds a linear map W of the edge features to the values of all
    edges, without a tensor of E·H·F elements.

    Args:
        graph: the graph.
        weight: [E, H].
        edge_attr: [E, K].

    Returns:
        [N_dst, H, K]; 0 for a destination without in-edges.

    Raises:
        TypeError: dtypes differ or are not floating-point.
        ValueError: shapes or devices do not match each other and the graph.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import edge_sum
        >>> graph = Graph(torch.tensor([[0, 1], [0, 0]]))
        >>> edge_sum(graph, torch.tensor([[0.5], [2.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        tensor([[[2.5000, 2.0000]],
        <BLANKLINE>
                [[0.0000, 0.0000]]])
    """
    checks.same_kind(weight, "weight", edge_attr, "edge_attr")
    checks.edge_features(graph, weight, "weight", None)
    checks.edge_features(graph, edge_attr, "edge_attr", None)
    weight = of_slots(graph, weight)
    graph = graph.local if isinstance(graph, ShardedGraph) else graph
    if excludes_native():
        return fallback.call(fallback.edge_sum, graph, weight, edge_attr)
    graph = graph.with_csr() if isinstance(graph, TracedGraph) else graph
    assert isinstance(graph, Graph)
    result: Tensor = ops.edge_sum(graph.rowptr, graph.edge_id, weight, edge_attr)
    return result
