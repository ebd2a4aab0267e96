"""What a loader reads of nodes and edges of several types, from the forms of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gat_ext.sampling import checks
from gat_ext.sampling.typed_checks import (
    Relation,
    check_relations,
    known_keys,
    node_counts,
    of_relations,
)


@dataclass
class TypedSource:
    """What a loader reads.

    Attributes:
        graphs: as of :class:`TypedNeighborSampler`.
        x: features of nodes, by type.
        y: labels by type; until :meth:`use` names it, perhaps those of the seeds' type alone.
        edge_attr: features of edges, by relation.
        edge_weight: likewise, weights.
        num_nodes: number of nodes of each type.
        target: the type of the seeds, if the data has one.
        pyg: the HeteroData that was given, or None.
    """

    graphs: Mapping[Relation, Any]
    x: dict[str, Tensor] = field(default_factory=dict)
    y: Any = None
    edge_attr: Mapping[Relation, Tensor] = field(default_factory=dict)
    edge_weight: Mapping[Relation, Tensor] = field(default_factory=dict)
    num_nodes: dict[str, int] = field(default_factory=dict)
    target: str | None = None
    pyg: Any = None

    def use(self, input_type: str) -> None:
        """Names the type of labels without type, that of the seeds, and checks all labels."""
        if self.y is None:
            self.y = {}
        elif not isinstance(self.y, Mapping):
            self.y = {input_type: self.y}
        known_keys(self.y, list(self.num_nodes), "y", "types")
        for kind, y in self.y.items():
            checks.rows(y, self.num_nodes[kind], f"y[{kind!r}]", "node")


def is_typed(data: Any) -> bool:
    """True for the forms of data with several types that :class:`NeighborLoader` documents."""
    first = data[0] if isinstance(data, (tuple, list)) and data else data
    return isinstance(first, Mapping) or _is_hetero_data(data) or _is_dataset(data)


def _is_hetero_data(data: Any) -> bool:
    return hasattr(data, "node_types") and hasattr(data, "edge_types")


def _is_dataset(data: Any) -> bool:
    """True for a TypedDataset of :mod:`gat_ext.datasets`."""
    parts = getattr(data, "x", None), getattr(data, "edge_index", None)
    return hasattr(data, "target") and all(isinstance(part, Mapping) for part in parts)


def read_typed(
    data: Any, weight_attr: str | None, edge_attr: Any = None, edge_weight: Any = None
) -> TypedSource:
    """The source of a loader, whose arguments these are."""
    if _is_hetero_data(data):
        given = {"edge_attr": edge_attr, "edge_weight": edge_weight}
        doubled = [name for name, value in given.items() if value is not None]
        if doubled:
            raise ValueError(
                f"{doubled[0]} was given, but data is a {type(data).__name__}; expected its "
                "attributes alone: name them with weight_attr"
            )
        source = _of_hetero_data(data, weight_attr)
    else:
        if weight_attr is not None:
            raise ValueError(
                "weight_attr is the name of an attribute of a HeteroData, but data is a "
                f"{type(data).__name__}; expected the tensors as edge_weight"
            )
        source = _of_parts(data)
        relations = check_relations(source.graphs)
        source.edge_attr = of_relations(edge_attr, relations, "edge_attr")
        source.edge_weight = of_relations(edge_weight, relations, "edge_weight")
    for kind, x in source.x.items():
        checks.rows(x, source.num_nodes[kind], f"x[{kind!r}]", "node")
    return source


def _of_parts(data: Any) -> TypedSource:
    if _is_dataset(data):
        y = {data.target: data.y}
        source = TypedSource(data.edge_index, dict(data.x), y, target=data.target)
    else:
        parts = (data,) if isinstance(data, Mapping) else tuple(data)
        if len(parts) > 3:
            raise TypeError(
                f"data is a tuple of {len(parts)}; expected graphs, (graphs, x) or (graphs, x, y), "
                "where graphs and x are dictionaries of relations and types"
            )
        graphs, x, y = (*parts, None, None)[:3]
        if x is not None and not isinstance(x, Mapping):
            raise TypeError(
                f"x is a {type(x).__name__}; expected a dictionary of features with the node type "
                "as key, because graphs is one of relations"
            )
        source = TypedSource(graphs, dict(x or {}), y)
    check_relations(source.graphs)
    sizes = {}
    for kind, features in source.x.items():
        if not isinstance(features, Tensor) or features.dim() == 0:
            what = "a scalar" if isinstance(features, Tensor) else type(features).__name__
            raise TypeError(
                f"x[{kind!r}] is {what}; expected a tensor [N, ...], a row for each node"
            )
        sizes[kind] = features.shape[0]
    source.num_nodes = node_counts(source.graphs, sizes)
    return source


def _of_hetero_data(data: Any, weight_attr: str | None) -> TypedSource:
    graphs = {}
    for relation in data.edge_types:
        store = data[relation]
        found = [store[name] for name in ("edge_index", "adj_t") if name in store]
        if not found:
            raise ValueError(f"data[{relation!r}] has neither edge_index nor adj_t; expected one")
        graphs[relation] = found[0]
    check_relations(graphs)
    sizes = {kind: data[kind].num_nodes for kind in data.node_types}
    known = {kind: size for kind, size in sizes.items() if size is not None}
    source = TypedSource(graphs, num_nodes=node_counts(graphs, known), pyg=data)
    for name in ("x", "y"):
        values = {kind: data[kind][name] for kind in data.node_types if name in data[kind]}
        setattr(source, name, {k: v for k, v in values.items() if isinstance(v, Tensor)})
    source.edge_attr = _of_edges(data, "edge_attr")
    if weight_attr is not None:
        source.edge_weight = _of_edges(data, weight_attr)
        if not source.edge_weight:
            raise ValueError(
                f"weight_attr is {weight_attr!r}; expected an attribute of edges of data"
            )
    return source


def _of_edges(data: Any, name: str) -> dict[Relation, Tensor]:
    return {
        relation: data[relation][name] for relation in data.edge_types if name in data[relation]
    }
