"""The graphs of the GPU benchmark: drawn on the device from a seed, with the sizes of public ones.

A square graph has one self-loop a node, so that no row is empty; both ends of the other edges are
drawn from one power law, whose exponent makes the largest degree about ``hub`` (Chung and Lu 2002).
Nodes are numbered at random: real graphs have communities, and so reuse the cache better. Edges are
sorted by destination, then source, an order that libraries which scatter over the edge list like.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gat_ext import Graph

# Of building a graph on the device, sorts included, for each edge.
_BUILD_BYTES = 100


@dataclass(frozen=True)
class Spec:
    """The sizes of a graph.

    Attributes:
        hub: the largest degree, about; 0 for edges drawn uniformly.
        grids: rows and columns of the sources' and the destinations' grid, where the graph is a
            mesh: each source has an edge to the four destinations around it.
    """

    name: str
    num_src: int
    num_dst: int
    num_edges: int
    hub: int = 0
    grids: tuple[tuple[int, int], tuple[int, int]] | None = None

    @property
    def build_bytes(self) -> int:
        return _BUILD_BYTES * self.num_edges

    @property
    def square(self) -> bool:
        return self.num_src == self.num_dst

    @property
    def power(self) -> float:
        """Of the uniform variate that gives a rank; see :func:`_ends`."""
        if self.hub == 0:
            return 1.0
        return math.log(self.num_dst) / math.log(self.num_edges / self.hub)


def _square(name: str, nodes: int, edges: int, hub: int = 0) -> Spec:
    return Spec(name, nodes, nodes, edges, hub)


def _mesh(name: str, sources: tuple[int, int], destinations: tuple[int, int]) -> Spec:
    num_src, num_dst = math.prod(sources), math.prod(destinations)
    return Spec(name, num_src, num_dst, 4 * num_src, grids=(sources, destinations))


SPECS = {
    spec.name: spec
    for spec in (
        _square("cora", 2_708, 10_556, hub=168),
        _square("pubmed", 19_717, 88_648, hub=171),
        _square("arxiv", 169_343, 2_315_598, hub=13_161),
        _square("arxiv-uniform", 169_343, 2_315_598),
        _square("amazon0505", 410_236, 3_356_824, hub=2_760),
        _mesh("weather", (704, 770), (192, 210)),
        _square("yelp", 716_847, 13_954_819, hub=4_000),
        _square("reddit", 232_965, 114_615_892, hub=21_657),
        _square("products", 2_449_029, 123_718_280, hub=17_481),
    )
}


def tiny(spec: Spec) -> Spec:
    """A graph of the same kind with about a hundred nodes, to try the program with."""
    if spec.grids:
        return _mesh(spec.name, (12, 10), (6, 5))
    nodes = 64 + len(spec.name)
    edges = nodes * min(round(spec.num_edges / spec.num_dst), 12)
    return replace(
        spec, num_src=nodes, num_dst=nodes, num_edges=edges, hub=edges // 5 if spec.hub else 0
    )


class Edges(NamedTuple):
    """The graph as functions over an edge list take it: with the number of destinations."""

    src: Tensor
    dst: Tensor
    num_nodes: int


@dataclass
class Case:
    """A graph on the device.

    Attributes:
        edge_index: int64 ``[2, E]``, sorted by destination.
        rowptr: int64 ``[N_dst + 1]``, counted from the edges, not taken from ``graph``.
    """

    spec: Spec
    edge_index: Tensor
    rowptr: Tensor
    graph: Graph
    masks: dict[torch.dtype, Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.edge_index.device

    @property
    def edges(self) -> Edges:
        return Edges(self.edge_index[0], self.edge_index[1], self.spec.num_dst)

    @cached_property
    def touched_sources(self) -> int:
        """Number of sources with an edge."""
        return int(torch.bincount(self.edge_index[0], minlength=1).count_nonzero())

    def dense_mask(self, dtype: torch.dtype) -> Tensor:
        """``[N_dst, N_src]``: log of the number of edges, which added to scores counts multi-edges."""
        if dtype not in self.masks:
            shape = (self.spec.num_dst, self.spec.num_src)
            counts = torch.zeros(shape, device=self.device)
            src, dst = self.edge_index
            counts.index_put_((dst, src), counts.new_ones(()), accumulate=True)
            self.masks[dtype] = counts.log_().to(dtype)
        return self.masks[dtype]


def make_case(spec: Spec, device: torch.device, seed: int = 0) -> Case:
    """Draws the graph and builds its CSR and transpose; the same for the same seed and device."""
    generator = torch.Generator(device).manual_seed(seed)
    edge_index = mesh_edges(spec) if spec.grids else _power_law_edges(spec, generator)
    edge_index = sort_edges(edge_index.to(device), spec.num_src)
    counts = torch.bincount(edge_index[1], minlength=spec.num_dst)
    rowptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    graph = Graph(edge_index, num_src=spec.num_src, num_dst=spec.num_dst)
    graph.transpose()
    return Case(spec, edge_index, rowptr, graph)


def _ends(spec: Spec, count: int, nodes: Tensor, generator: torch.Generator) -> Tensor:
    """Nodes with probability proportional to ``rank ** (1 / power - 1)``, by the inverse of its sum."""
    uniform = torch.rand(count, generator=generator, device=nodes.device, dtype=torch.float64)
    rank = uniform.pow_(spec.power).mul_(spec.num_dst).long()
    return nodes[rank.clamp_(max=spec.num_dst - 1)]


def _power_law_edges(spec: Spec, generator: torch.Generator) -> Tensor:
    device = generator.device
    nodes = torch.randperm(spec.num_dst, generator=generator, device=device)
    count = spec.num_edges - spec.num_dst
    src, dst = (_ends(spec, count, nodes, generator) for _ in range(2))
    return torch.stack([torch.cat([src, nodes]), torch.cat([dst, nodes])])


def mesh_edges(spec: Spec) -> Tensor:
    """Each source to the corners of the cell of destinations that it lies in, on a torus.

    Both grids are numbered row by row, so that neighbours in space are near in memory.
    """
    assert spec.grids is not None
    (src_rows, src_cols), (dst_rows, dst_cols) = spec.grids
    source = torch.arange(spec.num_src)
    row = ((source // src_cols) + 0.5) * dst_rows / src_rows - 0.5
    col = ((source % src_cols) + 0.5) * dst_cols / src_cols - 0.5
    corners = [
        (row.floor().long() + down) % dst_rows * dst_cols + (col.floor().long() + right) % dst_cols
        for down in (0, 1)
        for right in (0, 1)
    ]
    return torch.stack([source.repeat(4), torch.cat(corners)])


def sort_edges(edge_index: Tensor, num_src: int) -> Tensor:
    """The edges by destination, then source."""
    key = (edge_index[1] * num_src + edge_index[0]).sort().values
    return torch.stack([key % num_src, key // num_src])
