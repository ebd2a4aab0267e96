"""The unfused operators in plain torch, and the dropout mask in NumPy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gat_ext.graph import Graph


def edge_softmax(graph: Graph, scores: Tensor, *, by: str = "dst") -> Tensor:
    r"""Softmax over the edges that share a destination, or a source.

    .. math:: \alpha_{ij} = \exp(s_{ij}) / \sum_{k \in N(i)} \exp(s_{ik})

    Args:
        graph: the graph.
        scores: ``[E, H]`` or ``[E]``.
        by: ``"dst"`` or ``"src"``.

    Returns:
        alpha, with the shape of ``scores``; 0 for a group whose scores are all -inf.

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
    return group_softmax(scores, group, num_groups)[0]


def group_softmax(scores: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """(alpha ``[E, …]``, lse ``[num_groups, …]``) of scores ``[E, …]``."""
    largest = _group_extremum(scores.detach(), group, num_groups, "amax")
    shift = torch.where(largest == -torch.inf, 0, largest)
    exponential = (scores - shift[group]).exp()
    total = group_sum(exponential, group, num_groups)
    empty = total == 0
    total = torch.where(empty, 1, total)
    return exponential / total[group], torch.where(empty, -torch.inf, shift + total.log())


def group_sum(values: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """``[num_groups, …]``, the sum of each group of values ``[E, …]``; 0 for an empty one."""
    return values.new_zeros((num_groups, *values.shape[1:])).index_add(0, group, values)


def _group_extremum(values: Tensor, group: Tensor, num_groups: int, reduce: str) -> Tensor:
    """The largest ("amax") or smallest ("amin") of each group; -inf or inf for an empty one."""
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
        ``[E, H]``, or ``[E]`` if x and y have no head dimension.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
        >>> sddmm(graph, torch.eye(2), torch.ones(2, 2))
        tensor([1., 1.])
    """
    src, dst = graph.edge_index
    return (x[dst] * y[src]).sum(-1)


def edge_dot(graph: Graph, query: Tensor, edge_attr: Tensor) -> Tensor:
    r"""Dot products of every edge's features with each head of its destination.

    .. math:: s_{ij}^h = \langle q_i^h, e_{ij} \rangle

    Args:
        graph: the graph.
        query: ``[N_dst, H, K]``.
        edge_attr: ``[E, K]``.

    Returns:
        ``[E, H]``.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
        >>> edge_dot(graph, torch.ones(2, 1, 2), torch.eye(2))
        tensor([[1.],
                [1.]])
    """
    return torch.einsum("ehk,ek->eh", query[graph.edge_index[1]], edge_attr)


def edge_sum(graph: Graph, weight: Tensor, edge_attr: Tensor) -> Tensor:
    r"""Weighted sums of the features of every destination's in-edges, for each head.

    .. math:: r_i^h = \sum_{j \in N(i)} w_{ij}^h \, e_{ij}

    Args:
        graph: the graph.
        weight: ``[E, H]``.
        edge_attr: ``[E, K]``.

    Returns:
        ``[N_dst, H, K]``.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [0, 0]]))
        >>> edge_sum(graph, torch.ones(2, 1), torch.eye(2))[0]
        tensor([[1., 1.]])
    """
    return group_sum(
        torch.einsum("eh,ek->ehk", weight, edge_attr), graph.edge_index[1], graph.num_dst
    )


def spmm(graph: Graph, x: Tensor, weight: Tensor | None = None, *, reduce: str = "sum") -> Tensor:
    r"""Sparse-dense matrix product: a reduction over the sources of every destination.

    .. math:: \mathrm{out}_i = \mathrm{reduce}_{j \in N(i)} \; w_{ij} \, x_j

    Args:
        graph: the graph.
        x: ``[N_src, H, F]``, or ``[N_src, F]``.
        weight: ``[E, H]``, or ``[E]``; None means 1.
        reduce: ``"sum"``, ``"mean"``, ``"max"`` or ``"min"``; the gradient of an extremum goes to
            the first edge that has it.

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
        messages = messages * (weight.unsqueeze(-1) if weight.dim() == 2 else weight[:, None, None])
    if reduce == "sum":
        return group_sum(messages, dst, graph.num_dst)
    if reduce == "mean":
        degree = graph.in_degrees().clamp(min=1).to(messages.dtype)
        return group_sum(messages, dst, graph.num_dst) / degree.reshape(-1, 1, 1)
    if reduce in ("max", "min"):
        return _gather_extremum(messages, dst, graph.num_dst, "a" + reduce)
    raise ValueError(f"reduce is {reduce!r}; expected 'sum', 'mean', 'max' or 'min'")


def _gather_extremum(messages: Tensor, dst: Tensor, num_dst: int, reduce: str) -> Tensor:
    """The extremum of each destination and feature, from the first edge that has it; NaN wins."""
    extremum = _group_extremum(messages.detach(), dst, num_dst, reduce)[dst]
    hit = (messages == extremum) | (messages.isnan() & extremum.isnan())
    num_edges = messages.shape[0]
    edge = torch.arange(num_edges, device=dst.device).reshape(-1, 1, 1)
    candidates = torch.where(hit, edge, num_edges)
    first = torch.full((num_dst, *messages.shape[1:]), num_edges, device=dst.device)
    first = first.scatter_reduce(0, dst.reshape(-1, 1, 1).expand_as(candidates), candidates, "amin")
    nothing = messages.new_zeros((1, *messages.shape[1:]))
    return torch.cat([messages, nothing]).gather(0, first)


def dropout_mask(
    seed: Tensor, num_edges: int, num_heads: int, dropout_p: float, dtype: torch.dtype
) -> Tensor:
    """The factors of inverted dropout for all edges and heads.

    Edge e (in the caller's order) and head h draw the 32-bit word h mod 4 of
    Philox4x32-10(key = seed, counter = (e, h // 4)); words below dropout_p · 2^32 drop the weight.

    Args:
        seed: int64 tensor of one element.
        num_edges: E.
        num_heads: H.
        dropout_p: probability of 0; other factors are 1 / (1 - dropout_p).
        dtype: dtype of the result.

    Returns:
        ``[E, H]`` on the device of ``seed``.

    Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Example:
        >>> dropout_mask(torch.tensor([7]), 2, 3, 0.5, torch.float32)
        tensor([[2., 2., 0.],
                [0., 2., 0.]])
    """
    groups = -(-num_heads // 4)
    counter = np.zeros((4, num_edges, groups), dtype=np.uint64)
    edge, group = np.arange(num_edges, dtype=np.uint64), np.arange(groups, dtype=np.uint64)
    counter[0], counter[1] = (edge & _LOW)[:, None], (edge >> _HALF)[:, None]
    counter[2], counter[3] = group & _LOW, group >> _HALF
    words = np.stack(philox(counter, int(seed.item()) % 2**64), axis=-1)
    kept = words.reshape(num_edges, 4 * groups)[:, :num_heads] >= np.uint64(dropout_p * 2**32)
    scale = 1 / (1 - dropout_p) if dropout_p < 1 else 0.0
    return torch.from_numpy(kept).to(seed.device, dtype) * scale


_LOW, _HALF = np.uint64(2**32 - 1), np.uint64(32)


def philox(counter: np.ndarray, key: int) -> list[np.ndarray]:
    """Four 32-bit words, in uint64 arrays, from a counter of four words and a 64-bit key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key % 2**32, key >> 32
    for _ in range(10):
        product_0, product_1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (product_1 >> _HALF) ^ c1 ^ np.uint64(k0),
            product_1 & _LOW,
            (product_0 >> _HALF) ^ c3 ^ np.uint64(k1),
            product_0 & _LOW,
        )
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]
