"""The kinds of models that can be trained: their names, data sets, options and runs."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gat_ext import datasets, models
from gat_ext.training.checkpointed import CheckpointedRun
from gat_ext.training.embedding_loop import EmbeddingRecipe
from gat_ext.training.embedding_run import EmbeddingRun, EmbeddingRunConfig
from gat_ext.training.epochs import Settings
from gat_ext.training.graph_loop import GraphRecipe
from gat_ext.training.graph_run import GraphRun, GraphRunConfig
from gat_ext.training.pooled_loop import PooledRecipe
from gat_ext.training.pooled_run import PooledRun, PooledRunConfig
from gat_ext.training.recipes import Recipe
from gat_ext.training.run import Run, RunConfig
from gat_ext.training.typed_run import TypedRun, TypedRunConfig


@dataclass(frozen=True)
class Kind:
    """A kind of models.

    Attributes:
        what: the models of this kind do.
        task: what distinguishes kinds of the same models.
        models: their names.
        datasets: names of the data sets for them; ``FAMILY:NAME`` stands for any name within a
            family.
        default: the default data set.
        options: of the command line, those that not every kind has.
        load: loads a data set by name, from a root or None.
        recipe: class of the settings of a training.
        config: class of the settings of a run.
        run: class of a run, made of a config, a data set, a folder and a root.
        bitwise: whether deterministic results do not depend on the number of threads.
    """

    what: str
    task: str
    models: Callable[[], list[str]]
    datasets: Callable[[], list[str]]
    default: str
    options: frozenset[str]
    load: Callable[..., Any]
    recipe: type[Settings]
    config: Callable[..., Any]
    run: Callable[[Any, Any, Path, Path | None], CheckpointedRun[Any]]
    bitwise: bool = False

    def has_dataset(self, name: str) -> bool:
        """Whether there is such a data set for this kind.

        Example:
            >>> [GRAPHS.has_dataset(name) for name in ("shapes", "tu:NCI1", "tu:", "cora")]
            [True, True, False, False]
        """
        family, _, inside = name.partition(":")
        return (f"{family}:NAME" if inside else name) in self.datasets()

    def restored_config(self, settings: dict[str, Any]) -> Any:
        """The config that ``dataclasses.asdict`` turned into a dictionary.

        Raises:
            ValueError: the dictionary is not of such a config.
        """
        recipe = settings.get("recipe")
        names = {field.name for field in fields(self.recipe)}
        if not isinstance(recipe, dict) or recipe.keys() != names:
            raise ValueError(f"config.recipe is not of a run that {self.what}")
        dataset = settings.get("dataset")
        if not isinstance(dataset, str):
            raise ValueError(f"config.dataset is of type {type(dataset).__name__}; expected a name")
        try:
            return self.config(**{**settings, "recipe": self.recipe(**recipe)})
        except TypeError as error:
            raise ValueError(f"config is not of a run to {self.what}: {error}") from error


NODES = Kind(
    "classify nodes",
    "node",
    models.available,
    datasets.available,
    "noisy_digits",
    frozenset(
        {"seeds", "weight_decay", "patience", "layers", "hidden", "heads", "reorder", "bf16"}
        | {"sample", "batch_size", "edge_attributes", "attention", "noise"}
        | {"data", "features", "columns", "directed", "split", "split_seed"}
        | {"parts", "partition_method", "mode", "rank_timeout"}
    ),
    datasets.load,
    Recipe,
    RunConfig,
    Run,
    bitwise=True,
)
_OF_FOLDS = frozenset({"folds", "subset", "types", "attributes", "keep", "patience", "sha256"})
GRAPHS = Kind(
    "classify graphs",
    "graph",
    models.available_graphs,
    datasets.available_graphs,
    "shapes",
    _OF_FOLDS | {"walk", "eval_agents", "hidden"},
    datasets.load_graphs,
    GraphRecipe,
    GraphRunConfig,
    GraphRun,
)
POOLED = Kind(
    "classify graphs by pooling",
    "graph",
    models.available,
    datasets.available_graphs,
    "shapes",
    _OF_FOLDS | {"pooling", "edge_attributes", "weight_decay", "layers", "hidden", "heads"},
    datasets.load_graphs,
    PooledRecipe,
    PooledRunConfig,
    PooledRun,
    bitwise=True,
)
EMBEDDINGS = Kind(
    "embed nodes",
    "embedding",
    models.available_embeddings,
    datasets.available,
    "digits",
    frozenset({"seeds", "weight_decay", "dim", "window", "context"}),
    datasets.load,
    EmbeddingRecipe,
    EmbeddingRunConfig,
    EmbeddingRun,
)
TYPED = Kind(
    "classify nodes of several types",
    "node",
    models.available_typed,
    datasets.available_typed,
    "academic",
    frozenset({"seeds", "weight_decay", "patience", "layers", "hidden", "heads", "bf16"}),
    datasets.load_typed,
    Recipe,
    TypedRunConfig,
    TypedRun,
    bitwise=True,
)
KINDS = (NODES, GRAPHS, POOLED, EMBEDDINGS, TYPED)
MODEL_NAMES = list(dict.fromkeys(name for kind in KINDS for name in kind.models()))


def default_model(dataset: str | None, task: str | None) -> str:
    """The model that is trained where none is named.

    Args:
        dataset: name of the data set, or None.
        task: of the model, or None.

    Example:
        >>> default_model(None, None), default_model("cora", None)
        ('agnn', 'gat')
    """
    noisy = dataset in (None, NODES.default) and task in (None, NODES.task)
    return "agnn" if noisy else "gat"


def kind_of(model: str, task: str | None = None, dataset: str | None = None) -> Kind:
    """The kind of a model.

    Args:
        model: its name.
        task: of the kind; None: the first that has the data set, else the first.
        dataset: name of the data set, or None.

    Raises:
        ValueError: there is no such model, or it has no such task.

    Example:
        >>> kind_of("gat").what, kind_of("gat", dataset="tu:MUTAG").what
        ('classify nodes', 'classify graphs by pooling')
    """
    kinds = [kind for kind in KINDS if model in kind.models()]
    if not kinds:
        names = closest_first(model, MODEL_NAMES)
        raise ValueError(f"no model is called {model!r}; expected one of {names}")
    if task is None:
        return next((kind for kind in kinds if kind.has_dataset(dataset or "")), kinds[0])
    for kind in kinds:
        if kind.task == task:
            return kind
    tasks = " or ".join(kind.task for kind in kinds)
    raise ValueError(f"{model} has no task {task!r}; expected {tasks}")


def spelled(name: str | None) -> str | None:
    """The name of a data set in lower case, as PyG does not spell it, if that is a known one.

    Example:
        >>> spelled("PubMed"), spelled("tu:MUTAG"), spelled("Corra")
        ('pubmed', 'tu:MUTAG', 'Corra')
    """
    if name is None or ":" in name:
        return name
    lower = name.lower()
    return lower if any(kind.has_dataset(lower) for kind in KINDS) else name


def closest_first(value: str, choices: list[str]) -> str:
    """The choices, those first that are spelled most like the value."""

    def likeness(choice: str) -> float:
        return difflib.SequenceMatcher(None, value.lower(), choice.lower()).ratio()

    return ", ".join(sorted(choices, key=likeness, reverse=True))
