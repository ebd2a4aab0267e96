"""Output of a run in a terminal, in a pipe, or in a log file."""

from __future__ import annotations

import math
import os
import time
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from gat_ext.training.checkpointed import CheckpointedRun
from gat_ext.training.epochs import EpochTrainer

LINE_SECONDS = 10.0
"""Seconds between two lines where the output is not a terminal"""


def train(
    run: CheckpointedRun[Any], console: Console, quiet: bool = False, verbose: bool = False
) -> None:
    """Trains all that is left, reports, and prints the outcome.

    Args:
        run: to train.
        console: to print to.
        quiet: print the final score only.
        verbose: print a line for every epoch.

    Raises:
        Interrupted: on Ctrl-C; the checkpoint is complete.
    """
    terminal = console.is_terminal and console.file.isatty() and not console.is_dumb_terminal
    # In a notebook, rich draws with ipywidgets.
    notebook = console.is_jupyter and find_spec("ipywidgets") is not None
    bar = (terminal or notebook) and not quiet and not verbose
    seconds = math.inf if quiet else 0.0 if verbose else LINE_SECONDS
    if not quiet:
        console.print(run.headline)
    columns = (
        SpinnerColumn(),
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis"),
        ),
        TimeElapsedColumn(),
    )
    start = last = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not bar) as bars:
        task = bars.add_task(run.headline, total=None)

        def progress(trainer: EpochTrainer[Any]) -> None:
            nonlocal last
            now = time.monotonic()
            line = f"{run.unit} {run.number(run.index)}: {status(trainer)}"
            if bar:
                bars.update(task, description=line)
            elif now - last >= seconds:
                console.print(f"{now - start:.0f} s, {line}")
                last = now

        def ended(index: int) -> None:
            if not quiet:
                console.print(_result(run, index))

        for index in filter(run.is_over, range(run.trainings)):
            ended(index)
        run.train(progress, ended)
    _report(run, console, quiet)


def status(trainer: EpochTrainer[Any]) -> str:
    """Epoch, loss, validation, and how far the training may still go."""
    end, left = "", trainer.stopping.left
    if trainer.limit - trainer.epoch <= left:
        end = f" of {'' if math.isinf(left) else 'at most '}{trainer.limit}"
    patience = "" if end else f", patience {left:.0f} of {trainer.stopping.patience}"
    history = trainer.history
    return (
        f"epoch {trainer.epoch}{end}, loss {history['train_loss'][-1]:.3f}, "
        f"validation {trainer.metric.text(history['val_score'][-1])}, best epoch "
        f"{trainer.best_epoch}{patience}"
    )


def _result(run: CheckpointedRun[Any], index: int) -> str:
    result = run.results[index]
    return (
        f"{run.unit} {run.number(index)}: test {run.metric.text(result.test_score)}, "
        f"validation {run.metric.text(result.val_score)}, epoch {result.best_epoch} of "
        f"{result.epochs}, {result.seconds:.1f} s"
    )


def _report(run: CheckpointedRun[Any], console: Console, quiet: bool) -> None:
    lines = run.report()
    if not quiet:
        console.print(f"Plots, metrics and checkpoint are in {run.folder.resolve()}{os.sep}")
        for line in lines:
            console.print(line)
    mean, deviation = run.summary()
    several = run.trainings > 1
    console.print(
        f"Test {run.metric.name}: {run.metric.text(mean, deviation if several else None)} "
        f"({run.trainings} {run.unit}{'s' if several else ''})"
    )
