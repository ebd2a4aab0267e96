"""Form, the description of a form of edges; helpers of conversions to it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from gat_ext.graph.protocol import GraphLike

# edge_index [2, E] in the order of the object, and (num_src, num_dst), or None if unknown.
Edges = tuple[Tensor, tuple[int, int] | None]


class Form(NamedTuple):
    """A class of objects that hold edges, recognised by its methods, without its library.

    Attributes:
        name: with an article, as in lists in errors.
        matches: returns True if an object has this form.
        edges: returns an object's edges; raises for an invalid object.
        constructor: the method of Graph for this form, "" if there is none.
        depends_on: returns (tensors, key): the graph is cached until one of these tensors is
            modified; None reads the object at every call, because it can change unnoticed.
        values: returns the entries that replace a missing edge_attr, or None.
        with_weights: maps (object, (num_src, num_dst), edge_index, alpha) to attention in this
            form; None returns (edge_index, alpha).
        num_first: returns the number of destinations of a block, whose destinations are its first
            sources, else None.
    """

    name: str
    matches: Callable[[Any], bool]
    edges: Callable[[Any], Edges]
    constructor: str = ""
    depends_on: Callable[[Any], tuple[tuple[Tensor, ...], Hashable]] | None = None
    values: Callable[[Any], Tensor | None] = lambda _: None
    with_weights: Callable[[Any, tuple[int, int], Tensor, Tensor], Any] | None = None
    num_first: Callable[[Any], int | None] = lambda _: None


def library(module: str, method: str) -> Any:
    """A module of another library for a method of Graph.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ImportError(f"Graph.{method} needs {package}: pip install {package}") from error


def check_one_set_of_nodes(graph: GraphLike, method: str, instead: str) -> None:
    """Raises ValueError unless sources and destinations are equally many."""
    if graph.num_src != graph.num_dst:
        raise ValueError(
            f"{method} got a graph with num_src={graph.num_src} and num_dst={graph.num_dst}; "
            f"expected equal numbers: {instead}"
        )
