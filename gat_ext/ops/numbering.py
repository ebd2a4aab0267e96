"""The numbers of rows in the draws of dropout, while only some rows of a tensor are present."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor


class Numbering(NamedTuple):
    """Which rows of a larger tensor are present.

    Attributes:
        numbers: int64 [N], the row of the larger tensor that each present row is.
        total: number of rows of the larger tensor.
    """

    numbers: Tensor
    total: int


_CURRENT: ContextVar[Numbering | None] = ContextVar("numbering", default=None)


def current_numbering() -> Numbering | None:
    """The numbering within which the caller is; None in a trace, which has none."""
    return None if torch.compiler.is_compiling() else _CURRENT.get()


def numbered_rows(numbering: Numbering | None) -> AbstractContextManager[None]:
    """Within it, dropout draws row r of a tensor as row ``numbers[r]`` of the larger tensor.

    Args:
        numbering: the present rows; None changes nothing.
    """
    return nullcontext() if numbering is None else _numbered_rows(numbering)


@contextmanager
def _numbered_rows(numbering: Numbering) -> Iterator[None]:
    token = _CURRENT.set(numbering)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def of_batch(size: int) -> Numbering | None:
    """The current numbering for ``size`` tensors, one after the other."""
    current = current_numbering()
    if current is None:
        return None
    numbers, total = current
    each = torch.arange(size, device=numbers.device).unsqueeze(1)
    return Numbering((each * total + numbers).flatten(), size * total)


def numbers_of_rows(x: Tensor) -> Tensor | None:
    """int64 [x.shape[0]], the numbers of the rows of x; None outside of :func:`numbered_rows`.

    A tensor of B rows for each numbered row, one after the other, has the numbers B · n + b.

    Raises:
        ValueError: x has another number of rows.
    """
    current = current_numbering()
    if current is None:
        return None
    numbers = current.numbers
    count, rows = numbers.shape[0], x.shape[0] if x.dim() else 0
    if rows == count:
        return numbers
    if count == 0 or rows % count:
        raise ValueError(
            f"x has shape {list(x.shape)}, but dropout is drawn for the {count} nodes of this "
            "process; expected a multiple of them as rows"
        )
    each = torch.arange(rows // count, device=numbers.device)
    return (numbers.unsqueeze(1) * (rows // count) + each).flatten()
