"""Pictures of a run: learning curves, and how far attention is from uniform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from gat_ext.training.loop import SeedResult
from gat_ext.training.metrics import entropies

# Colours that colour-blind readers can tell apart: Okabe and Ito, "Color Universal Design", 2008.
_TRAIN, _VALIDATION, _UNIFORM = "#0072B2", "#D55E00", "#999999"


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'gat_ext[train]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def curves(results: list[SeedResult], title: str, path: Path) -> None:
    """Loss and validation score of every epoch and seed; a dot where the weights were kept.

    Args:
        results: one for each seed.
        title: of the figure.
        path: PNG to write.
    """
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for i, result in enumerate(results):
        epochs = range(1, result.epochs + 1)
        alpha = 1.0 if len(results) == 1 else 0.5
        for name, colour in (("train_loss", _TRAIN), ("val_loss", _VALIDATION)):
            label = {"train_loss": "training", "val_loss": "validation"}[name] if i == 0 else None
            left.plot(
                epochs, result.history[name], color=colour, alpha=alpha, linewidth=1, label=label
            )
        score = result.history["val_score"]
        right.plot(
            epochs,
            score,
            color=_VALIDATION,
            alpha=alpha,
            linewidth=1,
            label="validation" if i == 0 else None,
        )
        if result.best_epoch:
            kept = result.best_epoch
            right.plot(
                kept,
                score[kept - 1],
                "o",
                color="black",
                markersize=4,
                label="weights kept" if i == 0 else None,
            )
    left.set(xlabel="epoch", ylabel="cross-entropy [nats]", yscale="log", title="loss")
    right.set(xlabel="epoch", ylabel="share of nodes right", title="score")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def attention(layers: list[tuple[Tensor, Tensor]], num_nodes: int, title: str, path: Path) -> None:
    """Histogram of the entropy of attention over the nodes, for every layer and head, beside that of the uniform distribution.

    Args:
        layers: (edge_index [2, E], alpha [E, H]) of every attention layer.
        num_nodes: number of nodes.
        title: of the figure.
        path: PNG to write.
    """
    pyplot = _pyplot()
    figure, grid = pyplot.subplots(
        1, len(layers), figsize=(4.5 * len(layers), 3.6), layout="constrained", squeeze=False
    )
    for number, ((edge_index, alpha), axes) in enumerate(
        zip(layers, grid[0], strict=True), start=1
    ):
        entropy, uniform = (t.cpu().numpy() for t in entropies(edge_index, alpha, num_nodes))
        limits = (0.0, max(float(uniform.max(initial=0)), 1e-3))
        axes.hist(uniform, bins=40, range=limits, color=_UNIFORM, alpha=0.5, label="uniform")
        colours = pyplot.get_cmap("viridis")
        for head in range(entropy.shape[1]):
            colour = colours(head / max(entropy.shape[1] - 1, 1) * 0.9)
            axes.hist(
                entropy[:, head],
                bins=40,
                range=limits,
                histtype="step",
                color=colour,
                label=f"head {head + 1}",
            )
        axes.set(xlabel="entropy of attention [nats]", ylabel="nodes", title=f"layer {number}")
        axes.legend(fontsize="small")
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
