"""The attention operators over one parameter at a time, with the limit of the machine.

    python benchmarks/run.py sweeps --threads 2

The standard case has 100,000 nodes, 2.1 million edges (uniform, self-loops among them) and 4 heads
of 32 float32 features, on two threads. A sweep varies threads (from one to all), dtype, degree
distribution, number of nodes, degree, features or heads; others reorder a mesh, use features larger
than the caches, or increase the graph to 60 million edges, on which a two-layer GAT is trained,
too. "× base" is the time per edge relative to the point with 1.00.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import bench_epoch
from bench_operators import ITEMS as OPERATORS
from cases import DTYPES, Setting, make_case
from peers import BASE
from report import Row
from session import Point, Session
from timing import interleave

from gat_ext import Graph

# Too long for a default run, and without other libraries to compare.
ON_REQUEST = True

ATTENTIONS = tuple(name for name, item in OPERATORS.items() if item.score is not None)
STANDARD = Setting(threads=2)
_HERE = Path(__file__).resolve()
# Features of 1 GB in float32 and 0.5 GB in bfloat16, larger than the caches of current servers.
_BEYOND = replace(STANDARD, nodes=2_000_000, degree=4)
_MESH = replace(STANDARD, graph="mesh", nodes=500_000, shuffle=True)
_GROWTH_DEGREE = 30
_LARGEST = 60_000_000


@dataclass(frozen=True)
class Sweep:
    """Settings that differ in one parameter, by the parameter's value.

    Attributes:
        base: the value whose times are the divisors.
        apart: measure the points one after the other, if they do not fit into memory together.
    """

    title: str
    settings: dict[str, Setting]
    base: str
    operators: tuple[str, ...] = ATTENTIONS
    apart: bool = False


def _of(name: str, values: Iterable[int | str]) -> dict[str, Setting]:
    return {str(value): replace(STANDARD, **{name: value}) for value in values}


def _numbers_of_threads() -> list[int]:
    """1, 2, 4, and so on, up to the CPUs of this process."""
    cpus = len(os.sched_getaffinity(0))
    return sorted({1, 2, cpus, *(2**k for k in range(cpus.bit_length()))})


def _growth(edges: int) -> Setting:
    return replace(STANDARD, nodes=edges // _GROWTH_DEGREE, degree=_GROWTH_DEGREE - 1)


def sweeps() -> list[Sweep]:
    """All sweeps, the quick ones first."""
    skews = {
        "uniform": STANDARD,
        "power law 3.0": replace(STANDARD, graph="power-law-3.0"),
        "power law 2.5": replace(STANDARD, graph="power-law"),
        "power law 2.2": replace(STANDARD, graph="power-law-2.2"),
        "one hub": replace(STANDARD, graph="hub"),
    }
    edges = STANDARD.nodes * STANDARD.degree
    sizes = (10_000, 30_000, 100_000, 300_000, 1_000_000)
    nodes = {f"{n}": replace(STANDARD, nodes=n, degree=edges // n) for n in sizes}
    orders = {
        "row by row": replace(_MESH, shuffle=False),
        "shuffled": _MESH,
        **{
            f"then {order}": replace(_MESH, order=order) for order in ("rcm", "degree", "community")
        },
    }
    beyond = {name: replace(_BEYOND, dtype=name) for name in ("float32", "bfloat16")}
    grown = (1_000_000, 4_000_000, 15_000_000, _LARGEST)
    two = ("gat_attention", "dot_attention")
    return [
        Sweep("threads", _of("threads", _numbers_of_threads()), "2"),
        Sweep("dtype", _of("dtype", DTYPES), "float32"),
        Sweep("degree distribution, E constant", skews, "uniform"),
        Sweep("nodes N, N · degree constant", nodes, "100000"),
        Sweep("edges per node, N constant", _of("degree", (2, 5, 10, 20, 50)), "20"),
        Sweep("features per head F", _of("channels", (8, 16, 32, 64, 128)), "32"),
        Sweep("heads H", _of("heads", (1, 2, 4, 8)), "4"),
        Sweep("numbering of a mesh of 500,000 nodes", orders, "then rcm"),
        Sweep("dtype, features beyond the caches", beyond, "bfloat16", two),
        Sweep(
            f"edges E, N = E / {_GROWTH_DEGREE}",
            {f"{edges}": _growth(edges) for edges in grown},
            f"{grown[0]}",
            apart=True,
        ),
    ]


def _points(sweep: Sweep, name: str) -> list[Point]:
    item = replace(OPERATORS[name], title=f"{sweep.title}: {name}")
    path = _HERE.with_name("bench_operators.py")
    return [
        Point(label, path, name, item, BASE, setting, seldom=sweep.apart)
        for label, setting in sweep.settings.items()
    ]


def measure(session: Session) -> Iterator[list[Row]]:
    """The rows of each sweep and operator, of one step's memory, and of the large epoch."""
    fast = Session(replace(session.options, memory=False, min_seconds=0.05))
    for sweep in sweeps():
        for name in sweep.operators:
            yield _named(fast.measure(_points(sweep, name), sweep.base, apart=sweep.apart))
    standard = Sweep("memory of a step", {"standard": STANDARD}, "standard")
    for name in ATTENTIONS:
        yield _named(session.measure(_points(standard, name), "standard"))
    large = _growth(_LARGEST)
    yield [_building(large)]
    name, path = "gat_epoch_wide", _HERE.with_name("bench_epoch.py")
    item = bench_epoch.ITEMS[name]
    point = Point(f"{_LARGEST}", path, name, item, BASE, large, seldom=True)
    yield _named(session.measure([point], point.label))


def _building(setting: Setting) -> Row:
    """Time of building a graph from its sorted edges."""
    case = make_case(setting)

    def build() -> dict[str, float]:
        start = time.perf_counter()
        Graph(case.edge_index, case.num_nodes)
        return {"total": 1e3 * (time.perf_counter() - start)}

    samples, _ = interleave({"": build}, 3)
    title = f"building a graph of {case.num_edges:,} edges"
    return Row("sweeps", "graph", title, "Graph(edge_index)", samples=samples[""])


def _named(rows: list[Row]) -> list[Row]:
    return [replace(row, bench="sweeps") for row in rows]
