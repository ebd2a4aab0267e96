"""Self-loops of the layers and their edge features."""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.functional import checks
from gat_ext.graph import Graph
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.self_loops import SelfLoops, with_self_loops
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.nn.inputs import Adjacency, as_graph, edge_matrix

_REDUCTIONS = {
    "add": "sum",
    "sum": "sum",
    "mean": "mean",
    "min": "amin",
    "max": "amax",
    "mul": "prod",
}


def check_fill_value(fill_value: float | Tensor | str) -> None:
    """Raises unless fill_value is a number, a tensor of real numbers or the name of a reduction."""
    if isinstance(fill_value, str) and fill_value not in _REDUCTIONS:
        names = ", ".join(map(repr, _REDUCTIONS))
        raise ValueError(
            f"fill_value is {fill_value!r}; expected a number, a tensor or one of {names}"
        )
    if isinstance(fill_value, Tensor):
        if fill_value.is_complex() or fill_value.dtype == torch.bool:
            raise TypeError(f"fill_value has dtype {fill_value.dtype}; expected real numbers")
    elif not isinstance(fill_value, str):
        checks.number(fill_value, "fill_value")


def loop_features(
    edge_attr: Tensor, dst: Tensor, sizes: tuple[int, int], fill_value: float | Tensor | str
) -> Tensor:
    """Edge features of the self-loops, [num_loops, ..., D].

    Args:
        edge_attr: [E, ..., D], of the other edges.
        dst: [E], their destinations.
        sizes: (num_dst, num_loops).
        fill_value: the features of every loop, or the name of a reduction over the features of
            the edges into its node; a node without such edges gets 0, or 1 with "mul".
    """
    num_dst, num_loops = sizes
    if isinstance(fill_value, str):
        return _reduce(edge_attr, dst, num_dst, fill_value)[:num_loops]
    fill = torch.as_tensor(fill_value, dtype=edge_attr.dtype, device=edge_attr.device)
    if fill.numel() != 1 and fill.numel() != edge_attr.shape[-1]:
        raise ValueError(
            f"fill_value has shape {list(fill.shape)}; expected [{edge_attr.shape[-1]}], one value "
            "for each edge feature, or a single value"
        )
    return fill.reshape(-1).expand(num_loops, *edge_attr.shape[1:])


def _reduce(values: Tensor, index: Tensor, size: int, how: str) -> Tensor:
    start = torch.ones if how == "mul" else torch.zeros
    out = start((size, *values.shape[1:]), dtype=values.dtype, device=values.device)
    index = index.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    from_start = how in ("add", "sum", "mul")
    return out.scatter_reduce(0, index, values, _REDUCTIONS[how], include_self=from_start)


def loops_of(adjacency: Adjacency, num_src: int, num_dst: int) -> SelfLoops:
    """Checks the sizes of a Graph, then replaces its self-loops by one for every node."""
    if isinstance(adjacency, (Graph, ShardedGraph)):
        as_graph(adjacency, num_src, num_dst)
    return with_self_loops(adjacency, num_src, num_dst)


def graph_and_edges(
    adjacency: Adjacency,
    sizes: tuple[int, int],
    edge_attr: Tensor | None,
    edge_dim: int | None,
    fill_value: float | Tensor | str,
    add_self_loops: bool,
) -> tuple[GraphLike, Tensor | None]:
    """The graph that a layer attends over and its edge features; checks both."""
    if not add_self_loops:
        graph = as_graph(adjacency, *sizes)
        matrix = None if edge_attr is None else edge_matrix(edge_attr, graph.num_edges, edge_dim)
        return graph, matrix
    looped = loops_of(adjacency, *sizes)
    if edge_attr is None:
        return looped.graph, None
    matrix = edge_matrix(edge_attr, looped.num_given, edge_dim)
    dst, bound = looped.destinations()
    others = looped.others(matrix)
    loops = loop_features(others, dst, (bound, looped.num_loops), fill_value)
    return looped.graph, torch.cat([others, loops])
