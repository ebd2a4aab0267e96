"""Dot-product attention with edge features that a linear map turns into keys and values.

With e_ij [K], shared by the heads, and a map W_h [D, K] for each head,

    ⟨q_i, k_j + W e_ij⟩ = ⟨q_i, k_j⟩ + ⟨u_i, e_ij⟩,            u_i = Wᵀ q_i        [N_dst, H, K]
    Σ_j α_ij (v_j + W e_ij) = Σ_j α_ij v_j + W r_i,            r_i = Σ_j α_ij e_ij  [N_dst, H, K]

so the edges cost E·(H + K) numbers instead of E·H·D: edge_dot computes a bias, edge_sum r_i.
Without dropout, whose random numbers are those of the caller's edges, all of it is in CSR order, in
which the operators read and write edges one after the other.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from gat_ext.functional import checks
from gat_ext.functional.attention import edge_attention
from gat_ext.functional.masked import bias_of_heads, mask_of_edges
from gat_ext.functional.options import AttentionResult, ForAny, WithLse
from gat_ext.functional.sparse import edge_dot, edge_sum
from gat_ext.graph import Graph
from gat_ext.graph.cache import cached
from gat_ext.graph.protocol import GraphLike
from gat_ext.ops import linear_maps
from gat_ext.ops.scatter import to_caller_order
from gat_ext.ops.state import is_tracing, is_transformed

SMALL = 200_000
"""At most so many features E·H·D are allocated: one operator on them is faster than several"""


def attend(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edges: tuple[Tensor, Tensor],
    scale: float,
    **options: Unpack[ForAny],
) -> AttentionResult:
    """Dot-product attention whose keys and values gain W e_ij.

    While tracing or transforming it allocates [E, H, D], because edges are not sorted then, and
    below ``SMALL`` elements.

    Args:
        graph: the graph.
        query: [N_dst, H, D].
        key: [N_src, H, D].
        value: [N_src, H, D].
        edges: (e [E, K], W [H, D, K]).
        scale: of the score.
        **options: of :func:`gat_ext.functional.edge_attention`.
    """
    edge_attr, edge_map = edges
    _check(graph, query, value, edge_attr, edge_map)
    small = not is_tracing() and graph.num_edges * edge_map.shape[0] * edge_map.shape[1] <= SMALL
    if small or is_tracing() or is_transformed():
        edge_feat = linear_maps.linear(edge_attr, edge_map.flatten(0, 1))
        edge_feat = edge_feat.view(-1, *edge_map.shape[:2])
        return edge_attention(
            graph,
            value,
            score="dot",
            query=query,
            key=key,
            scale=scale,
            edge_feat=edge_feat,
            edge_in_value=True,
            **options,
        )
    assert isinstance(graph, Graph)
    others: dict[str, Any] = dict(options)
    return_weights = others.pop("return_weights", False)
    checks.flag(return_weights, "return_weights")
    if others.get("bias") is not None:
        others["bias"] = _bias_of_heads(graph, others["bias"], value)
    if others.get("edge_mask") is not None:
        others["edge_mask"] = mask_of_edges(graph, value, others["edge_mask"])
    edge_id = graph.edge_id
    if edge_id is not None and not others.get("dropout_p"):
        edge_attr = _rows(graph, edge_attr)
        for name in ("bias", "edge_mask"):
            if others.get(name) is not None:
                others[name] = others[name].index_select(0, edge_id)
        graph = cached((graph,), "csr order", partial(_in_csr_order, graph))
    else:
        edge_id = None
    bias = edge_dot(graph, map_heads(query * scale, edge_map), edge_attr)
    if others.get("bias") is not None:
        bias = bias + others["bias"]
    result: Any = edge_attention(
        graph,
        value,
        score="dot",
        query=query,
        key=key,
        scale=scale,
        return_weights=True,
        **(others | {"bias": bias}),
    )
    weights = result.weights
    of_edges = edge_sum(graph, weights, edge_attr)
    out: Tensor = result.out + map_heads(of_edges, edge_map.transpose(1, 2))
    if return_weights:
        weights = to_caller_order(weights, edge_id)
        return result._replace(out=out, weights=weights)  # type: ignore[no-any-return]
    return WithLse(out, result.lse) if others.get("return_lse") else out


def _in_csr_order(graph: Graph) -> Graph:
    """The same graph, with its edges numbered in CSR order; shares the index tensors."""
    transpose = graph._transpose
    if transpose is not None:
        transpose = transpose._replace(edge_id=transpose.pos)
    return Graph._from_csr((graph.rowptr, graph.col, None), graph.num_src, transpose)


_FEW_HEADS = 16


def map_heads(x: Tensor, maps: Tensor) -> Tensor:
    """[N, H, B], each head of x [N, H, A] times its map [H, A, B].

    As one product with a block-diagonal matrix while the heads are few, because torch's product for
    each head copies x to another layout.
    """
    if maps.shape[0] > _FEW_HEADS:
        return torch.einsum("nha,hab->nhb", x, maps)
    product: Tensor = linear_maps.linear(x.flatten(1), torch.block_diag(*maps.transpose(1, 2)))
    return product.view(-1, maps.shape[0], maps.shape[2])


def _rows(graph: Graph, edge_attr: Tensor) -> Tensor:
    """Edge features in CSR order; cached for constants."""
    edge_id = graph.edge_id
    assert edge_id is not None
    if edge_attr.requires_grad:
        return edge_attr.index_select(0, edge_id)
    rows = partial(edge_attr.index_select, 0, edge_id)
    return cached((edge_attr, graph), "csr order", rows, large=True)


def _bias_of_heads(graph: Graph, bias: Tensor, value: Tensor) -> Tensor:
    """[E, H] of a bias [E], [E, 1] or [E, H], after the checks of edge_attention."""
    checks.edge_values(graph, bias, "bias")
    checks.same_kind(value, "value", bias, "bias")
    if bias.dim() == 2:
        checks.heads(bias, value.shape[1], "bias", "value")
    of_heads = bias_of_heads(bias, value)
    assert of_heads is not None
    return of_heads


def _check(
    graph: GraphLike, query: Tensor, value: Tensor, edge_attr: Tensor, edge_map: Tensor
) -> None:
    checks.rows_of_heads(query, "query")
    checks.floating(edge_map, "edge_map")
    checks.same_kind(query, "query", edge_map, "edge_map")
    heads, channels = query.shape[1:]
    if edge_map.dim() != 3 or tuple(edge_map.shape[:2]) != (heads, channels):
        raise ValueError(
            f"edge_map has shape {list(edge_map.shape)}; expected [{heads}, {channels}, K] for "
            f"query of shape {list(query.shape)}"
        )
    checks.edge_features(graph, edge_attr, "edge_attr", edge_map.shape[2])
    checks.same_kind(query, "query", edge_attr, "edge_attr")
    if value.dim() != 3 or value.shape[2] != channels:
        raise ValueError(
            f"value has shape {list(value.shape)}; expected {channels} channels, as query has, "
            "because edge_map adds to keys and values"
        )
