"""The figures for people and for programs: a table on the terminal, and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers import PEERS
from session import Outcome, Row

_WIDTH = 120
_COLUMNS = (
    "",
    "forward ms",
    "backward ms",
    "total ms",
    "× gat_ext",
    "peak RSS",
    "step adds",
    "error",
)
LEGEND = (
    "total: forward, backward and, for an epoch, the optimizer. × gat_ext: total over gat_ext's.\n"
    "peak RSS: of a process that runs this alone. step adds: how far one step raises it.\n"
    "error: norm of the difference from the reference as a share of the norm, the largest over the "
    "output and every gradient."
)


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value >= 10 else f"{value:.3f}"


def _bytes(value: int | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


def _peer_cells(name: str, row: Row) -> list[str]:
    memory = row.memory or {}
    error = "reference" if not row.errors and row.reference else ""
    return [
        PEERS[name].title,
        *(_milliseconds(row.median.get(part)) for part in ("forward", "backward", "total")),
        f"{row.ratio['total']:.2f}" if row.ratio else "",
        _bytes(memory.get("peak")),
        _bytes(memory.get("increase")),
        f"{row.error:.1e}" if row.error is not None else error,
    ]


def _limit_cells(outcome: Outcome) -> list[list[str]]:
    cells = []
    if outcome.gathers:
        gather = outcome.gathers * outcome.limit("gather")
        label = "limit: gather rows" + (f" × {outcome.gathers}" if outcome.gathers > 1 else "")
        cells.append([label, _milliseconds(gather), "", "", "", "", "", ""])
    if outcome.projections:
        parts = [
            outcome.projections * outcome.limit(f"projection_{part}")
            for part in ("forward", "backward")
        ]
        times = [_milliseconds(value) for value in (*parts, sum(parts))]
        cells.append([f"projections alone × {outcome.projections}", *times, "", "", "", ""])
    return cells


def table(outcome: Outcome) -> list[list[str]]:
    """The cells: the header, the peers that were timed, and the limits of the machine."""
    peers = [_peer_cells(name, row) for name, row in outcome.rows.items() if row.median]
    return [list(_COLUMNS), *peers, *_limit_cells(outcome)]


def remarks(outcome: Outcome) -> list[str]:
    """What stands below the table: limits, who was left out and why, what to know to compare."""
    lines = [f"copy bandwidth {outcome.limit('copy'):.1f} GB/s (read and written)"]
    if outcome.excess is not None:
        less = " less the projections" if outcome.projections else ""
        lines.append(f"gat_ext's forward{less} takes {outcome.excess:.2f} × the gather limit")
    for name, row in outcome.rows.items():
        if row.status != "ok":
            lines.append(f"{PEERS[name].title} {row.status}: {row.reason}")
    return lines + outcome.notes


def heading(outcome: Outcome, config: dict[str, Any]) -> str:
    """One line: what was run on what."""
    case, setting = outcome.case, config["setting"]
    return (
        f"{outcome.title}: {case['graph']}, N = {case['num_nodes']:,}, E = {case['num_edges']:,} "
        f"(in-degree median {case['median_in_degree']}, largest {case['max_in_degree']:,}), "
        f"{setting['heads']} × {setting['channels']} {setting['dtype']}, "
        f"threads {config['threads']}, medians of {config['repeats']} rounds"
    )


def show(outcome: Outcome, config: dict[str, Any]) -> None:
    """Prints the table: with rich where it is installed, else as plain text."""
    header, *rows = table(outcome)
    title = heading(outcome, config)
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(f"\n{title}\n{plain([header, *rows])}")
        print("\n".join(f"  {line}" for line in remarks(outcome)))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, _WIDTH)
    grid = Table()
    for column in header:
        grid.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    console.print(f"\n{title}", markup=False)
    console.print(grid)
    console.print("\n".join(f"  {line}" for line in remarks(outcome)), markup=False)


def plain(cells: list[list[str]]) -> str:
    """Cells in aligned columns, the first to the left."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = []
    for row in cells:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *rest]).rstrip())
    return "\n".join(lines)


def machine_lines(machine: dict[str, Any]) -> str:
    """The machine, and a warning where it is busy."""
    line = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB"
    if machine["load"] > 0.5:
        line += f"\nother programs are running (load {machine['load']:.1f}): times will be too long"
    return line


def record(outcome: Outcome) -> dict[str, Any]:
    """Everything about an item, every sample included."""
    limits = {
        key: {"median": outcome.limit(key), "samples": outcome.limits[key]}
        for key in outcome.limits
    }
    return {
        "benchmark": outcome.bench,
        "title": outcome.title,
        "case": outcome.case,
        "peers": {name: asdict(row) for name, row in outcome.rows.items()},
        "limits": limits,
        "gathers": outcome.gathers,
        "projections": outcome.projections,
        "forward_over_gather_limit": outcome.excess,
        "notes": outcome.notes,
    }


def write_json(path: Path, config: dict[str, Any], outcomes: dict[str, Outcome]) -> None:
    """The configuration, versions and machine, and every item's record."""
    items = {name: record(outcome) for name, outcome in outcomes.items()}
    path.write_text(json.dumps({**config, "items": items}, indent=1) + "\n")
