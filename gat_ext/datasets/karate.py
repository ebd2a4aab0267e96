"""Zachary's karate club."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gat_ext.datasets._arrays import mask, undirected_edges
from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._optional import require
from gat_ext.datasets._registry import register

INSTRUCTOR, PRESIDENT = 0, 33


@register("karate")
def karate(root: Path | None = None, *, num_val: int = 8, seed: int = 0) -> NodeDataset:
    """The 34 members and 78 friendships of a karate club that split in two.

    The class is the club that a member joined: 0 the instructor's, 1 the president's. Features are
    one-hot numbers of the members, so only the graph has information. The two leaders are the
    training nodes.

    Args:
        root: Not used: the graph is part of networkx, a dependency of torch.
        num_val: Validation nodes; the rest is the test set.
        seed: Seed of the split between validation and test.

    Raises:
        ValueError: ``num_val`` out of range.

    Source:
        Zachary, "An Information Flow Model for Conflict and Fission in Small Groups", J.
        Anthropological Research 33, 1977.

    Example:
        >>> from gat_ext.datasets import load
        >>> load("karate").train_mask.nonzero().flatten().tolist()
        [0, 33]
    """
    club = require("networkx").karate_club_graph()
    num_nodes = club.number_of_nodes()
    if not 1 <= num_val < num_nodes - 2:
        raise ValueError(f"num_val is {num_val}, expected 1 to {num_nodes - 3}")
    home = club.nodes[INSTRUCTOR]["club"]
    y = torch.tensor([int(club.nodes[node]["club"] != home) for node in range(num_nodes)])
    leaders = np.array([INSTRUCTOR, PRESIDENT])
    rest = np.random.default_rng(seed).permutation(np.delete(np.arange(num_nodes), leaders))
    return NodeDataset(
        name="karate",
        x=torch.eye(num_nodes),
        y=y,
        edge_index=undirected_edges(np.array(club.edges()).T, num_nodes),
        train_mask=mask(leaders, num_nodes),
        val_mask=mask(rest[:num_val], num_nodes),
        test_mask=mask(rest[num_val:], num_nodes),
        num_classes=2,
    )
