"""Methods that choose the part of each node: METIS, KaMinPar, ranges of numbers, coordinates.

Each takes a :class:`Problem`, the number of parts and a seed, and returns the part of each node,
int64 [N]. A new method is a function here with a row in ``METHODS``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gat_ext.graph import Graph

IMBALANCE = 0.03  # by which the weight of a part may exceed the mean in KaMinPar, as in METIS


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be cut: nodes of two sets are numbered in one row, the sources first.

    Attributes:
        edge_index: int64 [2, E].
        weight: int64 [N], the work of each node.
        sets: number of nodes of each set.
        coordinates: float64 [N, d], or None.
    """

    edge_index: Tensor
    weight: Tensor
    sets: tuple[int, ...]
    coordinates: Tensor | None

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.weight.shape[0]


def capped(weight: Tensor, parts: int) -> Tensor:
    """Weights of which none exceeds that of a part.

    A node that is heavier than a part fills one, and the other nodes share the remaining parts:
    the limit c satisfies Σ min(wᵢ, c) = parts · c. Without it there is no balance to be found, and
    methods that look for one leave parts empty.

    Example:
        >>> capped(torch.tensor([1, 90, 1, 1, 1]), 3).tolist()
        [1, 2, 1, 1, 1]
    """
    heaviest = weight.topk(min(parts, weight.shape[0])).values
    rest, left = int(weight.sum()), parts
    for heavy in heaviest.tolist():
        if heavy * left <= rest or left == 1:
            break
        rest, left = rest - heavy, left - 1
    return weight.clamp(max=max(-(-rest // left), 1))


@dataclass(frozen=True)
class Undirected:
    """The symmetric graph without self-loops, with the number of edges between two nodes.

    Attributes:
        rowptr: int64 [N + 1].
        col: int64 [2 M], the neighbours of each node.
        count: int64 [2 M], the number of edges to each, in both directions.
    """

    rowptr: Any
    col: Any
    count: Any


def undirected(problem: Problem) -> Undirected:
    """The symmetric graph of a problem."""
    low, high = problem.edge_index.min(dim=0).values, problem.edge_index.max(dim=0).values
    inside = low != high
    key = low[inside] * problem.num_nodes + high[inside]
    key, count = torch.unique(key, return_counts=True)
    low, high = key // max(problem.num_nodes, 1), key % max(problem.num_nodes, 1)
    both = torch.stack([torch.cat([low, high]), torch.cat([high, low])])
    graph = Graph(both, problem.num_nodes)
    count = torch.cat([count, count])
    if graph.edge_id is not None:
        count = count[graph.edge_id.long()]
    return Undirected(graph.rowptr.numpy(), graph.col.long().numpy(), count.numpy())


# ---- methods that read the edges


def metis(problem: Problem, parts: int, seed: int) -> Tensor:
    """Multilevel k-way partitioning (Karypis and Kumar 1998)."""
    library = _library("pymetis", "metis")
    edges = undirected(problem)
    width = library.zero_copy_dtype()
    largest = max(int(problem.weight.sum()), int(edges.count.sum()), edges.col.shape[0])
    if largest > np.iinfo(width).max:
        raise ValueError(
            f"the graph has weights up to {largest}; this build of METIS expects them below "
            f"{np.iinfo(width).max}: use method='kaminpar', or build METIS with 64 bits"
        )
    found = library.part_graph(
        parts,
        library.CSRAdjacency(edges.rowptr.astype(width), edges.col.astype(width)),
        vweights=problem.weight.numpy().astype(width),
        eweights=edges.count.astype(width),
        options=library.Options(seed=seed + 1),  # glibc's srand takes 0 as 1
    )
    return torch.as_tensor(np.asarray(found.vertex_part, dtype=np.int64))


def kaminpar(problem: Problem, parts: int, seed: int) -> Tensor:
    """Deep multilevel partitioning (Gottesbüren et al. 2021), on one thread, for determinism."""
    library = _library("kaminpar", "kaminpar")
    edges = undirected(problem)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.parhip")
        _write_parhip(path, edges, problem.weight.numpy())
        graph = library.load_graph(str(path), library.GraphFileFormat.PARHIP)
    library.reseed(seed)
    solver = library.KaMinPar(1, library.default_context())
    return torch.as_tensor(np.asarray(solver.compute_partition(graph, parts, IMBALANCE), np.int64))


def _write_parhip(path: Path, edges: Undirected, weight: Any) -> None:
    """Writes the binary format of ParHIP: a header, row offsets in bytes, columns and weights."""
    nodes, entries = weight.shape[0], edges.col.shape[0]
    first = 8 * (3 + nodes + 1)
    with path.open("wb") as file:
        # Version 0 has weights of nodes and of edges, and all numbers in 64 bits.
        for array in (
            np.array([0, nodes, entries]),
            first + 8 * edges.rowptr,
            edges.col,
            weight,
            edges.count,
        ):
            file.write(np.ascontiguousarray(array, dtype="<i8").data)


def _library(module: str, method: str) -> Any:
    try:
        return __import__(module)
    except ImportError as error:
        raise ImportError(
            f"partition(method={method!r}) needs {module}, which is not installed: pip install "
            "'gat_ext[distributed]', or use method='range' or 'coordinates'"
        ) from error


# ---- methods that do not


def ranges(problem: Problem, parts: int, seed: int = 0) -> Tensor:
    """Contiguous ranges of the numbers of each set, of about equal weight."""
    found = []
    for weight in problem.weight.split(problem.sets):
        total = max(int(weight.sum()), 1)
        middle = weight.cumsum(0) - weight.double() / 2
        found.append((middle * (parts / total)).long().clamp_(max=parts - 1))
    return torch.cat(found)


def bisection(problem: Problem, parts: int, seed: int = 0) -> Tensor:
    """Recursive bisection at weighted medians of the coordinate with the largest extent."""
    assert problem.coordinates is not None
    coordinates, weight = problem.coordinates.numpy(), problem.weight.numpy()
    found = np.zeros(problem.num_nodes, dtype=np.int64)
    waiting = [(np.arange(problem.num_nodes), 0, parts)]
    while waiting:
        nodes, first, count = waiting.pop()
        if count == 1 or nodes.size == 0:
            found[nodes] = first
            continue
        inside = coordinates[nodes]
        axis = int(np.ptp(inside, axis=0).argmax())
        nodes = nodes[inside[:, axis].argsort(kind="stable")]
        reached = weight[nodes].cumsum()
        middle = reached - weight[nodes] / 2
        left = count // 2
        place = int(np.searchsorted(middle, reached[-1] * (left / count)))
        waiting.append((nodes[:place], first, left))
        waiting.append((nodes[place:], first + left, count - left))
    return torch.from_numpy(found)


METHODS: dict[str, Callable[[Problem, int, int], Tensor]] = {
    "metis": metis,
    "kaminpar": kaminpar,
    "range": ranges,
    "coordinates": bisection,
}
READ_EDGES = ("metis", "kaminpar")
