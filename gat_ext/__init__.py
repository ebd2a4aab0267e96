"""gat_ext: sparse graph attention as native PyTorch operators.

    >>> import torch
    >>> from gat_ext import Graph, functional
    >>> graph = Graph(torch.tensor([[0, 1, 2], [2, 2, 0]]))
    >>> functional.spmm(graph, torch.eye(3)).sum()
    tensor(3.)

``Graph`` holds edges; ``gat_ext.functional`` has operators, ``gat_ext.nn`` layers and
``gat_ext.models`` networks; ``gat_ext.datasets`` and ``gat_ext.training`` load data and train;
``gat_ext.distributed`` cuts graphs into parts, ``gat_ext.sampling`` yields mini-batches;
``gat_ext.explain`` analyses attention; ``gat_ext.export`` writes ONNX and torch.export files;
``gat_ext.reference`` has the operators in plain torch.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gat_ext.ops import native

if native.redirect(__path__):  # to an installed package, from a source folder without extension
    from gat_ext.ops import native

native.check_torch()
native.load(Path(__path__[0]))

from gat_ext import functional, reference  # noqa: E402
from gat_ext.graph import Graph  # noqa: E402
from gat_ext.graph.cache import empty_cache  # noqa: E402
from gat_ext.nn.features import SparseFeatures  # noqa: E402

if TYPE_CHECKING:
    from gat_ext import (
        datasets,
        distributed,
        explain,
        export,
        interop,
        models,
        nn,
        sampling,
        testing,
        training,
    )

__version__ = "0.1.0"
library_path = str(Path(__path__[0], "libgat_ext.so"))
"""Library of the operators, which C++ programs load to run exported models; needs torch only."""

__all__ = [
    "Graph",
    "SparseFeatures",
    "__version__",
    "datasets",
    "distributed",
    "empty_cache",
    "explain",
    "export",
    "functional",
    "interop",
    "library_path",
    "models",
    "nn",
    "reference",
    "sampling",
    "testing",
    "training",
]


def __getattr__(name: str) -> Any:
    """Imports a room at its first use."""
    if name in __all__:
        return importlib.import_module(f"gat_ext.{name}")
    raise AttributeError(f"module 'gat_ext' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Also the rooms that are not imported yet."""
    return sorted({*globals(), *__all__})
