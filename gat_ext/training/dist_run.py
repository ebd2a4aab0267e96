"""A run of node classification in several processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gat_ext import datasets
from gat_ext.datasets import NodeDataset
from gat_ext.distributed import input_features, raised_by_all
from gat_ext.training import checkpoint, part_data, plots
from gat_ext.training.dist_loop import DistTrainer
from gat_ext.training.part_data import PartDataset
from gat_ext.training.processes import Team
from gat_ext.training.run import Run, RunConfig
from gat_ext.training.sampled_loop import SampledTrainer


@dataclass(frozen=True)
class Cut:
    """How the graph comes into parts.

    Attributes:
        parts: folder of ``gat-ext partition``; None: each process loads the data set, and
            ``method`` cuts it.
        method: of the partition.
        mode: of the DistGraph.
    """

    parts: Path | None
    method: str
    mode: str


def start(
    config: RunConfig,
    how: Cut,
    folder: Path,
    root: Path | None,
    team: Team,
    show: Callable[[str], None],
) -> DistRun:
    """A run of all processes, each of which has loaded its part.

    Args:
        config: what to train.
        how: the graph is cut.
        folder: of the checkpoint and the report.
        root: of the data set's files, or None.
        team: the processes.
        show: prints a line.

    Raises:
        OSError, ImportError, ValueError: the data or the parts cannot be had; all processes raise
            if one does.
    """
    if config.recipe.sample:
        with raised_by_all(team.group):
            whole = datasets.load(config.dataset, root=root, **config.data_options)
        return SampledRun(config, whole, folder, root, team)
    if how.parts is not None:
        data = part_data.read(how.parts, config.dataset, team, how.mode)
    else:
        with raised_by_all(team.group):
            whole = datasets.load(config.dataset, root=root, **config.data_options)
        data = part_data.cut(whole, team, how.method, how.mode)
    part_data.held(data, team, show)
    if not config.recipe.bf16:  # with which models take features as they are
        data = replace(data, x=input_features(data.x, data.graph))
    return DistRun(config, data, folder, root, team)


class DistRun(Run):
    """Trains a model with several seeds; all processes compute, the first one writes.

    Its checkpoint is that of :class:`Run`, which any number of processes, also one, can resume.

    Args:
        config: what to train; ``reorder`` is None.
        data: the part of this process.
        folder: of the checkpoint and the report.
        root: folder that the data set was read from, or None.
        team: the processes.
    """

    def __init__(
        self, config: RunConfig, data: PartDataset, folder: Path, root: Path | None, team: Team
    ) -> None:
        self.team, self.part = team, data
        whole: Any = data  # of which the base class reads what a part has, too
        super().__init__(config, whole, folder, root)

    def _make_trainer(self, number: int) -> DistTrainer:
        return DistTrainer(
            lambda: self.config.make_model(self.data),
            self.part,
            self.config.recipe,
            self.config.seed + number,
            self.team.group,
        )

    def resume(self) -> None:
        """As in one process; the first one reads the file."""
        content = b""
        with raised_by_all(self.team.group):
            if self.team.is_first:
                content = checkpoint.read(self.checkpoint_path)
        content = self.team.from_first(content)
        with raised_by_all(self.team.group):
            self._take(checkpoint.parse(content, self.checkpoint_path, self._device))

    def save_checkpoint(self) -> None:
        """As in one process, in the first one."""
        if self.team.is_first:
            super().save_checkpoint()

    def _is_interrupted(self, noted: list[bool]) -> bool:
        return self.team.any(bool(noted or self.team.stopped))

    @property
    def headline(self) -> str:
        """Model, data set and its sizes, and the processes."""
        return f"{super().headline}; {self.team.size} processes, {self._how}"

    @property
    def _how(self) -> str:
        return f"parts by {self.part.method}"

    @property
    def _details(self) -> dict[str, Any]:
        return {"partition_method": self.part.method, "mode": self.part.graph.mode}

    def report(self) -> list[str]:
        """Writes metrics.json and curves.png in the first process."""
        if not self.team.is_first:
            return []
        self._write_metrics(processes=self.team.size, **self._details)
        title = f"{self.config.model} on {self.config.dataset}"
        plots.curves(self.results, self.metric, title, self.folder / "curves.png")
        return ["There is no attention.png: only a run in one process draws it"]


class SampledRun(DistRun):
    """Trains on sampled mini-batches; every process has all of the data.

    Args:
        config: what to train; its recipe says how to sample.
        data: the data set.
        folder: of the checkpoint and the report.
        root: folder that the data set was read from, or None.
        team: the processes.
    """

    def __init__(
        self, config: RunConfig, data: NodeDataset, folder: Path, root: Path | None, team: Team
    ) -> None:
        whole: Any = data  # of which the base class reads what a part has, too
        super().__init__(config, whole, folder, root, team)

    def _make_trainer(self, number: int) -> Any:
        return SampledTrainer(
            lambda: self.config.make_model(self.data),
            self.data,
            self.config.recipe,
            self.config.seed + number,
            group=self.team.group,
            rank=self.team.rank,
            size=self.team.size,
        )

    @property
    def _how(self) -> str:
        return f"batches of up to {self.config.recipe.batch_size} nodes"

    @property
    def _details(self) -> dict[str, Any]:
        return {}
