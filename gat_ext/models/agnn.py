"""AGNN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from gat_ext.functional import checks
from gat_ext.models.base import (
    AttentionModel,
    EdgeInputs,
    check_depth,
)
from gat_ext.models.features import dropout_features
from gat_ext.nn import AGNNConv
from gat_ext.nn.arguments import check_size
from gat_ext.nn.features import SparseFeatures
from gat_ext.nn.inputs import check_kind
from gat_ext.nn.linear import Projection, reset_
from gat_ext.ops import linear_maps

if TYPE_CHECKING:
    from typing_extensions import Self


class AGNN(AttentionModel):
    """Attention-based graph neural network.

    A linear layer with ReLU, propagation layers of cosine attention, and a linear layer.

    Args:
        in_channels: size of the node features.
        hidden_channels: size of the propagated features.
        out_channels: number of classes.
        num_layers: number of propagation layers.
        dropout: dropout probability of the inputs of the two linear layers.
        learn_first_beta: learn the inverse temperature of the first propagation layer; else it is
            0, which averages the neighbourhood.

    Raises:
        ValueError: a size or probability is out of range.

    Source: Thekumparampil, Wang, Oh, Li, "Attention-based Graph Neural Network for Semi-supervised
    Learning", 2018, section 4.

    Example:
        >>> import torch
        >>> from gat_ext.models import AGNN
        >>> AGNN(16, 8, 3)(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        num_layers: int = 2,
        dropout: float = 0.5,
        learn_first_beta: bool = True,
    ) -> None:
        """Creates the layers; see the class for the arguments."""
        super().__init__()
        check_depth(num_layers)
        checks.flag(learn_first_beta, "learn_first_beta")
        checks.probability(dropout, "dropout")
        for name, size in (
            ("in_channels", in_channels),
            ("hidden_channels", hidden_channels),
            ("out_channels", out_channels),
        ):
            check_size(name, size)
        self.dropout, self.learn_first_beta = dropout, learn_first_beta
        self.lin_in = Projection(in_channels, hidden_channels)
        layers = [AGNNConv(requires_grad=learn_first_beta or i > 0) for i in range(num_layers)]
        self.layers = nn.ModuleList(layers)
        self.lin_out = nn.Linear(hidden_channels, out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all parameters, and the beta of the first layer to 0 if it is not learned."""
        reset_(*self.layers)
        if not self.learn_first_beta:
            self.layers[0].get_buffer("beta").zero_()
        for linear in (self.lin_in, self.lin_out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    @classmethod
    def preset(cls, dataset: str, in_channels: int, out_channels: int) -> Self:
        """The paper's network: 16 features and 2 propagation layers, 4 on pubmed.

        On cora the first propagation layer has beta 0. On noisy_digits, which is not in the paper,
        there are 64 features, 3 layers and little dropout.

        Args:
            dataset: cora, citeseer, pubmed or noisy_digits; others give citeseer's network.
            in_channels: size of the node features.
            out_channels: number of classes.
        """
        if dataset == "noisy_digits":
            return cls(in_channels, 64, out_channels, num_layers=3, dropout=0.2)
        num_layers = 4 if dataset == "pubmed" else 2
        learn_first_beta = dataset != "cora"
        return cls(
            in_channels,
            16,
            out_channels,
            num_layers=num_layers,
            learn_first_beta=learn_first_beta,
        )

    def _stage(self, position: int, x: Tensor | SparseFeatures, edges: EdgeInputs) -> Tensor:
        hidden = self._enter(x, edges) if position == 0 else x
        hidden = edges.apply(position, self.layers[position], hidden)
        if position + 1 < len(self.layers):
            return hidden
        out: Tensor = self.lin_out(dropout_features(hidden, self.dropout, self.training))
        return out

    def _enter(self, x: Tensor | SparseFeatures, edges: EdgeInputs) -> Tensor:
        """The input of the first layer [N, hidden_channels]."""
        given = edges.edge_attr if isinstance(edges.edge_attr, tuple) else (edges.edge_attr,)
        if any(edge_attr is not None for edge_attr in given):
            raise ValueError(
                "edge_attr was given, but AGNN weighs neighbours by the similarity of their "
                "features alone; expected None: use GAT, GATv2 or GraphTransformer with edge_dim"
            )
        if x.dim() < 2 or x.shape[-1] != self.lin_in.in_features:
            raise ValueError(
                f"x has shape {list(x.shape)}; AGNN expects [N, {self.lin_in.in_features}], or "
                f"[B, N, {self.lin_in.in_features}] for a batch"
            )
        check_kind("x", x, self.lin_in, type(self).__name__)
        return linear_maps.relu(self.lin_in(dropout_features(x, self.dropout, self.training)))
