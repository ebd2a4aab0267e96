"""Pictures of a run: learning curves, and how far attention is from uniform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gat_ext.training.epochs import SeedResult
from gat_ext.training.files import replacing
from gat_ext.training.metrics import Metric, entropies, is_uniform

# Colours that colour-blind readers can tell apart: Okabe and Ito, "Color Universal Design", 2008.
BLUE, ORANGE = "#0072B2", "#D55E00"
_TRAIN, _VALIDATION, _UNIFORM = BLUE, ORANGE, "#999999"
_COLUMNS = 4  # panels side by side
_BINS = 40


def require() -> Any:
    """Matplotlib's pyplot, drawing to files alone.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'gat_ext[train]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def curves(
    results: list[SeedResult], metric: Metric, title: str, path: Path, unit: str = "seed"
) -> None:
    """Loss and validation score by epoch: the mean and range of the seeds that reached the epoch.

    Args:
        results: one for each seed; a dot marks the epoch whose weights were kept.
        metric: what the score is.
        title: of the figure.
        path: PNG to write.
        unit: what one of the results is of.
    """
    pyplot = require()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    _curve(left, [r.history["train_loss"] for r in results], _TRAIN, "while training")
    _curve(left, [r.history["val_loss"] for r in results], _VALIDATION, "validation")
    scores = [list(map(metric.shown, r.history["val_score"])) for r in results]
    _curve(right, scores, _VALIDATION, "validation")
    kept = [r.best_epoch for r in results if r.best_epoch]
    at = [s[r.best_epoch - 1] for r, s in zip(results, scores, strict=True) if r.best_epoch]
    right.plot(kept, at, "o", color="black", markersize=4, label="weights kept")
    left.set(xlabel="epoch", ylabel=metric.loss, title="loss")
    right.set(xlabel="epoch", ylabel=metric.label, title=metric.name)
    end = "upper right" if metric.is_error else "lower right"
    for axes, corner in ((left, "upper right"), (right, end)):
        axes.grid(alpha=0.3)
        axes.legend(loc=corner)
    left.set_ylim(bottom=0)
    several = f"{len(results)} {unit}s: mean, least and most"
    figure.suptitle(f"{title} ({several if len(results) > 1 else f'1 {unit}'})")
    save(figure, path)


def _curve(axes: Any, series: list[list[float]], colour: str, label: str) -> None:
    values = np.full((len(series), max(map(len, series))), np.nan)
    for row, one in zip(values, series, strict=True):
        row[: len(one)] = one
    epochs = np.arange(1, values.shape[1] + 1)
    if len(series) > 1:
        least, most = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        axes.fill_between(epochs, least, most, color=colour, alpha=0.2, linewidth=0)
    axes.plot(epochs, np.nanmean(values, axis=0), color=colour, linewidth=1, label=label)


def attention(layers: list[tuple[Tensor, Tensor]], num_nodes: int, title: str, path: Path) -> None:
    """Histogram of the nodes' attention entropy, by layer and head, and that of uniform attention.

    Attention that is uniform in all layers and heads is one histogram, that of the first.

    Args:
        layers: (edge_index [2, E], alpha [E, H]) of every attention layer.
        num_nodes: number of nodes.
        title: of the figure.
        path: PNG to write.
    """
    panels = []
    for number, (edge_index, alpha) in enumerate(layers, start=1):
        entropy, uniform = (t.cpu().numpy() for t in entropies(edge_index, alpha, num_nodes))
        for head, values in enumerate(entropy.T, start=1):
            panels.append((f"layer {number}, head {head}", values, uniform))
    if len(panels) > 1 and is_uniform(layers, num_nodes):
        shown, values, uniform = panels[0]
        panels = [(f"uniform in all layers and heads; {shown}", values, uniform)]
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = require().subplots(
        rows,
        columns,
        figsize=(max(2.4 * columns, 4.5), 1.9 * rows + 0.9),
        layout="constrained",
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    limits = (0.0, max(*(float(u.max(initial=0)) for _, _, u in panels), 1e-3))
    for axes, (name, values, uniform) in zip(grid.flat, panels, strict=False):
        _histogram(axes, values, uniform, limits)
        axes.set_title(f"{name}: mean {values.mean():.2f} of {uniform.mean():.2f}", fontsize=8)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(len(panels) - columns, 0) : len(panels)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel("entropy of the attention of a node [nats]", fontsize=10)
    figure.supylabel("nodes", fontsize=10)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=8)
    figure.suptitle(title, x=0.02, ha="left")
    save(figure, path)


def _histogram(axes: Any, values: Any, uniform: Any, limits: tuple[float, float]) -> None:
    common = {"bins": _BINS, "range": limits}
    axes.hist(uniform, **common, color=_UNIFORM, alpha=0.55, label="uniform, log(in-degree)")
    axes.hist(values, **common, histtype="step", color=_TRAIN, label="learned")
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)


def save(figure: Any, path: Path) -> None:
    """Writes a figure, and closes it.

    Args:
        figure: of Matplotlib.
        path: PNG or SVG to write. Text of an SVG stays text, and it has no date, so that the same
            figure gives the same file.
    """
    svg = path.suffix == ".svg"
    settings = {"svg.fonttype": "none", "svg.hashsalt": path.stem} if svg else {}
    options: dict[str, Any] = {"metadata": {"Date": None}} if svg else {"dpi": 150}
    pyplot = require()
    with replacing(path) as file, pyplot.rc_context(settings):
        figure.savefig(file, format=path.suffix[1:], **options)
    pyplot.close(figure)
