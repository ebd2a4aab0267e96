"""Checks of the arguments of samplers and loaders of nodes and edges of several types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gat_ext.graph import Graph
from gat_ext.sampling import checks
from gat_ext.sampling.storage import MappedGraph

Relation = tuple[str, str, str]
"""(source type, name, destination type)"""


def check_relations(graphs: Any) -> list[Relation]:
    """The relations of a dictionary of graphs.

    Raises:
        TypeError: it is not a dictionary, or a key is not a triple of names.
        ValueError: it is empty.
    """
    if not isinstance(graphs, Mapping):
        raise TypeError(
            f"graphs is a {type(graphs).__name__}; expected a dictionary with the relation (source "
            "type, name, destination type) as key"
        )
    for key in graphs:
        names = isinstance(key, tuple) and len(key) == 3 and all(isinstance(n, str) for n in key)
        if not names:
            raise TypeError(
                f"graphs has the key {key!r}; expected relations (source type, name, destination "
                "type)"
            )
    if not graphs:
        raise ValueError("graphs is empty; expected the edges of at least one relation")
    return list(graphs)


def node_counts(graphs: Mapping[Relation, Any], given: Mapping[str, int] | None) -> dict[str, int]:
    """The number of nodes of each type: those given, then those of the graphs.

    Raises:
        ValueError: the number of a type is unknown.
    """
    found = {
        kind: checks.integer(count, f"num_nodes[{kind!r}]", 0)
        for kind, count in (given or {}).items()
    }
    for (src, _, dst), graph in graphs.items():
        if isinstance(graph, Graph):
            found.setdefault(src, graph.num_src)
            found.setdefault(dst, graph.num_dst)
        elif isinstance(graph, MappedGraph):
            found.setdefault(dst, graph.num_nodes)
    for relation in graphs:
        for kind in (relation[0], relation[2]):
            if kind not in found:
                raise ValueError(
                    f"the number of nodes of {kind!r}, a type of {relation!r}, is unknown; "
                    "expected its features, num_nodes, or a Graph of its edges"
                )
    return found


def graph_of(given: Any, relation: Relation, num_src: int, num_dst: int) -> Graph | MappedGraph:
    """The graph of a relation.

    Args:
        given: a Graph or MappedGraph, an edge_index, or an adj_t of PyG.
        relation: named in errors.
        num_src: number of nodes of its source type.
        num_dst: of its destination type.

    Raises:
        TypeError: none of these.
        ValueError: it is on another device, or has other numbers of nodes.
        IndexError: an edge is out of range.
    """
    name = f"graphs[{relation!r}]"
    if isinstance(given, Tensor) and given.layout == torch.strided:
        checks.on_cpu(given, name)
        try:
            return Graph(given, num_src=num_src, num_dst=num_dst)
        except (TypeError, ValueError, IndexError) as error:
            raise type(error)(f"{name}: {error}") from error
    graph = given
    if not isinstance(given, (Graph, MappedGraph)):
        try:
            graph = Graph.from_pyg(given)
        except TypeError as error:
            raise TypeError(
                f"{name} is a {type(given).__name__}; expected a gat_ext.Graph, an edge_index "
                "[2, E], or a MappedGraph"
            ) from error
    checks.on_cpu(graph.col, name)
    mapped = isinstance(graph, MappedGraph)
    sizes = (num_src, graph.num_nodes) if mapped else (graph.num_src, graph.num_dst)
    if sizes != (num_src, num_dst):
        raise ValueError(
            f"{name} is {graph!r}, but there are {num_src} nodes of {relation[0]!r} and {num_dst} "
            f"of {relation[2]!r}; expected num_src = {num_src} and num_dst = {num_dst}"
        )
    return graph  # type: ignore[no-any-return]


def of_relations(given: Any, relations: Sequence[Relation], name: str) -> Mapping[Relation, Any]:
    """A dictionary whose keys are some of the relations; None is an empty one."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{name} is a {type(given).__name__}; expected a dictionary with the relation (source "
            "type, name, destination type) as key"
        )
    known_keys(given, relations, name, "relations")
    return given


def known_keys(given: Iterable[Any], known: Sequence[Any], name: str, what: str) -> None:
    """Raises ValueError unless all keys are known."""
    for key in given:
        if key not in known:
            raise ValueError(
                f"{name} has the key {key!r}; expected {what} of the data: "
                f"{', '.join(map(repr, known))}"
            )


def fanouts_of_relations(given: Any, relations: Sequence[Relation]) -> dict[Relation, list[int]]:
    """The fan-outs of each relation, of equal length.

    Raises:
        TypeError: a fan-out is not an integer.
        ValueError: a relation is unknown or missing, a list is empty, lengths differ, or a fan-out
            is below -1.
    """
    if not isinstance(given, Mapping):
        return dict.fromkeys(relations, checks.fanouts(given))
    known_keys(given, relations, "num_neighbors", "relations")
    missing = [relation for relation in relations if relation not in given]
    if missing:
        raise ValueError(
            f"num_neighbors lacks the relation {missing[0]!r}; expected all relations of the data: "
            "zeros for one that is not sampled"
        )
    found = {}
    for relation in relations:
        try:
            found[relation] = checks.fanouts(given[relation])
        except (TypeError, ValueError) as error:
            raise type(error)(f"num_neighbors of {relation!r}: {error}") from error
    lengths = {relation: len(fanouts) for relation, fanouts in found.items()}
    for relation, length in lengths.items():
        if length != lengths[relations[0]]:
            raise ValueError(
                f"num_neighbors has {lengths[relations[0]]} hops for {relations[0]!r} and {length} "
                f"for {relation!r}; expected lists of equal length"
            )
    return found
