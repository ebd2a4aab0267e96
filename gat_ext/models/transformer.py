"""GraphTransformer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from gat_ext.functional import checks
from gat_ext.models.base import Shape, StackedModel
from gat_ext.nn import TransformerConv
from gat_ext.ops import linear_maps

if TYPE_CHECKING:
    from typing_extensions import Self


class GraphTransformer(StackedModel):
    """TransformerConv layers with gated residuals, and layer normalisation and ReLU between them.

    Args:
        in_channels: size of the node features.
        hidden_channels: size of one head's output in the hidden layers.
        out_channels: number of classes.
        num_layers: number of TransformerConv layers.
        heads: heads of the hidden layers, concatenated.
        out_heads: heads of the last layer, averaged.
        dropout: dropout probability of every layer's input.
        attn_dropout: dropout probability of the attention weights.
        residual: add each layer's input through a learned gate.
        norm: None, "layer" or "batch": normalisation after each hidden layer.
        edge_dim: size of the edge features; -1 takes it from the first call; None: without any.

    Raises:
        ValueError: a size or probability is out of range, or the norm is unknown.

    Source: Shi et al., "Masked Label Prediction", IJCAI 2021, section 3.1, without its label
    propagation.

    Example:
        >>> import torch
        >>> from gat_ext.models import GraphTransformer
        >>> model = GraphTransformer(16, 8, 3)
        >>> model(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        num_layers: int = 2,
        heads: int = 2,
        out_heads: int = 1,
        dropout: float = 0.3,
        attn_dropout: float = 0.0,
        residual: bool = True,
        norm: str | None = "layer",
        edge_dim: int | None = None,
    ) -> None:
        """Creates the layers; see the class for the arguments."""
        checks.flag(residual, "residual")

        def make_layer(
            position: int, in_channels: int, out_channels: int, heads: int, concat: bool
        ) -> nn.Module:
            return TransformerConv(
                in_channels,
                out_channels,
                heads,
                concat,
                beta=residual,
                root_weight=residual,
                dropout=attn_dropout,
                edge_dim=edge_dim,
            )

        shape = Shape(in_channels, hidden_channels, out_channels, num_layers, heads, out_heads)
        super().__init__(
            make_layer,
            shape,
            norm=norm,
            activation=linear_maps.relu,
            dropout=dropout,
            edge_dim=edge_dim,
        )

    @classmethod
    def preset(cls, dataset: str, in_channels: int, out_channels: int) -> Self:
        """Three layers of two heads of size 128 on ppi, else two layers of two heads of size 32.

        The paper trains on larger graphs with label propagation, so these sizes, and the strong
        dropout of the smaller network, less on noisy_digits, are not the paper's.

        Args:
            dataset: name of the data set.
            in_channels: size of the node features.
            out_channels: number of classes.
        """
        if dataset == "ppi":
            return cls(in_channels, 128, out_channels, num_layers=3)
        if dataset == "noisy_digits":
            return cls(in_channels, 32, out_channels)
        return cls(in_channels, 32, out_channels, dropout=0.6, attn_dropout=0.3)
