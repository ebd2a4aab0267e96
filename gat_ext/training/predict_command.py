"""The command gat-ext predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gat_ext.training import mistakes, options
from gat_ext.training.predict import predict as predicted

_SHOWN = 8  # classes whose numbers of nodes are printed


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of gat-ext train.", file_okay=False)],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder or file of other nodes, with the columns that RUN was trained with, as "
            "for gat-ext train --data; no labels are needed. By default the data of RUN."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="CSV file to write.", dir_okay=False)] = Path(
        "predictions.csv"
    ),
    seed: Annotated[
        int | None,
        typer.Option(help="Seed whose weights predict. By default the best in validation."),
    ] = None,
    root: options.Root = None,
    device: options.Device = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Predict all nodes with a trained RUN; write id, label and the probability of each class."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with mistakes.explained(console), mistakes.interruptible():
        if out.exists() and not overwrite:
            raise FileExistsError(
                f"{out} exists: --overwrite replaces it, --out chooses another file"
            )
        found = predicted(run, data, seed=seed, root=root, device=device)
        found.write(out)
        console.print(f"{len(found.ids)} predictions: {out}")
        if found.task == "classes":
            counts = found.values.argmax(dim=1).bincount(minlength=len(found.columns)).tolist()
            often = sorted(zip(counts, found.columns, strict=True), reverse=True)[:_SHOWN]
            console.print(", ".join(f"{name}: {count}" for count, name in often))
