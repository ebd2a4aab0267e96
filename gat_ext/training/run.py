"""A whole run: several seeds, a checkpoint to go on from, a report with pictures."""

from __future__ import annotations

import json
import platform
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gat_ext import __version__
from gat_ext.datasets import NodeDataset
from gat_ext.models import AttentionModel, build
from gat_ext.training import plots
from gat_ext.training.checkpointed import CheckpointedRun
from gat_ext.training.files import replacing
from gat_ext.training.loop import Trainer
from gat_ext.training.recipes import Recipe


@dataclass(frozen=True)
class RunConfig:
    """What a run is; a checkpoint goes on only with the same one.

    Attributes:
        model: name of the model.
        dataset: name of the data set.
        seed: first seed.
        seeds: number of seeds.
        recipe: how to train.
        options: changes to the constructor arguments of the model's preset; empty for the preset itself.
        reorder: how :meth:`NodeDataset.reorder` renumbers the nodes before training; None leaves them.
    """

    model: str
    dataset: str
    seed: int
    seeds: int
    recipe: Recipe
    options: dict[str, int | float]
    reorder: str | None = None

    def make_model(self, data: NodeDataset) -> AttentionModel:
        """A new model for a data set: the preset, with the options in place of what it says."""
        return _with(build(self.model), self.options).preset(
            self.dataset, data.num_features, data.num_classes
        )


def _with(cls: type[AttentionModel], options: dict[str, int | float]) -> type[AttentionModel]:
    """A model whose presets are built with some constructor arguments changed."""
    changes = dict(options)
    hidden = changes.pop("hidden_channels", None)

    def init(self: Any, inputs: int, preset: int, outputs: int, **arguments: Any) -> None:
        cls.__init__(self, inputs, hidden or preset, outputs, **{**arguments, **changes})

    return type(cls.__name__, (cls,), {"__init__": init})


class Run(CheckpointedRun[Trainer]):
    """Trains a model with several seeds, one after the other.

    Args:
        config: what to train.
        data: on the device to train on.
        folder: where checkpoint and report go.
    """

    def __init__(self, config: RunConfig, data: NodeDataset, folder: Path) -> None:
        if config.reorder is not None:
            data, _ = data.reorder(config.reorder)
        super().__init__(config, data.x.device, folder)
        self.config, self.data = config, data

    @property
    def trainings(self) -> int:
        """One for each seed."""
        return self.config.seeds

    def _make_trainer(self, number: int) -> Trainer:
        return Trainer(
            lambda: self.config.make_model(self.data),
            self.data,
            self.config.recipe,
            self.config.seed + number,
        )

    def _keep(self, state: dict[str, Any]) -> None:
        self.best_models = [state]  # the report draws the last one's attention

    def summary(self) -> tuple[float, float]:
        """Mean and sample standard deviation of the test score over the seeds; 0 deviation for one seed."""
        scores = [result.test_score for result in self.results]
        return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else 0.0

    def report(self, **extra: Any) -> None:
        """Writes metrics.json, curves.png and attention.png into the folder."""
        mean, deviation = self.summary()
        report = {
            "config": asdict(self.config),
            "test_score_mean": mean,
            "test_score_std": deviation,
            "metric": "micro-F1" if self.data.multilabel else "accuracy",
            **extra,
            "versions": {
                "gat_ext": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "device": str(self.data.x.device),
            "threads": torch.get_num_threads(),
            "seeds": [asdict(result) for result in self.results],
        }
        with replacing(self.folder / "metrics.json") as file:
            file.write(json.dumps(report, indent=1).encode() + b"\n")
        title = f"{self.config.model} on {self.config.dataset}"
        plots.curves(self.results, report["metric"], title, self.folder / "curves.png")
        model = self.config.make_model(self.data).to(self.data.x.device)
        model.load_state_dict(self.best_models[-1])
        layers = model.attention_weights(self.data.x, self.data.edge_index)
        plots.attention(layers, self.data.num_nodes, title, self.folder / "attention.png")
