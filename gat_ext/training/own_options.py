"""Options of ``gat-ext train --data``: their types, checks and help."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from gat_ext.datasets import Reading
from gat_ext.training.options import _panel

_of_own = _panel("Your own data")

Data = Annotated[
    Path | None,
    _of_own(
        help="Folder with nodes.csv (id, label, features, optionally split) and edges.csv (source, "
        "target), or .tsv, .parquet; or a file .npz, .pt of PyG, .graphml. Instead of --dataset.",
    ),
]
Features = Annotated[
    str | None,
    _of_own(help="Columns of features, such as age,income. By default all other numeric ones."),
]
Columns = Annotated[
    str | None,
    _of_own(
        help="Names of columns that are called otherwise, such as id=paper,label=topic; also "
        "split, source, target."
    ),
]
Directed = Annotated[
    bool | None,
    _of_own(
        "--directed/--undirected",
        help="Keep edges as they are, or add the reverse of each. By default undirected; .pt and "
        ".graphml as the file says.",
        show_default=False,
    ),
]
Split = Annotated[
    str | None,
    _of_own(
        help="Shares of the labelled nodes for training, validation and test, where there is no "
        "column split [0.6,0.2,0.2].",
        show_default=False,
    ),
]
SplitSeed = Annotated[int, _of_own(min=0, max=2**32 - 1, help="Seed of the split by shares.")]
_NEEDS_DATA = ("features", "columns", "directed", "split", "split_seed", "edge_attributes")


def refuse(context: typer.Context, data: Path | None, clashes: Mapping[str, object]) -> None:
    """Raises unless the options go together.

    Args:
        context: of the command.
        data: what --data named, or None.
        clashes: options that are not for --data, and what was given.

    Raises:
        typer.BadParameter: naming the option.
    """
    if data is None:
        for name in _NEEDS_DATA:
            source = context.get_parameter_source(name)
            if source is not None and source.name != "DEFAULT":
                raise typer.BadParameter(
                    "it is for your own data; give --data, or leave it out",
                    param_hint=f"--{name.replace('_', '-')}",
                )
        return
    for name, value in clashes.items():
        if value is not None:
            raise typer.BadParameter(
                f"--data {data} says what to train on; leave one of them out", param_hint=name
            )


def reading(
    features: str | None,
    columns: str | None,
    directed: bool | None,
    split: str | None,
    split_seed: int,
    edge_attributes: bool,
) -> Reading:
    """How the data are read.

    Raises:
        typer.BadParameter: an option is not as its help says.
    """
    names = {}
    for pair in [] if columns is None else columns.split(","):
        what, equals, name = (part.strip() for part in pair.partition("="))
        if not equals or not name:
            raise typer.BadParameter(
                f"{pair!r} is not of the form id=paper; expected such pairs between commas",
                param_hint="--columns",
            )
        names[what] = name
    try:
        shares = [float(share) for share in (split or "0.6,0.2,0.2").split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"{split!r} is not three numbers such as 0.6,0.2,0.2", param_hint="--split"
        ) from error
    chosen = None if features is None else [name.strip() for name in features.split(",")]
    try:
        return Reading(names, chosen, edge_attributes, directed, shares, split_seed, command=True)
    except ValueError as error:
        raise typer.BadParameter(
            str(error), param_hint="--columns" if "columns" in str(error) else "--split"
        ) from error
