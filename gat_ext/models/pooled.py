"""PooledModel: classes or targets of graphs, of an attention network's pooled outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gat_ext.functional import checks
from gat_ext.graph import Graph
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.models.base import Attention, AttentionModel, StackedModel
from gat_ext.models.features import input_features
from gat_ext.models.loading import Loadable
from gat_ext.nn import AttentionPool, Pool
from gat_ext.nn.arguments import check_size
from gat_ext.nn.features import SparseFeatures
from gat_ext.nn.linear import Projection, reset_children
from gat_ext.nn.pool import membership
from gat_ext.nn.tracers import TracedModule
from gat_ext.ops.pointwise import elu
from gat_ext.ops.state import is_tracing

if TYPE_CHECKING:
    from typing_extensions import Self

POOLINGS = ("sum", "mean", "attention")


class Rescaled(nn.Module):
    """Real targets in their own units, of standardised ones: mean + deviation · x.

    Args:
        channels: T, number of targets.

    Example:
        >>> import torch
        >>> from gat_ext.models import Rescaled
        >>> layer = Rescaled(1)
        >>> layer.fit(torch.tensor([[10.0], [30.0]]))
        >>> layer(torch.tensor([[0.0], [1.0]]))
        tensor([[20.],
                [30.]])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        """Mean 0 and deviation 1, until :meth:`fit`."""
        super().__init__()
        check_size("channels", channels)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def reset_parameters(self) -> None:
        """Back to mean 0 and deviation 1."""
        self.mean.zero_()
        self.deviation.fill_(1)

    @torch.no_grad()
    def fit(self, y: Tensor) -> None:
        """Takes mean and deviation of targets [G, T]; a constant target has deviation 1."""
        self.mean.copy_(y.mean(0))
        deviation = y.std(0, correction=0)
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., T] to [..., T]."""
        return self.mean + self.deviation * x


class PooledModel(Loadable, TracedModule):
    """An attention network on nodes, pooling, and a head: classes or real targets of graphs.

    Args:
        network: maps the features of nodes to [N, C], such as a :class:`gat_ext.models.GAT`.
        pool: maps them to [G, C], such as :class:`gat_ext.nn.Pool`.
        head: maps [G, C] to the logits [G, K], such as ``torch.nn.Linear(C, K)``; None: the pooled
            features are the logits.
        activation: applied to the network's result before pooling; None: nothing is.

    Raises:
        TypeError: ``network`` is not a model of :mod:`gat_ext.models` on nodes, or ``pool`` or
            ``head`` is not a module.

    Example:
        >>> import torch
        >>> from gat_ext.models import GAT, PooledModel
        >>> from gat_ext.nn import Pool
        >>> model = PooledModel(GAT(5, 8, 16), Pool("mean"), torch.nn.Linear(16, 3))
        >>> two = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
        >>> model(torch.randn(4, 5), two, torch.tensor([0, 0, 1, 1])).shape
        torch.Size([2, 3])
        >>> [alpha.shape for _, alpha in model.attention_weights(torch.randn(4, 5), two)]
        [torch.Size([8, 8]), torch.Size([8, 1])]
    """

    def __init__(
        self,
        network: AttentionModel,
        pool: nn.Module,
        head: nn.Module | None = None,
        *,
        activation: Callable[[Tensor], Tensor] | None = elu,
    ) -> None:
        """Keeps the modules; see the class for the arguments."""
        super().__init__()
        if not isinstance(network, AttentionModel):
            raise TypeError(
                f"network is a {type(network).__name__}; expected a model of gat_ext.models on "
                "nodes, such as GAT"
            )
        for name, given in (("pool", pool), ("head", head)):
            if not isinstance(given, nn.Module) and not (name == "head" and given is None):
                raise TypeError(f"{name} is a {type(given).__name__}; expected a module")
        self.network, self.pool, self.head = network, pool, head
        self.activation = activation

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_children(self)

    @classmethod
    def preset(
        cls,
        network: type[AttentionModel],
        in_channels: int,
        num_outputs: int,
        *,
        pooling: str = "sum",
        hidden_channels: int | None = None,
        heads: int | None = None,
        regression: bool = False,
        **changes: Any,
    ) -> Self:
        """A network for sets of small graphs, such as molecules; the settings are of no paper.

        Three layers of four heads of size 16, with layer normalisation between them; for AGNN,
        which has no heads, of size 64. The node outputs have as many channels as a hidden layer in
        all, and go through ELU; a linear map of the pooled features gives the logits.

        Args:
            network: class of the network: GAT, GATv2, AGNN or GraphTransformer.
            in_channels: size of the node features.
            num_outputs: K, number of classes or targets.
            pooling: "sum", "mean", or "attention" with a linear gate. The sum alone tells how many
                nodes there are; with the types of the data sets it classifies more graphs of MUTAG
                and PROTEINS than the mean.
            hidden_channels: of one head.
            heads: of the hidden layers.
            regression: end with :class:`Rescaled`, for real targets.
            **changes: other constructor arguments of the network.

        Raises:
            ValueError: the pooling is unknown, or a size is out of range.
            TypeError: a size is not an integer, or the network has no such argument.

        Example:
            >>> from gat_ext.models import GATv2, PooledModel
            >>> model = PooledModel.preset(GATv2, 7, 2, pooling="attention", num_layers=2)
            >>> len(model.network.layers), type(model.pool).__name__, model.head.in_features
            (2, 'AttentionPool', 64)
        """
        checks.choice(pooling, POOLINGS, "pooling")
        options: dict[str, Any] = {"num_layers": 3, "dropout": 0.0}
        if issubclass(network, StackedModel):
            heads = 4 if heads is None else heads
            options |= {"heads": heads, "attn_dropout": 0.0, "norm": "layer"}
        elif heads is not None:
            raise TypeError(f"{network.__name__} has no heads; leave heads out")
        if hidden_channels is None:
            hidden_channels = 64 if heads is None else 16
        width = hidden_channels * (heads or 1)
        check_size("num_outputs", num_outputs)
        body: Any = network  # with the constructor of the subclass
        head: nn.Module = Projection(width, num_outputs)
        return cls(
            body(in_channels, hidden_channels, width, **(options | changes)),
            AttentionPool(Projection(width, 1)) if pooling == "attention" else Pool(pooling),
            nn.Sequential(head, Rescaled(num_outputs)) if regression else head,
        )

    def forward(
        self,
        x: Tensor | SparseFeatures,
        graph: Graph | Tensor,
        batch: Tensor | None = None,
        *,
        node_ptr: Tensor | None = None,
        num_graphs: int | None = None,
        edge_attr: Tensor | None = None,
        edge_mask: Tensor | Sequence[Tensor | None] | None = None,
        edge_weight: Tensor | Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """Logits of the graphs.

        Args:
            x: as for :meth:`gat_ext.models.AttentionModel.forward`.
            graph: likewise; all graphs as one, block-diagonal.
            batch: int64 [N], the graph of each node, see :meth:`gat_ext.nn.Pool.forward`.
            node_ptr: int64 [G + 1], likewise.
            num_graphs: likewise.
            edge_attr: as for :meth:`gat_ext.models.AttentionModel.forward`.
            edge_mask: likewise.
            edge_weight: likewise.

        Returns:
            [G, K], or [B, G, K], before softmax. A graph without nodes pools to 0.

        Raises:
            TypeError, ValueError, IndexError: as of the network and of :class:`gat_ext.nn.Pool`.
        """
        if isinstance(graph, ShardedGraph):
            checks.is_whole(graph, "pooling")
        if not is_tracing():
            x = input_features(x)
            if x.dim() > 1:  # else the network raises; the pool finds the graph in the cache
                membership(x.shape[-2], x.device, batch, node_ptr, num_graphs)
        h = self.network(
            x, graph, edge_attr=edge_attr, edge_mask=edge_mask, edge_weight=edge_weight
        )
        if self.activation is not None:
            h = self.activation(h)
        pooled: Tensor = self.pool(h, batch, node_ptr=node_ptr, num_graphs=num_graphs)
        return pooled if self.head is None else self.head(pooled)

    def attention_weights(
        self,
        x: Tensor | SparseFeatures,
        graph: Graph | Tensor,
        *,
        edge_attr: Tensor | None = None,
    ) -> list[Attention]:
        """The attention of each layer, see :meth:`gat_ext.models.AttentionModel.attention_weights`.

        Args:
            x: as for :meth:`forward`.
            graph: likewise.
            edge_attr: likewise.
        """
        return self.network.attention_weights(x, graph, edge_attr=edge_attr)
