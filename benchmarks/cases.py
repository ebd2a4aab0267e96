"""Graphs by name, and the case: one graph with one item's tensors, on the CPU or a GPU.

A new graph is a function ``(nodes, degree, generator) -> int64 [2, E]`` with a row in ``GRAPHS``;
it draws on the generator's device. Every graph gets one self-loop per node, so that no row is
empty. Edges are sorted by destination, then source, which helps libraries that scatter over the
edge list and does not affect the others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "bfloat16", "float16")}


@dataclass(frozen=True)
class Setting:
    """The graph, the sizes and the device of a measurement.

    Attributes:
        nodes: nodes of a generated graph; other graphs have fixed sizes.
        degree: edges per node, without its self-loop.
        dropout: attention dropout while timing; None: the item's.
        shuffle: renumber the nodes at random.
        order: then reorder them by this method of ``Graph.reorder``.
        threads: number of threads; 0 leaves torch's unchanged.
        root: folder of the files of data sets.
        edge_dim: features of an edge, in benchmarks with edge features.
    """

    graph: str = "uniform"
    nodes: int = 100_000
    degree: int = 20
    heads: int = 4
    channels: int = 32
    dtype: str = "float32"
    dropout: float | None = None
    seed: int = 0
    shuffle: bool = False
    order: str = ""
    threads: int = 0
    device: str = "cpu"
    root: str | None = None
    edge_dim: int = 8

    @property
    def width(self) -> int:
        """Features per row: ``heads * channels``."""
        return self.heads * self.channels


@dataclass
class Case:
    """A graph with the tensors of one item.

    Attributes:
        edge_index: ``[2, E]``, sorted by destination; int32 if it fits, else int64.
        features: ``[N, C]`` of a data set, with unit mean square; None for a generated graph.
        tensors: inputs and weights by name; "grad_out" is the upstream gradient.
        dropout: attention dropout of the timed layers; results are compared without it.
    """

    setting: Setting
    num_nodes: int
    edge_index: Tensor
    features: Tensor | None = None
    num_classes: int = 8
    tensors: dict[str, Tensor] = field(default_factory=dict)
    dropout: float = 0.0

    @property
    def num_edges(self) -> int:
        return self.edge_index.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.setting.dtype]

    def to_dtype(self, dtype: str) -> Case:
        """The case with floating-point tensors converted to ``dtype``."""
        tensors = {name: t.detach().to(DTYPES[dtype]) for name, t in self.tensors.items()}
        return replace(self, setting=replace(self.setting, dtype=dtype), tensors=tensors)

    def save(self, path: Path) -> None:
        torch.save({**vars(self), "features": None, "setting": asdict(self.setting)}, path)

    @staticmethod
    def load(path: Path) -> Case:
        stored: dict[str, Any] = torch.load(path, weights_only=True)
        return Case(**{**stored, "setting": Setting(**stored["setting"])})


def _uniform(nodes: int, degree: int, generator: Generator) -> Tensor:
    """``nodes * degree`` edges with uniform ends."""
    size = (2, nodes * degree)
    return torch.randint(nodes, size, generator=generator, device=generator.device)


def _pairs(weight: Tensor, count: int, generator: Generator) -> Tensor:
    """Edges whose ends have probabilities proportional to ``weight`` ``[N]``."""
    share = weight.double().cumsum(0)
    uniform = torch.rand((2, count), generator=generator, device=weight.device, dtype=torch.float64)
    return torch.searchsorted(share, uniform.mul_(share[-1])).clamp_(max=len(weight) - 1)


def _renumber(edges: Tensor, nodes: int, generator: Generator) -> Tensor:
    return torch.randperm(nodes, generator=generator, device=edges.device)[edges]


def _power_law(nodes: int, degree: int, generator: Generator, exponent: float = 2.5) -> Tensor:
    """Degrees with this tail exponent (Chung and Lu 2002), assigned to nodes at random."""
    rank = torch.arange(1, nodes + 1, device=generator.device, dtype=torch.float64)
    edges = _pairs(rank ** (-1 / (exponent - 1)), nodes * degree, generator)
    return _renumber(edges, nodes, generator)


def _hub(nodes: int, degree: int, generator: Generator) -> Tensor:
    """Node 0 has N edges in and N out; the others are uniform."""
    weight = torch.ones(nodes, device=generator.device)
    share = min(1 / degree, 0.5)
    weight[0] = (nodes - 1) * share / (1 - share)
    return _pairs(weight, nodes * degree, generator)


def _mesh(nodes: int, degree: int, generator: Generator) -> Tensor:
    """A triangulated grid, numbered by row: right, down and one diagonal, in both directions."""
    width = max(math.ceil(math.sqrt(nodes)), 1)
    node = torch.arange(nodes, device=generator.device)
    inner = node[node % width < width - 1]
    start = torch.cat([inner, node, inner])
    end = torch.cat([inner + 1, node + width, inner + width + 1])
    start, end = start[end < nodes], end[end < nodes]
    return torch.stack([torch.cat([start, end]), torch.cat([end, start])])


GRAPHS: dict[str, Callable[[int, int, Generator], Tensor]] = {
    "uniform": _uniform,
    "power-law": _power_law,
    "power-law-3.0": functools.partial(_power_law, exponent=3.0),
    "power-law-2.2": functools.partial(_power_law, exponent=2.2),
    "hub": _hub,
    "mesh": _mesh,
}
# Nodes, edges (including self-loops) and approximate largest degrees of public graphs.
SIZES = {
    "pubmed-size": (19_717, 88_648, 171),
    "arxiv-size": (169_343, 2_315_598, 13_161),
    "amazon0505-size": (410_236, 3_356_824, 2_760),
    "yelp-size": (716_847, 13_954_819, 4_000),
    "reddit-size": (232_965, 114_615_892, 21_657),
    "products-size": (2_449_029, 123_718_280, 17_481),
}
DATASETS = ("cora", "citeseer", "digits")
NAMES = (*GRAPHS, *SIZES, *DATASETS)


def _of_size(nodes: int, edges: int, largest: int, generator: Generator) -> Tensor:
    """Edges whose ends follow a power law; the first rank gets ``largest`` of them."""
    power = math.log(edges / largest) / math.log(nodes)
    rank = torch.arange(nodes + 1, device=generator.device, dtype=torch.float64)
    weight = (rank / nodes).pow_(power).diff()
    return _renumber(_pairs(weight, edges - nodes, generator), nodes, generator)


@functools.lru_cache(maxsize=8)
def _graph(setting: Setting) -> Case:
    """The graph of a setting, without tensors."""
    generator = Generator(setting.device).manual_seed(setting.seed)
    if setting.graph in DATASETS:
        return _dataset(setting, generator)
    nodes = setting.nodes
    if setting.graph in SIZES:
        nodes = SIZES[setting.graph][0]
        edges = _of_size(*SIZES[setting.graph], generator)
    else:
        edges = GRAPHS[setting.graph](nodes, setting.degree, generator)
    return Case(setting, nodes, _finish(edges, nodes, setting, generator))


def make_case(setting: Setting) -> Case:
    """The graph of a setting; deterministic for each device."""
    graph = _graph(replace(setting, heads=1, channels=1, dtype="float32", dropout=None, threads=0))
    return replace(graph, setting=setting)


def _dataset(setting: Setting, generator: Generator) -> Case:
    from gat_ext import datasets

    data = datasets.load(setting.graph, root=setting.root)
    edges = _finish(data.edge_index.to(setting.device), data.num_nodes, setting, generator)
    # With unit mean square, scores are of order one and their gradients well above rounding errors.
    x = (data.x / data.x.square().mean().sqrt()).to(setting.device)
    return Case(setting, data.num_nodes, edges, features=x, num_classes=data.num_classes)


def _finish(edges: Tensor, nodes: int, setting: Setting, generator: Generator) -> Tensor:
    """Adds self-loops, renumbers nodes as required, and sorts."""
    loops = torch.arange(nodes, device=edges.device)
    edges = torch.cat([edges, loops.expand(2, -1)], dim=1)
    if setting.shuffle:
        edges = _renumber(edges, nodes, generator)
    if setting.order:
        from gat_ext import Graph

        edges = Graph(edges, nodes).reorder(setting.order)[0].edge_index.long()
    key = (edges[1] * nodes + edges[0]).sort().values
    index = torch.int32 if nodes < 2**31 else torch.int64
    return torch.stack([(key % nodes).to(index), (key // nodes).to(index)])
