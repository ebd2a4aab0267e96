"""A whole run on graphs: cross-validation, a checkpoint to go on from, a report with pictures."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gat_ext import __version__
from gat_ext.datasets import GraphDataset
from gat_ext.models import build_graphs
from gat_ext.models._walks import WalkModel
from gat_ext.training import checkpoint, walk_plots
from gat_ext.training.files import replacing
from gat_ext.training.graph_loop import GraphRecipe, GraphTrainer
from gat_ext.training.loop import SeedResult
from gat_ext.training.run import CHECKPOINT_SECONDS, Interrupted, _deferred_interrupt

Progress = Callable[[GraphTrainer], None]


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


class GraphRun:
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
        self.config, self.data, self.folder = config, data, folder
        self.folds = data.folds(config.folds, seed=config.seed)
        self.results: list[SeedResult] = []
        self.trainer: GraphTrainer | None = None
        self.best_models: list[dict[str, Any]] = []
        self._resumed: dict[str, Any] | None = None
        self._saved = 0.0  # when the last checkpoint was written

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint is."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> None:
        """Goes on from the folder's checkpoint.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is of another run.
        """
        state = checkpoint.load(self.checkpoint_path, self.data.y.device)
        missing = {"config", "results", "best_models", "trainer"} - state.keys()
        if missing:
            raise ValueError(
                f"{self.checkpoint_path} is not of a run on graphs: it has no {min(missing)}"
            )
        differing = [k for k, v in asdict(self.config).items() if state["config"].get(k) != v]
        if differing:
            raise ValueError(
                f"{self.checkpoint_path} is of another run: {', '.join(differing)} differ; "
                "give the same options, or another --out"
            )
        self.results = [SeedResult(**result) for result in state["results"]]
        self.best_models, self._resumed = state["best_models"], state["trainer"]

    def train(self, progress: Progress) -> None:
        """Trains on all folds that are left; calls ``progress`` after every epoch.

        Raises:
            Interrupted: on Ctrl-C, after the running epoch; the checkpoint holds all of it.
            KeyboardInterrupt: on a second Ctrl-C, at once; the checkpoint is the last one written.
        """
        with _deferred_interrupt() as interrupted:
            while len(self.results) < self.config.folds:
                self.trainer = self._make_trainer(len(self.results))
                if self._resumed is not None:
                    self.trainer.load_state_dict(self._resumed)
                    self._resumed = None
                self.save_checkpoint()
                self._train_fold(self.trainer, progress, interrupted)
                self.results.append(self.trainer.result())
                self.best_models.append(self.trainer.best_state)
                self.trainer = None
                self.save_checkpoint()

    def _make_trainer(self, fold: int) -> GraphTrainer:
        return GraphTrainer(
            lambda: self.config.make_model(self.data),
            self.data,
            self.folds[fold],
            self.config.recipe,
            self.config.seed + fold,
        )

    def _train_fold(
        self, trainer: GraphTrainer, progress: Progress, interrupted: list[bool]
    ) -> None:
        while not trainer.finished:
            trainer.step()
            progress(trainer)
            if interrupted:
                self.save_checkpoint()
                raise Interrupted
            if time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
                self.save_checkpoint()

    def save_checkpoint(self) -> None:
        """Writes all that :meth:`resume` needs."""
        state = {
            "config": asdict(self.config),
            "results": [asdict(result) for result in self.results],
            "best_models": self.best_models,
            "trainer": None if self.trainer is None else self.trainer.state_dict(),
        }
        checkpoint.save(state, self.checkpoint_path)
        self._saved = time.monotonic()

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
