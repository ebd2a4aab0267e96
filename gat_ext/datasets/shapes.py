"""Generated graphs with noise and a trail of nodes to a small motif that decides the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gat_ext.datasets._arrays import Array, undirected_edges
from gat_ext.datasets._graphs import GraphDataset
from gat_ext.datasets._registry import register_graphs

NOISE_NEIGHBOURS = 3  # noise nodes drawn, with repetition, as neighbours of an entrance


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
    """Two classes that differ only in the end of a motif to which a trail of signposts leads.

    A graph has three parts: noise, entrances and a path. The noise is a random connected graph
    whose nodes have random noise types. The entrances have the first signpost type; each has edges
    to up to three random noise nodes and to the first node of the path. The path consists of
    ``trail_length - 1`` signposts, each of its own type, and of the motif, one half of which has
    one motif type and the other half the other. In class 0 the trail ends at the first motif type,
    in class 1 at the second; nothing else depends on the class. So counts of types or degrees have
    no information on the class; only the edge between trail and motif does. At the default size, at
    least one of 20 uniform walks of 12 steps crosses this edge in 51 % of the graphs; in 98 %, if
    each signpost has twice the rank of the one before, an entrance twice that of noise, and the
    motif twice that of the last signpost.

    Types: noise 0 to Z - 1 (Z = ``num_noise_types``), signposts Z to Z + ``trail_length`` - 1 in
    the order of the trail, then the two of the motif, the ``signal_types``.

    Args:
        root: Not used: the graphs are generated.
        num_graphs: G; class sizes differ by at most one.
        num_nodes: Average number of noise nodes in a graph, drawn from 80 % to 120 % of it. With
            more of them, a uniform walk is less likely to reach the motif.
        num_noise_types: Z.
        num_entrances: Number of entrances. With more of them, one is closer to each noise node, and
            a uniform walk leaves the trail through another one more often.
        trail_length: Number of signpost types.
        motif_size: Number of nodes of the motif, an even number.
        seed: Seed of all random numbers.

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
    """Pairs of each node of a block with node ``to``, or with ``along``, with node + ``to``."""
    targets = _block(to, length) if along else np.repeat(to[:, None], length, axis=1)
    return np.stack([_block(first, length).ravel(), targets.ravel()])


def _noise_edges(rng: np.random.Generator, first: Array, sizes: Array) -> Array:
    """A random tree on each graph's noise nodes, and as many random pairs, [2, E']."""
    start, size = np.repeat(first, sizes), np.repeat(sizes, sizes)
    number = np.concatenate([np.arange(one) for one in sizes])  # of a node inside its graph
    parent = start + (rng.random(len(number)) * number).astype(np.int64)
    tree = np.stack([start + number, parent])  # the root's loop is removed later
    extra = start + (rng.random((2, len(number))) * size).astype(np.int64)
    return np.concatenate([tree, extra], axis=1)


def _entrance_edges(
    rng: np.random.Generator, first: Array, sizes: Array, entrance: Array, count: int
) -> Array:
    """Pairs of each entrance and its random noise nodes, [2, G * count * NOISE_NEIGHBOURS]."""
    draws = rng.random((len(sizes), count * NOISE_NEIGHBOURS)) * sizes[:, None]
    entrances = np.repeat(_block(entrance, count), NOISE_NEIGHBOURS, axis=1)
    return np.stack([entrances.ravel(), (first[:, None] + draws.astype(np.int64)).ravel()])
