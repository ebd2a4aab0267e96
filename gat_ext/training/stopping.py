"""When to keep the weights, and when to stop: decided on the validation nodes alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any


class EarlyStopping(ABC):
    """Watches validation loss and accuracy.

    Args:
        patience: epochs without improvement before training stops.
    """

    def __init__(self, patience: int) -> None:
        if patience < 1:
            raise ValueError(f"patience is {patience}; expected at least 1")
        self.patience, self.waited = patience, 0
        self.best_loss, self.best_accuracy = math.inf, -math.inf

    @abstractmethod
    def keep(self, loss: float, accuracy: float) -> bool:
        """Takes an epoch's validation loss and accuracy; returns True to keep its weights."""

    @property
    def stop(self) -> bool:
        """Whether patience has run out."""
        return self.left <= 0

    @property
    def left(self) -> float:
        """Epochs until patience runs out if none of them betters the best."""
        return self.patience - self.waited

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on from here."""
        return {
            "waited": self.waited,
            "best_loss": self.best_loss,
            "best_accuracy": self.best_accuracy,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from where a state was taken."""
        self.waited, self.best_loss = state["waited"], state["best_loss"]
        self.best_accuracy = state["best_accuracy"]


class PaperStopping(EarlyStopping):
    """The rule of GAT's authors.

    An epoch that equals or betters the best accuracy or the best loss resets the wait; its weights
    are kept if it does both.

    Source: Veličković et al., "Graph Attention Networks", ICLR 2018, section 3.3, and the authors'
    code.

    Example:
        >>> rule = PaperStopping(patience=2)
        >>> [rule.keep(*epoch) for epoch in [(1.0, 0.5), (0.9, 0.4), (0.8, 0.6)]], rule.stop
        ([True, False, True], False)
    """

    def keep(self, loss: float, accuracy: float) -> bool:
        """Takes an epoch's validation loss and accuracy; returns True to keep its weights."""
        better_loss, better_accuracy = loss <= self.best_loss, accuracy >= self.best_accuracy
        self.waited = 0 if better_loss or better_accuracy else self.waited + 1
        self.best_loss, self.best_accuracy = (
            min(loss, self.best_loss),
            max(accuracy, self.best_accuracy),
        )
        return better_loss and better_accuracy


class BestValidation(EarlyStopping):
    """Keeps the best validation accuracy, the lower loss among equals.

    Example:
        >>> rule = BestValidation(patience=2)
        >>> [rule.keep(*epoch) for epoch in [(1.0, 0.5), (0.9, 0.4), (0.8, 0.4)]], rule.stop
        ([True, False, False], True)
    """

    def keep(self, loss: float, accuracy: float) -> bool:
        """Takes an epoch's validation loss and accuracy; returns True to keep its weights."""
        better = (accuracy, -loss) > (self.best_accuracy, -self.best_loss)
        self.waited = 0 if better else self.waited + 1
        if better:
            self.best_loss, self.best_accuracy = loss, accuracy
        return better


class LastEpoch(EarlyStopping):
    """Takes all epochs, whatever the patience, and keeps the last.

    Example:
        >>> rule = LastEpoch(patience=1)
        >>> [rule.keep(*epoch) for epoch in [(1.0, 0.5), (1.1, 0.4)]], rule.stop
        ([True, True], False)
    """

    def keep(self, loss: float, accuracy: float) -> bool:
        """Takes an epoch's validation loss and accuracy; returns True to keep its weights."""
        return True

    @property
    def left(self) -> float:
        """No end of them."""
        return math.inf


def make_stopping(name: str, patience: int) -> EarlyStopping:
    """A rule by name: "paper", "best" or "last".

    Raises:
        ValueError: there is none of that name.
    """
    rules: dict[str, type[EarlyStopping]] = {
        "paper": PaperStopping,
        "best": BestValidation,
        "last": LastEpoch,
    }
    if name not in rules:
        raise ValueError(f"stopping is {name!r}; expected one of {', '.join(map(repr, rules))}")
    return rules[name](patience)
