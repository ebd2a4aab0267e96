"""The training loop on sampled mini-batches, in one process or several."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import torch
from torch import Tensor

from gat_ext import distributed, sampling
from gat_ext.datasets import NodeDataset
from gat_ext.models import AttentionModel
from gat_ext.training import metrics
from gat_ext.training.dist_loop import loss_of_all
from gat_ext.training.loop import Trainer
from gat_ext.training.recipes import Recipe


class SampledTrainer(Trainer):
    """Trains on batches of training nodes with sampled neighbours; evaluates with all neighbours.

    Several processes have all of the data, and divide the batches of an epoch among them; the loss
    of a step is the mean over the nodes of all of their batches. The first process evaluates.

    Args:
        make_model: makes the model; called after the seed is set.
        data: the data set, on the CPU.
        recipe: ``sample`` has a fan-out for each attention layer.
        seed: of torch's generators, and of the samples.
        group: processes of torch.distributed; None: all, or this one alone.
        rank: of this process.
        size: number of processes.

    Raises:
        ValueError: the number of fan-outs is not that of attention layers, or a split is empty.
    """

    def __init__(
        self,
        make_model: Callable[[], AttentionModel],
        data: NodeDataset,
        recipe: Recipe,
        seed: int,
        *,
        group: Any = None,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        super().__init__(make_model, data, recipe, seed)
        fanouts = fanouts_of(recipe.sample)
        if len(fanouts) != len(self.model.layers):
            raise ValueError(
                f"sample is {recipe.sample!r}, but the model has {len(self.model.layers)} layers; "
                "expected a number of neighbours for each of them"
            )
        self.group, self.rank, self.size = group, rank, size
        count = int(data.train_mask.sum())
        batch_size = min(recipe.batch_size, ceil(count / size))
        self.loader = sampling.NeighborLoader(
            (data.graph, data.x, data.y),
            fanouts,
            data.train_mask,
            batch_size=batch_size,
            shuffle=True,
            seed=seed,
            rank=rank,
            world_size=size,
            edge_attr=None if self.model.edge_dim is None else data.edge_attr,
        )
        self.steps = ceil(ceil(count / batch_size) / size)

    def _train_epoch(self) -> float:
        self.model.train()
        self.loader.set_epoch(self.epoch)
        batches, total = iter(self.loader), 0.0
        for _ in range(self.steps):
            loss = self._loss_of(next(batches, None))
            self._step(loss)
            total += loss.item()
        return total / self.steps

    def _loss_of(self, batch: sampling.Batch | None) -> Tensor:
        """The mean loss of the batches of all processes; None if none is left for this one."""
        data = self.data
        if batch is None:
            # The parameters take part, so that the gradients of all processes are combined.
            logits = torch.stack([p.sum() for p in self.model.parameters()]).sum()
            logits = logits.expand(0, data.num_classes)
            labels = data.y[:0]
        else:
            device = data.x.device.type
            with torch.autocast(device, torch.bfloat16, enabled=self.recipe.bf16):
                logits = self.model(batch.x, batch.blocks, edge_attr=batch.edge_attr).float()
            assert batch.y is not None
            labels = batch.y
        if self.size == 1:
            return metrics.loss(logits, labels, data.multilabel)
        return loss_of_all(logits, labels, data.multilabel, self.group)

    def _combine_gradients(self) -> None:
        if self.size > 1:
            distributed.average_gradients(self.model, self.group)

    def _evaluate(self, nodes: Any) -> tuple[float, float]:
        """Loss and score of the nodes that count, with all neighbours; those of rank 0."""
        found = torch.zeros(2, dtype=torch.float64)
        if self.rank == 0:
            edge_attr = self._edges(nodes)
            out = sampling.inference(self.model, nodes.x, nodes.graph, edge_attr=edge_attr)
            logits, labels = out[nodes.mask].float(), nodes.y[nodes.mask]
            multilabel = self.data.multilabel
            found[0] = metrics.loss(logits, labels, multilabel)
            found[1] = metrics.score(logits, labels, multilabel)
        if self.size > 1:
            found = distributed.sum_over_processes(found, self.group)
        loss, score = found.tolist()
        return loss, score


def fanouts_of(sample: str) -> list[int]:
    """The numbers of neighbours in ``"10,10"``; -1: all.

    Raises:
        ValueError: it is not a list of such numbers.

    Example:
        >>> fanouts_of("10,-1")
        [10, -1]
    """
    try:
        fanouts = [int(each) for each in sample.split(",")]
    except ValueError:
        fanouts = []
    if not fanouts or any(each < -1 for each in fanouts):
        raise ValueError(
            f"sample is {sample!r}; expected a number of neighbours for each attention layer, the "
            "seeds' first, such as 10,10; -1 takes all"
        )
    return fanouts
