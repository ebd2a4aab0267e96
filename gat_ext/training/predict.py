"""Predictions of a trained run: of its own data, or of others with the same columns."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gat_ext import sampling
from gat_ext.datasets import GraphDataset, NodeDataset, TypedDataset
from gat_ext.models import AttentionModel, PooledModel, TypedModel
from gat_ext.training import own_data
from gat_ext.training.files import replacing
from gat_ext.training.saved import SavedRun, load

_ROWS = 65_536  # rows of the file that are made at a time


class Predictions(NamedTuple):
    """What a model predicts for nodes or graphs.

    Attributes:
        ids: of the nodes; numbers from 0 where the data set has none.
        columns: names of the classes, or of the predicted quantities.
        values: [N, K]: the probability of each class, which sum to 1 unless a node has any number
            of classes; or the quantities.
        task: "classes", "labels" (any number of them) or "regression".
    """

    ids: Sequence[str]
    columns: tuple[str, ...]
    values: Tensor
    task: str

    def labels(self) -> list[str]:
        """The most probable class of each node; or all above one half, joined by semicolons."""
        if self.task == "labels":
            likely = [row.nonzero().flatten().tolist() for row in self.values > 0.5]
            return [";".join(self.columns[i] for i in each) for each in likely]
        return [self.columns[i] for i in self.values.argmax(dim=1).tolist()]

    def write(self, path: Path) -> None:
        """Writes a CSV file, whole or not at all.

        Its columns are id, label and ``probability_CLASS`` of each class; of quantities id and
        ``value_NUMBER``.

        Raises:
            OSError: it cannot be written.
        """
        is_value = self.task == "regression"
        prefix = "value" if is_value else "probability"
        labels = [] if is_value else self.labels()
        with replacing(path) as file:
            text = io.TextIOWrapper(file, "utf-8", newline="")
            rows = csv.writer(text, lineterminator="\n")
            middle = [] if is_value else ["label"]
            rows.writerow(["id", *middle, *(f"{prefix}_{name}" for name in self.columns)])
            for first in range(0, len(self.ids), _ROWS):
                part = slice(first, first + _ROWS)
                numbers = [[f"{value:.6g}" for value in row] for row in self.values[part].tolist()]
                named = zip(self.ids[part], *([] if is_value else [labels[part]]), strict=True)
                rows.writerows([*one, *row] for one, row in zip(named, numbers, strict=True))
            text.detach()  # after a flush; else it would close the file


def predict(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    seed: int | None = None,
    root: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
) -> Predictions:
    """Predicts all nodes, or graphs, with a trained model.

    Args:
        run: folder of the run.
        data: folder or file of other nodes, with the columns that the run was trained with; labels
            are not needed. None: the data of the run, with the nodes whose labels are unknown.
        seed: of the weights, as :func:`gat_ext.training.load`.
        root: of the run's data set, as :func:`gat_ext.training.load`.
        device: to compute on.

    Raises:
        FileNotFoundError: there is no such run, or no such data.
        ValueError: the checkpoint is damaged, the data lack columns of the run, or the model does
            not predict: it embeds nodes, or walks at random.

    Example:
        >>> import tempfile
        >>> from gat_ext import datasets, training
        >>> from gat_ext.training.run import Run, RunConfig
        >>> folder, karate = Path(tempfile.mkdtemp()), datasets.load("karate")
        >>> config = RunConfig("gat", "karate", 0, 1, training.Recipe(epochs=3), {})
        >>> run = Run(config, karate, folder)
        >>> run.train(lambda trainer: None)
        >>> found = predict(folder)
        >>> found.values.shape, found.columns, len(found.labels())
        (torch.Size([34, 2]), ('0', '1'), 34)
    """
    other = None
    saved = load(run, seed, root=root, device=device)
    if data is not None:
        other = own_data.load_unlabelled(saved.config, Path(data)).to(device)
    return of_saved(saved, other)


@torch.no_grad()
def of_saved(saved: SavedRun, other: NodeDataset | None = None) -> Predictions:
    """Predictions of a loaded run; ``other`` nodes have its columns."""
    data = saved.data if other is None else other
    device = next(saved.model.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=bool(_recipe(saved, "bf16"))):
        out = _outputs(saved, data).float().cpu()
    names = getattr(data, "names", None)
    ids = names.ids if names is not None else [str(number) for number in range(len(out))]
    classes = names.classes if names is not None else tuple(map(str, range(out.shape[1])))
    if getattr(data, "task", None) == "regression":
        return Predictions(ids, classes, out, "regression")
    if getattr(data, "multilabel", False) or getattr(data, "task", None) == "multilabel":
        return Predictions(ids, classes, out.sigmoid(), "labels")
    return Predictions(ids, classes, out.softmax(dim=1), "classes")


def _recipe(saved: SavedRun, name: str) -> Any:
    return getattr(saved.config.recipe, name, None)


def _outputs(saved: SavedRun, data: Any) -> Tensor:
    """Logits, or quantities, of all nodes or graphs."""
    model: Any = saved.model
    if isinstance(model, AttentionModel) and isinstance(data, NodeDataset):
        edge_attr = None if model.edge_dim is None else data.edge_attr
        if _recipe(saved, "sample") and data.x.device.type == "cpu":
            return sampling.inference(model, data.x, data.graph, edge_attr=edge_attr)
        out: Tensor = model(data.x, data.graph, edge_attr=edge_attr)
    elif isinstance(model, PooledModel) and isinstance(data, GraphDataset):
        edge_attr = None if model.network.edge_dim is None else data.edge_attr
        out = model(data.x, data.graph, node_ptr=data.node_ptr, edge_attr=edge_attr)
    elif isinstance(model, TypedModel) and isinstance(data, TypedDataset):
        edges = data.metapath_edge_index if model.reads_metapaths else data.edge_index
        out = model(data.x, edges)
    else:
        raise ValueError(
            f"{saved.config.model} does not predict by itself; expected a model of attention "
            "layers: use gat_ext.training.load for its weights"
        )
    return out
