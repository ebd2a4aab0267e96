"""A run of node embeddings: several seeds, a checkpoint, a report with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gat_ext.datasets import NodeDataset
from gat_ext.models import AttentionWalk
from gat_ext.training import embedding_plots, plots
from gat_ext.training.checkpointed import CheckpointedRun
from gat_ext.training.embedding_loop import EmbeddingRecipe, EmbeddingTrainer
from gat_ext.training.files import replacing


@dataclass(frozen=True)
class EmbeddingRunConfig:
    """Settings of a run; a checkpoint fits the same settings only, or more seeds.

    Attributes:
        model: name of the model.
        dataset: name of the data set.
        seed: first seed.
        seeds: number of seeds.
        recipe: how to train.
        options: constructor arguments of :class:`gat_ext.models.AttentionWalk`; its defaults for
            the others.
    """

    model: str
    dataset: str
    seed: int
    seeds: int
    recipe: EmbeddingRecipe
    options: dict[str, int | str]

    def make_model(self, data: NodeDataset) -> AttentionWalk:
        """A new model for a data set."""
        options: dict[str, Any] = dict(self.options)
        return AttentionWalk(data.num_nodes, **options)


class EmbeddingRun(CheckpointedRun[EmbeddingTrainer]):
    """Trains embeddings with several seeds, one after the other.

    Args:
        config: what to train.
        data: on the device to train on.
        folder: of the checkpoint and the report.
        root: folder that the data set was read from, or None.
    """

    may_grow = frozenset({"seeds"})

    def __init__(
        self, config: EmbeddingRunConfig, data: NodeDataset, folder: Path, root: Path | None = None
    ) -> None:
        super().__init__(config, data.y.device, folder, root)
        self.given = data
        self.config, self.data = config, data

    @property
    def trainings(self) -> int:
        """One for each seed."""
        return self.config.seeds

    def make_model(self) -> AttentionWalk:
        """A new model."""
        return self.config.make_model(self.data).to(self.data.y.device)

    def _make_trainer(self, number: int) -> EmbeddingTrainer:
        return EmbeddingTrainer(
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
            f"{data.num_classes} classes"
        )

    def contexts(self) -> Tensor:
        """The context distribution of every seed, [seeds, C]."""
        return torch.stack([state["theta"] for state in self.best_models]).softmax(dim=1).cpu()

    def report(self) -> list[str]:
        """Writes metrics.json, embeddings.pt, curves.png and context.png into the folder.

        embeddings.pt is a tensor [N, D], of the last seed.
        """
        contexts = self.contexts()
        self._write_metrics(context=contexts.tolist())
        last = self.best_models[-1]
        with replacing(self.folder / "embeddings.pt") as file:
            torch.save(torch.cat([last["left"], last["right"]], dim=1).cpu(), file)
        title = f"{self.config.model} on {self.config.dataset}"
        plots.curves(self.results, self.metric, title, self.folder / "curves.png")
        embedding_plots.context(contexts, title, self.folder / "context.png")
        shares = ", ".join(f"{100 * share:.0f}" for share in contexts.mean(dim=0).tolist())
        return [f"Attention to walks of 1 to {contexts.shape[1]} steps: {shares} %"]
