"""A run of graph classification: cross-validation, a checkpoint, a report with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gat_ext.datasets import Fold, GraphDataset
from gat_ext.models import build_graphs
from gat_ext.models.walks import WalkModel
from gat_ext.training import walk_plots
from gat_ext.training.checkpointed import CheckpointedRun
from gat_ext.training.graph_loop import GraphRecipe, GraphTrainer

TYPES = ("label", "degree", "wl1", "wl2", "wl3")
_MOST_COLOURS = 256


@dataclass(frozen=True)
class GraphRunConfig:
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
        types: one of ``TYPES``, the node types that agents see: those of the data set, degrees, or
            the colours of so many rounds of Weisfeiler-Lehman refinement.
        attributes: whether agents see the data set's attributes of nodes, x, instead of types.
    """

    model: str
    dataset: str
    seed: int
    folds: int
    subset: int | None
    recipe: GraphRecipe
    options: dict[str, int | str]
    types: str = "label"
    attributes: bool = False

    def make_model(self, data: GraphDataset) -> WalkModel:
        """A new model for a data set: the preset, changed by the options.

        Raises:
            ValueError: ``attributes`` is set, and the data set has none.
        """
        changes: dict[str, Any] = dict(self.options)
        if self.attributes:
            if data.x is None:
                raise ValueError(f"{data.name} has no attributes of nodes; leave --attributes out")
            changes["attribute_channels"] = data.x.shape[1]
        return build_graphs(self.model).preset(
            self.dataset, data.num_types, data.num_classes, **changes
        )


class GraphRun(CheckpointedRun[GraphTrainer]):
    """Trains a model on each fold, one after the other.

    Args:
        config: what to train.
        data: on the device to train on.
        folder: of the checkpoint and the report.
        root: folder that the data set was read from, or None.

    Raises:
        ValueError: the data set has other targets than classes, or is too small for the subset or
            the folds.
    """

    unit = "fold"

    def __init__(
        self, config: GraphRunConfig, data: GraphDataset, folder: Path, root: Path | None = None
    ) -> None:
        data.require_classes(config.model)
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

    def make_model(self) -> WalkModel:
        """A new model."""
        return self.config.make_model(self.data).to(self.data.y.device)

    def _make_trainer(self, number: int) -> GraphTrainer:
        return GraphTrainer(
            lambda: self.config.make_model(self.data),
            self.data,
            self.folds[number],
            self.config.recipe,
            self.config.seed + number,
        )

    @property
    def headline(self) -> str:
        """Model, data set and its sizes."""
        data = self.data
        return (
            f"{self.config.model} on {data.name}: {len(data)} graphs, {data.num_nodes} nodes, "
            f"{data.num_edges} edges, {data.num_types} node types, {data.num_classes} classes"
        )

    def number(self, index: int) -> int:
        """Folds are counted from 1."""
        return index + 1

    def report(self) -> list[str]:
        """Writes metrics.json, curves.png and walks.png (of the first fold) into the folder."""
        self._write_metrics(graphs=len(self.data))
        title = f"{self.config.model} on {self.config.dataset}"
        walk_plots.curves(self.results, title, self.folder / "curves.png")
        trainer = self._make_trainer(0)
        trainer.model.load_state_dict(self.best_models[0])
        walk_plots.walks(trainer, title, self.folder / "walks.png")
        return []


def _typed(data: GraphDataset, types: str) -> GraphDataset:
    if types.startswith("wl"):
        rounds = int(types.removeprefix("wl"))
        return data.with_types("wl", rounds=rounds, max_types=_MOST_COLOURS)
    return data.with_types(types)


def _check_subset(data: GraphDataset, subset: int) -> None:
    """Raises unless there is such a subset with equally many graphs of each class."""
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
    smallest = int(data.y.bincount(minlength=data.num_classes).min())
    if folds > smallest:
        raise ValueError(
            f"--folds is {folds}; expected at most {smallest}, the size of the smallest class of "
            f"these {len(data)} graphs"
        )
    try:
        return data.folds(folds, seed=seed)
    except ValueError as error:
        raise ValueError(
            f"--folds is {folds}: the validation part of a fold, a tenth of its training graphs, "
            f"cannot have a graph of each of the {data.num_classes} classes; {len(data)} graphs "
            "are too few: give a larger --subset, or leave it out"
        ) from error
