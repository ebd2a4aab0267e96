"""Graphs of nodes and edges of several types: checks, and one graph of all relations.

Features come as a dictionary of node types, edges as a dictionary of relations, which are triples
(source type, name, destination type), as in PyG. A layer whose projections differ between relations
attends over one bipartite graph: its sources are pairs (relation, node), and its destinations are
the nodes of all destination types.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gat_ext.functional import checks
from gat_ext.functional.masked import mask_of
from gat_ext.graph import Graph
from gat_ext.graph.cache import cached
from gat_ext.graph.csr import check_edge_index
from gat_ext.graph.order import inverse
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.graph.traced import TracedGraph
from gat_ext.nn.adjacency import unwrap
from gat_ext.nn.features import SparseFeatures
from gat_ext.nn.inputs import Adjacency, check_dense, check_kind
from gat_ext.nn.linear import weight_of
from gat_ext.ops.state import is_tracing

Relation = tuple[str, str, str]
"""(source type, name, destination type)"""
Metadata = tuple[Sequence[str], Sequence[Relation]]
"""(node types, relations)"""
Edges = Mapping[Relation, Adjacency]
"""The edges of each relation, in any form that a layer takes"""


# ---- checks


def check_metadata(metadata: Any) -> tuple[list[str], list[Relation]]:
    """(node types, relations) of PyG's metadata.

    Raises:
        TypeError: it is not a pair of lists, of names and of triples of names.
        ValueError: a name or a relation occurs twice, a relation is between types that are not
            listed, or a name is not one of a module: it has a dot, is empty, or is that of a method
            of ``torch.nn.ModuleDict``.
    """
    try:
        types, relations = metadata
        types, relations = list(types), [tuple(relation) for relation in relations]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"metadata is {metadata!r}; expected (node types, relations), such as "
            "(['author', 'paper'], [('author', 'writes', 'paper')])"
        ) from error
    for one in (types, *relations):
        if not all(isinstance(name, str) for name in one) or (one is not types and len(one) != 3):
            what = "node types" if one is types else "a relation of"
            raise TypeError(
                f"{what} metadata is {one!r}; expected names, and (source type, name, destination "
                "type) for each relation"
            )
    for name in types:
        if not name or "." in name or hasattr(nn.ModuleDict, name):
            raise ValueError(
                f"a node type is called {name!r}; expected a name without dots that is not one of "
                "torch.nn.ModuleDict's, because it becomes the name of a module: rename the type"
            )
    for what, listed in (("node type", types), ("relation", relations)):
        twice = [one for i, one in enumerate(listed) if one in listed[:i]]
        if twice:
            raise ValueError(f"metadata has the {what} {twice[0]!r} twice; expected it once")
    joined = ["__".join(relation) for relation in relations]
    for relation, key in zip(relations, joined, strict=True):
        if joined.count(key) > 1:
            raise ValueError(
                f"the parameters of the relation {relation!r} and of another one would be called "
                f"{key!r}; expected names that differ when joined by '__': rename one"
            )
    for src, name, dst in relations:
        for end in (src, dst):
            if end not in types:
                raise ValueError(
                    f"metadata has the relation {(src, name, dst)!r}, but its node types are "
                    f"{types!r}; expected {end!r} among them"
                )
    return types, relations


def sizes_by_type(in_channels: int | Mapping[str, int], types: Sequence[str]) -> dict[str, int]:
    """The input size of each node type, of one size for all or a dictionary.

    Raises:
        ValueError: the dictionary does not have exactly the node types as keys.
    """
    if not isinstance(in_channels, Mapping):
        return dict.fromkeys(types, in_channels)
    if set(in_channels) != set(types):
        raise ValueError(
            f"in_channels has the keys {list(in_channels)!r}; expected the node types of metadata, "
            f"{list(types)!r}"
        )
    return dict(in_channels)


def check_inputs(
    x_dict: Any, edge_index_dict: Any, types: Sequence[str], relations: Sequence[Relation]
) -> list[Relation]:
    """The relations that have edges, in the order of ``relations``.

    Raises:
        TypeError: an argument is not a dictionary.
        ValueError: a key is not of the layer, or the features of a type that edges need are
            missing.
    """
    for name, given in (("x_dict", x_dict), ("edge_index_dict", edge_index_dict)):
        if not isinstance(given, Mapping):
            kind = "node type" if name == "x_dict" else "relation (source, name, destination)"
            raise TypeError(
                f"{name} is a {type(given).__name__}; expected a dictionary with the {kind} as key"
            )
    for name, given, known in (
        ("x_dict", x_dict, types),
        ("edge_index_dict", edge_index_dict, relations),
    ):
        for key in given:
            if key not in known:
                raise ValueError(
                    f"{name} has the key {key!r}; expected keys of the layer's metadata: "
                    f"{', '.join(map(repr, known))}"
                )
    for relation in edge_index_dict:
        for end in (relation[0], relation[2]):
            if end not in x_dict:
                raise ValueError(
                    f"edge_index_dict has edges {relation!r}, but x_dict has only "
                    f"{', '.join(map(repr, x_dict))}; expected features of {end!r}, too"
                )
    return [relation for relation in relations if relation in edge_index_dict]


def checked_features(
    x_dict: Mapping[str, Any], lins: nn.ModuleDict, layer: nn.Module, *, dense: bool = True
) -> dict[str, Any]:
    """The features in the order of the maps of their types.

    Args:
        x_dict: of each type; the types have maps.
        lins: the map of each type.
        layer: named in errors.
        dense: whether sparse features are an error.

    Raises:
        TypeError: x is sparse or not a tensor, or its dtype is not that of the map.
        ValueError: x is not [N, C] with the C of the map, or is on another device.
    """
    for kind, x in x_dict.items():
        name, lin = f"x_dict[{kind!r}]", lins[kind]
        if dense or not isinstance(x, SparseFeatures):
            check_dense(name, x, layer)
            checks.floating(x, name)
        weight = weight_of(lin)
        channels = None if weight is None else weight.shape[1]
        if x.dim() != 2 or (channels is not None and x.shape[1] != channels):
            raise ValueError(
                f"{name} has shape {list(x.shape)}; {layer} expects "
                f"[N, {channels or 'in_channels'}]"
            )
        check_kind(name, x, lin, layer)
    return {kind: x_dict[kind] for kind in lins if kind in x_dict}


def check_keys(name: str, given: Any, relations: Collection[Relation]) -> None:
    """Raises unless ``given`` is None, or a dictionary whose keys are relations with edges."""
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{name} is a {type(given).__name__}; expected a dictionary with the relation (source, "
            "name, destination) as key"
        )
    for key in given:
        if key not in relations:
            raise ValueError(
                f"{name} has the key {key!r}; expected relations of edge_index_dict: "
                f"{', '.join(map(repr, relations))}"
            )


def of_relations(
    name: str, given: Any, relations: Sequence[Relation], num_edges: Sequence[int], like: Tensor
) -> Tensor | None:
    """One mask of the edges of all relations; 1 for relations that have none.

    Args:
        name: of the argument, in errors.
        given: a dictionary of masks [E] or [E, H], or None.
        relations: those with edges.
        num_edges: of each of them.
        like: value [N, H, C], of which a mask of ones has the dtype and device.

    Returns:
        [E] or [E, H] of all edges, or None.

    Raises:
        TypeError: ``given`` is not a dictionary, or a mask is not a dense tensor of real numbers or
            booleans, or has another dtype than ``like``.
        ValueError: a key has no edges, or a mask does not have a row for each edge, or other heads.
    """
    check_keys(name, given, relations)
    if given is None:
        return None
    parts = []
    for relation, count in zip(relations, num_edges, strict=True):
        mask = given.get(relation)
        if mask is None:
            mask = like.new_ones(count)
        mask = mask_of(like, mask, f"{name}[{relation!r}]")
        if mask.dim() not in (1, 2) or mask.shape[0] != count:
            raise ValueError(
                f"{name}[{relation!r}] has shape {list(mask.shape)}; expected [{count}] or "
                f"[{count}, heads], a row for each of its edges"
            )
        parts.append(mask)
    if any(mask.dim() == 2 for mask in parts):
        parts = [m.unsqueeze(1) if m.dim() == 1 else m for m in parts]
        parts = [m.expand(-1, like.shape[1]) for m in parts]
    return torch.cat(parts) if parts else None


# ---- one graph of all relations


class StackedGraph(NamedTuple):
    """One graph of several relations.

    Attributes:
        graph: from the rows of all relations, one after the other, to the nodes of all destination
            types, one after the other. Its edges are those of the relations, one after the other.
        rows: of each relation, the nodes of its source type that have a row, ascending; None: all.
        num_edges: of each relation.
        order: int64 [E], the position of each edge of the graph among those of the relations; None
            if it has them in this order.
    """

    graph: GraphLike
    rows: tuple[Tensor | None, ...]
    num_edges: tuple[int, ...]
    order: Tensor | None = None

    def of_graph(self, by_relation: Tensor | None) -> Tensor | None:
        """Rows of the edges of the relations, one after the other, in the order of the graph."""
        if by_relation is None or self.order is None:
            return by_relation
        return by_relation[self.order]

    def of_relations(self, by_edge: Tensor) -> tuple[Tensor, ...]:
        """Rows of the edges of the graph, for each relation."""
        if self.order is not None:
            by_edge = by_edge[inverse(self.order)]
        parts: tuple[Tensor, ...] = by_edge.split(self.num_edges)  # type: ignore[no-untyped-call]
        return parts


def stack_relations(
    edge_index_dict: Edges,
    relations: Sequence[Relation],
    sizes: Mapping[str, int],
    dst_types: Sequence[str],
    device: torch.device,
) -> StackedGraph:
    """The graph of some relations, cached until an edge_index is modified.

    A relation with edges from at most half of its source nodes has rows for these nodes only. While
    tracing, all have rows for all nodes, because edges are not read.

    Args:
        edge_index_dict: the edges.
        relations: those to read, in this order.
        sizes: number of nodes of each type.
        dst_types: the types of the destinations, in this order.
        device: of the features.

    Raises:
        TypeError: edges are in no form that a layer takes.
        ValueError: a Graph does not have the numbers of nodes of its types; devices differ.
        IndexError: a node is out of range.
    """
    edges = [_checked(edge_index_dict[relation], relation, sizes) for relation in relations]
    kinds = {isinstance(each, ShardedGraph) for each in edges}
    if len(kinds) > 1:
        raise TypeError(
            "edge_index_dict has a DistGraph for some relations only; expected one for all of them"
        )
    firsts = accumulate((sizes[name] for name in dst_types), initial=0)
    first = dict(zip(dst_types, firsts, strict=False))
    num_dst = sum(sizes[name] for name in dst_types)
    ends = tuple(_End(r, sizes[r[0]], sizes[r[2]], first[r[2]]) for r in relations)
    if not edges:
        none = torch.empty(2, 0, dtype=torch.int64, device=device)
        return StackedGraph(_graph_of(none, 0, num_dst), (), ())
    if is_tracing():
        return _stacked(edges, ends, num_dst)
    key = ("stacked", ends, num_dst)
    if isinstance(edges[0], ShardedGraph):
        return cached(tuple(edges), key, lambda: _stacked_shards(edges, ends, num_dst))
    return cached(tuple(edges), key, lambda: _stacked(edges, ends, num_dst))


class _End(NamedTuple):
    """Where the edges of a relation begin and end.

    Attributes:
        relation: its name.
        num_src: number of its source nodes.
        num_dst: number of its destination nodes.
        first_dst: the number of the first of them among all destinations.
    """

    relation: Relation
    num_src: int
    num_dst: int
    first_dst: int


def _stacked_shards(edges: Sequence[Any], ends: tuple[_End, ...], num_dst: int) -> StackedGraph:
    graph, order = edges[0].stack(edges, [end.first_dst for end in ends], num_dst)
    counts = tuple(each.num_edges for each in edges)
    return StackedGraph(graph, (None,) * len(edges), counts, order)


def _checked(given: Adjacency, relation: Relation, sizes: Mapping[str, int]) -> Any:
    """An edge_index or a Graph; raises if it cannot have the numbers of nodes of its types."""
    try:
        adjacency = unwrap(given)
        if not isinstance(adjacency, (Graph, ShardedGraph)):
            check_edge_index(adjacency)
            return adjacency
    except (TypeError, ValueError, IndexError) as error:
        raise type(error)(f"edge_index_dict[{relation!r}]: {error}") from error
    wanted = sizes[relation[0]], sizes[relation[2]]
    if (adjacency.num_src, adjacency.num_dst) != wanted:
        raise ValueError(
            f"edge_index_dict[{relation!r}] is {adjacency!r}, but x_dict has {wanted[0]} rows for "
            f"{relation[0]!r} and {wanted[1]} for {relation[2]!r}; expected a node for each row"
        )
    return adjacency


def _stacked(edges: Sequence[Tensor | Graph], ends: tuple[_End, ...], num_dst: int) -> StackedGraph:
    parts: list[Tensor] = []
    rows: list[Tensor | None] = []
    num_src = 0
    for adjacency, end in zip(edges, ends, strict=True):
        edge_index = adjacency.edge_index if isinstance(adjacency, Graph) else adjacency
        src, dst = edge_index.long()
        own, count = None, end.num_src
        if is_tracing():  # the operator raises for -1
            src = torch.where((src < 0) | (src >= end.num_src), -1, src + num_src)
            dst = torch.where((dst < 0) | (dst >= end.num_dst), -1, dst + end.first_dst)
        else:
            _check_range(src, end.num_src, end.relation, 0)
            _check_range(dst, end.num_dst, end.relation, 2)
            src, own, count = _used(src, end.num_src)
            src, dst = src + num_src, dst + end.first_dst
        parts.append(torch.stack([src, dst]))
        rows.append(own)
        num_src += count
    edge_index = torch.cat(parts, dim=1)
    graph = _graph_of(edge_index, num_src, num_dst)
    return StackedGraph(graph, tuple(rows), tuple(part.shape[1] for part in parts))


def _graph_of(edge_index: Tensor, num_src: int, num_dst: int) -> GraphLike:
    if is_tracing():
        return TracedGraph(edge_index, num_src, num_dst, self_loops=False)
    return Graph(edge_index, num_src=num_src, num_dst=num_dst)


def _used(src: Tensor, num_src: int) -> tuple[Tensor, Tensor | None, int]:
    """(sources by row, the nodes that have a row or None for all, number of rows)."""
    mark = torch.zeros(num_src, dtype=torch.bool, device=src.device)
    mark[src] = True
    nodes = mark.nonzero().flatten()
    if 2 * nodes.numel() > num_src:
        return src, None, num_src
    row = mark.cumsum(0) - 1
    return row[src], nodes, nodes.numel()


def _check_range(nodes: Tensor, count: int, relation: Relation, end: int) -> None:
    if nodes.numel() == 0:
        return
    low, high = torch.stack(torch.aminmax(nodes)).tolist()
    if low < 0 or high >= count:
        what = "source" if end == 0 else "destination"
        raise IndexError(
            f"edge_index_dict[{relation!r}] has the {what} {low if low < 0 else high}; expected 0 "
            f"to {count - 1}, because x_dict[{relation[end]!r}] has {count} rows"
        )
