"""Node features that are mostly zeros, such as bags of words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from gat_ext.functional import spmm
from gat_ext.graph import Graph


class SparseFeatures:
    r"""A sparse feature matrix [N, C], stored by rows: what a layer's first projection reads.

    Its product with a weight [C', C] costs :math:`O(\mathrm{nnz} \, C')` instead of
    :math:`O(N C C')`. Layers and models take it in place of a dense x, as they take a torch sparse
    CSR tensor.

    Args:
        matrix: a torch tensor of layout sparse CSR or sparse COO, or a dense one, whose zeros are left
            out. Entries stored twice add up.

    Attributes:
        graph: the stored entries as edges, from columns to rows.
        values: [nnz], one number an edge.

    Raises:
        TypeError: matrix is no tensor, or of another layout.
        ValueError: it is no matrix.

    Example:
        >>> import torch
        >>> from gat_ext import SparseFeatures
        >>> x = SparseFeatures(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))
        >>> x.shape, x.values.tolist()
        (torch.Size([2, 3]), [2.0, 1.0])
        >>> x.linear(torch.ones(1, 3)).tolist()
        [[2.0], [1.0]]
    """

    def __init__(self, matrix: Tensor) -> None:
        """Takes the stored entries; see the class for the arguments."""
        if not isinstance(matrix, Tensor):
            raise TypeError(
                f"SparseFeatures got a {type(matrix).__name__}; expected a torch tensor"
            )
        if matrix.dim() != 2:
            raise ValueError(
                f"SparseFeatures got shape {list(matrix.shape)}; expected a matrix [N, C]"
            )
        if matrix.layout == torch.strided:
            # A sparse tensor's own conversion would copy what the graph holds already.
            position = matrix.nonzero().t()
            self.values = matrix[position[0], position[1]]
            self.graph = Graph(position.flip(0), num_src=matrix.shape[1], num_dst=matrix.shape[0])
        else:
            if matrix.layout == torch.sparse_coo:
                matrix = matrix.coalesce()
            self.graph = Graph.from_torch_sparse(matrix)
            self.values = matrix.values()

    @classmethod
    def _of(cls, graph: Graph, values: Tensor) -> SparseFeatures:
        features = cls.__new__(cls)
        features.graph, features.values = graph, values
        return features

    @property
    def shape(self) -> torch.Size:
        """(N, C)."""
        return torch.Size((self.graph.num_dst, self.graph.num_src))

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Of graph and values."""
        return self.values.device

    def dim(self) -> int:
        """2."""
        return 2

    def to(self, *args: Any, **kwargs: Any) -> SparseFeatures:
        """On another device or of another dtype; arguments as those of ``Tensor.to``."""
        values = self.values.to(*args, **kwargs)
        return self._of(self.graph.to(values.device), values)

    def scaled(self, factor: Tensor) -> SparseFeatures:
        """These features with every stored entry multiplied by a factor of its own, such as those of dropout.

        Args:
            factor: [nnz].
        """
        return self._of(self.graph, self.values * factor)

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``torch.nn.functional.linear`` of the features, with gradients for all that need one.

        Args:
            weight: [C', C].
            bias: [C'] or None.

        Returns:
            [N, C'].

        Raises:
            TypeError, ValueError: as :func:`gat_ext.functional.spmm`.
        """
        out = spmm(self.graph, weight.t(), self.values)
        return out if bias is None else out + bias

    def __repr__(self) -> str:
        """Shape and number of stored entries."""
        num_rows, num_columns = self.shape
        return f"SparseFeatures({num_rows}, {num_columns}, nnz={self.graph.num_edges})"


_wrapped = WeakIdKeyDictionary()


def as_features(x: Tensor | SparseFeatures) -> Tensor | SparseFeatures:
    """x, or where it is a torch sparse tensor, its ``SparseFeatures``, remembered as long as x lives."""
    if not isinstance(x, Tensor) or x.layout not in (torch.sparse_csr, torch.sparse_coo):
        return x
    if x.requires_grad:
        return SparseFeatures(x)
    known: SparseFeatures | None = _wrapped.get(x)
    if known is None:
        known = _wrapped[x] = SparseFeatures(x)
    return known
