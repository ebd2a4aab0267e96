"""Nearest-neighbour graph of handwritten digits with random edges; no download."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch

from gat_ext.datasets._arrays import undirected_edges
from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._registry import register
from gat_ext.datasets.digits import digits


@register("noisy_digits")
def noisy_digits(
    root: Path | None = None,
    *,
    noise: float = 1.0,
    n_neighbors: int = 3,
    train_per_class: int = 20,
    num_val: int = 500,
    seed: int = 0,
) -> NodeDataset:
    """The k-NN graph of ``digits`` and random edges: a graph whose neighbours are unequal.

    The random edges are drawn from all pairs of nodes that have no edge in the k-NN graph, without
    regard to labels and features. About a tenth of them join nodes of the same class; they count as
    random all the same. ``random_edges`` of the data set has which edges they are.

    Args:
        root: Not used: the images are part of scikit-learn.
        noise: Random edges for each edge of the k-NN graph; 0 adds none, and 1 as many again.
        n_neighbors: k.
        train_per_class: Training labels of each digit.
        num_val: Validation nodes; the rest is the test set.
        seed: Seed of the random edges and of the split.

    Raises:
        ValueError: ``noise`` is negative or not finite, or asks for more edges than there are pairs
            of nodes, or a count is out of range.
        ImportError: scikit-learn is missing.

    Source:
        As ``digits``.

    Example:
        >>> from gat_ext.datasets import load
        >>> data = load("noisy_digits")
        >>> data.num_edges, int(data.random_edges.sum())
        (15536, 7768)
    """
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(
            f"noise is {noise}, expected 0 or a positive number: random edges for each other edge"
        )
    clean = digits(
        n_neighbors=n_neighbors, train_per_class=train_per_class, num_val=num_val, seed=seed
    )
    num_nodes = clean.num_nodes
    edges = clean.edge_index.numpy()
    one, other = edges[:, edges[0] < edges[1]]  # each undirected edge once
    num_pairs = num_nodes * (num_nodes - 1) // 2
    count = noise * len(one)
    if count > num_pairs - len(one):
        raise ValueError(
            f"noise is {noise}, {count:.0f} random edges; expected at most "
            f"{(num_pairs - len(one)) / len(one):.1f}, because {num_pairs - len(one)} pairs of "
            "nodes have no edge"
        )
    # The first n (n - 1) / 2 of the pairs (i, i + step + 1 mod n) are all unordered pairs, once
    # each. Of so many different ones, enough are not edges.
    rng = np.random.default_rng(seed)
    drawn = rng.choice(num_pairs, min(round(count) + len(one), num_pairs), replace=False)
    step, i = np.divmod(drawn, num_nodes)
    j = (i + step + 1) % num_nodes
    keys = np.minimum(i, j) * num_nodes + np.maximum(i, j)
    keys = keys[~np.isin(keys, one * num_nodes + other)][: round(count)]
    random = np.stack([keys // num_nodes, keys % num_nodes])
    edge_index = undirected_edges(np.concatenate([edges, random], axis=1), num_nodes)
    least, most = edge_index.amin(dim=0), edge_index.amax(dim=0)
    return dataclasses.replace(
        clean,
        name="noisy_digits",
        edge_index=edge_index,
        random_edges=torch.isin(least * num_nodes + most, torch.from_numpy(keys)),
    )
