"""Batch: what a loader yields for the models of gat_ext."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from gat_ext.graph import Graph
from gat_ext.sampling.packing import pack, unpack

if TYPE_CHECKING:
    from typing_extensions import Self


class Movable:
    """Base class of batches, which are dataclasses: moves and sends all tensors and graphs."""

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> Self:
        """The batch with all tensors and graphs on a device."""
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The batch in page-locked memory; ``DataLoader(pin_memory=True)`` calls this."""
        return self._map(lambda part: part.pin_memory())

    def _map(self, change: Callable[[Any], Any]) -> Self:
        """The batch with every tensor and graph changed."""

        def changed(value: Any) -> Any:
            if isinstance(value, list):
                return [changed(part) for part in value]
            if isinstance(value, dict):
                return {key: changed(part) for key, part in value.items()}
            return change(value) if isinstance(value, (Tensor, Graph)) else value

        batch: Any = self
        names = [field.name for field in fields(batch)]
        moved: Self = replace(batch, **{name: changed(getattr(self, name)) for name in names})
        return moved

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickles the batch; in a worker, by one piece of shared memory."""
        if get_worker_info() is None:
            return super().__reduce_ex__(protocol)
        batch: Any = self
        names = [field.name for field in fields(batch)]
        packed = pack({name: getattr(self, name) for name in names})
        return unpack, (type(self), *packed)


@dataclass(frozen=True)
class Batch(Movable):
    """A sampled mini-batch: features of its nodes, and a block for each attention layer.

    Names are PyG's. A model is called with ``model(batch.x, batch.blocks)``, with
    ``edge_attr=batch.edge_attr`` if it has edge features, and returns a row for each seed.

    Attributes:
        x: [N', ...], features of the nodes; None if the loader has none.
        y: [batch_size, ...], labels of the seeds; None likewise.
        blocks: a bipartite Graph for each layer, outermost first: its sources are the first nodes
            of ``n_id``, its destinations the first of these, and those of the last are the seeds.
        edge_attr: for each block, [E', ...], features of its edges; None likewise.
        n_id: int64 [N'], the nodes; ``n_id[:batch_size]`` are the seeds.
        e_id: for each block, int64 [E'], its edges among those of the graph.
        input_id: int64 [batch_size], positions of the seeds among ``input_nodes``.
        batch_size: number of seeds.
        batch: int64 [N'], the position of each node's seed; None unless trees are disjoint.
        seed_time: int64 [batch_size], times of the seeds; None without times.
        num_sampled_nodes: number of seeds, then of the nodes that each hop added.
        num_sampled_edges: number of edges of each hop, the seeds' first.

    Example:
        >>> from gat_ext import Graph
        >>> from gat_ext.models import GAT
        >>> from gat_ext.sampling import NeighborLoader
        >>> ring = Graph(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
        >>> loader = NeighborLoader((ring, torch.randn(4, 5)), [1, 1], batch_size=2)
        >>> model = GAT(5, 2, 3)
        >>> [model(batch.x, batch.blocks).shape for batch in loader]
        [torch.Size([2, 3]), torch.Size([2, 3])]
    """

    x: Tensor | None
    y: Tensor | None
    blocks: list[Graph]
    edge_attr: list[Tensor] | None
    n_id: Tensor
    e_id: list[Tensor]
    input_id: Tensor
    batch_size: int
    batch: Tensor | None
    seed_time: Tensor | None
    num_sampled_nodes: list[int]
    num_sampled_edges: list[int]

    @property
    def num_nodes(self) -> int:
        """Number of nodes of the batch."""
        return self.n_id.shape[0]

    if not TYPE_CHECKING:  # else every attribute would pass as Any

        def __getattr__(self, name: str) -> Any:
            """Raises AttributeError; it says what to use instead of attributes of PyG's batches."""
            hint = ""
            if name in ("edge_index", "adj_t"):
                hint = "; expected model(batch.x, batch.blocks), or a loader with form='pyg'"
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}")

    def __repr__(self) -> str:
        """Sizes of the batch."""
        x = None if self.x is None else list(self.x.shape)
        edges = [block.num_edges for block in self.blocks]
        return (
            f"Batch(batch_size={self.batch_size}, num_nodes={self.num_nodes}, x={x}, "
            f"num_edges={edges})"
        )
