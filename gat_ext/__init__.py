"""gat_ext: sparse graph attention as native PyTorch operators.

    >>> import torch
    >>> from gat_ext import Graph, functional
    >>> graph = Graph(torch.tensor([[0, 1, 2], [2, 2, 0]]))
    >>> functional.spmm(graph, torch.eye(3)).sum()
    tensor(3.)

``Graph`` holds the edges; ``gat_ext.functional`` the operators; ``gat_ext.nn`` layers;
``gat_ext.models`` whole networks; ``gat_ext.datasets`` and ``gat_ext.training`` what it takes to
train them; ``gat_ext.reference`` the same mathematics in plain torch.
"""

from __future__ import annotations

from pathlib import Path

from gat_ext.ops import native

native.check_torch()
native.load()

from gat_ext import functional, reference  # noqa: E402
from gat_ext.graph import Graph  # noqa: E402
from gat_ext.graph.cache import empty_cache  # noqa: E402
from gat_ext.nn.features import SparseFeatures  # noqa: E402

__version__ = "0.1.0"
library_path = str(Path(__file__).with_name("libgat_ext.so"))
"""The library of the operators, which C++ programs load to run exported models; it needs torch, and no Python."""

__all__ = [
    "Graph",
    "SparseFeatures",
    "__version__",
    "empty_cache",
    "functional",
    "library_path",
    "reference",
]
