"""Self-loops of the layers: one for every node, after the other edges, and their features."""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gat_ext.functional import checks
from gat_ext.graph import Graph
from gat_ext.graph.cache import remembered
from gat_ext.graph.csr import check_edge_index
from gat_ext.graph.traced import TracedGraph
from gat_ext.nn.base import Adjacency, as_graph, edge_matrix
from gat_ext.ops.state import is_tracing

_REDUCTIONS = {
    "add": "sum",
    "sum": "sum",
    "mean": "mean",
    "min": "amin",
    "max": "amax",
    "mul": "prod",
}


class LoopedGraph(NamedTuple):
    """A graph whose self-loops were replaced by one for every node, at the end."""

    graph: Graph
    kept: Tensor | None  # positions of the given edges that are no self-loops; None: all of them
    num_given: int  # number of edges before
    num_loops: int


_looped: WeakKeyDictionary[Graph, LoopedGraph] = WeakKeyDictionary()


def with_self_loops(adjacency: Adjacency, num_src: int, num_dst: int) -> LoopedGraph:
    """One self-loop for every node that is both source and destination, after the other edges.

    That of a Graph is remembered for as long as the Graph lives, that of an edge_index until it is
    written to, so that training on one graph sorts once.
    """
    if not isinstance(adjacency, Graph):
        check_edge_index(adjacency)
        return remembered(
            adjacency,
            (num_src, num_dst, "looped"),
            lambda: _replace_loops_of_edge_index(adjacency, num_src, num_dst),
        )
    graph = as_graph(adjacency, num_src, num_dst)
    found = _looped.get(graph)
    if found is None:
        wide = torch.int64 if graph.index_dtype == torch.int64 else None
        found = _replace_loops(graph.edge_index, num_src, num_dst, wide)
        _looped[graph] = found
    return found


def _replace_loops_of_edge_index(edge_index: Tensor, num_src: int, num_dst: int) -> LoopedGraph:
    try:
        return _replace_loops(edge_index, num_src, num_dst, None)
    except (TypeError, ValueError, IndexError, RuntimeError):
        # A faulty edge_index: the error should speak of it, not of the edges with loops.
        Graph(edge_index, num_src=num_src, num_dst=num_dst)
        raise


def _replace_loops(
    edges: Tensor, num_src: int, num_dst: int, index_dtype: torch.dtype | None
) -> LoopedGraph:
    num_loops = min(num_src, num_dst)
    # A remembered graph may serve a later backward, which tensors of inference mode cannot.
    with torch.inference_mode(False):
        src, dst = edges
        # Loops at nodes that do not exist stay, for Graph to refuse.
        is_loop = (src == dst) & (src >= 0) & (src < num_loops)
        kept = (~is_loop).nonzero().flatten() if bool(is_loop.any()) else None
        loops = torch.arange(num_loops, dtype=edges.dtype, device=edges.device).expand(2, -1)
        others = edges if kept is None else edges[:, kept]
        graph = Graph(
            torch.cat([others, loops], dim=1),
            num_src=num_src,
            num_dst=num_dst,
            index_dtype=index_dtype,
        )
    return LoopedGraph(graph, kept, edges.shape[1], num_loops)


def check_fill_value(fill_value: float | Tensor | str) -> None:
    """Refuses the name of no reduction."""
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
    """Edge features of the loops, [number of loops, D].

    Args:
        edge_attr: [E, D], of the other edges.
        dst: [E], their destinations.
        sizes: how many destinations there are, and how many loops.
        fill_value: the features of every loop, or the name of a reduction over the features of
            the edges into its node; a node without such edges gets 0, for "mul" 1.
    """
    num_dst, num_loops = sizes
    if isinstance(fill_value, str):
        return _reduce(edge_attr, dst, num_dst, fill_value)[:num_loops]
    fill = torch.as_tensor(fill_value, dtype=edge_attr.dtype, device=edge_attr.device)
    if fill.numel() not in (1, edge_attr.shape[1]):
        raise ValueError(
            f"fill_value has shape {list(fill.shape)}; expected [{edge_attr.shape[1]}], "
            "as many values as edge features, or one"
        )
    return fill.reshape(1, -1).expand(num_loops, edge_attr.shape[1])


def _reduce(values: Tensor, index: Tensor, size: int, how: str) -> Tensor:
    start = torch.ones if how == "mul" else torch.zeros
    out = start((size, values.shape[1]), dtype=values.dtype, device=values.device)
    index = index.unsqueeze(-1).expand_as(values)
    from_start = how in ("add", "sum", "mul")
    return out.scatter_reduce(0, index, values, _REDUCTIONS[how], include_self=from_start)


def _traced(
    adjacency: Adjacency,
    sizes: tuple[int, int],
    edge_attr: Tensor | None,
    edge_dim: int | None,
    fill_value: float | Tensor | str,
) -> tuple[TracedGraph, Tensor | None]:
    """As the rest of :func:`graph_and_edges`, for a function that is traced."""
    if isinstance(adjacency, Graph):
        as_graph(adjacency, *sizes)
    graph = TracedGraph(adjacency, *sizes, self_loops=True)
    if edge_attr is None:
        return graph, None
    matrix = edge_matrix(edge_attr, graph.num_given, edge_dim)
    src, dst = graph.edge_index
    # Loops that are replaced count for none of the nodes.
    dst = torch.where(src == dst, graph.num_dst, dst)
    num_loops = graph.num_edges - graph.num_given
    loops = loop_features(matrix, dst, (graph.num_dst + 1, num_loops), fill_value)
    return graph, torch.cat([matrix, loops])


def graph_and_edges(
    adjacency: Adjacency,
    sizes: tuple[int, int],
    edge_attr: Tensor | None,
    edge_dim: int | None,
    fill_value: float | Tensor | str,
    add_self_loops: bool,
) -> tuple[Graph, Tensor | None]:
    """The graph that a layer attends over and its edge features [E', edge_dim], checked."""
    if add_self_loops and is_tracing():
        return _traced(adjacency, sizes, edge_attr, edge_dim, fill_value)
    if not add_self_loops:
        graph = as_graph(adjacency, *sizes)
        matrix = None if edge_attr is None else edge_matrix(edge_attr, graph.num_edges, edge_dim)
        return graph, matrix
    looped = with_self_loops(adjacency, *sizes)
    if edge_attr is None:
        return looped.graph, None
    matrix = edge_matrix(edge_attr, looped.num_given, edge_dim)
    if looped.kept is not None:
        matrix = matrix[looped.kept]
    dst = looped.graph.edge_index[1, : matrix.shape[0]]
    loops = loop_features(matrix, dst, (looped.graph.num_dst, looped.num_loops), fill_value)
    return looped.graph, torch.cat([matrix, loops])
