"""Base class of the models of nodes and edges of several types."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from gat_ext.models.base import Attention
from gat_ext.nn.hetero import Edges, Metadata
from gat_ext.nn.tracers import TracedModule

if TYPE_CHECKING:
    from typing_extensions import Self

Features = Mapping[str, Tensor]


class TypedModel(TracedModule, ABC):
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
    @abstractmethod
    def preset(
        cls,
        dataset: str,
        in_channels: dict[str, int],
        out_channels: int,
        metadata: Metadata,
        target: str,
        **changes: Any,
    ) -> Self:
        """The paper's architecture for a data set; other names give a default.

        Args:
            dataset: name of the data set.
            in_channels: size of the features of each type.
            out_channels: number of classes.
            metadata: (node types, relations).
            target: the type of nodes to classify.
            **changes: constructor arguments to use in place of the preset's.
        """

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
