"""edge_attention in plain torch, with a formula for each score."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from gat_ext.graph import Graph
from gat_ext.reference.edges import group_softmax, group_sum

# ---- scores: formula(query_e, key_e, att, dst_e, src_e, slope, scale) -> [E, H]
# query_e, key_e [E, H, D]; att [H, D]; dst_e, src_e [E, H]; None if the score does not use it.

Formula = Callable[..., Tensor]


def _additive(
    q: Any, k: Any, att: Any, dst: Tensor, src: Tensor, slope: float, scale: float
) -> Tensor:
    return leaky_relu(dst + src, slope)


def _additive_v2(
    q: Tensor, k: Tensor, att: Tensor, dst: Any, src: Any, slope: float, scale: float
) -> Tensor:
    return (att * leaky_relu(q + k, slope)).sum(-1)


def _dot(q: Tensor, k: Tensor, att: Any, dst: Any, src: Any, slope: float, scale: float) -> Tensor:
    return scale * (q * k).sum(-1)


def _cosine(
    q: Tensor, k: Tensor, att: Any, dst: Tensor, src: Tensor, slope: float, scale: float
) -> Tensor:
    return scale * (q * k).sum(-1) * dst * src


def _supergat_mx(
    q: Tensor, k: Tensor, att: Any, dst: Tensor, src: Tensor, slope: float, scale: float
) -> Tensor:
    return leaky_relu((dst + src) * torch.sigmoid((q * k).sum(-1)), slope)


SCORES: dict[str, Formula] = {
    "additive": _additive,
    "additive_v2": _additive_v2,
    "dot": _dot,
    "cosine": _cosine,
    "supergat_mx": _supergat_mx,
}


_NODE_INPUTS = ("query", "key", "att", "dst_term", "src_term")


@cache
def score_inputs(score: str) -> tuple[str, ...]:
    """The arguments of :func:`edge_attention` that a score reads, found by differentiation.

    Raises:
        ValueError: unknown score.

    Example:
        >>> score_inputs("dot")
        ('query', 'key')
    """
    if score not in SCORES:
        raise ValueError(f"score is {score!r}; expected one of {', '.join(map(repr, SCORES))}")
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [torch.ones(1, 1, requires_grad=True, device="cpu") for _ in _NODE_INPUTS]
        result = SCORES[score](*inputs, 0.5, 1.0)
        grads = torch.autograd.grad(result.sum(), inputs, allow_unused=True)
    return tuple(name for name, grad in zip(_NODE_INPUTS, grads, strict=True) if grad is not None)


# ---- attention


def edge_attention(
    graph: Graph,
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
    dropout_mask: Tensor | None = None,
    top_k: int | None = None,
    edge_mask: Tensor | None = None,
    return_weights: bool = False,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    r"""Attention over the in-edges of every destination; gathers a row for every edge.

    .. math::
        \mathrm{out}_i = \sum_{j \in N(i)} \alpha_{ij} \, m_{ij} \, v_j, \qquad
        \alpha_{ij} = \frac{\exp s_{ij}}{\sum_{k \in N(i)} \exp s_{ik}}

    Args:
        graph: the graph.
        value: v, ``[N_src, H, F]``.
        score: a name in ``SCORES``.
        query: ``[N_dst, H, D]``.
        key: ``[N_src, H, D]``.
        att: ``[H, D]``.
        dst_term: ``[N_dst, H]``.
        src_term: ``[N_src, H]``.
        edge_term: ``[E, H]``, added to src_term.
        bias: ``[E, H]``, ``[E, 1]`` or ``[E]``, added to the score.
        edge_feat: ``[E, H, D]``, added to key.
        edge_attr: ``[E, K]``, with ``edge_map`` in place of edge_feat.
        edge_map: W, ``[H, D, K]``: edge_feat is W edge_attr.
        edge_in_value: also add edge_feat to value.
        negative_slope: of leaky_relu.
        scale: factor of the score, if its formula has one.
        dropout_mask: m, ``[E, H]``, multiplies the weights: 0 or 1 / (1 - p).
        top_k: keep only the top_k largest scores of each destination and head (ties: the earlier
            edge).
        edge_mask: ``[E]`` or ``[E, H]``, also multiplies the weights.
        return_weights: also return alpha · m, times the mask, ``[E, H]``.
        return_lse: also return lse, ``[N_dst, H]``.

    Returns:
        out ``[N_dst, H, F]``; or a tuple of out, weights if requested, and lse if requested.

    Raises:
        ValueError: unknown score, or an argument that is missing or not used by the score.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> x = torch.tensor([[[0.0]], [[2.0]]])
        >>> out, lse = edge_attention(graph, x, score="dot", query=x, key=x, return_lse=True)
        >>> out[1].round(decimals=3), lse.flatten()
        (tensor([[1.9640]]), tensor([  -inf, 4.0181]))
    """
    node = {"query": query, "key": key, "att": att, "dst_term": dst_term, "src_term": src_term}
    if edge_attr is not None and edge_map is not None:
        edge_feat = torch.einsum("ek,hdk->ehd", edge_attr, edge_map)
    _check_inputs(score, node, {"edge_term": edge_term, "edge_feat": edge_feat})
    src, dst = graph.edge_index
    key_e, value_e, src_e = _gather(key, src), value[src], _gather(src_term, src)
    if edge_feat is not None:
        key_e = key_e + edge_feat
        value_e = value_e + edge_feat if edge_in_value else value_e
    if edge_term is not None:
        src_e = src_e + edge_term
    scores = SCORES[score](
        _gather(query, dst), key_e, att, _gather(dst_term, dst), src_e, negative_slope, scale
    )
    if bias is not None:
        scores = scores + (bias.unsqueeze(-1) if bias.dim() == 1 else bias)
    if top_k is not None:
        kept = rank_by_score(scores.detach(), dst, graph.num_dst) < top_k
        scores = torch.where(kept, scores, -torch.inf)
    weights, lse = group_softmax(scores, dst, graph.num_dst)
    if dropout_mask is not None:
        weights = weights * dropout_mask
    if edge_mask is not None:
        weights = weights * (edge_mask.unsqueeze(-1) if edge_mask.dim() == 1 else edge_mask)
    out = group_sum(weights.unsqueeze(-1) * value_e, dst, graph.num_dst)
    if not return_weights and not return_lse:
        return out
    return (out, *([weights] if return_weights else []), *([lse] if return_lse else []))


def _check_inputs(
    score: str, node: dict[str, Tensor | None], edge: dict[str, Tensor | None]
) -> None:
    required = set(score_inputs(score))
    given = {name for name, tensor in (node | edge).items() if tensor is not None}
    # edge_feat is added to key, edge_term to src_term.
    optional = {e for e, n in (("edge_feat", "key"), ("edge_term", "src_term")) if n in required}
    unused = given - required - optional
    if required - given or unused:
        raise ValueError(
            f"score {score!r} expects {', '.join(sorted(required))}; missing: "
            f"{sorted(required - given)}, not used: {sorted(unused)}"
        )


def _gather(tensor: Any, index: Tensor) -> Any:
    return None if tensor is None else tensor[index]


def rank_by_score(scores: Tensor, dst: Tensor, num_dst: int) -> Tensor:
    """``[E, H]``: the rank of each edge's score in its destination and head, 0 for the largest.

    Equal scores rank by position. NaN ranks first, so that top-k does not hide it.
    """
    by_score = scores.sort(dim=0, descending=True, stable=True).indices
    row, by_row = dst[by_score].sort(dim=0, stable=True)
    degree = torch.bincount(dst, minlength=num_dst)
    row_start = (degree.cumsum(0) - degree)[row]
    rank = torch.arange(dst.shape[0], device=dst.device).unsqueeze(-1) - row_start
    return torch.empty_like(rank).scatter(0, by_score.gather(0, by_row), rank)


def gat_attention(
    graph: Graph,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    *,
    edge_term: Tensor | None = None,
    negative_slope: float = 0.2,
    **options: Any,
) -> Tensor | tuple[Tensor, ...]:
    """GAT, s_ij = leaky_relu(dst_term_i + src_term_j + edge_term_ij): Veličković 2018, eq. 3.

    ``options`` are bias, dropout_mask, top_k, edge_mask, return_weights, return_lse of
    :func:`edge_attention`.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> x, term = torch.tensor([[[1.0]], [[3.0]]]), torch.zeros(2, 1)
        >>> gat_attention(graph, x, term, term).flatten()
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
    graph: Graph,
    query: Tensor,
    key: Tensor,
    att: Tensor,
    *,
    value: Tensor | None = None,
    edge_feat: Tensor | None = None,
    negative_slope: float = 0.2,
    **options: Any,
) -> Tensor | tuple[Tensor, ...]:
    """GATv2, s_ij = att · leaky_relu(query_i + key_j + edge_feat_ij): Brody et al. 2022, eq. 7.

    ``value`` is ``key`` if None; ``options`` as for :func:`gat_attention`.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> x = torch.tensor([[[1.0]], [[3.0]]])
        >>> gatv2_attention(graph, x, x, torch.zeros(1, 1)).flatten()
        tensor([0., 2.])
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
    graph: Graph,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = None,
    edge_feat: Tensor | None = None,
    **options: Any,
) -> Tensor | tuple[Tensor, ...]:
    """QKV, s_ij = scale · ⟨query_i, key_j + edge_feat_ij⟩: Vaswani et al. 2017, eq. 1.

    ``scale`` is 1 / sqrt(D) if None; ``edge_feat`` is also added to value; ``options`` as for
    :func:`gat_attention`.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> x = torch.ones(2, 1, 4)
        >>> dot_attention(graph, x, x, x)[1]
        tensor([[1., 1., 1., 1.]])
    """
    return edge_attention(
        graph,
        value,
        score="dot",
        query=query,
        key=key,
        scale=max(query.shape[-1], 1) ** -0.5 if scale is None else scale,
        edge_feat=edge_feat,
        edge_in_value=edge_feat is not None,
        **options,
    )


def supergat_attention(
    graph: Graph,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dst_term: Tensor | None = None,
    src_term: Tensor | None = None,
    *,
    negative_slope: float = 0.2,
    **options: Any,
) -> Tensor | tuple[Tensor, ...]:
    """SuperGAT: MX if the terms are given, else SD: Kim, Oh 2021, eq. 3 to 5.

    SD is s_ij = leaky_relu(⟨query_i, key_j⟩ / sqrt(D)); ``options`` as for :func:`gat_attention`.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> x = torch.ones(2, 1, 4)
        >>> supergat_attention(graph, x, x, x)[1]
        tensor([[1., 1., 1., 1.]])
    """
    if dst_term is not None:
        given: dict[str, Any] = {
            "query": query,
            "key": key,
            "dst_term": dst_term,
            "src_term": src_term,
        }
        options |= {"negative_slope": negative_slope}
        return edge_attention(graph, value, score="supergat_mx", **given, **options)
    src, dst = graph.edge_index
    scaled = (query[dst] * key[src]).sum(-1) / query.shape[-1] ** 0.5
    same = torch.ones_like(query[..., :1]), torch.zeros_like(key[..., :1])
    bias = leaky_relu(scaled, negative_slope)
    return edge_attention(
        graph, value, score="dot", query=same[0], key=same[1], bias=bias, **options
    )


def cosine_attention(
    graph: Graph,
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    *,
    beta: float | Tensor = 1.0,
    eps: float = 1e-12,
    **options: Any,
) -> Tensor | tuple[Tensor, ...]:
    """AGNN, s_ij = beta · cos(query_i, key_j): Thekumparampil et al. 2018, eq. 5.

    ``key`` is ``query`` if None, ``value`` is ``key`` if None; ``beta`` is a number or a tensor
    ``[]`` or ``[H]``; a vector of norm up to ``eps`` is treated as zero; ``options`` as for
    :func:`gat_attention`.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> cosine_attention(graph, torch.tensor([[[1.0]], [[3.0]]])).flatten()
        tensor([0., 2.])
    """
    key = query if key is None else key
    return edge_attention(
        graph,
        key if value is None else value,
        score="cosine",
        query=query,
        key=key,
        dst_term=inverse_norm(query, eps) * beta,
        src_term=inverse_norm(key, eps),
        **options,
    )


def inverse_norm(x: Tensor, eps: float = 1e-12) -> Tensor:
    """``1 / |x|`` over the last dimension; 0, with gradient 0, if the norm is at most ``eps``.

    Example:
        >>> inverse_norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([0.2000, 0.0000])
    """
    nonzero = torch.linalg.vector_norm(x.detach(), dim=-1) > eps
    # Of ones where a norm is 0, whose second derivative is NaN.
    norm: Tensor = torch.linalg.vector_norm(torch.where(nonzero.unsqueeze(-1), x, 1), dim=-1)
    return torch.where(nonzero, norm.reciprocal(), 0)
