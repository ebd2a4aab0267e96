"""Attention by similarity: scaled dot products, and the cosines of AGNN."""

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
from gat_ext.graph.protocol import GraphLike
from gat_ext.ops.linear_maps import inverse_norm, is_float16, of_unit_size, scaled


@overload
def dot_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = ...,
    edge_feat: Tensor | None = ...,
    edge_attr: Tensor | None = ...,
    edge_map: Tensor | None = ...,
    **options: Unpack[ForOut],
) -> Tensor: ...


@overload
def dot_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = ...,
    edge_feat: Tensor | None = ...,
    edge_attr: Tensor | None = ...,
    edge_map: Tensor | None = ...,
    **options: Unpack[ForWeights],
) -> WithWeights: ...


@overload
def dot_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = ...,
    edge_feat: Tensor | None = ...,
    edge_attr: Tensor | None = ...,
    edge_map: Tensor | None = ...,
    **options: Unpack[ForLse],
) -> WithLse: ...


@overload
def dot_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = ...,
    edge_feat: Tensor | None = ...,
    edge_attr: Tensor | None = ...,
    edge_map: Tensor | None = ...,
    **options: Unpack[ForBoth],
) -> WithWeightsAndLse: ...


@with_options_of(edge_attention, ForAny)
def dot_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = None,
    edge_feat: Tensor | None = None,
    edge_attr: Tensor | None = None,
    edge_map: Tensor | None = None,
    **options: Unpack[ForAny],
) -> AttentionResult:
    r"""Scaled dot-product attention; edge features are added to the keys and to the values.

    .. math::
        s_{ij} = \mathrm{scale} \cdot \langle q_i, k_j + f_{ij} \rangle, \qquad
        \mathrm{out}_i = \sum_j \alpha_{ij} (v_j + f_{ij})

    Args:
        graph: the graph. On the complete graph this is
            ``torch.nn.functional.scaled_dot_product_attention``.
        query: [N_dst, H, D].
        key: [N_src, H, D].
        value: [N_src, H, F].
        scale: None means 1 / sqrt(D).
        edge_feat: f, [E, H, D]; requires D = F.
        edge_attr: [E, K], with ``edge_map`` in place of edge_feat: f_ij = W edge_attr_ij. The heads
            share it, and nothing of E·H·D elements is allocated, except under torch.func and in
            forward mode.
        edge_map: W, [H, D, K]; requires D = F.
        **options: bias, dropout_p, seed, top_k, edge_mask, return_weights, return_lse of
            :func:`edge_attention`.

    Returns:
        As :func:`edge_attention`, whose errors it raises.

    Source: Vaswani et al., "Attention Is All You Need", 2017, eq. 1; with edges, Shi et al.,
    "Masked Label Prediction", 2021, eq. 3 and 4.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import dot_attention
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> q = k = v = torch.ones(2, 1, 4)
        >>> dot_attention(graph, q, k, v)[1]
        tensor([[1., 1., 1., 1.]])
    """
    if scale is None:
        checks.rows_of_heads(query, "query")
        scale = max(query.shape[-1], 1) ** -0.5
    return edge_attention(
        graph,
        value,
        score="dot",
        query=query,
        key=key,
        scale=scale,
        edge_feat=edge_feat,
        edge_attr=edge_attr,
        edge_map=edge_map,
        edge_in_value=edge_feat is not None or edge_attr is not None,
        **options,
    )


@overload
def cosine_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor | None = ...,
    value: Tensor | None = ...,
    *,
    beta: float | Tensor = ...,
    eps: float = ...,
    **options: Unpack[ForOut],
) -> Tensor: ...


@overload
def cosine_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor | None = ...,
    value: Tensor | None = ...,
    *,
    beta: float | Tensor = ...,
    eps: float = ...,
    **options: Unpack[ForWeights],
) -> WithWeights: ...


@overload
def cosine_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor | None = ...,
    value: Tensor | None = ...,
    *,
    beta: float | Tensor = ...,
    eps: float = ...,
    **options: Unpack[ForLse],
) -> WithLse: ...


@overload
def cosine_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor | None = ...,
    value: Tensor | None = ...,
    *,
    beta: float | Tensor = ...,
    eps: float = ...,
    **options: Unpack[ForBoth],
) -> WithWeightsAndLse: ...


@with_options_of(edge_attention, ForAny)
def cosine_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    *,
    beta: float | Tensor = 1.0,
    eps: float = 1e-12,
    **options: Unpack[ForAny],
) -> AttentionResult:
    r"""AGNN's attention: s_ij = beta · cos(query_i, key_j).

    Args:
        graph: the graph.
        query: [N_dst, H, D].
        key: [N_src, H, D]; None means query.
        value: [N_src, H, F]; None means key.
        beta: the inverse temperature: a number, or a tensor [] or [H], differentiable.
        eps: a vector whose norm is at most eps is treated as zero: its cosine is 0, and its norm
            has no gradient. Squares of norms must be finite (in float32, norms up to 1.8e19),
            except in float16, where query and key are scaled by powers of two first.
        **options: bias, dropout_p, seed, top_k, edge_mask, return_weights, return_lse of
            :func:`edge_attention`.

    Returns:
        As :func:`edge_attention`, whose errors it raises.

    Source: Thekumparampil, Wang, Oh, Li, "Attention-based Graph Neural Network for Semi-supervised
    Learning", 2018, eq. 5.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import cosine_attention
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> x = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]]])
        >>> cosine_attention(graph, x)[1]
        tensor([[1.5000, 0.0000]])
    """
    key = query if key is None else key
    checks.rows_of_heads(query, "query")
    checks.rows_of_heads(key, "key")
    checks.same_kind(query, "query", key, "key")
    beta, eps = checks.temperature(beta, query), checks.number(eps, "eps")
    value = key if value is None else value
    if is_float16(query):  # which holds no square of a norm above 256
        same, query = key is query, of_unit_size(query, eps)
        key, eps = query if same else of_unit_size(key, eps), 0.0
    inverse_query_norm = inverse_norm(query, eps)
    inverse_key_norm = inverse_query_norm if key is query else inverse_norm(key, eps)
    return edge_attention(
        graph,
        value,
        score="cosine",
        query=query,
        key=key,
        dst_term=scaled(inverse_query_norm, beta).to(query.dtype),
        src_term=inverse_key_norm,
        **options,
    )
