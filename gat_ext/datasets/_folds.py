"""Cross-validation: stratified by class, or random."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gat_ext.datasets._arrays import Array
from gat_ext.datasets._optional import require


class Fold(NamedTuple):
    """The graph numbers of one fold, int64, sorted; the three parts partition all graphs."""

    train: Tensor
    val: Tensor
    test: Tensor


def make_folds(
    num_graphs: int, classes: Array | None, k: int, *, seed: int, val_fraction: float
) -> list[Fold]:
    """Folds in which every part has the class proportions of the data set, or random ones.

    Args:
        num_graphs: G.
        classes: Classes, [G] integers from 0; None for random folds.
        k: Number of folds.
        seed: Seed of the random folds.
        val_fraction: Share of validation graphs among those that are not in the test part.

    Raises:
        ValueError: ``k`` is below 2 or above the size of the smallest class (of the data set,
            without classes), ``val_fraction`` is not in (0, 1), or there are too few graphs for it.
        ImportError: scikit-learn is missing.
    """
    most, limit, lack = num_graphs, "number of graphs", "no graph for"
    if classes is not None:
        most = int(np.unique(classes, return_counts=True)[1].min(initial=num_graphs))
        limit, lack = "size of the smallest class", "a class without a graph in"
    if not 2 <= k <= most:
        raise ValueError(f"k is {k}, expected 2 to {most}, the {limit}")
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}, expected more than 0 and less than 1")
    selection = require("sklearn.model_selection")
    kind = selection.KFold if classes is None else selection.StratifiedKFold
    folds = []
    for rest, test in kind(k, shuffle=True, random_state=seed).split(np.zeros(num_graphs), classes):
        try:
            train, val = selection.train_test_split(
                rest,
                test_size=val_fraction,
                stratify=None if classes is None else classes[rest],
                random_state=seed,
            )
        except ValueError as error:
            raise ValueError(
                f"val_fraction is {val_fraction}, which leaves {lack} the training or validation "
                f"part of {len(rest)} graphs ({error}); choose another fraction or a smaller k"
            ) from error
        folds.append(Fold(*(torch.from_numpy(np.sort(part)) for part in (train, val, test))))
    return folds
