"""Markdown of the tables of docs/benchmarks.md: text, cells and notes from records of run.py."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from report import OK, Row, graph_line, heading, place_and_date, read_rows, table

Record = dict[str, Any]


# ---- parts of a table


def ms(value: float) -> str:
    """Milliseconds with two or three digits."""
    return f"{value:.0f}" if value >= 50 else f"{value:.1f}" if value >= 5 else f"{value:.2f}"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table; the first line is its header."""
    every = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(
        f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|" for cells in every
    )


def wrapped(text: str) -> str:
    """A paragraph, or an item of a list."""
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(
        text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def source(run: str, record: Record) -> str:
    """Where, when, with what and by which command a file was measured."""
    names = {"torch": "torch", "torch_geometric": "PyG", "dgl": "DGL"}
    versions = {k: v for found in record["versions"].values() for k, v in found.items()}
    libraries = ", ".join(f"{name} {versions[k]}" for k, name in names.items() if k in versions)
    place = "; ".join(filter(None, [place_and_date(record), libraries]))
    line = wrapped(f"{place} ([{run}.json](measurements/{run}.json)):")
    return f"{line}\n\n    python {' '.join(record['command'])}"


def spread(values: Sequence[float]) -> str:
    """The range of some values, without decimals."""
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def remarks(rows: Sequence[Row]) -> list[str]:
    """The notes of rows, and why some have no figures; each once."""
    notes = [
        wrapped(f"- {row.label}{'' if row.status == OK else f' {row.status}'}: {row.note}")
        for row in rows
        if row.note
    ]
    return list(dict.fromkeys(notes))


def title_of(record: Record, row: Row) -> str:
    return row.title.replace(" layer", "", 1)


def graph_of(record: Record, row: Row) -> str:
    return str(row.setting["graph"])


# ---- tables of peers


def total(row: Row) -> str:
    """Forward and backward, and the ratio to the base."""
    ratio = row.ratio.get("total", 1.0)
    text = ms(row.median("total"))
    return f"**{text}**" if row.peer == "gat_ext" else f"{text} ({ratio:.2f}×)"


def parts(row: Row) -> str:
    """Forward / backward, peak memory, and the ratio to the base of both together."""
    text = f"{ms(row.median('forward'))} / {ms(row.median('backward'))}"
    memory = f", {row.memory['peak'] / 1e9:.2f} GB" if row.memory else ""
    if row.peer == "gat_ext":
        return f"**{text}**{memory}"
    return f"{text}{memory} ({row.ratio['total']:.1f}×)"


def mean(row: Row) -> str:
    """The mean of the epochs, and the ratio to those of the quiet machine."""
    return f"{ms(row.figures['mean [ms]'])} ({row.figures['× quiet']:.2f}×)"


def by_peer(
    legend: str,
    cell: Callable[[Row], str] = total,
    name: Callable[[Record, Row], str] = title_of,
    peers: Sequence[str] = (),
) -> Callable[[Sequence[Record]], str]:
    """A line for each item, or graph, and a column for each library."""

    def render(records: Sequence[Record]) -> str:
        rows = [(record, row) for record in records for row in read_rows(record)]
        rows = [(record, row) for record, row in rows if not peers or row.peer in peers]
        shown = [(record, row) for record, row in rows if row.timed]
        labels = list(dict.fromkeys(row.label for _, row in shown))
        lines: dict[str, dict[str, str]] = {}
        for record, row in shown:
            lines.setdefault(name(record, row), {})[row.label] = cell(row)
        cells = [["", *labels]]
        cells += [
            [line, *(found.get(label, "") for label in labels)] for line, found in lines.items()
        ]
        first = shown[0][1]
        rounds = f"medians of {records[0]['options']['rounds']} interleaved rounds"
        graph = [graph_line(first)] if len(records) == 1 and first.nodes else []
        notes = remarks([row for _, row in rows])
        paragraphs = [wrapped("; ".join([legend, rounds, *graph]) + "."), markdown(cells)]
        return "\n\n".join([*paragraphs, *(["\n".join(notes)] if notes else [])])

    return render


def layers(records: Sequence[Record]) -> str:
    """The layers of four libraries, with the limits that were measured in the same rounds."""
    legend = (
        "Milliseconds, forward / backward, and the peak memory of a process that runs it; in "
        "brackets forward and backward together over gat_ext"
    )
    peers = ("gat_ext", "pyg", "pyg-compiled", "dgl")
    rows = [row for record in records for row in read_rows(record) if row.timed]
    ours = [row for row in rows if row.peer == "gat_ext"]
    maps = [row for row in ours if row.projections]
    worst = max(max(row.errors.values()) for row in rows if row.peer in peers)
    unit = 10.0 ** (math.floor(math.log10(worst)) - 1)
    gather = spread([row.median("gather") for row in ours])
    forward, backward = (
        spread([row.median(f"projection {part}") for row in maps])
        for part in ("forward", "backward")
    )
    line = (
        f"Gathering the same rows and nothing else takes {gather} ms there with torch's "
        f"`embedding_bag`; torch's own `Linear` of that width {forward} / {backward} ms. The error "
        "of every output and gradient, the norm of the difference from float64 over the norm, is "
        f"at most {math.ceil(worst / unit) * unit:.1e} for all libraries."
    ).replace("e-0", "e-")
    return f"{by_peer(legend, parts, peers=peers)(records)}\n\n{wrapped(line)}"


# ---- other tables


def groups(records: Sequence[Record]) -> str:
    """The tables that the terminal had."""
    benches = dict.fromkeys(f"`bench_{row.bench}.py`" for r in records for row in read_rows(r))
    text = [wrapped(f"Times in milliseconds; the columns are those of {' and '.join(benches)}.")]
    for record in records:
        for _, found in itertools.groupby(read_rows(record), lambda row: row.title):
            rows = list(found)
            body = table(rows).replace("|\n- ", "|\n\n- ")
            text.append(f"{wrapped(f'**{heading(rows)}**')}\n\n{body}")
    return "\n\n".join(text)


# A line of the table, the sweep, and the point that is compared with the sweep's base.
_STANDARD = "memory of a step"
_SWEEPS = [
    ("one thread over two", "threads", "1"),
    ("steepest power law over uniform", "degree distribution", "power law 2.2"),
    ("shuffled mesh over `reorder`ed", "numbering of a mesh", "shuffled"),
    ("float32 over bfloat16, features beyond the caches", "dtype, features beyond", "float32"),
    ("most edges over fewest", "edges E", None),
]
_OPERATORS = {
    "gat_attention": "GAT",
    "gatv2_attention": "GATv2",
    "dot_attention": "QKV",
    "cosine_attention": "AGNN",
}


def sweeps(records: Sequence[Record]) -> str:
    """The ends of the sweeps, and the largest graph."""
    (record,) = records
    rows = [row for row in read_rows(record) if row.timed]

    def point(item: str, title: str, label: str | None) -> Row | None:
        found = [row for row in rows if row.item == item and row.title.startswith(title)]
        return next((row for row in reversed(found) if label in (None, row.label)), None)

    def line(text: str, title: str, label: str | None, cell: Callable[[Row], str]) -> list[str]:
        points = [point(item, title, label) for item in _OPERATORS]
        return [text, *("" if found is None else cell(found) for found in points)]

    def ratios(row: Row) -> str:
        pair = (row.ratio["forward"], row.ratio["total"])
        return " / ".join(f"{value:.1f}" if value >= 1 else f"{value:.2f}" for value in pair)

    def over(part: str) -> Callable[[Row], str]:
        return lambda row: f"{row.over_limit(part) or math.nan:.2f}"

    lines = [
        line("forward over the limit", _STANDARD, None, over("forward")),
        line("forward and backward over the limit", _STANDARD, None, over("total")),
        *(line(f"{text}, forward / both", *where, ratios) for text, *where in _SWEEPS),
        line(
            "memory of a step beyond its results, of E · H · 4 bytes",
            _STANDARD,
            None,
            lambda row: "" if row.beyond is None else f"{row.beyond:.2f}",
        ),
    ]
    legend = (
        "Times an edge, over those of another point of the sweep; medians of rounds that time both "
        "in turn. The limit is the time in which `embedding_bag` gathers and sums the same rows"
    )
    standard = point("gat_attention", _STANDARD, None)
    text = [
        wrapped(f"{legend}{f': {graph_line(standard)}' if standard else ''}."),
        markdown([["", *_OPERATORS.values()], *lines]),
    ]
    epoch = point("gat_epoch_wide", "", None)
    building = point("graph", "", None)
    if epoch is not None and building is not None:
        peak = f" and {epoch.memory['peak'] / 1e9:.1f} GB at its peak" if epoch.memory else ""
        text.append(
            wrapped(
                f"An epoch of a two-layer GAT on {epoch.nodes:,} nodes and {epoch.edges:,} edges "
                f"takes {epoch.median('total') / 1e3:.1f} s{peak}; building that graph "
                f"{building.median('total') / 1e3:.2f} s."
            )
        )
    return "\n\n".join(text)
