"""The part of ``gat-ext train`` that classifies graphs."""

from __future__ import annotations

import os
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gat_ext import datasets, models
from gat_ext.training import plots
from gat_ext.training.checkpointed import Interrupted
from gat_ext.training.graph_loop import GraphTrainer
from gat_ext.training.graph_run import GraphRun, GraphRunConfig

# Options that one kind of model alone has.
_OF_NODES = ("seeds", "weight_decay", "layers", "heads", "reorder")
_OF_GRAPHS = ("folds", "subset", "walk")


def refuse_other_options(context: typer.Context, model: str) -> None:
    """Refuses options that were given and are for the other kind of model.

    Raises:
        typer.BadParameter: naming the first of them.
    """
    graphs = model in models.available_graphs()
    mine, other = ("graphs", "nodes") if graphs else ("nodes", "graphs")
    for name in _OF_NODES if graphs else _OF_GRAPHS:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise typer.BadParameter(
                f"it is for models that classify {other}, and {model} classifies {mine}; leave it out",
                param_hint=f"--{name.replace('_', '-')}",
            )


def is_data_set(name: str) -> bool:
    """Whether there is such a data set of graphs.

    Example:
        >>> is_data_set("shapes"), is_data_set("tu:NCI1"), is_data_set("cora")
        (True, True, False)
    """
    family, _, inside = name.partition(":")
    known = datasets.available_graphs()
    return f"{family}:NAME" in known if inside else name in known


def train(
    config: GraphRunConfig,
    root: Path | None,
    device: str,
    folder: Path,
    resume: bool,
    console: Console,
) -> None:
    """Loads the data, trains, and reports."""
    plots.require()
    data = datasets.load_graphs(config.dataset, root=root).to(device)
    run = GraphRun(config, data, folder)
    if resume:
        run.resume()
    try:
        _train(run, console)
        _report(run, console)
    except KeyboardInterrupt:
        raise Interrupted from None


def _train(run: GraphRun, console: Console) -> None:
    """Trains on all folds that are left, and says how it goes."""
    data, config = run.data, run.config
    console.print(
        f"{config.model} on {data.name}: {len(data)} graphs, {data.num_nodes} nodes, {data.num_edges} edges, "
        f"{data.num_types} node types, {data.num_classes} classes"
    )
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
        task = bars.add_task("fold", total=None, score="")
        shown = len(run.results)

        def progress(trainer: GraphTrainer) -> None:
            nonlocal shown
            shown = _announce(run, console, shown)
            bars.update(
                task,
                description=f"fold {len(run.results) + 1} of {config.folds}",
                completed=trainer.epoch,
                total=min(
                    config.recipe.epochs,
                    trainer.epoch - trainer.stopping.waited + trainer.stopping.patience,
                ),
                score=f"validation {100 * trainer.history['val_score'][-1]:.1f} %",
            )

        run.train(progress)
        _announce(run, console, shown)


def _announce(run: GraphRun, console: Console, shown: int) -> int:
    """Prints the results that are new."""
    for number, result in enumerate(run.results[shown:], start=shown + 1):
        console.print(
            f"fold {number}: test {100 * result.test_score:.1f} %, validation {100 * result.val_score:.1f} %, "
            f"epoch {result.best_epoch} of {result.epochs}, {result.seconds:.1f} s"
        )
    return len(run.results)


def _report(run: GraphRun, console: Console) -> None:
    """Writes metrics and plots, and says where they are and what came out."""
    run.report()
    console.print(f"Plots, metrics and checkpoint are in {run.folder.resolve()}{os.sep}")
    mean, deviation = run.summary()
    console.print(
        f"Test accuracy: {100 * mean:.1f} ± {100 * deviation:.1f} % ({run.config.folds} folds)"
    )
