"""What models do with the node features they are given."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

from gat_ext.features import SparseFeatures, as_features

_SPARSE = 0.25  # share of nonzero elements below which only they are stored


class _Known(NamedTuple):
    version: int
    features: SparseFeatures | None  # None: too many to be worth it


_known = WeakIdKeyDictionary()


def input_features(x: Tensor | SparseFeatures) -> Tensor | SparseFeatures:
    """The features of a model's first layer: sparse ones for what is sparse, or constant and mostly zeros.

    A bag of words, of which one element in a hundred is not zero, so costs a hundredth of the projection and of the random
    numbers of dropout. Where the nonzero elements are is remembered for as long as the tensor lives and is not written to.
    On the CPU only: a GPU multiplies such matrices faster than it looks for their zeros.

    Args:
        x: [N, C], dense or sparse.

    Example:
        >>> x = torch.zeros(100, 10)
        >>> x[:, 0] = 1
        >>> input_features(x)
        SparseFeatures(100, 10, nnz=100)
    """
    x = as_features(x)
    if isinstance(x, SparseFeatures) or not _may_be_sparse(x):
        return x
    known: _Known | None = _known.get(x)
    if known is None or known.version != x._version:
        sparse = torch.count_nonzero(x) <= _SPARSE * x.numel()
        known = _known[x] = _Known(x._version, SparseFeatures(x) if sparse else None)
    return x if known.features is None else known.features


def _may_be_sparse(x: Tensor) -> bool:
    return (
        isinstance(x, Tensor)
        and x.dim() == 2
        and x.device.type == "cpu"
        and x.is_floating_point()
        and not x.requires_grad
        and not x.is_inference()  # does not count the writes to it
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def dropout_features(
    x: Tensor | SparseFeatures, p: float, training: bool
) -> Tensor | SparseFeatures:
    """Dropout, of sparse features on the stored elements.

    On the CPU by uniform numbers, which torch draws three times as fast as the bits of ``torch.nn.functional.dropout``.

    Args:
        x: [N, C].
        p: probability with which an element is dropped; the others are multiplied by 1 / (1 - p).
        training: False returns x itself.

    Example:
        >>> dropout_features(torch.ones(100, 10), 0.5, training=True).unique()
        tensor([0., 2.])
    """
    if not training or p == 0:
        return x
    if isinstance(x, SparseFeatures):
        return x.scaled(_multipliers(x.values, p))
    return x * _multipliers(x, p)


def _multipliers(like: Tensor, p: float) -> Tensor:
    """0 with probability p, else 1 / (1 - p)."""
    if like.device.type != "cpu" or p == 1 or torch.compiler.is_compiling():
        return F.dropout(torch.ones_like(like), p)
    kept = torch.rand(like.shape) >= p
    return kept.to(like.dtype).mul_(1 / (1 - p))
