"""The training loop of node embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gat_ext.datasets import NodeDataset
from gat_ext.models import AttentionWalk
from gat_ext.training.epochs import EpochTrainer, Settings
from gat_ext.training.metrics import logistic_regression


@dataclass(frozen=True)
class EmbeddingRecipe(Settings):
    """Settings of a training run, all but the model.

    Attributes:
        lr: learning rate of Adam in the first step; it falls linearly to 0.
        weight_decay: factor of the mean squared length of a node's embedding, added to the loss.
            The paper has no such penalty; it was chosen by validation accuracy, on cora and
            citeseer, which it raises by 2 to 3 points.
        epochs: how many, in each of which every node starts ``walks_per_epoch`` walks.
        walks_per_epoch: see there.
        batch_size: walks in a step.
        num_pairs: see :meth:`gat_ext.models.AttentionWalk.loss`.
        patience: not used: training takes all epochs, for nothing but the graph is learned from.
        stopping: rule of :func:`gat_ext.training.stopping.make_stopping`.
    """

    lr: float = 0.02
    weight_decay: float = 0.1
    epochs: int = 40
    walks_per_epoch: int = 10
    batch_size: int = 1024
    num_pairs: int = 512
    patience: int = 1
    stopping: str = "last"


class EmbeddingTrainer(EpochTrainer[AttentionWalk]):
    """Trains embeddings with one seed, from the graph alone.

    Logistic regression on their directions classifies the nodes.

    Args:
        make_model: makes the model; called after the seed is set.
        data: the data set, on the device to train on. Labels of training nodes are for the logistic
            regression, those of validation nodes for the choice of its penalty.
        recipe: optimiser and length.
        seed: of torch's generators.

    Raises:
        ValueError: nodes have several labels, or the data set has no training, validation or test
            nodes.

    Example:
        >>> from gat_ext.datasets import load
        >>> from gat_ext.models import AttentionWalk
        >>> data = load("karate")
        >>> make = lambda: AttentionWalk(data.num_nodes, embedding_channels=8)
        >>> trainer = EmbeddingTrainer(make, data, EmbeddingRecipe(epochs=3), seed=0)
        >>> while trainer.step(): pass
        >>> trainer.result().epochs
        3
    """

    def __init__(
        self,
        make_model: Callable[[], AttentionWalk],
        data: NodeDataset,
        recipe: EmbeddingRecipe,
        seed: int,
    ) -> None:
        if data.multilabel:
            raise ValueError(
                f"nodes of {data.name} have several labels; expected one label for each node, "
                "which the test of embeddings predicts"
            )
        data.require_splits()
        torch.manual_seed(seed)
        self.data, self.recipe = data, recipe
        self.graph = data.graph
        model = make_model().to(data.y.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr, fused=True)
        super().__init__(model, optimizer, recipe, seed)

    def _train_epoch(self) -> float:
        starts = self._starts()
        steps = len(starts) * self.recipe.epochs
        total = 0.0
        for step, start in enumerate(starts, start=len(starts) * self.epoch):
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.lr * (1 - step / steps)
            loss = self._loss(start)
            self._step(loss)
            total += loss.item()
        return total / len(starts)

    def _starts(self) -> list[Tensor]:
        """Where the walks of an epoch start, in batches."""
        nodes, device = self.data.num_nodes, self.data.y.device
        rounds = [torch.randperm(nodes, device=device) for _ in range(self.recipe.walks_per_epoch)]
        return list(torch.cat(rounds).split(self.recipe.batch_size))

    def _loss(self, start: Tensor | None = None) -> Tensor:
        loss = self.model.loss(self.graph, start, num_pairs=self.recipe.num_pairs).total()
        lengths = self.model.left.square().sum() + self.model.right.square().sum()
        return loss + self.recipe.weight_decay / self.data.num_nodes * lengths

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """The loss, with the same walks and pairs each time, and accuracy of a logistic model."""
        devices = [self.data.y.device] if self.data.y.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            loss = self._loss().item()
        self._classifier = logistic_regression(self._directions(), self.data, (0.1, 1.0, 10.0))
        return loss, self._classifier.val_score

    def _directions(self) -> Tensor:
        """The embeddings at length 1, for the classifier."""
        return F.normalize(self.model(), dim=1)

    @torch.no_grad()
    def _test(self) -> tuple[float, float]:
        """Of the classifier that was validated last."""
        return float("nan"), self._classifier.score(
            self._directions(), self.data.y, self.data.test_mask
        )
