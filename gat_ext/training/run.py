"""A whole run: several seeds, a checkpoint to go on from, a report with pictures."""

from __future__ import annotations

import json
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import SIG_IGN, SIGINT, getsignal, signal
from types import FrameType
from typing import Any

import numpy as np
import torch

from gat_ext import __version__
from gat_ext.datasets import NodeDataset
from gat_ext.models import AttentionModel, build
from gat_ext.training import checkpoint, plots
from gat_ext.training.files import replacing
from gat_ext.training.loop import SeedResult, Trainer
from gat_ext.training.recipes import Recipe

CHECKPOINT_SECONDS = 10.0
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


class Run:
    """Trains a model with several seeds, one after the other.

    Args:
        config: what to train.
        data: on the device to train on.
        folder: where checkpoint and report go.
    """

    def __init__(self, config: RunConfig, data: NodeDataset, folder: Path) -> None:
        if config.reorder is not None:
            data, _ = data.reorder(config.reorder)
        self.config, self.data, self.folder = config, data, folder
        self.results: list[SeedResult] = []
        self.trainer: Trainer | None = None
        self.best_model: dict[str, Any] = {}
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
        state = checkpoint.load(self.checkpoint_path, self.data.x.device)
        missing = {"config", "results", "best_model", "trainer"} - state.keys()
        if missing:
            raise ValueError(f"{self.checkpoint_path} is not of a run: it has no {min(missing)}")
        # A checkpoint from before there was a setting is one of its default, None.
        differing = [k for k, v in asdict(self.config).items() if state["config"].get(k) != v]
        if differing:
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
            KeyboardInterrupt: on a second Ctrl-C, at once; the checkpoint is the last one written.
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
                self.save_checkpoint()
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
            if time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
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
        self._saved = time.monotonic()

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
        model.load_state_dict(self.best_model)
        layers = model.attention_weights(self.data.x, self.data.edge_index)
        plots.attention(layers, self.data.num_nodes, title, self.folder / "attention.png")


@contextmanager
def _deferred_interrupt() -> Iterator[list[bool]]:
    """Turns the first Ctrl-C into a note, so that an epoch is never cut in half; the second one is immediate.

    A run that ignores Ctrl-C, being in the background, goes on to; only the main thread can watch for it.
    """
    noted: list[bool] = []
    before = getsignal(SIGINT)
    if before in (None, SIG_IGN) or threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(True)
        signal(SIGINT, before)

    signal(SIGINT, note)
    try:
        yield noted
    finally:
        signal(SIGINT, before)
