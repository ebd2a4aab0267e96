"""Generated graphs whose class is a small motif at the end of a trail, hidden in noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gat_ext.datasets._arrays import Array, undirected_edges
from gat_ext.datasets._graphs import GraphDataset
from gat_ext.datasets._registry import register_graphs

NOISE_NEIGHBOURS = 3  # draws of a noise node that an entrance is joined to


@register_graphs("shapes")
def shapes(
    root: Path | None = None,
    *,
    num_graphs: int = 1000,
    num_nodes: int = 100,
    num_noise_types: int = 4,
    num_entrances: int = 10,
    trail_length: int = 3,
    motif_size: int = 4,
    seed: int = 0,
) -> GraphDataset:
    """Two classes, told apart only by which end of a motif a trail of signposts leads to.

    A graph has three parts. The noise is a random connected graph whose nodes have random noise
    types. The entrances, of the first signpost type, are each joined to up to three random nodes of
    the noise and all to the first node of a path: ``trail_length - 1`` signposts, of one type each,
    then the motif, half of it of one motif type and half of the other. In class 0 the trail ends at
    the first motif type, in class 1 at the second; nothing else depends on the class. So no count
    of types or degrees tells anything; the edge between trail and motif does. Of the graphs of the
    default size, 20 uniform walks of 12 steps cross it in 51 %; in 98 % where each signpost is
    twice as attractive as the one before it, an entrance twice as attractive as noise, and the
    motif twice as attractive as the last signpost.

    Types: noise 0 to Z - 1 (Z = ``num_noise_types``), signposts Z to Z + ``trail_length`` - 1 in
    the order of the trail, then the two of the motif, the ``signal_types``.

    Args:
        root: Not used: the graphs are generated.
        num_graphs: G; the classes differ by one graph at most.
        num_nodes: Noise nodes of a graph on average; each graph draws from 80 % to 120 % of it. The
            more, the smaller the chance that a uniform walk gets to the motif.
        num_noise_types: Z.
        num_entrances: Ways from the noise to the trail. The more, the nearer is one to a node of
            the noise, and the more often a uniform walk leaves the trail by another one.
        trail_length: Signpost types.
        motif_size: Nodes of the motif, an even number.
        seed: Of everything.

    Raises:
        ValueError: A count below 1, ``num_graphs`` or ``num_nodes`` below 2, or ``motif_size`` odd.

    Example:
        >>> from gat_ext.datasets import load_graphs
        >>> data = load_graphs("shapes", num_graphs=50)
        >>> data.num_types, data.signal_types, data.y.bincount().tolist()
        (9, (7, 8), [25, 25])
    """
    given = {
        "num_graphs": (num_graphs, 2),
        "num_nodes": (num_nodes, 2),
        "num_noise_types": (num_noise_types, 1),
        "num_entrances": (num_entrances, 1),
        "trail_length": (trail_length, 1),
        "motif_size": (motif_size, 2),
    }
    for name, (value, least) in given.items():
        if value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}")
    if motif_size % 2:
        raise ValueError(f"motif_size is {motif_size}, expected an even number")
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(num_graphs) % 2)
    spread = num_nodes // 5
    noise_sizes = rng.integers(num_nodes - spread, num_nodes + spread + 1, num_graphs)
    path_length = trail_length - 1 + motif_size
    node_ptr = np.concatenate([[0], np.cumsum(noise_sizes + num_entrances + path_length)])
    entrance = node_ptr[1:] - path_length - num_entrances  # [G], the first of each graph
    path = node_ptr[1:] - path_length  # [G], first node of the path

    pairs = [
        _noise_edges(rng, node_ptr[:-1], noise_sizes),
        _entrance_edges(rng, node_ptr[:-1], noise_sizes, entrance, num_entrances),
        _grid(entrance, num_entrances, to=path),
        _grid(path, path_length - 1, to=path + 1, along=True),
    ]
    num_types = num_noise_types + trail_length + 2
    node_type = rng.integers(0, num_noise_types, int(node_ptr[-1]))
    node_type[_block(entrance, num_entrances)] = num_noise_types
    ends = np.array([[0] * (motif_size // 2) + [1] * (motif_size // 2)])
    signposts = np.arange(num_noise_types + 1, num_noise_types + trail_length)
    types = np.concatenate(
        [np.tile(signposts, (num_graphs, 1)), num_types - 2 + (ends ^ y[:, None])], axis=1
    )
    node_type[_block(path, path_length)] = types
    return GraphDataset(
        name="shapes",
        edge_index=undirected_edges(np.concatenate(pairs, axis=1), int(node_ptr[-1])),
        node_ptr=torch.from_numpy(node_ptr.astype(np.int64)),
        node_type=torch.from_numpy(node_type),
        num_types=num_types,
        y=torch.from_numpy(y.astype(np.int64)),
        num_classes=2,
        signal_types=(num_types - 2, num_types - 1),
    )


def _block(first: Array, length: int) -> Array:
    """``first`` and the ``length - 1`` nodes after it, [G, length]."""
    return np.asarray(first[:, None] + np.arange(length))


def _grid(first: Array, length: int, *, to: Array, along: bool = False) -> Array:
    """Pairs of each node of a block and the node ``to``, or with ``along`` the one that far on."""
    targets = _block(to, length) if along else np.repeat(to[:, None], length, axis=1)
    return np.stack([_block(first, length).ravel(), targets.ravel()])


def _noise_edges(rng: np.random.Generator, first: Array, sizes: Array) -> Array:
    """A random tree on each graph's noise nodes and as many random pairs again, [2, E']."""
    start, size = np.repeat(first, sizes), np.repeat(sizes, sizes)
    number = np.concatenate([np.arange(one) for one in sizes])  # of a node inside its graph
    parent = start + (rng.random(len(number)) * number).astype(np.int64)
    tree = np.stack([start + number, parent])  # the first node is its own parent: a loop, dropped
    extra = start + (rng.random((2, len(number))) * size).astype(np.int64)
    return np.concatenate([tree, extra], axis=1)


def _entrance_edges(
    rng: np.random.Generator, first: Array, sizes: Array, entrance: Array, count: int
) -> Array:
    """Each entrance and the noise nodes drawn for it, [2, G * count * NOISE_NEIGHBOURS]."""
    draws = rng.random((len(sizes), count * NOISE_NEIGHBOURS)) * sizes[:, None]
    entrances = np.repeat(_block(entrance, count), NOISE_NEIGHBOURS, axis=1)
    return np.stack([entrances.ravel(), (first[:, None] + draws.astype(np.int64)).ravel()])
