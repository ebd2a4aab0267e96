"""Attention over edges of several relations: graphs of (relation, node), and the operator.

The projections of the nodes differ between relations. So a source is a pair (j, r), with the number
j · R + r, and no row of features is needed for an edge.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.functional import checks, gat_attention, sddmm, spmm
from gat_ext.graph import Graph
from gat_ext.graph.cache import cached
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.graph.traced import TracedGraph
from gat_ext.ops.state import is_tracing

MODS = ("additive", "scaled", "f-additive", "f-scaled")


def relation_graph(graph: GraphLike, edge_type: Tensor, num_relations: int, within: bool) -> Any:
    """The graph from (source, relation) to destination, or with ``within`` to (dst, relation).

    Edges are in the order of ``graph``. Cached until edge_type is modified.

    Raises:
        ValueError: edge_type does not have a row for each edge.
        IndexError: a relation is out of range.
    """
    if edge_type.shape[0] != graph.num_edges:
        raise ValueError(
            f"edge_type has shape {list(edge_type.shape)}; expected [{graph.num_edges}], the "
            "relation of each edge"
        )
    if edge_type.device != graph.device:
        raise ValueError(
            f"edge_type is on {edge_type.device} and the edges are on {graph.device}; expected the "
            "same device: move one of them with .to()"
        )
    key = ("relations", num_relations, within)
    return cached((graph, edge_type), key, lambda: _built(graph, edge_type, num_relations, within))


def _built(graph: GraphLike, edge_type: Tensor, num_relations: int, within: bool) -> Any:
    if isinstance(graph, ShardedGraph):
        checks.in_range(edge_type, num_relations, "edge_type", "num_relations")
        return graph.of_relations(edge_type, num_relations, within)
    src, dst = graph.edge_index
    num_src, num_dst = graph.num_src * num_relations, graph.num_dst
    if within:
        dst, num_dst = dst * num_relations + edge_type, num_dst * num_relations
    edges = torch.stack([src * num_relations + edge_type, dst])
    if is_tracing() or isinstance(graph, TracedGraph):
        return TracedGraph(edges, num_src, num_dst, self_loops=False)
    checks.in_range(edge_type, num_relations, "edge_type", "num_relations")
    return Graph(edges, num_src=num_src, num_dst=num_dst)


def relational_attention(
    graph: GraphLike,
    value: Tensor,
    query: Tensor,
    key: Tensor,
    *,
    edge_type: Tensor,
    num_relations: int,
    within: bool,
    negative_slope: float | None = None,
    mod: str | None = None,
    factors: tuple[Tensor, ...] = (),
    edge_term: Tensor | None = None,
    dropout_p: float = 0.0,
    edge_mask: Tensor | None = None,
    return_weights: bool = False,
) -> Any:
    """The attention of :class:`gat_ext.nn.RGATConv`.

    Args:
        graph: of the nodes.
        value: [N · R, H, C], of node, then relation.
        query: [N · R, H].
        key: [N · R, H].
        edge_type: [E].
        num_relations: R.
        within: a softmax for each relation, else over all in-edges.
        negative_slope: of the additive scores; None multiplies query and key.
        mod: one of ``MODS``, or None.
        factors: (w [C], l1 [1, C], b1 [1, C], l2 [C, C], b2 [1, C]), which some mods read.
        edge_term: [E, H], added to the sum of query and key, or multiplied with their product.
        dropout_p: as of :func:`gat_ext.functional.edge_attention`.
        edge_mask: likewise.
        return_weights: likewise; the weights are those without mod.

    Returns:
        out [N, H, C], or (out, weights [E, H]).
    """
    attend: Any = gat_attention
    pairs = relation_graph(graph, edge_type, num_relations, within=True)
    zeros = query.new_zeros(()).expand(pairs.num_src, query.shape[1])
    slope, dst_term, src_term = negative_slope, query, key
    if slope is None:
        scores = sddmm(pairs, query.unsqueeze(-1), key.unsqueeze(-1))
        edge_term = scores if edge_term is None else scores * edge_term
        slope, dst_term, src_term = 1.0, zeros, zeros
    elif not within:  # the query of an edge depends on its relation, not on its destination alone
        queries = sddmm(pairs, query.unsqueeze(-1), torch.ones_like(key).unsqueeze(-1))
        edge_term = queries if edge_term is None else queries + edge_term
    across = pairs
    if not within or mod in ("additive", "f-additive"):
        across = relation_graph(graph, edge_type, num_relations, within=False)
    if not within:
        dst_term = zeros[: graph.num_dst]
    adds_one = mod == "f-additive"
    result = attend(
        pairs if within else across,
        value,
        dst_term,
        src_term,
        edge_term=edge_term,
        negative_slope=slope,
        dropout_p=dropout_p,
        edge_mask=None if adds_one else edge_mask,
        return_weights=return_weights or adds_one,
    )
    out, weights = result if isinstance(result, tuple) else (result, None)
    if within:
        out = out.unflatten(0, (graph.num_dst, num_relations)).sum(1)
    if adds_one:  # PyG adds it to positive weights
        given = weights
        mask = 1 if edge_mask is None else _of_heads(edge_mask)
        weights = given * mask
        out = spmm(across, value, torch.where(given > 0, given + 1, given) * mask)
    elif mod == "additive":
        out = out + factors[0] * spmm(across, value, _of_all_heads(edge_mask, value))
    elif mod in ("scaled", "f-scaled"):
        degree = spmm(graph, out.new_ones(graph.num_src, 1))
        out = out * (degree if mod == "f-scaled" else _scale(degree, *factors[1:])).unsqueeze(1)
    return (out, weights) if return_weights else out


def _of_heads(mask: Tensor) -> Tensor:
    return mask.unsqueeze(-1) if mask.dim() == 1 else mask


def _of_all_heads(mask: Tensor | None, value: Tensor) -> Tensor | None:
    return None if mask is None else _of_heads(mask).expand(-1, value.shape[1])


def _scale(degree: Tensor, l1: Tensor, b1: Tensor, l2: Tensor, b2: Tensor) -> Tensor:
    return (degree @ l1 + b1).relu() @ l2 + b2
