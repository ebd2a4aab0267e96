"""What a loader reads, from the forms of its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gat_ext.graph import Graph
from gat_ext.sampling import checks
from gat_ext.sampling.storage import MappedGraph


@dataclass
class Source:
    """What a loader reads.

    Attributes:
        pyg: the object of PyG that was given, or None.
    """

    graph: Graph | MappedGraph
    x: Tensor | None = None
    y: Tensor | None = None
    edge_attr: Tensor | None = None
    node_time: Tensor | None = None
    edge_time: Tensor | None = None
    edge_weight: Tensor | None = None
    pyg: Any = None


def is_pyg(data: Any) -> bool:
    """True for a homogeneous Data of PyG."""
    return hasattr(data, "is_node_attr") and hasattr(data, "is_edge_attr")


def read(
    data: Any,
    time_attr: str | None,
    weight_attr: str | None,
    edge_attr: Tensor | None,
    given: dict[str, Tensor | None],
) -> Source:
    """The source of the forms of data that :class:`NeighborLoader` documents.

    Args:
        data: as of the loader.
        time_attr: likewise.
        weight_attr: likewise.
        edge_attr: likewise.
        given: node_time, edge_time and edge_weight of the loader.
    """
    if is_pyg(data):
        source = _of_pyg(data, time_attr, weight_attr, {"edge_attr": edge_attr, **given})
    else:
        if time_attr is not None or weight_attr is not None:
            name = "time_attr" if time_attr is not None else "weight_attr"
            raise ValueError(
                f"{name} is the name of an attribute of a PyG Data, but data is a "
                f"{type(data).__name__}; expected the tensor as node_time, edge_time or edge_weight"
            )
        source = _of_parts(data)
        source.edge_attr = edge_attr
        for name, tensor in given.items():
            setattr(source, name, tensor)
    num_nodes = checks.sampled_graph(source.graph)
    num_edges = source.graph.col.shape[0]
    for name, count, of in (
        ("x", num_nodes, "node"),
        ("y", num_nodes, "node"),
        ("edge_attr", num_edges, "edge"),
    ):
        tensor = getattr(source, name)
        if tensor is not None:
            checks.rows(tensor, count, name, of)
    return source


def _of_parts(data: Any) -> Source:
    if isinstance(data, (Graph, MappedGraph)):
        arrays = data.arrays if isinstance(data, MappedGraph) else {}
        return Source(data, arrays.get("x"), arrays.get("y"))
    if not isinstance(data, (tuple, list)) or not 1 <= len(data) <= 3:
        raise TypeError(
            f"data is a {type(data).__name__}; expected a Graph, a MappedGraph, a tuple (graph, x) "
            "or (graph, x, y), or a torch_geometric.data.Data; of a data set of gat_ext, "
            "give (data.graph, data.x, data.y)"
        )
    return Source(*data)


def _of_pyg(
    data: Any, time_attr: str | None, weight_attr: str | None, given: dict[str, Tensor | None]
) -> Source:
    doubled = [name for name, tensor in given.items() if tensor is not None]
    if doubled:
        raise ValueError(
            f"{doubled[0]} was given, but data is a {type(data).__name__}; expected its attributes "
            "alone: name them with time_attr and weight_attr"
        )
    source = Source(Graph.from_pyg(data), pyg=data)
    for name in ("x", "y", "edge_attr"):
        tensor = data.get(name) if hasattr(data, "get") else getattr(data, name, None)
        if isinstance(tensor, Tensor) and (name == "edge_attr" or data.is_node_attr(name)):
            setattr(source, name, tensor)
    if time_attr is not None:
        _attribute(data, time_attr, "time_attr")
        kind = "node_time" if data.is_node_attr(time_attr) else "edge_time"
        setattr(source, kind, data[time_attr])
    if weight_attr is not None:
        _attribute(data, weight_attr, "weight_attr")
        source.edge_weight = data[weight_attr]
    return source


def _attribute(data: Any, name: str, argument: str) -> None:
    if name not in data:
        raise ValueError(
            f"{argument} is {name!r}; expected one of the attributes of data: "
            f"{', '.join(data.keys())}"
        )
