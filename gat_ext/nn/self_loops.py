"""Self-loops of the layers and their edge features."""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.functional import checks, spmm
from gat_ext.graph import Graph
from gat_ext.graph.degrees import largest_degrees
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.self_loops import SelfLoops, with_self_loops
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.graph.traced import TracedGraph
from gat_ext.nn.inputs import Adjacency, as_graph, edge_matrix
from gat_ext.ops.registry import needs_grad
from gat_ext.ops.scatter import widened
from gat_ext.ops.state import have_tangents

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


def loop_features(edge_attr: Tensor, looped: SelfLoops, fill_value: float | Tensor | str) -> Tensor:
    """Edge features of the self-loops, [num_loops, ..., D].

    Args:
        edge_attr: [E, ..., D], of the kept edges.
        looped: the graph with the self-loops.
        fill_value: the features of every loop, or the name of a reduction over the features of
            the edges into its node; a node without such edges gets 0, or 1 with "mul".
    """
    checks.on_graph_device(looped.graph, edge_attr, "edge_attr")
    if isinstance(fill_value, str):
        how = _REDUCTIONS[fill_value]
        scatters = isinstance(looped.graph, TracedGraph) or (
            edge_attr.device.type == "cpu" and how not in ("sum", "mean")  # faster there
        )
        return (_scatter if scatters else _reduce)(edge_attr, looped, how)[: looped.num_loops]
    fill = torch.as_tensor(fill_value, dtype=edge_attr.dtype, device=edge_attr.device)
    if fill.numel() != 1 and fill.numel() != edge_attr.shape[-1]:
        raise ValueError(
            f"fill_value has shape {list(fill.shape)}; expected [{edge_attr.shape[-1]}], one value "
            "for each edge feature, or a single value"
        )
    return fill.reshape(-1).expand(looped.num_loops, *edge_attr.shape[1:])


def _scatter(values: Tensor, looped: SelfLoops, how: str) -> Tensor:
    dtype, values = values.dtype, widened(values)
    index, size = looped.destinations()
    start = torch.ones if how == "prod" else torch.zeros
    out = start((size, *values.shape[1:]), dtype=values.dtype, device=values.device)
    index = index.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    if how == "mean":  # torch.onnx.export translates a mean of scatter_reduce wrongly
        count = torch.zeros_like(out).scatter_add(0, index, torch.ones_like(values))
        return (out.scatter_add(0, index, values) / count.clamp(min=1)).to(dtype)
    out = out.scatter_reduce(0, index, values, how, include_self=how in ("sum", "prod"))
    return out.to(dtype)


def _reduce(values: Tensor, looped: SelfLoops, how: str) -> Tensor:
    """As :func:`_scatter`, whose order is random on a GPU; in the order of the edges."""
    graph, rows = looped.incidence(), values.flatten(1)
    with torch.autocast(values.device.type, enabled=False):
        if how == "prod":
            out = _products(graph, rows)
        elif how in ("sum", "mean"):
            out = spmm(graph, rows, reduce=how)
        else:
            out = spmm(graph, rows.detach(), reduce=how.removeprefix("a"))
            if needs_grad(rows) or have_tangents(rows):
                out = out + _ties(graph, rows, out)
    return out.view(graph.num_dst, *values.shape[1:])


def _ties(graph: Graph, rows: Tensor, extremes: Tensor) -> Tensor:
    """Zeros [N, D] that have the gradient of the extremes, divided among equal rows."""
    dst = graph.transpose().col.long()
    equal = rows.detach() == extremes[dst]
    share = equal / spmm(graph, equal.float())[dst]
    zeros = torch.where(rows.isfinite(), rows - rows.detach(), 0)
    return spmm(graph, zeros * share.to(rows.dtype))


def _products(graph: Graph, rows: Tensor) -> Tensor:
    """The products of the sources of each destination, [N, D]; 1 without any."""
    if graph.num_edges == 0:
        return rows.new_ones(graph.num_dst, rows.shape[1])
    largest = largest_degrees(graph)
    most = graph.num_edges if largest is None else int(largest[0])
    degree = graph.in_degrees()
    last = graph.rowptr[1:].repeat_interleave(degree, output_size=graph.num_edges)
    position = torch.arange(graph.num_edges, device=rows.device)
    products = rows[graph.col.long()]  # of each edge and the next ones of its row
    count = 1  # how many
    while count < most:
        further = torch.cat([products[count:], products[:count]])
        inside = (position + count < last).unsqueeze(1)
        products = products * torch.where(inside, further, 1)
        count *= 2
    first = products[graph.rowptr[:-1].clamp(max=graph.num_edges - 1)]
    return torch.where((degree > 0).unsqueeze(1), first, 1)


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
    others = looped.others(matrix)
    return looped.graph, torch.cat([others, loop_features(others, looped, fill_value)])
