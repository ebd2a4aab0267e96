"""The training loop in several processes, each with a part of the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gat_ext import distributed
from gat_ext.models import AttentionModel
from gat_ext.training.loop import Trainer
from gat_ext.training.part_data import PartDataset
from gat_ext.training.recipes import Recipe


def loss_of_all(logits: Tensor, labels: Tensor, multilabel: bool, group: Any) -> Tensor:
    """The mean loss over the nodes of all processes, each of which has some."""
    loss = distributed.binary_cross_entropy if multilabel else distributed.cross_entropy
    return loss(logits, labels, group=group)


class DistTrainer(Trainer):
    """Trains one model with one seed in all processes of a group.

    Weights, losses and scores are the same in all of them, bit for bit, and with them the decisions
    to keep weights and to stop.

    Args:
        make_model: makes the model; called after the seed is set, which all processes share.
        data: of this process.
        recipe: as of :class:`Trainer`; ``graphs_per_batch`` is 0.
        seed: of torch's generators.
        group: the processes; None: all of them.
    """

    def __init__(
        self,
        make_model: Callable[[], AttentionModel],
        data: PartDataset,
        recipe: Recipe,
        seed: int,
        group: Any = None,
    ) -> None:
        self.group = group
        whole: Any = data  # of which the base class reads what a part has, too
        super().__init__(make_model, whole, recipe, seed)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return loss_of_all(logits, labels, self.data.multilabel, self.group)

    def _score(self, logits: Tensor, labels: Tensor) -> float:
        if not self.data.multilabel:
            return distributed.accuracy(logits, labels, group=self.group)
        predicted, true = logits > 0, labels > 0.5
        own = torch.stack([(predicted & true).sum(), predicted.sum() + true.sum()])
        hits, total = distributed.sum_over_processes(own, self.group).tolist()
        return 2 * hits / total if total else 1.0

    def _combine_gradients(self) -> None:
        distributed.average_gradients(self.model, self.group)
