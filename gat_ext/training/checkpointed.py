"""Base class of the runs: several trainings in turn, and a checkpoint to go on from."""

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
from gat_ext.training.metrics import ACCURACY
from gat_ext.training.settings import differences

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 10.0
CHECKPOINT_SHARE = 20  # times as long as writing the last checkpoint took, a run trains at least

AnyTrainer = TypeVar("AnyTrainer", bound=EpochTrainer[Any])


class Interrupted(Exception):
    """Training was interrupted; the checkpoint is complete."""


class Config(Protocol):
    """Settings of a run: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class CheckpointedRun(ABC, Generic[AnyTrainer]):
    """Trains several models in turn, and reports on them.

    Args:
        config: what to train.
        device: to load a checkpoint to.
        folder: of the checkpoint and the report.
        root: folder that the data set was read from; the checkpoint records it.

    Attributes:
        unit: what one of the trainings is called.
        metric: what the score is.
        may_grow: settings that may be larger when a checkpoint is resumed.
        results: of the trainings that ended.
        best_models: weights of the kept epoch of each of them.
    """

    unit: ClassVar[str] = "seed"
    may_grow: ClassVar[frozenset[str]] = frozenset()
    metric = ACCURACY

    def __init__(
        self, config: Config, device: torch.device, folder: Path, root: Path | None = None
    ) -> None:
        self._settings, self._device, self.folder, self.root = config, device, folder, root
        self.results: list[SeedResult] = []
        self.best_models: list[dict[str, Any]] = []
        self.trainer: AnyTrainer | None = None
        self.index = 0  # of the training that runs
        # States of the trainings that can go on: the one that was interrupted, and those that ended
        # because they reached the limit of epochs.
        self._states: dict[int, dict[str, Any]] = {}
        self._save_at = 0.0

    @property
    @abstractmethod
    def trainings(self) -> int:
        """How many there are."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """Model, data set and its sizes, in a line."""

    @abstractmethod
    def report(self) -> list[str]:
        """Writes metrics and pictures into the folder; returns lines to show beside the score."""

    @abstractmethod
    def make_model(self) -> torch.nn.Module:
        """A new model, on the run's device."""

    @abstractmethod
    def _make_trainer(self, number: int) -> AnyTrainer:
        """Of a training, the first of which is 0."""

    @property
    def _seed(self) -> int:
        """Of the first training."""
        return int(asdict(self._settings)["seed"])

    def number(self, index: int) -> int:
        """Number of a training in the output and in metrics.json."""
        return self._seed + index

    def summary(self) -> tuple[float, float]:
        """Mean and sample standard deviation of the test scores; 0 deviation for a single one."""
        scores = [result.test_score for result in self.results]
        return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else 0.0

    def metrics(self) -> dict[str, Any]:
        """Settings and scores of the trainings that ended, as metrics.json has them."""
        mean, deviation = self.summary()
        return {
            "config": asdict(self._settings),
            "test_score_mean": mean,
            "test_score_std": deviation,
            "metric": self.metric.name,
            f"{self.unit}s": [
                {self.unit: self.number(index), **asdict(result)}
                for index, result in enumerate(self.results)
            ],
        }

    def _write_metrics(self, **more: Any) -> None:
        """Writes metrics.json: settings, scores, and what they were computed with."""
        report = {
            **self.metrics(),
            **more,
            "versions": {
                "gat_ext": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "device": str(self._device),
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }
        with replacing(self.folder / "metrics.json") as file:
            file.write(json.dumps(report, indent=1).encode() + b"\n")

    # ---- the checkpoint

    @property
    def checkpoint_path(self) -> Path:
        """Of the checkpoint."""
        return self.folder / CHECKPOINT

    def resume(self) -> None:
        """Loads the folder's checkpoint; :meth:`train` continues from there.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is of another run, or damaged.
        """
        self._take(checkpoint.load(self.checkpoint_path, self._device))

    def _take(self, state: dict[str, Any]) -> None:
        """Takes the content of the folder's checkpoint, if it is of this run."""
        check_keys(state, self.checkpoint_path)
        differing = differences(state["config"], asdict(self._settings), self.may_grow)
        if differing:
            raise ValueError(
                f"{self.checkpoint_path} is of another run: {'; '.join(differing)}. "
                "Give the same options, or another --out"
            )
        with checkpoint.named(self.checkpoint_path):
            self.restore(state)

    def restore(self, state: dict[str, Any]) -> None:
        """Takes results, weights and states from the content of a checkpoint, once all are checked.

        Raises:
            ValueError: they do not fit this run.
        """
        results, models, states = state["results"], state["best_models"], state["trainers"]
        like = asdict(SeedResult(0, 0, 0, 0.0, 0.0, 0.0, {})) | {"history": checkpoint.ANYTHING}
        checkpoint.check(results, checkpoint.ListOf(like), "results")
        for index, result in enumerate(results):
            check_history(result["history"], f"results[{index}].history")
        if len(results) > self.trainings:
            raise ValueError(f"it has {len(results)} results of {self.trainings}")
        trainer = self._make_trainer(0)
        checkpoint.check(models, [trainer.best_state] * len(results), "best_models")
        if not isinstance(states, dict):
            raise ValueError(f"trainers is of type {type(states).__name__}; expected a dictionary")
        for index, one in states.items():
            allowed = range(min(len(results) + 1, self.trainings))
            if not isinstance(index, int) or index not in allowed:
                raise ValueError(f"trainers has {index!r}; expected keys below {len(allowed)}")
            trainer.check_state_dict(one, self._seed + index)
        self.results = [SeedResult(**result) for result in results]
        self.best_models = [dict(model) for model in models]
        self._states = dict(states)

    def save_checkpoint(self) -> None:
        """Writes all that :meth:`resume` needs.

        Raises:
            OSError: it cannot be written.
        """
        start = time.monotonic()
        running = {} if self.trainer is None else {self.index: self.trainer.state_dict()}
        state = {
            "config": asdict(self._settings),
            "root": None if self.root is None else str(self.root.resolve()),
            "results": [asdict(result) for result in self.results],
            "best_models": self.best_models,
            "trainers": self._states | running,
        }
        checkpoint.save(state, self.checkpoint_path)
        now = time.monotonic()
        self._save_at = now + max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * (now - start))

    # ---- training

    def _next(self) -> int | None:
        """The first training that has not ended, or that a higher limit of epochs lets go on."""
        return next((i for i in range(self.trainings) if not self.is_over(i)), None)

    def is_over(self, index: int) -> bool:
        """Whether a training has ended, and the limit of epochs does not let it go on."""
        state = self._states.get(index)
        if index >= len(self.results) or state is None:
            return index < len(self.results)
        limit: int = asdict(self._settings)["recipe"]["epochs"]
        return len(state["history"]["val_loss"]) >= limit

    def train(
        self,
        progress: Callable[[AnyTrainer], None],
        ended: Callable[[int], None] = lambda index: None,
    ) -> None:
        """Trains all that is left.

        Args:
            progress: called after every epoch.
            ended: called with the index of a training when that ends.

        Raises:
            Interrupted: on Ctrl-C, after the running epoch, which the checkpoint includes.
            KeyboardInterrupt: on a second Ctrl-C, at once; the checkpoint is the last one written.
            OSError: a checkpoint cannot be written.
        """
        with _deferred_interrupt() as interrupted:
            while (index := self._next()) is not None:
                self.index, self.trainer = index, self._make_trainer(index)
                if index in self._states:
                    self.trainer.load_state_dict(self._states[index])
                self.save_checkpoint()
                self._train_one(self.trainer, progress, interrupted)
                self._end(self.trainer)
                self.save_checkpoint()
                ended(index)

    def _train_one(
        self,
        trainer: AnyTrainer,
        progress: Callable[[AnyTrainer], None],
        interrupted: list[bool],
    ) -> None:
        while not trainer.finished:
            trainer.step()
            progress(trainer)
            if self._is_interrupted(interrupted):
                self.save_checkpoint()
                raise Interrupted
            if time.monotonic() >= self._save_at:
                self.save_checkpoint()

    def _is_interrupted(self, noted: list[bool]) -> bool:
        """Whether to stop after this epoch."""
        return bool(noted)

    def _end(self, trainer: AnyTrainer) -> None:
        """Keeps result and weights, and where more epochs are possible the state."""
        self._states.pop(self.index, None)
        if trainer.extendable and not trainer.stopping.stop:
            self._states[self.index] = trainer.state_dict()
        place = slice(self.index, self.index + 1)
        self.results[place] = [trainer.result()]
        self.best_models[place] = [trainer.best_state]
        self.trainer = None


def check_keys(state: dict[str, Any], path: Path) -> None:
    """Raises unless the content of a checkpoint is that of a run.

    Raises:
        ValueError: a key is missing, or the config is not a dictionary.
    """
    missing = {"config", "root", "results", "best_models", "trainers"} - state.keys()
    if missing:
        raise ValueError(f"{path} is not of a run: it has no {min(missing)}")
    if not isinstance(state["config"], dict):
        kind = type(state["config"]).__name__
        raise ValueError(f"{path} is not of a run: its config is of type {kind}")


@contextmanager
def _deferred_interrupt() -> Iterator[list[bool]]:
    """Records the first Ctrl-C, so that no epoch is cut in half; the second one is immediate.

    A run that ignores Ctrl-C, as in the background, keeps ignoring it; only the main thread can
    handle it.
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
