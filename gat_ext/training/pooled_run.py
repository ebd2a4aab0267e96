"""A run of attention networks with pooling: cross-validation, a checkpoint, a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from gat_ext.datasets import GraphDataset
from gat_ext.models import PooledModel, build
from gat_ext.training import plots
from gat_ext.training.fold_run import FoldRun, FoldRunConfig, attributes_of, edge_attributes_of
from gat_ext.training.metrics import objective, remarks
from gat_ext.training.pooled_loop import PooledTrainer


@dataclass(frozen=True)
class PooledRunConfig(FoldRunConfig):
    """Settings of a run of pooled attention; a checkpoint fits the same settings only.

    Attributes:
        edge_attributes: whether the attention sees the data set's attributes of edges.
        task: what distinguishes it from a run on nodes.
    """

    edge_attributes: bool = False
    task: str = "graph"

    def make_model(self, data: GraphDataset) -> PooledModel:
        """A new model for a data set whose x is what the model sees of the nodes."""
        changes: dict[str, Any] = dict(self.options)
        changes["regression"] = data.task == "regression"
        if self.edge_attributes:
            changes["edge_dim"] = edge_attributes_of(data).shape[1]
        channels, outputs = attributes_of(data).shape[1], objective(data).outputs
        return PooledModel.preset(build(self.model), channels, outputs, **changes)


class PooledRun(FoldRun[PooledTrainer]):
    """Trains an attention network with pooling on each fold, one after the other.

    ``data.x`` has what the model sees of the nodes: the data set's attributes, or one channel for
    each type.

    Raises:
        ValueError: the data set is too small for the subset or the folds, or has no attributes.
    """

    trainer_class = PooledTrainer

    def __init__(
        self, config: PooledRunConfig, data: GraphDataset, folder: Path, root: Path | None = None
    ) -> None:
        if config.attributes:
            attributes_of(data)
        if config.edge_attributes:
            edge_attributes_of(data)
        super().__init__(config, data, folder, root)
        if not config.attributes:
            types = F.one_hot(self.data.node_type, self.data.num_types)
            self.data = self.given = self.data._derive(x=types.to(torch.float32))
        self.metric = objective(data).metric

    def _draw(self) -> list[str]:
        """Writes curves.png and attention.png (of the first fold)."""
        plots.curves(self.results, self.metric, self.title, self.folder / "curves.png", self.unit)
        trainer = self._make_trainer(0)
        trainer.model.load_state_dict(self.best_models[0])
        layers = trainer.attention(self.data)
        plots.attention(layers, self.data.num_nodes, self.title, self.folder / "attention.png")
        return remarks(layers, self.data.num_nodes)
