"""Steps that several families share: edges, splits, feature scaling."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]


def undirected_edges(pairs: Array, num_nodes: int) -> Tensor:
    """Adds the reverse of every edge and removes duplicates and self-loops.

    Args:
        pairs: The ends of the given edges, [2, E'] integers in [0, num_nodes).
        num_nodes: N.

    Returns:
        int64 [2, E], sorted by destination, then source.
    """
    source, target = pairs.astype(np.int64)[:, pairs[0] != pairs[1]]
    both = [source * num_nodes + target, target * num_nodes + source]
    keys = np.unique(np.concatenate(both))
    return torch.from_numpy(np.stack([keys % num_nodes, keys // num_nodes]))


def attributed_edges(pairs: Array, rows: Array, num_nodes: int) -> tuple[Tensor, Array]:
    """Like ``undirected_edges`` for edges with attributes: removes repeated edges of equal rows.

    If the reverse of every edge is given, too, each direction keeps its own rows; else every edge
    gets a reverse with its row. Edges between the same nodes with different rows, such as contacts
    at several times, are all kept.

    Args:
        pairs: The ends of the given edges, [2, E'] integers in [0, num_nodes).
        rows: Their attributes, [E', D] numbers.
        num_nodes: N.

    Returns:
        int64 [2, E], sorted by destination, then source, then row; and the rows [E, D].
    """
    no_loop = pairs[0] != pairs[1]
    (source, target), rows = pairs.astype(np.int64)[:, no_loop], rows[no_loop]
    keys, reverses = target * num_nodes + source, source * num_nodes + target
    if not np.isin(reverses, keys).all():
        keys, rows = np.concatenate([keys, reverses]), np.concatenate([rows, rows])
    order = np.lexsort([*rows.T[::-1], keys])
    keys, rows = keys[order], rows[order]
    is_new = np.ones(len(keys), np.bool_)
    is_new[1:] = (keys[1:] != keys[:-1]) | (rows[1:] != rows[:-1]).any(axis=1)
    keys, rows = keys[is_new], rows[is_new]
    return torch.from_numpy(np.stack([keys % num_nodes, keys // num_nodes])), rows


def mask(nodes: Array, num_nodes: int) -> Tensor:
    """Bool [N], true at ``nodes``."""
    result = torch.zeros(num_nodes, dtype=torch.bool)
    result[torch.from_numpy(nodes.astype(np.int64))] = True
    return result


def split_per_class(
    y: Array, *, train_per_class: int, num_val: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw training nodes from each class and validation nodes from the rest; others are for test.

    Args:
        y: Classes, [N] integers from 0.
        train_per_class: Training nodes of each class.
        num_val: Number of validation nodes, over all classes.
        seed: Seed of the random split.

    Returns:
        Masks for training, validation and test, bool [N] each.

    Raises:
        ValueError: A count is below 1, a class is too small, or no node is left for the test.
    """
    if train_per_class < 1 or num_val < 1:
        raise ValueError(
            f"train_per_class is {train_per_class} and num_val is {num_val}; expected at least 1 "
            "for both"
        )
    counts = np.bincount(y)
    if counts.min() < train_per_class:
        raise ValueError(
            f"train_per_class is {train_per_class}, but class {counts.argmin()} has "
            f"{counts.min()} nodes; expected at most that many"
        )
    left = len(y) - train_per_class * len(counts)
    if num_val >= left:
        raise ValueError(
            f"num_val is {num_val}, but {left} nodes are left after training; expected fewer than "
            "that, so that some are left for the test"
        )
    order = np.random.default_rng(seed).permutation(len(y))
    train = np.concatenate(
        [order[y[order] == label][:train_per_class] for label in range(len(counts))]
    )
    rest = order[~np.isin(order, train)]
    return mask(train, len(y)), mask(rest[:num_val], len(y)), mask(rest[num_val:], len(y))
