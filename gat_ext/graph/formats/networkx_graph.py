"""Graphs of NetworkX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gat_ext.graph.formats.form import Edges, Form, check_one_set_of_nodes, library

if TYPE_CHECKING:
    from gat_ext.graph.protocol import SortedGraph


def is_networkx(value: Any) -> bool:
    """True for a graph of NetworkX."""
    return all(hasattr(value, name) for name in ("is_directed", "edges", "nodes"))


def networkx_edges(graph: Any) -> Edges:
    """Edges of a NetworkX graph; nodes are numbered in the order of ``graph.nodes``.

    Edges are in the order of ``graph.edges``; the reverses of an undirected graph follow in the
    same order, without those of self-loops.
    """
    if not is_networkx(graph):
        raise TypeError(f"from_networkx got a {type(graph).__name__}; expected a networkx graph")
    number = {node: position for position, node in enumerate(graph.nodes)}
    pairs = [(number[u], number[v]) for u, v, *_ in graph.edges]
    edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t()
    if not graph.is_directed():
        other = edge_index[:, edge_index[0] != edge_index[1]].flip(0)
        edge_index = torch.cat([edge_index, other], dim=1)
    return edge_index, (len(number), len(number))


def to_networkx(graph: SortedGraph) -> Any:
    """A DiGraph or MultiDiGraph whose edges are in the order of the transpose."""
    check_one_set_of_nodes(
        graph,
        "to_networkx",
        "number destinations after sources, as in Graph(torch.stack([src, dst + num_src]))",
    )
    by_source = graph.transpose()
    source = torch.repeat_interleave(by_source.rowptr.diff())
    pairs = list(zip(source.tolist(), by_source.col.tolist(), strict=True))
    networkx = library("networkx", "to_networkx")
    has_multi_edges = len(set(pairs)) < len(pairs)
    result = networkx.MultiDiGraph() if has_multi_edges else networkx.DiGraph()
    result.add_nodes_from(range(graph.num_src))
    result.add_edges_from(pairs)
    return result


FORM = Form("a NetworkX graph", is_networkx, networkx_edges, constructor="from_networkx")
