"""Dropout of node features that are mostly zeros, such as bags of words."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

_SPARSE = 0.25  # share of nonzero elements below which only they are drawn for


class _NonZeros(NamedTuple):
    version: int
    position: Tensor | None  # in the flattened tensor; None: too many to be worth it
    value: Tensor | None


_known = WeakIdKeyDictionary()


def dropout_features(x: Tensor, p: float, training: bool) -> Tensor:
    """``torch.nn.functional.dropout``, which for a constant that is mostly zeros draws for its nonzero elements only.

    A dropped zero is a zero: the distribution is the same, and a bag of words, of which one element in a hundred is not zero,
    costs a hundredth of the random numbers. Where the nonzero elements are is remembered for as long as the tensor lives and
    is not written to.

    Args:
        x: any shape.
        p: probability with which an element is dropped; the others are multiplied by 1 / (1 - p).
        training: False returns x itself.

    Example:
        >>> x = torch.zeros(100, 10)
        >>> x[:, 0] = 1
        >>> dropout_features(x, 0.5, training=True).unique()
        tensor([0., 2.])
    """
    # A tensor made in inference mode does not count the writes to it.
    if not training or p == 0 or x.requires_grad or x.is_inference():
        return F.dropout(x, p, training)
    known: _NonZeros | None = _known.get(x)
    if known is None or known.version != x._version:
        known = _known[x] = _find(x)
    if known.position is None or known.value is None:
        return F.dropout(x, p)
    out = torch.zeros(x.numel(), dtype=x.dtype, device=x.device)
    return out.index_copy_(0, known.position, F.dropout(known.value, p)).view(x.shape)


def _find(x: Tensor) -> _NonZeros:
    flat = x.detach().flatten()
    position = flat.nonzero().flatten()
    if position.numel() > _SPARSE * flat.numel():
        return _NonZeros(x._version, None, None)
    return _NonZeros(x._version, position, flat[position])
