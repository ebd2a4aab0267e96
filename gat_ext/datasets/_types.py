"""Node types computed from the graph: degrees, and colours of Weisfeiler-Lehman refinement."""

from __future__ import annotations

import numpy as np

from gat_ext.datasets._arrays import Array


def degree_types(degrees: Array, max_types: int) -> Array:
    """A type for each degree that occurs; the highest degrees share the last of ``max_types``.

    Args:
        degrees: [N] integers.
        max_types: Largest number of types.

    Returns:
        int64 [N], numbered from 0 by increasing degree.
    """
    rank = np.unique(degrees, return_inverse=True)[1]
    return np.minimum(rank, max_types - 1).astype(np.int64)


def refined_types(rowptr: Array, col: Array, types: Array, *, rounds: int, max_types: int) -> Array:
    """Colours after ``rounds`` of refinement, the rarest merged, numbered from the most frequent.

    Args:
        rowptr: CSR by destination, [N + 1].
        col: The neighbours, [E].
        types: Initial colours, [N] integers from 0.
        rounds: Number of refinement rounds.
        max_types: Largest number of final colours: the ``max_types - 1`` most frequent ones, and
            one for all others.

    Returns:
        int64 [N].
    """
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        # The hash of a multiset of colours is the sum modulo 2^64 of a random number for each
        # colour: among N multisets, the probability of a collision is below N^2 / 2^65. Differences
        # of running sums are exact modulo 2^64.
        own, near = rng.integers(0, 2**64, size=(2, int(types.max(initial=0)) + 1), dtype=np.uint64)
        running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(near[types[col]])])
        keys = own[types] + running[rowptr[1:]] - running[rowptr[:-1]]
        types = np.unique(keys, return_inverse=True)[1]
    return most_frequent(types, max_types)


def most_frequent(types: Array, max_types: int) -> Array:
    """Numbers types from the most frequent, ties by first occurrence; the rarest share the last.

    Args:
        types: [N] integers.
        max_types: Largest number of types: the ``max_types - 1`` most frequent ones, and one for
            all others.

    Returns:
        int64 [N].
    """
    _, first, types, counts = np.unique(
        types, return_index=True, return_inverse=True, return_counts=True
    )
    by_count = np.lexsort([first, -counts])
    rank = np.empty(len(counts), np.int64)
    rank[by_count] = np.arange(len(counts))
    return np.minimum(rank[types], max_types - 1)
