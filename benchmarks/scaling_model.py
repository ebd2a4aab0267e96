"""Bytes, memory and time of a layer on a graph in parts: the model of docs/notes/scaling.md.

    python benchmarks/scaling_model.py                     the tables of the note
    python benchmarks/scaling_model.py --speed 16          on machines 16 times as fast
    python benchmarks/scaling_model.py --heads 8 --channels 64

It measures nothing: the constants are figures of docs/benchmarks.md and of ``run.py partition``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import NamedTuple

# Rows of all halos over the number of nodes; METIS, measured by ``run.py partition``.
PARTS = (2, 4, 8, 16, 64)
HALO = {
    "uniform": (1.00, 2.95, 6.18, 9.93, 15.38),
    "power law": (0.98, 2.65, 4.96, 7.51, 12.13),
    "mesh": (0.003, 0.007, 0.012, 0.018, 0.041),
    "cora": (0.11, 0.18, 0.32, 0.43, 0.77),
}

# Nanoseconds for an edge and a channel, and for a node, an input and an output channel of a linear
# map: forward and backward, two threads, float32, of whole layers by `run.py layers`
# (100,000 nodes, 2.1 million edges, 128 channels) and its time of a Linear, half of which counts.
EDGE = {"gat": 0.67, "gatv2": 1.31, "agnn": 0.77, "transformer": 1.28}
MAP = 0.0201
TENSORS = {"gat": 2, "gatv2": 1, "agnn": 2, "transformer": 2}  # a message for each
MAPS = {"gat": 1, "gatv2": 2, "agnn": 0, "transformer": 4}
# Time of an edge among 60 million over that among 1 million, from the sweeps.
LARGE = {"gat": 3.5, "gatv2": 2.5, "agnn": 2.9, "transformer": 3.2}
LATENCY = 50e-6  # seconds for a message: an assumption


class Layer(NamedTuple):
    """A layer of heads × channels.

    Attributes:
        kind: "gat", "gatv2", "agnn" or "transformer".
        heads: H; AGNN has one.
        channels: C of each head; of AGNN, the input channels.
    """

    kind: str
    heads: int
    channels: int

    @property
    def width(self) -> int:
        """H · C."""
        return self.heads * self.channels

    @property
    def row(self) -> int:
        """Numbers in the row of a source that other processes read."""
        extra = {"gat": self.heads, "gatv2": 0, "agnn": 1, "transformer": self.width}
        return self.width + extra[self.kind]

    @property
    def row_of_heads(self) -> int:
        """Numbers of a node that mode "heads" redistributes, without the results."""
        extra = {"gat": 2 * self.heads, "gatv2": self.width, "agnn": 2}
        return self.width + extra.get(self.kind, 2 * self.width)


class Problem(NamedTuple):
    """A graph, and what a partition of it cuts.

    Attributes:
        nodes: N.
        edges: E.
        halo: a name of HALO.
        spread: factor on the halo, for edges that reach further than those it was measured with.
        large: True if the features of a part do not fit into the caches.
    """

    nodes: int
    edges: int
    halo: str
    spread: float = 1.0
    large: bool = False


def halo_fraction(graph: str, parts: int) -> float:
    """Rows of all halos over N, interpolated between the measured numbers of parts."""
    values = HALO[graph]
    if parts == 1:
        return 0.0
    if not PARTS[0] <= parts <= PARTS[-1]:
        raise ValueError(f"parts is {parts}; expected 1, or {PARTS[0]} to {PARTS[-1]}")
    upper = next(i for i, count in enumerate(PARTS) if count >= parts)
    if PARTS[upper] == parts:
        return values[upper]
    first, last = (math.log(PARTS[i]) for i in (upper - 1, upper))
    share = (math.log(parts) - first) / (last - first)
    return math.exp((1 - share) * math.log(values[upper - 1]) + share * math.log(values[upper]))


def sent(problem: Problem, layer: Layer, parts: int, mode: str, size: int = 4) -> tuple[float, ...]:
    """Bytes that a process sends, (in the forward pass, in the backward pass), on average."""
    nodes = problem.nodes / parts
    if mode == "heads":
        away = nodes * (1 - 1 / parts) * size
        once = away * (layer.row_of_heads + layer.width)
        return once, once
    rows = halo_fraction(problem.halo, parts) * problem.spread * nodes
    once = rows * layer.row * size
    return once, once * (2 if mode == "sequential" else 1)


def kept(problem: Problem, layer: Layer, parts: int, mode: str, size: int = 4) -> float:
    """Bytes of rows of others that a process keeps from the forward to the backward pass.

    Mode "gather" keeps own and other rows in one tensor, mode "heads" all rows of some heads.
    """
    nodes = problem.nodes / parts
    rows = halo_fraction(problem.halo, parts) * problem.spread * nodes
    found = {
        "overlap": rows * layer.row,
        "sequential": 0.0,
        "gather": (nodes + rows) * layer.row,
        "heads": nodes * (layer.row_of_heads + layer.width),
    }
    return found[mode] * size


def compute_seconds(problem: Problem, layer: Layer, parts: int, speed: float = 1.0) -> float:
    """Forward and backward pass without exchange, of equal parts."""
    edge = EDGE[layer.kind] * layer.width * (LARGE[layer.kind] if problem.large else 1)
    node = MAPS[layer.kind] * MAP * layer.width**2
    return (problem.edges * edge + problem.nodes * node) / parts / speed * 1e-9


def exchange_seconds(
    problem: Problem, layer: Layer, parts: int, gbits: float, mode: str = "overlap"
) -> float:
    """Exchange of forward and backward pass; a machine sends and receives at once."""
    volume = sum(sent(problem, layer, parts, mode))
    messages = (parts - 1) * TENSORS[layer.kind] * (3 if mode == "sequential" else 2)
    return volume * 8 / (gbits * 1e9) + messages * LATENCY


def table(
    title: str, problem: Problem, layer: Layer, machines: Sequence[int], speed: float
) -> list[str]:
    """Rows of Markdown: the last four columns are seconds, all hidden / nothing hidden."""
    lines = [
        f"{title}",
        "",
        "| machines | sent [MB] | kept [GB] | compute [s] | exchange, 10 Gbit/s [s] "
        "| exchange, 100 Gbit/s [s] | layer, 10 Gbit/s [s] | layer, 100 Gbit/s [s] |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for count in machines:
        busy = compute_seconds(problem, layer, count, speed)
        waits = [exchange_seconds(problem, layer, count, gbits) for gbits in (10, 100)]
        cells = [
            f"{sent(problem, layer, count, 'overlap')[0] / 1e6:,.3g}",
            f"{kept(problem, layer, count, 'overlap') / 1e9:,.3g}",
            f"{busy:.3g}",
            *(f"{wait:.3g}" for wait in waits),
            *(f"{max(busy, wait):.3g} to {busy + wait:.3g}" for wait in waits),
        ]
        lines.append(f"| {count} | " + " | ".join(_plain(cell) for cell in cells) + " |")
    return [*lines, ""]


def _plain(cell: str) -> str:
    """Numbers without an exponent."""
    words = [f"{float(w):,.0f}" if "e+" in w else w for w in cell.split(" ")]
    return " ".join(words)


PAPERS = {
    name: Problem(111_059_956, 1_615_685_872, name, large=True) for name in ("power law", "cora")
}
MESH = {edges: Problem(542_080, 542_080 * edges, "mesh", spread=edges / 8) for edges in (8, 16)}


def report(heads: int, channels: int, speed: float) -> list[str]:
    """All tables."""
    lines = []
    for name, problem in PAPERS.items():
        layer = Layer("gat", heads, channels)
        title = f"ogbn-papers100M, GAT {heads} × {channels}, cut as {name}"
        lines += table(title, problem, layer, (4, 8, 16, 32, 64), speed)
    for (edges, problem), width in zip(MESH.items(), (512, 1024), strict=True):
        layer = Layer("transformer", 16, width // 16)
        title = f"n320, TransformerConv of {width} channels, {edges} in-edges a point"
        lines += table(title, problem, layer, (4, 8, 16, 32, 64), speed)
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--heads", type=int, default=4, help="of GAT")
    parser.add_argument("--channels", type=int, default=32, help="of each head of GAT")
    parser.add_argument("--speed", type=float, default=1.0, help="of a machine, over 2 threads")
    options = parser.parse_args(arguments)
    print("\n".join(report(options.heads, options.channels, options.speed)))


if __name__ == "__main__":
    main()
