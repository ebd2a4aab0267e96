"""Oracles of the walk operators, in plain Python and torch, for one agent at a time.

Functions take uniform numbers as arguments, so that walks can be compared exactly with the native
ones; :func:`uniform_numbers` returns the numbers that the native operators draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gat_ext.graph import Graph

__all__ = ["draw", "random_walk", "transition_probabilities", "uniform_numbers", "walk_step"]

_WORD = 2**32 - 1


def uniform_numbers(seed: int, num_agents: int, step: int) -> Tensor:
    """The uniform numbers in [0, 1) of agents 0 … num_agents - 1 at a step: float64 [num_agents].

    The upper 53 bits of the first two words of Philox4x32-10 with the key ``seed`` and the counter
    (agent, step).

    Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Example:
        >>> uniform_numbers(0, 1, 0)  # the words 6627e8d5 and e169c58d
        tensor([0.3990], dtype=torch.float64)
    """
    numbers = []
    for agent in range(num_agents):
        c = [agent & _WORD, agent >> 32, step & _WORD, step >> 32]
        k = [seed & _WORD, seed >> 32 & _WORD]
        for _ in range(10):
            p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [q >> 32 ^ c[1] ^ k[0], q & _WORD, p >> 32 ^ c[3] ^ k[1], p & _WORD]
            k = [k[0] + 0x9E3779B9 & _WORD, k[1] + 0xBB67AE85 & _WORD]
        numbers.append(((c[0] << 32 | c[1]) >> 11) * 2.0**-53)
    return torch.tensor(numbers, dtype=torch.float64)


def draw(weights: Sequence[float], uniform: float) -> int | None:
    """Position of the first weight at which the running sum exceeds uniform · total.

    Sums are in float64, from the first weight to the last. None if no weight is above 0, or if a
    weight is negative or not finite.

    Example:
        >>> draw([1.0, 0.0, 3.0], 0.2), draw([1.0, 0.0, 3.0], 0.25), draw([0.0], 0.5)
        (0, 2, None)
    """
    total = 0.0
    for weight in weights:
        if not weight >= 0:
            return None
        total += weight
    if not 0 < total < float("inf"):
        return None
    running = 0.0
    for place, weight in enumerate(weights):
        running += weight
        if running > uniform * total or running == total:
            return place
    raise AssertionError("the running sum ends at the total")


def transition_probabilities(graph: Graph, node: int, rank: Tensor, node_type: Tensor) -> Tensor:
    """p_j of the edges into ``node`` in CSR order, [degree]: normalised rank[type(j)].

    Uniform if all ranks are 0.

    Args:
        graph: the graph.
        node: the agent's node.
        rank: [R], one row of a softmax over the node types.
        node_type: int64 [N].

    Example:
        >>> path = Graph(torch.tensor([[0, 2], [1, 1]]))
        >>> transition_probabilities(path, 1, torch.tensor([0.2, 0.6]), torch.tensor([0, 0, 1]))
        tensor([0.2500, 0.7500])
    """
    begin, end = graph.rowptr[node : node + 2].tolist()
    weights = rank[node_type[graph.col[begin:end].long()]]
    total = weights.sum()
    if total == 0:
        return torch.full_like(weights, 1 / max(end - begin, 1))
    return weights / total


def walk_step(
    graph: Graph,
    current: Tensor,
    rank: Tensor,
    node_type: Tensor,
    uniform: Tensor,
    *,
    mode: str = "sample",
) -> tuple[Tensor, Tensor]:
    """As :func:`gat_ext.functional.walk_step`, with uniform numbers, float64 [B], for the seed.

    Example:
        >>> path = Graph(torch.tensor([[0, 2], [1, 1]]))
        >>> agents, rank = torch.tensor([1]), torch.tensor([[0.2, 0.6]])
        >>> types = torch.tensor([0, 0, 1])
        >>> walk_step(path, agents, rank, types, torch.tensor([0.2]))
        (tensor([0]), tensor([-1.3863]))
    """
    moves, log_probs = [], []
    for agent, node in enumerate(current.tolist()):
        begin, end = graph.rowptr[node : node + 2].tolist()
        neighbours = graph.col[begin:end].long()
        weights = rank[agent, node_type[neighbours]]
        values = weights.detach().double().tolist()
        total = sum(values)
        if not values:
            moves.append(node)
            log_probs.append(rank.new_zeros(()))
        elif not all(value >= 0 for value in values) or total == float("inf"):
            moves.append(node)
            log_probs.append(weights.sum() * torch.nan)
        else:
            if total == 0:
                values = [1.0] * len(values)
            place = values.index(max(values)) if mode == "greedy" else None
            place = draw(values, float(uniform[agent])) if place is None else place
            assert place is not None
            moves.append(int(neighbours[place]))
            p = transition_probabilities(graph, node, rank[agent], node_type)
            log_probs.append(p[place].log())
    if not moves:
        return current.clone(), rank.sum(dim=1)
    return torch.tensor(moves, device=current.device), torch.stack(log_probs)


def random_walk(
    graph: Graph, start: Tensor, uniforms: Tensor, *, weight: Tensor | None = None
) -> Tensor:
    """As :func:`gat_ext.functional.random_walk`, with uniform numbers [B, length] for the seed.

    Example:
        >>> ring = Graph(torch.tensor([[1, 2, 0], [0, 1, 2]]))
        >>> random_walk(ring, torch.tensor([0, 2]), torch.zeros(2, 3))
        tensor([[0, 1, 2, 0],
                [2, 0, 1, 2]])
    """
    per_edge = torch.ones(graph.num_edges) if weight is None else weight.detach()
    per_edge = per_edge.double().cpu()
    if weight is not None and graph.edge_id is not None:
        per_edge = per_edge[graph.edge_id.long().cpu()]
    rowptr, col = graph.rowptr.tolist(), graph.col.tolist()
    walks = []
    for node, numbers in zip(start.tolist(), uniforms.tolist(), strict=True):
        walk = [node]
        for number in numbers:
            begin, end = rowptr[walk[-1]], rowptr[walk[-1] + 1]
            place = draw(per_edge[begin:end].tolist(), number)
            walk.append(walk[-1] if place is None else col[begin + place])
        walks.append(walk)
    shape = (start.shape[0], uniforms.shape[1] + 1)
    return torch.tensor(walks, dtype=torch.int64, device=start.device).view(shape)
