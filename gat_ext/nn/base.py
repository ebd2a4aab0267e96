"""AttentionConv: everything that attention layers share around their projections and operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gat_ext.graph import Graph
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.sharded import ShardedGraph, rows_of
from gat_ext.graph.traced import TracedGraph
from gat_ext.nn.adjacency import attention_of, is_plain, plain_inputs
from gat_ext.nn.arguments import asks_for_weights, check_pair
from gat_ext.nn.batch import Batch, Folded, edges_first, nodes_first
from gat_ext.nn.first_call import FirstCall
from gat_ext.nn.inputs import (
    Adjacency,
    Attention,
    Features,
    NodeFeatures,
    check_kind,
    edge_matrix,
    split_features,
)
from gat_ext.nn.linear import is_plain_product, weight_of
from gat_ext.nn.masks import mask_of_layer, one_of
from gat_ext.nn.self_loops import graph_and_edges
from gat_ext.nn.tracers import TracedModule, check_is_no_proxy
from gat_ext.ops import linear_maps
from gat_ext.ops.numbering import numbered_rows

_METHODS_OF_PYG = (
    *("message", "aggregate", "message_and_aggregate", "update", "propagate"),
    *("edge_update", "edge_updater", "explain_message"),
)


class Operands(NamedTuple):
    """The arguments of a layer's operator, except the graph.

    Attributes:
        nodes: tensors [N, H, …], or [N · B, H, …] with a batch, in the order of the operator's
            positional arguments.
        options: its other arguments, by name.
    """

    nodes: tuple[Tensor, ...]
    options: dict[str, Any]


class AttentionConv(TracedModule):
    """Base class of the attention layers: one call, from the caller's inputs to PyG's results.

    A layer sets :attr:`operator` and defines :meth:`projections` and :meth:`project`. It may set
    the class attributes below and override :meth:`finish`, :meth:`result_dtype`, :meth:`split` and
    :meth:`plain_inputs`. A forward with other arguments calls :meth:`attend`, which passes those
    that it does not know on to :meth:`project`.

    The constructor sets ``in_channels``, ``out_channels`` and ``heads`` (for :meth:`split_heads`
    and the repr) and, if the layer has edge features, ``edge_dim`` and ``lin_edge``. The defaults
    below hold for layers without these arguments.

    Args:
        *sizes: the constructor's arguments of which -1 stands for the size of the first input.

    Attributes:
        operator: an attention function of :mod:`gat_ext.functional`, as a ``staticmethod``.
        reads: what each linear map is given, "src", "dst" or "edge", by its name; maps of size -1
            draw their parameters in this order.
        score_factors: names of parameters or linear maps, one factor of each term of the score.
        edge_dim: size of the edge features; -1: taken from the first call; None: no edge features.
        add_self_loops: replace the graph's self-loops by one for every node.
        fill_value: edge features of the added self-loops.
        concat: concatenate the heads, else average them.
        dropout: probability of dropping an attention weight in training.
        accepts_pairs: x may be (x_src, x_dst).
        accepts_sources_alone: x may be (tensor, None).
        per_node: names of further arguments of forward in the order or numbering of the nodes.
        returns_weights_before_dropout: return the weights before dropout, else as applied.

    Raises:
        TypeError: a derived class defines a method of PyG's MessagePassing, but no forward that
            could call it.
    """

    _first_call: FirstCall | None = None
    operator: ClassVar[Callable[..., Any]]
    reads: ClassVar[dict[str, str]] = {}
    score_factors: ClassVar[tuple[str, ...]] = ()
    in_channels: int | tuple[int, int]
    out_channels: int
    heads: int
    lin_edge: Any
    accepts_pairs: ClassVar[bool] = True
    accepts_sources_alone: ClassVar[bool] = False
    per_node: ClassVar[tuple[str, ...]] = ()
    returns_weights_before_dropout: ClassVar[bool] = False
    aggr, flow = "add", "source_to_target"  # as PyG's layers
    edge_dim: int | None = None
    add_self_loops: bool = False
    fill_value: float | Tensor | str = "mean"
    concat: bool = True
    dropout: float = 0.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raises TypeError if nothing would call a method that the class defines."""
        super().__init_subclass__(**kwargs)
        ignored = [name for name in _METHODS_OF_PYG if name in vars(cls)]
        if ignored and "forward" not in vars(cls):
            raise TypeError(
                f"{cls.__name__} defines {', '.join(ignored)}, which layers of gat_ext never call, "
                "because attention and sum are one operator; override forward, or derive from the "
                "layer of torch_geometric"
            )

    def __init__(self, *sizes: int | tuple[int, int] | None) -> None:
        """Prepares for sizes that are those of the first input; see the class for the argument."""
        super().__init__()
        ends = [
            end for size in sizes for end in (size if isinstance(size, (tuple, list)) else [size])
        ]
        lazy = any(isinstance(end, Integral) and end == -1 for end in ends)
        # Not a submodule, which would be counted, hooked and printed.
        object.__setattr__(self, "_first_call", FirstCall(self) if lazy else None)

    def fix_uniform_attention(self) -> None:
        """Sets the factors of the scores to 0 and freezes them: attention is then 1 / in-degree.

        Everything else computes as before. A later :meth:`reset_parameters` draws them again.

        Raises:
            NotImplementedError: the layer names no such factors.
            ValueError: a factor takes its size from the first call, which is yet to come.
        """
        if not self.score_factors:
            raise NotImplementedError(
                f"{type(self).__name__} names no score_factors; expected a layer that does, such "
                "as GATConv, GATv2Conv, AGNNConv or TransformerConv"
            )
        tensors: list[Tensor] = []
        for name in self.score_factors:
            factor: Any = getattr(self, name)
            found = factor.parameters() if isinstance(factor, nn.Module) else [factor]
            tensors += [tensor for tensor in found if tensor is not None]
        if any(is_lazy(tensor) for tensor in tensors):
            raise ValueError(f"{self} has no sizes yet; expected a layer with sizes: call it once")
        for tensor in tensors:
            tensor.requires_grad_(False).zero_()
            tensor.grad = None

    # ---- what a layer defines

    def projections(self) -> tuple[nn.Linear, nn.Linear]:
        """The linear maps that check the sizes of x_src and x_dst."""
        raise NotImplementedError

    def project(
        self, x_src: Features, x_dst: Features | None, edge_attr: Tensor | None, num_dst: int
    ) -> Operands:
        """Computes the operator's arguments.

        Args:
            x_src: [N_src, F], or [N_src, B, F] with a batch.
            x_dst: likewise; the same object as x_src if x is one tensor.
            edge_attr: [E', edge_dim], or [E', B, edge_dim] of each element of a batch; of the edges
                that the layer attends over.
            num_dst: N_dst, or N_dst · B with a batch.
        """
        raise NotImplementedError

    def join_heads(self, out: Tensor) -> Tensor:
        """Concatenates the heads of out [N_dst, H, C], or averages them."""
        return out.flatten(-2) if self.concat else out.mean(dim=-2)

    @property
    def replaces_loops(self) -> bool:
        """True if it replaces the graph's self-loops by one for every node."""
        return self.add_self_loops

    def finish(self, out: Tensor, x_dst: Features | None) -> Tensor:
        """Adds bias and residual to out [N_dst, C]; x_dst as in project."""
        return out

    def result_dtype(self, x: Features, out: Tensor) -> torch.dtype | None:
        """The dtype of PyG's result; None for that of out.

        Under autocast PyG returns float32 if a parameter of the layer multiplies a projection.
        """
        return None

    def split(self, x: NodeFeatures) -> tuple[Features, Features | None, Batch | None]:
        """Checks x and splits it into (x_src, x_dst, batch); a batch becomes [N, B, F]."""
        if not self.accepts_pairs and isinstance(x, (tuple, list)):
            raise TypeError(
                f"x is a {type(x).__name__}; {self} expects one tensor [N, C], because it has one "
                "set of nodes"
            )
        x, batch = nodes_first(x)
        return *split_features(x, *self.projections(), self), batch

    def first_inputs(self, x: Any, edge_attr: Tensor | None) -> Iterator[tuple[nn.Module, Any]]:
        """Each linear map with its first input, in the order of :attr:`reads`."""
        x_src, x_dst, batch = self.split(x)
        edge_attr = edges_first(edge_attr, batch)
        if edge_attr is not None and self.edge_dim == -1:
            edge_attr = edge_matrix(edge_attr, edge_attr.shape[0] if edge_attr.dim() else 1, -1)
        inputs = {"src": x_src, "dst": x_dst, "edge": edge_attr}
        for name, end in self.reads.items():
            lin = getattr(self, name, None)
            if lin is not None and inputs[end] is not None:
                yield lin, inputs[end]

    def plain_inputs(
        self, x: Any, adjacency: Adjacency, edge_attr: Tensor | None
    ) -> tuple[Any, Tensor | Graph, Tensor | None]:
        """Converts any other form of edges: (x, edge_index or Graph, edge_attr)."""
        both, edges, edge_attr = plain_inputs(x, adjacency, edge_attr, self.edge_dim)
        return (both if self.accepts_pairs else x), edges, edge_attr

    # ---- shared by all layers

    def forward(
        self,
        x: NodeFeatures,
        edge_index: Adjacency,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
        *,
        edge_mask: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Attends; see the class for shapes.

        The layers have a forward of their own even where it is this one: torch.compile limits the
        recompilations of a function, whatever layers share it.
        """
        options = return_attention_weights, edge_mask, edge_weight
        return self.attend(x, edge_index, edge_attr, None, *options)

    def attend(
        self,
        x: NodeFeatures,
        edge_index: Adjacency,
        edge_attr: Tensor | None,
        size: tuple[int, int] | None,
        return_attention_weights: bool | None,
        edge_mask: Tensor | None,
        edge_weight: Tensor | None,
        **more: Any,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Implements forward.

        Args:
            x: as of forward, as are all arguments that are not listed here.
            edge_index: likewise.
            edge_attr: likewise.
            size: (N_src, N_dst), or None if the caller gave none.
            return_attention_weights: likewise.
            edge_mask: likewise.
            edge_weight: likewise.
            more: further arguments of the layer's :meth:`project`.
        """
        check_is_no_proxy(self, x, edge_index)
        name, mask = one_of(edge_mask, edge_weight)
        adjacency = edge_index
        if not is_plain(adjacency):
            x, edge_index, edge_attr = self.plain_inputs(x, adjacency, edge_attr)
        if self._first_call is not None:
            self._first_call(x, edge_attr)
        x_src, x_dst, batch = self.split(x)
        sizes = self._sizes(x_src, x_dst, edge_index, size)
        graph, edge_attr = graph_and_edges(
            edge_index,
            sizes,
            edges_first(edge_attr, batch),
            None if edge_attr is None else self._edge_channels(),
            self.fill_value,
            self.replaces_loops,
        )
        num_dst = sizes[1] * (batch.size if batch else 1)
        with numbered_rows(rows_of(graph)):
            operands = self.project(x_src, x_dst, edge_attr, num_dst, **more)
        if mask is not None:
            value, loops = operands.nodes[0], self.replaces_loops
            mask = mask_of_layer(name, mask, value, edge_index, sizes, loops, self)
        asked = asks_for_weights(return_attention_weights)
        out, weights = self._sum(graph, operands, mask, batch, asked)
        out = self.finish(self.join_heads(out), x_dst)
        dtype = self.result_dtype(x_src, out)
        if dtype is not None:
            out = out if out.dtype == dtype else out.to(dtype)
            weights = None if weights is None else weights.to(dtype)
        if batch is not None:
            out = batch.restore(out.transpose(0, 1), 0)
            weights = None if weights is None else batch.restore(weights, 1)
        return out if weights is None else (out, self._attention(weights, graph, adjacency))

    def _sizes(
        self,
        x_src: Features,
        x_dst: Features | None,
        adjacency: Tensor | Graph,
        size: tuple[int, int] | None,
    ) -> tuple[int, int]:
        """(N_src, N_dst); without x_dst, N_dst is that of size or the Graph, else N_src."""
        if size is not None:
            check_pair(size)
        num_src = x_src.shape[0]
        if x_dst is not None:
            num_dst = x_dst.shape[0]
        elif not self.accepts_sources_alone:
            raise ValueError(
                f"x is (tensor, None); {self} expects features of the destinations too: pass "
                "(x_src, x_dst)"
            )
        elif size is not None:
            num_dst = size[1]
        else:
            sized = isinstance(adjacency, (Graph, ShardedGraph))
            num_dst = adjacency.num_dst if sized else num_src  # type: ignore[union-attr]
        if size is not None and tuple(size) != (num_src, num_dst):
            raise ValueError(
                f"size is {tuple(size)}, but x has {num_src} sources and {num_dst} destinations; "
                f"expected ({num_src}, {num_dst}), or no size"
            )
        return num_src, num_dst

    def _edge_channels(self) -> int | None:
        """The size of the edge features; -1 before the first call sets it; None without any."""
        if self.edge_dim != -1:
            return self.edge_dim
        weight = weight_of(self.lin_edge)
        return -1 if weight is None else weight.shape[1]

    def _sum(
        self,
        graph: GraphLike,
        operands: Operands,
        edge_mask: Tensor | None,
        batch: Batch | None,
        asked: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """(out [N_dst, H, C], weights [E', H] or None); batched: [N_dst, B, H, C], [E', B, H]."""
        attend: Any = self.operator if batch is None else Folded(self.operator, batch.size)
        nodes, options = operands
        dropout_p = self.dropout if self.training else 0.0
        again = asked and self.returns_weights_before_dropout and dropout_p > 0
        result = attend(
            graph,
            *nodes,
            **options,
            dropout_p=dropout_p,
            edge_mask=edge_mask,
            return_weights=asked and not again,
        )
        if again:
            options = options | {"edge_mask": edge_mask, "return_weights": True}
            return result, attend(graph, *nodes, **options)[1]
        return (result[0], result[1]) if asked else (result, None)

    def _attention(self, weights: Tensor, graph: GraphLike, adjacency: Adjacency) -> Any:
        """(edges attended over, weights), in the form of the given adjacency."""
        if isinstance(graph, TracedGraph):
            return graph.edges_with(weights)
        if isinstance(graph, ShardedGraph):
            return graph.global_edge_index, weights
        edges = graph.edge_index
        if not is_plain(adjacency):
            return attention_of(adjacency, graph, edges, weights)
        if not isinstance(adjacency, Graph):
            edges = edges.to(adjacency.dtype) if self.replaces_loops else adjacency
        return edges, weights

    def split_heads(self, projected: Tensor) -> Tensor:
        """Reshapes [N, H · C] to [N, H, C], or [N, B, H · C] to [N · B, H, C]."""
        return projected.view(-1, self.heads, self.out_channels)

    def project_edges(self, edge_attr: Tensor | None) -> Tensor | None:
        """W_e e of every edge, [E', H, C], or [E' · B, H, C]; None without edge features."""
        if edge_attr is None:
            return None
        check_kind("edge_attr", edge_attr, self.lin_edge, self)
        return self.split_heads(self.lin_edge(edge_attr))

    def edge_options(self, edge_attr: Tensor | None) -> dict[str, Any]:
        """W_e e as edge_attr and edge_map; as edge_feat if a hook or another module computes it."""
        if edge_attr is None or edge_attr.dim() != 2 or not is_plain_product(self.lin_edge):
            return {"edge_feat": self.project_edges(edge_attr)}
        check_kind("edge_attr", edge_attr, self.lin_edge, self)
        edge_map = self.lin_edge.weight.view(self.heads, self.out_channels, -1)
        return {"edge_attr": edge_attr, "edge_map": edge_map}

    def __repr__(self) -> str:
        """As PyG's."""
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"


def add_residual(
    out: Tensor, res: nn.Module | None, x_dst: Features | None, bias: Tensor | None
) -> Tensor:
    """``out`` plus the residual, if x_dst is given, plus the bias."""
    if res is not None and x_dst is not None:
        out = linear_maps.add(out, res(x_dst))
    return out if bias is None else linear_maps.add(out, bias)
