"""Attention of SuperGAT: dot products that are also logits of the edges."""

from __future__ import annotations

from typing import overload

from torch import Tensor
from typing_extensions import Unpack

from gat_ext.functional import checks
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
from gat_ext.functional.sparse import sddmm
from gat_ext.graph.protocol import GraphLike


@overload
def supergat_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dst_term: Tensor | None = ...,
    src_term: Tensor | None = ...,
    *,
    negative_slope: float = ...,
    **options: Unpack[ForOut],
) -> Tensor: ...


@overload
def supergat_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dst_term: Tensor | None = ...,
    src_term: Tensor | None = ...,
    *,
    negative_slope: float = ...,
    **options: Unpack[ForWeights],
) -> WithWeights: ...


@overload
def supergat_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dst_term: Tensor | None = ...,
    src_term: Tensor | None = ...,
    *,
    negative_slope: float = ...,
    **options: Unpack[ForLse],
) -> WithLse: ...


@overload
def supergat_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dst_term: Tensor | None = ...,
    src_term: Tensor | None = ...,
    *,
    negative_slope: float = ...,
    **options: Unpack[ForBoth],
) -> WithWeightsAndLse: ...


@with_options_of(edge_attention, ForAny)
def supergat_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dst_term: Tensor | None = None,
    src_term: Tensor | None = None,
    *,
    negative_slope: float = 0.2,
    **options: Unpack[ForAny],
) -> AttentionResult:
    r"""SuperGAT's attention: MX if the terms are given, else SD.

    .. math::
        s^{MX}_{ij} = \mathrm{LeakyReLU}((\mathrm{dst\_term}_i + \mathrm{src\_term}_j)
        \, \sigma(\langle q_i, k_j \rangle)), \qquad
        s^{SD}_{ij} = \mathrm{LeakyReLU}(\langle q_i, k_j \rangle / \sqrt{D})

    Args:
        graph: the graph.
        query: [N_dst, H, D].
        key: [N_src, H, D].
        value: [N_src, H, F].
        dst_term: [N_dst, H], given together with src_term.
        src_term: [N_src, H].
        negative_slope: of leaky_relu.
        **options: bias, dropout_p, seed, top_k, edge_mask, return_weights, return_lse of
            :func:`edge_attention`.

    Returns:
        As :func:`edge_attention`, whose errors it raises.

    Cost: MX is one pass of :func:`edge_attention`. SD has a pass of :func:`sddmm` before it, and
    allocates [E, H]; under torch.compile and torch.func it gathers [E, H, D].

    Source: Kim, Oh, "How to Find Your Friendly Neighborhood: Graph Attention Design with
    Self-Supervision", ICLR 2021, eq. 3 to 5.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import supergat_attention
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> q = k = v = torch.ones(2, 1, 4)
        >>> supergat_attention(graph, q, k, v)[1]
        tensor([[1., 1., 1., 1.]])
    """
    if dst_term is not None or src_term is not None:
        return edge_attention(
            graph,
            value,
            score="supergat_mx",
            query=query,
            key=key,
            dst_term=dst_term,
            src_term=src_term,
            negative_slope=negative_slope,
            **options,
        )
    checks.rows_of_heads(query, "query")
    scores = sddmm(graph, query, key) * max(query.shape[-1], 1) ** -0.5
    zeros = scores.new_zeros(()).to(value.dtype)
    return edge_attention(
        graph,
        value,
        score="additive",
        dst_term=zeros.expand(graph.num_dst, scores.shape[1]),
        src_term=zeros.expand(graph.num_src, scores.shape[1]),
        edge_term=scores,
        negative_slope=negative_slope,
        **options,
    )
