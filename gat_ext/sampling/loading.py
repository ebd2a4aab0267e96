"""What the loaders share: their data and sampler, their batches, and the numbers of epochs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gat_ext.sampling import checks, pyg
from gat_ext.sampling.epochs import EpochBatches, Request
from gat_ext.sampling.features import gather
from gat_ext.sampling.sampler import NeighborSampler, Sample
from gat_ext.sampling.source import Source, read

FORMS = ("blocks", "pyg")
_OPTIONS = frozenset(inspect.signature(DataLoader.__init__).parameters)
Transform = Callable[[Any], Any]


def source_and_sampler(
    data: Any,
    num_neighbors: Any,
    *,
    subgraph_type: Any,
    time_attr: str | None,
    weight_attr: str | None,
    edge_attr: Tensor | None,
    node_time: Tensor | None,
    edge_time: Tensor | None,
    edge_weight: Tensor | None,
    **options: Any,
) -> tuple[Source, NeighborSampler]:
    """The data that a loader reads and its sampler, from the loader's arguments, checked."""
    name = str(getattr(subgraph_type, "value", subgraph_type))
    checks.choice(name, ["directional"], "subgraph_type")
    given = {"node_time": node_time, "edge_time": edge_time, "edge_weight": edge_weight}
    source = read(data, time_attr, weight_attr, edge_attr, given)
    sampler = NeighborSampler(
        source.graph,
        num_neighbors,
        node_time=source.node_time,
        edge_time=source.edge_time,
        edge_weight=source.edge_weight,
        **options,
    )
    return source, sampler


def seed_times(given: Any, count: int, name: str, source: Source) -> Tensor | None:
    """Times of the seeds [count], or None for those of their nodes."""
    times = checks.times(given, count, name)
    if times is None and source.edge_time is not None:
        raise ValueError(f"{name} is missing; expected int64 [S], because edges have times")
    if times is not None and source.edge_time is None and source.node_time is None:
        raise ValueError(
            f"{name} was given, but neither nodes nor edges have times; expected time_attr, "
            "node_time or edge_time"
        )
    return times


class BatchMaker(Dataset[Any]):
    """Samples a requested batch and gathers its features; its items are whole batches."""

    source: Any
    sampler: Any

    def __init__(self, source: Any, sampler: Any, form: str, transform: Transform | None) -> None:
        """Keeps the arguments, those of the loader."""
        checks.choice(form, FORMS, "form")
        if transform is not None and not callable(transform):
            raise TypeError(
                f"transform is a {type(transform).__name__}; expected a function of a batch"
            )
        self.source, self.sampler, self.form, self.transform = source, sampler, form, transform

    def __getitem__(self, request: Request) -> Any:
        """The batch of a request."""
        batch = self.make(torch.from_numpy(request.positions), request.epoch)
        return batch if self.transform is None else self.transform(batch)

    def make(self, positions: Tensor, epoch: int) -> Any:
        """The batch of the seeds at these positions."""
        raise NotImplementedError

    def block_fields(self, found: Sample) -> dict[str, Any]:
        """The fields of a Batch that are those of every loader."""
        x, edge_attr = self.source.x, self.source.edge_attr
        return {
            "x": None if x is None else gather(x, found.n_id),
            "blocks": found.blocks,
            "edge_attr": None if edge_attr is None else [gather(edge_attr, e) for e in found.e_id],
            "n_id": found.n_id,
            "e_id": found.e_id,
            "num_sampled_nodes": found.num_sampled_nodes,
            "num_sampled_edges": found.num_sampled_edges,
        }

    def data(self, seeds: Tensor, seed_time: Tensor | None, epoch: int) -> Any:
        """The Data of PyG of some seeds."""
        found = self.sampler.subgraph(seeds, seed_time=seed_time, epoch=epoch)
        return pyg.data_of(self.source, found)


class SampledLoader(DataLoader[Any]):
    """Base class of the loaders."""

    def __init__(self, maker: BatchMaker, batches: EpochBatches, options: dict[str, Any]) -> None:
        """Passes options on to DataLoader.

        Raises:
            TypeError: an option is unknown, or set by the loader itself.
        """
        own = [n for n in ("dataset", "collate_fn", "sampler", "batch_sampler") if n in options]
        if own:
            raise TypeError(
                f"{own[0]} was given, which the loader sets itself; expected further arguments of "
                "torch.utils.data.DataLoader"
            )
        unknown = [n for n in options if n not in _OPTIONS]
        if unknown:
            raise TypeError(
                f"{unknown[0]} is not an argument of {type(self).__name__} or of "
                "torch.utils.data.DataLoader; expected their arguments: leave it out"
            )
        self.neighbor_sampler = maker.sampler
        super().__init__(maker, batch_size=None, sampler=batches, **options)

    def set_epoch(self, epoch: int) -> None:
        """Sets the number of the next epoch, such as to resume training; the first is 0."""
        batches = self.sampler
        assert isinstance(batches, EpochBatches)
        batches.epoch = checks.integer(epoch, "epoch", 0)

    def __repr__(self) -> str:
        """The number of batches and the fan-outs."""
        return f"{type(self).__name__}({len(self)} batches, {self.neighbor_sampler.num_neighbors})"
