"""The user's own data in a run: how they are read, and what the run records of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from gat_ext import datasets
from gat_ext.datasets import Names, NodeDataset, Reading

PREFIX = "own:"
"""Of names of data sets that are the user's own"""


def settings(data: NodeDataset, how: Reading) -> dict[str, Any]:
    """What a run records, as plain values, to read the same data or others for the same model.

    Example:
        >>> people = {"id": [1, 2, 3], "age": [31, 25, 47], "label": ["a", "b", "a"],
        ...           "split": ["train", "val", "test"]}
        >>> data = datasets.from_tables(people, {"source": [1], "target": [2]})
        >>> found = settings(data, Reading())
        >>> found["features"], found["classes"], found["split"]
        (['age'], ['a', 'b'], [0.6, 0.2, 0.2])
    """
    names = Names() if data.names is None else data.names
    digest = hashlib.sha256()
    masks = data.train_mask, data.val_mask, data.test_mask
    for tensor in (data.x, data.y, data.edge_index, data.edge_attr, *masks):
        digest.update(b"" if tensor is None else tensor.contiguous().numpy().data)
    return {
        "columns": dict(how.columns),
        "directed": how.directed,
        "split": [float(share) for share in how.fractions],
        "split_seed": how.seed,
        "num_nodes": data.num_nodes,
        "num_edges": data.num_edges,
        "digest": digest.hexdigest()[:16],
        **names.settings(),
    }


def reading(own: Any) -> Reading:
    """How the data of a run are read; raises ValueError if the settings are damaged."""
    names = Names.from_settings(own)
    columns, split, seed = own.get("columns"), own.get("split"), own.get("split_seed")
    directed = own.get("directed")
    fits = (
        isinstance(columns, dict)
        and all(isinstance(text, str) for pair in columns.items() for text in pair)
        and isinstance(split, list)
        and all(isinstance(share, float) for share in split)
        and (directed is None or isinstance(directed, bool))
    )
    if not fits:
        raise ValueError("config.own does not say how the data are read")
    return Reading(columns, None, bool(names.edges), directed, split, seed, command=True)


def load(config: Any, root: Path | None) -> NodeDataset:
    """The data set of a run of node classification: by name, or the user's own.

    Args:
        config: of the run, a :class:`gat_ext.training.run.RunConfig`.
        root: folder or file; None for a data set that has a name.

    Raises:
        OSError, ImportError, ValueError: it cannot be read, or is not for the run's model.
    """
    if config.own is None:
        return datasets.load(config.dataset, root=root, **config.data_options)
    if root is None:
        raise ValueError(f"{config.dataset} has no name to be found by; expected its path as root")
    return datasets.from_path(root, reading(config.own), known=Names.from_settings(config.own))


def load_unlabelled(config: Any, path: Path) -> NodeDataset:
    """Other nodes for the model of a run, without labels.

    Raises:
        OSError, ImportError, ValueError: as :func:`load`; or the run is on a data set that has a
            name.
    """
    if getattr(config, "own", None) is None:
        raise ValueError(
            f"the run is on {config.dataset}, whose columns and classes have no names; expected a "
            "run of gat-ext train --data: leave --data out to predict the nodes of the run"
        )
    known = Names.from_settings(config.own)
    return datasets.from_path(path, reading(config.own), known=known, labels=False)
