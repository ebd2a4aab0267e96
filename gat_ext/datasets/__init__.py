"""Data sets of nodes and of graphs: one module per family, loaded by name.

A new family is a new module of this package that registers its loader:

    @register("mine")
    def mine(root: Path | None = None, *, seed: int = 0) -> NodeDataset: ...

    @register_graphs("mine")
    def mine(root: Path | None = None, *, seed: int = 0) -> GraphDataset: ...

Uses ``graph``. All knowledge of file formats is in this package.
"""

from __future__ import annotations

import importlib
import pkgutil

from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._graphs import Fold, GraphDataset
from gat_ext.datasets._registry import (
    available,
    available_graphs,
    load,
    load_graphs,
    register,
    register_graphs,
)


def discover() -> None:
    """Imports every module of this package, so that its data sets are registered."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")


discover()

__all__ = [
    "Fold",
    "GraphDataset",
    "NodeDataset",
    "available",
    "available_graphs",
    "load",
    "load_graphs",
    "register",
    "register_graphs",
]
