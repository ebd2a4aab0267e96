"""The cache of results computed from edges, matrices, features and graphs.

A result is valid as long as :func:`gat_ext.graph.contents.state_of` is unchanged for every tensor
from which it was computed. The cache holds weak references to these owners and drops their results
with them. Above ``LIMIT`` bytes it drops the least recently used results, except those of the
``RECENT`` most recently used owners, so that training on one huge graph never evicts its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from gat_ext import _C
from gat_ext.graph.contents import State, state_of
from gat_ext.graph.streams import Ready, ready
from gat_ext.ops.state import is_capturing, is_tracing

Made = TypeVar("Made")
Owners = tuple[Any, ...]
"""Tensors, or objects that are immutable"""


LIMIT = min(2**30, _C.memory_limit() // 16)  # bytes on all devices
RECENT = 16  # owners whose results are kept, whatever their size
PER_OWNER = 16  # results, such as graphs of one edge_index with different numbers of nodes
_OVERHEAD = 4096  # bytes counted for each result in addition to its tensors


class _Slot:
    """The results of one set of owners."""

    def __init__(self, refs: list[weakref.ref[Any]], state: list[State]) -> None:
        self.refs, self.state, self.nbytes = refs, state, 0
        self.results: OrderedDict[Hashable, tuple[Any, Ready | None]] = OrderedDict()


class Cache:
    """Results by owners and key, in the order of their last use. Thread-safe.

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
        """Creates an empty cache."""
        self.nbytes = 0
        self._slots: OrderedDict[tuple[int, ...], _Slot] = OrderedDict()
        # Reentrant, because dropping a result may free the owner of another.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Number of results."""
        with self._lock:
            return sum(len(slot.results) for slot in self._slots.values())

    def get(
        self, owners: Owners, key: Hashable, make: Callable[[], Made], *, large: bool = False
    ) -> Made:
        """Returns the cached result for these owners and this key, else that of ``make()``.

        On a GPU the result may be used on the current stream, whichever stream it was computed on.

        Nothing is cached while tracing or capturing a CUDA graph, nor for inference tensors, which
        have no version, nor for subclasses of Tensor other than PyG's EdgeIndex.

        Args:
            owners: the objects from which the result is computed.
            key: all other dependencies of the result.
            make: computes the result, which must not hold an owner. Exceptions are not cached.
            large: see :func:`gat_ext.graph.contents.state_of`.
        """
        if is_tracing():
            return make()
        state = []  # read before make(), so that the next call notices a modification during it
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
                found: Made = _used(slot.results[key])
                return found
        # The result may be needed in a later backward, which excludes inference tensors.
        with torch.inference_mode(False):
            made = make()
        if any(map(is_capturing, owners)):
            return made
        entry = made, ready(made)
        with self._lock:
            slot = self._slots.get(ids)
            if slot is None or slot.state != state:
                self._drop(ids)
                drop = partial(self._drop, ids)
                slot = self._slots[ids] = _Slot([weakref.ref(o, drop) for o in owners], state)
            elif key in slot.results:  # another thread stored it meanwhile
                found = _used(slot.results[key])
                return found
            self._store(slot, key, entry)
            self._slots.move_to_end(ids)
            while self.nbytes > LIMIT and len(self._slots) > RECENT:
                self._drop(next(iter(self._slots)))
        return made

    def clear(self) -> None:
        """Drops every result."""
        with self._lock:
            while self._slots:
                self._drop(next(iter(self._slots)))

    def _store(self, slot: _Slot, key: Hashable, entry: tuple[Any, Ready | None]) -> None:
        added = _bytes_of(entry[0]) + _OVERHEAD
        if len(slot.results) >= PER_OWNER:
            added -= _bytes_of(slot.results.popitem(last=False)[1][0]) + _OVERHEAD
        slot.results[key] = entry
        slot.nbytes += added
        self.nbytes += added

    def _drop(self, ids: tuple[int, ...], _: Any = None) -> None:
        with self._lock:
            slot = self._slots.pop(ids, None)
            if slot is not None:
                self.nbytes -= slot.nbytes


def _used(entry: tuple[Made, Ready | None]) -> Made:
    """A cached result, for the current stream."""
    made, when = entry
    if when is not None:
        when.use(made)
    return made


def _counts_versions(tensor: Tensor) -> bool:
    """True if modifications of the tensor are noticed."""
    known = type(tensor) is Tensor or hasattr(tensor, "as_tensor")
    return known and not tensor.is_inference()


def _bytes_of(made: Any) -> int:
    """Bytes of a result: a tensor, an object with ``nbytes``, or a tuple of these."""
    if isinstance(made, tuple):
        return sum(map(_bytes_of, made))
    return int(getattr(made, "nbytes", 0))


_cache = Cache()
cached = _cache.get
os.register_at_fork(after_in_child=lambda: setattr(_cache, "_lock", threading.RLock()))


def empty_cache() -> None:
    """Frees cached graphs, sparse and reordered features, and blocks of memory.

    Objects in use are not affected; cached results that are needed later are computed again.
    """
    _cache.clear()
    _C.empty_cache()
