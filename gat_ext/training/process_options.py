"""Options of ``gat-ext train`` in several processes: their types, checks and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gat_ext import models
from gat_ext.distributed import MODES
from gat_ext.training.kinds import NODES, Kind
from gat_ext.training.options import _panel, check_name
from gat_ext.training.partition_options import METHODS
from gat_ext.training.processes import Launch

_of_processes = _panel("Several processes: torchrun --nproc-per-node N --no-python gat-ext train …")

PartitionMethod = Annotated[
    str,
    _of_processes(
        help=f"How the graph is cut into parts: {', '.join(METHODS)}. metis and kaminpar come with "
        "gat_ext[distributed].",
        callback=check_name(list(METHODS), "method"),
    ),
]
Parts = Annotated[
    Path | None,
    _of_processes(
        file_okay=False,
        help="Folder of gat-ext partition, of which each process reads its part, instead of "
        "loading the whole data set and cutting it.",
    ),
]
Mode = Annotated[
    str,
    _of_processes(
        help=f"How attention reads the rows of other processes: {', '.join(MODES)}.",
        callback=check_name(list(MODES), "mode"),
    ),
]
RankTimeout = Annotated[
    float,
    _of_processes(min=1, help="Seconds that a process waits for the others before it gives up."),
]


def refuse(
    launch: Launch, kind: Kind, model: str, config: Any, device: str, root: Path | None, cut: bool
) -> None:
    """Raises if a run cannot be in several processes.

    Args:
        launch: of this process.
        kind: of the model.
        model: its name.
        config: of the run.
        device: that was given.
        root: that was given.
        cut: whether a folder of parts is given.

    Raises:
        typer.BadParameter: naming what cannot be.
    """
    if kind is NODES and config.recipe.sample:
        clashes = {
            "--parts": cut and "--sample reads the whole data set",
            "--device": device != "cpu" and "batches are sampled and trained on the CPU",
            "--sample": config.recipe.graphs_per_batch > 0
            and f"{model} trains on {config.dataset} in batches of graphs",
        }
        for name, problem in clashes.items():
            if problem:
                raise typer.BadParameter(f"{problem}; leave it out", param_hint=name)
    if launch.size == 1 and not cut:
        return
    if kind is not NODES:
        raise typer.BadParameter(
            f"{model} to {kind.what} trains in one process, and WORLD_SIZE is {launch.size}; "
            f"expected one of {', '.join(models.available())} on a data set of nodes: start this "
            "one without torchrun",
            param_hint="MODEL",
        )
    problems = {
        "--reorder": config.reorder is not None and "a partition puts neighbours together already",
        "--dataset": config.recipe.graphs_per_batch > 0
        and f"{model} trains on {config.dataset} in batches of graphs, which one process does",
        "--device": device.startswith("cuda:") and "each process takes a GPU of its own: give cuda",
        "--edge-attributes": config.own is not None
        and bool(config.own["edges"])
        and not config.recipe.sample
        and "models in several processes see no features of edges",
        "--noise": cut and config.noise is not None and "the parts have their edges",
        "--root": cut and root is not None and "the parts are read from the folder of --parts",
    }
    for name, problem in problems.items():
        if problem:
            raise typer.BadParameter(
                f"{problem}; leave it out, or start one process", param_hint=name
            )
