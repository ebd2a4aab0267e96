"""Options of ``gat-ext train``: their types, checks and help."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from gat_ext import _C, datasets, models
from gat_ext.graph import ORDERS
from gat_ext.models.attention_walk import CONTEXTS
from gat_ext.models.pooled import POOLINGS
from gat_ext.models.walks import WALKS
from gat_ext.training.fold_run import TYPES
from gat_ext.training.kinds import KINDS, MODEL_NAMES, Kind, closest_first, kind_of, spelled
from gat_ext.training.sampled_loop import fanouts_of

# ---- checks


def check_name(choices: list[str], what: str) -> Callable[[str | None], str | None]:
    """Callback of an option that raises typer.BadParameter, with the choices, for another value."""

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


def kind_for(model: str, task: str | None, dataset: str | None) -> Kind:
    """The kind of a model for a task, or for a data set where no task is given.

    Raises:
        typer.BadParameter: the model has no such task.
    """
    try:
        return kind_of(model, task, dataset)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; or leave it out", param_hint="--task") from error


def refuse_other_options(
    context: typer.Context, mine: Kind, model: str, dataset: str | None
) -> None:
    """Raises if options were given that are for other kinds of models.

    Raises:
        typer.BadParameter: naming the first of them.
    """
    for name in sorted(frozenset.union(*(kind.options for kind in KINDS)) - mine.options):
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            have = [kind for kind in KINDS if name in kind.options]
            fitting = [k for k in have if dataset is None or k.has_dataset(dataset)]
            tasks = [kind.task for kind in fitting if model in kind.models()]
            hint = f", or give --task {tasks[0]}" if tasks else ""
            raise typer.BadParameter(
                f"it is for models that {' or '.join(kind.what for kind in have)}, and {model} is "
                f"for those that {mine.what}; leave it out{hint}",
                param_hint=f"--{name.replace('_', '-')}",
            )


def data_set_for(mine: Kind, model: str, task: str | None, dataset: str | None) -> str:
    """Name of the data set, if it is for the kind; the kind's default for None.

    Raises:
        typer.BadParameter: with the choices.
    """
    if dataset is None:
        return mine.default
    if mine.has_dataset(dataset):
        return dataset
    names = mine.datasets()
    others = [kind for kind in KINDS if kind.has_dataset(dataset)]
    if others:
        tasks = [kind.task for kind in others if model in kind.models()]
        hint = f"give --task {tasks[0]}, or" if tasks else f"{model} needs"
        why = f"{dataset!r} is for models that {' or '.join(k.what for k in others)}; {hint}"
    else:
        of_graphs = " of graphs" if mine.task == "graph" else ""
        if task is None:
            names = [n for kind in KINDS if model in kind.models() for n in kind.datasets()]
        why = f"no data set{of_graphs} is called {dataset!r}; choose"
    raise typer.BadParameter(
        f"{why} one of {closest_first(dataset, names)}", param_hint="--dataset"
    )


def refuse_contradictions(
    model: str,
    dataset: str,
    heads: int | None,
    edge_attributes: bool,
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
    if edge_attributes and model == "agnn":
        raise typer.BadParameter(
            "agnn sees no attributes of edges; leave it out", param_hint="--edge-attributes"
        )
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
            f"with --deterministic only models of attention layers use several threads; {given} "
            "were given",
            param_hint="--threads",
        )
    return 1


# ---- options, by panel of the help


def _panel(title: str, names: list[str] | None = None) -> Callable[..., Any]:
    """Constructor of the options of a panel."""
    full = title if names is None else f"{title} ({', '.join(names)})"
    return partial(typer.Option, rich_help_panel=full)


_of_data, _of_training, _of_machine = map(_panel, ("Data", "Training", "Machine"))
_of_output = _panel("Results and output")
_of_layers = _panel("Attention layers", [*models.available(), *models.available_typed()])
_of_graphs = _panel("Classification of graphs")
_of_agents = _panel("Walking agents", models.available_graphs())
_of_embeddings = _panel("Embeddings", models.available_embeddings())

_BY_KIND = "; ".join(f"{', '.join(kind.models())}, to {kind.what}" for kind in KINDS)
Model = Annotated[
    str | None,
    typer.Argument(
        help=f"One of {_BY_KIND}. By default agnn on noisy_digits and gat on other data sets.",
        callback=check_name(MODEL_NAMES, "model"),
        show_default=False,
    ),
]

Task = Annotated[
    str | None,
    _of_data(
        help=f"What {', '.join(models.available())} classify: node, or graph, from its nodes' "
        "pooled features. By default what the data set is for.",
        callback=check_name(list(dict.fromkeys(kind.task for kind in KINDS)), "task"),
    ),
]
_OF_GRAPHS = ", ".join(datasets.available_graphs())
Dataset = Annotated[
    str | None,
    _of_data(
        help=f"One of {', '.join(datasets.available())}; by default noisy_digits, or digits for "
        f"embeddings. For {', '.join(models.available_graphs())}, or --task graph, one of "
        f"{_OF_GRAPHS}; by default shapes. For {', '.join(models.available_typed())}, one of "
        f"{', '.join(datasets.available_typed())}.",
        callback=spelled,
    ),
]
Root = Annotated[
    Path | None,
    _of_data(
        help="Folder of the data set's files, or one with a folder or zip file of them, also as "
        "PyG arranges it. By default GAT_EXT_DATA, then the cache, filled by download."
    ),
]
Sha256 = Annotated[
    str | None,
    _of_data(help="Digest to check the download of a tu:NAME by; 'unchecked' accepts any content."),
]

Seeds = Annotated[int, _of_training(min=1, help="Number of trainings.")]
Seed = Annotated[
    int,
    _of_training(
        min=0, max=2**32 - 1, help="Seed of the first training; those of the next ones count up."
    ),
]
Epochs = Annotated[
    int | None,
    _of_training(min=1, help="Highest number of epochs."),
]
Patience = Annotated[
    int | None,
    _of_training(min=1, help="Epochs without improvement before training stops."),
]
Rate = Annotated[
    float | None,
    _of_training(help="Learning rate.", callback=_check_rate),
]
WeightDecay = Annotated[
    float | None,
    _of_training(help="Factor of the L2 penalty.", callback=_check_penalty),
]
Preset = Annotated[
    str,
    _of_training(
        help="Settings of the model's paper, which the other options change.",
        callback=check_name(["paper"], "preset"),
    ),
]
Hidden = Annotated[
    int | None,
    _of_training(min=1, help="Hidden channels, of each head; of graphs' agents and hgt in all."),
]

Layers = Annotated[int | None, _of_layers(min=1, help="Attention layers.")]
Heads = Annotated[
    int | None,
    _of_layers(min=1, help="Heads of the hidden layers."),
]
Reorder = Annotated[
    str | None,
    _of_layers(
        help=f"Renumber the nodes first, for speed on large graphs: {', '.join(ORDERS)}.",
        callback=check_name(list(ORDERS), "order"),
    ),
]
Bf16 = Annotated[
    bool,
    _of_layers("--bf16", help="Run the model in bfloat16; weights stay float32."),
]


def _check_sample(value: str) -> str:
    if value:
        try:
            fanouts_of(value)
        except ValueError as error:
            raise typer.BadParameter(str(error).partition("; ")[2]) from error
    return value


Sample = Annotated[
    str,
    _of_layers(
        help="Train on mini-batches: numbers of sampled neighbours, one for each attention layer, "
        "such as 10,10; -1 takes all. Validation and test read all neighbours.",
        callback=_check_sample,
        show_default=False,
    ),
]
BatchSize = Annotated[
    int | None,
    _of_layers(min=1, help="With --sample: training nodes of a batch, of each process [512]."),
]

Folds = Annotated[int, _of_graphs(min=2, help="Parts of the cross-validation.")]
Subset = Annotated[
    int | None,
    _of_graphs(min=2, help="Draw so many graphs at random, equally many of each class."),
]
Pooling = Annotated[
    str,
    _of_graphs(
        help=f"With {', '.join(models.available())}: {', '.join(POOLINGS)} of the nodes' features.",
        callback=check_name(list(POOLINGS), "pooling"),
    ),
]
Walk = Annotated[
    str,
    _of_agents(
        help="How agents move: attention (what they learn), uniform or greedy.",
        callback=check_name(list(WALKS), "walk"),
    ),
]
Types = Annotated[
    str,
    _of_graphs(
        help="Node types that models see: label (the degree where there are none), degree, or "
        "wl1, wl2, wl3, colours that distinguish the types of nodes up to so many steps away.",
        callback=check_name(list(TYPES), "kind of types"),
    ),
]
Attributes = Annotated[
    bool,
    _of_graphs(
        "--attributes", help="Models see the data set's attributes of nodes instead of types."
    ),
]
EdgeAttributes = Annotated[
    bool,
    _of_layers(
        "--edge-attributes",
        help="Attention sees the attributes of edges, of a data set of graphs or of --data.",
    ),
]
Keep = Annotated[
    str,
    _of_graphs(
        help="Weights to test: those of the best epoch in validation, or of the last. Where few "
        "graphs validate, last is better: the best of many epochs is then a lucky one.",
        callback=check_name(["best", "last"], "rule"),
    ),
]
EvalAgents = Annotated[
    int,
    _of_agents(min=0, help="Agents of each graph in validation and test; 0: as in training."),
]

Dim = Annotated[
    int,
    _of_embeddings(min=2, help="Size of an embedding, even."),
]
Window = Annotated[int, _of_embeddings(min=1, help="Steps of a walk.")]
Context = Annotated[
    str,
    _of_embeddings(
        help="Weights of walks of each length, learned or uniform.",
        callback=check_name(list(CONTEXTS), "context"),
    ),
]

Device = Annotated[str, _of_machine(help="cpu or cuda.", callback=_check_device)]
NumThreads = Annotated[
    int | None,
    _of_machine(
        "--threads",
        min=1,
        help="CPU threads. By default the cores that this process may use and that are idle.",
    ),
]
Deterministic = Annotated[
    bool | None,
    _of_machine(
        help="Bitwise identical results on any number of CPU threads. The default for models "
        "of attention layers; the others then use one thread.",
        show_default=False,
    ),
]

Out = Annotated[
    Path | None,
    _of_output(file_okay=False, help="Folder for results; runs/MODEL-DATASET by default."),
]
Resume = Annotated[
    bool,
    _of_output(
        "--resume",
        help="Continue from the folder's checkpoint, also with more --seeds or --epochs.",
    ),
]
Overwrite = Annotated[
    bool, _of_output("--overwrite", help="Delete the folder's results and start again.")
]
Quiet = Annotated[bool, _of_output("--quiet", "-q", help="Print the final score only.")]
Verbose = Annotated[
    bool,
    _of_output("--verbose", "-v", help="Print a line for every epoch."),
]
