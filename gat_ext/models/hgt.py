"""HGT."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import torch
from torch import Tensor, nn

from gat_ext.functional import checks
from gat_ext.graph import Graph
from gat_ext.models.base import Attention, check_depth
from gat_ext.models.features import input_features
from gat_ext.models.typed import Features, TypedModel
from gat_ext.nn import HGTConv
from gat_ext.nn.adjacency import unwrap
from gat_ext.nn.arguments import check_channels, check_size
from gat_ext.nn.hetero import (
    Edges,
    Metadata,
    Relation,
    check_inputs,
    check_metadata,
    checked_features,
    sizes_by_type,
)
from gat_ext.nn.linear import linear, reset_
from gat_ext.nn.masks import one_of
from gat_ext.nn.tracers import check_is_no_proxy
from gat_ext.nn.typed import DictLinear, LazyDictLinear
from gat_ext.ops import linear_maps


class HGT(TypedModel):
    """Heterogeneous graph transformer: a map of each type's features, then HGTConv layers.

    Args:
        in_channels: size of the features of all types, or a dictionary of the size for each type;
            -1 takes it from the first input.
        hidden_channels: size of the hidden features, all heads together; a multiple of ``heads``.
        out_channels: number of classes.
        metadata: (node types, relations), as of :class:`gat_ext.nn.HGTConv`.
        target: the type of nodes to classify.
        num_layers: number of HGTConv layers.
        heads: heads of each layer.
        dropout: probability of dropping an element of a layer's input in training.

    Shapes:
        x_dict: [N_t, in_channels] for each type t; edge_index_dict: the edges of each relation, see
        :class:`gat_ext.nn.HGTConv`; returns logits [N, out_channels] of the nodes of the type
        ``target``. ``edge_weight`` (or ``edge_mask``) is a dictionary as of HGTConv, for every
        layer.

    Raises:
        ValueError: a size or probability is out of range; target is not a type that edges lead to;
            x_dict lacks the target.

    The preset has two layers of 4 heads, 64 channels in all: smaller than the paper's 3 of 8 heads
    and 256, which train on millions of labelled nodes. PyG's example on DBLP has one layer of two
    heads and 64 channels.

    Source: Hu, Dong, Wang, Sun, "Heterogeneous Graph Transformer", WWW 2020. As in PyG's example,
    without relative temporal encoding; a type that no edge leads to keeps its features in all
    layers.

    Example:
        >>> import torch
        >>> from gat_ext.models import HGT
        >>> writes, by = ("author", "writes", "paper"), ("paper", "written_by", "author")
        >>> model = HGT(-1, 8, 3, (["author", "paper"], [writes, by]), "paper")
        >>> edges = torch.tensor([[0, 1], [2, 0]])
        >>> x_dict = {"author": torch.randn(2, 5), "paper": torch.randn(3, 7)}
        >>> model(x_dict, {writes: edges, by: edges.flip(0)}).shape
        torch.Size([3, 3])
    """

    def __init__(
        self,
        in_channels: int | dict[str, int],
        hidden_channels: int,
        out_channels: int,
        metadata: Metadata,
        target: str,
        *,
        num_layers: int = 2,
        heads: int = 4,
        dropout: float = 0.2,
    ) -> None:
        """Creates the layers; see the class for the arguments."""
        super().__init__()
        check_depth(num_layers)
        check_size("out_channels", out_channels)
        self.dropout, self.target = checks.probability(dropout, "dropout"), target
        self.layers = nn.ModuleList(
            HGTConv(hidden_channels, hidden_channels, metadata, heads) for _ in range(num_layers)
        )
        types, self.relations = check_metadata(metadata)
        self._check_target(self.relations)
        sizes = sizes_by_type(in_channels, types)
        for size in sizes.values():
            check_channels("in_channels", size)
        kind = LazyDictLinear if -1 in sizes.values() else DictLinear
        self.lin_in = kind(sizes, hidden_channels)
        self.lin_out = linear(hidden_channels, out_channels, bias=True, glorot=False)

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_(self.lin_in, *self.layers, self.lin_out)

    def forward(
        self,
        x_dict: Features,
        edge_index_dict: Edges,
        *,
        edge_mask: Mapping[Relation, Tensor] | None = None,
        edge_weight: Mapping[Relation, Tensor] | None = None,
    ) -> Tensor:
        """Logits of the nodes of the target type; see the class for shapes."""
        _, mask = one_of(edge_mask, edge_weight)
        return self._run(x_dict, edge_index_dict, mask, None)

    def attention_weights(self, x_dict: Features, edge_index_dict: Edges) -> list[Attention]:
        """The attention of each layer, without dropout; see the base class."""
        attention: list[Attention] = []
        self._in_evaluation(lambda: self._run(x_dict, edge_index_dict, None, attention))
        return attention

    def _run(
        self,
        x_dict: Features,
        edge_index_dict: Edges,
        mask: Mapping[Relation, Tensor] | None,
        attention: list[Attention] | None,
    ) -> Tensor:
        for given in (x_dict, edge_index_dict):
            check_is_no_proxy(self, given, *(given.values() if isinstance(given, Mapping) else ()))
        lins = self.lin_in.lins
        check_inputs(x_dict, edge_index_dict, list(lins), self.relations)
        self._check_has_target(x_dict)
        inputs = {kind: input_features(x) for kind, x in x_dict.items()}
        inputs = checked_features(inputs, lins, self, dense=False)
        sizes = {kind: x_dict[kind].shape[0] for kind in x_dict}
        dropped = self._dropped(inputs, edge_index_dict, self.dropout)
        x = {kind: linear_maps.relu(h) for kind, h in self.lin_in(dropped).items()}
        for layer in self.layers:
            asked = None if attention is None else True
            options = {"edge_mask": mask, "return_attention_weights": asked}
            dropped = self._dropped(x, edge_index_dict, self.dropout)
            result = layer(dropped, edge_index_dict, **options)
            if attention is not None:
                result, weights = result
                attention.append(_joined(edge_index_dict, weights, sizes))
            x = {**x, **result}
        last = {self.target: x[self.target]}
        out: Tensor = self.lin_out(self._dropped(last, edge_index_dict, self.dropout)[self.target])
        return out


def _joined(
    edge_index_dict: Edges, weights: Mapping[Relation, Tensor], sizes: Mapping[str, int]
) -> Attention:
    """The edges of all relations, with nodes numbered type by type, and their weights."""
    first = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
    edges = []
    for relation in weights:
        given = unwrap(edge_index_dict[relation])
        src, dst = (given.edge_index if isinstance(given, Graph) else given).long()
        edges.append(torch.stack([src + first[relation[0]], dst + first[relation[2]]]))
    if not edges:
        return torch.empty(2, 0, dtype=torch.int64), torch.empty(0, 1)
    return torch.cat(edges, dim=1), torch.cat([*weights.values()])
