"""The training loop of one fold of a cross-validation, whatever the model of graphs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gat_ext.datasets import Fold, GraphDataset
from gat_ext.training.epochs import EpochTrainer, Model, Settings


@dataclass(frozen=True)
class FoldRecipe(Settings):
    """Settings of a training run, all but the network.

    Attributes:
        lr: learning rate of Adam in the first epoch.
        final_lr: in the last one; it falls by the same factor from each to the next.
        epochs: at most so many.
        patience: epochs without improvement before training stops.
        batch_size: graphs in a batch.
        stopping: rule of :func:`gat_ext.training.stopping.make_stopping`.
    """

    lr: float = 1e-3
    final_lr: float = 1e-4
    epochs: int = 200
    patience: int = 50
    batch_size: int = 32
    stopping: str = "best"

    def lr_of(self, epoch: int) -> float:
        """Learning rate of an epoch, the first of which is 0.

        Example:
            >>> recipe = FoldRecipe(lr=0.1, final_lr=0.001, epochs=3)
            >>> [round(recipe.lr_of(epoch), 6) for epoch in range(3)]
            [0.1, 0.01, 0.001]
        """
        share = epoch / max(self.epochs - 1, 1)
        return float(self.lr * (min(self.final_lr, self.lr) / self.lr) ** share)


class FoldTrainer(EpochTrainer[Model]):
    """Trains one model on one fold.

    Args:
        make_model: makes the model; called after the seed is set.
        data: all graphs, on the device to train on.
        fold: which of them to train, validate and test with.
        recipe: optimiser, length and stopping.
        seed: of torch's generators.
    """

    def __init__(
        self,
        make_model: Callable[[], Model],
        data: GraphDataset,
        fold: Fold,
        recipe: FoldRecipe,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        device = data.y.device
        self.data = data
        self.fold = Fold(*(part.to(device) for part in fold))
        self._fold_recipe = recipe
        model = make_model().to(device)
        optimizer = torch.optim.Adam(self._parameters(model), lr=recipe.lr, fused=True)
        super().__init__(model, optimizer, recipe, seed)

    def _parameters(self, model: Model) -> Any:
        """The parameters of a model, or groups of them, for the optimizer."""
        return model.parameters()

    @abstractmethod
    def _loss(self, graphs: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of some training graphs to minimise, and the one to report, scalars."""

    def _train_epoch(self) -> float:
        """The mean of the reported loss over the training graphs."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._fold_recipe.lr_of(self.epoch)
        train = self.fold.train
        total = 0.0
        for batch in train[torch.randperm(len(train)).to(train.device)].split(
            self._fold_recipe.batch_size
        ):
            loss, reported = self._loss(batch)
            self._step(loss)
            total += reported.item() * len(batch)
        return total / len(train)
