"""Attention rollout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from gat_ext.explain.record import LayerAttention, sequence_of
from gat_ext.functional import spmm
from gat_ext.functional.checks import probability


def attention_rollout(
    attention: Sequence[LayerAttention],
    nodes: int | Sequence[int] | Tensor,
    *,
    residual: float = 0.5,
) -> Tensor:
    r"""How much each input node contributes to given output nodes, through all layers' attention.

    .. math::
        R = A_L \cdots A_2 A_1, \qquad
        A_l = \mathrm{rows}\left(r I + (1 - r) \, \mathrm{mean}_h \, \alpha^{(l, h)}\right)

    where rows() divides each row by its sum. Only the requested rows of R are computed, from the
    last layer to the first, by sparse products: K nodes cost O(K (E + N)) in each layer, and no
    N x N matrix is allocated unless all nodes are requested.

    Args:
        attention: the attention of the layers from first to last, as in :func:`record_attention`,
            with H heads each.
        nodes: a node, or K nodes, of the last layer's destinations.
        residual: r, the share of a node that bypasses the attention: 0.5 for a residual connection,
            0 for none.

    Returns:
        [N] for a node, [K, N] for K nodes, where N is the number of sources of the first layer.
        Each row sums to 1, except without residual, if paths end at nodes without in-edges.
        Differentiable in the weights, which should not be negative.

    Raises:
        TypeError: nodes are not integers, or attention is no sequence of LayerAttention.
        ValueError: there is no layer, a layer's sources are not the destinations of the one before,
            or a layer attended over a batch.
        IndexError: a node is not one of the last layer's destinations.

    In a bipartite layer, as in mini-batches of sampled neighbours, the first destinations are
    treated as the same nodes as the first sources, as the layers do for self-loops.

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, section 3.

    Example:
        >>> from gat_ext.explain import record_attention
        >>> from gat_ext.models import GAT
        >>> model, edges = GAT(4, 8, 2).eval(), torch.tensor([[0, 1, 2], [1, 2, 3]])
        >>> with record_attention(model) as attention, torch.no_grad():
        ...     out = model(torch.randn(4, 4), edges)
        >>> relevance = attention_rollout(attention, 3)
        >>> # node 0 is three steps away, and two layers reach two
        >>> bool(relevance[0] == 0), round(relevance.sum().item(), 4)
        (True, 1.0)
    """
    probability(residual, "residual")
    attention = sequence_of(attention)
    if not attention:
        raise ValueError("attention is empty; expected the attention of at least one layer")
    for before, after in pairwise(attention):
        if before.num_dst != after.num_src:
            raise ValueError(
                f"layer {after.name!r} has {after.num_src} source nodes, but the layer before it, "
                f"{before.name!r}, has {before.num_dst} destination nodes; expected layers in the "
                "order in which they run"
            )
    last = attention[-1]
    index = _node_index(nodes, last.num_dst, last.alpha.device)
    relevance = torch.zeros(
        last.num_dst, index.numel(), dtype=last.alpha.dtype, device=last.alpha.device
    )
    relevance[index, torch.arange(index.numel(), device=index.device)] = 1
    for layer in reversed(attention):
        relevance = _through(layer, relevance, residual)
    return relevance[:, 0] if index.dim() == 0 else relevance.t()


def _node_index(nodes: int | Sequence[int] | Tensor, count: int, device: torch.device) -> Tensor:
    try:
        index = torch.as_tensor(nodes, device=device)
    except (RuntimeError, TypeError, ValueError) as error:  # what torch raises for other types
        raise TypeError(
            f"nodes is {nodes!r} of type {type(nodes).__name__}; expected a node, or a list or a "
            "tensor [K] of nodes"
        ) from error
    if index.numel() == 0:
        index = index.long()
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise TypeError(f"nodes have dtype {index.dtype}; expected integers")
    if index.dim() > 1:
        raise ValueError(f"nodes have shape {list(index.shape)}; expected a node or a list [K]")
    wrong = (index < 0) | (index >= count)
    if bool(wrong.any()):
        raise IndexError(
            f"nodes have the number {int(index[wrong][0])}; expected 0 to {count - 1}, because the "
            f"last layer has {count} destinations"
        )
    return index.long()


def _through(layer: LayerAttention, relevance: Tensor, residual: float) -> Tensor:
    """Aᵀ · relevance, [N_src, K], for a layer's A and the relevance [N_dst, K] of destinations."""
    weights = mean_over_heads(layer)
    graph = layer.graph()
    shared = min(layer.num_src, layer.num_dst)
    own = weights.new_zeros(layer.num_dst)
    own[:shared] = residual
    total = own + (1 - residual) * spmm(graph, weights.new_ones(layer.num_src, 1), weights)[:, 0]
    relevance = relevance / torch.where(total == 0, 1, total).unsqueeze(-1)
    out = (1 - residual) * spmm(graph.reverse(), relevance, weights)
    return out.index_add(0, torch.arange(shared, device=out.device), residual * relevance[:shared])


def mean_over_heads(layer: LayerAttention) -> Tensor:
    """The mean over heads [E'] of alpha [E', H]."""
    if layer.alpha.dim() != 2:
        raise ValueError(
            f"alpha of layer {layer.name!r} has shape {list(layer.alpha.shape)}; expected [E, H]: "
            "select one element of the batch with layer._replace(alpha=layer.alpha[:, b])"
        )
    return layer.alpha.mean(1)
