"""Handwritten digits as graphs of pixels; no download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gat_ext.datasets._arrays import undirected_edges
from gat_ext.datasets._graphs import GraphDataset
from gat_ext.datasets._optional import require
from gat_ext.datasets._registry import register_graphs

SIDE, INTENSITIES = 8, 17


@register_graphs("digit_grids")
def digit_grids(
    root: Path | None = None, *, levels: int = 4, classes: Sequence[int] = tuple(range(10))
) -> GraphDataset:
    """scikit-learn's 1,797 digits: a node for each of 8 x 8 pixels, with edges to adjacent pixels.

    The type of a node is its quantised intensity floor(v * levels / 17), with v from 0 (paper) to
    16. Only the graph has information on the position of a pixel.

    Args:
        root: Not used: the images are part of scikit-learn.
        levels: Number of types, 2 to 17.
        classes: Distinct digits to load; the first becomes class 0, and so on.

    Raises:
        ValueError: ``levels`` out of range, or ``classes`` are not at least two distinct digits.
        ImportError: scikit-learn is missing.

    Source:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository, 1998 (test part).

    Example:
        >>> from gat_ext.datasets import load_graphs
        >>> data = load_graphs("digit_grids", classes=(3, 8))
        >>> len(data), data.num_nodes // len(data), data.num_edges // len(data), data.num_types
        (357, 64, 224, 4)
    """
    if not 2 <= levels <= INTENSITIES:
        raise ValueError(f"levels is {levels}, expected 2 to {INTENSITIES}")
    wanted = list(classes)
    if len(wanted) < 2 or len(set(wanted)) < len(wanted) or not set(wanted) <= set(range(10)):
        raise ValueError(f"classes is {wanted}, expected two or more distinct digits from 0 to 9")
    pixels, digits = require("sklearn.datasets").load_digits(return_X_y=True)
    taken = np.isin(digits, wanted)
    pixels, digits = pixels[taken].astype(np.int64), digits[taken]
    class_of = np.zeros(10, np.int64)
    class_of[wanted] = np.arange(len(wanted))

    grid = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    across = np.stack([grid[:, :-1].ravel(), grid[:, 1:].ravel()])
    down = np.stack([grid[:-1].ravel(), grid[1:].ravel()])
    one = undirected_edges(np.concatenate([across, down], axis=1), grid.size)
    node_ptr = torch.arange(len(digits) + 1) * grid.size
    edge_index = (one[:, None] + node_ptr[:-1, None]).reshape(2, -1)
    return GraphDataset(
        name="digit_grids",
        edge_index=edge_index,
        node_ptr=node_ptr,
        node_type=torch.from_numpy((pixels * levels // INTENSITIES).ravel()),
        num_types=levels,
        y=torch.from_numpy(class_of[digits]),
        num_classes=len(wanted),
    )
