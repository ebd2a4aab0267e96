"""What models do with the node features they are given."""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.graph.cache import cached
from gat_ext.nn.features import SparseFeatures, as_features, dropout
from gat_ext.ops.state import is_tracing

_SPARSE = 0.25  # share of nonzero elements below which only they are stored


def input_features(x: Tensor | SparseFeatures) -> Tensor | SparseFeatures:
    """The features of a model's first layer, sparse where x is sparse, or constant and mostly 0.

    A bag of words, of which one element in a hundred is not zero, so costs a hundredth of the
    projection and of the random numbers of dropout. They are cached until the tensor is modified in
    a way that torch counts; in shared memory, or while ``torch.distributed`` is initialised, in any
    way. On the CPU only: a GPU multiplies such matrices faster than it looks for their zeros.

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
    sparse = cached((x,), "sparse", lambda: _sparse_or_none(x), large=True)
    return x if sparse is None else sparse


def _sparse_or_none(x: Tensor) -> SparseFeatures | None:
    """Sparse features where they are worth it."""
    few = torch.count_nonzero(x) <= _SPARSE * x.numel()
    return SparseFeatures(x) if few else None


def _may_be_sparse(x: Tensor) -> bool:
    return (
        not is_tracing()
        and type(x) is Tensor  # the elements of a fake tensor cannot be counted
        and x.dim() == 2
        and x.device.type == "cpu"
        and x.is_floating_point()
        and not x.requires_grad
        and not x.is_inference()  # does not count the writes to it
        and not torch.is_autocast_enabled("cpu")
    )


def dropout_features(
    x: Tensor | SparseFeatures, p: float, training: bool
) -> Tensor | SparseFeatures:
    """Dropout of features [N, C], of sparse ones on the stored elements."""
    if isinstance(x, SparseFeatures):
        return x.dropout(p, training)
    return dropout(x, p, training)
