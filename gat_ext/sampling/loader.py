"""NeighborLoader: sampled mini-batches, with PyG's arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gat_ext.sampling import checks, pyg
from gat_ext.sampling.batch import Batch
from gat_ext.sampling.epochs import EpochBatches, Request, place_of_process
from gat_ext.sampling.features import gather
from gat_ext.sampling.sampler import NeighborSampler
from gat_ext.sampling.source import Source, read

FORMS = ("blocks", "pyg")
Transform = Callable[[Any], Any]


class BatchMaker(Dataset[Any]):
    """Samples a requested batch and gathers its features; its items are whole batches."""

    def __init__(
        self,
        source: Source,
        sampler: NeighborSampler,
        input_nodes: Tensor,
        input_time: Tensor | None,
        form: str,
        transform: Transform | None,
    ) -> None:
        """Keeps the arguments, those of the loader."""
        self.source, self.sampler, self.form, self.transform = source, sampler, form, transform
        self.input_nodes, self.input_time = input_nodes, input_time

    def __getitem__(self, request: Request) -> Any:
        """The batch of a request."""
        positions = torch.from_numpy(request.positions)
        seeds = self.input_nodes[positions]
        time = self._seed_time(seeds, positions)
        make = self._blocks if self.form == "blocks" else self._pyg
        batch = make(seeds, positions, time, request.epoch)
        return batch if self.transform is None else self.transform(batch)

    def _seed_time(self, seeds: Tensor, positions: Tensor) -> Tensor | None:
        if self.input_time is not None:
            return self.input_time[positions]
        node_time = self.sampler.node_time
        return None if node_time is None else node_time[seeds]

    def _blocks(self, seeds: Tensor, positions: Tensor, time: Tensor | None, epoch: int) -> Batch:
        source = self.source
        found = self.sampler.sample(seeds, seed_time=time, epoch=epoch)
        edge_attr = source.edge_attr
        return Batch(
            x=None if source.x is None else gather(source.x, found.n_id),
            y=None if source.y is None else gather(source.y, seeds),
            blocks=found.blocks,
            edge_attr=None if edge_attr is None else [gather(edge_attr, e) for e in found.e_id],
            n_id=found.n_id,
            e_id=found.e_id,
            input_id=positions,
            batch_size=found.batch_size,
            batch=found.batch,
            seed_time=time,
            num_sampled_nodes=found.num_sampled_nodes,
            num_sampled_edges=found.num_sampled_edges,
        )

    def _pyg(self, seeds: Tensor, positions: Tensor, time: Tensor | None, epoch: int) -> Any:
        found = self.sampler.subgraph(seeds, seed_time=time, epoch=epoch)
        return pyg.data_of(self.source, found, positions, time)


class NeighborLoader(DataLoader[Any]):
    """Mini-batches of nodes with their sampled neighbourhoods.

    The batches of an epoch depend on ``seed``, the epoch and the arguments only: they are the same
    for any number of threads and workers, and those of all processes of ``torch.distributed``
    together are those of one. Each ``iter(loader)`` is the next epoch; see :meth:`set_epoch`.

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
        num_neighbors: Sequence[int],
        input_nodes: Tensor | Sequence[int] | None = None,
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
        edge_attr: Tensor | None = None,
        node_time: Tensor | None = None,
        edge_time: Tensor | None = None,
        edge_weight: Tensor | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        **options: Any,
    ) -> None:
        """Checks the arguments; see the class."""
        checks.choice(
            str(getattr(subgraph_type, "value", subgraph_type)), ["directional"], "subgraph_type"
        )
        checks.choice(form, FORMS, "form")
        checks.flag(shuffle, "shuffle")
        checks.flag(drop_last, "drop_last")
        size = checks.integer(batch_size, "batch_size", 1)
        _check_options(options)
        given = {"node_time": node_time, "edge_time": edge_time, "edge_weight": edge_weight}
        source = read(data, time_attr, weight_attr, edge_attr, given)
        sampler = NeighborSampler(
            source.graph,
            num_neighbors,
            replace=replace,
            disjoint=disjoint,
            temporal_strategy=temporal_strategy,
            node_time=source.node_time,
            edge_time=source.edge_time,
            edge_weight=source.edge_weight,
            seed=seed,
        )
        seeds = checks.input_nodes(input_nodes, sampler.num_nodes)
        times = checks.times(input_time, seeds.shape[0], "input_time")
        if times is None and source.edge_time is not None:
            raise ValueError("input_time is missing; expected int64 [S], because edges have times")
        if times is not None and not sampler.is_temporal:
            raise ValueError(
                "input_time was given, but neither nodes nor edges have times; expected time_attr, "
                "node_time or edge_time"
            )
        self.neighbor_sampler = sampler
        batches = EpochBatches(
            seeds.shape[0],
            size,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=sampler.seed,
            place=place_of_process(rank, world_size),
        )
        maker = BatchMaker(source, sampler, seeds, times, form, transform)
        super().__init__(maker, batch_size=None, sampler=batches, **options)

    def set_epoch(self, epoch: int) -> None:
        """Sets the number of the next epoch, such as to resume training; the first is 0."""
        batches = self.sampler
        assert isinstance(batches, EpochBatches)
        batches.epoch = checks.integer(epoch, "epoch", 0)

    def __repr__(self) -> str:
        """The number of batches and the fan-outs."""
        return f"{type(self).__name__}({len(self)} batches, {self.neighbor_sampler.num_neighbors})"


def _check_options(options: dict[str, Any]) -> None:
    """Raises TypeError for arguments of DataLoader that the loader sets itself."""
    own = [n for n in ("dataset", "collate_fn", "sampler", "batch_sampler") if n in options]
    if own:
        raise TypeError(
            f"{own[0]} was given, which the loader sets itself; expected further arguments of "
            "torch.utils.data.DataLoader"
        )
