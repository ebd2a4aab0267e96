"""Base class of the models of nodes and edges of several types."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from gat_ext.graph.sharded import ShardedGraph
from gat_ext.models.base import Attention
from gat_ext.models.features import dropout_features
from gat_ext.models.loading import Loadable
from gat_ext.nn.hetero import Edges, Metadata, Relation
from gat_ext.nn.tracers import TracedModule
from gat_ext.ops.numbering import Numbering, numbered_rows

if TYPE_CHECKING:
    from typing_extensions import Self

Features = Mapping[str, Tensor]


class TypedModel(Loadable, TracedModule):
    """A network that classifies the nodes of one type.

    Its ``forward(x_dict, edge_index_dict)`` returns logits [N, out_channels] of the nodes of the
    type ``target``.

    Attributes:
        target: the type of nodes that it classifies.
        reads_metapaths: whether the relations are meta-paths of a data set, else its own relations.

    Example:
        >>> from gat_ext.models import HGT, TypedModel
        >>> issubclass(HGT, TypedModel), HGT.reads_metapaths
        (True, False)
    """

    reads_metapaths: ClassVar[bool] = False
    target: str

    @classmethod
    def preset(
        cls,
        dataset: str,
        in_channels: dict[str, int],
        out_channels: int,
        metadata: Metadata,
        target: str,
        **changes: Any,
    ) -> Self:
        """The architecture that the class describes, with 64 hidden channels, for a data set.

        Args:
            dataset: name of the data set.
            in_channels: size of the features of each type.
            out_channels: number of classes.
            metadata: (node types, relations).
            target: the type of nodes to classify.
            **changes: constructor arguments to use in place of the preset's.
        """
        hidden = changes.pop("hidden_channels", 64)
        make: Any = cls  # a derived class has the constructor
        model: Self = make(in_channels, hidden, out_channels, metadata, target, **changes)
        return model

    def attention_weights(self, x_dict: Features, edge_index_dict: Edges) -> list[Attention]:
        """The attention of each layer, without dropout, over the edges of all relations.

        Args:
            x_dict: as of forward.
            edge_index_dict: as of forward.

        Returns:
            For every attention layer, (edges [2, E], alpha [E, H]), whose nodes have the numbers
            that they have if all types are concatenated in the order of x_dict; alpha sums to 1
            over the in-edges of a node. Empty for models whose attention is of another form.
        """
        return []

    def _dropped(self, x: Mapping[str, Any], edge_index_dict: Edges, p: float) -> dict[str, Any]:
        """Features of each type after dropout, which numbers those of a DistGraph."""
        numberings: dict[str, Numbering] = {}
        for (src, _, dst), graph in edge_index_dict.items():
            if isinstance(graph, ShardedGraph):
                numberings |= {src: graph.src_numbering, dst: graph.dst_numbering}
        dropped = {}
        for kind, features in x.items():
            with numbered_rows(numberings.get(kind)):
                dropped[kind] = dropout_features(features, p, self.training)
        return dropped

    def _check_target(self, relations: Collection[Relation]) -> None:
        if self.target not in {dst for _, _, dst in relations}:
            what = "meta-path" if self.reads_metapaths else "relation"
            raise ValueError(
                f"target is {self.target!r}; expected a type that a {what} of metadata leads to"
            )

    def _check_has_target(self, x_dict: Features) -> None:
        if self.target not in x_dict:
            raise ValueError(
                f"x_dict has only {', '.join(map(repr, x_dict))}; expected features of the target, "
                f"{self.target!r}, too"
            )

    def _in_evaluation(self, call: Any) -> Any:
        """The result of a call without dropout and gradients."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with torch.no_grad():
                return call()
        finally:
            for module, mode in modes:
                module.training = mode
