"""A run of node classification: several seeds, a checkpoint, a report with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gat_ext.datasets import NodeDataset
from gat_ext.models import AttentionModel, build
from gat_ext.training import plots
from gat_ext.training.checkpointed import CheckpointedRun
from gat_ext.training.loop import Trainer
from gat_ext.training.metrics import ACCURACY, MICRO_F1, logistic_regression
from gat_ext.training.recipes import Recipe
from gat_ext.training.sampled_loop import SampledTrainer


@dataclass(frozen=True)
class RunConfig:
    """Settings of a run; a checkpoint fits the same settings only, or more seeds and epochs.

    Attributes:
        model: name of the model.
        dataset: name of the data set.
        seed: first seed.
        seeds: number of seeds.
        recipe: how to train.
        options: changes to the constructor arguments of the model's preset; empty for the preset
            itself.
        reorder: how :meth:`NodeDataset.reorder` renumbers the nodes before training; None leaves
            them.
        own: of the user's own data, how they are read, and the names that the model was trained
            with, see :mod:`gat_ext.training.own_data`; None for a data set that has a name.
    """

    model: str
    dataset: str
    seed: int
    seeds: int
    recipe: Recipe
    options: dict[str, int | float]
    reorder: str | None = None
    own: dict[str, Any] | None = None

    def make_model(self, data: NodeDataset) -> AttentionModel:
        """A new model for a data set: the preset, with the options in place of what it says."""
        options = dict(self.options)
        if self.own is not None and data.edge_attr is not None:
            options["edge_dim"] = data.edge_attr.shape[1]
        return _with(build(self.model), options).preset(
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
        folder: of the checkpoint and the report.
        root: folder that the data set was read from, or None.
    """

    may_grow = frozenset({"seeds", "epochs"})

    def __init__(
        self, config: RunConfig, data: NodeDataset, folder: Path, root: Path | None = None
    ) -> None:
        self.given = data  # in the data set's own order
        if config.reorder is not None:
            data, _ = data.reorder(config.reorder)
        super().__init__(config, data.x.device, folder, root)
        self.config, self.data = config, data
        self.metric = MICRO_F1 if data.multilabel else ACCURACY

    @property
    def trainings(self) -> int:
        """One for each seed."""
        return self.config.seeds

    def make_model(self) -> AttentionModel:
        """A new model."""
        return self.config.make_model(self.data).to(self.data.x.device)

    def _make_trainer(self, number: int) -> Trainer:
        kind = SampledTrainer if self.config.recipe.sample else Trainer
        return kind(
            lambda: self.config.make_model(self.data),
            self.data,
            self.config.recipe,
            self.config.seed + number,
        )

    @property
    def headline(self) -> str:
        """Model, data set and its sizes."""
        data = self.data
        return (
            f"{self.config.model} on {data.name}: {data.num_nodes} nodes, {data.num_edges} edges, "
            f"{data.num_features} features, {data.num_classes} classes"
        )

    def report(self) -> list[str]:
        """Writes metrics.json, curves.png and attention.png (of the last seed) into the folder.

        On digits it compares with logistic regression.
        """
        lines, extra = [], {}
        if self.config.dataset == "digits":
            x, y = self.data.x, self.data.y
            score = logistic_regression(x, self.data).score(x, y, self.data.test_mask)
            extra["logistic_regression"] = score
            lines.append(
                f"Logistic regression on the same labels, without the graph: {100 * score:.1f} %"
            )
        self._write_metrics(**extra)
        title = f"{self.config.model} on {self.config.dataset}"
        plots.curves(self.results, self.metric, title, self.folder / "curves.png")
        model = self.make_model()
        model.load_state_dict(self.best_models[-1])
        layers = model.attention_weights(
            self.data.x, self.data.edge_index, edge_attr=self.data.edge_attr
        )
        plots.attention(layers, self.data.num_nodes, title, self.folder / "attention.png")
        return lines
