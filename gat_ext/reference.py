"""The oracle: what the native operators compute, in plain torch.

Two ways to the same numbers, both of any floating-point dtype, on any device, and differentiable to any order:

- edge lists: :func:`edge_softmax`, :func:`sddmm`, :func:`spmm`, :func:`edge_attention` and its four named forms take the
  arguments of their namesakes in ``gat_ext.functional`` and gather a row for every edge. Clear, and wasteful: tensors of E·H·F
  elements are made freely;
- dense matrices: the ``dense_*`` functions of ``gat_ext.reference_dense``, re-exported here, work on [N_dst, N_src] masks.

A destination without in-edges, or whose scores are all -inf, gets output 0, weights 0, lse -inf, and sends back gradients 0.
Everything is computed in the dtype of the inputs: use float64 for a truth to compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from gat_ext.graph import Graph

__all__ = [
    "SCORES",
    "cosine_attention",
    "dot_attention",
    "edge_attention",
    "edge_softmax",
    "gat_attention",
    "gatv2_attention",
    "inverse_norm",
    "sddmm",
    "spmm",
]

# ---- scores: formula(query_e, key_e, att, dst_e, src_e, slope, scale) -> [E, H]
# query_e, key_e [E, H, D]; att [H, D]; dst_e, src_e [E, H]; what a score does not use is None.

Formula = Callable[..., Tensor]


def _additive(q: Any, k: Any, att: Any, dst: Tensor, src: Tensor, slope: float, scale: float) -> Tensor:
    return leaky_relu(dst + src, slope)


def _additive_v2(q: Tensor, k: Tensor, att: Tensor, dst: Any, src: Any, slope: float, scale: float) -> Tensor:
    return (att * leaky_relu(q + k, slope)).sum(-1)


def _dot(q: Tensor, k: Tensor, att: Any, dst: Any, src: Any, slope: float, scale: float) -> Tensor:
    return scale * (q * k).sum(-1)


def _cosine(q: Tensor, k: Tensor, att: Any, dst: Tensor, src: Tensor, slope: float, scale: float) -> Tensor:
    return scale * (q * k).sum(-1) * dst * src


SCORES: dict[str, Formula] = {
    "additive": _additive,
    "additive_v2": _additive_v2,
    "dot": _dot,
    "cosine": _cosine,
}
_REQUIRED = {
    "additive": {"dst_term", "src_term"},
    "additive_v2": {"query", "key", "att"},
    "dot": {"query", "key"},
    "cosine": {"query", "key", "dst_term", "src_term"},
}
_OPTIONAL = {"additive": {"edge_term"}}


# ---- the unfused operators


def edge_softmax(graph: Graph, scores: Tensor, *, by: str = "dst") -> Tensor:
    r"""Softmax over the edges that share a destination, or a source.

    .. math:: \alpha_{ij} = \exp(s_{ij}) / \sum_{k \in N(i)} \exp(s_{ik})

    Args:
        graph: the graph.
        scores: ``[E, H]`` or ``[E]``.
        by: ``"dst"`` or ``"src"``.

    Returns:
        alpha, of the shape of ``scores``; 0 in a group whose scores are all -inf.

    Raises:
        ValueError: ``by`` is neither "dst" nor "src".

    Example:
        >>> graph = Graph(torch.tensor([[0, 1, 2], [2, 2, 0]]))
        >>> edge_softmax(graph, torch.zeros(3))
        tensor([0.5000, 0.5000, 1.0000])
    """
    if by not in ("dst", "src"):
        raise ValueError(f"by is {by!r}; expected 'dst' or 'src'")
    src, dst = graph.edge_index
    group, num_groups = (dst, graph.num_dst) if by == "dst" else (src, graph.num_src)
    return _softmax(scores, group, num_groups)[0]


def _softmax(scores: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """(alpha ``[E, …]``, lse ``[num_groups, …]``) of scores ``[E, …]``."""
    largest = _group_extremum(scores.detach(), group, num_groups, "amax")
    shift = torch.where(largest == -torch.inf, 0, largest)
    exponential = (scores - shift[group]).exp()
    total = _group_sum(exponential, group, num_groups)
    empty = total == 0
    total = torch.where(empty, 1, total)
    return exponential / total[group], torch.where(empty, -torch.inf, shift + total.log())


def _group_sum(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return values.new_zeros((num_groups, *values.shape[1:])).index_add(0, group, values)


def _group_extremum(values: Tensor, group: Tensor, num_groups: int, reduce: str) -> Tensor:
    """The largest ("amax") or smallest ("amin") value of each group; -inf or inf for an empty one."""
    neutral = -torch.inf if reduce == "amax" else torch.inf
    out = values.new_full((num_groups, *values.shape[1:]), neutral)
    index = group.reshape(-1, *[1] * (values.dim() - 1)).expand_as(values)
    return out.scatter_reduce(0, index, values, reduce)


def sddmm(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    r"""Sampled dense-dense matrix product: a dot product for every edge and head.

    .. math:: s_{ij} = \langle x_i, y_j \rangle

    Args:
        graph: the graph.
        x: ``[N_dst, H, F]``, or ``[N_dst, F]``.
        y: ``[N_src, H, F]``, or ``[N_src, F]``.

    Returns:
        ``[E, H]``, or ``[E]`` where x and y have no head dimension.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
        >>> sddmm(graph, torch.eye(2), torch.ones(2, 2))
        tensor([1., 1.])
    """
    src, dst = graph.edge_index
    return (x[dst] * y[src]).sum(-1)


def spmm(graph: Graph, x: Tensor, weight: Tensor | None = None, *, reduce: str = "sum") -> Tensor:
    r"""Sparse-dense matrix product: what every destination gathers from its sources.

    .. math:: \mathrm{out}_i = \mathrm{reduce}_{j \in N(i)} \; w_{ij} \, x_j

    Args:
        graph: the graph.
        x: ``[N_src, H, F]``, or ``[N_src, F]``.
        weight: ``[E, H]``, or ``[E]``, or None for 1.
        reduce: ``"sum"``, ``"mean"``, ``"max"`` or ``"min"``; the gradient of an extremum goes to the first edge that has it.

    Returns:
        ``[N_dst, H, F]``, or ``[N_dst, F]``; 0 for a destination without in-edges.

    Raises:
        ValueError: ``reduce`` is unknown.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1, 2], [2, 2, 0]]))
        >>> spmm(graph, torch.tensor([[1.0], [3.0], [5.0]]), reduce="mean").flatten()
        tensor([5., 0., 2.])
    """
    if x.dim() == 2:
        return spmm(graph, x.unsqueeze(1), weight, reduce=reduce).squeeze(1)
    src, dst = graph.edge_index
    messages = x[src]
    if weight is not None:
        messages = messages * weight.reshape(weight.shape[0], -1, 1)
    if reduce == "sum":
        return _group_sum(messages, dst, graph.num_dst)
    if reduce == "mean":
        degree = graph.in_degrees().clamp(min=1).to(messages.dtype)
        return _group_sum(messages, dst, graph.num_dst) / degree.reshape(-1, 1, 1)
    if reduce in ("max", "min"):
        return _gather_extremum(messages, dst, graph.num_dst, "a" + reduce)
    raise ValueError(f"reduce is {reduce!r}; expected 'sum', 'mean', 'max' or 'min'")


def _gather_extremum(messages: Tensor, dst: Tensor, num_dst: int, reduce: str) -> Tensor:
    """Of each destination and feature the message of the first edge that has the extremum; NaN counts as one."""
    extremum = _group_extremum(messages.detach(), dst, num_dst, reduce)[dst]
    hit = (messages == extremum) | (messages.isnan() & extremum.isnan())
    num_edges = messages.shape[0]
    edge = torch.arange(num_edges, device=dst.device).reshape(-1, 1, 1)
    candidates = torch.where(hit, edge, num_edges)
    first = torch.full((num_dst, *messages.shape[1:]), num_edges, device=dst.device)
    first = first.scatter_reduce(0, dst.reshape(-1, 1, 1).expand_as(candidates), candidates, "amin")
    nothing = messages.new_zeros((1, *messages.shape[1:]))
    return torch.cat([messages, nothing]).gather(0, first)


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
    edge_in_value: bool = False,
    negative_slope: float = 0.2,
    scale: float = 1.0,
    dropout_mask: Tensor | None = None,
    top_k: int | None = None,
    return_weights: bool = False,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    r"""Attention over the in-edges of every destination, edge by edge.

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
        edge_term: ``[E, H]``, adds to src_term inside the leaky_relu; score "additive" only.
        bias: ``[E, H]``, adds to the finished score.
        edge_feat: ``[E, H, D]``, adds to key.
        edge_in_value: also add edge_feat to value.
        negative_slope: of leaky_relu.
        scale: factor of the scores "dot" and "cosine".
        dropout_mask: m, ``[E, H]``, by which weights are multiplied: 0 or 1 / (1 - p).
        top_k: softmax over the top_k largest scores of each destination and head only; of equal scores the earlier edge.
        return_weights: also return alpha · m, ``[E, H]``.
        return_lse: also return lse, ``[N_dst, H]``.

    Returns:
        out ``[N_dst, H, F]``; or a tuple of out, then weights if asked, then lse if asked.

    Raises:
        ValueError: unknown score, or an argument that it lacks or does not use.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> x = torch.tensor([[[0.0]], [[2.0]]])
        >>> out, lse = edge_attention(graph, x, score="dot", query=x, key=x, top_k=1, return_lse=True)
        >>> out.flatten(), lse.flatten()
        (tensor([0., 2.]), tensor([-inf, 4.]))
    """
    node = {"query": query, "key": key, "att": att, "dst_term": dst_term, "src_term": src_term}
    _check_inputs(score, node | {"edge_term": edge_term, "edge_feat": edge_feat})
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
        scores = scores + bias
    if top_k is not None:
        kept = _rank(scores.detach(), dst, graph.num_dst) < top_k
        scores = torch.where(kept, scores, -torch.inf)
    weights, lse = _softmax(scores, dst, graph.num_dst)
    if dropout_mask is not None:
        weights = weights * dropout_mask
    out = _group_sum(weights.unsqueeze(-1) * value_e, dst, graph.num_dst)
    if not return_weights and not return_lse:
        return out
    return (out, *([weights] if return_weights else []), *([lse] if return_lse else []))


def _gather(tensor: Any, index: Tensor) -> Any:
    return None if tensor is None else tensor[index]


def _check_inputs(score: str, inputs: dict[str, Tensor | None]) -> None:
    if score not in SCORES:
        raise ValueError(f"score is {score!r}; expected one of {', '.join(map(repr, SCORES))}")
    given = {name for name, tensor in inputs.items() if tensor is not None}
    missing = _REQUIRED[score] - given
    unused = given - _REQUIRED[score] - _OPTIONAL.get(score, {"edge_feat"})
    if missing or unused:
        raise ValueError(
            f"score {score!r} reads {', '.join(sorted(_REQUIRED[score]))}: "
            + "; ".join([f"{name} is missing" for name in sorted(missing)] + [f"leave out {name}" for name in sorted(unused)])
        )


def _rank(scores: Tensor, dst: Tensor, num_dst: int) -> Tensor:
    """``[E, H]``: how many edges of the same destination and head come before each, by falling score, then by position.

    NaN counts as larger than everything, so that top-k does not hide it.
    """
    by_score = scores.sort(dim=0, descending=True, stable=True).indices
    by_row = dst[by_score].sort(dim=0, stable=True)
    first = torch.searchsorted(by_row.values.t().contiguous(), torch.arange(num_dst, device=dst.device).expand(scores.shape[1], -1).contiguous()).t()
    position = torch.arange(scores.shape[0], device=dst.device).unsqueeze(-1)
    rank = position - first.gather(0, by_row.values)
    return torch.empty_like(rank).scatter(0, by_score.gather(0, by_row.indices), rank)


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
    """GAT's attention, s_ij = leaky_relu(dst_term_i + src_term_j + edge_term_ij): Veličković et al. 2018, eq. 3.

    ``options`` are bias, dropout_mask, top_k, return_weights and return_lse of :func:`edge_attention`.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> gat_attention(graph, torch.tensor([[[1.0]], [[3.0]]]), torch.zeros(2, 1), torch.zeros(2, 1)).flatten()
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
    """GATv2's attention, s_ij = att · leaky_relu(query_i + key_j + edge_feat_ij): Brody et al. 2022, eq. 7.

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
    """Scaled dot-product attention, s_ij = scale · ⟨query_i, key_j + edge_feat_ij⟩: Vaswani et al. 2017, eq. 1.

    ``scale`` is 1 / sqrt(D) if None; ``edge_feat`` adds to value too; ``options`` as for :func:`gat_attention`.

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
    """AGNN's attention, s_ij = beta · cos(query_i, key_j): Thekumparampil et al. 2018, eq. 5.

    ``key`` is ``query`` if None, ``value`` is ``key`` if None; ``beta`` is a number or a tensor ``[]`` or ``[H]``; norms
    below ``eps`` count as eps; ``options`` as for :func:`gat_attention`.

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
    """1 / max(|x|, eps) over the last dimension; the gradient at the zero vector is 0."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norm.clamp(min=max(eps, torch.finfo(x.dtype).tiny)).reciprocal()
