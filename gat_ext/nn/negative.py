"""Negative sampling: random pairs of nodes that are not edges."""

from __future__ import annotations

import torch
from torch import Tensor


def negative_edges(
    edge_index: Tensor, num_nodes: int, count: int, graphs: Tensor | None = None
) -> Tensor:
    """Draws pairs of nodes without an edge in either direction, uniformly, without replacement.

    Args:
        edge_index: int64 [2, E].
        num_nodes: N.
        count: number of pairs in each graph; all of them if there are fewer.
        graphs: [N], the graph of each node: both nodes of a pair are in the same one. None: one.

    Returns:
        int64 [2, E'].

    Cost: sorts the edges; allocates nothing of the size of N².

    Example:
        >>> edges = torch.tensor([[0, 0, 1], [0, 1, 1]])
        >>> negative_edges(edges, 3, 9).tolist()
        [[2, 2, 0, 1, 2], [0, 1, 2, 2, 2]]
    """
    src, dst = edge_index
    if graphs is None:
        return _of_block(src, dst, num_nodes, count)
    parts = []
    for number in graphs.unique():
        nodes = (graphs == number).nonzero().flatten()
        inside = (graphs[src] == number) & (graphs[dst] == number)
        local = torch.searchsorted(nodes, edge_index[:, inside])
        parts.append(nodes[_of_block(local[0], local[1], nodes.numel(), count)])
    return torch.cat(parts, dim=1) if parts else edge_index.new_empty(2, 0)


def _of_block(src: Tensor, dst: Tensor, num_nodes: int, count: int) -> Tensor:
    """Pairs of the nodes 0 to num_nodes - 1.

    A pair has the code dst · N + src. The pair of rank r among those that are not edges has the
    code r plus the number of smaller codes of edges, which a binary search finds.
    """
    taken = torch.cat([dst * num_nodes + src, src * num_nodes + dst]).unique()
    ranks = _distinct(num_nodes * num_nodes - taken.numel(), count, src.device)
    free_before = taken - torch.arange(taken.numel(), device=src.device)
    codes = ranks + torch.searchsorted(free_before, ranks, right=True)
    width = max(num_nodes, 1)
    return torch.stack([codes % width, codes // width])


def _distinct(population: int, count: int, device: torch.device) -> Tensor:
    """``count`` different numbers below ``population`` in random order; all if there are fewer."""
    if count >= population:
        return torch.arange(population, device=device)
    if population <= 4 * count:
        return torch.randperm(population, device=device)[:count]
    drawn = torch.empty(0, dtype=torch.int64, device=device)
    while drawn.numel() < count:  # at least half of the new numbers are new to the set
        more = torch.randint(population, (2 * (count - drawn.numel()),), device=device)
        drawn = torch.cat([drawn, more]).unique()
    return drawn[torch.randperm(drawn.numel(), device=device)[:count]]
