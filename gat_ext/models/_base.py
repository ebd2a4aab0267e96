"""What the models share: a stack of attention layers, and a look at their attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gat_ext.features import SparseFeatures
from gat_ext.graph import Graph
from gat_ext.models._features import dropout_features, input_features

if TYPE_CHECKING:
    from typing_extensions import Self

Attention = tuple[Tensor, Tensor]
"""(edge_index [2, E], alpha [E, H])"""


class _LayerNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        """As torch's, whose weight and bias have gradients that depend on the number of threads."""
        if not torch.are_deterministic_algorithms_enabled():
            return super().forward(input)
        return F.layer_norm(input, self.normalized_shape, eps=self.eps) * self.weight + self.bias


_NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": _LayerNorm, "batch": nn.BatchNorm1d}


def make_norm(name: str | None, channels: int) -> nn.Module:
    """A normalisation by name; None is the identity."""
    if name is None:
        return nn.Identity()
    if name not in _NORMS:
        names = ", ".join(map(repr, _NORMS))
        raise ValueError(f"norm is {name!r}; expected None or one of {names}")
    return _NORMS[name](channels)


def check_depth(num_layers: int) -> None:
    """Refuses a network without layers."""
    if num_layers < 1:
        raise ValueError(f"num_layers is {num_layers}; expected at least 1")


def check_dropout(dropout: float) -> None:
    """Refuses what is not a probability."""
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout is {dropout}; expected a probability from 0 to 1")


class AttentionModel(nn.Module, ABC):
    """A network of attention layers."""

    @classmethod
    @abstractmethod
    def preset(cls, dataset: str, in_channels: int, out_channels: int) -> Self:
        """The paper's architecture for a data set, or a sensible one for any other name.

        Args:
            dataset: name of the data set.
            in_channels: size of the node features.
            out_channels: number of classes.
        """

    @abstractmethod
    def _run(
        self, x: Tensor | SparseFeatures, graph: Graph, attention: list[Attention] | None
    ) -> Tensor:
        """The forward pass; appends what each layer attended to where a list is given."""

    def forward(self, x: Tensor | SparseFeatures, graph: Graph | Tensor) -> Tensor:
        """Scores of the classes.

        Args:
            x: [N, in_channels], dense or sparse (a torch sparse CSR tensor or SparseFeatures). On the CPU a constant that is
                mostly zeros is taken for sparse.
            graph: a Graph, sorted once, or an edge_index [2, E], sorted at every call.

        Returns:
            [N, out_channels], before softmax or sigmoid.
        """
        x = input_features(x)
        return self._run(x, self._graph(x, graph), None)

    @torch.no_grad()
    def attention_weights(
        self, x: Tensor | SparseFeatures, graph: Graph | Tensor
    ) -> list[Attention]:
        """What each attention layer attends to, without dropout.

        Args:
            x: [N, in_channels], dense or sparse.
            graph: a Graph or an edge_index.

        Returns:
            (edge_index [2, E'], alpha [E', H]) for every attention layer, added self-loops last.
        """
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            attention: list[Attention] = []
            x = input_features(x)
            self._run(x, self._graph(x, graph), attention)
        finally:
            for module, mode in modes:
                module.training = mode
        return attention

    @staticmethod
    def _graph(x: Tensor | SparseFeatures, graph: Graph | Tensor) -> Graph:
        return graph if isinstance(graph, Graph) else Graph(graph, num_nodes=x.shape[0])


def apply_layer(
    layer: nn.Module,
    x: Tensor | SparseFeatures,
    graph: Graph,
    attention: list[Attention] | None,
) -> Tensor:
    """The output of a layer, whose attention is appended where a list is given."""
    if attention is None:
        out: Tensor = layer(x, graph)
        return out
    out, weights = layer(x, graph, return_attention_weights=True)
    attention.append(weights)
    return out


class Shape(NamedTuple):
    """Sizes of a stack of attention layers."""

    in_channels: int
    hidden_channels: int  # of one head
    out_channels: int
    num_layers: int
    heads: int  # of the hidden layers, concatenated
    out_heads: int  # of the last layer, averaged


class LayerFactory(Protocol):
    """Makes a layer of a stack, the first of which has position 0; the last one does not concatenate its heads."""

    def __call__(
        self, position: int, in_channels: int, out_channels: int, heads: int, concat: bool
    ) -> nn.Module:
        """Returns the layer."""


class StackedModel(AttentionModel):
    """Attention layers, each with dropout before and normalisation and activation after it.

    The last one is followed by nothing.

    Args:
        make_layer: makes a layer of given sizes.
        shape: sizes of the stack.
        norm: None, "layer" or "batch": normalisation after each hidden layer.
        activation: after each normalisation.
        dropout: probability with which an element of a layer's input is dropped in training.
    """

    def __init__(
        self,
        make_layer: LayerFactory,
        shape: Shape,
        *,
        norm: str | None,
        activation: Callable[[Tensor], Tensor],
        dropout: float,
    ) -> None:
        """Creates the layers; see the class for the arguments."""
        super().__init__()
        check_depth(shape.num_layers)
        check_dropout(dropout)
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

    def _run(
        self, x: Tensor | SparseFeatures, graph: Graph, attention: list[Attention] | None
    ) -> Tensor:
        last = len(self.norms)
        for layer, norm in zip(self.layers, self.norms, strict=False):
            x = dropout_features(x, self.dropout, self.training)
            x = self.activation(norm(apply_layer(layer, x, graph, attention)))
        x = dropout_features(x, self.dropout, self.training)
        return apply_layer(self.layers[last], x, graph, attention)
