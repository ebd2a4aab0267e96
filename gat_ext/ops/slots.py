"""Slots: the edges given, in their order, then a self-loop for each source and destination.

Every tensor of edges that goes with replaced self-loops has these rows, see the note in
csrc/torch/adjacency.cpp. Eager layers leave out the slots of the self-loops that were given.
"""

from __future__ import annotations

import torch
from torch import Tensor


def with_loops(ends: Tensor, num_loops: int) -> Tensor:
    """[..., E + num_loops]: the ends of the edges, [2, E] or [E], then those of the self-loops."""
    loops = torch.arange(num_loops, dtype=ends.dtype, device=ends.device)
    return torch.cat([ends, loops.expand(*ends.shape[:-1], -1)], dim=-1)


def are_attended(src: Tensor, dst: Tensor, num_loops: int) -> Tensor:
    """[E + num_loops], bool: the slots other than those of self-loops that were given."""
    given = src != dst
    return torch.cat([given, given.new_ones(num_loops)])
