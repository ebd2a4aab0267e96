"""Data sets by name, with a registry each for nodes, for nodes of several types, and for graphs."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Generic, TypeVar

from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._graphs import GraphDataset
from gat_ext.datasets._typed import TypedDataset

Data = TypeVar("Data")
Loader = TypeVar("Loader", bound=Callable[..., Any])

# Suffix of the name under which a family of data sets is registered.
ANY = ":NAME"


class Registry(Generic[Data]):
    """Loaders of one kind of data set, by name.

    A loader is called with ``root`` (a Path or None) and takes its options as keyword-only
    arguments. One registered as ``family:NAME`` loads every ``family:<name>`` and is called with
    ``<name>`` first.
    """

    def __init__(self) -> None:
        self._loaders: dict[str, Callable[..., Data]] = {}

    def register(self, name: str) -> Callable[[Loader], Loader]:
        """Decorator that adds a loader; raises ValueError if the name is registered already."""

        def add(loader: Loader) -> Loader:
            if name in self._loaders:
                raise ValueError(
                    f"a data set is already registered as {name!r}; choose another name"
                )
            self._loaders[name] = loader
            return loader

        return add

    def available(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._loaders)

    def load(self, name: str, root: str | os.PathLike[str] | None, options: dict[str, Any]) -> Data:
        """Calls the loader.

        Raises:
            ValueError: Unknown name.
            TypeError: An unknown option, or a value of another type than its annotation says.
        """
        loader = self._find(name)
        parameters = inspect.signature(loader).parameters.values()
        known = {one.name: one.annotation for one in parameters if one.kind is one.KEYWORD_ONLY}
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise TypeError(
                f"data set {name!r} has no option {', '.join(unknown)}; "
                f"expected one of its options: {', '.join(known)}"
            )
        for option, value in options.items():
            _check_type(option, value, known[option])
        return loader(None if root is None else Path(root), **options)

    def _find(self, name: str) -> Callable[..., Data]:
        family, _, inside = str(name).partition(":")
        if name in self._loaders and not name.endswith(ANY):
            return self._loaders[name]
        if str(name).lower() in self._loaders and not inside:  # as PyG spells it, such as Cora
            return self._loaders[str(name).lower()]
        if inside and family + ANY in self._loaders:
            return partial(self._loaders[family + ANY], inside)
        close = difflib.get_close_matches(str(name).lower(), self._loaders, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        raise ValueError(
            f"unknown data set {name!r}{hint} available: {', '.join(self.available())}"
        )


# Plain annotation of an option -> what its values are instances of.
_KINDS = {"int": Integral, "float": Real, "bool": bool, "str": str}


def _check_type(option: str, value: Any, annotation: Any) -> None:
    """Raises TypeError unless the value is of a plain annotation's type; True is no number."""
    wanted = getattr(annotation, "__name__", annotation)  # a string where evaluation is postponed
    kind = _KINDS.get(wanted) if isinstance(wanted, str) else None
    if kind is None:
        return
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise TypeError(f"{option} is {value!r} of type {type(value).__name__}; expected {wanted}")


_NODES: Registry[NodeDataset] = Registry()
_GRAPHS: Registry[GraphDataset] = Registry()
_TYPED: Registry[TypedDataset] = Registry()


def register(name: str) -> Callable[[Loader], Loader]:
    """Decorator that registers a loader for ``load`` as ``name``.

    The loader is called with ``root`` (a Path or None) and takes its options as keyword-only
    arguments.

    Raises:
        ValueError: The name is registered already.
    """
    return _NODES.register(name)


def available() -> list[str]:
    """The names of the data sets for ``load``, sorted.

    Example:
        >>> "cora" in available()
        True
    """
    return _NODES.available()


def load(name: str, root: str | os.PathLike[str] | None = None, **options: Any) -> NodeDataset:
    """Load a data set for node classification.

    Args:
        name: One of ``available()``, in any case: ``Cora`` is ``cora``.
        root: Folder with the data set's files, or with a subfolder of them named after its family
            (``planetoid``, ``ppi``); nothing is downloaded. None: the folder in the environment
            variable ``GAT_EXT_DATA`` if it has the files, else the cache, to which they are
            downloaded. Data sets without files ignore it.
        **options: Options of the loader, documented there.

    Returns:
        The data set, on the CPU. The same arguments give the same data set.

    Raises:
        ValueError: Unknown name, or a value that the loader refuses.
        TypeError: An option that the loader does not have, or whose value has another type.
        FileNotFoundError: ``root`` is given and lacks a file.
        ConnectionError: A download failed.
        ImportError: A package of the ``train`` extra is missing.

    Example:
        >>> load("sbm", num_nodes=60, num_classes=3, train_per_class=5, num_val=15).num_nodes
        60
    """
    return _NODES.load(name, root, options)


def register_graphs(name: str) -> Callable[[Loader], Loader]:
    """Decorator that registers a loader for ``load_graphs`` as ``name``.

    As ``register``; a loader registered as ``family:NAME`` loads every ``family:<name>`` and is
    called with ``<name>`` before ``root``.

    Raises:
        ValueError: The name is registered already.
    """
    return _GRAPHS.register(name)


def available_graphs() -> list[str]:
    """The names of the data sets for ``load_graphs``, sorted; NAME is any name of that family.

    Example:
        >>> available_graphs()
        ['digit_grids', 'shapes', 'tu:NAME']
    """
    return _GRAPHS.available()


def load_graphs(
    name: str, root: str | os.PathLike[str] | None = None, **options: Any
) -> GraphDataset:
    """Load a data set of graphs, most of them for classification.

    Args:
        name: One of ``available_graphs()``, such as ``shapes`` or ``tu:NCI1``.
        root: Folder with the data set's files, or with a subfolder ``tudataset/<name>`` of them;
            nothing is downloaded. None: the folder in the environment variable ``GAT_EXT_DATA`` if
            it has the files, else the cache, to which they are downloaded. Data sets without files
            ignore it.
        **options: Options of the loader, documented there.

    Returns:
        The data set, on the CPU. The same arguments give the same data set.

    Raises:
        ValueError: Unknown name, or a value that the loader refuses.
        TypeError: An option that the loader does not have, or whose value has another type.
        FileNotFoundError: ``root`` is given and lacks a file.
        ConnectionError: A download failed.
        ImportError: A package of the ``train`` extra is missing.

    Example:
        >>> len(load_graphs("shapes", num_graphs=10))
        10
    """
    return _GRAPHS.load(name, root, options)


def register_typed(name: str) -> Callable[[Loader], Loader]:
    """Decorator that registers a loader for ``load_typed`` as ``name``; as ``register``.

    Raises:
        ValueError: The name is registered already.
    """
    return _TYPED.register(name)


def available_typed() -> list[str]:
    """The names of the data sets for ``load_typed``, sorted.

    Example:
        >>> available_typed()
        ['academic']
    """
    return _TYPED.available()


def load_typed(
    name: str, root: str | os.PathLike[str] | None = None, **options: Any
) -> TypedDataset:
    """Load a data set of nodes and edges of several types.

    Args:
        name: One of ``available_typed()``.
        root: As for ``load``.
        **options: Options of the loader, documented there.

    Returns:
        The data set, on the CPU. The same arguments give the same data set.

    Raises:
        ValueError: Unknown name, or a value that the loader refuses.
        TypeError: An option that the loader does not have, or whose value has another type.

    Example:
        >>> load_typed("academic", num_citations=0).num_edges
        15862
    """
    return _TYPED.load(name, root, options)
