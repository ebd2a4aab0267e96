"""What the layers share: arguments, initialisation, self-loops and the features of self-loops."""

from __future__ import annotations

import math
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gat_ext.graph import Graph

Adjacency = Graph | Tensor
NodeFeatures = Tensor | tuple[Tensor, Tensor | None]
Attention = tuple[Tensor, Tensor]
"""(edge_index [2, E], alpha [E, H])"""

_REDUCTIONS = {"add": "sum", "sum": "sum", "mean": "mean", "min": "amin", "max": "amax", "mul": "prod"}


def glorot_(tensor: Tensor | None) -> None:
    """Uniform in ±sqrt(6 / (rows + columns)) of the last two dimensions (Glorot and Bengio 2010)."""
    if tensor is not None:
        bound = math.sqrt(6 / (tensor.shape[-2] + tensor.shape[-1]))
        nn.init.uniform_(tensor, -bound, bound)


class GlorotLinear(nn.Linear):
    """``torch.nn.Linear`` whose weight starts with Glorot's distribution."""

    def reset_parameters(self) -> None:
        """Draws new parameters."""
        super().reset_parameters()
        glorot_(self.weight)


def pair(channels: int | tuple[int, int]) -> tuple[int, int]:
    """(source, destination) channels."""
    return (channels, channels) if isinstance(channels, int) else (channels[0], channels[1])


def check_sizes(out_channels: int, heads: int, dropout: float) -> None:
    """Refuses sizes and probabilities that no layer can have."""
    for name, size in (("out_channels", out_channels), ("heads", heads)):
        if size < 1:
            raise ValueError(f"{name} is {size}; expected at least 1")
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout is {dropout}; expected a probability from 0 to 1")


def check_features(x: NodeFeatures, in_channels: tuple[int, int], layer: nn.Module) -> None:
    """Refuses node features that are not [N, in_channels] matrices."""
    tensors = (x, None) if isinstance(x, Tensor) else x
    for name, tensor, channels in zip(("x", "x of the destinations"), tensors, in_channels, strict=True):
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}; expected a torch.Tensor")
        if tensor.dim() != 2 or tensor.shape[1] != channels:
            raise ValueError(f"{name} has shape {list(tensor.shape)}; {layer} expects [N, {channels}]")


def as_graph(edge_index: Adjacency, num_src: int, num_dst: int) -> Graph:
    """The graph of an edge_index, or the graph itself once its sizes are checked."""
    if not isinstance(edge_index, Graph):
        return Graph(edge_index, num_src=num_src, num_dst=num_dst)
    if (edge_index.num_src, edge_index.num_dst) != (num_src, num_dst):
        raise ValueError(
            f"{edge_index!r} does not go with features of {num_src} sources and {num_dst} destinations"
        )
    return edge_index


class LoopedGraph(NamedTuple):
    """A graph whose self-loops were replaced by one for every node, at the end."""

    graph: Graph
    kept: Tensor | None  # positions of the original edges that are no self-loops; None: all of them
    num_loops: int


_looped: WeakKeyDictionary[Graph, LoopedGraph] = WeakKeyDictionary()


def with_self_loops(graph: Graph) -> LoopedGraph:
    """One self-loop for every node that is both source and destination, after the other edges.

    Remembered for as long as the graph lives, so that training on one graph sorts once.
    """
    found = _looped.get(graph)
    if found is None:
        found = _looped[graph] = _add_loops(graph)
    return found


def _add_loops(graph: Graph) -> LoopedGraph:
    edges = graph.edge_index
    is_loop = edges[0] == edges[1]
    kept = None
    if bool(is_loop.any()):
        kept = (~is_loop).nonzero().flatten()
        edges = edges[:, kept]
    num_loops = min(graph.num_src, graph.num_dst)
    loops = torch.arange(num_loops, device=edges.device).expand(2, -1)
    looped = Graph(torch.cat([edges, loops], dim=1), num_src=graph.num_src, num_dst=graph.num_dst)
    return LoopedGraph(looped, kept, num_loops)


def with_loop_features(
    edge_attr: Tensor | None, looped: LoopedGraph, fill_value: float | Tensor | str
) -> Tensor | None:
    """Edge features of a looped graph.

    ``fill_value`` is the features of every loop, or the name of a reduction over the in-edges of its node: add, mean, min, max, mul.
    """
    if edge_attr is None:
        return None
    if looped.kept is not None:
        edge_attr = edge_attr[looped.kept]
    shape = (looped.num_loops, *edge_attr.shape[1:])
    if isinstance(fill_value, str):
        dst = looped.graph.edge_index[1, : edge_attr.shape[0]]
        loops = _reduce(edge_attr, dst, looped.graph.num_dst, fill_value)[: looped.num_loops]
    else:
        loops = torch.as_tensor(fill_value, dtype=edge_attr.dtype, device=edge_attr.device).expand(shape)
    return torch.cat([edge_attr, loops])


def _reduce(values: Tensor, index: Tensor, size: int, how: str) -> Tensor:
    if how not in _REDUCTIONS:
        raise ValueError(f"fill_value is {how!r}; expected a number, a tensor or one of {', '.join(map(repr, _REDUCTIONS))}")
    start = torch.ones if how == "mul" else torch.zeros
    out = start((size, *values.shape[1:]), dtype=values.dtype, device=values.device)
    index = index.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    return out.scatter_reduce(0, index, values, _REDUCTIONS[how], include_self=how in ("add", "sum", "mul"))


def edge_matrix(edge_attr: Tensor, num_edges: int, edge_dim: int | None) -> Tensor:
    """Edge features as [E, edge_dim]; a vector is one feature an edge."""
    if edge_dim is None:
        raise ValueError("edge_attr was given, but the layer was made without edge_dim")
    matrix = edge_attr.unsqueeze(-1) if edge_attr.dim() == 1 else edge_attr
    if matrix.shape != (num_edges, edge_dim):
        raise ValueError(f"edge_attr has shape {list(edge_attr.shape)}; expected [{num_edges}, {edge_dim}]")
    return matrix


def join_heads(out: Tensor, concat: bool) -> Tensor:
    """[N, H, C] to [N, H · C], or to the mean over heads [N, C]."""
    return out.flatten(1) if concat else out.mean(dim=1)


def split_result(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
    """(out, weights or None) of an attention operator."""
    return (result, None) if isinstance(result, Tensor) else (result[0], result[1])


def with_attention(
    out: Tensor, graph: Graph, weights: Tensor | None
) -> Tensor | tuple[Tensor, Attention]:
    """The result of a layer, with (edge_index, alpha) where weights were asked for."""
    return out if weights is None else (out, (graph.edge_index, weights))
