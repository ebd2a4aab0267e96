"""Replaces the self-loops of a graph by one for every node that is source and destination.

The new loops follow the other edges, by ascending node; :meth:`SelfLoops.rows` moves per-edge
tensors. The operator ``adjacency_csr`` does the same in C++.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gat_ext.graph.cache import cached
from gat_ext.graph.csr import INT32_LIMIT, check_edge_index, ops
from gat_ext.graph.graph import Graph
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.graph.traced import TracedGraph
from gat_ext.ops.slots import with_loops
from gat_ext.ops.state import is_tracing


class SelfLoops(NamedTuple):
    """A graph whose self-loops were replaced.

    Attributes:
        graph: with one self-loop for every node, last; a TracedGraph while tracing.
        kept: positions of the kept edges among the given ones; None: all, always so in a
            TracedGraph.
        num_given: number of given edges.
        num_loops: number of new self-loops.
    """

    graph: Graph | TracedGraph | ShardedGraph
    kept: Tensor | None
    num_given: int
    num_loops: int

    def others(self, given: Tensor) -> Tensor:
        """The rows of the kept edges in a tensor with a row for each given edge."""
        return given if self.kept is None else given[self.kept]

    def rows(self, given: Tensor, loops: Tensor) -> Tensor:
        """The rows of the graph's edges: those of the kept edges, then ``loops``."""
        return torch.cat([self.others(given), loops])

    def destinations(self) -> tuple[Tensor, int]:
        """Destinations of the kept edges, and an upper bound of their numbers.

        In a TracedGraph, replaced self-loops lead to an extra node beyond the destinations.
        """
        num_dst, count = self.graph.num_dst, self.graph.num_edges - self.num_loops
        src, dst = self.graph.edge_index[:, :count]
        if isinstance(self.graph, TracedGraph):
            return torch.where(src == dst, num_dst, dst), num_dst + 1
        return dst, num_dst

    def incidence(self) -> Graph:
        """The graph whose sources are the kept edges, each with an edge to its destination.

        It sums the features of the in-edges of nodes. Cached; not of a TracedGraph.
        """
        graph = self.graph.local if isinstance(self.graph, ShardedGraph) else self.graph
        assert isinstance(graph, Graph)
        return cached((graph,), "incidence", lambda: _incidence(graph, self.num_loops))


def with_self_loops(
    adjacency: Tensor | Graph | ShardedGraph, num_src: int, num_dst: int
) -> SelfLoops:
    """Replaces the self-loops of a graph by one for every node that is source and destination.

    The result is cached as long as the Graph lives, or until the edge_index is modified, so that
    training on one graph sorts once.
    """
    if not isinstance(adjacency, (Graph, ShardedGraph)):
        check_edge_index(adjacency)
    key = (num_src, num_dst, "looped")
    return cached((adjacency,), key, lambda: _replaced(adjacency, num_src, num_dst))


def _replaced(adjacency: Tensor | Graph | ShardedGraph, num_src: int, num_dst: int) -> SelfLoops:
    if isinstance(adjacency, ShardedGraph):
        graph, kept = adjacency.replace_self_loops()
        return SelfLoops(graph, kept, adjacency.num_edges, num_dst)
    if is_tracing():
        traced = TracedGraph(adjacency, num_src, num_dst, self_loops=True)
        return SelfLoops(traced, None, traced.num_given, traced.num_edges - traced.num_given)
    if isinstance(adjacency, Graph):
        if _keeps_order(adjacency, num_src, num_dst):
            return _replaced_in_order(adjacency)
        wide = torch.int64 if adjacency.index_dtype == torch.int64 else None
        return _replace_loops(adjacency.edge_index, num_src, num_dst, wide)
    try:
        return _replace_loops(adjacency, num_src, num_dst, None)
    except (TypeError, ValueError, IndexError, RuntimeError):
        # The error should name the caller's edge_index, not the edges with loops.
        Graph(adjacency, num_src=num_src, num_dst=num_dst)
        raise


def _keeps_order(graph: Graph, num_src: int, num_dst: int) -> bool:
    """True if the sorted edges of a graph can be used, so that nothing is sorted again."""
    same = (graph.num_src, graph.num_dst) == (num_src, num_dst)
    fits = graph.index_dtype == torch.int64 or graph.num_edges + num_dst <= INT32_LIMIT
    return same and fits and graph.device.type == "cpu"


def _replaced_in_order(graph: Graph) -> SelfLoops:
    num_loops = min(graph.num_src, graph.num_dst)
    *parts, kept = ops.csr_with_loops(graph.rowptr, graph.col, graph.edge_id, num_loops)
    all_kept = parts[1].shape[0] == graph.num_edges + num_loops
    looped = Graph._from_csr((parts[0], parts[1], parts[2]), graph.num_src)
    return SelfLoops(looped, None if all_kept else kept, graph.num_edges, num_loops)


def _replace_loops(
    edges: Tensor, num_src: int, num_dst: int, index_dtype: torch.dtype | None
) -> SelfLoops:
    num_loops = min(num_src, num_dst)
    src, dst = edges
    # Loops at invalid nodes stay, so that Graph raises for them.
    is_loop = (src == dst) & (src >= 0) & (src < num_loops)
    kept = (~is_loop).nonzero().flatten() if bool(is_loop.any()) else None
    others = edges if kept is None else edges[:, kept]
    graph = Graph(
        with_loops(others, num_loops), num_src=num_src, num_dst=num_dst, index_dtype=index_dtype
    )
    return SelfLoops(graph, kept, edges.shape[1], num_loops)


def _incidence(graph: Graph, num_loops: int) -> Graph:
    count = graph.num_edges - num_loops
    edge = graph.edge_id
    if edge is None:
        edge = torch.arange(graph.num_edges, dtype=graph.index_dtype, device=graph.device)
    loops_before = torch.arange(graph.num_dst + 1, device=graph.device).clamp(max=num_loops)
    return Graph._from_csr((graph.rowptr - loops_before, edge[edge < count], None), count)


# ---- from a layer's edges back to the given ones


def ends_with_loops(edge_index: Tensor, num_loops: int) -> bool:
    """True if the last edges are self-loops by ascending node, as a layer adds them."""
    given = edge_index.shape[1] - num_loops
    return given >= 0 and torch.equal(edge_index, with_loops(edge_index[:, :given], num_loops))


def given_positions(edges: Tensor, given: Tensor) -> Tensor:
    """int64 [E'], the position of each edge of a layer among the given edges.

    A layer's self-loop has the position of the first given self-loop at its node, or -1.

    Args:
        edges: [2, E'], the edges that the layer attended over.
        given: [2, E], the edges given to the layer.

    Raises:
        ValueError: the layer's edges are not derived from the given ones.
    """
    num_given, device = given.shape[1], given.device
    if edges.shape == given.shape and torch.equal(edges, given):
        return torch.arange(num_given, device=device)
    is_loop = given[0] == given[1]
    kept, loops = (~is_loop).nonzero().flatten(), is_loop.nonzero().flatten()
    num_loops = edges.shape[1] - kept.numel()
    if num_loops < 0 or not torch.equal(edges, with_loops(given[:, kept], num_loops)):
        raise ValueError(
            f"the attention has an edge_index {list(edges.shape)} that is neither the {num_given} "
            "given edges nor these with self-loops last; expected the edges of the layer's call"
        )
    first = torch.full((num_loops,), num_given, device=device)
    first = first.scatter_reduce(0, given[0, loops], loops, "amin")
    return torch.cat([kept, first.masked_fill(first == num_given, -1)])
