"""Slots: the given edges, then a self-loop for each node that is source and destination.

With replaced self-loops, per-edge tensors have a row for each slot, see the note in
csrc/torch/adjacency.cpp. Eager layers omit the slots of the given self-loops.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.ops.state import smaller


def num_slots(
    edges: Tensor, col: Tensor | None, num_src: int, num_dst: int, self_loops: bool
) -> int:
    """Number of slots of an edge_index, or of the rowptr that belongs to ``col``."""
    given = edges.shape[1] if col is None else col.shape[0]
    return given + smaller(num_src, num_dst) if self_loops else given


def with_loops(ends: Tensor, num_loops: int) -> Tensor:
    """Appends self-loops to the ends of edges [2, E] or [E]: [..., E + num_loops]."""
    loops = torch.arange(num_loops, dtype=ends.dtype, device=ends.device)
    return torch.cat([ends, loops.expand(*ends.shape[:-1], -1)], dim=-1)


def are_attended(src: Tensor, dst: Tensor, num_loops: int) -> Tensor:
    """[E + num_loops], bool: False for the slots of given self-loops."""
    given = src != dst
    return torch.cat([given, given.new_ones(num_loops)])
