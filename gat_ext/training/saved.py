"""Loads what a run has trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gat_ext.datasets import GraphDataset, NodeDataset, TypedDataset
from gat_ext.training import checkpoint, own_data
from gat_ext.training.checkpointed import CHECKPOINT, check_keys
from gat_ext.training.kinds import kind_of
from gat_ext.training.run import RunConfig


class SavedRun(NamedTuple):
    """A trained model and what belongs to it.

    Attributes:
        model: in evaluation mode, with the weights of ``seed``.
        data: what it was trained on. Nodes have the data set's own order, whatever ``--reorder``
            did; of graphs it is the subset, with the node types that the model expects, and x is
            what an attention model reads; ``model(data.x, data.graph, node_ptr=data.node_ptr)``
            gives its logits. Of several types, ``model(data.x, data.edge_index)`` does, or with
            ``data.metapath_edge_index``.
        config: settings of the run.
        metrics: as in metrics.json: settings, scores and history of every seed or fold.
        weights: of the kept epoch of every seed or fold that has ended, for ``load_state_dict``.
        seed: whose weights the model has.
    """

    model: nn.Module
    data: NodeDataset | GraphDataset | TypedDataset
    config: Any
    metrics: dict[str, Any]
    weights: dict[int, dict[str, Tensor]]
    seed: int


def load(
    folder: str | os.PathLike[str],
    seed: int | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    data: Any = None,
    device: torch.device | str = "cpu",
) -> SavedRun:
    """Loads model and data set of a run, with whatever options it was trained.

    Args:
        folder: of the run, ``runs/MODEL-DATASET`` unless ``--out`` named another one.
        seed: number of the seed, or of the fold where the model classifies graphs, whose weights to
            load; None: the one with the best validation score, the first among equals.
        root: folder of the data set's files, or what ``--data`` named; None: that which the run
            used, if it still exists, else as :func:`gat_ext.datasets.load` without a root.
        data: the data set, where :mod:`gat_ext.datasets` does not know it by name.
        device: of the model and the data.

    Raises:
        FileNotFoundError: the folder has no checkpoint, or the data set lacks files.
        ValueError: the checkpoint is damaged, does not fit the data set, has no finished seed, or
            none of that number.

    Example:
        >>> import tempfile
        >>> from gat_ext import datasets, training
        >>> from gat_ext.training.run import Run, RunConfig
        >>> folder, karate = Path(tempfile.mkdtemp()), datasets.load("karate")
        >>> recipe = training.Recipe(epochs=3)
        >>> run = Run(RunConfig("gat", "karate", 0, 2, recipe, {"heads": 2}), karate, folder)
        >>> run.train(lambda trainer: None)
        >>> saved = training.load(folder)
        >>> saved.model(saved.data.x, saved.data.edge_index).argmax(dim=1).shape
        torch.Size([34])
        >>> sorted(saved.weights)
        [0, 1]
    """
    folder = Path(folder)
    path = folder / CHECKPOINT
    if not path.exists():
        raise FileNotFoundError(f"{folder} is not the folder of a run: it has no {CHECKPOINT}")
    state = checkpoint.load(path, device)
    check_keys(state, path)
    with checkpoint.named(path):
        kind = kind_of(str(state["config"].get("model")), state["config"].get("task"))
        config = kind.restored_config(state["config"])
    if data is None:
        place = _root(root, state["root"])
        if getattr(config, "own", None) is not None:
            data = _own(config, place, path)
        else:
            options = config.data_options if isinstance(config, RunConfig) else {}
            data = kind.load(config.dataset, root=place, **options)
    every = range(torch.cuda.device_count())
    with torch.random.fork_rng(every), checkpoint.named(path):
        run: Any = kind.run(config, data.to(device), folder, None)
        run.restore(state)
        model = run.make_model()
    weights = {run.number(index): one for index, one in enumerate(run.best_models)}
    if not weights:
        raise ValueError(
            f"no {run.unit} of {path} has ended yet; continue it with gat-ext train and --resume"
        )
    if seed is None:
        seed = max(weights, key=lambda n: run.metric.gain(run.results[n - run.number(0)].val_score))
    if seed not in weights:
        raise ValueError(
            f"{path} has no {run.unit} {seed}; expected one of {', '.join(map(str, weights))}"
        )
    model.load_state_dict(weights[seed])
    return SavedRun(model.eval(), run.given, config, run.metrics(), weights, seed)


def _root(given: str | os.PathLike[str] | None, recorded: Any) -> Path | None:
    if given is not None:
        return Path(given)
    if isinstance(recorded, str) and Path(recorded).exists():
        return Path(recorded)
    return None


def _own(config: Any, place: Path | None, path: Path) -> NodeDataset:
    if place is None:
        raise FileNotFoundError(
            f"{path} is of a run on {config.dataset}, whose files are not where they were; "
            "expected their folder or file as root"
        )
    with checkpoint.named(path):
        own_data.reading(config.own)
    return own_data.load(config, place)
