"""Options of ``gat-ext partition``: their types, checks and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gat_ext import datasets
from gat_ext.training.options import check_name

METHODS = ("metis", "kaminpar", "range")
"""Those that need nothing besides the data set"""

Dataset = Annotated[
    str,
    typer.Argument(
        help=f"One of {', '.join(datasets.available())}.",
        callback=check_name(datasets.available(), "data set of nodes"),
    ),
]
Parts = Annotated[int, typer.Option(min=1, help="Number of parts, one for each process.")]
Method = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(METHODS)}: METIS and KaMinPar cut few edges; range takes contiguous "
        "ranges of node numbers.",
        callback=check_name(list(METHODS), "method"),
    ),
]
Seed = Annotated[
    int,
    typer.Option(min=0, max=2**31 - 2, help="Seed of the random numbers of METIS and KaMinPar."),
]
Out = Annotated[Path, typer.Option(file_okay=False, help="Folder for the parts.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a partition that is in the folder.")
]
