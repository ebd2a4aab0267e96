"""NeighborSampler: sampled neighbourhoods of a batch of nodes, as blocks or as a subgraph."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gat_ext.graph import Graph
from gat_ext.ops.registry import ops
from gat_ext.sampling import checks
from gat_ext.sampling.storage import MappedGraph

_STRATEGIES = ("uniform", "last")
_neighbor_sample = ops.neighbor_sample.default


@dataclass(frozen=True)
class Sample:
    """The neighbourhood of a batch of seeds.

    Attributes:
        n_id: int64 [N'], the nodes, the seeds first.
        batch_size: number of seeds.
        blocks: a Graph for each layer, outermost first: its sources are the first
            ``blocks[l].num_src`` nodes of ``n_id``, its destinations the first
            ``blocks[l].num_dst``; those of the last block are the seeds.
        e_id: for each block, int64 [E'], its edges among those of the graph.
        batch: int64 [N'], the position of each node's seed; None unless trees are disjoint.
        num_sampled_nodes: number of seeds, then of the nodes that each hop added.
        num_sampled_edges: number of edges of each hop, the seeds' first.
    """

    n_id: Tensor
    batch_size: int
    blocks: list[Graph]
    e_id: list[Tensor]
    batch: Tensor | None
    num_sampled_nodes: list[int]
    num_sampled_edges: list[int]


@dataclass(frozen=True)
class Subgraph:
    """The neighbourhood of a batch of seeds as one graph, as PyG's loaders return it.

    Each node is expanded once, by the hop after the one that reached it.

    Attributes:
        n_id: int64 [N'], the nodes, the seeds first.
        batch_size: number of seeds.
        edge_index: int64 [2, E'], positions in ``n_id``, by hop.
        e_id: int64 [E'], the edges among those of the graph.
        batch: as of :class:`Sample`.
        num_sampled_nodes: as of :class:`Sample`.
        num_sampled_edges: as of :class:`Sample`.
    """

    n_id: Tensor
    batch_size: int
    edge_index: Tensor
    e_id: Tensor
    batch: Tensor | None
    num_sampled_nodes: list[int]
    num_sampled_edges: list[int]


class NeighborSampler:
    r"""Samples in-neighbourhoods: up to ``num_neighbors[l]`` in-edges for each node of hop l.

    Without weights, every set of this many in-edges has the same probability. With weights and
    without replacement, the edges with the smallest :math:`-\log(u_e) / w_e` are drawn (Efraimidis
    and Spirakis 2006), which is one draw after the other with probabilities proportional to the
    weights of the edges that are left. With replacement, draws are independent.

    The random numbers of a node depend on the seed, the epoch, the hop and the node only. So its
    neighbours do not depend on the batch, the number of threads, or the process.

    Args:
        graph: a Graph with num_src = num_dst on the CPU, or a :class:`MappedGraph`.
        num_neighbors: for each hop, the seeds' first, the number of in-edges of a node; -1: all.
        replace: draw with replacement; a node with in-edges then has exactly that many.
        disjoint: a tree for each seed, which shares no node with those of other seeds.
        temporal_strategy: with times, ``"uniform"`` draws among the edges that are not later than
            the seed; ``"last"`` takes the latest of them.
        node_time: int64 [N], times of the sources of edges; or
        edge_time: int64 [E], times of edges. Either makes trees disjoint.
        edge_weight: [E], finite and at least 0; an edge of weight 0 is never drawn.
        seed: determines the random numbers.

    Raises:
        TypeError: an argument has another type or dtype.
        ValueError: num_src is not num_dst, a shape does not match, a fan-out is below -1, or
            arguments exclude each other.

    Cost: O(sum of the fan-outs), or O(degree) for each node with weights or times. Memory: the
    result, and 4 bytes per node of a graph of at most 4 million nodes.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]]))
        >>> sampler = NeighborSampler(graph, [-1, 1], seed=1)
        >>> found = sampler.sample(torch.tensor([2]))
        >>> found.n_id.tolist(), [block.num_edges for block in found.blocks]
        ([2, 1, 0, 3], [3, 2])
    """

    def __init__(
        self,
        graph: Graph | MappedGraph,
        num_neighbors: Sequence[int],
        *,
        replace: bool = False,
        disjoint: bool = False,
        temporal_strategy: str = "uniform",
        node_time: Tensor | None = None,
        edge_time: Tensor | None = None,
        edge_weight: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        """Checks the arguments; see the class."""
        self.num_nodes = checks.sampled_graph(graph)
        self.graph = graph
        self.num_neighbors = checks.fanouts(num_neighbors)
        checks.flag(replace, "replace")
        checks.flag(disjoint, "disjoint")
        checks.choice(temporal_strategy, _STRATEGIES, "temporal_strategy")
        if node_time is not None and edge_time is not None:
            raise ValueError("node_time and edge_time were both given; expected one of them")
        self.is_temporal = node_time is not None or edge_time is not None
        latest = temporal_strategy == "last"
        if latest and not self.is_temporal:
            raise ValueError(
                "temporal_strategy is 'last', but there are no times; expected node_time or "
                "edge_time"
            )
        if latest and edge_weight is not None:
            raise ValueError(
                "temporal_strategy is 'last' and edge_weight was given; expected one of them: "
                "the latest edges are not drawn"
            )
        self.seed = checks.integer(seed, "seed")
        self.replace, self.latest = replace, latest
        self.disjoint = disjoint or self.is_temporal
        num_edges = graph.col.shape[0]
        self.node_time = checks.times(node_time, self.num_nodes, "node_time")
        self._edge_time = self._in_csr_order(checks.times(edge_time, num_edges, "edge_time"))
        self._weight = self._in_csr_order(checks.weights(edge_weight, num_edges))

    def _in_csr_order(self, values: Tensor | None) -> Tensor | None:
        order = self.graph.edge_id
        return values if values is None or order is None else values.index_select(0, order)

    def sample(self, seeds: Tensor, *, seed_time: Tensor | None = None, epoch: int = 0) -> Sample:
        """The neighbourhood of seeds, a block for each hop.

        In every block, each destination has a sample of its own, also if it is a destination of a
        further block.

        Args:
            seeds: int64 or int32 [S], nodes, which may repeat.
            seed_time: int64 [S]; default: the node times of the seeds.
            epoch: further number that determines the random numbers.

        Raises:
            TypeError: seeds are not integers.
            ValueError: a shape does not match, or there is no time of the seeds; with a
                MappedGraph also where its row pointers are invalid.
            IndexError: a seed is out of range.
        """
        n_id, tree, rowptrs, cols, e_ids, num_nodes = self._run(seeds, seed_time, epoch, False)
        blocks = [
            Graph._from_csr((rowptr, col, None), count)
            for rowptr, col, count in zip(rowptrs, cols, num_nodes[1:], strict=True)
        ]
        return Sample(
            n_id,
            seeds.shape[0],
            blocks[::-1],
            e_ids[::-1],
            tree if self.disjoint else None,
            _differences(num_nodes),
            [block.num_edges for block in blocks],
        )

    def subgraph(
        self, seeds: Tensor, *, seed_time: Tensor | None = None, epoch: int = 0
    ) -> Subgraph:
        """The neighbourhood of seeds as one graph; see :meth:`sample` for arguments and errors.

        Example:
            >>> ring = Graph(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
            >>> NeighborSampler(ring, [1, 1]).subgraph(torch.tensor([2])).edge_index.tolist()
            [[1, 2], [0, 1]]
        """
        n_id, tree, rowptrs, cols, e_ids, num_nodes = self._run(seeds, seed_time, epoch, True)
        firsts = [0, *num_nodes[:-2]]
        rows = [
            torch.arange(rowptr.shape[0] - 1).repeat_interleave(rowptr.diff()) + first
            for rowptr, first in zip(rowptrs, firsts, strict=True)
        ]
        return Subgraph(
            n_id,
            seeds.shape[0],
            torch.stack([torch.cat(cols).long(), torch.cat(rows)]),
            torch.cat(e_ids),
            tree if self.disjoint else None,
            _differences(num_nodes),
            [col.shape[0] for col in cols],
        )

    def _run(
        self, seeds: Tensor, seed_time: Tensor | None, epoch: int, frontier: bool
    ) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor], list[Tensor], list[int]]:
        seeds = checks.nodes(seeds, "seeds")
        epoch = checks.integer(epoch, "epoch")
        if not self.is_temporal:
            if seed_time is not None:
                raise ValueError(
                    "seed_time was given, but the sampler has no times; expected node_time or "
                    "edge_time in its constructor"
                )
        elif seed_time is None:
            if self.node_time is None:
                raise ValueError(
                    "seed_time is missing; expected int64 [S], because only edges have times"
                )
            checks.in_range(seeds, self.num_nodes, "seeds")
            seed_time = self.node_time[seeds]
        else:
            seed_time = checks.times(seed_time, seeds.shape[0], "seed_time")
        # Inference tensors could not be saved for a later backward.
        with torch.inference_mode(False):
            *found, num_nodes = _neighbor_sample(
                self.graph.rowptr,
                self.graph.col,
                self.graph.edge_id,
                seeds,
                self.num_neighbors,
                self._weight,
                self._edge_time,
                self.node_time,
                seed_time,
                self.replace,
                self.latest,
                self.disjoint,
                frontier,
                self.seed,
                epoch,
            )
        return *found, num_nodes.tolist()


def _differences(counts: list[int]) -> list[int]:
    return [counts[0], *(b - a for a, b in itertools.pairwise(counts))]
