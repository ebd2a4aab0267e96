"""Stochastic block model: a generated graph whose classes are its communities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gat_ext.datasets._arrays import Array, split_per_class, undirected_edges
from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._registry import register


@register("sbm")
def sbm(
    root: Path | None = None,
    *,
    num_nodes: int = 1000,
    num_classes: int = 4,
    p_in: float = 0.02,
    p_out: float = 0.002,
    num_features: int = 16,
    signal: float = 0.5,
    train_per_class: int = 20,
    num_val: int = 200,
    seed: int = 0,
) -> NodeDataset:
    """Blocks of equal size, with edge probability p_in inside and p_out between blocks.

    x_i = signal * m_c + e_i, with a centre m_c of each class c and noise e_i of each node, both
    standard normal.

    Args:
        root: Not used: the graph is generated.
        num_nodes: N; node i is in block i * num_classes // N.
        num_classes: Number of blocks.
        p_in: Probability of an edge between two nodes of a block.
        p_out: Probability of an edge between nodes of different blocks.
        num_features: C.
        signal: Scale of the class centres; with 0 only the graph has information on the classes.
        train_per_class: Training labels of each class.
        num_val: Validation nodes; the rest is the test set.
        seed: Seed of the edges, the features and the split.

    Raises:
        ValueError: A count below 1, more classes than nodes, a probability outside [0, 1], or too
            few nodes for the split.

    Source:
        Holland, Laskey and Leinhardt, "Stochastic blockmodels: First steps", Social Networks 5,
        1983.

    Example:
        >>> from gat_ext.datasets import load
        >>> load("sbm", p_in=0.0, p_out=0.0).num_edges
        0
    """
    if num_features < 1 or not 1 <= num_classes <= num_nodes:
        raise ValueError(
            f"num_nodes is {num_nodes}, num_classes {num_classes} and num_features {num_features}; "
            "expected 1 <= num_classes <= num_nodes and 1 <= num_features"
        )
    for name, chance in (("p_in", p_in), ("p_out", p_out)):
        if not 0 <= chance <= 1:
            raise ValueError(f"{name} is {chance}, expected a probability from 0 to 1")
    rng = np.random.default_rng(seed)
    y = np.arange(num_nodes) * num_classes // num_nodes
    pairs = _sample_edges(rng, np.bincount(y), p_in, p_out)
    centres = rng.standard_normal((num_classes, num_features))
    x = signal * centres[y] + rng.standard_normal((num_nodes, num_features))
    train, val, test = split_per_class(
        y, train_per_class=train_per_class, num_val=num_val, seed=seed
    )
    return NodeDataset(
        name="sbm",
        x=torch.from_numpy(x.astype(np.float32)),
        y=torch.from_numpy(y.astype(np.int64)),
        edge_index=undirected_edges(pairs, num_nodes),
        train_mask=train,
        val_mask=val,
        test_mask=test,
        num_classes=num_classes,
    )


def _sample_edges(rng: np.random.Generator, sizes: Array, p_in: float, p_out: float) -> Array:
    """Undirected edges, each once, [2, E']; draws a binomial number for each pair of blocks."""
    first = np.cumsum(sizes) - sizes
    edges = []
    for a, size in enumerate(sizes):
        for b in range(a, len(sizes)):
            inside = a == b
            num_pairs = int(size * (size - 1) // 2 if inside else size * sizes[b])
            count = rng.binomial(num_pairs, p_in if inside else p_out)
            step, i = np.divmod(rng.choice(num_pairs, count, replace=False), size)
            # Inside a block of n nodes, the first n * (n - 1) / 2 of the pairs
            # (i, i + step + 1 mod n) are all unordered pairs, once each.
            j = (i + step + 1) % size if inside else step
            edges.append(np.stack([first[a] + i, first[b] + j]))
    return np.concatenate(edges, axis=1)
