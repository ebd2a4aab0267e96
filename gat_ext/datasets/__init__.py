"""Node classification data sets: one module per family, found and loaded by name.

A new family is a new module of this package that registers its loader:

    @register("mine")
    def mine(root: Path | None = None, *, seed: int = 0) -> NodeDataset: ...
"""

from __future__ import annotations

import importlib
import pkgutil

from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._registry import available, load, register

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["NodeDataset", "available", "load", "register"]
