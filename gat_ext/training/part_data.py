"""The part of a data set of nodes that a process holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gat_ext import datasets, distributed
from gat_ext.datasets import NodeDataset
from gat_ext.distributed import DistGraph, Part, raised_by_all
from gat_ext.distributed.storage import WHOLE
from gat_ext.training.processes import Team

_TENSORS = ("x", "y", "train_mask", "val_mask", "test_mask")


@dataclass(frozen=True)
class PartDataset:
    """What a trainer reads of a :class:`gat_ext.datasets.NodeDataset`, of own nodes.

    Attributes:
        name: of the data set.
        x: float32 [n, C], of own nodes, dense or sparse.
        y: int64 [n], or with ``multilabel`` float32 [n, K].
        train_mask: bool [n].
        val_mask: bool [n].
        test_mask: bool [n].
        graph: the part of the graph.
        num_classes: K.
        multilabel: whether a node has any number of the K labels.
        method: of the partition.
        split_sizes: nodes of all processes in each split.
        graph_ids: None; parts are of one graph.
        edge_attr: None; models in several processes see no features of edges.
    """

    name: str
    x: Any
    y: Tensor
    train_mask: Tensor
    val_mask: Tensor
    test_mask: Tensor
    graph: DistGraph
    num_classes: int
    multilabel: bool
    method: str
    split_sizes: dict[str, int]
    graph_ids: None = None
    edge_attr: None = None

    @property
    def num_nodes(self) -> int:
        """Nodes of all processes."""
        return self.graph.part.num_dst

    @property
    def num_edges(self) -> int:
        """Edges of all processes."""
        return self.graph.part.num_edges

    @property
    def num_features(self) -> int:
        """C."""
        return int(self.x.shape[1])

    def require_splits(self) -> None:
        """Raises ValueError if a split has no nodes in any process."""
        for split, count in self.split_sizes.items():
            if count == 0:
                raise ValueError(f"{self.name}: {split}_mask is empty; every split needs a node")


def cut(data: NodeDataset, team: Team, method: str, mode: str) -> PartDataset:
    """Cuts a data set that every process has loaded; each keeps its own part.

    The first process computes the partition, so that all have the same.

    Raises:
        ImportError: the library of the method is not installed; all processes raise it.
        ValueError: a process has loaded other data than the first.
    """
    assignment = None
    with raised_by_all(team.group):
        if team.is_first:
            assignment = distributed.partition(data.graph, team.size, method).assignment
    sizes = data.num_nodes, data.num_edges, data.num_features, data.num_classes
    assignment, expected, edges = team.from_first((assignment, sizes, _digest(data.edge_index)))
    with raised_by_all(team.group):
        if (sizes, _digest(data.edge_index)) != (expected, edges):
            raise ValueError(
                f"{data.name} has {sizes} nodes, edges, features and classes; the first process "
                f"loaded {expected}, or other edges: give all processes the same files"
            )
    part = distributed.make_part(data.edge_index, assignment, team.rank, team.size)
    tensors = {name: getattr(data, name)[part.dst_nodes] for name in _TENSORS}
    return _data_of(part, tensors, data.name, data.num_classes, data.multilabel, method, team, mode)


def read(folder: Path, dataset: str | None, team: Team, mode: str) -> PartDataset:
    """The part of this process, from a folder that ``gat-ext partition`` wrote.

    Args:
        folder: that was written.
        dataset: name that the data set is expected to have; None: any.
        team: the processes; one for each part.
        mode: of the DistGraph.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the parts are of another data set, of another number of processes, damaged, or
            not of a data set of nodes with labels. All processes raise if one does.
    """
    with raised_by_all(team.group):
        stored = distributed.load(folder, team.rank, team.size)
        meta, tensors = stored.meta, stored.tensors
        missing = {*_TENSORS} - tensors.keys() | {"name", "num_classes", "multilabel"} - meta.keys()
        if missing:
            raise ValueError(
                f"{folder} has no {min(missing)}; expected parts of a data set of nodes with "
                "labels, as gat-ext partition writes them"
            )
        if dataset is not None and meta["name"] != dataset:
            raise ValueError(
                f"{folder} has parts of {meta['name']}; expected {dataset}: pass --dataset "
                f"{meta['name']}"
            )
    part, own = stored.part, {name: tensors[name] for name in _TENSORS}
    of_data = meta["name"], meta["num_classes"], meta["multilabel"]
    return _data_of(part, own, *of_data, stored.method, team, mode)


def name_of(folder: Path) -> str | None:
    """Name of the data set in a folder of parts; None if :func:`read` is to say what is wrong."""
    try:
        name = json.loads((folder / WHOLE).read_text(encoding="utf-8"))["meta"]["name"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return name if name in datasets.available() else None


def _data_of(
    part: Part,
    tensors: dict[str, Tensor],
    name: str,
    num_classes: int,
    multilabel: bool,
    method: str,
    team: Team,
    mode: str,
) -> PartDataset:
    graph = DistGraph(part, team.group, mode=mode).to(team.device)
    own = {split: int(tensors[f"{split}_mask"].sum()) for split in ("train", "val", "test")}
    every = team.gathered(own)
    sizes = {split: sum(one[split] for one in every) for split in own}
    x, y, train, val, test = (tensors[name].to(team.device) for name in _TENSORS)
    found = PartDataset(
        name,
        x,
        y,
        train_mask=train,
        val_mask=val,
        test_mask=test,
        graph=graph,
        num_classes=num_classes,
        multilabel=multilabel,
        method=method,
        split_sizes=sizes,
    )
    found.require_splits()
    return found


def _digest(edge_index: Tensor) -> tuple[int, int]:
    """Two sums that other edges, or another order of them, most likely do not have."""
    place = torch.arange(edge_index.shape[1]) % 65_521 + 1
    src, dst = edge_index.cpu()
    return int((src * place).sum()), int((dst * place).sum())


def held(data: PartDataset, team: Team, show: Callable[[str], None]) -> None:
    """Shows what each process holds, in the first one."""
    part = data.graph.part
    rows = team.gathered((part.num_own_dst, part.num_own_edges, part.num_halo))
    if team.is_first:
        for rank, (nodes, edges, halo) in enumerate(rows):
            show(
                f"rank {rank} of {team.size}: {nodes:,} nodes, {edges:,} edges, {halo:,} halo rows"
            )
