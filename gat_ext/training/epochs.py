"""Base class of the trainers: epochs with validation, early stopping, a state to go on from."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch

from gat_ext.training import checkpoint
from gat_ext.training.metrics import ACCURACY
from gat_ext.training.stopping import make_stopping

if TYPE_CHECKING:
    from typing_extensions import Self

HISTORY = ("train_loss", "val_loss", "val_score")


@dataclass
class SeedResult:
    """Outcome of a training with one seed.

    Attributes:
        seed: the seed.
        epochs: epochs run.
        best_epoch: the epoch whose weights were kept, from 1.
        val_score: validation accuracy (micro-F1 with several labels, mean absolute error with real
            targets) of those weights.
        test_score: the same of the test, computed when training ends.
        seconds: training time.
        history: train_loss, val_loss and val_score of every epoch.
    """

    seed: int
    epochs: int
    best_epoch: int
    val_score: float
    test_score: float
    seconds: float
    history: dict[str, list[float]]


Model = TypeVar("Model", bound=torch.nn.Module)


@dataclass(frozen=True)
class Settings:
    """Settings that every trainer reads; the recipes say what they mean."""

    lr: float
    epochs: int
    patience: int
    stopping: str

    def with_overrides(self, **overrides: Any) -> Self:
        """A copy with the settings changed that are not None."""
        given = {name: value for name, value in overrides.items() if value is not None}
        return replace(self, **given)


def check_history(history: Any, name: str) -> None:
    """Raises unless there is a list of numbers, all of one length, for each name in ``HISTORY``.

    Raises:
        ValueError: it is not.
    """
    checkpoint.check(history, dict.fromkeys(HISTORY, checkpoint.ListOf(0.0)), name)
    lengths = [len(values) for values in history.values()]
    if len(set(lengths)) > 1:
        raise ValueError(f"{name} has lists of {lengths} numbers; expected as many in each")


class EpochTrainer(ABC, Generic[Model]):
    """Trains a model epoch by epoch, and keeps the weights that did best in validation.

    Args:
        model: on the device to train on.
        optimizer: of its parameters.
        recipe: length and stopping, and the settings of the subclass.
        seed: that the subclass set; it becomes part of the result.

    Attributes:
        metric: what the scores are.
        extendable: whether more epochs continue a training; not where the learning rate of an epoch
            depends on the number of epochs.
    """

    extendable: ClassVar[bool] = False
    metric = ACCURACY

    def __init__(
        self,
        model: Model,
        optimizer: torch.optim.Adam,
        recipe: Settings,
        seed: int,
    ) -> None:
        self.model, self.optimizer, self.seed = model, optimizer, seed
        self._settings = recipe
        self.stopping = make_stopping(recipe.stopping, recipe.patience)
        self.history: dict[str, list[float]] = {name: [] for name in HISTORY}
        self.best_epoch, self.seconds = 0, 0.0
        self.best_state = copy.deepcopy(model.state_dict())

    @abstractmethod
    def _train_epoch(self) -> float:
        """Trains; the mean loss."""

    @abstractmethod
    def _validate(self) -> tuple[float, float]:
        """Loss and score in validation."""

    @abstractmethod
    def _test(self) -> tuple[float, float]:
        """Loss and score in the test."""

    @property
    def epoch(self) -> int:
        """Epochs run so far."""
        return len(self.history["val_loss"])

    @property
    def limit(self) -> int:
        """The highest number of epochs."""
        return self._settings.epochs

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.stopping.stop or self.epoch >= self.limit

    def _step(self, loss: torch.Tensor) -> None:
        """Backward pass and a step of the optimizer.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        if not loss.isfinite():
            raise FloatingPointError(
                f"the training loss is {loss.item()} in epoch {self.epoch + 1}; "
                "try a smaller learning rate"
            )
        loss.backward()
        self._combine_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _combine_gradients(self) -> None:
        """Called between the backward pass and the step of the optimizer."""

    def step(self) -> bool:
        """Runs one epoch; whether there is another to run.

        Raises:
            FloatingPointError: the training loss is not finite.
        """
        if self.finished:
            return False
        start = time.perf_counter()
        train_loss = self._train_epoch()
        val_loss, val_score = self._validate()
        self.seconds += time.perf_counter() - start
        for name, value in zip(HISTORY, (train_loss, val_loss, val_score), strict=True):
            self.history[name].append(value)
        if self.stopping.keep(val_loss, self.metric.gain(val_score)):
            self.best_epoch, self.best_state = self.epoch, copy.deepcopy(self.model.state_dict())
        return not self.finished

    def result(self) -> SeedResult:
        """Loads the kept weights and evaluates them on the test data, which nothing else reads."""
        self.model.load_state_dict(self.best_state)
        _, val_score = self._validate()
        _, test_score = self._test()
        return SeedResult(
            self.seed,
            self.epoch,
            self.best_epoch,
            val_score,
            test_score,
            self.seconds,
            self.history,
        )

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that :meth:`load_state_dict` needs to continue exactly."""
        state = {
            "seed": self.seed,
            "recipe": asdict(self._settings),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stopping": self.stopping.state_dict(),
            "best_state": self.best_state,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "seconds": self.seconds,
            "random": checkpoint.random_state(),
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a state.

        Raises:
            ValueError: as :meth:`check_state_dict`.
        """
        self.check_state_dict(state, self.seed)
        # As plain dictionaries, for torch's carry versions of modules, which nobody has checked.
        self.model.load_state_dict(dict(state["model"]))
        # The optimizer would modify the tensors that it is given.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.stopping.load_state_dict(state["stopping"])
        self.best_state, self.best_epoch = dict(state["best_state"]), state["best_epoch"]
        self.history = {name: list(values) for name, values in state["history"].items()}
        self.seconds = state["seconds"]
        checkpoint.restore_random_state(state["random"])

    def check_state_dict(self, state: Any, seed: int) -> None:
        """Raises unless a trainer like this one can continue from the state.

        Args:
            state: from a checkpoint.
            seed: that it must be of.

        Raises:
            ValueError: the state is of another seed, recipe or model, or not of a trainer.
        """
        checkpoint.check(state, dict.fromkeys(self.state_dict(), checkpoint.ANYTHING), "trainer")
        if not checkpoint.same(state["seed"], seed):
            raise ValueError(f"the checkpoint has seed {state['seed']}; this run has {seed}")
        self._check_recipe(state["recipe"])
        weights = self.model.state_dict()
        try:
            checkpoint.check(state["model"], weights, "model")
        except ValueError as error:
            raise ValueError(f"the checkpoint is of another model: {error}") from error
        checkpoint.check(state["best_state"], weights, "best_state")
        checkpoint.check(state["stopping"], self.stopping.state_dict(), "stopping")
        check_history(state["history"], "history")
        epochs = len(state["history"]["val_loss"])
        checkpoint.check_optimizer(state["optimizer"], self.optimizer, stepped=epochs > 0)
        for name in ("best_epoch", "seconds"):
            checkpoint.check(state[name], getattr(self, name), name)
        if not 0 <= state["best_epoch"] <= epochs:
            raise ValueError(f"best_epoch is {state['best_epoch']} of {epochs} epochs")
        checkpoint.check_random_state(state["random"])

    def _check_recipe(self, given: Any) -> None:
        own = asdict(self._settings)
        expected = dict(own)
        if self.extendable and isinstance(given, dict):
            fewer = given.get("epochs")
            if isinstance(fewer, int) and fewer <= own["epochs"]:
                expected["epochs"] = fewer
        if not checkpoint.same(given, expected):
            raise ValueError(f"the checkpoint has recipe {given}; this run has {own}")
