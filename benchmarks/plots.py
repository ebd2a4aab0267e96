"""The figures as pictures: a row of bars for each item, time on the left, memory on the right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peers import PEERS
from session import Outcome

_FORWARD, _BACKWARD, _MEMORY, _LIMIT = "#4477aa", "#88ccee", "#999933", "#cc3311"


def write_pngs(folder: Path, outcomes: dict[str, Outcome]) -> list[Path]:
    """Draws what was timed, a picture for each benchmark; the files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a chart needs matplotlib: pip install 'gat_ext[train]'") from error
    timed = [
        outcome for outcome in outcomes.values() if any(row.median for row in outcome.rows.values())
    ]
    files = []
    for bench in sorted({outcome.bench for outcome in timed}):
        files.append(folder / f"{bench}.png")
        _draw(Figure, [outcome for outcome in timed if outcome.bench == bench]).savefig(
            files[-1], dpi=130
        )
    return files


def _draw(figure_type: Any, timed: list[Outcome]) -> Any:
    heights = [1 + sum(bool(row.median) for row in outcome.rows.values()) for outcome in timed]
    figure = figure_type(
        figsize=(11, 1 + 0.42 * sum(heights) + 0.4 * len(timed)), layout="constrained"
    )
    axes = figure.subplots(len(timed), 2, squeeze=False, height_ratios=heights)
    for (left, right), outcome in zip(axes, timed, strict=True):
        _times(left, outcome)
        _memory(right, outcome)
    handles = {
        label: handle
        for axis in axes[:, 0]
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=4, fontsize=8)
    return figure


def _bars(axis: Any, outcome: Outcome) -> list[str]:
    names = [name for name, row in outcome.rows.items() if row.median]
    axis.set_yticks(range(len(names)), [PEERS[name].title for name in names])
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    return names


def _times(axis: Any, outcome: Outcome) -> None:
    names = _bars(axis, outcome)
    medians = [outcome.rows[name].median for name in names]
    forward = [median["forward"] for median in medians]
    rest = [median["total"] - median["forward"] for median in medians]
    axis.barh(range(len(names)), forward, color=_FORWARD, label="forward")
    totals = axis.barh(
        range(len(names)),
        rest,
        left=forward,
        color=_BACKWARD,
        label="backward (epoch: and optimizer)",
    )
    axis.bar_label(totals, [f" {median['total']:,.4g}" for median in medians], fontsize=8)
    if outcome.gathers:
        limit = outcome.gathers * outcome.limit("gather")
        axis.axvline(
            limit, color=_LIMIT, linewidth=1, linestyle="--", label="gather limit, forward"
        )
    axis.margins(x=0.12)
    case = outcome.case
    axis.set_title(
        f"{outcome.title} ({case['graph']}, E = {case['num_edges']:,})", fontsize=10, loc="left"
    )
    axis.set_xlabel("ms", fontsize=8)


def _memory(axis: Any, outcome: Outcome) -> None:
    names = _bars(axis, outcome)
    found = [(outcome.rows[name].memory or {}).get("increase", 0) / 1e6 for name in names]
    bars = axis.barh(range(len(names)), found, color=_MEMORY)
    axis.bar_label(
        bars, [f" {value:,.4g}" if value else " not measured" for value in found], fontsize=8
    )
    axis.margins(x=0.15)
    axis.set_title("memory that one step adds", fontsize=10, loc="left")
    axis.set_xlabel("MB", fontsize=8)
