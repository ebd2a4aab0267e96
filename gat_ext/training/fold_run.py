"""A run of cross-validation on graphs, whatever the model: settings, folds, the majority class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from gat_ext.datasets import Fold, GraphDataset
from gat_ext.training.checkpointed import CheckpointedRun
from gat_ext.training.fold_loop import FoldRecipe, FoldTrainer
from gat_ext.training.metrics import absolute_error

TYPES = ("label", "degree", "wl1", "wl2", "wl3")
_MOST_COLOURS = 256


@dataclass(frozen=True)
class FoldRunConfig:
    """Settings of a run; a checkpoint fits the same settings only.

    Attributes:
        model: name of the model.
        dataset: name of the data set.
        seed: of the subset, of the folds and of the first fold's training; the next ones count up.
        folds: number of folds.
        subset: graphs to draw first, equally many of each class; None takes all.
        recipe: how to train.
        options: changes to the constructor arguments of the model's preset; empty for the preset
            itself.
        types: one of ``TYPES``, the node types that models see: those of the data set, degrees, or
            the colours of so many rounds of Weisfeiler-Lehman refinement.
        attributes: whether models see the data set's attributes of nodes, x, instead of types.
    """

    model: str
    dataset: str
    seed: int
    folds: int
    subset: int | None
    recipe: FoldRecipe
    options: dict[str, int | str]
    types: str = "label"
    attributes: bool = False

    @abstractmethod
    def make_model(self, data: GraphDataset) -> nn.Module:
        """A new model for a data set: the preset, changed by the options."""


AnyTrainer = TypeVar("AnyTrainer", bound=FoldTrainer[Any])


class FoldRun(CheckpointedRun[AnyTrainer]):
    """Trains a model on each fold, one after the other.

    Args:
        config: what to train.
        data: on the device to train on.
        folder: of the checkpoint and the report.
        root: folder that the data set was read from, or None.

    Attributes:
        trainer_class: constructor of a fold's trainer.

    Raises:
        ValueError: the data set is too small for the subset or the folds.
    """

    unit = "fold"
    trainer_class: ClassVar[Callable[..., Any]]

    def __init__(
        self, config: FoldRunConfig, data: GraphDataset, folder: Path, root: Path | None = None
    ) -> None:
        data = _typed(data, config.types)
        if config.subset is not None:
            _check_subset(data, config.subset)
            data = data.balanced(config.subset, seed=config.seed)
        super().__init__(config, data.y.device, folder, root)
        self.config, self.data, self.given = config, data, data
        self.folds = _folds(data, config.folds, config.seed)

    @property
    def trainings(self) -> int:
        """One for each fold."""
        return self.config.folds

    def make_model(self) -> nn.Module:
        """A new model."""
        return self.config.make_model(self.data).to(self.data.y.device)

    def _make_trainer(self, number: int) -> AnyTrainer:
        config = self.config
        trainer: AnyTrainer = type(self).trainer_class(
            lambda: config.make_model(self.data),
            self.data,
            self.folds[number],
            config.recipe,
            config.seed + number,
        )
        return trainer

    @property
    def headline(self) -> str:
        """Model, data set and its sizes."""
        data = self.data
        labels = {
            "classification": f"{data.num_classes} classes",
            "multilabel": f"{data.num_classes} labels",
            "regression": f"real targets: {data.y.shape[-1]}",
        }
        return (
            f"{self.config.model} on {data.name}: {len(data)} graphs, {data.num_nodes} nodes, "
            f"{data.num_edges} edges, {data.num_types} node types, {labels[data.task]}"
        )

    @property
    def title(self) -> str:
        """Of the pictures."""
        return f"{self.config.model} on {self.config.dataset}"

    def number(self, index: int) -> int:
        """Folds are counted from 1."""
        return index + 1

    def report(self) -> list[str]:
        """Writes metrics.json and the pictures; returns what a constant prediction scores."""
        y, more, lines = self.data.y, {}, []
        if self.data.task == "classification":
            more["largest_class"] = int(y.bincount().max()) / len(y)
            share = self.metric.text(more["largest_class"])
            lines.append(f"The largest class has {share} of the graphs")
        elif self.data.task == "regression":
            more["error_of_medians"] = absolute_error(y.median(0).values, y)
            error = self.metric.text(more["error_of_medians"])
            lines.append(f"Predicting the median has a {self.metric.name} of {error}")
        self._write_metrics(graphs=len(y), **more)
        return [*self._draw(), *lines]

    @abstractmethod
    def _draw(self) -> list[str]:
        """Writes the pictures into the folder; returns lines about what they show."""


def attributes_of(data: GraphDataset) -> Tensor:
    """The attributes of the nodes, [N, C].

    Raises:
        ValueError: the data set has none.
    """
    if data.x is None:
        raise ValueError(f"{data.name} has no attributes of nodes; leave --attributes out")
    return data.x


def edge_attributes_of(data: GraphDataset) -> Tensor:
    """The attributes of the edges, [E, D].

    Raises:
        ValueError: the data set has none.
    """
    if data.edge_attr is None:
        raise ValueError(f"{data.name} has no attributes of edges; leave --edge-attributes out")
    return data.edge_attr


def _typed(data: GraphDataset, types: str) -> GraphDataset:
    if types.startswith("wl"):
        rounds = int(types.removeprefix("wl"))
        return data.with_types("wl", rounds=rounds, max_types=_MOST_COLOURS)
    return data.with_types(types)


def _check_subset(data: GraphDataset, subset: int) -> None:
    """Raises unless there is such a subset with equally many graphs of each class."""
    data.require_classes("--subset")
    classes, smallest = data.num_classes, int(data.y.bincount(minlength=data.num_classes).min())
    if subset % classes:
        near = max(subset // classes, 1) * classes
        raise ValueError(
            f"--subset is {subset}; expected a multiple of {classes}, the number of classes of "
            f"{data.name}, such as {near} or {near + classes}"
        )
    if subset // classes > smallest:
        raise ValueError(
            f"--subset is {subset}, {subset // classes} graphs of each class; the smallest class "
            f"of {data.name} has {smallest}: give at most {smallest * classes}"
        )


def _folds(data: GraphDataset, folds: int, seed: int) -> list[Fold]:
    """The folds; ValueError in the words of the command line where there are too few graphs."""
    most, what = len(data), "the number of"
    if data.task == "classification":
        most = int(data.y.bincount(minlength=data.num_classes).min())
        what = f"the size of the smallest class of these {len(data)}"
    if folds > most:
        raise ValueError(f"--folds is {folds}; expected at most {most}, {what} graphs")
    try:
        return data.folds(folds, seed=seed)
    except ValueError as error:
        if data.task != "classification":
            raise ValueError(
                f"--folds is {folds}; {len(data)} graphs are too few: {error}"
            ) from error
        raise ValueError(
            f"--folds is {folds}: the validation part of a fold, a tenth of its training graphs, "
            f"cannot have a graph of each of the {data.num_classes} classes; {len(data)} graphs "
            "are too few: give a larger --subset, or leave it out"
        ) from error
