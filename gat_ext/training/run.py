"""A run of node classification: several seeds, a checkpoint, a report with pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gat_ext.datasets import NodeDataset
from gat_ext.models import AttentionModel, build
from gat_ext.training import edge_weights, plots
from gat_ext.training.checkpointed import CheckpointedRun
from gat_ext.training.loop import Trainer
from gat_ext.training.metrics import ACCURACY, MICRO_F1, logistic_regression, remarks
from gat_ext.training.recipes import Recipe
from gat_ext.training.sampled_loop import SampledTrainer

UNIFORM_CHECKPOINT = "uniform.pt"


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
            itself. ``attention`` "uniform" is :meth:`AttentionModel.fix_uniform_attention`.
        reorder: how :meth:`NodeDataset.reorder` renumbers the nodes before training; None leaves
            them.
        own: of the user's own data, how they are read, and the names that the model was trained
            with, see :mod:`gat_ext.training.own_data`; None for a data set that has a name.
        noise: that option of the data set; None for its default.
    """

    model: str
    dataset: str
    seed: int
    seeds: int
    recipe: Recipe
    options: dict[str, Any]
    reorder: str | None = None
    own: dict[str, Any] | None = None
    noise: float | None = None

    @property
    def data_options(self) -> dict[str, Any]:
        """Options of the data set, for its loader."""
        return {} if self.noise is None else {"noise": self.noise}

    @property
    def is_uniform(self) -> bool:
        """True for a model of uniform attention."""
        return self.options.get("attention") == "uniform"

    @property
    def uniform_twin(self) -> RunConfig:
        """The same run of a model of uniform attention."""
        return replace(self, options={**self.options, "attention": "uniform"})

    def make_model(self, data: NodeDataset) -> AttentionModel:
        """A new model for a data set: the preset, with the options in place of what it says."""
        options = dict(self.options)
        if self.own is not None and data.edge_attr is not None:
            options["edge_dim"] = data.edge_attr.shape[1]
        model = _with(build(self.model), options).preset(
            self.dataset, data.num_features, data.num_classes
        )
        return model.fix_uniform_attention() if self.is_uniform else model


def _with(cls: type[AttentionModel], options: dict[str, Any]) -> type[AttentionModel]:
    """A model whose presets are built with some constructor arguments changed."""
    changes = {name: value for name, value in options.items() if name != "attention"}
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

        On digits it compares with logistic regression. On a data set that knows its random edges it
        also trains the same network with uniform attention, and draws edges.png, the weights of
        true and of random edges.
        """
        lines, extra = [], dict[str, Any]()
        noisy = self.data.random_edges is not None and not self.config.is_uniform
        if noisy:
            twin = _UniformTwin(self.config.uniform_twin, self.given, self.folder, self.root)
            twin.train_all()
            mean, deviation = twin.summary()
            extra["uniform_attention"] = twin.metrics()
            several = deviation if self.trainings > 1 else None
            lines.append(
                f"The same network with uniform attention: {self.metric.text(mean, several)}"
            )
        if self.config.dataset in ("digits", "noisy_digits"):
            x, y = self.data.x, self.data.y
            score = logistic_regression(x, self.data).score(x, y, self.data.test_mask)
            extra["logistic_regression"] = score
            lines.append(
                f"Logistic regression on the same labels, without the graph: {100 * score:.1f} %"
            )
        title = f"{self.config.model} on {self.config.dataset}"
        plots.curves(self.results, self.metric, title, self.folder / "curves.png")
        layers = [self._attention_of(weights) for weights in self.best_models]
        lines += remarks(layers[-1], self.data.num_nodes)
        plots.attention(layers[-1], self.data.num_nodes, title, self.folder / "attention.png")
        if noisy:
            found = [edge_weights.edge_weights(one, self.data) for one in layers]
            extra["edge_weights"] = [asdict(one) for one in found]
            lines.append(str(edge_weights.mean_of(found)))
            edge_weights.draw(layers[-1], self.data, title, self.folder / "edges.png")
        self._write_metrics(**extra)
        return lines

    def _attention_of(self, weights: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
        model = self.make_model()
        model.load_state_dict(weights)
        return model.attention_weights(
            self.data.x, self.data.edge_index, edge_attr=self.data.edge_attr
        )


class _UniformTwin(Run):
    """The run with uniform attention that the report of another run is compared with."""

    @property
    def checkpoint_path(self) -> Path:
        """Next to the checkpoint of that run."""
        return self.folder / UNIFORM_CHECKPOINT

    def train_all(self) -> None:
        """Trains all that is left."""
        if self.checkpoint_path.exists():
            self.resume()
        self.train(lambda trainer: None)
