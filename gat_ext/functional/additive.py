"""Additive attention, of GAT and of GATv2."""

from __future__ import annotations

from typing import overload

from torch import Tensor
from typing_extensions import Unpack

from gat_ext.functional.attention import edge_attention
from gat_ext.functional.options import (
    AttentionResult,
    ForAny,
    ForBoth,
    ForLse,
    ForOut,
    ForWeights,
    WithLse,
    WithWeights,
    WithWeightsAndLse,
    with_options_of,
)
from gat_ext.graph.protocol import GraphLike


@overload
def gat_attention(
    graph: GraphLike,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    *,
    edge_term: Tensor | None = ...,
    negative_slope: float = ...,
    **options: Unpack[ForOut],
) -> Tensor: ...


@overload
def gat_attention(
    graph: GraphLike,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    *,
    edge_term: Tensor | None = ...,
    negative_slope: float = ...,
    **options: Unpack[ForWeights],
) -> WithWeights: ...


@overload
def gat_attention(
    graph: GraphLike,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    *,
    edge_term: Tensor | None = ...,
    negative_slope: float = ...,
    **options: Unpack[ForLse],
) -> WithLse: ...


@overload
def gat_attention(
    graph: GraphLike,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    *,
    edge_term: Tensor | None = ...,
    negative_slope: float = ...,
    **options: Unpack[ForBoth],
) -> WithWeightsAndLse: ...


@with_options_of(edge_attention, ForAny)
def gat_attention(
    graph: GraphLike,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    *,
    edge_term: Tensor | None = None,
    negative_slope: float = 0.2,
    **options: Unpack[ForAny],
) -> AttentionResult:
    r"""GAT's attention: s_ij = leaky_relu(dst_term_i + src_term_j + edge_term_ij).

    Args:
        graph: the graph.
        value: [N_src, H, F], the projected features W x.
        dst_term: [N_dst, H], a_dst · W x, with the destination half of the attention vector.
        src_term: [N_src, H], a_src · W x, with the source half.
        edge_term: [E, H], a_edge · W_e e.
        negative_slope: of leaky_relu.
        **options: bias, dropout_p, seed, top_k, edge_mask, return_weights, return_lse of
            :func:`edge_attention`.

    Returns:
        As :func:`edge_attention`, whose errors it raises.

    Source: Veličković et al., "Graph Attention Networks", ICLR 2018, eq. 3 and 4.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import gat_attention
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> x = torch.tensor([[[1.0]], [[3.0]]])
        >>> gat_attention(graph, x, torch.zeros(2, 1), torch.zeros(2, 1)).flatten()
        tensor([0., 2.])
    """
    return edge_attention(
        graph,
        value,
        score="additive",
        dst_term=dst_term,
        src_term=src_term,
        edge_term=edge_term,
        negative_slope=negative_slope,
        **options,
    )


@overload
def gatv2_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    att: Tensor,
    *,
    value: Tensor | None = ...,
    edge_feat: Tensor | None = ...,
    edge_attr: Tensor | None = ...,
    edge_map: Tensor | None = ...,
    negative_slope: float = ...,
    **options: Unpack[ForOut],
) -> Tensor: ...


@overload
def gatv2_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    att: Tensor,
    *,
    value: Tensor | None = ...,
    edge_feat: Tensor | None = ...,
    edge_attr: Tensor | None = ...,
    edge_map: Tensor | None = ...,
    negative_slope: float = ...,
    **options: Unpack[ForWeights],
) -> WithWeights: ...


@overload
def gatv2_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    att: Tensor,
    *,
    value: Tensor | None = ...,
    edge_feat: Tensor | None = ...,
    edge_attr: Tensor | None = ...,
    edge_map: Tensor | None = ...,
    negative_slope: float = ...,
    **options: Unpack[ForLse],
) -> WithLse: ...


@overload
def gatv2_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    att: Tensor,
    *,
    value: Tensor | None = ...,
    edge_feat: Tensor | None = ...,
    edge_attr: Tensor | None = ...,
    edge_map: Tensor | None = ...,
    negative_slope: float = ...,
    **options: Unpack[ForBoth],
) -> WithWeightsAndLse: ...


@with_options_of(edge_attention, ForAny)
def gatv2_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    att: Tensor,
    *,
    value: Tensor | None = None,
    edge_feat: Tensor | None = None,
    edge_attr: Tensor | None = None,
    edge_map: Tensor | None = None,
    negative_slope: float = 0.2,
    **options: Unpack[ForAny],
) -> AttentionResult:
    r"""GATv2's attention: s_ij = Σ_d att_d · leaky_relu(query_i + key_j + edge_feat_ij)_d.

    Args:
        graph: the graph.
        query: [N_dst, H, D].
        key: [N_src, H, D].
        att: [H, D].
        value: [N_src, H, F]; None means key, as in the paper.
        edge_feat: [E, H, D].
        edge_attr: [E, K], with ``edge_map`` in place of edge_feat, which is then W edge_attr. The
            heads share it, and no tensor of E·H·D elements is allocated.
        edge_map: W, [H, D, K].
        negative_slope: of leaky_relu.
        **options: bias, dropout_p, seed, top_k, edge_mask, return_weights, return_lse of
            :func:`edge_attention`.

    Returns:
        As :func:`edge_attention`, whose errors it raises.

    Source: Brody, Alon, Yahav, "How Attentive are Graph Attention Networks?", ICLR 2022, eq. 7.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import gatv2_attention
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> x = torch.randn(2, 3, 4)
        >>> gatv2_attention(graph, x, x, torch.randn(3, 4)).shape
        torch.Size([2, 3, 4])
    """
    return edge_attention(
        graph,
        key if value is None else value,
        score="additive_v2",
        query=query,
        key=key,
        att=att,
        edge_feat=edge_feat,
        edge_attr=edge_attr,
        edge_map=edge_map,
        negative_slope=negative_slope,
        **options,
    )
