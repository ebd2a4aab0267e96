"""How widely nodes spread their attention, and where most of it goes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gat_ext.explain.record import LayerAttention, check_attention, sequence_of
from gat_ext.explain.rollout import mean_over_heads
from gat_ext.functional import checks, spmm


def attention_entropy(attention: LayerAttention, *, normalize: bool = False) -> Tensor:
    r"""Entropy of the attention of each node and head, in nats.

    .. math:: \eta_i = - \sum_{j \in N(i)} \alpha_{ij} \log \alpha_{ij}

    It ranges from 0 (all attention on one edge) to the log of the in-degree (uniform attention).

    Args:
        attention: the attention of a layer with H heads.
        normalize: divide by the log of the in-degree, including added self-loops; nodes of
            in-degree 0 and 1 get 0.

    Returns:
        [N_dst, H]; differentiable, with gradient 0 for weights that are 0. Weights after dropout or
        a mask are not a distribution; they are used unchanged.

    Raises:
        TypeError: attention is no LayerAttention.
        ValueError: the layer attended over a batch.

    Source: Ghader and Monz, "What does Attention in Neural Machine Translation Pay Attention to?",
    IJCNLP 2017.

    Example:
        >>> from gat_ext.explain import match_edges
        >>> edges = torch.tensor([[0, 1, 2, 0], [2, 2, 2, 1]])
        >>> alpha = torch.tensor([0.25, 0.25, 0.5, 1.0])
        >>> attention_entropy(match_edges((edges, alpha.unsqueeze(1)), edges)).flatten()
        tensor([0.0000, 0.0000, 1.0397])
    """
    check_attention(attention)
    checks.flag(normalize, "normalize")
    alpha = attention.alpha
    if alpha.dim() != 2:
        mean_over_heads(attention)  # raises
    positive = alpha > 0
    terms = -alpha * torch.where(positive, alpha, 1).log()
    graph = attention.graph()
    ones = alpha.new_ones(attention.num_src, alpha.shape[1], 1)
    entropy = spmm(graph, ones, torch.where(positive, terms, 0)).squeeze(-1)
    if normalize:
        degree = graph.in_degrees().unsqueeze(-1)
        entropy = torch.where(degree > 1, entropy / degree.clamp(min=2).log().to(alpha.dtype), 0)
    return entropy


class TopEdges(NamedTuple):
    """The edges that a node attends to most.

    Attributes:
        node: the node.
        edge_index: [2, K], sources and destinations.
        alpha: [K], their weights, averaged over heads.
        edge_id: [K], their positions among the layer's given edges, -1 for an added self-loop.
        hop: [K], 1 for edges into the node, 2 for edges into their sources, and so on.

    Example:
        >>> from gat_ext.explain import match_edges
        >>> edges = torch.tensor([[0, 1], [1, 1]])
        >>> attention = match_edges((edges, torch.tensor([[0.4], [0.6]])), edges)
        >>> top_edges(attention, node=1, k=1).edge_index
        tensor([[1],
                [1]])
    """

    node: int
    edge_index: Tensor
    alpha: Tensor
    edge_id: Tensor
    hop: Tensor


def top_edges(
    attention: LayerAttention | Sequence[LayerAttention], node: int, k: int = 10, *, hops: int = 1
) -> TopEdges:
    """The edges with the largest weights into a node, into the sources of these, and so on.

    Args:
        attention: the attention of a layer, or of the layers of a model from first to last; then
            the first hop is in the last layer, the second in the one before, and so on.
        node: a destination.
        k: number of edges into each node; of equal weights, the first ones.
        hops: number of hops; each hop finds edges into the sources of the previous one. A node is
            visited once.

    Returns:
        The edges by hop, larger weights first. Their weights are differentiable.

    Raises:
        TypeError: attention is neither a LayerAttention nor a sequence of them, or node is no
            integer.
        IndexError: the node does not exist.
        ValueError: k or hops is less than 1, there are fewer layers than hops, or a layer attended
            over a batch.

    Example:
        >>> from gat_ext.explain import match_edges
        >>> edges = torch.tensor([[0, 1, 2, 0], [2, 2, 2, 1]])
        >>> alpha = torch.tensor([0.2, 0.3, 0.5, 1.0])
        >>> found = top_edges(match_edges((edges, alpha.unsqueeze(1)), edges), 2, k=2, hops=2)
        >>> found.edge_index, found.hop
        (tensor([[2, 1, 0],
                [2, 2, 1]]), tensor([1, 1, 2]))
    """
    checks.positive_integer(k, "k")
    checks.positive_integer(hops, "hops")
    node = _number_of_node(node)
    layers = [attention] * hops if isinstance(attention, LayerAttention) else sequence_of(attention)
    if len(layers) < hops:
        raise ValueError(
            f"hops is {hops}; expected at most {len(layers)}, the number of layers in attention"
        )
    if not 0 <= node < layers[-1].num_dst:
        raise IndexError(
            f"node is {node}; expected 0 to {layers[-1].num_dst - 1}, because the last layer has "
            f"{layers[-1].num_dst} destinations"
        )
    seen = frontier = torch.tensor([node], device=layers[-1].edge_index.device)
    parts = []
    for hop, layer in enumerate(reversed(layers[-hops:]), start=1):
        weights = mean_over_heads(layer)
        chosen = _largest_into(frontier, layer.edge_index[1], weights.detach(), k)
        numbers = torch.full_like(chosen, hop)
        parts.append((layer.edge_index[:, chosen], weights[chosen], layer.edge_id[chosen], numbers))
        sources = layer.edge_index[0, chosen].unique()
        frontier = sources[~torch.isin(sources, seen)]
        seen = torch.cat([seen, frontier])
    edges, alpha, edge_id, hop_of = zip(*parts, strict=True)
    return TopEdges(node, torch.cat(edges, 1), *map(torch.cat, (alpha, edge_id, hop_of)))


def _number_of_node(node: Any) -> int:
    """The node as an int; raises TypeError unless it is an integer, of NumPy or a tensor too."""
    flag = isinstance(node, bool) or getattr(node, "dtype", None) in (bool, torch.bool)
    try:
        if not flag:
            return operator.index(node)
    except TypeError:
        pass
    raise TypeError(f"node is {node!r} of type {type(node).__name__}; expected an integer")


def _largest_into(nodes: Tensor, dst: Tensor, weights: Tensor, k: int) -> Tensor:
    """Positions of the k edges of largest weight into each of the nodes, by decreasing weight."""
    candidates = torch.isin(dst, nodes).nonzero().flatten()
    by_weight = candidates[weights[candidates].argsort(descending=True, stable=True)]
    row, order = dst[by_weight].sort(stable=True)
    _, counts = row.unique_consecutive(return_counts=True)
    start = (counts.cumsum(0) - counts).repeat_interleave(counts)
    rank = torch.empty_like(row)
    rank[order] = torch.arange(row.numel(), device=row.device) - start
    return by_weight[rank < k]
