"""What runs share: several trainings one after the other, and a checkpoint to go on from."""

from __future__ import annotations

import json
import platform
import statistics
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from signal import SIG_IGN, SIGINT, getsignal, signal
from types import FrameType
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch

from gat_ext import __version__
from gat_ext.training import checkpoint
from gat_ext.training.epochs import EpochTrainer, SeedResult, check_history
from gat_ext.training.files import replacing

CHECKPOINT_SECONDS = 10.0

AnyTrainer = TypeVar("AnyTrainer", bound=EpochTrainer[Any])


class Interrupted(Exception):
    """Training was interrupted; the checkpoint is complete."""


class Config(Protocol):
    """What a run is: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class CheckpointedRun(ABC, Generic[AnyTrainer]):
    """Trains several models, one after the other, and reports on them.

    Args:
        config: what to train; a checkpoint goes on only with the same one.
        device: to load a checkpoint to.
        folder: where checkpoint and report go.

    Attributes:
        unit: what one of the trainings is called.
        metric: what the score is.
    """

    unit: ClassVar[str] = "seed"
    metric = "accuracy"

    def __init__(self, config: Config, device: torch.device, folder: Path) -> None:
        self._settings, self._device, self.folder = config, device, folder
        self.results: list[SeedResult] = []
        self.trainer: AnyTrainer | None = None
        self.best_models: list[dict[str, Any]] = []
        self._resumed: dict[str, Any] | None = None
        self._saved = 0.0  # when the last checkpoint was written

    @property
    @abstractmethod
    def trainings(self) -> int:
        """How many there are."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """What is trained, and on what, in a line."""

    @abstractmethod
    def report(self) -> list[str]:
        """Writes metrics and pictures into the folder; returns lines to show beside the score."""

    @abstractmethod
    def _make_trainer(self, number: int) -> AnyTrainer:
        """Of a training, the first of which is 0."""

    def number(self, index: int) -> int:
        """What a training is numbered by in what people read; seeds unless overridden."""
        return int(asdict(self._settings)["seed"]) + index

    def summary(self) -> tuple[float, float]:
        """Mean and sample standard deviation of the test score over the trainings; 0 deviation for a single one."""
        scores = [result.test_score for result in self.results]
        return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else 0.0

    def _write_metrics(self, **more: Any) -> None:
        """Writes metrics.json: what was run, what came out, with what."""
        mean, deviation = self.summary()
        report = {
            "config": asdict(self._settings),
            "test_score_mean": mean,
            "test_score_std": deviation,
            "metric": self.metric,
            **more,
            "versions": {
                "gat_ext": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "device": str(self._device),
            "threads": torch.get_num_threads(),
            f"{self.unit}s": [
                {self.unit: self.number(index), **asdict(result)}
                for index, result in enumerate(self.results)
            ],
        }
        with replacing(self.folder / "metrics.json") as file:
            file.write(json.dumps(report, indent=1).encode() + b"\n")

    def _keep(self, state: dict[str, Any]) -> None:
        """Keeps the weights of a finished training."""
        self.best_models.append(state)

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
        state = checkpoint.load(self.checkpoint_path, self._device)
        missing = {"config", "results", "best_models", "trainer"} - state.keys()
        if missing:
            raise ValueError(f"{self.checkpoint_path} is not of a run: it has no {min(missing)}")
        given, own = state["config"], asdict(self._settings)
        if not isinstance(given, dict):
            raise ValueError(
                f"{self.checkpoint_path} is not of a run: its config is of type {type(given).__name__}"
            )
        # A checkpoint from before there was a setting is one of its default, None.
        differing = [k for k, v in own.items() if not checkpoint.same(given.get(k), v)]
        if differing:
            raise ValueError(
                f"{self.checkpoint_path} is of another run: {', '.join(differing)} differ; "
                "give the same options, or another --out"
            )
        with checkpoint.named(self.checkpoint_path):
            self._restore(state)

    def _restore(self, state: dict[str, Any]) -> None:
        like = asdict(SeedResult(0, 0, 0, 0.0, 0.0, 0.0, {})) | {"history": checkpoint.ANYTHING}
        checkpoint.check(state["results"], checkpoint.ListOf(like), "results")
        for index, result in enumerate(state["results"]):
            check_history(result["history"], f"results[{index}].history")
        if len(state["results"]) > self.trainings:
            raise ValueError(f"it has {len(state['results'])} results of {self.trainings}")
        weights = self._make_trainer(0).best_state
        self.best_models = []
        for _ in state["results"]:
            self._keep(weights)
        checkpoint.check(state["best_models"], self.best_models, "best_models")
        self.results = [SeedResult(**result) for result in state["results"]]
        self.best_models = [dict(model) for model in state["best_models"]]
        self._resumed = state["trainer"]

    def train(self, progress: Callable[[AnyTrainer], None]) -> None:
        """Trains all that is left; calls ``progress`` after every epoch.

        Raises:
            Interrupted: on Ctrl-C, after the running epoch; the checkpoint holds all of it.
            KeyboardInterrupt: on a second Ctrl-C, at once; the checkpoint is the last one written.
        """
        with _deferred_interrupt() as interrupted:
            while len(self.results) < self.trainings:
                self.trainer = trainer = self._make_trainer(len(self.results))
                if self._resumed is not None:
                    with checkpoint.named(self.checkpoint_path):
                        trainer.load_state_dict(self._resumed)
                    self._resumed = None
                self.save_checkpoint()
                self._train_one(trainer, progress, interrupted)
                self.results.append(trainer.result())
                self._keep(trainer.best_state)
                self.trainer = None
                self.save_checkpoint()

    def _train_one(
        self,
        trainer: AnyTrainer,
        progress: Callable[[AnyTrainer], None],
        interrupted: list[bool],
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
            "config": asdict(self._settings),
            "results": [asdict(result) for result in self.results],
            "best_models": self.best_models,
            "trainer": None if self.trainer is None else self.trainer.state_dict(),
        }
        checkpoint.save(state, self.checkpoint_path)
        self._saved = time.monotonic()


@contextmanager
def _deferred_interrupt() -> Iterator[list[bool]]:
    """Turns the first Ctrl-C into a note, so that an epoch is never cut in half; the second one is immediate.

    A run that ignores Ctrl-C, being in the background, goes on to; only the main thread can watch
    for it.
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
