"""A run of models of nodes and edges of several types: several seeds, a checkpoint, a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gat_ext.datasets import TypedDataset
from gat_ext.models import TypedModel, build_typed
from gat_ext.training import plots
from gat_ext.training.checkpointed import CheckpointedRun
from gat_ext.training.metrics import logistic_regression, remarks
from gat_ext.training.recipes import Recipe
from gat_ext.training.typed_loop import TypedTrainer, inputs_of


@dataclass(frozen=True)
class TypedRunConfig:
    """Settings of a run; a checkpoint fits the same settings only, or more seeds and epochs.

    Attributes:
        model: name of the model.
        dataset: name of the data set.
        seed: first seed.
        seeds: number of seeds.
        recipe: how to train.
        options: changes to the constructor arguments of the model's preset.
    """

    model: str
    dataset: str
    seed: int
    seeds: int
    recipe: Recipe
    options: dict[str, int | float]

    def make_model(self, data: TypedDataset) -> TypedModel:
        """A new model for a data set: the preset, changed by the options."""
        kind, changes = build_typed(self.model), dict[str, Any](self.options)
        inputs = inputs_of(kind, data)
        sizes = inputs.in_channels, data.num_classes, inputs.metadata
        return kind.preset(self.dataset, *sizes, data.target, **changes)


class TypedRun(CheckpointedRun[TypedTrainer]):
    """Trains a model with several seeds, one after the other.

    Args:
        config: what to train.
        data: on the device to train on.
        folder: of the checkpoint and the report.
        root: folder that the data set was read from, or None.
    """

    may_grow = frozenset({"seeds", "epochs"})

    def __init__(
        self, config: TypedRunConfig, data: TypedDataset, folder: Path, root: Path | None = None
    ) -> None:
        super().__init__(config, data.y.device, folder, root)
        self.config, self.data, self.given = config, data, data

    @property
    def trainings(self) -> int:
        """One for each seed."""
        return self.config.seeds

    def make_model(self) -> TypedModel:
        """A new model."""
        return self.config.make_model(self.data).to(self.data.y.device)

    def _make_trainer(self, number: int) -> TypedTrainer:
        seed = self.config.seed + number
        return TypedTrainer(self.make_model, self.data, self.config.recipe, seed)

    @property
    def headline(self) -> str:
        """Model, data set and its sizes."""
        data = self.data
        nodes = ", ".join(f"{count} {kind}" for kind, count in data.num_nodes.items())
        return (
            f"{self.config.model} on {data.name}: nodes: {nodes}; {data.num_edges} edges of "
            f"{len(data.edge_index)} relations, {data.num_classes} classes of {data.target} nodes"
        )

    def report(self) -> list[str]:
        """Writes metrics.json, curves.png and, of the last seed, attention.png into the folder.

        It compares with logistic regression on the features of the labelled nodes.
        """
        x, y = self.data.x[self.data.target], self.data.y
        score = logistic_regression(x, self.data).score(x, y, self.data.test_mask)
        self._write_metrics(logistic_regression=score)
        title = f"{self.config.model} on {self.config.dataset}"
        plots.curves(self.results, self.metric, title, self.folder / "curves.png")
        model = self.make_model()
        model.load_state_dict(self.best_models[-1])
        inputs = inputs_of(model, self.data)
        layers = model.attention_weights(*inputs)
        lines = [f"Logistic regression on the same labels, without the graph: {100 * score:.1f} %"]
        if layers:
            count = sum(x.shape[0] for x in inputs.x.values())
            plots.attention(layers, count, title, self.folder / "attention.png")
            lines += remarks(layers, count)
        return lines
