"""A whole run: several seeds, a checkpoint to go on from, a report with pictures."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import SIGINT, getsignal, signal
from types import FrameType
from typing import Any

import torch

from gat_ext import __version__
from gat_ext.datasets import NodeDataset
from gat_ext.models import AttentionModel, build
from gat_ext.training import checkpoint, plots
from gat_ext.training.loop import SeedResult, Trainer
from gat_ext.training.recipes import Recipe

CHECKPOINT_EVERY = 100  # epochs
Progress = Callable[[Trainer], None]


class Interrupted(Exception):
    """Training was interrupted; the checkpoint is complete."""


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
    """

    model: str
    dataset: str
    seed: int
    seeds: int
    recipe: Recipe
    options: dict[str, int | float]

    def make_model(self, data: NodeDataset) -> AttentionModel:
        """A new model for a data set."""
        cls = build(self.model)
        if not self.options:
            return cls.preset(self.dataset, data.num_features, data.num_classes)
        options = dict(self.options)
        hidden = options.pop("hidden_channels", 16 if self.model == "agnn" else 8)
        make: Callable[..., AttentionModel] = cls
        return make(data.num_features, hidden, data.num_classes, **options)


class Run:
    """Trains a model with several seeds, one after the other.

    Args:
        config: what to train.
        data: on the device to train on.
        folder: where checkpoint and report go.
    """

    def __init__(self, config: RunConfig, data: NodeDataset, folder: Path) -> None:
        self.config, self.data, self.folder = config, data, folder
        self.results: list[SeedResult] = []
        self.trainer: Trainer | None = None
        self.best_model: dict[str, Any] = {}
        self._resumed: dict[str, Any] | None = None

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
        state = checkpoint.load(self.checkpoint_path, self.data.x.device)
        if state["config"] != asdict(self.config):
            differing = [k for k, v in asdict(self.config).items() if state["config"].get(k) != v]
            raise ValueError(
                f"{self.checkpoint_path} is of another run: {', '.join(differing)} differ; "
                "give the same options, or another --out"
            )
        self.results = [SeedResult(**result) for result in state["results"]]
        self.best_model, self._resumed = state["best_model"], state["trainer"]

    def train(self, progress: Progress) -> None:
        """Trains all seeds that are left; calls ``progress`` after every epoch.

        Raises:
            Interrupted: on Ctrl-C, after the running epoch; the checkpoint holds all of it.
        """
        with _deferred_interrupt() as interrupted:
            while len(self.results) < self.config.seeds:
                seed = self.config.seed + len(self.results)
                self.trainer = Trainer(
                    lambda: self.config.make_model(self.data), self.data, self.config.recipe, seed
                )
                if self._resumed is not None:
                    self.trainer.load_state_dict(self._resumed)
                    self._resumed = None
                self._train_seed(self.trainer, progress, interrupted)
                self.results.append(self.trainer.result())
                self.best_model = self.trainer.best_state
                self.trainer = None
                self.save_checkpoint()

    def _train_seed(self, trainer: Trainer, progress: Progress, interrupted: list[bool]) -> None:
        while not trainer.finished:
            trainer.step()
            progress(trainer)
            if interrupted:
                self.save_checkpoint()
                raise Interrupted
            if trainer.epoch % CHECKPOINT_EVERY == 0:
                self.save_checkpoint()

    def save_checkpoint(self) -> None:
        """Writes all that :meth:`resume` needs."""
        state = {
            "config": asdict(self.config),
            "results": [asdict(result) for result in self.results],
            "best_model": self.best_model,
            "trainer": None if self.trainer is None else self.trainer.state_dict(),
        }
        checkpoint.save(state, self.checkpoint_path)

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
                "python": platform.python_version(),
            },
            "seeds": [asdict(result) for result in self.results],
        }
        (self.folder / "metrics.json").write_text(json.dumps(report, indent=1) + "\n")
        title = f"{self.config.model} on {self.config.dataset}"
        plots.curves(self.results, title, self.folder / "curves.png")
        model = self.config.make_model(self.data).to(self.data.x.device)
        model.load_state_dict(self.best_model)
        layers = model.attention_weights(self.data.x, self.data.edge_index)
        plots.attention(layers, self.data.num_nodes, title, self.folder / "attention.png")


@contextmanager
def _deferred_interrupt() -> Iterator[list[bool]]:
    """Turns the first Ctrl-C into a note, so that an epoch is never cut in half; the second one is immediate."""
    noted: list[bool] = []
    before = getsignal(SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(True)
        signal(SIGINT, before)

    signal(SIGINT, note)
    try:
        yield noted
    finally:
        signal(SIGINT, before)
