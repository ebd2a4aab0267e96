"""What was made of an edge_index, remembered for as long as the tensor lives and nobody writes to it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gat_ext._traced import is_tracing

Made = TypeVar("Made")


class _Entry(NamedTuple):
    state: tuple[Hashable, ...]
    made: dict[Hashable, Any]


_MOST = 16  # what is made of one tensor
_entries = WeakTensorKeyDictionary()


def remembered(edge_index: Tensor, key: Hashable, make: Callable[[], Made]) -> Made:
    """``make()``, or what it returned for this tensor and key before.

    A tensor is known by its identity, and by its version, which every write through torch raises, also one to a view of it. A
    write that torch does not see, through ``.data`` or a NumPy array of the same memory, is not noticed.

    Args:
        edge_index: held weakly: what was made of it goes with it.
        key: what else the result depends on.
        make: returns what does not hold ``edge_index``; its errors are not remembered.
    """
    if not _can_be_known(edge_index):
        return make()
    state = edge_index._version, edge_index.data_ptr(), edge_index.shape, edge_index.stride()
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
