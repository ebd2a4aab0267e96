"""Biases and masks of edges, and attention whose weights a mask multiplies."""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.functional import checks
from gat_ext.functional.sparse import edge_sum
from gat_ext.graph import Graph
from gat_ext.graph.protocol import GraphLike
from gat_ext.ops.linear_maps import map_heads
from gat_ext.ops.registry import accumulate_dtype, ops
from gat_ext.ops.scatter import edge_rows, row_sum
from gat_ext.ops.state import in_forward_mode, is_tracing


def masked_sum(
    graph: GraphLike,
    value: Tensor,
    weights: Tensor,
    edge_mask: Tensor,
    edges: Tensor | tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of every destination with masked weights, and these weights.

    Args:
        graph: the graph.
        value: [N_src, H, F].
        weights: [E, H], attention weights.
        edge_mask: [E], [E, 1] or [E, H].
        edges: what each edge adds to the value: [E, H, F], or the factors (e [E, K], W [H, F, K])
            of linear edge features, or None.

    Returns:
        (out [N_dst, H, F], weights [E, H]).
    """
    mask = edge_mask.unsqueeze(-1) if edge_mask.dim() == 1 else edge_mask
    weights = weights * mask.to(weights.dtype)  # autocast may have narrowed the weights
    if is_tracing() or in_forward_mode():
        if isinstance(edges, tuple):
            edges = torch.einsum("ek,hdk->ehd", *edges)
        return _traced_sum(graph, value, weights, edges), weights
    assert isinstance(graph, Graph)
    transposed: tuple[Tensor | None, ...] = (None, None, None)
    if torch.is_grad_enabled() and (value.requires_grad or weights.requires_grad):
        t = graph.transpose()
        transposed = t.rowptr, t.col, t.edge_id
    out: Tensor = ops.spmm(graph.rowptr, graph.col, graph.edge_id, *transposed, weights, value)
    if isinstance(edges, tuple):
        edge_attr, edge_map = edges
        sums = edge_sum(graph, weights, edge_attr.to(weights.dtype))
        out = out + map_heads(sums, edge_map.to(weights.dtype).transpose(1, 2))
    elif edges is not None:
        out = out + ops.spmm(*_edges_to_destinations(graph), weights, edges)
    return out, weights


def _traced_sum(
    graph: GraphLike, value: Tensor, weights: Tensor, edge_feat: Tensor | None
) -> Tensor:
    """The sum in torch's own operators, for tracing, torch.func and tangents.

    Allocates an intermediate tensor [E, H, F].
    """
    src, dst = graph.edge_index
    wide = accumulate_dtype(weights.dtype)
    message = value.to(wide)[src]
    if edge_feat is not None:
        message = message + edge_feat.to(wide)
    total = row_sum(weights.to(wide).unsqueeze(-1) * message, dst, graph.num_dst)
    return total.to(weights.dtype)


def _edges_to_destinations(graph: Graph) -> tuple[Tensor | None, ...]:
    """The bipartite graph from edges, as sources, to their destinations, as arguments of spmm."""
    num_edges, like = graph.num_edges, graph.col
    each = torch.arange(num_edges, dtype=like.dtype, device=like.device)
    col = each if graph.edge_id is None else graph.edge_id
    t_rowptr = torch.arange(num_edges + 1, dtype=graph.rowptr.dtype, device=like.device)
    t_col = edge_rows(graph.rowptr, graph.edge_id, num_edges).to(like.dtype)
    return graph.rowptr, col, graph.edge_id, t_rowptr, t_col, each


def bias_of_heads(bias: Tensor | None, value: Tensor) -> Tensor | None:
    """[E, H] of a bias [E], [E, 1] or [E, H], without a copy; value is [N_src, H, F]."""
    if bias is None or (bias.dim() == 2 and bias.shape[1] == value.shape[1]):
        return bias
    return (bias.unsqueeze(-1) if bias.dim() == 1 else bias).expand(-1, value.shape[1])


def mask_of_edges(graph: GraphLike, value: Tensor, edge_mask: Tensor) -> Tensor:
    """As :func:`mask_of`, once it has a row for each edge of the graph."""
    edge_mask = mask_of(value, edge_mask, "edge_mask")
    checks.edge_values(graph, edge_mask, "edge_mask")
    return edge_mask


def mask_of(value: Tensor, mask: Tensor, name: str) -> Tensor:
    """A mask in floating-point numbers: booleans and integers become those of value's dtype.

    Raises:
        TypeError: it is no dense tensor of real numbers, or has another floating-point dtype than
            value.
        ValueError: it is on another device, or does not fit the heads of value [N_src, H, F].
    """
    checks.numbers(mask, name)
    if not mask.is_floating_point():
        mask = mask.to(value.dtype)
    checks.same_kind(value, "value", mask, name)
    if mask.dim() == 2:
        checks.heads(mask, value.shape[1], name, "value")
    return mask
