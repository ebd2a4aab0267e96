"""Negative seeds of a link loader: random pairs of nodes that are not edges."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from gat_ext.graph import Graph
from gat_ext.sampling import checks
from gat_ext.sampling.storage import MappedGraph

MODES = ("binary", "triplet")
_ROUNDS = 10  # of draws, before a pair that is an edge is kept


class NegativeSampling(NamedTuple):
    """How many negatives there are for each positive.

    Attributes:
        mode: "binary": pairs of nodes; "triplet": destinations for the source of each positive.
        amount: their number, relative to that of the positives; an integer for triplets.
    """

    mode: str
    amount: float

    def count(self, positives: int) -> int:
        """The number of negatives of a batch."""
        return math.ceil(positives * self.amount)


def negative_sampling(given: Any, ratio: float | None) -> NegativeSampling | None:
    """The setting of the arguments ``neg_sampling`` and ``neg_sampling_ratio`` of a loader.

    Raises:
        TypeError: ``given`` is none of the forms of the loader.
        ValueError: both are given, the mode is unknown, or the amount is not positive and finite.
    """
    if ratio is not None and ratio != 0:
        if given is not None:
            raise ValueError(
                "neg_sampling and neg_sampling_ratio were both given; expected one of them"
            )
        given = {"mode": "binary", "amount": ratio}
    if given is None:
        return None
    if isinstance(given, str):
        given = {"mode": given}
    if isinstance(given, dict):
        unknown = sorted(set(given) - {"mode", "amount"})
        if unknown or "mode" not in given:
            raise ValueError(f"neg_sampling is {given}; expected the keys 'mode' and 'amount'")
        mode, amount = given["mode"], given.get("amount", 1)
    elif hasattr(given, "mode") and hasattr(given, "amount"):  # PyG's
        weighted = [n for n in ("src_weight", "dst_weight") if getattr(given, n, None) is not None]
        if weighted:
            raise ValueError(f"neg_sampling has {weighted[0]}; expected uniform negatives")
        mode, amount = getattr(given.mode, "value", given.mode), given.amount
    else:
        raise TypeError(
            f"neg_sampling is a {type(given).__name__}; expected 'binary', 'triplet', or a "
            "dictionary with 'mode' and 'amount'"
        )
    checks.choice(mode, MODES, "the mode of neg_sampling")
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise TypeError(f"the amount of neg_sampling is {amount!r}; expected a number")
    if not 0 < amount < math.inf or (mode == "triplet" and amount != int(amount)):
        kind = "an integer above 0" if mode == "triplet" else "a number above 0"
        raise ValueError(f"the amount of neg_sampling is {amount}; expected {kind}")
    return NegativeSampling(mode, amount)


class NodesByTime:
    """Nodes in the order of their times, to draw from those that are not later than a time.

    Example:
        >>> nodes = NodesByTime(torch.tensor([30, 10, 20]))
        >>> nodes.order.tolist(), nodes.count(torch.tensor([5, 10, 25])).tolist()
        ([1, 2, 0], [0, 1, 2])
    """

    def __init__(self, node_time: Tensor) -> None:
        """Sorts the times [N]."""
        self._times, self.order = node_time.sort(stable=True)

    def count(self, latest: Tensor) -> Tensor:
        """int64 [M], the number of nodes that are not later than each time [M]."""
        return torch.searchsorted(self._times, latest, right=True)


def draw_pairs(
    graph: Graph | MappedGraph,
    src: Tensor | None,
    count: int,
    generator: Generator,
    nodes: NodesByTime | None = None,
    latest: Tensor | None = None,
) -> Tensor:
    """Pairs of nodes that are not edges, uniformly; int64 [2, count].

    Pairs that are edges are drawn again, ten times at most: a graph may have an edge for every
    pair.

    Args:
        graph: the graph.
        src: int64 [count], the sources; None draws them too.
        count: number of pairs.
        generator: of the random numbers.
        nodes: the nodes by time; None if they have none.
        latest: int64 [count], the time of each pair: no drawn node is later, unless all are.

    Raises:
        ValueError: the graph has no nodes to draw.

    Example:
        >>> path = Graph(torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1]]), 3)
        >>> pairs = draw_pairs(path, torch.tensor([0, 1]), 2, torch.Generator())
        >>> pairs.tolist()
        [[0, 1], [2, 2]]
    """
    if graph.num_nodes == 0 and count:
        raise ValueError("the graph has no nodes; expected some to draw negatives from")
    sizes = torch.full((count,), graph.num_nodes)
    if nodes is not None and latest is not None:
        sizes = nodes.count(latest).clamp(min=1)
    drawn = torch.empty(2, count, dtype=torch.int64)
    left = torch.arange(count)
    for _ in range(_ROUNDS):
        uniform = torch.rand(2, left.numel(), dtype=torch.float64, generator=generator)
        ends = (uniform * sizes[left]).long()
        if nodes is not None:
            ends = nodes.order[ends]
        if src is not None:
            ends[0] = src[left]
        drawn[:, left] = ends
        left = left[are_edges(graph, ends)]
        if left.numel() == 0:
            break
    return drawn


def are_edges(graph: Graph | MappedGraph, pairs: Tensor) -> Tensor:
    """Bool [M]: whether each pair (source, destination) of [2, M] is an edge.

    Cost: the in-degrees of the destinations.

    Example:
        >>> are_edges(Graph(torch.tensor([[0], [1]])), torch.tensor([[0, 1], [1, 0]]))
        tensor([ True, False])
    """
    src, dst = pairs
    begin = graph.rowptr[dst]
    degree = graph.rowptr[dst + 1] - begin
    pair = torch.arange(src.shape[0]).repeat_interleave(degree)
    first = degree.cumsum(0) - degree
    position = torch.arange(pair.shape[0]) - first[pair] + begin[pair]
    equal = graph.col[position] == src[pair]
    found: Tensor = torch.zeros(src.shape[0], dtype=torch.bool)
    found[pair[equal]] = True
    return found
