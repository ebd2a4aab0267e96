"""Options of ``gat-ext train``: their types, checks and help."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from gat_ext import _C, datasets, models
from gat_ext.graph import ORDERS
from gat_ext.models.attention_walk import CONTEXTS
from gat_ext.models.walks import WALKS
from gat_ext.training.graph_run import TYPES
from gat_ext.training.kinds import GRAPHS, KINDS, closest_first, kind_of

MODEL_NAMES = [name for kind in KINDS for name in kind.models()]
_DATA, _TRAINING, _MACHINE, _OUTPUT = "Data", "Training", "Machine", "Results and output"
_NODES = f"Models of nodes ({', '.join(models.available())})"
_GRAPHS = f"Models of graphs ({', '.join(models.available_graphs())})"
_EMBEDDINGS = f"Embeddings ({', '.join(models.available_embeddings())})"


# ---- checks


def _check_name(choices: list[str], what: str) -> Callable[[str | None], str | None]:
    def check(value: str | None) -> str | None:
        if value is None or value in choices:
            return value
        raise typer.BadParameter(
            f"no {what} is called {value!r}; choose one of {closest_first(value, choices)}"
        )

    return check


def devices() -> dict[str, str]:
    """The devices that can train, and what they are."""
    found = {"cpu": platform.machine()}
    if _C.build_info()["cuda"] and torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found |= {"cuda": names[0]} | {f"cuda:{i}": name for i, name in enumerate(names)}
    return found


def _check_device(value: str) -> str:
    choices = list(devices())
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


def refuse_other_options(context: typer.Context, model: str) -> None:
    """Raises if options were given that are for other kinds of models.

    Raises:
        typer.BadParameter: naming the first of them.
    """
    mine = kind_of(model)
    for name in sorted(frozenset.union(*(kind.options for kind in KINDS)) - mine.options):
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            others = " or ".join(kind.what for kind in KINDS if name in kind.options)
            raise typer.BadParameter(
                f"it is for models that {others}, and {model} is for those that {mine.what}; "
                "leave it out",
                param_hint=f"--{name.replace('_', '-')}",
            )


def data_set_for(model: str, dataset: str | None) -> str:
    """Name of the data set, if it is for the model's kind; the kind's default for None.

    Raises:
        typer.BadParameter: with the choices.
    """
    mine = kind_of(model)
    if dataset is None:
        return mine.default
    if mine.has_dataset(dataset):
        return dataset
    others = [kind.what for kind in KINDS if kind.has_dataset(dataset)]
    if others:
        why = f"{dataset!r} is for models that {' or '.join(others)}; {model} needs"
    else:
        of_graphs = " of graphs" if mine is GRAPHS else ""
        why = f"no data set{of_graphs} is called {dataset!r}; choose"
    raise typer.BadParameter(
        f"{why} one of {closest_first(dataset, mine.datasets())}", param_hint="--dataset"
    )


def refuse_contradictions(
    model: str,
    dataset: str,
    heads: int | None,
    dim: int,
    sha256: str | None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Raises if options do not go together.

    Raises:
        typer.BadParameter: naming them.
    """
    if heads is not None and model == "agnn":
        raise typer.BadParameter("agnn has no heads; leave it out", param_hint="--heads")
    if dim % 2:
        raise typer.BadParameter(
            f"{dim} is odd; a node's two vectors take half each", param_hint="--dim"
        )
    if sha256 is not None and not dataset.startswith("tu:"):
        raise typer.BadParameter(
            f"it is for data sets tu:NAME, not for {dataset}; leave it out", param_hint="--sha256"
        )
    if resume and overwrite:
        raise typer.BadParameter(
            "one continues the results in the folder, the other deletes them; give one of them",
            param_hint="--resume and --overwrite",
        )


def one_thread(given: int | None) -> int:
    """The number of threads of deterministic models whose matrix products are torch's own.

    Raises:
        typer.BadParameter: another number was given.
    """
    if given not in (None, 1):
        raise typer.BadParameter(
            f"with --deterministic only models of nodes use several threads; {given} were given",
            param_hint="--threads",
        )
    return 1


# ---- options, by panel of the help

_BY_KIND = "; ".join(f"{', '.join(kind.models())}, to {kind.what}" for kind in KINDS)
Model = Annotated[
    str,
    typer.Argument(help=f"One of {_BY_KIND}.", callback=_check_name(MODEL_NAMES, "model")),
]

_OF_GRAPHS = ", ".join(datasets.available_graphs())
Dataset = Annotated[
    str | None,
    typer.Option(
        help=f"One of {', '.join(datasets.available())}; by default digits. "
        f"For {', '.join(models.available_graphs())} one of {_OF_GRAPHS}; by default shapes.",
        rich_help_panel=_DATA,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the data set's files, or one with a folder or zip file of them, also as "
        "PyG arranges it. By default GAT_EXT_DATA, then the cache, filled by download.",
        rich_help_panel=_DATA,
    ),
]
Sha256 = Annotated[
    str | None,
    typer.Option(
        help="Digest to check the download of a tu:NAME by; 'unchecked' accepts any content.",
        rich_help_panel=_DATA,
    ),
]

Seeds = Annotated[int, typer.Option(min=1, help="Number of trainings.", rich_help_panel=_TRAINING)]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=2**32 - 1,
        help="Seed of the first training; those of the next ones count up.",
        rich_help_panel=_TRAINING,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Highest number of epochs.", rich_help_panel=_TRAINING),
]
Patience = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Epochs without improvement before training stops.",
        rich_help_panel=_TRAINING,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(help="Learning rate.", callback=_check_rate, rich_help_panel=_TRAINING),
]
WeightDecay = Annotated[
    float | None,
    typer.Option(
        help="Factor of the L2 penalty.", callback=_check_penalty, rich_help_panel=_TRAINING
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        help="Settings of the model's paper, which the other options change.",
        callback=_check_name(["paper"], "preset"),
        rich_help_panel=_TRAINING,
    ),
]
Hidden = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Hidden channels, of each head; of graphs' agents in all.",
        rich_help_panel=_TRAINING,
    ),
]

Layers = Annotated[
    int | None, typer.Option(min=1, help="Attention layers.", rich_help_panel=_NODES)
]
Heads = Annotated[
    int | None,
    typer.Option(min=1, help="Heads of the hidden layers.", rich_help_panel=_NODES),
]
Reorder = Annotated[
    str | None,
    typer.Option(
        help=f"Renumber the nodes first, for speed on large graphs: {', '.join(ORDERS)}.",
        callback=_check_name(list(ORDERS), "order"),
        rich_help_panel=_NODES,
    ),
]
Bf16 = Annotated[
    bool,
    typer.Option(
        "--bf16", help="Run the model in bfloat16; weights stay float32.", rich_help_panel=_NODES
    ),
]

Folds = Annotated[
    int, typer.Option(min=2, help="Parts of the cross-validation.", rich_help_panel=_GRAPHS)
]
Subset = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Draw so many graphs at random, equally many of each class.",
        rich_help_panel=_GRAPHS,
    ),
]
Walk = Annotated[
    str,
    typer.Option(
        help="How agents move: attention (what they learn), uniform or greedy.",
        callback=_check_name(list(WALKS), "walk"),
        rich_help_panel=_GRAPHS,
    ),
]
Types = Annotated[
    str,
    typer.Option(
        help="Node types that agents see: label (the degree where there are none), degree, or "
        "wl1, wl2, wl3, colours that distinguish the types of nodes up to so many steps away.",
        callback=_check_name(list(TYPES), "kind of types"),
        rich_help_panel=_GRAPHS,
    ),
]
Attributes = Annotated[
    bool,
    typer.Option(
        "--attributes",
        help="Agents see the data set's attributes of nodes instead of types.",
        rich_help_panel=_GRAPHS,
    ),
]
Keep = Annotated[
    str,
    typer.Option(
        help="Weights to test: those of the best epoch in validation, or of the last. Where few "
        "graphs validate, last is better: the best of many epochs is then a lucky one.",
        callback=_check_name(["best", "last"], "rule"),
        rich_help_panel=_GRAPHS,
    ),
]
EvalAgents = Annotated[
    int,
    typer.Option(
        min=0,
        help="Agents of each graph in validation and test; 0: as in training.",
        rich_help_panel=_GRAPHS,
    ),
]

Dim = Annotated[
    int,
    typer.Option(min=2, help="Size of an embedding, even.", rich_help_panel=_EMBEDDINGS),
]
Window = Annotated[int, typer.Option(min=1, help="Steps of a walk.", rich_help_panel=_EMBEDDINGS)]
Context = Annotated[
    str,
    typer.Option(
        help="Weights of walks of each length, learned or uniform.",
        callback=_check_name(list(CONTEXTS), "context"),
        rich_help_panel=_EMBEDDINGS,
    ),
]

Device = Annotated[
    str, typer.Option(help="cpu or cuda.", callback=_check_device, rich_help_panel=_MACHINE)
]
NumThreads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="CPU threads. By default the cores that this process may use and that are idle.",
        rich_help_panel=_MACHINE,
    ),
]
Deterministic = Annotated[
    bool | None,
    typer.Option(
        help="Bitwise identical results on any number of CPU threads. The default for models of "
        "nodes; the others then use one thread.",
        show_default=False,
        rich_help_panel=_MACHINE,
    ),
]

Out = Annotated[
    Path | None,
    typer.Option(
        file_okay=False,
        help="Folder for results; runs/MODEL-DATASET by default.",
        rich_help_panel=_OUTPUT,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue from the folder's checkpoint, also with more --seeds or --epochs.",
        rich_help_panel=_OUTPUT,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Delete the folder's results and start again.", rich_help_panel=_OUTPUT
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print the final score only.", rich_help_panel=_OUTPUT),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Print a line for every epoch.", rich_help_panel=_OUTPUT),
]
