"""edge_attention."""

from __future__ import annotations

from typing import overload

from torch import Tensor
from typing_extensions import Unpack

from gat_ext.functional import checks
from gat_ext.functional.fused import AttentionOptions, attend
from gat_ext.functional.masked import bias_of_heads, mask_of_edges
from gat_ext.functional.options import (
    AttentionResult,
    InputsForAny,
    InputsForBoth,
    InputsForLse,
    InputsForOut,
    InputsForWeights,
    WithLse,
    WithWeights,
    WithWeightsAndLse,
)
from gat_ext.graph.protocol import GraphLike
from gat_ext.ops.arguments import Constants, Inputs
from gat_ext.ops.registry import draw_seed


@overload
def edge_attention(
    graph: GraphLike, value: Tensor, *, score: str, **inputs: Unpack[InputsForOut]
) -> Tensor: ...


@overload
def edge_attention(
    graph: GraphLike, value: Tensor, *, score: str, **inputs: Unpack[InputsForWeights]
) -> WithWeights: ...


@overload
def edge_attention(
    graph: GraphLike, value: Tensor, *, score: str, **inputs: Unpack[InputsForLse]
) -> WithLse: ...


@overload
def edge_attention(
    graph: GraphLike, value: Tensor, *, score: str, **inputs: Unpack[InputsForBoth]
) -> WithWeightsAndLse: ...


@overload
def edge_attention(
    graph: GraphLike, value: Tensor, *, score: str, **inputs: Unpack[InputsForAny]
) -> AttentionResult: ...


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
    edge_attr: Tensor | None = None,
    edge_map: Tensor | None = None,
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

    where m_ij is the dropout factor, y_ij = key_j + edge_feat_ij, or key_j + W edge_attr_ij with
    W = edge_map, b_ij = src_term_j + edge_term_ij (what edges add is optional), and s_ij is

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
        edge_attr: [E, K], with ``edge_map`` in place of edge_feat: edge features that the heads
            share. The kernels compute W edge_attr_ij where they need it, and allocate no tensor of
            E·H·D elements, also not for gradients.
        edge_map: W, [H, D, K].
        edge_in_value: also add edge_feat, or W edge_attr, to value; requires D = F.
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
        not requested: ``WithWeights``, ``WithLse`` or ``WithWeightsAndLse``.

    Raises:
        TypeError: dtypes differ or are not floating-point.
        ValueError: a shape or device does not match, an argument is missing or not used by the
            score, or a number is out of range.

    Cost: each edge reads one value row and, for scores with a query, one key row. Forward and
    backward allocate no tensor of E·H·F elements, except a requested gradient of ``edge_feat``.
    Second derivatives of additive_v2, and of any score with edge features, allocate [E, H, D]. An
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
        "edge_attr": edge_attr,
        "edge_map": edge_map,
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
    constants = Constants(score, edge_in_value, negative_slope, scale, dropout_p)
    inputs["bias"] = bias_of_heads(bias, value)
    options = AttentionOptions(constants, seed, top_k, edge_mask, return_weights, return_lse)
    out, weights, lse = attend(graph, Inputs(value, **inputs), options)
    if return_weights:
        return WithWeightsAndLse(out, weights, lse) if return_lse else WithWeights(out, weights)
    return WithLse(out, lse) if return_lse else out
