"""The training loop of models that classify graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gat_ext.datasets import Fold, GraphDataset
from gat_ext.models.walks import WalkModel, WalkOutput
from gat_ext.training.epochs import EpochTrainer, Settings

_EVALUATED = 10_000  # agents at a time where nothing is learned


@dataclass(frozen=True)
class GraphRecipe(Settings):
    """Settings of a training run, all but the network.

    Attributes:
        lr: learning rate of Adam in the first epoch.
        final_lr: in the last one; it falls by the same factor from each to the next.
        epochs: at most so many.
        patience: epochs without improvement before training stops.
        batch_size: graphs in a batch.
        eval_agents: agents of each graph in validation and test; 0: as many as in training.
        reinforce: weight of the part of the loss that teaches agents where to go.
        stopping: rule of :func:`gat_ext.training.stopping.make_stopping`.
    """

    lr: float = 1e-3
    final_lr: float = 1e-4
    epochs: int = 200
    patience: int = 50
    batch_size: int = 32
    eval_agents: int = 0
    reinforce: float = 0.1
    stopping: str = "best"

    def lr_of(self, epoch: int) -> float:
        """Learning rate of an epoch, the first of which is 0.

        Example:
            >>> recipe = GraphRecipe(lr=0.1, final_lr=0.001, epochs=3)
            >>> [round(recipe.lr_of(epoch), 6) for epoch in range(3)]
            [0.1, 0.01, 0.001]
        """
        share = epoch / max(self.epochs - 1, 1)
        return float(self.lr * (min(self.final_lr, self.lr) / self.lr) ** share)


class GraphTrainer(EpochTrainer[WalkModel]):
    """Trains one model on one fold.

    Args:
        make_model: makes the model; called after the seed is set.
        data: all graphs, on the device to train on.
        fold: which of them to train, validate and test with.
        recipe: optimiser, length and stopping.
        seed: of torch's generators, and of the walks of validation and test.

    Raises:
        ValueError: the data set has other targets than classes.

    Example:
        >>> from gat_ext.datasets import load_graphs
        >>> from gat_ext.models import GAM
        >>> data = load_graphs("shapes", num_graphs=50)
        >>> make = lambda: GAM(data.num_types, 2, num_agents=2, num_steps=3, hidden_channels=8)
        >>> trainer = GraphTrainer(make, data, data.folds(2)[0], GraphRecipe(epochs=3), seed=0)
        >>> while trainer.step(): pass
        >>> trainer.result().epochs
        3
    """

    def __init__(
        self,
        make_model: Callable[[], WalkModel],
        data: GraphDataset,
        fold: Fold,
        recipe: GraphRecipe,
        seed: int,
    ) -> None:
        data.require_classes("training")
        torch.manual_seed(seed)
        device = data.y.device
        self.data, self.recipe = data, recipe
        self.fold = Fold(*(part.to(device) for part in fold))
        model = make_model().to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr, fused=True)
        super().__init__(model, optimizer, recipe, seed)

    def run(
        self, graphs: Tensor, seed: Tensor | None = None, num_agents: int | None = None
    ) -> WalkOutput:
        """What the model says of some graphs, int64 [G]."""
        data = self.data
        seen = None if self.model.agent.attribute_channels is None else data.x
        out: WalkOutput = self.model(
            data.graph,
            data.node_type,
            data.node_ptr,
            graphs=graphs,
            num_agents=num_agents,
            attributes=seen,
            seed=seed,
        )
        return out

    def _train_epoch(self) -> float:
        """Mean cross-entropy over the training graphs."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr_of(self.epoch)
        train = self.fold.train
        total = 0.0  # of the cross-entropy
        for batch in train[torch.randperm(len(train)).to(train.device)].split(
            self.recipe.batch_size
        ):
            loss = self.model.loss(self.run(batch), self.data.y[batch])
            self._step(loss.total(self.recipe.reinforce))
            total += loss.classification.item() * len(batch)
        return total / len(train)

    @torch.no_grad()
    def _evaluate(self, graphs: Tensor) -> tuple[float, float]:
        """Cross-entropy and accuracy of the agents' average; equal weights take equal walks."""
        self.model.eval()
        seed = torch.tensor([self.seed], device=graphs.device)
        agents = self.recipe.eval_agents or self.model.num_agents
        parts = graphs.split(max(_EVALUATED // agents, 1))
        p = torch.cat([self.run(part, seed, agents).probabilities for part in parts])
        y = self.data.y[graphs]
        log_p = p.clamp(min=torch.finfo(p.dtype).tiny).log()
        return F.nll_loss(log_p, y).item(), (p.argmax(1) == y).double().mean().item()

    def _validate(self) -> tuple[float, float]:
        return self._evaluate(self.fold.val)

    def _test(self) -> tuple[float, float]:
        return self._evaluate(self.fold.test)
