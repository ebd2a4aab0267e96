"""The training loop of agents that classify graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gat_ext.datasets import Fold, GraphDataset
from gat_ext.models.walks import WalkModel, WalkOutput
from gat_ext.training.fold_loop import FoldRecipe, FoldTrainer

_EVALUATED = 10_000  # agents at a time where nothing is learned


@dataclass(frozen=True)
class GraphRecipe(FoldRecipe):
    """Settings of a training run, all but the network.

    Attributes:
        eval_agents: agents of each graph in validation and test; 0: as many as in training.
        reinforce: weight of the part of the loss that teaches agents where to go.
    """

    eval_agents: int = 0
    reinforce: float = 0.1


class GraphTrainer(FoldTrainer[WalkModel]):
    """Trains one model of walking agents on one fold.

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
        super().__init__(make_model, data, fold, recipe, seed)
        self.recipe = recipe

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

    def _loss(self, graphs: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the parts, and the cross-entropy."""
        loss = self.model.loss(self.run(graphs), self.data.y[graphs])
        return loss.total(self.recipe.reinforce), loss.classification

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
