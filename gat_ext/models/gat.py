"""GAT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from gat_ext.functional import checks
from gat_ext.models.base import Shape, StackedModel
from gat_ext.nn import GATConv
from gat_ext.ops.pointwise import elu

if TYPE_CHECKING:
    from typing_extensions import Self


class GAT(StackedModel):
    """Graph attention network: GATConv layers with ELU between them.

    Args:
        in_channels: size of the node features.
        hidden_channels: size of one head's output in the hidden layers.
        out_channels: number of classes.
        num_layers: number of GATConv layers.
        heads: heads of the hidden layers, concatenated.
        out_heads: heads of the last layer, averaged.
        dropout: dropout probability of every layer's input.
        attn_dropout: dropout probability of the attention weights.
        feat_dropout: dropout probability of the projected features in the weighted sum, but not in
            the scores.
        residual: add a linear map of its input to each hidden layer but the first.
        norm: None, "layer" or "batch": normalisation after each hidden layer.
        edge_dim: size of the edge features; -1 takes it from the first call; None: without any.

    Raises:
        ValueError: a size or probability is out of range, or the norm is unknown.

    Source: Veličković et al., "Graph Attention Networks", ICLR 2018, section 3.3.

    Example:
        >>> import torch
        >>> from gat_ext.models import GAT
        >>> GAT(16, 8, 3)(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        num_layers: int = 2,
        heads: int = 8,
        out_heads: int = 1,
        dropout: float = 0.6,
        attn_dropout: float = 0.6,
        feat_dropout: float = 0.0,
        residual: bool = False,
        norm: str | None = None,
        edge_dim: int | None = None,
    ) -> None:
        """Creates the layers; see the class for the arguments."""
        checks.flag(residual, "residual")

        def make_layer(
            position: int, in_channels: int, out_channels: int, heads: int, concat: bool
        ) -> nn.Module:
            return GATConv(
                in_channels,
                out_channels,
                heads,
                concat,
                dropout=attn_dropout,
                edge_dim=edge_dim,
                residual=residual and position > 0 and concat,
                feat_dropout=feat_dropout,
            )

        shape = Shape(in_channels, hidden_channels, out_channels, num_layers, heads, out_heads)
        super().__init__(
            make_layer,
            shape,
            norm=norm,
            activation=elu,
            dropout=dropout,
            edge_dim=edge_dim,
        )

    @classmethod
    def preset(cls, dataset: str, in_channels: int, out_channels: int) -> Self:
        """The paper's network: a layer of 8 heads of size 8, then one of 1 head (pubmed: 8).

        On ppi: two layers of 4 heads of size 256, then one of 6 averaged heads, with a residual
        across the middle layer and no dropout. On noisy_digits, which is not in the paper, there is
        less dropout.

        Args:
            dataset: cora, citeseer, pubmed, ppi or noisy_digits; others give cora's network.
            in_channels: size of the node features.
            out_channels: number of classes.
        """
        if dataset == "ppi":
            return cls(
                in_channels,
                256,
                out_channels,
                num_layers=3,
                heads=4,
                out_heads=6,
                dropout=0.0,
                attn_dropout=0.0,
                residual=True,
            )
        if dataset == "noisy_digits":
            return cls(in_channels, 8, out_channels, dropout=0.3, attn_dropout=0.0)
        out_heads = 8 if dataset == "pubmed" else 1
        return cls(in_channels, 8, out_channels, out_heads=out_heads, feat_dropout=0.6)
