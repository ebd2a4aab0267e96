"""How a run looks in a terminal."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gat_ext.training.checkpointed import CheckpointedRun
from gat_ext.training.epochs import EpochTrainer


def train(run: CheckpointedRun[Any], console: Console) -> None:
    """Trains all that is left, says how it goes, reports, and says what came out.

    Raises:
        Interrupted: on Ctrl-C; the checkpoint holds all of it.
    """
    console.print(run.headline)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[score]}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(run.unit, total=None, score="")
        shown = len(run.results)

        def progress(trainer: EpochTrainer[Any]) -> None:
            nonlocal shown
            shown = _announce(run, console, shown)
            bars.update(
                task,
                description=f"{run.unit} {run.number(len(run.results))}",
                completed=trainer.epoch,
                total=trainer.expected_epochs,
                score=f"validation {100 * trainer.history['val_score'][-1]:.1f} %",
            )

        run.train(progress)
        _announce(run, console, shown)
    _report(run, console)


def _announce(run: CheckpointedRun[Any], console: Console, shown: int) -> int:
    """Prints the results that are new."""
    for index, result in enumerate(run.results[shown:], start=shown):
        console.print(
            f"{run.unit} {run.number(index)}: test {100 * result.test_score:.1f} %, "
            f"validation {100 * result.val_score:.1f} %, epoch {result.best_epoch} of {result.epochs}, "
            f"{result.seconds:.1f} s"
        )
    return len(run.results)


def _report(run: CheckpointedRun[Any], console: Console) -> None:
    lines = run.report()
    console.print(f"Plots, metrics and checkpoint are in {run.folder.resolve()}{os.sep}")
    for line in lines:
        console.print(line)
    mean, deviation = run.summary()
    several = run.trainings > 1
    console.print(
        f"Test {run.metric}: {100 * mean:.1f}{f' ± {100 * deviation:.1f}' if several else ''} % "
        f"({run.trainings} {run.unit}{'s' if several else ''})"
    )
