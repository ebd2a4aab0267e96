"""Data sets of nodes, of nodes of several types, and of graphs: one module per family, by name.

A new family is a new module of this package that registers its loader::

    @register("mine")
    def mine(root: Path | None = None, *, seed: int = 0) -> NodeDataset: ...

    @register_graphs("mine")
    def mine(root: Path | None = None, *, seed: int = 0) -> GraphDataset: ...

    @register_typed("mine")
    def mine(root: Path | None = None, *, seed: int = 0) -> TypedDataset: ...

``from_tables`` and ``from_path`` read a user's own tables and files.

Uses ``graph``. All knowledge of file formats is in this package.
"""

from __future__ import annotations

import importlib
import pkgutil

from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._graphs import Fold, GraphDataset
from gat_ext.datasets._names import Names
from gat_ext.datasets._own import from_tables
from gat_ext.datasets._own_files import from_path
from gat_ext.datasets._own_parts import Reading
from gat_ext.datasets._registry import (
    available,
    available_graphs,
    available_typed,
    load,
    load_graphs,
    load_typed,
    register,
    register_graphs,
    register_typed,
)
from gat_ext.datasets._typed import TypedDataset


def discover() -> None:
    """Imports every module of this package, so that its data sets are registered."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")


discover()

__all__ = [
    "Fold",
    "GraphDataset",
    "Names",
    "NodeDataset",
    "Reading",
    "TypedDataset",
    "available",
    "available_graphs",
    "available_typed",
    "from_path",
    "from_tables",
    "load",
    "load_graphs",
    "load_typed",
    "register",
    "register_graphs",
    "register_typed",
]
