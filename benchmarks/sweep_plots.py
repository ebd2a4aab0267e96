"""The sweeps as a picture: a panel for each parameter, nanoseconds an edge, the limit beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweep_plan import ATTENTIONS, Sweep
from sweep_results import Record, Row

_COLOURS = dict(zip(ATTENTIONS, ("#4477aa", "#aa3377", "#228833", "#ccbb44"), strict=True))
_MARKERS = dict(zip(ATTENTIONS, "osD^", strict=True))
_LIMIT = "#cc3311"
_PARTS = {"forward": "forward", "total": "forward and backward"}


def write_png(folder: Path, record: Record, sweeps: list[Sweep]) -> Path:
    """Draws what was timed; the file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a chart needs matplotlib: pip install 'gat_ext[train]'") from error
    timed = {row.sweep for row in record.rows if row.timed}
    drawn = [sweep for sweep in sweeps if sweep.name in timed]
    figure = Figure(figsize=(11, 0.7 + 2.9 * len(drawn)), layout="constrained")
    grid = figure.subplots(len(drawn), 2, squeeze=False)
    for axes, sweep in zip(grid, drawn, strict=True):
        for axis, part in zip(axes, _PARTS, strict=True):
            _panel(axis, record, sweep, part)
    handles, labels = [], []
    for axis in grid.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    figure.legend(handles, labels, loc="outside upper center", ncols=6, fontsize=8)
    path = folder / "sweeps.png"
    figure.savefig(path, dpi=110)
    return path


def _panel(axis: Any, record: Record, sweep: Sweep, part: str) -> None:
    places = _places(list(sweep.points))
    gathers: dict[str, list[float]] = {}
    for operator in ATTENTIONS:
        rows = record.timed(sweep.name, operator)
        if not rows:
            continue
        axis.plot(
            [places[label] for label in rows],
            [row.ns_per_edge(part) for row in rows.values()],
            color=_COLOURS[operator],
            marker=_MARKERS[operator],
            markersize=5,
            linewidth=1.2 if _is_number(sweep) else 0,
            label=operator,
        )
        _collect(gathers, rows)
    limit = {label: sorted(values)[len(values) // 2] for label, values in gathers.items()}
    for count, style in ((1, "--"), (2, ":")) if part == "forward" else ((1, "--"),):
        axis.plot(
            [places[label] for label in limit],
            [count * value for value in limit.values()],
            color=_LIMIT,
            linestyle=style,
            marker="_",
            markersize=12,
            label="gather limit" if count == 1 else "two gathers (dot)",
        )
    if _is_number(sweep):
        axis.set_xscale("log")
    axis.set_xticks(list(places.values()), [_short(label) for label in places])
    axis.set_xticks([], minor=True)
    axis.tick_params(labelsize=8)
    axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(f"{sweep.title}: {_PARTS[part]}", fontsize=10, loc="left")
    axis.set_ylabel("ns an edge", fontsize=8)


def _collect(gathers: dict[str, list[float]], rows: dict[str, Row]) -> None:
    for label, row in rows.items():
        gathers.setdefault(label, []).append(row.ns_per_edge("gather"))


def _is_number(sweep: Sweep) -> bool:
    return all(label.isdigit() for label in sweep.points)


def _places(labels: list[str]) -> dict[str, float]:
    """Where values stand: by size where they are numbers, else side by side."""
    if all(label.isdigit() for label in labels):
        return {label: float(label) for label in labels}
    return {label: float(place) for place, label in enumerate(labels)}


def _short(label: str) -> str:
    """1000000 as 1 M, and the name of an order on a line of its own."""
    if not label.isdigit():
        return label.replace(", ", ",\n")
    for unit, size in (("M", 1_000_000), ("k", 1000)):
        if int(label) >= size:
            return f"{int(label) / size:g} {unit}"
    return label
