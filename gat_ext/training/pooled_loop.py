"""The training loop of attention networks with pooling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gat_ext.datasets import Fold, GraphDataset
from gat_ext.models import PooledModel, Rescaled
from gat_ext.training.fold_loop import FoldRecipe, FoldTrainer
from gat_ext.training.loop import parameter_groups
from gat_ext.training.metrics import objective


@dataclass(frozen=True)
class PooledRecipe(FoldRecipe):
    """Settings of a training run, all but the network.

    Attributes:
        weight_decay: factor of the L2 penalty's gradient, on all parameters but biases.
    """

    lr: float = 0.01
    final_lr: float = 0.001
    weight_decay: float = 0.0


class PooledTrainer(FoldTrainer[PooledModel]):
    """Trains one model on one fold.

    Args:
        make_model: makes the model; called after the seed is set.
        data: all graphs, on the device to train on; x has what the model sees of the nodes, and
            edge_attr of the edges if the model has an edge_dim.
        fold: which of them to train, validate and test with.
        recipe: optimiser, length and stopping.
        seed: of torch's generators.

    Raises:
        ValueError: the nodes have no x.

    Example:
        >>> from dataclasses import replace
        >>> from gat_ext.datasets import load_graphs
        >>> from gat_ext.models import GAT
        >>> data = load_graphs("shapes", num_graphs=50)
        >>> data = replace(data, x=torch.eye(data.num_types)[data.node_type])
        >>> make = lambda: PooledModel.preset(GAT, data.num_types, 2, num_layers=1)
        >>> trainer = PooledTrainer(make, data, data.folds(2)[0], PooledRecipe(epochs=3), seed=0)
        >>> while trainer.step(): pass
        >>> trainer.result().epochs
        3
    """

    def __init__(
        self,
        make_model: Callable[[], PooledModel],
        data: GraphDataset,
        fold: Fold,
        recipe: PooledRecipe,
        seed: int,
    ) -> None:
        if data.x is None:
            raise ValueError(
                f"{data.name} has no x, which the model reads; expected features of nodes [N, C]: "
                "for types, dataclasses.replace(data, x=torch.eye(data.num_types)[data.node_type])"
            )
        train = data.y[fold.train.to(data.y.device)]

        def fitted() -> PooledModel:
            model = make_model()
            for layer in model.modules():
                if isinstance(layer, Rescaled):
                    layer.fit(train)
            return model

        self.recipe = recipe
        super().__init__(fitted, data, fold, recipe, seed)
        scales = [layer.deviation for layer in self.model.modules() if isinstance(layer, Rescaled)]
        self.objective = objective(data, *scales)
        self.metric = self.objective.metric
        self._validation, self._tested = data.subset(self.fold.val), data.subset(self.fold.test)

    def _parameters(self, model: PooledModel) -> Any:
        return parameter_groups(model, self.recipe.weight_decay)

    def _edges(self, graphs: GraphDataset) -> Tensor | None:
        """What the attention sees of the edges."""
        return None if self.model.network.edge_dim is None else graphs.edge_attr

    def attention(self, graphs: GraphDataset) -> list[tuple[Tensor, Tensor]]:
        """The attention of each layer: (edge_index [2, E'], alpha [E', H])."""
        assert graphs.x is not None
        edge_attr = self._edges(graphs)
        return self.model.attention_weights(graphs.x, graphs.graph, edge_attr=edge_attr)

    def _logits(self, graphs: GraphDataset) -> Tensor:
        assert graphs.x is not None
        logits: Tensor = self.model(
            graphs.x, graphs.graph, node_ptr=graphs.node_ptr, edge_attr=self._edges(graphs)
        )
        return logits

    def _loss(self, graphs: Tensor) -> tuple[Tensor, Tensor]:
        batch = self.data.subset(graphs)
        loss = self.objective.loss(self._logits(batch), batch.y)
        return loss, loss

    @torch.no_grad()
    def _evaluate(self, graphs: GraphDataset) -> tuple[float, float]:
        self.model.eval()
        logits = self._logits(graphs)
        loss = self.objective.loss(logits, graphs.y)
        return loss.item(), self.objective.score(logits, graphs.y)

    def _validate(self) -> tuple[float, float]:
        return self._evaluate(self._validation)

    def _test(self) -> tuple[float, float]:
        return self._evaluate(self._tested)
