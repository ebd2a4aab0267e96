"""What the layers share: arguments, initialisation, results."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gat_ext.functional import checks
from gat_ext.graph import Graph
from gat_ext.graph.cache import cached
from gat_ext.graph.csr import check_edge_index
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.traced import TracedGraph
from gat_ext.nn.adjacency import attention_of, is_plain
from gat_ext.nn.features import SparseFeatures, as_features
from gat_ext.ops import linear_maps
from gat_ext.ops.state import is_tracing

Adjacency = Any
"""A Graph, an edge_index [2, E], or what :func:`gat_ext.nn.adjacency.unwrap` knows"""
Features = Tensor | SparseFeatures
NodeFeatures = Features | tuple[Features, Features | None]
Attention = tuple[Tensor, Tensor]
"""(edge_index [2, E], alpha [E, H])"""


_METHODS_OF_PYG = (
    *("message", "aggregate", "message_and_aggregate", "update", "propagate"),
    *("edge_update", "edge_updater", "explain_message"),
)


class Layer(nn.Module):
    """A layer whose sums over edges are one operator; with what PyG's layers say of themselves.

    Raises:
        TypeError: a class derived from it defines a method of PyG's message passing, and no forward that could call it.
    """

    aggr, flow = "add", "source_to_target"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuses methods that nothing would call."""
        super().__init_subclass__(**kwargs)
        ignored = [name for name in _METHODS_OF_PYG if name in vars(cls)]
        if ignored and "forward" not in vars(cls):
            raise TypeError(
                f"{cls.__name__} defines {', '.join(ignored)}, which layers of gat_ext have no use for: attention and "
                "sum are one operator; override forward, or derive from the layer of torch_geometric"
            )


# ---- parameters


def glorot_(tensor: Tensor | None) -> None:
    """Uniform in ±sqrt(6 / (rows + columns)) of the last two dimensions (Glorot and Bengio)."""
    if tensor is not None:
        bound = math.sqrt(6 / (tensor.shape[-2] + tensor.shape[-1]))
        nn.init.uniform_(tensor, -bound, bound)


class _TakesSparse(nn.Linear):
    def forward(self, x: Features) -> Tensor:
        """[N, out_features] of [N, in_features]."""
        if isinstance(x, SparseFeatures):
            return x.linear(self.weight, self.bias)
        return linear_maps.linear(x, self.weight, self.bias)

    @property
    def in_channels(self) -> int:
        """in_features, by the name that it has in PyG's layers."""
        return self.in_features

    @property
    def out_channels(self) -> int:
        """out_features, by the name that it has in PyG's layers."""
        return self.out_features


class Projection(_TakesSparse):
    """``torch.nn.Linear`` that takes sparse features, too."""


class LazyProjection(_TakesSparse, nn.LazyLinear):
    """A ``Projection`` that takes its number of inputs from its first input; the bias, as PyG's, has its size before."""

    cls_to_become = Projection  # type: ignore[assignment]

    def __init__(self, out_features: int, bias: bool) -> None:
        super().__init__(out_features, bias=False)
        if bias:
            self.bias = nn.Parameter(torch.empty(out_features))  # type: ignore[assignment]

    def initialize_parameters(self, x: Features) -> None:  # type: ignore[override]
        """Takes the size of x."""
        if self.has_uninitialized_params():  # type: ignore[no-untyped-call]
            with torch.no_grad():
                self.in_features = x.shape[-1]
                self.weight.materialize((self.out_features, self.in_features))
                self.reset_parameters()


class GlorotLinear(Projection):
    """A ``Projection`` whose weight starts with Glorot's distribution."""

    def reset_parameters(self) -> None:
        """Draws new parameters, as many random numbers as PyG's."""
        glorot_(self.weight)
        if self.bias is not None:
            bound = self.in_features**-0.5
            nn.init.uniform_(self.bias, -bound, bound)


class LazyGlorotLinear(LazyProjection):
    """A ``GlorotLinear`` that takes its number of inputs from its first input."""

    cls_to_become = GlorotLinear  # type: ignore[assignment]

    def reset_parameters(self) -> None:
        """Draws new parameters, once their shape is known."""
        if self.in_features > 0:
            GlorotLinear.reset_parameters(self)  # type: ignore[arg-type]


def linear(in_channels: int, out_channels: int, *, bias: bool, glorot: bool = True) -> nn.Linear:
    """A linear map; of ``in_channels`` -1 the size is that of the first input."""
    if in_channels == -1:
        lazy = LazyGlorotLinear if glorot else LazyProjection
        return lazy(out_channels, bias=bias)
    kind = GlorotLinear if glorot else Projection
    return kind(in_channels, out_channels, bias=bias)


def weight_of(lin: nn.Module) -> Tensor | None:
    """The weight [out, in] of a projection as it is stored; None where it has no size yet.

    None, too, where the weight is computed anew each time (``torch.nn.utils.parametrize``), or somebody put a module without a
    weight in the place of the projection.
    """
    parametrized = "weight" in lin._modules.get("parametrizations", ())  # type: ignore[operator]
    weight = None if parametrized else getattr(lin, "weight", None)
    known = isinstance(weight, Tensor) and not isinstance(weight, UninitializedParameter)
    return weight if known else None


def is_plain_product(lin: nn.Module) -> bool:
    """Whether a call of this projection is the product with its weight and nothing else, no hook for instance."""
    return (
        type(lin).forward is _TakesSparse.forward
        and weight_of(lin) is not None
        and "forward" not in vars(lin)
        and not (lin._forward_hooks or lin._forward_pre_hooks)
        and not (lin._backward_hooks or lin._backward_pre_hooks)
    )


def pair(channels: int | tuple[int, int]) -> tuple[int, int]:
    """(source, destination) channels."""
    if isinstance(channels, (tuple, list)):
        return channels[0], channels[1]
    return channels, channels


def check_sizes(
    in_channels: int | tuple[int, int],
    out_channels: int,
    heads: int,
    dropout: float,
    edge_dim: int | None,
) -> None:
    """Refuses sizes and probabilities that no layer can have."""
    ends = in_channels if isinstance(in_channels, (tuple, list)) else (in_channels,)
    for channels in ends:
        _check_integer("in_channels", channels)
        if len(ends) not in (1, 2) or (channels < 1 and channels != -1):
            raise ValueError(
                f"in_channels is {in_channels}; expected sizes of at least 1, or -1 for the size "
                "of the first input"
            )
    _check_integer("out_channels", out_channels)
    _check_integer("heads", heads)
    for name, size in (("out_channels", out_channels), ("heads", heads)):
        if size < 1:
            raise ValueError(f"{name} is {size}; expected at least 1")
    if edge_dim is not None:
        _check_integer("edge_dim", edge_dim)
        if edge_dim < 1 and edge_dim != -1:
            raise ValueError(
                f"edge_dim is {edge_dim}; expected at least 1, or -1 for the size of the first edge_attr"
            )
    check_probability("dropout", dropout)


_LARGEST = 2**31 - 1  # so that no product of two sizes is beyond 64 bits


def _check_integer(name: str, size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, Integral):  # NumPy's integers, too
        raise TypeError(f"{name} is {size!r} of type {type(size).__name__}; expected an int")
    if int(size) > _LARGEST:
        raise ValueError(f"{name} is {size}; expected at most {_LARGEST}")


def check_probability(name: str, p: float) -> None:
    """Refuses what is not in [0, 1]."""
    checks.probability(p, name)


def check_flags(**flags: Any) -> None:
    """Refuses what is neither True nor False."""
    for name, given in flags.items():
        checks.flag(given, name)


def asks_for_weights(return_attention_weights: bool | None) -> bool:
    """Whether a layer returns its attention weights; None is no."""
    if return_attention_weights is not None:
        checks.flag(return_attention_weights, "return_attention_weights")
    return bool(return_attention_weights)


# ---- inputs


def split_features(
    x: NodeFeatures, lin_src: nn.Linear, lin_dst: nn.Linear, layer: nn.Module
) -> tuple[Features, Features | None]:
    """(features of the sources, features of the destinations), checked; one tensor is both."""
    both = (x, x) if isinstance(x, (Tensor, SparseFeatures)) else x
    if not isinstance(both, (tuple, list)) or len(both) != 2:
        raise TypeError(
            f"x is a {type(x).__name__}; {layer} expects a tensor [N, C], or a tuple of one for "
            "the sources and one, or None, for the destinations"
        )
    x_src = as_features(both[0])
    x_dst = x_src if both[1] is both[0] else None if both[1] is None else as_features(both[1])
    _check_features("x", x_src, lin_src, layer)
    if x_dst is not None:
        _check_features("x of the destinations", x_dst, lin_dst, layer)
    return x_src, x_dst


def _check_features(name: str, x: Features, lin: nn.Linear, layer: nn.Module) -> None:
    if not isinstance(x, (Tensor, SparseFeatures)):
        raise TypeError(f"{name} is a {type(x).__name__}; {layer} expects a torch.Tensor")
    weight = weight_of(lin)
    channels = None if weight is None else weight.shape[1]
    if x.dim() not in (2, 3) or (channels is not None and x.shape[-1] != channels):
        shape, wanted = list(x.shape), channels or "in_channels"
        if x.dim() == 3:  # a batch, whose nodes were moved to the front
            shape[:2] = shape[1::-1]
        raise ValueError(
            f"{name} has shape {shape}; {layer} expects [N, {wanted}], or [B, N, {wanted}] of a batch"
        )
    check_kind(name, x, lin, layer)


def check_kind(name: str, x: Features, lin: nn.Module, layer: nn.Module) -> None:
    """Refuses an input of another dtype or device than the weight of a projection; under autocast dtypes may differ."""
    weight = lin._parameters.get("weight")
    if weight is None:
        weight = next(lin.parameters(), None)  # of what computes it, or stands in its place
    if weight is None:
        return
    if x.dtype != weight.dtype and not checks.autocast_is_on(x.device):
        raise TypeError(f"{name} has dtype {x.dtype}, {layer} has {weight.dtype}; cast one of them")
    if x.device != weight.device:
        raise ValueError(
            f"{name} is on {x.device}, {layer} is on {weight.device}; move one of them with .to()"
        )


def as_graph(adjacency: Adjacency, num_src: int, num_dst: int) -> Graph | TracedGraph:
    """The graph of an edge_index, or the graph itself once its sizes are checked."""
    if not isinstance(adjacency, Graph):
        check_edge_index(adjacency)
        if is_tracing():
            return TracedGraph(adjacency, num_src, num_dst, self_loops=False)
        key = (num_src, num_dst, "as given")
        return cached((adjacency,), key, lambda: Graph(adjacency, num_src=num_src, num_dst=num_dst))
    if (adjacency.num_src, adjacency.num_dst) != (num_src, num_dst):
        raise ValueError(
            f"{adjacency!r} does not go with features of {num_src} sources and {num_dst} "
            "destinations; give one row for each node"
        )
    return adjacency


def edge_channels(edge_dim: int | None, lin_edge: nn.Module | None) -> int | None:
    """The size of edge features: None for none, -1 where it is that of the first ones."""
    if edge_dim != -1 or lin_edge is None:
        return edge_dim
    weight = weight_of(lin_edge)
    return -1 if weight is None else weight.shape[1]


def edge_matrix(edge_attr: Tensor, num_edges: int, edge_dim: int | None) -> Tensor:
    """Edge features as [E, edge_dim]; a vector is one feature an edge. Of edge_dim -1 any number of features will do."""
    if edge_dim is None:
        raise ValueError("edge_attr was given, but the layer was made without edge_dim")
    checks.floating(edge_attr, "edge_attr")
    matrix = edge_attr.unsqueeze(-1) if edge_attr.dim() == 1 else edge_attr
    channels = max(matrix.shape[-1], 1) if edge_dim == -1 else edge_dim
    if matrix.shape != (num_edges, channels):
        expected = "at least 1" if edge_dim == -1 else edge_dim
        raise ValueError(
            f"edge_attr has shape {list(edge_attr.shape)}; expected [{num_edges}, {expected}]"
        )
    return matrix


# ---- results


def join_heads(out: Tensor, concat: bool) -> Tensor:
    """[N, H, C] to [N, H · C], or to the mean over heads [N, C]; likewise [N, B, H, C]."""
    return out.flatten(-2) if concat else out.mean(dim=-2)


def add_rest(
    out: Tensor, res: nn.Module | None, x_dst: Features | None, bias: Tensor | None
) -> Tensor:
    """``out`` plus the residual, where there are destination features, plus the bias."""
    if res is not None and x_dst is not None:
        out = linear_maps.add(out, res(x_dst))
    return out if bias is None else linear_maps.add(out, bias)


def split_result(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
    """(out, weights or None) of an attention operator."""
    return (result, None) if isinstance(result, Tensor) else (result[0], result[1])


def in_dtype(
    out: Tensor, weights: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """(out, weights or None) in the dtype of PyG's layer: under autocast its products with a parameter of float32 are float32."""
    return out.to(dtype), None if weights is None else weights.to(dtype)


def with_attention(
    out: Tensor, graph: GraphLike, weights: Tensor | None, adjacency: Any, looped: bool
) -> Tensor | tuple[Tensor, Attention]:
    """The result of a layer, with the attention where it was asked for, in the form that goes with the adjacency given.

    Args:
        out: of the layer.
        graph: what it attended over.
        weights: [E', H], or None where nobody asked.
        adjacency: what the layer was given.
        looped: whether it replaced self-loops.
    """
    if weights is None:
        return out
    if isinstance(graph, TracedGraph):
        return out, graph.edges_with(weights)
    if is_plain(adjacency):
        return out, (_edges_of(graph, adjacency, looped), weights)
    return out, attention_of(adjacency, graph, graph.edge_index, weights)


def _edges_of(graph: GraphLike, adjacency: Tensor | Graph, looped: bool) -> Tensor:
    """The edges that a layer attended over: the very edge_index that was given, or one of its dtype with self-loops last."""
    if isinstance(adjacency, Graph):
        return graph.edge_index
    return graph.edge_index.to(adjacency.dtype) if looped else adjacency


def check_message_passing(options: dict[str, Any]) -> None:
    """Refuses those arguments of PyG's MessagePassing that would change what a layer computes."""
    known: dict[str, tuple[Any, ...]] = {
        "aggr": ("add", "sum"),
        "flow": ("source_to_target",),
        "node_dim": (0, -2),
    }
    known |= {"aggr_kwargs": (None, {}), "decomposed_layers": (1,)}
    hints = {
        "aggr": "attention sums what it weighs",
        "flow": "turn the edges round with edge_index.flip(0)",
    }
    for name, value in options.items():
        if name not in known:
            raise TypeError(
                f"got an unknown argument {name!r}; known beside those of the layer: {', '.join(known)}"
            )
        if value not in known[name]:
            expected = " or ".join(map(repr, known[name]))
            hint = f": {hints[name]}" if name in hints else ""
            raise ValueError(f"{name} is {value!r}; gat_ext's layers know {expected} only{hint}")
