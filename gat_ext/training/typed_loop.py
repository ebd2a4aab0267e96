"""The training loop of models of nodes and edges of several types."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gat_ext.datasets import TypedDataset
from gat_ext.models import TypedModel
from gat_ext.training import metrics
from gat_ext.training.epochs import EpochTrainer
from gat_ext.training.loop import parameter_groups
from gat_ext.training.recipes import Recipe

Relation = tuple[str, str, str]


class TypedInputs(NamedTuple):
    """What a model reads of a data set.

    Attributes:
        x: features of each type.
        edge_index: edges of each relation, or of each meta-path.
    """

    x: dict[str, Tensor]
    edge_index: dict[Relation, Tensor]

    @property
    def metadata(self) -> tuple[list[str], list[Relation]]:
        """(node types, relations)."""
        return list(self.x), list(self.edge_index)

    @property
    def in_channels(self) -> dict[str, int]:
        """Size of the features of each type."""
        return {kind: x.shape[1] for kind, x in self.x.items()}


def inputs_of(model: TypedModel | type[TypedModel], data: TypedDataset) -> TypedInputs:
    """The relations of a data set, or its meta-paths between nodes of the target type.

    Raises:
        ValueError: the model reads meta-paths, and the data set has none.
    """
    if not model.reads_metapaths:
        return TypedInputs(data.x, data.edge_index)
    if not data.metapaths:
        raise ValueError(f"{data.name} has no meta-paths, which the model reads; choose another")
    return TypedInputs({data.target: data.x[data.target]}, data.metapath_edge_index)


class TypedTrainer(EpochTrainer[TypedModel]):
    """Trains one model with one seed, on all labelled nodes at once.

    Args:
        make_model: makes the model; called after the seed is set.
        data: the data set, on the device to train on.
        recipe: optimiser, length and stopping; it has no batches of graphs.
        seed: of torch's generators.

    Raises:
        ValueError: the data set has no training, validation or test nodes.

    Example:
        >>> from gat_ext.datasets import load_typed
        >>> from gat_ext.models import HGT
        >>> data = load_typed("academic")
        >>> def make(): return HGT(32, 8, 4, data.metadata, data.target)
        >>> trainer = TypedTrainer(make, data, Recipe(epochs=2), seed=0)
        >>> while trainer.step(): pass
        >>> trainer.result().epochs
        2
    """

    extendable = True

    def __init__(
        self, make_model: Callable[[], TypedModel], data: TypedDataset, recipe: Recipe, seed: int
    ) -> None:
        data.require_splits()
        torch.manual_seed(seed)
        self.data, self.recipe = data, recipe
        model = make_model().to(data.y.device)
        groups = parameter_groups(model, recipe.weight_decay)
        super().__init__(model, torch.optim.Adam(groups, lr=recipe.lr, fused=True), recipe, seed)
        self.inputs = inputs_of(model, data)

    def _logits(self, mask: Tensor) -> Tensor:
        """float32, of the nodes of a mask."""
        with torch.autocast(mask.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            logits: Tensor = self.model(*self.inputs)
        return logits[mask].float()

    def _train_epoch(self) -> float:
        self.model.train()
        mask = self.data.train_mask
        loss = metrics.loss(self._logits(mask), self.data.y[mask], False)
        self._step(loss)
        return loss.item()

    @torch.no_grad()
    def _evaluate(self, mask: Tensor) -> tuple[float, float]:
        self.model.eval()
        logits, labels = self._logits(mask), self.data.y[mask]
        return metrics.loss(logits, labels, False).item(), metrics.score(logits, labels, False)

    def _validate(self) -> tuple[float, float]:
        return self._evaluate(self.data.val_mask)

    def _test(self) -> tuple[float, float]:
        return self._evaluate(self.data.test_mask)
