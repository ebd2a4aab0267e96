"""What a form of edges says of itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from torch import Tensor

# edge_index [2, E] in the order of the source, and (num_src, num_dst), None if it does not say.
Edges = tuple[Tensor, tuple[int, int] | None]


class Form(NamedTuple):
    """A class of objects that hold edges, known by its methods: its library is not imported.

    Attributes:
        name: with an article, as errors list it.
        matches: whether an object is of this form.
        edges: its edges; raises for a faulty object.
        constructor: the method of Graph that takes this form, "" if there is none.
        depends_on: (tensors, key): the graph is cached until one of these tensors is modified; None
            reads the object at every call, because it can change unnoticed.
        values: its entries where they stand for edge features that are not given, else None.
        with_weights: (object, (num_src, num_dst), edge_index, alpha) to attention in this form;
            None returns (edge_index, alpha).
        num_first: the number of destinations of a block whose destinations are the first of its
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
