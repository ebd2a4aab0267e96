"""A whole run on graphs: cross-validation, a checkpoint to go on from, a report with pictures."""

from __future__ import annotations

import json
import platform
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from gat_ext import __version__
from gat_ext.datasets import GraphDataset
from gat_ext.models import build_graphs
from gat_ext.models._walks import WalkModel
from gat_ext.training import walk_plots
from gat_ext.training.checkpointed import CheckpointedRun
from gat_ext.training.files import replacing
from gat_ext.training.graph_loop import GraphRecipe, GraphTrainer


@dataclass(frozen=True)
class GraphRunConfig:
    """What a run is; a checkpoint goes on only with the same one.

    Attributes:
        model: name of the model.
        dataset: name of the data set.
        seed: of the subset, of the folds and of the first fold's training; the next ones count up.
        folds: number of folds.
        subset: graphs to draw first, equally many of each class; None takes all.
        recipe: how to train.
        options: changes to the constructor arguments of the model's preset; empty for the preset itself.
    """

    model: str
    dataset: str
    seed: int
    folds: int
    subset: int | None
    recipe: GraphRecipe
    options: dict[str, int | str]

    def make_model(self, data: GraphDataset) -> WalkModel:
        """A new model for a data set: the preset, with the options in place of what it says."""
        return build_graphs(self.model).preset(
            self.dataset, data.num_types, data.num_classes, **self.options
        )


class GraphRun(CheckpointedRun[GraphTrainer]):
    """Trains a model on each fold, one after the other.

    Args:
        config: what to train.
        data: on the device to train on.
        folder: where checkpoint and report go.

    Raises:
        ValueError: the data set is too small for the subset or the folds.
    """

    def __init__(self, config: GraphRunConfig, data: GraphDataset, folder: Path) -> None:
        if config.subset is not None:
            data = data.balanced(config.subset, seed=config.seed)
        super().__init__(config, data.y.device, folder)
        self.config, self.data = config, data
        self.folds = data.folds(config.folds, seed=config.seed)

    @property
    def trainings(self) -> int:
        """One for each fold."""
        return self.config.folds

    def _make_trainer(self, number: int) -> GraphTrainer:
        return GraphTrainer(
            lambda: self.config.make_model(self.data),
            self.data,
            self.folds[number],
            self.config.recipe,
            self.config.seed + number,
        )

    def summary(self) -> tuple[float, float]:
        """Mean and sample standard deviation of the test accuracy over the folds."""
        scores = [result.test_score for result in self.results]
        return statistics.fmean(scores), statistics.stdev(scores)

    def report(self) -> None:
        """Writes metrics.json, curves.png and walks.png into the folder; the walks are of the first fold's model."""
        mean, deviation = self.summary()
        data = self.data
        report = {
            "config": asdict(self.config),
            "graphs": len(data),
            "test_score_mean": mean,
            "test_score_std": deviation,
            "metric": "accuracy",
            "versions": {
                "gat_ext": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "device": str(data.y.device),
            "threads": torch.get_num_threads(),
            "folds": [
                {"fold": number, **asdict(result)}
                for number, result in enumerate(self.results, start=1)
            ],
        }
        with replacing(self.folder / "metrics.json") as file:
            file.write(json.dumps(report, indent=1).encode() + b"\n")
        title = f"{self.config.model} on {self.config.dataset}"
        walk_plots.curves(self.results, title, self.folder / "curves.png")
        trainer = self._make_trainer(0)
        trainer.model.load_state_dict(self.best_models[0])
        walk_plots.walks(trainer, title, self.folder / "walks.png")
