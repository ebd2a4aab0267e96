"""The named graphs of the benchmarks, and the case: one graph with its sizes, handed to every peer.

A new graph is a function ``(nodes, degree, rng) -> int64 [2, E]`` with a row in ``GENERATED``.
Every graph ends up with one more self-loop a node, so that no row is empty, and with its edges
sorted by destination: libraries that scatter over the edge list gain from that order, and the
others do not lose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "bfloat16", "float16")}


@dataclass(frozen=True)
class Setting:
    """What a run was asked for. ``dropout`` None leaves the choice to the benchmark."""

    graph: str = "uniform"
    nodes: int = 100_000
    degree: int = 20
    heads: int = 4
    channels: int = 32
    dtype: str = "float32"
    dropout: float | None = None
    seed: int = 0
    shuffle: bool = False
    root: str | None = None

    @property
    def width(self) -> int:
        """Features of a row: ``heads * channels``."""
        return self.heads * self.channels


@dataclass
class Case:
    """A graph with the tensors of one benchmark item.

    Attributes:
        edge_index: int64 ``[2, E]``, sorted by destination.
        features: ``[N, C]`` of a data set, of unit mean square; None for a generated graph.
        tensors: inputs and weights by name; "grad_out" is the upstream gradient.
        dropout: the attention dropout that the timed layers apply; results are compared without it.
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

    def save(self, path: Path) -> None:
        torch.save({**vars(self), "features": None, "setting": asdict(self.setting)}, path)

    @staticmethod
    def load(path: str, dtype: str | None = None) -> Case:
        """The case of a file, with its floating-point tensors as ``dtype`` where one is given."""
        stored: dict[str, Any] = torch.load(path, weights_only=True)
        case = Case(**{**stored, "setting": Setting(**stored["setting"])})
        if dtype is not None:
            case.setting = replace(case.setting, dtype=dtype)
            case.tensors = {name: t.to(DTYPES[dtype]) for name, t in case.tensors.items()}
        return case


def _uniform(nodes: int, degree: int, rng: np.random.Generator) -> np.ndarray:
    """Both ends of ``nodes * degree`` edges drawn uniformly."""
    return rng.integers(0, nodes, size=(2, nodes * degree))


def _power_law(nodes: int, degree: int, rng: np.random.Generator) -> np.ndarray:
    """Both ends drawn with probability proportional to ``rank ** (-2 / 3)``.

    Degrees follow a power law of exponent 2.5 (Chung and Lu 2002); ranks are dealt at random.
    """
    share = np.cumsum(np.arange(1, nodes + 1, dtype=np.float64) ** (-2 / 3))
    rank = np.searchsorted(share, rng.random((2, nodes * degree)) * share[-1], side="right")
    return rng.permutation(nodes)[np.minimum(rank, nodes - 1)]


def _mesh(nodes: int, degree: int, rng: np.random.Generator) -> np.ndarray:
    """A triangulated grid, numbered row by row: right, down and one diagonal, both ways."""
    width = max(int(np.ceil(np.sqrt(nodes))), 1)
    node = np.arange(nodes)
    inner = node % width < width - 1
    pairs = [
        (node[inner], node[inner] + 1),
        (node, node + width),
        (node[inner], node[inner] + width + 1),
    ]
    u, v = (np.concatenate(side) for side in zip(*pairs, strict=True))
    u, v = u[v < nodes], v[v < nodes]
    return np.stack([np.concatenate([u, v]), np.concatenate([v, u])])


def _knn(nodes: int, degree: int, rng: np.random.Generator) -> np.ndarray:
    """The ``degree`` nearest neighbours of random points in the unit cube, each an edge to them."""
    try:
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise ImportError("the knn graph needs SciPy: pip install 'gat_ext[train]'") from error
    points = rng.random((nodes, 3))
    k = min(degree, nodes - 1)
    _, neighbours = cKDTree(points).query(points, k=k + 1)
    return np.stack([neighbours[:, 1:].reshape(-1), np.repeat(np.arange(nodes), k)])


GENERATED: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "uniform": _uniform,
    "power-law": _power_law,
    "mesh": _mesh,
    "knn": _knn,
}
DATASETS = ("cora", "citeseer")


def names() -> list[str]:
    """Every name that ``--graph`` takes."""
    return [*GENERATED, *DATASETS]


def make_case(setting: Setting) -> Case:
    """The graph that a setting names; the same setting gives the same graph."""
    if setting.graph in DATASETS:
        return _from_dataset(setting)
    rng = np.random.default_rng(setting.seed)
    edges = GENERATED[setting.graph](setting.nodes, setting.degree, rng)
    return Case(setting, setting.nodes, _finish(edges, setting.nodes, setting))


def _from_dataset(setting: Setting) -> Case:
    from gat_ext import datasets

    data = datasets.load(setting.graph, root=setting.root)
    edges = _finish(data.edge_index.numpy(), data.num_nodes, setting)
    # Of unit mean square, scores are of order one and their gradients well above rounding.
    x = data.x / data.x.square().mean().sqrt()
    return Case(setting, data.num_nodes, edges, features=x, num_classes=data.num_classes)


def _finish(edges: np.ndarray, nodes: int, setting: Setting) -> Tensor:
    """Adds the loops, renumbers the nodes where asked, sorts by destination (then source)."""
    loops = np.arange(nodes)
    edges = np.concatenate([edges, np.stack([loops, loops])], axis=1).astype(np.int64)
    if setting.shuffle:
        edges = np.random.default_rng(setting.seed + 1).permutation(nodes)[edges]
    order = np.argsort(edges[1] * nodes + edges[0], kind="stable")
    return torch.from_numpy(np.ascontiguousarray(edges[:, order]))
