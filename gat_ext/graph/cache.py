"""The one cache of what is computed from edges, matrices, features and graphs.

A result is valid as long as :func:`gat_ext.graph.contents.state_of` of every tensor that it was
computed from is the same. Its owners are held weakly: results die with them. Beyond ``LIMIT`` bytes
the results used least recently are dropped, except those of the ``RECENT`` owners used last, so
that a step on one huge graph always finds its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gat_ext import _C
from gat_ext.graph.contents import State, state_of
from gat_ext.ops.state import is_tracing

Made = TypeVar("Made")
Owners = tuple[Any, ...]
"""Tensors, or objects that are immutable"""


def _memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's limit."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return min(installed, int(Path("/sys/fs/cgroup", name).read_text()))
        except (OSError, ValueError):
            continue
    return installed


LIMIT = min(2**30, _memory() // 16)  # bytes, of all devices together
RECENT = 16  # owners whose results are kept, whatever their size
PER_OWNER = 16  # results, for example graphs of one edge_index with different numbers of nodes
_OVERHEAD = 4096  # bytes charged for a result beside its tensors


class _Slot:
    """The results of the same owners."""

    def __init__(self, refs: list[weakref.ref[Any]], state: list[State]) -> None:
        self.refs, self.state, self.nbytes = refs, state, 0
        self.results: OrderedDict[Hashable, Any] = OrderedDict()


class Cache:
    """Results by owner and key, in the order of their last use. Any thread may call any method.

    Example:
        >>> cache, edges = Cache(), torch.tensor([[0], [1]])
        >>> first = cache.get((edges,), "sum", lambda: edges.sum())
        >>> cache.get((edges,), "sum", lambda: edges.sum()) is first
        True
        >>> len(cache), cache.nbytes
        (1, 4104)
        >>> del edges
        >>> len(cache)
        0
    """

    def __init__(self) -> None:
        """An empty cache."""
        self.nbytes = 0
        self._slots: OrderedDict[tuple[int, ...], _Slot] = OrderedDict()
        # Reentrant: dropping a result may free the owner of another.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Number of results."""
        with self._lock:
            return sum(len(slot.results) for slot in self._slots.values())

    def get(
        self, owners: Owners, key: Hashable, make: Callable[[], Made], *, large: bool = False
    ) -> Made:
        """``make()``, or what it returned for these owners and this key before.

        Nothing is cached while operations are recorded, nor of inference tensors, which have no
        version, nor of subclasses of Tensor other than PyG's EdgeIndex.

        Args:
            owners: what the result is computed from.
            key: what else it depends on.
            make: computes the result, which must not hold an owner. What it raises is not cached.
            large: see :func:`gat_ext.graph.contents.state_of`.
        """
        if is_tracing():
            return make()
        state = []  # before make, so that a modification meanwhile shows at the next call
        for owner in owners:
            if isinstance(owner, Tensor):
                if not _counts_versions(owner):
                    return make()
                state.append(state_of(owner, large=large))
        ids = tuple(map(id, owners))
        with self._lock:
            slot = self._slots.get(ids)
            if slot is not None and slot.state == state and key in slot.results:
                self._slots.move_to_end(ids)
                slot.results.move_to_end(key)
                found: Made = slot.results[key]
                return found
        # It may serve a later backward, which tensors of inference mode cannot.
        with torch.inference_mode(False):
            made = make()
        with self._lock:
            slot = self._slots.get(ids)
            if slot is None or slot.state != state:
                self._drop(ids)
                drop = partial(self._drop, ids)
                slot = self._slots[ids] = _Slot([weakref.ref(o, drop) for o in owners], state)
            elif key in slot.results:  # another thread was faster
                found = slot.results[key]
                return found
            self._store(slot, key, made)
            self._slots.move_to_end(ids)
            while self.nbytes > LIMIT and len(self._slots) > RECENT:
                self._drop(next(iter(self._slots)))
        return made

    def clear(self) -> None:
        """Drops every result."""
        with self._lock:
            while self._slots:
                self._drop(next(iter(self._slots)))

    def _store(self, slot: _Slot, key: Hashable, made: Any) -> None:
        added = _bytes_of(made) + _OVERHEAD
        if len(slot.results) >= PER_OWNER:
            added -= _bytes_of(slot.results.popitem(last=False)[1]) + _OVERHEAD
        slot.results[key] = made
        slot.nbytes += added
        self.nbytes += added

    def _drop(self, ids: tuple[int, ...], _: Any = None) -> None:
        with self._lock:
            slot = self._slots.pop(ids, None)
            if slot is not None:
                self.nbytes -= slot.nbytes


def _counts_versions(tensor: Tensor) -> bool:
    """True if modifications of the tensor are noticed."""
    known = type(tensor) is Tensor or hasattr(tensor, "as_tensor")
    return known and not tensor.is_inference()


def _bytes_of(made: Any) -> int:
    """Bytes of a result: a tensor, something else with ``nbytes``, or a tuple of these."""
    if isinstance(made, tuple):
        return sum(map(_bytes_of, made))
    return int(getattr(made, "nbytes", 0))


_cache = Cache()
cached = _cache.get
os.register_at_fork(after_in_child=lambda: setattr(_cache, "_lock", threading.RLock()))


def empty_cache() -> None:
    """Frees what is cached: sorted graphs, sparse and reordered features, blocks of memory.

    What is in use stays, and no result changes; what is needed later is computed again.
    """
    _cache.clear()
    _C.empty_cache()
