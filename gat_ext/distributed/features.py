"""Sparse features of nodes, of which each process has some rows."""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.distributed.graph import DistGraph
from gat_ext.distributed.reduce import sum_over_processes
from gat_ext.models.features import is_sparse
from gat_ext.nn.features import SparseFeatures


def input_features(x: Tensor, graph: DistGraph) -> Tensor | SparseFeatures:
    """Features for the models, stored sparsely if they are mostly zeros in all processes together.

    Models convert such features at each call, each process by its own rows. This function converts
    them once, and dropout of the result draws for each entry what it draws in one process. All
    processes call it.

    Args:
        x: [n, C], dense, of own nodes; without gradient.
        graph: the part of this process.

    Returns:
        SparseFeatures [n, C]; x itself on a GPU, or if more than a quarter of its elements are
        nonzero in all processes together.

    Raises:
        ValueError: ``x`` is not [n, C].

    Example:
        >>> import torch
        >>> from gat_ext.distributed import DistGraph, input_features, make_part
        >>> ring = torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> graph = DistGraph(make_part(ring, torch.zeros(3, dtype=torch.int64), 0, parts=1))
        >>> input_features(torch.eye(3, 5), graph)
        SparseFeatures(3, 5, nnz=3)
    """
    if x.dim() != 2 or x.shape[0] != graph.num_src:
        raise ValueError(
            f"x has shape {list(x.shape)}; expected [n, C] with the n = {graph.num_src} rows of "
            "own nodes"
        )
    if x.device.type != "cpu":
        return x
    nodes, num_nodes = graph.src_numbering
    own = x.count_nonzero(dim=1)
    counts = torch.zeros(num_nodes, dtype=torch.int64).index_copy_(0, nodes.cpu(), own)
    counts = sum_over_processes(counts, graph.group)
    total = int(counts.sum())
    if not is_sparse(total, num_nodes * x.shape[1]):
        return x
    first = (counts.cumsum(0) - counts)[nodes.cpu()] - (own.cumsum(0) - own)
    numbers = first.repeat_interleave(own) + torch.arange(int(own.sum()))
    return SparseFeatures(x).numbered(numbers, total)
