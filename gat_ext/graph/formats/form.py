"""Form, the description of a form of edges."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from torch import Tensor

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
