"""Node features that are mostly zeros, such as bags of words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.functional import checks, spmm
from gat_ext.graph import Graph
from gat_ext.graph.cache import cached
from gat_ext.graph.formats.scipy_sparse import is_scipy, scipy_to_torch
from gat_ext.ops import linear_maps
from gat_ext.ops.numbering import Numbering, current_numbering, numbered_rows


class SparseFeatures:
    r"""A sparse feature matrix [N, C], stored by rows, as input of a layer's first projection.

    Its product with a weight [C', C] costs :math:`O(\mathrm{nnz} \, C')` instead of
    :math:`O(N C C')`. Layers and models take it, or a torch sparse CSR tensor, in place of a dense
    x.

    Args:
        matrix: [N, C], a torch tensor of layout sparse CSR, CSC or COO, a SciPy sparse matrix, or a
            dense tensor, whose zeros are left out. Duplicate entries are summed.

    Attributes:
        graph: the stored entries as edges, from columns to rows.
        values: [nnz], one number for each edge.

    Raises:
        TypeError: matrix is none of these, or not of floating-point numbers.
        ValueError: it is not two-dimensional, or its row or column pointers do not ascend from 0 to
            nnz.
        IndexError: an index is out of range.

    Example:
        >>> import torch
        >>> from gat_ext import SparseFeatures
        >>> x = SparseFeatures(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))
        >>> x.shape, x.values.tolist()
        (torch.Size([2, 3]), [2.0, 1.0])
        >>> x.linear(torch.ones(1, 3)).tolist()
        [[2.0], [1.0]]
    """

    def __init__(self, matrix: Any) -> None:
        """Reads the stored entries; see the class for the arguments."""
        if is_scipy(matrix):
            matrix = scipy_to_torch(matrix)
        if not isinstance(matrix, Tensor):
            raise TypeError(
                f"SparseFeatures got a {type(matrix).__name__}; expected a torch tensor or a SciPy "
                "sparse matrix"
            )
        if not matrix.is_floating_point():
            raise TypeError(
                f"SparseFeatures got dtype {matrix.dtype}; expected floating-point numbers: "
                "convert with .float()"
            )
        if matrix.dim() != 2:
            raise ValueError(
                f"SparseFeatures got shape {list(matrix.shape)}; expected a matrix [N, C]"
            )
        if matrix.layout == torch.strided:
            # to_sparse() would copy indices that the graph holds already.
            position = matrix.nonzero().t()
            self.values = matrix[position[0], position[1]]
            self.graph = Graph(position.flip(0), num_src=matrix.shape[1], num_dst=matrix.shape[0])
        else:
            if matrix.layout == torch.sparse_coo:
                matrix = matrix.coalesce()
            self.graph = Graph.from_torch_sparse(matrix)
            self.values = matrix.values()

    _entries: Numbering | None = None

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
        """The dtype of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """The device of graph and values."""
        return self.values.device

    def dim(self) -> int:
        """2."""
        return 2

    @property
    def nbytes(self) -> int:
        """Bytes of graph and values."""
        return self.graph.nbytes + self.values.nbytes

    def to(self, *args: Any, **kwargs: Any) -> SparseFeatures:
        """Converts device and dtype; takes the arguments of ``Tensor.to``."""
        values = self.values.to(*args, **kwargs)
        return self._of(self.graph.to(values.device), values)

    def dropout(self, p: float, training: bool = True) -> SparseFeatures:
        """Dropout of the stored entries, on the same graph.

        Args:
            p: probability of dropping an entry; the others are multiplied by 1 / (1 - p).
            training: False returns the features themselves.

        Raises:
            TypeError: p is not a number, or training neither True nor False.
            ValueError: p is not a probability.
        """
        checks.flag(training, "training")
        with numbered_rows(self._numbering()):
            values = dropout(self.values, checks.probability(p, "p"), training)
        return self if values is self.values else self._of(self.graph, values)

    def numbered(self, numbers: Tensor, total: int) -> SparseFeatures:
        """The same features, as some rows of a matrix that several processes share.

        Dropout then draws for each entry what it draws for it in the whole matrix.

        Args:
            numbers: int64 [nnz], the position of each stored entry among those of the whole matrix.
            total: number of stored entries of the whole matrix.
        """
        features = self._of(self.graph, self.values)
        features._entries = Numbering(numbers, total)
        return features

    def _numbering(self) -> Numbering | None:
        """The numbers of the stored entries, if rows are numbered: by default, of all elements."""
        current = current_numbering()
        if current is None or self._entries is not None:
            return self._entries
        column, row = self.graph.edge_index
        width = self.shape[1]
        return Numbering(current.numbers[row] * width + column, current.total * width)

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``torch.nn.functional.linear`` of the features, differentiable in all its inputs.

        Args:
            weight: [C', C].
            bias: [C'] or None.

        Returns:
            [N, C'].

        Raises:
            TypeError: weight or bias is not a tensor, or has another dtype than the values.
            ValueError: weight does not have C columns or bias C' elements, or one is on another
                device.
        """
        checks.floating(weight, "weight")
        if weight.dim() != 2 or weight.shape[1] != self.shape[1]:
            raise ValueError(
                f"weight has shape {list(weight.shape)}; {self} expects [C', {self.shape[1]}]"
            )
        if bias is not None:
            checks.same_kind(weight, "weight", bias, "bias")
            if bias.shape != weight.shape[:1]:
                raise ValueError(f"bias has shape {list(bias.shape)}; expected [{weight.shape[0]}]")
        out = spmm(self.graph, weight.t(), self.values)
        return out if bias is None else out + bias.to(out.dtype)  # autocast may have narrowed out

    def __repr__(self) -> str:
        """Shape and number of stored entries."""
        num_rows, num_columns = self.shape
        return f"SparseFeatures({num_rows}, {num_columns}, nnz={self.graph.num_edges})"


def as_features(x: Tensor | SparseFeatures) -> Tensor | SparseFeatures:
    """Converts a torch sparse tensor to ``SparseFeatures``; returns any other x unchanged.

    The graph is cached until the index tensors of x are modified. The values are not: they are a
    view of x and would keep it alive. An uncoalesced tensor is sorted again at each call, because
    its values are a copy.

    Raises:
        TypeError: x has a sparse layout other than CSR, CSC and COO.
    """
    if not isinstance(x, Tensor) or x.layout == torch.strided:
        return x
    lasting = x.layout != torch.sparse_coo or x.is_coalesced()
    if not lasting or x.is_inference():  # whose values would be copied, or may change unnoticed
        return SparseFeatures(x)
    return SparseFeatures._of(cached((x,), "features", lambda: SparseFeatures(x).graph), x.values())


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """``torch.nn.functional.dropout``; on the CPU with a counter-based generator, in parallel.

    Args:
        x: of any shape.
        p: probability of dropping an element; the others are multiplied by 1 / (1 - p).
        training: False returns x itself.

    Example:
        >>> dropout(torch.ones(100, 10), 0.5, training=True).unique()
        tensor([0., 2.])
    """
    if not training or p == 0:
        return x
    return linear_maps.dropout(x, p)
