"""The command line: gat-ext train, info, bench."""

from __future__ import annotations

import math
import pickle
import platform
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

try:
    import typer
    from rich.console import Console
    from rich.table import Table
except ImportError:
    sys.exit("gat-ext needs typer and rich, which are not installed: pip install 'gat_ext[train]'")

import numpy as np
import torch

from gat_ext import _C, __version__, datasets, models
from gat_ext.graph import ORDERS
from gat_ext.models.attention_walk import CONTEXTS
from gat_ext.models.walks import WALKS
from gat_ext.training import plots, progress
from gat_ext.training.checkpointed import CheckpointedRun, Interrupted
from gat_ext.training.compare import compare
from gat_ext.training.embedding_loop import EmbeddingRecipe
from gat_ext.training.embedding_run import EmbeddingRun, EmbeddingRunConfig
from gat_ext.training.graph_loop import GraphRecipe
from gat_ext.training.graph_run import TYPES, GraphRun, GraphRunConfig
from gat_ext.training.kinds import (
    EMBEDDINGS,
    GRAPHS,
    KINDS,
    closest_first,
    data_set_for,
    kind_of,
    refuse_other_options,
)
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


def _check_name(choices: list[str], what: str) -> Callable[[str | None], str | None]:
    def check(value: str | None) -> str | None:
        if value is None or value in choices:
            return value
        raise typer.BadParameter(
            f"no {what} is called {value!r}; choose one of {closest_first(value, choices)}"
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
            f"no device {value!r} here; choose one of {closest_first(value, choices)}{why}"
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


_MODEL_NAMES = [name for kind in KINDS for name in kind.models()]
_BY_KIND = [f"{', '.join(kind.models())}, to {kind.what}" for kind in KINDS]
_MODEL = typer.Argument(
    help=f"One of {'; '.join(_BY_KIND)}.",
    callback=_check_name(_MODEL_NAMES, "model"),
)
_DATASET = typer.Option(
    help=f"One of {', '.join(datasets.available())}; by default digits. For {', '.join(models.available_graphs())} one of "
    f"{', '.join(datasets.available_graphs())}; by default shapes."
)


@app.command()
def train(
    command: typer.Context,
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
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Run the model in bfloat16; weights stay float32.")
    ] = False,
    folds: Annotated[int, typer.Option(min=2, help="Graphs: parts of the cross-validation.")] = 5,
    subset: Annotated[
        int | None,
        typer.Option(min=2, help="Graphs: take so many at random, equally many of each class."),
    ] = None,
    walk: Annotated[
        str,
        typer.Option(
            help="Graphs: how agents move, attention (what they learn), uniform or greedy.",
            callback=_check_name(list(WALKS), "walk"),
        ),
    ] = "attention",
    types: Annotated[
        str,
        typer.Option(
            help="Graphs: what agents tell nodes apart by: label (the degree where there are none), degree, or wl1, wl2, wl3, "
            "a colour that also tells the types of the nodes up to so many steps away.",
            callback=_check_name(list(TYPES), "kind of types"),
        ),
    ] = "label",
    attributes: Annotated[
        bool,
        typer.Option(
            "--attributes",
            help="Graphs: agents see the nodes' attributes of the data set in place of their types.",
        ),
    ] = False,
    keep: Annotated[
        str,
        typer.Option(
            help="Graphs: the weights to test, those of the epoch that was best in validation, or of the last: better where "
            "few graphs validate, for among many epochs the best is then the luckiest.",
            callback=_check_name(["best", "last"], "rule"),
        ),
    ] = "best",
    eval_agents: Annotated[
        int,
        typer.Option(
            min=0, help="Graphs: agents of each in validation and test; 0: as in training."
        ),
    ] = 0,
    dim: Annotated[int, typer.Option(min=2, help="Embeddings: their size.")] = 128,
    window: Annotated[int, typer.Option(min=1, help="Embeddings: steps of a walk.")] = 10,
    context: Annotated[
        str,
        typer.Option(
            help="Embeddings: weights of walks of each length, learned or uniform.",
            callback=_check_name(list(CONTEXTS), "context"),
        ),
    ] = "learned",
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
    refuse_other_options(command, model)
    dataset = data_set_for(model, dataset)
    kind = kind_of(model)
    if threads is not None:
        torch.set_num_threads(threads)
    if heads is not None and model == "agnn":
        raise typer.BadParameter("agnn has no heads; leave --heads out")
    if dim % 2:
        raise typer.BadParameter(
            f"{dim} is odd; a node's two vectors take half each", param_hint="--dim"
        )
    name = f"{model}-{dataset}".replace(":", "-")
    folder = Path("runs") / name if out is None else out
    with _mistakes_explained():
        plots.require()
        run: CheckpointedRun[Any]
        if kind is GRAPHS:
            settings = GraphRecipe(eval_agents=eval_agents, stopping=keep).with_overrides(
                epochs=epochs, lr=lr, patience=patience
            )
            given: dict[str, int | str] = {"walk": walk}
            if hidden is not None:
                given["hidden_channels"] = hidden
            graph_config = GraphRunConfig(
                model, dataset, seed, folds, subset, settings, given, types, attributes
            )
            graphs = datasets.load_graphs(dataset, root=root).to(device)
            run = GraphRun(graph_config, graphs, folder)
        elif kind is EMBEDDINGS:
            walks = EmbeddingRecipe().with_overrides(
                epochs=epochs, lr=lr, weight_decay=weight_decay
            )
            sizes: dict[str, int | str] = {"embedding_channels": dim, "window": window}
            embedding_config = EmbeddingRunConfig(
                model, dataset, seed, seeds, walks, {**sizes, "context": context}
            )
            run = EmbeddingRun(
                embedding_config, datasets.load(dataset, root=root).to(device), folder
            )
        else:
            options = {"num_layers": layers, "hidden_channels": hidden, "heads": heads}
            how = recipe(model, dataset).with_overrides(
                epochs=epochs, lr=lr, weight_decay=weight_decay, patience=patience, bf16=bf16
            )
            changes: dict[str, int | float] = {
                name: value for name, value in options.items() if value is not None
            }
            config = RunConfig(model, dataset, seed, seeds, how, changes, reorder)
            run = Run(config, datasets.load(dataset, root=root).to(device), folder)
        if resume:
            run.resume()
        progress.train(run, console)


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
        "scores": ", ".join(_C.score_traits()),
    }
    rows |= {"models": ", ".join(_MODEL_NAMES)}
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
