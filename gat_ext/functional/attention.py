"""edge_attention, and a function for each of four of its scores."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from gat_ext.functional import checks, fallback
from gat_ext.functional.dispatch import operator_over
from gat_ext.functional.masked import bias_of_heads, mask_of_edges, masked_sum
from gat_ext.graph.protocol import GraphLike
from gat_ext.ops.arguments import Constants, Inputs, Results
from gat_ext.ops.linear_maps import inverse_norm, is_float16, of_unit_size, scaled
from gat_ext.ops.registry import draw_seed, needs_grad


class WithWeights(NamedTuple):
    """Result of edge_attention with ``return_weights``: out [N_dst, H, F], weights [E, H]."""

    out: Tensor
    weights: Tensor


class WithLse(NamedTuple):
    """Result of edge_attention with ``return_lse``: out [N_dst, H, F], lse [N_dst, H]."""

    out: Tensor
    lse: Tensor


class WithWeightsAndLse(NamedTuple):
    """Result of edge_attention with ``return_weights`` and ``return_lse``; shapes as above."""

    out: Tensor
    weights: Tensor
    lse: Tensor


_OUT, _WEIGHTS, _LSE = map(Results._fields.index, ("out", "weights", "lse"))

AttentionResult = Tensor | WithWeights | WithLse | WithWeightsAndLse


def edge_attention(
    graph: GraphLike,
    value: Tensor,
    *,
    score: str,
    query: Tensor | None = None,
    key: Tensor | None = None,
    att: Tensor | None = None,
    dst_term: Tensor | None = None,
    src_term: Tensor | None = None,
    edge_term: Tensor | None = None,
    bias: Tensor | None = None,
    edge_feat: Tensor | None = None,
    edge_in_value: bool = False,
    negative_slope: float = 0.2,
    scale: float = 1.0,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
    top_k: int | None = None,
    edge_mask: Tensor | None = None,
    return_weights: bool = False,
    return_lse: bool = False,
) -> AttentionResult:
    r"""Fused attention over the in-edges of every destination.

    .. math::
        \mathrm{out}_i = \sum_{j \in N(i)} \alpha_{ij} \, m_{ij} \, v_j, \qquad
        \alpha_{ij} = \frac{\exp s_{ij}}{\sum_{k \in N(i)} \exp s_{ik}}

    where m_ij is the dropout factor, y_ij = key_j + edge_feat_ij, b_ij = src_term_j + edge_term_ij
    (edge_feat and edge_term are optional), and s_ij is

    =============  =============================================  ===============================
    ``score``      s_ij (before ``bias``)                         source
    =============  =============================================  ===============================
    "additive"     leaky_relu(dst_term_i + b_ij)                  Veličković et al. 2018, eq. 3
    "additive_v2"  Σ_d att_d · leaky_relu(query_i + y_ij)         Brody et al. 2022, eq. 7
    "dot"          scale · ⟨query_i, y_ij⟩                        Vaswani et al. 2017, eq. 1
    "cosine"       scale · ⟨query_i, y_ij⟩ · dst_term_i · b_ij    Thekumparampil et al. 2018,
                                                                  eq. 5; terms: inverse norms
    "supergat_mx"  leaky_relu((dst_term_i + b_ij)                 Kim, Oh 2021, eq. 3 and 5 (MX)
                   · sigmoid(⟨query_i, y_ij⟩))
    =============  =============================================  ===============================

    Args:
        graph: the graph.
        value: v, [N_src, H, F].
        score: one of the names above. Arguments that the score does not use must be None.
        query: [N_dst, H, D].
        key: [N_src, H, D].
        att: [H, D].
        dst_term: [N_dst, H].
        src_term: [N_src, H].
        edge_term: [E, H], added to src_term, for scores that read src_term.
        bias: [E, H], or [E, 1] or [E] for all heads, added to s_ij before the softmax. The
            logarithm of positive edge weights w_ij gives α_ij proportional to w_ij exp s_ij.
        edge_feat: [E, H, D], added to key, for scores that read key.
        edge_in_value: also add edge_feat to value; requires D = F.
        negative_slope: of leaky_relu.
        scale: factor of the score, if its formula has one.
        dropout_p: probability with which m_ij is 0; else it is 1 / (1 - dropout_p).
        seed: int64 tensor of one element, which determines m; None draws one.
        top_k: keep only the top_k largest scores of each destination and head (ties: the earlier
            edge). 1 is hard attention.
        edge_mask: [E] or [E, H], real numbers (differentiable) or booleans: multiplies the weights
            after softmax and dropout: out_i = Σ_j mask_ij α_ij m_ij v_j. Explainers learn it; 0 or
            False removes a message without changing the other weights.
        return_weights: also return alpha · m, times the mask, [E, H], differentiable.
        return_lse: also return log Σ_j exp s_ij, [N_dst, H], in float32 (float64 for float64),
            differentiable.

    Returns:
        out [N_dst, H, F], a tensor. With ``return_weights`` or ``return_lse``, a named tuple of
        ``out``, ``weights`` [E, H] and ``lse`` [N_dst, H], in this order, without those that were
        not requested: :class:`WithWeights`, :class:`WithLse` or :class:`WithWeightsAndLse`.

    Raises:
        TypeError: dtypes differ or are not floating-point.
        ValueError: a shape or device does not match, an argument is missing or not used by the
            score, or a number is out of range.

    Cost: each edge reads one value row and, for scores with a query, one key row. Forward and
    backward allocate no tensor of E·H·F elements, except a requested gradient of ``edge_feat``.
    Second derivatives of additive_v2, and of any score with edge_feat, allocate [E, H, D]. An
    edge_mask adds an :func:`spmm` and a few tensors [E, H]; under torch.compile, torch.func and
    tracing it allocates [E, H, F].

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import edge_attention
        >>> graph = Graph(torch.tensor([[0, 1, 2], [2, 2, 0]]))
        >>> x = torch.ones(3, 2, 4)
        >>> out = edge_attention(graph, x, score="dot", query=x, key=x, scale=0.5)
        >>> out.shape, out[1].abs().sum()
        (torch.Size([3, 2, 4]), tensor(0.))
    """
    inputs = {
        "query": query,
        "key": key,
        "att": att,
        "dst_term": dst_term,
        "src_term": src_term,
        "edge_term": edge_term,
        "bias": bias,
        "edge_feat": edge_feat,
    }
    checks.attention_inputs(graph, value, score, inputs, edge_in_value)
    negative_slope = checks.number(negative_slope, "negative_slope")
    scale = checks.number(scale, "scale")
    dropout_p = checks.probability(dropout_p, "dropout_p")
    top_k = 0 if top_k is None else checks.positive_integer(top_k, "top_k")
    if edge_mask is not None:
        edge_mask = mask_of_edges(graph, value, edge_mask)
    checks.flag(return_weights, "return_weights")
    checks.flag(return_lse, "return_lse")
    if dropout_p > 0:
        seed = draw_seed(value.device) if seed is None else checks.seed(seed, value.device)
    seed = seed if dropout_p > 0 else None
    constants = score, edge_in_value, negative_slope, scale, dropout_p
    inputs["bias"] = bias_of_heads(bias, value)
    # The operator reads value in place of an absent query or key, and computes the sum of their
    # gradients directly.
    for name in ("query", "key"):
        if inputs[name] is value:
            inputs[name] = None
    given = value, *inputs.values()
    if fallback.is_needed(*given, edge_mask):
        out, weights, lse = fallback.attend(
            graph, Inputs(*given), seed, Constants(*constants), top_k
        )
    else:
        operator, graph_arguments = operator_over(graph, needs_grad(*given))
        with_weights = return_weights or edge_mask is not None
        results = operator(
            *graph_arguments, *given, seed, *constants, top_k, with_weights, return_lse
        )
        out, weights, lse = results[_OUT], results[_WEIGHTS], results[_LSE]
    if edge_mask is not None:
        in_value = edge_feat if edge_in_value else None
        out, weights = masked_sum(graph, value, weights, edge_mask, in_value)
    if return_weights:
        return WithWeightsAndLse(out, weights, lse) if return_lse else WithWeights(out, weights)
    return WithLse(out, lse) if return_lse else out


def gat_attention(
    graph: GraphLike,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    *,
    edge_term: Tensor | None = None,
    negative_slope: float = 0.2,
    **options: Any,
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


def gatv2_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    att: Tensor,
    *,
    value: Tensor | None = None,
    edge_feat: Tensor | None = None,
    negative_slope: float = 0.2,
    **options: Any,
) -> AttentionResult:
    r"""GATv2's attention: s_ij = Σ_d att_d · leaky_relu(query_i + key_j + edge_feat_ij)_d.

    Args:
        graph: the graph.
        query: [N_dst, H, D].
        key: [N_src, H, D].
        att: [H, D].
        value: [N_src, H, F]; None means key, as in the paper.
        edge_feat: [E, H, D].
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
        negative_slope=negative_slope,
        **options,
    )


def dot_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = None,
    edge_feat: Tensor | None = None,
    **options: Any,
) -> AttentionResult:
    r"""Scaled dot-product attention; edge_feat is added to the keys and to the values.

    .. math:: s_{ij} = \mathrm{scale} \cdot \langle q_i, k_j + e_{ij} \rangle

    Args:
        graph: the graph. On the complete graph this is
            ``torch.nn.functional.scaled_dot_product_attention``.
        query: [N_dst, H, D].
        key: [N_src, H, D].
        value: [N_src, H, F].
        scale: None means 1 / sqrt(D).
        edge_feat: [E, H, D]; requires D = F.
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
        edge_in_value=edge_feat is not None,
        **options,
    )


def cosine_attention(
    graph: GraphLike,
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    *,
    beta: float | Tensor = 1.0,
    eps: float = 1e-12,
    **options: Any,
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
