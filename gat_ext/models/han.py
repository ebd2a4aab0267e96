"""HAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from gat_ext.functional import checks
from gat_ext.models.base import check_depth
from gat_ext.models.typed import Features, TypedModel
from gat_ext.nn import HANConv
from gat_ext.nn.arguments import check_size
from gat_ext.nn.hetero import Edges, Metadata, check_metadata, sizes_by_type
from gat_ext.nn.linear import linear, reset_
from gat_ext.nn.tracers import check_is_no_proxy


class HAN(TypedModel):
    """Heterogeneous graph attention network: HANConv layers over the graphs of meta-paths.

    Args:
        in_channels: size of the features of all types, or a dictionary of the size for each type;
            -1 takes it from the first input.
        hidden_channels: size of the hidden features, all heads together; a multiple of ``heads``.
        out_channels: number of classes.
        metadata: (node types, meta-paths as relations), as of :class:`gat_ext.nn.HANConv`.
        target: the type of nodes to classify.
        num_layers: number of HANConv layers.
        heads: heads of each layer.
        dropout: probability of dropping an element of a layer's input in training.
        attn_dropout: probability of dropping an attention weight in training.

    Shapes:
        x_dict: [N_t, in_channels] for each type t in metadata; other types are not read.
        edge_index_dict: the edges of each meta-path, such as
        :attr:`gat_ext.datasets.TypedDataset.metapath_edge_index`; returns logits [N, out_channels]
        of the nodes of the type ``target``.

    Raises:
        ValueError: a size or probability is out of range; target is not a type that a meta-path
            leads to; x_dict lacks the target.

    The preset is the paper's network: a layer of 8 heads and 64 channels in all.

    Source: Wang, Ji, Shi, Wang, Cui, Yu, Ye, "Heterogeneous Graph Attention Network", WWW 2019.

    Example:
        >>> import torch
        >>> from gat_ext.models import HAN
        >>> together = ("paper", "author", "paper")
        >>> model = HAN(-1, 8, 3, (["paper"], [together]), "paper", heads=2)
        >>> edges = torch.tensor([[0, 1, 2], [2, 0, 1]])
        >>> model({"paper": torch.randn(3, 7)}, {together: edges}).shape
        torch.Size([3, 3])
    """

    reads_metapaths: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: int | dict[str, int],
        hidden_channels: int,
        out_channels: int,
        metadata: Metadata,
        target: str,
        *,
        num_layers: int = 1,
        heads: int = 8,
        dropout: float = 0.6,
        attn_dropout: float = 0.6,
    ) -> None:
        """Creates the layers; see the class for the arguments."""
        super().__init__()
        check_depth(num_layers)
        check_size("out_channels", out_channels)
        self.dropout, self.target = checks.probability(dropout, "dropout"), target
        self.types, relations = known = check_metadata(metadata)
        self._check_target(relations)
        sizes: Any = sizes_by_type(in_channels, self.types)
        self.layers = nn.ModuleList()
        for _ in range(num_layers):
            layer = HANConv(sizes, hidden_channels, known, heads, dropout=attn_dropout)
            self.layers.append(layer)
            sizes = hidden_channels
        self.lin_out = linear(hidden_channels, out_channels, bias=True, glorot=False)

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_(*self.layers, self.lin_out)

    def forward(self, x_dict: Features, edge_index_dict: Edges) -> Tensor:
        """Logits of the nodes of the target type; see the class for shapes."""
        for given in (x_dict, edge_index_dict):
            check_is_no_proxy(self, given, *(given.values() if isinstance(given, Mapping) else ()))
        self._check_has_target(x_dict)
        x: Any = {kind: x_dict[kind] for kind in self.types if kind in x_dict}
        for layer in self.layers:
            dropped = self._dropped(x, edge_index_dict, self.dropout)
            result = layer(dropped, edge_index_dict)
            x = {kind: h for kind, h in result.items() if h is not None}
        out: Tensor = self.lin_out(x[self.target])
        return out
