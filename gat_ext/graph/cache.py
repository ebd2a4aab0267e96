"""Results computed from an edge_index, cached for as long as the tensor lives and nobody writes to it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gat_ext.graph.contents import State, state_of
from gat_ext.ops.state import is_tracing

Made = TypeVar("Made")


class _Entry(NamedTuple):
    state: State
    made: dict[Hashable, Any]


_MOST = 16  # what is made of one tensor
_entries = WeakTensorKeyDictionary()


def remembered(edge_index: Tensor, key: Hashable, make: Callable[[], Made]) -> Made:
    """``make()``, or what it returned for this tensor and key before.

    The cache is valid for as long as :func:`gat_ext.graph.contents.state_of` of the tensor is the same: on
    the CPU it notices every write, on a GPU those that torch counts, and all while ``torch.distributed`` is initialised.

    Args:
        edge_index: held weakly: what was made of it goes with it.
        key: what else the result depends on.
        make: returns what does not hold ``edge_index``; its errors are not remembered.
    """
    if not _can_be_known(edge_index):
        return make()
    state = state_of(edge_index)  # before make, so that a write meanwhile shows at the next call
    entry = _entries.get(edge_index)
    if entry is None or entry.state != state:
        entry = _Entry(state, {})
    elif key in entry.made:
        known: Made = entry.made[key]
        return known
    made = make()
    # The first one goes: one edge_index for many numbers of nodes is no use that lasts.
    if len(entry.made) >= _MOST:
        entry.made.pop(next(iter(entry.made)), None)
    entry.made[key] = made
    _entries[edge_index] = entry
    return made


def _can_be_known(edge_index: Tensor) -> bool:
    """Not while operations are recorded, where the result has to be made anew each time, nor without a version."""
    return type(edge_index) is Tensor and not edge_index.is_inference() and not is_tracing()
