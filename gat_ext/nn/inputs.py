"""Types and checks of a layer's inputs: node features, edges and edge features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gat_ext.functional import checks
from gat_ext.graph import Graph
from gat_ext.graph.cache import cached
from gat_ext.graph.csr import check_edge_index
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.graph.traced import TracedGraph
from gat_ext.nn.features import SparseFeatures, as_features
from gat_ext.nn.linear import weight_of
from gat_ext.ops.state import is_tracing

Adjacency = Any
"""A Graph, an edge_index [2, E], or what :func:`gat_ext.nn.adjacency.unwrap` accepts"""
Features = Tensor | SparseFeatures
NodeFeatures = Features | tuple[Features, Features | None]
Attention = tuple[Tensor, Tensor]
"""(edge_index [2, E], alpha [E, H])"""


def split_features(
    x: NodeFeatures, lin_src: nn.Linear, lin_dst: nn.Linear, layer: nn.Module
) -> tuple[Features, Features | None]:
    """Checks x and splits it into (x_src, x_dst), the same object if x is one tensor."""
    both = (x, x) if isinstance(x, (Tensor, SparseFeatures)) else x
    if not isinstance(both, (tuple, list)) or len(both) != 2:
        raise TypeError(
            f"x is a {type(x).__name__}; {layer} expects a tensor [N, C], or a tuple (x_src, x_dst)"
            ", where x_dst may be None"
        )
    x_src = as_features(both[0])
    x_dst = x_src if both[1] is both[0] else None if both[1] is None else as_features(both[1])
    check_features("x", x_src, lin_src, layer)
    if x_dst is not None:
        check_features("x of the destinations", x_dst, lin_dst, layer)
    return x_src, x_dst


def check_features(name: str, x: Features, lin: nn.Module, layer: Any) -> None:
    """Raises unless an input [N, C], or [N, B, C] of a batch, has the size and kind of its map."""
    if not isinstance(x, (Tensor, SparseFeatures)):
        raise TypeError(f"{name} is a {type(x).__name__}; {layer} expects a torch.Tensor")
    weight = weight_of(lin)
    channels: Any = None if weight is None else weight.shape[1]
    if layer is lin:  # which has no map of its own for x
        channels = layer.in_channels
    if x.dim() not in (2, 3) or (channels is not None and x.shape[-1] != channels):
        shape, wanted = list(x.shape), channels or "in_channels"
        if x.dim() == 3:  # a batch, as [N, B, F]
            shape[:2] = shape[1::-1]
        raise ValueError(
            f"{name} has shape {shape}; {layer} expects [N, {wanted}], or [B, N, {wanted}] for a "
            "batch"
        )
    check_kind(name, x, lin, layer)


def check_dense(name: str, x: Any, layer: nn.Module) -> None:
    """Raises unless x is a dense tensor [..., N, C], for layers that sum x itself."""
    if isinstance(x, SparseFeatures) or (isinstance(x, Tensor) and x.layout != torch.strided):
        raise TypeError(
            f"{name} is sparse ({type(x).__name__}); {layer} sums it without a projection and "
            "expects a dense torch.Tensor [N, C]: project x first with "
            "SparseFeatures(x).linear(weight)"
        )
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is a {type(x).__name__}; {layer} expects a torch.Tensor [N, C]")
    if x.dim() < 2:
        raise ValueError(
            f"{name} has shape {list(x.shape)}; {layer} expects [N, C], or [B, N, C] of a batch"
        )


def check_kind(name: str, x: Features, lin: nn.Module, layer: nn.Module | str) -> None:
    """Raises unless an input has the dtype, or autocast is on, and the device of a projection."""
    weight = lin._parameters.get("weight")
    if weight is None:
        weight = next(lin.parameters(), None)  # of a parametrisation, or of a substitute module
    if weight is None:
        return
    if x.dtype != weight.dtype and not checks.autocast_is_on(x.device):
        raise TypeError(
            f"{name} has dtype {x.dtype}, {layer} has {weight.dtype}; expected the same dtype: "
            "cast one of them"
        )
    if x.device != weight.device:
        raise ValueError(
            f"{name} is on {x.device}, {layer} is on {weight.device}; expected the same device: "
            "move one of them with .to()"
        )


def as_graph(
    adjacency: Adjacency, num_src: int, num_dst: int
) -> Graph | TracedGraph | ShardedGraph:
    """The graph of an edge_index; a Graph is returned itself, after a check of its sizes."""
    if not isinstance(adjacency, (Graph, ShardedGraph)):
        check_edge_index(adjacency)
        if is_tracing():
            return TracedGraph(adjacency, num_src, num_dst, self_loops=False)
        key = (num_src, num_dst, "as given")
        return cached((adjacency,), key, lambda: Graph(adjacency, num_src=num_src, num_dst=num_dst))
    if (adjacency.num_src, adjacency.num_dst) != (num_src, num_dst):
        hint = "give the numbers of nodes to Graph if some have no edges"
        if adjacency.num_src == num_src == num_dst > adjacency.num_dst:
            hint = f"pass a pair, as (x, x[:{adjacency.num_dst}]) with a block of a sampled batch"
        raise ValueError(
            f"x has {num_src} rows for the sources and {num_dst} for the destinations, but the "
            f"graph is {adjacency!r}; expected one row for each node: {hint}"
        )
    return adjacency


def edge_matrix(edge_attr: Tensor, num_edges: int, edge_dim: int | None) -> Tensor:
    """Edge features as [E, edge_dim], or [E, B, edge_dim] if they have three axes.

    A vector [E] becomes [E, 1]; an edge_dim of -1 accepts any.
    """
    if edge_dim is None:
        raise ValueError(
            "edge_attr was given, but the layer has edge_dim=None; construct it with edge_dim, or "
            "leave edge_attr out"
        )
    checks.floating(edge_attr, "edge_attr")
    matrix = edge_attr.unsqueeze(-1) if edge_attr.dim() == 1 else edge_attr
    channels = max(matrix.shape[-1], 1) if edge_dim == -1 else edge_dim
    if matrix.dim() not in (2, 3) or (matrix.shape[0], matrix.shape[-1]) != (num_edges, channels):
        expected = "at least 1" if edge_dim == -1 else edge_dim
        shape = list(edge_attr.shape)
        if matrix.dim() == 3:  # of each element of a batch, as [E, B, D]
            shape[:2] = shape[1::-1]
        of_batch = "[B, " if matrix.dim() == 3 else "["
        raise ValueError(
            f"edge_attr has shape {shape}; expected {of_batch}{num_edges}, {expected}]"
        )
    return matrix
