"""Options about random edges, of ``gat-ext train`` and ``gat-ext compare``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from gat_ext import models
from gat_ext.training.kinds import closest_first
from gat_ext.training.options import _check_penalty, _of_data, _of_layers, check_name

Noise = Annotated[
    float | None,
    _of_data(
        help="Of noisy_digits: random edges for each other edge of the graph [1].",
        callback=_check_penalty,
        show_default=False,
    ),
]
Attention = Annotated[
    str,
    _of_layers(
        help="Attention of models that classify nodes: learned, or uniform, without the scores.",
        callback=check_name(["learned", "uniform"], "attention"),
    ),
]


def ratios_of(text: str) -> tuple[float, ...]:
    """The numbers of random edges for each other edge.

    Args:
        text: such as "0,0.5,1".

    Raises:
        typer.BadParameter: it is not a list of numbers from 0.

    Example:
        >>> ratios_of("0,0.5,1")
        (0.0, 0.5, 1.0)
    """
    try:
        ratios = tuple(map(float, text.split(",")))
    except ValueError:
        ratios = (math.nan,)
    if not all(math.isfinite(ratio) and ratio >= 0 for ratio in ratios):
        raise typer.BadParameter(f"{text!r} is not a list of numbers from 0, such as 0,0.5,1")
    return tuple(dict.fromkeys(ratios))


def models_of(text: str) -> tuple[str, ...]:
    """Names of models that classify nodes.

    Args:
        text: such as "gat,agnn".

    Raises:
        typer.BadParameter: there is no such model.
    """
    names, known = text.split(","), models.available()
    for name in names:
        if name not in known:
            raise typer.BadParameter(
                f"no model of nodes is called {name!r}; choose from {closest_first(name, known)}"
            )
    return tuple(dict.fromkeys(names))


def _check_ratios(text: str) -> str:
    ratios_of(text)
    return text


def _check_models(text: str) -> str:
    models_of(text)
    return text


def _check_chart(path: Path | None) -> Path | None:
    if path is not None and path.suffix not in (".svg", ".png"):
        raise typer.BadParameter(f"{path} is neither of .svg nor .png; give one of these")
    return path


Ratios = Annotated[
    str,
    typer.Option(
        "--noise", help="Random edges for each other edge, of each graph.", callback=_check_ratios
    ),
]
Models = Annotated[str, typer.Option(help="Models to compare.", callback=_check_models)]
Seeds = Annotated[
    int,
    typer.Option(
        min=1,
        help="Trainings of each model on each noise, from seed 0; each has a "
        "graph, split and weights of its own.",
    ),
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Highest number of epochs, in place of the recipes'.")
]
Out = Annotated[
    Path,
    typer.Option(
        dir_okay=False,
        help="JSON file of the results. Those that it has are not measured again.",
    ),
]
Chart = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False,
        help="SVG or PNG file to draw from the results; by default an SVG next to them.",
        callback=_check_chart,
        show_default=False,
    ),
]
