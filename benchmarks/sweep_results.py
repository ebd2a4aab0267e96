"""The figures of the sweeps: what was sampled, what follows from it, tables and JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench_operators import OPERATORS
from sweep_plan import Point

LEGEND = (
    "forward, both: milliseconds of the forward, and of forward and backward; medians of the\n"
    "rounds, which visit all points of a sweep in turn. ns: nanoseconds an edge. gather: the limit,\n"
    "a bare loop over the same edges that sums a row of features for each (embedding_bag, which is\n"
    "as fast in 16 bits; for float64, float32 rows of as many bytes, since its own loop is slow).\n"
    "×: over the gather limit timed beside it in each round, over two gathers for dot_attention.\n"
    "copy: GB/s of a large copy, read and written. error: the largest difference from float64."
)
PARTS = ("forward", "total")


@dataclass
class Row:
    """One operator at one point of a sweep; ``status`` is ok, left out, failed or wrong."""

    sweep: str
    label: str
    point: Point
    operator: str
    status: str = "ok"
    note: str = ""
    error: float | None = None
    graph: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.operator.removesuffix("_attention")

    @property
    def timed(self) -> bool:
        return bool(self.samples)

    @property
    def rounds(self) -> int:
        return len(self.samples.get("copy", ()))

    @property
    def gathers(self) -> int:
        """Passes over E rows that the forward cannot do without."""
        return OPERATORS[self.operator].gathers

    def add(self, copy: float, times: dict[str, list[float]]) -> None:
        """A round's samples, by their median."""
        self.samples.setdefault("copy", []).append(copy)
        for part, values in times.items():
            self.samples.setdefault(part, []).append(statistics.median(values))

    def median(self, part: str) -> float:
        return statistics.median(self.samples[part])

    def ns_per_edge(self, part: str) -> float:
        return 1e6 * self.median(part) / int(self.graph["num_edges"])

    def ratios(self, part: str) -> list[float]:
        """Over the gather limit of the same round."""
        pairs = zip(self.samples[part], self.samples["gather"], strict=True)
        return [own / (self.gathers * gather) for own, gather in pairs]

    def record(self) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        if self.timed:
            figures = {
                "milliseconds": {part: self.median(part) for part in (*PARTS, "gather")},
                "ns_per_edge": {part: self.ns_per_edge(part) for part in (*PARTS, "gather")},
                "over_gather_limit": {p: statistics.median(self.ratios(p)) for p in PARTS},
                "copy_gb_per_s": self.median("copy"),
            }
        return {**asdict(self), **figures}


@dataclass
class Record:
    """A run. ``memory`` has an operator's bytes, ``epoch`` what the epoch took or why it did not."""

    config: dict[str, Any]
    standard: Point
    rows: list[Row] = field(default_factory=list)
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    epoch: dict[str, Any] = field(default_factory=dict)
    targets: list[dict[str, Any]] = field(default_factory=list)

    def timed(self, sweep: str, operator: str) -> dict[str, Row]:
        """The rows of a sweep and operator that were timed, by label."""
        return {
            row.label: row
            for row in self.rows
            if row.sweep == sweep and row.operator == operator and row.timed
        }

    def problems(self) -> list[str]:
        """What makes the run fail: wrong results, and failures that are none of memory."""
        found = [
            f"{row.sweep} {row.label} {row.title} {row.status}: {row.note}"
            for row in self.rows
            if row.status in ("wrong", "failed")
        ]
        others = {
            **{f"memory of {name}": m for name, m in self.memory.items()},
            "epoch": self.epoch,
        }
        bad = ((name, m) for name, m in others.items() if m.get("status") in ("wrong", "failed"))
        return [*found, *(f"{name} {m['status']}: {m['note']}" for name, m in bad)]

    def write(self, path: Path) -> None:
        """Everything, as far as it is done."""
        done = {**asdict(self), "rows": [row.record() for row in self.rows]}
        path.write_text(json.dumps(done, indent=1) + "\n")


# ---- tables


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table in aligned Markdown, the first two columns to the left."""
    cells = [header, *rows]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]

    def line(row: list[str]) -> str:
        padded = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    dashes = ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(header), line(dashes), *map(line, rows)])


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def sweep_table(title: str, rows: list[Row]) -> str:
    """The rows of one sweep, and a line for each that has no figures."""
    header = [title, "operator", "forward", "both", "gather", "ns forward", "ns both", "ns gather",
              "× forward", "× both", "copy", "error", "rounds"]  # fmt: skip
    cells = []
    for row in (row for row in rows if row.timed):
        times = [number(row.median(part)) for part in (*PARTS, "gather")]
        per_edge = [number(row.ns_per_edge(part)) for part in (*PARTS, "gather")]
        ratios = [f"{statistics.median(row.ratios(part)):.2f}" for part in PARTS]
        rest = [number(row.median("copy")), f"{row.error or 0:.0e}", str(row.rounds)]
        cells.append([row.label, row.title, *times, *per_edge, *ratios, *rest])
    # A point that could not be prepared has one reason for all of its operators.
    notes = dict.fromkeys(
        f"{row.label}: {row.status}: {row.note}" for row in rows if row.status != "ok"
    )
    orders = dict.fromkeys(
        f"{row.label}: renumbering took {row.graph['reorder_seconds']:.2f} s"
        for row in rows
        if row.graph.get("reorder_seconds")
    )
    table = [markdown(header, cells)] if cells else [title]
    return "\n".join([*table, *(f"- {note}" for note in (*notes, *orders))])


def memory_table(memory: dict[str, dict[str, Any]]) -> str:
    """Peak of a step beside what it is judged by."""
    header = ["memory of a step", "status", "beyond in- and outputs, MB", "× E·H·4 bytes"]
    cells = [
        [
            name,
            found["status"] + (f": {found['note']}" if found.get("note") else ""),
            number(found["extra"] / 1e6) if "extra" in found else "",
            f"{found['ratio']:.2f}" if "ratio" in found else "",
        ]
        for name, found in memory.items()
    ]
    return markdown(header, cells)


def epoch_lines(epoch: dict[str, Any]) -> str:
    """The epoch in a sentence."""
    if epoch["status"] != "ok":
        return f"training epoch {epoch['status']}: {epoch['note']}"
    return (
        f"training epoch of a two-layer GAT, N = {epoch['num_nodes']:,}, "
        f"E = {epoch['num_edges']:,}: {number(epoch['epoch_seconds'])} s "
        f"(the first {number(epoch['first_epoch_seconds'])} s, building the graph "
        f"{number(epoch['build_seconds'])} s), peak memory {epoch['peak'] / 1e9:.3g} GB"
    )
