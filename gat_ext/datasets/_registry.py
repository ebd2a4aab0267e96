"""Data sets by name."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gat_ext.datasets._dataset import NodeDataset

Loader = TypeVar("Loader", bound=Callable[..., NodeDataset])

_LOADERS: dict[str, Callable[..., NodeDataset]] = {}


def register(name: str) -> Callable[[Loader], Loader]:
    """Decorator: makes a loader known to ``load`` as ``name``.

    The loader is called with ``root`` (a Path or None) and takes its options as keyword-only
    arguments.

    Raises:
        ValueError: The name is taken.
    """

    def add(loader: Loader) -> Loader:
        if name in _LOADERS:
            raise ValueError(
                f"a data set named {name!r} is registered already; choose another name"
            )
        _LOADERS[name] = loader
        return loader

    return add


def available() -> list[str]:
    """The names that ``load`` knows, sorted.

    Example:
        >>> "cora" in available()
        True
    """
    return sorted(_LOADERS)


def load(name: str, root: str | os.PathLike[str] | None = None, **options: Any) -> NodeDataset:
    """Load a data set.

    Args:
        name: One of ``available()``.
        root: Folder with the data set's files, or with a folder of them named after its family
            (``planetoid``, ``ppi``); nothing is downloaded then. None: the folder that the
            environment variable ``GAT_EXT_DATA`` names, where it has the files, else the cache,
            filled by download. Data sets that read no files do not look at it.
        **options: The loader's own, documented with it.

    Returns:
        The data set, on the CPU. The same arguments give the same data set.

    Raises:
        ValueError: Unknown name, or a value that the loader refuses.
        TypeError: An option that the loader does not have.
        FileNotFoundError: ``root`` is given and lacks a file.
        ConnectionError: A download failed.
        ImportError: A package of the ``train`` extra is missing.

    Example:
        >>> load("sbm", num_nodes=60, num_classes=3, train_per_class=5, num_val=15).num_nodes
        60
    """
    loader = _LOADERS.get(name)
    if loader is None:
        close = difflib.get_close_matches(str(name).lower(), _LOADERS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        raise ValueError(f"unknown data set {name!r}{hint} available: {', '.join(available())}")
    parameters = inspect.signature(loader).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(
            f"data set {name!r} has no option {', '.join(unknown)}; its options: {', '.join(known)}"
        )
    return loader(None if root is None else Path(root), **options)
