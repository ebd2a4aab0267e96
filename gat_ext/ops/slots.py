"""Slots: the given edges, then a self-loop for each node that is source and destination.

With replaced self-loops, per-edge tensors have a row for each slot, see the note in
csrc/torch/adjacency.cpp. Eager layers omit the slots of the given self-loops.
"""

from __future__ import annotations

import torch
from torch import Tensor


def with_loops(ends: Tensor, num_loops: int) -> Tensor:
    """Appends self-loops to the ends of edges [2, E] or [E]: [..., E + num_loops]."""
    loops = torch.arange(num_loops, dtype=ends.dtype, device=ends.device)
    return torch.cat([ends, loops.expand(*ends.shape[:-1], -1)], dim=-1)


def are_attended(src: Tensor, dst: Tensor, num_loops: int) -> Tensor:
    """[E + num_loops], bool: False for the slots of given self-loops."""
    given = src != dst
    return torch.cat([given, given.new_ones(num_loops)])
