"""Sends a batch from a worker in one piece of shared memory.

Every tensor that crosses processes on its own takes a file descriptor and a connection, some tenths
of a millisecond. The many small tensors of a batch are copied to one; large ones are in shared
memory already, see :mod:`gat_ext.sampling.features`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gat_ext.graph import Graph

_ALIGNMENT = 64  # bytes


class _Slot(NamedTuple):
    """The place of a tensor in the shared memory."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class _Parts(NamedTuple):
    """A graph, by its packed CSR."""

    csr: tuple[Any, Any, Any]
    num_src: int


def pack(fields: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """(uint8 tensor in shared memory, the fields with slots in place of tensors).

    Args:
        fields: tensors on the CPU, graphs without transpose, lists and dictionaries of these, and
            other objects, which are unchanged, as are tensors in shared memory.
    """
    tensors: list[tuple[int, Tensor]] = []
    size = 0

    def packed(value: Any) -> Any:
        nonlocal size
        if isinstance(value, list):
            return [packed(part) for part in value]
        if isinstance(value, dict):
            return {key: packed(part) for key, part in value.items()}
        if isinstance(value, Graph):
            return _Parts(
                (packed(value.rowptr), packed(value.col), packed(value.edge_id)), value.num_src
            )
        if not isinstance(value, Tensor) or value.is_shared():
            return value
        slot = _Slot(size, tuple(value.shape), value.dtype)
        tensors.append((size, value.contiguous()))
        size += -(-value.nbytes // _ALIGNMENT) * _ALIGNMENT
        return slot

    layout = {name: packed(value) for name, value in fields.items()}
    storage = torch.UntypedStorage._new_shared(size, device="cpu")
    memory: Tensor = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (size,))  # type: ignore[call-overload]
    for offset, tensor in tensors:
        memory[offset : offset + tensor.nbytes] = tensor.view(-1).view(torch.uint8)
    return memory, layout


def unpack(kind: type, memory: Tensor, layout: dict[str, Any]) -> Any:
    """``kind(**fields)`` of packed fields, whose tensors are views of the memory.

    Example:
        >>> unpack(dict, *pack({"x": torch.ones(2, 1), "size": 2}))
        {'x': tensor([[1.],
                [1.]]), 'size': 2}
    """

    def unpacked(value: Any) -> Any:
        if isinstance(value, _Slot):
            size = math.prod(value.shape) * value.dtype.itemsize
            return memory.narrow(0, value.offset, size).view(value.dtype).view(value.shape)
        if isinstance(value, _Parts):
            rowptr, col, edge_id = map(unpacked, value.csr)
            return Graph._from_csr((rowptr, col, edge_id), value.num_src)
        if isinstance(value, dict):
            return {key: unpacked(part) for key, part in value.items()}
        return [unpacked(part) for part in value] if isinstance(value, list) else value

    return kind(**{name: unpacked(value) for name, value in layout.items()})
