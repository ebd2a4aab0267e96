"""Nearest-neighbour graph of handwritten digits; no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gat_ext.datasets._arrays import split_per_class, undirected_edges
from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._optional import require
from gat_ext.datasets._registry import register


@register("digits")
def digits(
    root: Path | None = None,
    *,
    n_neighbors: int = 10,
    metric: str = "euclidean",
    train_per_class: int = 20,
    num_val: int = 500,
    seed: int = 0,
) -> NodeDataset:
    """The k-NN graph of scikit-learn's 1,797 digits of 8 x 8 pixels, in 10 classes.

    i and j have an edge if one is among the ``n_neighbors`` nearest of the other; of equally near
    ones, those with the lowest numbers count. Features are the pixels, scaled to [0, 1]. The graph
    does not depend on the labels.

    Args:
        root: Not used: the images are part of scikit-learn.
        n_neighbors: k.
        metric: Distance between images, a metric of ``sklearn.metrics.pairwise_distances``.
        train_per_class: Training labels of each digit.
        num_val: Validation nodes; the rest is the test set.
        seed: Seed of the split.

    Raises:
        ValueError: A count out of range, or a metric unknown to scikit-learn.
        ImportError: scikit-learn is missing.

    Source:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository, 1998 (test part).

    Example:
        >>> from gat_ext.datasets import load
        >>> data = load("digits")
        >>> data.num_nodes, data.num_features, int(data.train_mask.sum())
        (1797, 64, 200)
    """
    pixels, labels = require("sklearn.datasets").load_digits(return_X_y=True)
    num_nodes = len(pixels)
    if not 1 <= n_neighbors < num_nodes:
        raise ValueError(f"n_neighbors is {n_neighbors}, expected 1 to {num_nodes - 1}")
    x = (pixels / 16.0).astype(np.float32)
    # In float64 the squares of pixels and their sums are exact, and a stable sort breaks the many
    # ties by number, whatever the number of threads.
    distance = require("sklearn.metrics").pairwise_distances(x.astype(np.float64), metric=metric)
    np.fill_diagonal(distance, np.inf)  # a node is not its own neighbour
    nearest = distance.argsort(axis=1, kind="stable")[:, :n_neighbors]  # [N, k]
    pairs = np.stack([np.repeat(np.arange(num_nodes), n_neighbors), nearest.ravel()])
    train, val, test = split_per_class(
        labels, train_per_class=train_per_class, num_val=num_val, seed=seed
    )
    return NodeDataset(
        name="digits",
        x=torch.from_numpy(x),
        y=torch.from_numpy(labels.astype(np.int64)),
        edge_index=undirected_edges(pairs, num_nodes),
        train_mask=train,
        val_mask=val,
        test_mask=test,
        num_classes=10,
    )
