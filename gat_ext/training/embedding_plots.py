"""Pictures of node embeddings: the context that walks were given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from gat_ext.training.plots import _TRAIN, require, save


def context(contexts: Tensor, title: str, path: Path) -> None:
    """Attention to each length of walks: mean over seeds, a dot for each, and the uniform value.

    Args:
        contexts: [seeds, C], each row of sum 1.
        title: of the figure.
        path: PNG to write.
    """
    values = contexts.numpy()
    lengths = np.arange(1, values.shape[1] + 1)
    figure, axes = require().subplots(figsize=(6, 3.6), layout="constrained")
    axes.bar(lengths, values.mean(axis=0), color=_TRAIN, alpha=0.6, label="attention, mean")
    if len(values) > 1:
        for row in values:
            axes.plot(lengths, row, ".", color="black", markersize=4)
    axes.axhline(1 / values.shape[1], color="black", linewidth=0.8, linestyle=":", label="uniform")
    axes.set(xlabel="steps", ylabel="share of the context", xticks=lengths)
    axes.set_ylim(bottom=0)
    axes.legend()
    seeds = "1 seed" if len(values) == 1 else f"{len(values)} seeds"
    figure.suptitle(f"{title} ({seeds})")
    save(figure, path)
