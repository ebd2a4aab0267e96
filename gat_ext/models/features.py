"""Preparation of the models' node features."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from gat_ext.graph.cache import cached
from gat_ext.nn.features import SparseFeatures, as_features, dropout
from gat_ext.ops.numbering import current_numbering, numbered_rows, of_batch
from gat_ext.ops.state import is_tracing

_SPARSE = 0.25  # share of nonzero elements below which only they are stored


def input_features(x: Tensor | SparseFeatures) -> Tensor | SparseFeatures:
    """The input of a model's first layer: sparse if x is sparse, or if x is constant and mostly 0.

    For a bag of words with one nonzero element in a hundred, the projection and the random numbers
    of dropout then cost a hundredth. The sparse features are cached until x is modified; in-place
    changes are noticed by torch's version counter, or by contents for tensors in shared memory and
    while ``torch.distributed`` is initialised. CPU only: a GPU multiplies such matrices in less
    time than it takes to find their zeros.

    Args:
        x: [N, C], dense or sparse.

    Raises:
        TypeError: x is neither a tensor nor SparseFeatures.

    Example:
        >>> x = torch.zeros(100, 10)
        >>> x[:, 0] = 1
        >>> input_features(x)
        SparseFeatures(100, 10, nnz=100)
    """
    if not isinstance(x, (Tensor, SparseFeatures)):
        raise TypeError(
            f"x is a {type(x).__name__}; a model expects a torch.Tensor [N, C], or SparseFeatures"
        )
    x = as_features(x)
    if isinstance(x, SparseFeatures) or not _may_be_sparse(x):
        return x
    sparse = cached((x,), "sparse", lambda: _sparse_or_none(x), large=True)
    return x if sparse is None else sparse


def _sparse_or_none(x: Tensor) -> SparseFeatures | None:
    """Sparse features, or None if x has too many nonzero elements."""
    return SparseFeatures(x) if is_sparse(int(torch.count_nonzero(x)), x.numel()) else None


def is_sparse(num_nonzero: int, num_elements: int) -> bool:
    """Whether models store only the nonzero elements of features, on the CPU."""
    return num_nonzero <= _SPARSE * num_elements


def _may_be_sparse(x: Tensor) -> bool:
    return (
        not is_tracing()
        and type(x) is Tensor  # the elements of a fake tensor cannot be counted
        and x.dim() == 2
        and x.device.type == "cpu"
        and x.is_floating_point()
        and not x.requires_grad
        and not x.is_inference()  # has no version counter
        and not torch.is_autocast_enabled("cpu")
    )


def dropout_features(
    x: Tensor | SparseFeatures, p: float, training: bool
) -> Tensor | SparseFeatures:
    """Dropout of features [N, C]; of sparse features, only of the stored elements."""
    if isinstance(x, SparseFeatures):
        return x.dropout(p, training)
    if x.dim() > 2 and current_numbering() is not None:  # a batch [..., N, C]
        rows = x.flatten(0, -2)
        with numbered_rows(of_batch(prod(x.shape[:-2]))):
            return dropout(rows, p, training).view(x.shape)
    return dropout(x, p, training)
