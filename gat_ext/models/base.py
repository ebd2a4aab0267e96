"""Base classes of the models: a stack of attention layers, with access to their attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gat_ext.functional import checks
from gat_ext.graph import Graph
from gat_ext.graph.sharded import ShardedGraph, rows_of
from gat_ext.models.blocks import are_blocks, block_input, check_block_features, check_blocks
from gat_ext.models.features import dropout_features, input_features
from gat_ext.models.loading import Loadable
from gat_ext.nn.adjacency import is_plain, plain_inputs
from gat_ext.nn.arguments import check_size
from gat_ext.nn.features import SparseFeatures
from gat_ext.nn.linear import reset_
from gat_ext.nn.masks import one_of
from gat_ext.nn.tracers import TracedModule, check_is_no_proxy
from gat_ext.ops.numbering import numbered_rows

if TYPE_CHECKING:
    from typing_extensions import Self

Attention = tuple[Tensor, Tensor]
"""(edge_index [2, E], alpha [E, H])"""
MOST_LAYERS = 10_000


class _LayerNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        """As torch's; its gradients of weight and bias depend on the number of threads."""
        if not torch.are_deterministic_algorithms_enabled():
            return super().forward(input)
        return F.layer_norm(input, self.normalized_shape, eps=self.eps) * self.weight + self.bias


_NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": _LayerNorm, "batch": nn.BatchNorm1d}


def make_norm(name: str | None, channels: int) -> nn.Module:
    """Creates a normalisation by name; None is the identity."""
    if name is None:
        return nn.Identity()
    if name not in _NORMS:
        names = ", ".join(map(repr, _NORMS))
        raise ValueError(f"norm is {name!r}; expected None or one of {names}")
    return _NORMS[name](channels)


def check_depth(num_layers: int) -> None:
    """Raises unless ``num_layers`` is an integer from 1 to ``MOST_LAYERS``."""
    check_size("num_layers", num_layers, MOST_LAYERS)


class EdgeInputs(NamedTuple):
    """The edges of a call, and what is given for them.

    Attributes:
        graph: a Graph, an edge_index, or another form that the layers take; or a tuple of blocks.
        edge_attr: [E, edge_dim], or None; with blocks a tuple of them.
        masks: the edge mask of each attention layer: [E], [E, H] or None.
        attention: a list to which each layer's attention is appended, or None.
    """

    graph: Any
    edge_attr: Any
    masks: tuple[Tensor | None, ...]
    attention: list[Attention] | None = None

    def apply(self, position: int, layer: nn.Module, x: Tensor | SparseFeatures) -> Tensor:
        """Calls the attention layer at a position, from 0."""
        options: dict[str, Any] = {}
        graph, edge_attr, features = self.graph, self.edge_attr, cast(Any, x)
        if isinstance(graph, tuple):
            graph, edge_attr = graph[position], edge_attr[position]
            features = block_input(features, graph)
        if edge_attr is not None:
            options["edge_attr"] = edge_attr
        if self.masks[position] is not None:
            options["edge_mask"] = self.masks[position]
        if self.attention is None:
            out: Tensor = layer(features, graph, **options)
            return out
        out, weights = layer(features, graph, return_attention_weights=True, **options)
        self.attention.append(weights)
        return out

    def normalise(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Normalises [..., N, C] as rows; those of all processes for a DistGraph."""
        rows = x if x.dim() == 2 else x.flatten(0, -2)
        sharded = isinstance(self.graph, ShardedGraph)
        out: Tensor = self.graph.normalise(norm, rows) if sharded else norm(rows)
        return out if x.dim() == 2 else out.view(x.shape)


class AttentionModel(Loadable, TracedModule, ABC):
    """A network whose attention layers are in the attribute ``layers``.

    Attributes:
        edge_dim: size of the edge features; None: none.
    """

    layers: nn.ModuleList
    edge_dim: int | None = None

    @classmethod
    @abstractmethod
    def preset(cls, dataset: str, in_channels: int, out_channels: int) -> Self:
        """The paper's architecture for a data set; other names give a default.

        Args:
            dataset: name of the data set.
            in_channels: size of the node features.
            out_channels: number of classes.
        """

    @abstractmethod
    def _stage(self, position: int, x: Tensor | SparseFeatures, edges: EdgeInputs) -> Tensor:
        """One attention layer, with what precedes and follows it."""

    def _run(self, x: Tensor | SparseFeatures, edges: EdgeInputs) -> Tensor:
        """The forward pass."""
        for position in range(len(self.layers)):
            x = self._stage(position, x, edges)
        return x  # type: ignore[return-value]  # there is at least one layer

    def forward(
        self,
        x: Tensor | SparseFeatures,
        graph: Graph | Tensor | Sequence[Graph],
        *,
        edge_attr: Tensor | Sequence[Tensor] | None = None,
        edge_mask: Tensor | Sequence[Tensor | None] | None = None,
        edge_weight: Tensor | Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """Logits of the classes.

        Args:
            x: [N, in_channels], dense or sparse (a torch sparse CSR tensor or SparseFeatures). On
                the CPU an x without gradient that is mostly zeros is converted to SparseFeatures.
                [B, N, in_channels] for a batch of features on one graph, with any number of axes B.
            graph: a Graph, an edge_index [2, E] or another form of edges, see :mod:`gat_ext.nn`; or
                a bipartite Graph for each attention layer, outermost first, as
                ``gat_ext.sampling`` yields them, whose destinations are the first sources. x is
                then dense and has a row for each source of the first.
            edge_attr: [E, edge_dim], or [E] for one feature, for a model with edge_dim; for a batch
                also [B, E, edge_dim]; with blocks a sequence of them. None reads
                the values of a sparse matrix as the layers do, see :mod:`gat_ext.graph.formats`.
            edge_mask: [E] or [E, H], multiplies the attention weights of the caller's edges in
                every layer; or a sequence of such masks, or None, one for each attention layer. It
                does not apply to added self-loops.
            edge_weight: another name of edge_mask.

        Returns:
            [N, out_channels], or [B, N, out_channels], before softmax or sigmoid; with blocks, N is
            the number of destinations of the last.

        Raises:
            TypeError: a block is not a Graph, or x is sparse with blocks.
            ValueError: the number of blocks is not that of the attention layers, or their sizes do
                not match each other or x; edge_attr does not match edge_dim or the edges; the
                number of masks is not that of attention layers, a mask does not match the edges or
                the heads, or edge_mask and edge_weight are both given.
        """
        check_is_no_proxy(self, x, graph)
        masks = self._masks(*one_of(edge_mask, edge_weight))
        with numbered_rows(rows_of(graph)):
            return self._run(*self._inputs(x, graph, edge_attr, masks))

    def stage(
        self, position: int, x: Tensor, block: Graph, *, edge_attr: Tensor | None = None
    ) -> Tensor:
        """The part of the forward pass of one attention layer, on a block.

        A forward pass is the stages of all layers, one after the other.

        Args:
            position: number of the attention layer, from 0.
            x: [N_src, C], the result of the stage before, or the features of the nodes.
            block: a Graph, whose destinations are the first sources.
            edge_attr: [E, edge_dim], features of its edges.

        Returns:
            [N_dst, C'], the input of the next stage, or the logits.

        Raises:
            TypeError: block is not a Graph, or x is not a dense tensor.
            ValueError: x does not match the block or the layer, or edge_attr the edges.
        """
        check_blocks([block], x, 1)
        count = len(self.layers)
        return self._stage(
            position, x, EdgeInputs((block,) * count, (edge_attr,) * count, (None,) * count)
        )

    @torch.no_grad()
    def attention_weights(
        self,
        x: Tensor | SparseFeatures,
        graph: Graph | Tensor | Sequence[Graph],
        *,
        edge_attr: Tensor | Sequence[Tensor] | None = None,
    ) -> list[Attention]:
        """The attention of each layer, without dropout.

        Args:
            x: [N, in_channels], dense or sparse, or [B, N, in_channels].
            graph: as for :meth:`forward`.
            edge_attr: as for :meth:`forward`.

        Returns:
            (edge_index [2, E'], alpha [E', H]) for every attention layer, with added self-loops
            last; alpha [E', B, H] for a batch.
        """
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            attention: list[Attention] = []
            x, edges = self._inputs(x, graph, edge_attr, self._masks("edge_mask", None))
            self._run(x, edges._replace(attention=attention))
        finally:
            for module, mode in modes:
                module.training = mode
        return attention

    def fix_uniform_attention(self) -> Self:
        """Makes the attention of all layers uniform: the same network, whose scores are not used.

        The factors of the scores are 0 and do not train, so that every edge of a node weighs
        1 / in-degree. Parameters, their names and all other operations are those of the model. Call
        it before the optimizer is created, and again after ``reset_parameters``.

        Returns:
            The model itself.

        Raises:
            ValueError: a layer takes its size from the first call, which is yet to come.

        Example:
            >>> from gat_ext.models import GATv2
            >>> model = GATv2(4, 8, 2).fix_uniform_attention()
            >>> edges = torch.tensor([[0, 1, 2], [2, 2, 2]])
            >>> _, alpha = model.attention_weights(torch.randn(3, 4), edges)[1]
            >>> alpha.flatten()  # node 2 has two edges and a self-loop
            tensor([0.3333, 0.3333, 1.0000, 1.0000, 0.3333])
        """
        for layer in self.layers:
            layer.fix_uniform_attention()  # type: ignore[operator]
        return self

    def _inputs(
        self, x: Any, graph: Any, edge_attr: Any, masks: tuple[Tensor | None, ...]
    ) -> tuple[Tensor | SparseFeatures, EdgeInputs]:
        """The features of the first layer, and what all layers are given for the edges."""
        if are_blocks(graph):
            count = len(self.layers)
            blocks = check_blocks(graph, x, count)
            return x, EdgeInputs(blocks, check_block_features(edge_attr, count), masks)
        if not is_plain(graph):
            _, graph, edge_attr = plain_inputs(None, graph, edge_attr, self.edge_dim)
        return input_features(x), EdgeInputs(graph, edge_attr, masks)

    def _masks(
        self, name: str, given: Tensor | Sequence[Tensor | None] | None
    ) -> tuple[Tensor | None, ...]:
        """The edge mask of each attention layer; ``name`` is the argument's."""
        count = len(self.layers)
        if given is None or isinstance(given, Tensor):
            return (given,) * count
        if not isinstance(given, Sequence):
            raise TypeError(
                f"{name} is a {type(given).__name__}; expected a tensor, or a sequence of one, or "
                f"None, for each of the {count} attention layers"
            )
        if len(given) != count:
            raise ValueError(
                f"{name} has {len(given)} masks; expected one for each of the {count} "
                "attention layers, or one tensor for all of them"
            )
        return tuple(given)


class Shape(NamedTuple):
    """Sizes of a stack of attention layers."""

    in_channels: int
    hidden_channels: int  # of one head
    out_channels: int
    num_layers: int
    heads: int  # of the hidden layers, concatenated
    out_heads: int  # of the last layer, averaged


class LayerFactory(Protocol):
    """Builds the layer at a position of a stack, from 0; the last one averages its heads."""

    def __call__(
        self, position: int, in_channels: int, out_channels: int, heads: int, concat: bool
    ) -> nn.Module:
        """Returns the layer."""


class StackedModel(AttentionModel):
    """Attention layers with dropout before each, and normalisation and activation between them.

    Args:
        make_layer: creates a layer of given sizes.
        shape: sizes of the stack.
        norm: None, "layer" or "batch": normalisation after each hidden layer.
        activation: applied after each normalisation.
        dropout: probability of dropping an element of a layer's input in training.
        edge_dim: size of the edge features that the layers take; None: none.
    """

    def __init__(
        self,
        make_layer: LayerFactory,
        shape: Shape,
        *,
        norm: str | None,
        activation: Callable[[Tensor], Tensor],
        dropout: float,
        edge_dim: int | None,
    ) -> None:
        """Creates the layers; see the class for the arguments."""
        super().__init__()
        self.edge_dim = edge_dim
        check_depth(shape.num_layers)
        checks.probability(dropout, "dropout")
        self.activation, self.dropout = activation, dropout
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        channels, width = shape.in_channels, shape.heads * shape.hidden_channels
        for position in range(shape.num_layers - 1):
            layer = make_layer(position, channels, shape.hidden_channels, shape.heads, True)
            self.layers.append(layer)
            self.norms.append(make_norm(norm, width))
            channels = width
        last = shape.num_layers - 1
        self.layers.append(make_layer(last, channels, shape.out_channels, shape.out_heads, False))

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_(*self.layers, *(n for n in self.norms if not isinstance(n, nn.Identity)))

    def _stage(self, position: int, x: Tensor | SparseFeatures, edges: EdgeInputs) -> Tensor:
        x = dropout_features(x, self.dropout, self.training)
        x = edges.apply(position, self.layers[position], x)
        if position == len(self.norms):
            return x
        norm = self.norms[position]
        return self.activation(edges.normalise(norm, x))
