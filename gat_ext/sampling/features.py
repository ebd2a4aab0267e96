"""Gathers the rows of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

_LARGE = 2**18  # bytes


def gather(rows: Tensor, index: Tensor) -> Tensor:
    """``rows[index]``; in a worker process, large results are written to shared memory.

    So they are not copied once more to be sent.

    Args:
        rows: [N, ...], on the CPU; may be mapped from a file.
        index: int64 [M].

    Example:
        >>> gather(torch.arange(4) * 2, torch.tensor([3, 1]))
        tensor([6, 2])
    """
    rows = rows.detach()
    shape = (index.shape[0], *rows.shape[1:])
    size = math.prod(shape) * rows.element_size()
    if size < _LARGE or get_worker_info() is None:
        found: Tensor = rows.index_select(0, index)
        return found
    storage = torch.UntypedStorage._new_shared(size, device="cpu")
    out: Tensor = rows.new_empty(0).set_(storage, 0, shape)  # type: ignore[call-overload]
    torch.index_select(rows, 0, index, out=out)
    return out
