"""Checks of the row pointers of compressed matrices, before anything uses them."""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.ops.scatter import expand_rows


def expand(pointers: Tensor, count: int, lines: int, name: str) -> Tensor:
    """The row (or column) of each of ``count`` entries, from the pointers of ``lines`` rows.

    Raises:
        ValueError: the pointers do not ascend from 0 to ``count``; their use could write out of
            bounds.
    """
    check_pointers(pointers, count, lines, name)
    return expand_rows(pointers.long(), count)


def check_pointers(pointers: Tensor, count: int, lines: int, name: str) -> None:
    """Raises ValueError unless there are ``lines + 1`` pointers that ascend from 0 to ``count``."""
    if pointers.shape != (lines + 1,):
        raise ValueError(
            f"{name} has shape {list(pointers.shape)}; expected [{lines + 1}], one pointer more "
            "than the matrix has rows or columns"
        )
    if pointers.is_meta:
        return
    falls = pointers[1:] < pointers[:-1]
    # One transfer from the device for all numbers.
    ends = pointers[0], pointers[-1], falls.any()
    first, last, faulty = torch.stack([end.long() for end in ends]).tolist()
    if (first, last) != (0, count):
        raise ValueError(
            f"{name} goes from {first} to {last}; expected 0 to {count}, the number of stored "
            "entries"
        )
    if faulty:
        place = int(falls.nonzero()[0])
        before, after = pointers[place : place + 2].tolist()
        raise ValueError(
            f"{name} decreases from {before} at position {place} to {after} at position "
            f"{place + 1}; expected ascending numbers"
        )
