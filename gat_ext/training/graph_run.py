"""A run of graph classification by walking agents: cross-validation, a checkpoint, a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gat_ext.datasets import GraphDataset
from gat_ext.models import build_graphs
from gat_ext.models.walks import WalkModel
from gat_ext.training import walk_plots
from gat_ext.training.fold_run import FoldRun, FoldRunConfig, attributes_of
from gat_ext.training.graph_loop import GraphTrainer


@dataclass(frozen=True)
class GraphRunConfig(FoldRunConfig):
    """Settings of a run of walking agents; a checkpoint fits the same settings only."""

    def make_model(self, data: GraphDataset) -> WalkModel:
        """A new model for a data set: the preset, changed by the options.

        Raises:
            ValueError: ``attributes`` is set, and the data set has none.
        """
        changes: dict[str, Any] = dict(self.options)
        if self.attributes:
            changes["attribute_channels"] = attributes_of(data).shape[1]
        return build_graphs(self.model).preset(
            self.dataset, data.num_types, data.num_classes, **changes
        )


class GraphRun(FoldRun[GraphTrainer]):
    """Trains a model of walking agents on each fold, one after the other; see the base class.

    Raises:
        ValueError: the data set has other targets than classes, or is too small for the subset or
            the folds.
    """

    trainer_class = GraphTrainer

    def __init__(
        self, config: GraphRunConfig, data: GraphDataset, folder: Path, root: Path | None = None
    ) -> None:
        data.require_classes(config.model)
        super().__init__(config, data, folder, root)

    def _draw(self) -> list[str]:
        """Writes curves.png and walks.png (of the first fold)."""
        walk_plots.curves(self.results, self.title, self.folder / "curves.png")
        trainer = self._make_trainer(0)
        trainer.model.load_state_dict(self.best_models[0])
        walk_plots.walks(trainer, self.title, self.folder / "walks.png")
        return []
