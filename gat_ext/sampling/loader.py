"""NeighborLoader: sampled mini-batches of nodes, with PyG's arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from gat_ext.sampling import checks
from gat_ext.sampling.batch import Batch
from gat_ext.sampling.epochs import EpochBatches, place_of_process
from gat_ext.sampling.features import gather
from gat_ext.sampling.loading import (
    BatchMaker,
    SampledLoader,
    Transform,
    seed_times,
    source_and_sampler,
)
from gat_ext.sampling.typed_checks import Relation
from gat_ext.sampling.typed_loader import typed_batches
from gat_ext.sampling.typed_source import is_typed


class NodeBatches(BatchMaker):
    """The batches of a NeighborLoader."""

    def __init__(self, input_nodes: Tensor, input_time: Tensor | None, *parts: Any) -> None:
        """Keeps the arguments; ``parts`` are those of the base class."""
        super().__init__(*parts)
        self.input_nodes, self.input_time = input_nodes, input_time

    def make(self, positions: Tensor, epoch: int) -> Any:
        """The batch of the input nodes at these positions."""
        seeds, source, time = self.input_nodes[positions], self.source, None
        if self.input_time is not None:
            time = self.input_time[positions]
        elif source.node_time is not None:
            time = source.node_time[seeds].long()
        if self.form == "pyg":
            data = self.data(seeds, time, epoch)
            data.input_id, data.seed_time, data.batch_size = positions, time, seeds.shape[0]
            return data
        found = self.sampler.sample(seeds, seed_time=time, epoch=epoch)
        return Batch(
            y=None if source.y is None else gather(source.y, seeds),
            input_id=positions,
            batch_size=seeds.shape[0],
            batch=found.batch,
            seed_time=time,
            **self.block_fields(found),
        )


class NeighborLoader(SampledLoader):
    """Mini-batches of nodes with their sampled neighbourhoods.

    The batches of an epoch depend on ``seed``, the epoch and the arguments only: they are the same
    for any number of threads and workers, and those of all processes of ``torch.distributed``
    together are those of one. Each ``iter(loader)`` is the next epoch; see :meth:`set_epoch`.

    With nodes and edges of several types, batches are :class:`TypedBatch`, or HeteroData. Times
    and disjoint trees are for one type only. Then the arguments are:

    - data: a dictionary of graphs by relation (source type, name, destination type), each a Graph,
      an edge_index or a MappedGraph; ``(graphs, x)`` or ``(graphs, x, y)``, with features by type
      and labels of the type of the seeds, or labels by type; a data set of ``load_typed``; or a
      ``HeteroData`` of PyTorch Geometric.
    - num_neighbors: a list for all relations, or a dictionary of lists by relation.
    - input_nodes: a type, for all its nodes, or ``(type, nodes)``; for a data set of
      ``load_typed`` also None or nodes, those of its target.
    - edge_attr, edge_weight: dictionaries by relation; relations may be missing.

    Args:
        data: a Graph, or a MappedGraph, whose arrays "x" and "y" are read; ``(graph, x)`` or
            ``(graph, x, y)``, with a row for each node; or a ``Data`` of PyTorch Geometric.
        num_neighbors: for each hop, the seeds' first, the number of in-edges of a node; -1: all. A
            model has as many attention layers.
        input_nodes: the seeds: node numbers, or a bool mask [N]; None: all nodes.
        input_time: int64 [S], times of the seeds; default: their node times.
        batch_size: number of seeds of a batch.
        replace: draw with replacement.
        subgraph_type: ``"directional"``, the only one: edges in the direction of messages.
        disjoint: a tree for each seed.
        temporal_strategy: ``"uniform"`` or ``"last"``; see :class:`NeighborSampler`.
        time_attr: name of the times of nodes or edges in a Data of PyG.
        weight_attr: name of the weights of edges in a Data of PyG.
        transform: applied to each batch.
        form: ``"blocks"`` yields :class:`Batch`, ``"pyg"`` a Data as PyG's loader does.
        edge_attr: [E, ...], features of edges, unless data is of PyG.
        node_time: int64 [N], likewise.
        edge_time: int64 [E], likewise.
        edge_weight: [E], likewise.
        shuffle: draw a new order of the seeds for each epoch.
        drop_last: leave out a smaller last batch; with several processes also batches of which
            not every process would get one. Processes then have equally many batches, as
            DistributedDataParallel expects outside of its ``join``.
        seed: determines orders and samples; the same for all processes.
        rank: number of this process; default: that of ``torch.distributed``, if initialised.
        world_size: number of processes, likewise.
        **options: further arguments of ``torch.utils.data.DataLoader``, such as ``num_workers``,
            ``pin_memory`` or ``persistent_workers``. Workers share the memory of graph and features
            with this process, and their batches arrive in shared memory.

    Raises:
        TypeError: an argument has another type or dtype.
        ValueError: a shape does not match, or arguments exclude each other.
        IndexError: a seed is out of range.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> graph = Graph(torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]]))
        >>> loader = NeighborLoader((graph, torch.randn(5, 8)), [2, 2], batch_size=2, shuffle=True)
        >>> batch = next(iter(loader))
        >>> batch, len(loader)
        (Batch(batch_size=2, num_nodes=5, x=[5, 8], num_edges=[4, 2]), 3)
    """

    def __init__(
        self,
        data: Any,
        num_neighbors: Sequence[int] | Mapping[Relation, Sequence[int]],
        input_nodes: Tensor | Sequence[int] | str | tuple[str, Any] | None = None,
        input_time: Tensor | None = None,
        batch_size: int = 1,
        *,
        replace: bool = False,
        subgraph_type: str = "directional",
        disjoint: bool = False,
        temporal_strategy: str = "uniform",
        time_attr: str | None = None,
        weight_attr: str | None = None,
        transform: Transform | None = None,
        form: str = "blocks",
        edge_attr: Tensor | Mapping[Relation, Tensor] | None = None,
        node_time: Tensor | None = None,
        edge_time: Tensor | None = None,
        edge_weight: Tensor | Mapping[Relation, Tensor] | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        **options: Any,
    ) -> None:
        """Checks the arguments; see the class."""
        checks.flag(shuffle, "shuffle")
        checks.flag(drop_last, "drop_last")
        size = checks.integer(batch_size, "batch_size", 1)
        sampling: dict[str, Any] = {
            "replace": replace,
            "subgraph_type": subgraph_type,
            "disjoint": disjoint,
            "temporal_strategy": temporal_strategy,
            "time_attr": time_attr,
            "weight_attr": weight_attr,
            "edge_attr": edge_attr,
            "node_time": node_time,
            "edge_time": edge_time,
            "edge_weight": edge_weight,
            "seed": seed,
        }
        maker: BatchMaker
        if is_typed(data):
            maker = typed_batches(
                data,
                num_neighbors,
                input_nodes,
                input_time=input_time,
                form=form,
                transform=transform,
                **sampling,
            )
            count = maker.input_nodes.shape[0]
        else:
            source, sampler = source_and_sampler(data, num_neighbors, **sampling)
            seeds = checks.input_nodes(input_nodes, sampler.num_nodes)
            count = seeds.shape[0]
            times = seed_times(input_time, count, "input_time", source)
            maker = NodeBatches(seeds, times, source, sampler, form, transform)
        place = place_of_process(rank, world_size)
        batches = EpochBatches(count, size, shuffle, drop_last, maker.sampler.seed, place)
        super().__init__(maker, batches, options)
