"""The kinds of models that can be trained: which they are, on what data, with which options."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import typer

from gat_ext import datasets, models


@dataclass(frozen=True)
class Kind:
    """A kind of models.

    Attributes:
        what: the models of this kind do.
        models: their names.
        datasets: names of the data sets for them; ``FAMILY:NAME`` stands for any name within a
            family.
        default: the data set unless told.
        options: those of the command line that not every kind has.
    """

    what: str
    models: Callable[[], list[str]]
    datasets: Callable[[], list[str]]
    default: str
    options: frozenset[str]

    def has_dataset(self, name: str) -> bool:
        """Whether there is such a data set for this kind.

        Example:
            >>> [GRAPHS.has_dataset(name) for name in ("shapes", "tu:NCI1", "tu:", "cora")]
            [True, True, False, False]
        """
        family, _, inside = name.partition(":")
        return (f"{family}:NAME" if inside else name) in self.datasets()


NODES = Kind(
    "classify nodes",
    models.available,
    datasets.available,
    "digits",
    frozenset(
        {"seeds", "weight_decay", "patience", "layers", "hidden", "heads", "reorder", "bf16"}
    ),
)
GRAPHS = Kind(
    "classify graphs",
    models.available_graphs,
    datasets.available_graphs,
    "shapes",
    frozenset(
        {
            *("folds", "subset", "walk", "types", "attributes"),
            *("keep", "eval_agents", "patience", "hidden"),
        }
    ),
)
EMBEDDINGS = Kind(
    "embed nodes",
    models.available_embeddings,
    datasets.available,
    "digits",
    frozenset({"seeds", "weight_decay", "dim", "window", "context"}),
)
KINDS = (NODES, GRAPHS, EMBEDDINGS)


def kind_of(model: str) -> Kind:
    """The kind of a model that there is."""
    return next(kind for kind in KINDS if model in kind.models())


def closest_first(value: str, choices: list[str]) -> str:
    """The choices, those first that look like the value."""

    def likeness(choice: str) -> float:
        return difflib.SequenceMatcher(None, value.lower(), choice).ratio()

    return ", ".join(sorted(choices, key=likeness, reverse=True))


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
                f"it is for models that {others}, and {model} is for those that {mine.what}; leave it out",
                param_hint=f"--{name.replace('_', '-')}",
            )


def data_set_for(model: str, dataset: str | None) -> str:
    """The data set, once it is known to be for the model's kind; the kind's default for None.

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
