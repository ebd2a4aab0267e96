"""What the sweeps measure: a standard case, one parameter changed at a time, and growth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from cases import DTYPES
from sweep_graphs import GraphSpec

ATTENTIONS = ("gat_attention", "gatv2_attention", "dot_attention", "cosine_attention")


@dataclass(frozen=True)
class Point:
    """One setting of all parameters."""

    graph: GraphSpec = field(default_factory=GraphSpec)
    heads: int = 4
    channels: int = 32
    dtype: str = "float32"
    threads: int = 2
    operators: tuple[str, ...] = ATTENTIONS

    @property
    def row_bytes(self) -> int:
        """Of the features of a node."""
        return self.heads * self.channels * DTYPES[self.dtype].itemsize

    @property
    def bytes_needed(self) -> int:
        """Memory of a step, estimated: twelve rows of features a node, and what lies on the edges."""
        per_edge = 3 * 4 + 8 + 4 * self.heads
        return 12 * self.graph.nodes * self.row_bytes + self.graph.edges * per_edge


@dataclass(frozen=True)
class Sweep:
    """Points that differ in one parameter.

    Attributes:
        points: by the parameter's value; all are timed in turn, in one process.
        seconds: rounds after the second start only within this time.
        apart: each point is timed alone instead, for those that do not fit side by side.
        least: number of rounds below which ``seconds`` does not count.
    """

    name: str
    title: str
    points: dict[str, Point]
    seconds: float
    apart: bool = False
    least: int = 2


@dataclass(frozen=True)
class Epoch:
    """The training of the two-layer GAT: sizes of its graph and of both layers."""

    graph: GraphSpec
    heads: int = 4
    channels: int = 32
    threads: int = 2

    @property
    def bytes_needed(self) -> int:
        """Memory, estimated: thirteen rows of floats a node, and what lies on the edges."""
        return 13 * self.graph.nodes * 4 * self.heads * self.channels + 60 * self.graph.edges


STANDARD = Point()
# Features of 1 GB in float32 and half of that in bfloat16: above the caches of today's servers.
_BEYOND = GraphSpec(nodes=2_000_000, edges=10_000_000)
_MESH = GraphSpec(kind="mesh", nodes=500_000, edges=0)
_LARGEST = 60_000_000
GROWTH_DEGREE = 30


def _of_graphs(graphs: Iterable[tuple[str, GraphSpec]]) -> dict[str, Point]:
    return {label: replace(STANDARD, graph=graph) for label, graph in graphs}


def _of(name: str, values: Iterable[int | str]) -> dict[str, Point]:
    return {str(value): replace(STANDARD, **{name: value}) for value in values}


def _skews() -> dict[str, Point]:
    base = STANDARD.graph
    laws = {
        f"power law {exponent}": replace(base, kind="power-law", exponent=exponent)
        for exponent in (3.0, 2.5, 2.2)
    }
    return _of_graphs({"uniform": base, **laws, "one hub": replace(base, kind="hub")}.items())


def _orders() -> dict[str, Point]:
    shuffled = replace(_MESH, shuffle=True)
    orders = {
        f"shuffled, {order}": replace(shuffled, order=order)
        for order in ("rcm", "degree", "community")
    }
    return _of_graphs({"mesh": _MESH, "shuffled": shuffled, **orders}.items())


def _growth(edges: int) -> GraphSpec:
    return GraphSpec(nodes=edges // GROWTH_DEGREE, edges=edges)


def full() -> list[Sweep]:
    """Every sweep, the quick ones first."""
    base = STANDARD.graph
    nodes = (10_000, 30_000, 100_000, 300_000, 1_000_000)
    degrees = (2, 5, 10, 20, 50)
    beyond = replace(STANDARD, graph=_BEYOND, operators=("gat_attention", "dot_attention"))
    return [
        Sweep("threads", "threads", _of("threads", (1, 2)), 15),
        Sweep("dtype", "dtype", _of("dtype", DTYPES), 22),
        Sweep("skew", "degree distribution, E constant", _skews(), 25),
        Sweep(
            "nodes",
            "nodes N, E constant",
            _of_graphs((f"{n}", replace(base, nodes=n)) for n in nodes),
            25,
        ),
        Sweep(
            "degree",
            "edges a node beside its loop, N constant",
            _of_graphs((f"{d}", replace(base, edges=base.nodes * (d + 1))) for d in degrees),
            22,
        ),
        Sweep("channels", "features of a head F", _of("channels", (8, 16, 32, 64, 128)), 30),
        Sweep("heads", "heads H", _of("heads", (1, 2, 4, 8)), 25),
        Sweep("order", "mesh of 500,000 nodes, order", _orders(), 35),
        Sweep(
            "beyond",
            "dtype, features beyond the cache",
            {name: replace(beyond, dtype=name) for name in ("float32", "bfloat16")},
            20,
        ),
        Sweep(
            "growth",
            f"edges E, N = E / {GROWTH_DEGREE}",
            _of_graphs(
                (f"{edges}", _growth(edges))
                for edges in (1_000_000, 4_000_000, 15_000_000, _LARGEST)
            ),
            10,
            apart=True,
            least=1,
        ),
    ]


def full_epoch() -> Epoch:
    return Epoch(_growth(_LARGEST))


def _shrink(graph: GraphSpec) -> GraphSpec:
    edges, nodes = max(graph.edges // 10_000, 210), max(graph.nodes // 10_000, 40)
    return replace(graph, nodes=nodes, edges=max(edges, nodes))


def tiny() -> list[Sweep]:
    """The same sweeps over graphs of a hundred nodes, which try the program in seconds."""
    return [
        replace(
            sweep,
            seconds=0.0,
            points={
                label: replace(point, graph=_shrink(point.graph))
                for label, point in sweep.points.items()
            },
        )
        for sweep in full()
    ]


def tiny_epoch() -> Epoch:
    return replace(full_epoch(), graph=_shrink(full_epoch().graph))
