"""LinkNeighborLoader: sampled mini-batches of edges, with PyG's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gat_ext.graph import Graph
from gat_ext.sampling import checks
from gat_ext.sampling.batch import Batch
from gat_ext.sampling.epochs import EpochBatches, generator_of, place_of_process
from gat_ext.sampling.loading import (
    BatchMaker,
    SampledLoader,
    Transform,
    seed_times,
    source_and_sampler,
)
from gat_ext.sampling.negatives import (
    NegativeSampling,
    NodesByTime,
    draw_pairs,
    negative_sampling,
)

_NAMES = ("edge_label_index", "edge_label", "edge_label_time")


@dataclass(frozen=True, repr=False)
class LinkBatch(Batch):
    """A sampled mini-batch of edges. A model returns a row for each node of the seed edges.

    In addition to the fields of :class:`Batch`, of which ``batch_size`` is the number of positive
    seed edges, ``input_id`` has their positions, ``batch`` is the seed edge of each node, and y is
    None:

    Attributes:
        edge_label_index: int64 [2, S'], positions of the ends of seed edges, negatives last, among
            the rows of the model's result; None for triplets.
        edge_label: [S'], their labels: without labels 1, and 0 for negatives, in float32; with
            labels these, raised by 1 if there are negatives, which have 0. None without labels and
            negatives, and for triplets.
        edge_label_time: int64 [S'], their times, or None.
        src_index: int64 [batch_size], sources of triplets, or None.
        dst_pos_index: int64 [batch_size], their destinations, or None.
        dst_neg_index: int64 [batch_size], or [batch_size, amount] with several negatives, or None.
    """

    edge_label_index: Tensor | None
    edge_label: Tensor | None
    edge_label_time: Tensor | None
    src_index: Tensor | None
    dst_pos_index: Tensor | None
    dst_neg_index: Tensor | None


class _Seeds(NamedTuple):
    """The nodes of the seed edges of a batch.

    Attributes:
        nodes: int64 [M], the seeds of the sampler.
        time: int64 [M], or None.
        owner: int64 [M], the seed edge of each.
        fields: those of LinkBatch that Batch lacks.
    """

    nodes: Tensor
    time: Tensor | None
    owner: Tensor
    fields: dict[str, Tensor | None]


class LinkBatches(BatchMaker):
    """The batches of a LinkNeighborLoader."""

    def __init__(
        self,
        edges: Tensor,
        label: Tensor | None,
        time: Tensor | None,
        negatives: NegativeSampling | None,
        *parts: Any,
    ) -> None:
        """Keeps the arguments; ``parts`` are those of the base class."""
        super().__init__(*parts)
        self.edges, self.label, self.time, self.negatives = edges, label, time, negatives
        node_time = self.sampler.node_time
        self._nodes = None if node_time is None else NodesByTime(node_time)

    def make(self, positions: Tensor, epoch: int) -> Any:
        """The batch of the seed edges at these positions."""
        seeds = self._seeds(positions, epoch)
        more: dict[str, Any] = {**seeds.fields, "input_id": positions}
        if self.form == "pyg":
            data = self.data(seeds.nodes, seeds.time, epoch)
            for name in _NAMES:
                if name in data:
                    del data[name]
            for name, value in more.items():
                if value is not None:
                    data[name] = value
            if data.batch is not None:
                data.batch = seeds.owner[data.batch]
            return data
        found = self.sampler.sample(seeds.nodes, seed_time=seeds.time, epoch=epoch)
        return LinkBatch(
            y=None,
            batch_size=positions.shape[0],
            batch=None if found.batch is None else seeds.owner[found.batch],
            seed_time=seeds.time,
            **self.block_fields(found),
            **more,
        )

    def _seeds(self, positions: Tensor, epoch: int) -> _Seeds:
        pairs = self.edges[:, positions]
        label = None if self.label is None else self.label[positions]
        time = None if self.time is None else self.time[positions]
        owner = torch.arange(positions.shape[0])
        triplet = self.negatives is not None and self.negatives.mode == "triplet"
        if self.negatives is not None:
            count = self.negatives.count(owner.shape[0])
            owner_of_negative = (
                owner.repeat_interleave(int(self.negatives.amount))
                if triplet
                else torch.arange(count) % owner.shape[0]
            )
            generator = generator_of(self.sampler.seed, epoch, int(positions[0]))
            negative = draw_pairs(
                self.source.graph,
                pairs[0, owner_of_negative] if triplet else None,
                count,
                generator,
                self._nodes,
                None if time is None else time[owner_of_negative],
            )
            owner = torch.cat([owner, owner_of_negative])
            pairs = torch.cat([pairs, negative], dim=1)
            time = None if time is None else time[owner]
            label = torch.ones(positions.shape[0]) if label is None else label + 1
            label = torch.cat([label, label.new_zeros(count, *label.shape[1:])])
        # The sources of negative triplets are those of the positives.
        sources = pairs[0, : positions.shape[0]] if triplet else pairs[0]
        nodes, owners = torch.cat([sources, pairs[1]]), torch.cat([owner[: len(sources)], owner])
        place = torch.arange(nodes.shape[0])
        if not self.sampler.disjoint:
            nodes, place = nodes.unique(return_inverse=True)
        times = None if time is None else torch.cat([time[: len(sources)], time])
        fields: dict[str, Tensor | None] = dict.fromkeys(LinkBatch.__annotations__)
        if triplet:
            assert self.negatives is not None
            src, pos, neg = place.split([len(sources), len(sources), len(place) - 2 * len(sources)])
            if self.negatives.amount > 1:
                neg = neg.view(-1, int(self.negatives.amount))
            fields |= {"src_index": src, "dst_pos_index": pos, "dst_neg_index": neg}
        else:
            fields |= {"edge_label_index": place.view(2, -1), "edge_label": label}
        return _Seeds(nodes, times, owners, fields | {"edge_label_time": time})


class LinkNeighborLoader(SampledLoader):
    """Mini-batches of edges with the sampled neighbourhoods of their ends, and negative edges.

    The seed edges of a batch are among the edges that are sampled from, if the graph has them.

    Args:
        data: as of :class:`NeighborLoader`.
        num_neighbors: likewise.
        edge_label_index: int64 [2, S], the seed edges; default: all edges of a Graph.
        edge_label: [S] or [S, ...], their labels; with negatives, class numbers from 0.
        edge_label_time: int64 [S], their times; required where nodes or edges have times.
        batch_size: number of seed edges of a batch.
        neg_sampling: None, or ``"binary"`` for random pairs or ``"triplet"`` for random
            destinations of the sources; or a dictionary with ``"mode"`` and ``"amount"`` (1), the
            number of negatives for each seed edge; or PyG's NegativeSampling without weights.
            Negatives are no edges of the graph, unless ten draws gave nothing else.
        neg_sampling_ratio: another name of the amount of binary negatives; None or 0: none.
        replace: as of :class:`NeighborLoader`, as are all further arguments.
        subgraph_type: likewise.
        disjoint: likewise; a tree for each end of a seed edge.
        temporal_strategy: likewise.
        time_attr: likewise.
        weight_attr: likewise.
        transform: likewise.
        form: likewise; ``"blocks"`` yields :class:`LinkBatch`.
        edge_attr: likewise.
        node_time: likewise.
        edge_time: likewise.
        edge_weight: likewise.
        shuffle: likewise.
        drop_last: likewise.
        seed: likewise.
        rank: likewise.
        world_size: likewise.
        **options: likewise.

    Raises:
        TypeError: an argument has another type or dtype.
        ValueError: a shape does not match, or arguments exclude each other.
        IndexError: an end of a seed edge is out of range.

    Example:
        >>> from gat_ext.models import GAT
        >>> graph = Graph(torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]]))
        >>> data = graph, torch.randn(5, 8)
        >>> loader = LinkNeighborLoader(data, [2, 2], batch_size=3, neg_sampling_ratio=1)
        >>> batch = next(iter(loader))
        >>> batch.edge_label
        tensor([1., 1., 1., 0., 0., 0.])
        >>> src, dst = GAT(8, 4, 16)(batch.x, batch.blocks)[batch.edge_label_index]
        >>> (src * dst).sum(-1).shape
        torch.Size([6])
    """

    def __init__(
        self,
        data: Any,
        num_neighbors: Sequence[int],
        edge_label_index: Tensor | None = None,
        edge_label: Tensor | None = None,
        edge_label_time: Tensor | None = None,
        batch_size: int = 1,
        *,
        neg_sampling: Any = None,
        neg_sampling_ratio: float | None = None,
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
        checks.flag(shuffle, "shuffle")
        checks.flag(drop_last, "drop_last")
        size = checks.integer(batch_size, "batch_size", 1)
        source, sampler = source_and_sampler(
            data,
            num_neighbors,
            replace=replace,
            subgraph_type=subgraph_type,
            disjoint=disjoint,
            temporal_strategy=temporal_strategy,
            time_attr=time_attr,
            weight_attr=weight_attr,
            edge_attr=edge_attr,
            node_time=node_time,
            edge_time=edge_time,
            edge_weight=edge_weight,
            seed=seed,
        )
        negatives = negative_sampling(neg_sampling, neg_sampling_ratio)
        edges = _seed_edges(edge_label_index, source.graph)
        count = edges.shape[1]
        label = _labels(edge_label, count, negatives)
        times = seed_times(edge_label_time, count, "edge_label_time", source)
        if times is None and sampler.is_temporal:
            raise ValueError("edge_label_time is missing; expected int64 [S], with times of nodes")
        place = place_of_process(rank, world_size)
        batches = EpochBatches(count, size, shuffle, drop_last, sampler.seed, place)
        maker = LinkBatches(edges, label, times, negatives, source, sampler, form, transform)
        super().__init__(maker, batches, options)


def _seed_edges(given: Any, graph: Any) -> Tensor:
    """int64 [2, S]."""
    if given is None:
        if not isinstance(graph, Graph):
            raise ValueError(
                "edge_label_index is missing; expected int64 [2, S] with a MappedGraph, whose "
                "edges would have to be read"
            )
        return graph.edge_index
    if not isinstance(given, Tensor) or given.dtype not in (torch.int32, torch.int64):
        kind = getattr(given, "dtype", type(given).__name__)
        raise TypeError(f"edge_label_index is {kind}; expected an int64 tensor [2, S]")
    if given.dim() != 2 or given.shape[0] != 2:
        raise ValueError(f"edge_label_index has shape {list(given.shape)}; expected [2, S]")
    for row, end in enumerate(given):
        checks.in_range(end, graph.num_nodes, f"edge_label_index[{row}]")
    found: Tensor = given.to("cpu", torch.int64)
    return found


def _labels(given: Any, count: int, negatives: NegativeSampling | None) -> Tensor | None:
    if given is None:
        return None
    checks.rows(given, count, "edge_label", "seed edge")
    if negatives is None:
        return given  # type: ignore[no-any-return]
    if negatives.mode == "triplet":
        raise ValueError("edge_label was given; expected None with triplets, which have no labels")
    if given.is_floating_point() or given.dtype == torch.bool:
        raise TypeError(
            f"edge_label has dtype {given.dtype}; expected class numbers of torch.int64 with "
            "negatives, which get the class 0"
        )
    if count and int(given.min()) < 0:
        raise ValueError(
            f"edge_label has the class {int(given.min())}; expected class numbers from 0 with "
            "negatives, which get the class 0 after the others are raised by 1"
        )
    return given  # type: ignore[no-any-return]
