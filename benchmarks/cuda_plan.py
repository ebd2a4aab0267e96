"""What the GPU benchmark runs: rows in the order in which they matter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from bench_layers import LAYERS
from cuda_cases import SPECS
from cuda_operators import SCORES
from cuda_traffic import BOTH, FORWARD, MODES

Shape = tuple[int, int]  # heads, channels of a head

ONE_HEAD: Shape = (1, 128)
SHAPES: tuple[Shape, ...] = (ONE_HEAD, (4, 32), (8, 8))
DTYPES = ("float32", "bfloat16")
# Layers and compiled peers are run where they fit and compile within reason.
_MOST_EDGES = 15_000_000


@dataclass(frozen=True)
class Row:
    """One item on one graph, by gat_ext and its peers.

    Attributes:
        item: a score, or "layer NAME".
    """

    graph: str
    item: str
    heads: int
    channels: int
    dtype: str
    modes: tuple[str, ...]
    peers: tuple[str, ...]

    @property
    def layer(self) -> str | None:
        """Name of the layer, None for an operator."""
        return self.item.removeprefix("layer ") if self.item.startswith("layer ") else None

    @property
    def label(self) -> str:
        return f"{self.graph}, {self.item}, {self.heads} × {self.channels} {self.dtype}"


def _rows(
    graph: str,
    items: Iterable[str] = SCORES,
    shapes: Iterable[Shape] = (ONE_HEAD,),
    dtypes: Iterable[str] = DTYPES,
    modes: tuple[str, ...] = MODES,
    peers: tuple[str, ...] = ("pyg",),
) -> list[Row]:
    return [
        Row(graph, item, *shape, dtype, modes, peers)
        for shape, dtype, item in product(shapes, dtypes, items)
    ]


def _layers(graph: str, dtypes: Iterable[str], peers: tuple[str, ...]) -> list[Row]:
    """AGNN has no heads: it is as wide as the others with one."""
    rows = []
    for name in LAYERS:
        shape = ONE_HEAD if name == "agnn" else (4, 32)
        rows += _rows(graph, [f"layer {name}"], [shape], dtypes, peers=peers)
    return rows


def quick() -> list[Row]:
    """Every row that a target names, and a look at the rest; compilations last."""
    return [
        *_rows("pubmed", peers=("dense", "pyg")),
        *_rows("amazon0505"),
        *_rows("reddit", dtypes=["bfloat16"]),
        *_rows("reddit", dtypes=["float32"], modes=(FORWARD,)),
        *_rows("products", dtypes=["bfloat16"]),
        *_rows("arxiv"),
        *_rows("arxiv", shapes=[(4, 32), (8, 8)], dtypes=["bfloat16"]),
        *_layers("arxiv", ["float32"], ("pyg",)),
        *_rows("arxiv-uniform"),
        *_rows("weather", ["additive_v2", "dot"], dtypes=["bfloat16"]),
        *_rows("yelp", ["additive", "dot"], dtypes=["bfloat16"]),
        *_rows("cora", dtypes=["float32"], peers=("dense", "pyg")),
        *_rows("arxiv", dtypes=["float32"], modes=(BOTH,), peers=("pyg", "pyg-compiled")),
        *_rows("amazon0505", ["dot"], dtypes=["bfloat16"], modes=(BOTH,), peers=("pyg-compiled",)),
    ]


def full() -> list[Row]:
    """Every graph, score, shape and dtype, against every peer that can run it."""
    rows = []
    for name, spec in SPECS.items():
        small = spec.num_edges <= _MOST_EDGES
        peers = ("dense", "pyg", "pyg-compiled") if small else ("pyg",)
        rows += _rows(name, shapes=SHAPES, peers=peers)
        if small and spec.square:
            rows += _layers(name, DTYPES, ("pyg", "pyg-compiled"))
    return rows


def only(
    rows: Iterable[Row],
    graphs: Iterable[str] | None = None,
    items: Iterable[str] | None = None,
    dtypes: Iterable[str] | None = None,
    peers: Iterable[str] | None = None,
) -> list[Row]:
    """The rows of these graphs, items and dtypes, with these peers of theirs; None for all."""
    graphs, items, dtypes = (
        None if names is None else set(names) for names in (graphs, items, dtypes)
    )
    wanted = None if peers is None else set(peers)
    return [
        Row(
            row.graph,
            row.item,
            row.heads,
            row.channels,
            row.dtype,
            row.modes,
            row.peers if wanted is None else tuple(p for p in row.peers if p in wanted),
        )
        for row in rows
        if (graphs is None or row.graph in graphs)
        and (items is None or row.item in items)
        and (dtypes is None or row.dtype in dtypes)
    ]
