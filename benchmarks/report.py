"""Row, the record of every measurement, as a table on the terminal and as JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

OK, LEFT_OUT, FAILED, WRONG = "ok", "left out", "failed", "wrong"

LEGEND = (
    "Times are medians over rounds in milliseconds; total: forward, backward and, for an epoch,\n"
    "the optimizer. × base: time per edge over that of the row with 1.00, in the same rounds.\n"
    "limit: time of only gathering the same rows over the same edges (embedding_bag).\n"
    "of copy: bytes that the pass moves per second, over the bandwidth of a large copy.\n"
    "peak: memory of a process that runs only this; step adds: increase during one step;\n"
    "beyond results: this increase without output and gradients, in units of E·H·4 bytes.\n"
    "error: norm of the difference from float64 over the norm, the largest of the output and all\n"
    "gradients."
)


@dataclass
class Row:
    """The figures of one point.

    Attributes:
        status: OK, or the reason for missing figures: LEFT_OUT (no failure), FAILED, WRONG.
        note: details of the status, or what to know for a comparison.
        reference: the library with which the results were compared.
        errors: by result, the difference from the reference.
        samples: by part, a figure for each round: milliseconds, or GB/s for "copy".
        ratio: by part, the time per edge relative to the base.
        moved: by part, the bytes to move.
        figures: what else was measured, by the name of its column.
    """

    bench: str
    item: str
    title: str
    label: str
    peer: str = "gat_ext"
    setting: dict[str, Any] = field(default_factory=dict)
    nodes: int = 0
    edges: int = 1
    gathers: int = 0
    projections: int = 0
    status: str = OK
    note: str = ""
    reference: str = ""
    errors: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    ratio: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def timed(self) -> bool:
        return bool(self.samples)

    def median(self, part: str) -> float:
        return statistics.median(self.samples[part])

    @property
    def limit(self) -> float | None:
        """Milliseconds of gathering only; None if nothing is gathered."""
        if not self.gathers or "gather" not in self.samples:
            return None
        return self.gathers * self.median("gather")

    def over_limit(self, part: str) -> float | None:
        """Median over rounds of the time relative to the limit of the same round."""
        if self.limit is None or self.projections:
            return None
        pairs = zip(self.samples[part], self.samples["gather"], strict=True)
        return statistics.median(own / (self.gathers * gather) for own, gather in pairs)

    def of_copy(self, part: str) -> float | None:
        """Share of the bandwidth of a large copy, on a GPU."""
        if part not in self.moved or self.setting.get("device") == "cpu":
            return None
        return self.moved[part] / self.median(part) / 1e6 / self.median("copy")

    @property
    def beyond(self) -> float | None:
        """Increase of memory in a step without its results, over E·H·4 bytes."""
        if not self.memory:
            return None
        extra = max(self.memory["increase"] - self.memory["kept"], 0)
        return extra / (4 * self.edges * self.setting["heads"])

    def record(self) -> dict[str, Any]:
        medians = {part: self.median(part) for part in self.samples}
        over = {p: self.over_limit(p) for p in ("forward", "total") if p in self.samples}
        return {**asdict(self), "median": medians, "over_limit": over}


# ---- table


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value >= 10 else f"{value:.3f}"


def _bytes(value: int | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


def _plain(form: str, value: float | None) -> str:
    return "" if value is None else format(value, form)


def _median(part: str) -> Callable[[Row], str]:
    return lambda row: _ms(row.median(part)) if part in row.samples else ""


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "": lambda row: row.label,
    "forward": _median("forward"),
    "backward": _median("backward"),
    "total": _median("total"),
    "× base fwd": lambda row: _plain(".2f", row.ratio.get("forward")),
    "× base": lambda row: _plain(".2f", row.ratio.get("total")),
    "limit": lambda row: _ms(row.limit),
    "× limit fwd": lambda row: _plain(".2f", row.over_limit("forward")),
    "× limit": lambda row: _plain(".2f", row.over_limit("total")),
    "of copy fwd": lambda row: _plain(".0%", row.of_copy("forward")),
    "of copy": lambda row: _plain(".0%", row.of_copy("total")),
    "peak": lambda row: _bytes(row.memory.get("peak")),
    "step adds": lambda row: _bytes(row.memory.get("increase")),
    "beyond results": lambda row: _plain(".2f", row.beyond),
    "mean": lambda row: _ms(row.figures.get("mean [ms]")),
    "× quiet": lambda row: _plain(".2f", row.figures.get("× quiet")),
    "cut": lambda row: _plain(".1%", row.figures.get("cut")),
    "halo": lambda row: _plain(".1%", row.figures.get("halo")),
    "edges": lambda row: _plain(".2f", row.figures.get("edges")),
    "nodes": lambda row: _plain(".2f", row.figures.get("nodes")),
    "parts [ms]": lambda row: _ms(row.figures.get("parts [ms]")),
    "speed-up": lambda row: _plain(".2f", row.figures.get("speed-up")),
    "memory [MB]": lambda row: _plain(",.0f", row.figures.get("memory [MB]")),
    "memory": lambda row: _plain(".2f", row.figures.get("memory")),
    "sent [MB]": lambda row: _plain(",.1f", row.figures.get("sent [MB]")),
    "error": lambda row: f"{max(row.errors.values()):.0e}" if row.errors else "",
}


def table(rows: Sequence[Row]) -> str:
    """The timed rows as an aligned Markdown table without empty columns, then remarks."""
    timed = [row for row in rows if row.timed]
    columns = {name: [cell(row) for row in timed] for name, cell in _COLUMNS.items()}
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    lines = []
    if columns:
        widths = [max(3, *(len(cell) for cell in (name, *columns[name]))) for name in columns]
        header = [list(columns), ["-" * width for width in widths]]
        for cells in [*header, *map(list, zip(*columns.values(), strict=True))]:
            rest = (c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))
            lines.append("| " + " | ".join([cells[0].ljust(widths[0]), *rest]) + " |")
    return "\n".join([*lines, *_remarks(rows)])


def _remarks(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        if row.status != OK or row.note:
            status = "" if row.status == OK else f" {row.status}"
            lines.append(f"- {row.label}{status}: {row.note}")
    first = next((row for row in rows if row.timed), None)
    if first is not None and "copy" in first.samples:
        lines.append(f"- a large copy moves {first.median('copy'):,.1f} GB/s, read plus written")
    if first is not None and "projection forward" in first.samples and first.projections:
        parts = [_ms(first.median(f"projection {part}")) for part in ("forward", "backward")]
        lines.append(
            f"- a projection alone takes {' / '.join(parts)} ms, the layer has {first.projections}"
        )
    return lines


def heading(rows: Sequence[Row]) -> str:
    """One line with the item, graph and setting."""
    row = next((row for row in rows if row.timed), rows[0])
    return f"{row.title}: {graph_line(row)}" if row.nodes else row.title


def graph_line(row: Row) -> str:
    """The graph and setting of a row."""
    s = row.setting
    threads = f"{s['threads'] or 'all'} thread{'' if s['threads'] == 1 else 's'}"
    return (
        f"{s['graph']}, N = {row.nodes:,}, E = {row.edges:,}, "
        f"{s['heads']} × {s['channels']} {s['dtype']}, {threads}, {s['device']}"
    )


def show(rows: Sequence[Row]) -> None:
    """Prints a table."""
    print(f"\n{heading(rows)}\n{table(rows)}", flush=True)


# ---- JSON


def machine() -> dict[str, Any]:
    """Processor, its widest vectors, cores, memory, system and current load."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    vectors = [flag for flag in ("avx512f", "avx2") if flags and flag in flags[1].split()]
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "vectors": vectors[0] if vectors else "",
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": platform.platform(),
        "load": os.getloadavg()[0],
    }


def machine_lines(machine: dict[str, Any]) -> str:
    """The machine, and a warning if it is busy."""
    line = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB"
    if machine["load"] > 0.5:
        line += f"\nother programs are running (load {machine['load']:.1f}): times will be too long"
    return line


def write_json(path: Path, config: dict[str, Any], rows: Sequence[Row]) -> None:
    """Writes the configuration, and all rows with all samples."""
    record = {**config, "rows": [row.record() for row in rows]}
    text = json.dumps(record, indent=1)
    numbers = re.compile(r"\[[\d\s.,e+-]+\]")  # a list of them is one line
    path.write_text(numbers.sub(lambda found: " ".join(found[0].split()), text) + "\n")


def read_rows(record: dict[str, Any]) -> list[Row]:
    """The rows of a file that ``write_json`` wrote."""
    names = [field.name for field in fields(Row)]
    return [Row(**{name: row[name] for name in names if name in row}) for row in record["rows"]]


def place_and_date(record: dict[str, Any]) -> str:
    """The machine and the day of a file that ``write_json`` wrote."""
    machine, vectors = record["machine"], record["machine"].get("vectors", "")
    instructions = {"avx512f": " with AVX-512", "avx2": " with AVX2"}.get(vectors, "")
    return (
        f"{machine['cpu']}{instructions}, {machine['cores']} cores, "
        f"{machine['memory'] / 2**30:.0f} GiB, {record['started'][:10]}"
    )


def problems(rows: Sequence[Row]) -> list[str]:
    """The reasons for exit status 1: wrong results, and failures of gat_ext."""
    return [
        f"{row.item}: {row.label} {row.status}: {row.note}"
        for row in rows
        if row.status == WRONG or (row.status == FAILED and row.peer.startswith("gat_ext"))
    ]
