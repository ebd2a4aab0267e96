"""The command line: gat-ext train, info, bench."""

from __future__ import annotations

import difflib
import math
import os
import pickle
import platform
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table
except ImportError:
    sys.exit("gat-ext needs typer and rich, which are not installed: pip install 'gat_ext[train]'")

import numpy as np
import torch

from gat_ext import _C, __version__, datasets, models
from gat_ext.graph import ORDERS
from gat_ext.training import graph_cli, plots
from gat_ext.training.checkpointed import Interrupted
from gat_ext.training.compare import compare
from gat_ext.training.graph_loop import GraphRecipe
from gat_ext.training.graph_run import GraphRunConfig
from gat_ext.training.loop import Trainer
from gat_ext.training.metrics import logistic_regression
from gat_ext.training.recipes import recipe
from gat_ext.training.run import Run, RunConfig

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sparse graph attention: train a model, look at the installation, time this machine.",
)
console = Console(highlight=False, soft_wrap=True)
_ENVIRONMENT_ERRORS = (
    OSError,
    ImportError,
    ValueError,
    TypeError,
    FloatingPointError,
    pickle.UnpicklingError,
)


def _fail(error: BaseException | str) -> NoReturn:
    print(f"Error: {error}", file=sys.stderr)
    raise typer.Exit(1)


def _closest_first(value: str, choices: list[str]) -> str:
    def likeness(choice: str) -> float:
        return difflib.SequenceMatcher(None, value.lower(), choice).ratio()

    return ", ".join(sorted(choices, key=likeness, reverse=True))


def _check_name(choices: list[str], what: str) -> Callable[[str | None], str | None]:
    def check(value: str | None) -> str | None:
        if value is None or value in choices:
            return value
        raise typer.BadParameter(
            f"no {what} is called {value!r}; choose one of {_closest_first(value, choices)}"
        )

    return check


def _devices() -> dict[str, str]:
    """The devices that can train, and what they are."""
    devices = {"cpu": platform.machine()}
    if _C.build_info()["cuda"] and torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        devices |= {"cuda": names[0]} | {f"cuda:{i}": name for i, name in enumerate(names)}
    return devices


def _check_device(value: str) -> str:
    choices = list(_devices())
    if value not in choices:
        why = "" if _C.build_info()["cuda"] else " (this build has no CUDA kernels)"
        raise typer.BadParameter(
            f"no device {value!r} here; choose one of {_closest_first(value, choices)}{why}"
        )
    return value


def _check_rate(value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"{value} is not a positive number")
    return value


def _check_penalty(value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise typer.BadParameter(f"{value} is not 0 or a positive number")
    return value


_GRAPH_MODELS = models.available_graphs()
_WALKS = ["attention", "uniform", "greedy"]
_MODEL = typer.Argument(
    help=f"One of {', '.join(models.available())}, which classify nodes, or {', '.join(_GRAPH_MODELS)}, which classify graphs.",
    callback=_check_name([*models.available(), *_GRAPH_MODELS], "model"),
)
_DATASET = typer.Option(
    help=f"One of {', '.join(datasets.available())}; by default digits. For {', '.join(_GRAPH_MODELS)} one of "
    f"{', '.join(datasets.available_graphs())}; by default shapes."
)


def _data_set_for(model: str, dataset: str | None) -> str:
    """The data set, once it is known to be for the model's kind; the kind's default for None."""
    graphs = model in _GRAPH_MODELS
    if dataset is None:
        return "shapes" if graphs else "digits"
    of_nodes, of_graphs = dataset in datasets.available(), graph_cli.is_data_set(dataset)
    if of_graphs if graphs else of_nodes:
        return dataset
    choices = datasets.available_graphs() if graphs else datasets.available()
    if of_nodes or of_graphs:
        why = f"{dataset!r} is for models that classify {'nodes' if graphs else 'graphs'}; {model} needs"
    else:
        why = f"no data set{' of graphs' if graphs else ''} is called {dataset!r}; choose"
    raise typer.BadParameter(
        f"{why} one of {_closest_first(dataset, choices)}", param_hint="--dataset"
    )


@app.command()
def train(
    context: typer.Context,
    model: Annotated[str, _MODEL] = "gat",
    dataset: Annotated[str | None, _DATASET] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder with the data set's files; else they are downloaded."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs.")] = 1,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**32 - 1, help="Seed of the first run; the next ones count up."),
    ] = 0,
    preset: Annotated[
        str,
        typer.Option(
            help="Settings: those of the model's paper.", callback=_check_name(["paper"], "preset")
        ),
    ] = "paper",
    epochs: Annotated[int | None, typer.Option(min=1, help="At most so many epochs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", callback=_check_rate)] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Factor of the L2 penalty.", callback=_check_penalty)
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Epochs without improvement before training stops.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Attention layers.")] = None,
    hidden: Annotated[int | None, typer.Option(min=1, help="Hidden channels (of a head).")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Heads of the hidden layers.")] = None,
    reorder: Annotated[
        str | None,
        typer.Option(
            help=f"Renumber the nodes first, for speed on large graphs: {', '.join(ORDERS)}.",
            callback=_check_name(list(ORDERS), "order"),
        ),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Graphs: parts of the cross-validation.")] = 5,
    subset: Annotated[
        int | None,
        typer.Option(min=2, help="Graphs: take so many at random, equally many of each class."),
    ] = None,
    walk: Annotated[
        str,
        typer.Option(
            help="Graphs: how agents move, attention (what they learn), uniform or greedy.",
            callback=_check_name(_WALKS, "walk"),
        ),
    ] = "attention",
    device: Annotated[str, typer.Option(help="cpu or cuda.", callback=_check_device)] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for results; runs/MODEL-DATASET by default."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")
    ] = False,
) -> None:
    """Train MODEL on a data set; write metrics, plots and a checkpoint."""
    graph_cli.refuse_other_options(context, model)
    dataset = _data_set_for(model, dataset)
    if threads is not None:
        torch.set_num_threads(threads)
    if heads is not None and model == "agnn":
        raise typer.BadParameter("agnn has no heads; leave --heads out")
    name = f"{model}-{dataset}".replace(":", "-")
    folder = Path("runs") / name if out is None else out
    if model in _GRAPH_MODELS:
        given: dict[str, int | str] = {"walk": walk}
        if hidden is not None:
            given["hidden_channels"] = hidden
        settings = GraphRecipe().with_overrides(epochs=epochs, lr=lr, patience=patience)
        graph_config = GraphRunConfig(model, dataset, seed, folds, subset, settings, given)
        with _mistakes_explained():
            graph_cli.train(graph_config, root, device, folder, resume, console)
        return
    options = {"num_layers": layers, "hidden_channels": hidden, "heads": heads}
    config = RunConfig(
        model,
        dataset,
        seed,
        seeds,
        recipe(model, dataset).with_overrides(
            epochs=epochs, lr=lr, weight_decay=weight_decay, patience=patience
        ),
        {name: value for name, value in options.items() if value is not None},
        reorder,
    )
    with _mistakes_explained():
        plots.require()
        data = datasets.load(dataset, root=root).to(device)
        run = Run(config, data, folder)
        if resume:
            run.resume()
        try:
            _train(run)
            _report(run)
        except KeyboardInterrupt:
            raise Interrupted from None


@contextmanager
def _mistakes_explained() -> Iterator[None]:
    """Turns what a person can mend into one line, and Ctrl-C into how to go on."""
    try:
        yield
    except Interrupted:
        again = [argument for argument in sys.argv[1:] if argument != "--resume"]
        command = f"gat-ext {shlex.join([*again, '--resume'])}"
        console.print(f"Interrupted. To go on: {command}", markup=False)
        raise typer.Exit(130) from None
    except KeyboardInterrupt:
        console.print("Interrupted before training began.")
        raise typer.Exit(130) from None
    except _ENVIRONMENT_ERRORS as error:
        _fail(error)
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        _fail(f"out of memory; a smaller network or data set may fit: {error}")


def _train(run: Run) -> None:
    data, config = run.data, run.config
    console.print(
        f"{config.model} on {data.name}: {data.num_nodes} nodes, {data.num_edges} edges, {data.num_features} features, "
        f"{data.num_classes} classes"
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
        task = bars.add_task("seed", total=None, score="")
        shown = len(run.results)

        def progress(trainer: Trainer) -> None:
            nonlocal shown
            shown = _announce(run, shown)
            total = min(
                config.recipe.epochs,
                trainer.epoch - trainer.stopping.waited + trainer.stopping.patience,
            )
            bars.update(
                task,
                description=f"seed {trainer.seed}",
                completed=trainer.epoch,
                total=total,
                score=f"validation {100 * trainer.history['val_score'][-1]:.1f} %",
            )

        run.train(progress)
        _announce(run, shown)


def _announce(run: Run, shown: int) -> int:
    """Prints the results that are new."""
    for result in run.results[shown:]:
        console.print(
            f"seed {result.seed}: test {100 * result.test_score:.1f} %, validation {100 * result.val_score:.1f} %, "
            f"epoch {result.best_epoch} of {result.epochs}, {result.seconds:.1f} s"
        )
    return len(run.results)


def _report(run: Run) -> None:
    baseline = {}
    if run.config.dataset == "digits":
        baseline["logistic_regression"] = logistic_regression(run.data, run.config.seed)
    run.report(**baseline)
    console.print(f"Plots, metrics and checkpoint are in {run.folder.resolve()}{os.sep}")
    if baseline:
        console.print(
            f"Logistic regression on the same labels, without the graph: {100 * baseline['logistic_regression']:.1f} %"
        )
    mean, deviation = run.summary()
    what = "micro-F1" if run.data.multilabel else "accuracy"
    spread = f" ± {100 * deviation:.1f}" if run.config.seeds > 1 else ""
    plural = "s" if run.config.seeds > 1 else ""
    console.print(f"Test {what}: {100 * mean:.1f}{spread} % ({run.config.seeds} seed{plural})")


@app.command()
def info() -> None:
    """Say what is installed and what it runs on."""
    table = Table(show_header=False, box=None)
    rows = {"gat_ext": __version__, "torch": torch.__version__}
    rows |= {"numpy": np.__version__, "python": platform.python_version()}
    rows |= {f"built with {name}": str(value) for name, value in _C.build_info().items()}
    rows |= {
        "instruction set": _C.isa(),
        "threads": str(_C.num_threads()),
        "devices": ", ".join(f"{device} ({what})" for device, what in _devices().items()),
        "scores": ", ".join(_C.score_names()),
    }
    rows |= {"models": ", ".join([*models.available(), *_GRAPH_MODELS])}
    rows |= {"data sets": ", ".join([*datasets.available(), *datasets.available_graphs()])}
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


@app.command()
def bench(
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
) -> None:
    """Time GAT's attention, forward and backward, against dense masked PyTorch on this machine."""
    if threads is not None:
        torch.set_num_threads(threads)
    table = Table("nodes", "edges", "dense [ms]", "fused [ms]", "ratio", box=None)
    for num_nodes in (250, 500, 1000, 2000):
        row = compare(num_nodes, degree=10)
        table.add_row(
            str(row.num_nodes),
            str(row.num_edges),
            f"{row.dense:.2f}",
            f"{row.fused:.2f}",
            f"{row.dense / row.fused:.1f}",
        )
    console.print(
        f"4 heads × 16 channels, float32, {torch.get_num_threads()} threads; results agree; medians"
    )
    console.print(table)


def main() -> None:
    """Entry point of the command gat-ext."""
    app()


if __name__ == "__main__":
    main()
