"""Graphs of the sweeps, drawn frugally: 32-bit indices, already sorted by destination."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from cases import Setting, make_case
from torch import Tensor

from gat_ext import Graph

SEED = 0


class LeftOutError(Exception):
    """A point cannot be measured here, which is no failure; the message says why."""


@dataclass(frozen=True)
class GraphSpec:
    """A graph by its sizes.

    Attributes:
        kind: "uniform": both ends of an edge drawn uniformly; "power-law": degrees with tail
            exponent ``exponent``; "hub": node 0 is the destination, and the source, of as many
            edges as there are nodes, the others uniform; "mesh": a triangulated grid.
        edges: one self-loop for each node among them; a mesh has 7 a node, less at its border.
        shuffle: number the nodes of a mesh at random.
        order: then renumber them by this method of ``Graph.reorder``.
    """

    kind: str = "uniform"
    nodes: int = 100_000
    edges: int = 2_100_000
    exponent: float = 0.0
    shuffle: bool = False
    order: str = ""


def make_graph(spec: GraphSpec) -> tuple[Graph, float]:
    """The graph, and the seconds that renumbering took.

    Raises:
        ValueError: unknown kind, or fewer edges than nodes.
        LeftOutError: ``Graph.reorder`` does not know the order, or lacks a library for it.
    """
    if spec.kind == "mesh":
        setting = Setting(graph="mesh", nodes=spec.nodes, shuffle=spec.shuffle, seed=SEED)
        graph = Graph(make_case(setting).edge_index, spec.nodes)
    else:
        graph = Graph(_draw(spec), spec.nodes)
    start = time.perf_counter()
    if spec.order:
        try:
            graph = graph.reorder(spec.order)[0]
        except (ImportError, ValueError) as error:
            raise LeftOutError(str(error)) from error
    seconds = time.perf_counter() - start
    return graph, seconds if spec.order else 0.0


def _draw(spec: GraphSpec) -> Tensor:
    """int32 ``[2, E]``: in-degrees first, then a source for each edge, a row's first its loop."""
    nodes, free = spec.nodes, spec.edges - spec.nodes
    if free < 0:
        raise ValueError(
            f"{spec.edges:,} edges were asked for {spec.nodes:,} nodes; expected one at least "
            "for each, its self-loop: raise edges or lower nodes"
        )
    rng = np.random.default_rng(SEED)
    share = _shares(spec, rng)
    degrees = 1 + rng.multinomial(free, share)
    edges = np.empty((2, spec.edges), dtype=np.int32)
    edges[1] = np.repeat(np.arange(nodes, dtype=np.int32), degrees)
    if spec.kind == "uniform":
        edges[0] = rng.integers(0, nodes, spec.edges, dtype=np.int32)
    else:
        drawn = np.searchsorted(share.cumsum(), rng.random(spec.edges), side="right")
        edges[0] = np.minimum(drawn, nodes - 1)
    edges[0, degrees.cumsum() - degrees] = np.arange(nodes)
    return torch.from_numpy(edges)


def _shares(spec: GraphSpec, rng: np.random.Generator) -> np.ndarray:
    """The probability of each node to be an end of an edge."""
    nodes = spec.nodes
    if spec.kind == "power-law":
        # Chung and Lu 2002: expected degrees rank^(-1 / (exponent - 1)), ranks dealt at random.
        weight = rng.permutation(np.arange(1, nodes + 1) ** (-1 / (spec.exponent - 1)))
        return weight / weight.sum()
    share = np.full(nodes, 1 / nodes)
    if spec.kind == "hub":
        hub = min(nodes / (spec.edges - nodes), 0.5)
        share *= (1 - hub) / (1 - share[0])
        share[0] = hub
    elif spec.kind != "uniform":
        raise ValueError(f"kind is {spec.kind!r}; expected 'uniform', 'power-law', 'hub' or 'mesh'")
    return share
