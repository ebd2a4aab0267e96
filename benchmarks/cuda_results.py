"""The figures of the GPU benchmark, and how they are written: Markdown tables, a digest, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cuda_plan import Row
from cuda_traffic import FORWARD
from peers import PEERS

REPLAY = "gat_ext, replayed"
_SHORT = {REPLAY: "replay", "pyg-compiled": "comp"}
# Statuses: a figure; not run, for a reason; ran into an error; computed something else.
OK, LEFT_OUT, FAILED, WRONG = "ok", "left out", "failed", "wrong"


@dataclass
class Result:
    """One library on one row in one mode.

    Attributes:
        milliseconds: median; low and high are the tenth and the ninetieth percentile.
        gathered_bytes: by the model of ``cuda_traffic``; 0 for layers.
        share: gathered bytes over time, as a share of the copy bandwidth.
        added_bytes: of memory, at the peak of one call.
        feature_bytes: of the tensor whose rows are gathered.
        ratio: time over that of gat_ext.
        errors: by tensor, against float64.
    """

    row: Row
    mode: str
    library: str
    status: str = OK
    note: str = ""
    milliseconds: float | None = None
    low: float | None = None
    high: float | None = None
    samples: int = 0
    edges: int = 0
    gathered_bytes: int = 0
    unique_bytes: int = 0
    gbs: float | None = None
    share: float | None = None
    added_bytes: int | None = None
    feature_bytes: int = 0
    input_sets: int = 0
    ratio: float | None = None
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def ns_per_edge(self) -> float | None:
        if self.milliseconds is None:
            return None
        return 1e6 * self.milliseconds / max(self.edges, 1)

    @property
    def title(self) -> str:
        return PEERS[self.library].title if self.library in PEERS else self.library

    @property
    def is_ours(self) -> bool:
        return self.library in ("gat_ext", REPLAY)


@dataclass(frozen=True)
class GraphBuild:
    """Milliseconds to build a graph from a sorted and from a shuffled edge list, and its transpose."""

    graph: str
    nodes: int
    edges: int
    from_sorted: float
    from_shuffled: float
    transpose: float


@dataclass(frozen=True)
class Capture:
    """A forward and backward captured in a CUDA graph: are its replays, on new inputs, like eager?"""

    graph: str
    score: str
    dtype: str
    status: str
    note: str = ""


@dataclass
class Record:
    """All that was measured."""

    config: dict[str, Any]
    device: dict[str, Any]
    copy_gbs: float
    results: list[Result] = field(default_factory=list)
    builds: list[GraphBuild] = field(default_factory=list)
    captures: list[Capture] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: str | None = None

    def timed(self, library: str, mode: str) -> dict[Row, Result]:
        """The figures of a library in a mode by row, peers forgotten; the last where there are more."""
        return {
            key_of(r.row): r
            for r in self.results
            if r.library == library and r.mode == mode and r.milliseconds is not None
        }

    def problems(self) -> list[str]:
        """What makes the run a failure: a wrong result or an error of our own."""
        bad = [
            f"{r.row.label}, {r.mode}, {r.title}: {r.status}: {r.note}"
            for r in self.results
            if r.is_ours and r.status in (FAILED, WRONG)
        ]
        bad += [
            f"CUDA graph of {c.score} {c.dtype} on {c.graph}: {c.status}: {c.note}"
            for c in self.captures
            if c.status in (FAILED, WRONG)
        ]
        return [*bad, *([self.lost] if self.lost else [])]


def key_of(row: Row) -> Row:
    """A row whoever runs it."""
    return Row(row.graph, row.item, row.heads, row.channels, row.dtype, (), ())


# ---- text


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def milliseconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.1f}" if value >= 100 else f"{value:.3f}" if value >= 0.1 else f"{value:.4f}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


_COLUMNS = (
    "graph, item, shape", "mode", "library", "ms", "p10-p90", "ns/edge", "GB moved", "GB/s",
    "of copy", "added MB", "error", "× gat_ext", "note",
)  # fmt: skip


def _cells(r: Result) -> list[str]:
    spread = "" if r.low is None else f"{milliseconds(r.low)}-{milliseconds(r.high)}"
    return [
        r.row.label,
        r.mode,
        r.title,
        milliseconds(r.milliseconds),
        spread,
        _number(r.ns_per_edge, ".3f"),
        f"{r.gathered_bytes / 1e9:.3f}" if r.gathered_bytes and r.milliseconds else "",
        _number(r.gbs, ",.0f"),
        _number(r.share, ".0%"),
        "" if r.added_bytes is None else f"{r.added_bytes / 1e6:,.1f}",
        f"{max(r.errors.values()):.0e}" if r.errors else "",
        _number(r.ratio, ".2f"),
        "" if r.status == OK and not r.note else f"{r.status}: {r.note}".removeprefix("ok: "),
    ]


def results_table(results: Iterable[Result]) -> str:
    return markdown(_COLUMNS, (_cells(r) for r in results))


def builds_table(builds: Iterable[GraphBuild]) -> str:
    header = ("graph", "nodes", "edges", "Graph, sorted ms", "Graph, shuffled ms", "transpose ms")
    return markdown(
        header,
        (
            (
                b.graph,
                f"{b.nodes:,}",
                f"{b.edges:,}",
                *(milliseconds(ms) for ms in (b.from_sorted, b.from_shuffled, b.transpose)),
            )
            for b in builds
        ),
    )


def captures_table(captures: Iterable[Capture]) -> str:
    header = ("captured forward and backward", "dtype", "replays equal eager")
    rows = (
        (f"{c.graph}, {c.score}", c.dtype, "yes" if c.status == OK else f"{c.status}: {c.note}")
        for c in captures
    )
    return markdown(header, rows)


def targets_table(record: Record) -> str:
    rows = ((t.name, t.wanted, t.verdict, t.found) for t in record.targets)
    return markdown(("target", "wanted", "met", "found"), rows)


def digest(results: Sequence[Result]) -> str:
    """A short line for each of our rows: time and share in each mode, and its peers' times in ours."""
    lines: dict[Row, list[str]] = {}
    for r in results:
        if r.library != "gat_ext":
            continue
        row = r.row
        dtype = {"float32": "f32", "bfloat16": "b16"}.get(row.dtype, row.dtype)
        name = f"{row.graph[:10]:<10} {row.item:<12} {row.heads}x{row.channels} {dtype}"
        lines.setdefault(row, [f"{name:<32}"]).append(_digest_mode(r, results))
    return "\n".join(" | ".join(parts) for parts in lines.values())


def _digest_mode(r: Result, results: Sequence[Result]) -> str:
    mode = "fwd" if r.mode == FORWARD else "f+b"
    if r.milliseconds is None:
        return f"{mode} {r.status}: {r.note[:50]}"
    beside = [
        f"{_SHORT.get(p.library, p.library)} {_number(p.ratio, '.1f') or '-'}"
        for p in results
        if p.row == r.row and p.mode == r.mode and p.library != "gat_ext"
    ]
    share = _number(r.share, ".0%")
    return f"{mode} {milliseconds(r.milliseconds)} ms {share} {' '.join(beside)}".rstrip()


def report(record: Record) -> str:
    """The whole Markdown file."""
    device = record.device
    cache, memory = device["l2"] / 2**20, device.get("memory", 0) / 2**30
    parts = [
        f"# GPU benchmark: {device.get('name', device['device'])}",
        f"torch {device['torch']}, CUDA {device.get('cuda')}, {memory:.0f} GiB, L2 {cache:.0f} MiB. "
        f"A large copy moves {record.copy_gbs:,.0f} GB/s, read plus written.",
        "Times are medians. GB moved: index, every gathered row once for each edge, and every other "
        "tensor once (benchmarks/cuda_traffic.py). Rows that the cache still has make the share of the "
        "copy exceed what memory moved, and may exceed 100 %. Added MB: memory at the peak of a call.",
        results_table(record.results),
        "## Building graphs on the device",
        builds_table(record.builds),
        "## CUDA graphs",
        captures_table(record.captures),
        *(f"- {note}" for note in record.notes),
        "## Targets",
        "The times were set for an H200.",
        targets_table(record),
    ]
    problems = record.problems()
    if problems:
        parts += ["## Problems", "\n".join(f"- {problem}" for problem in problems)]
    return "\n\n".join(parts) + "\n"


def write(record: Record, out: Path) -> None:
    """``cuda.json``, ``cuda.md``, ``digest.txt`` and ``targets.md`` in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    as_json = asdict(record)
    for entry, result in zip(as_json["results"], record.results, strict=True):
        entry["ns_per_edge"] = result.ns_per_edge
    as_json["problems"] = record.problems()
    (out / "cuda.json").write_text(json.dumps(as_json, indent=1) + "\n")
    (out / "cuda.md").write_text(report(record))
    (out / "digest.txt").write_text(digest(record.results) + "\n")
    (out / "targets.md").write_text(targets_table(record) + "\n")
