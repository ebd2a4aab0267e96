"""Stratified cross-validation."""

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


def stratified_folds(y: Array, k: int, *, seed: int, val_fraction: float) -> list[Fold]:
    """Folds in which every part has the class proportions of the data set.

    Args:
        y: Classes, [G] integers from 0.
        k: Number of folds.
        seed: Seed of the random folds.
        val_fraction: Share of validation graphs among those that are not in the test part.

    Raises:
        ValueError: ``k`` is below 2 or above the size of the smallest class, ``val_fraction`` is
            not in (0, 1), or there are too few graphs for it.
        ImportError: scikit-learn is missing.
    """
    counts = np.unique(y, return_counts=True)[1]
    smallest = int(counts.min(initial=len(y)))
    if not 2 <= k <= smallest:
        raise ValueError(f"k is {k}, expected 2 to {smallest}, the size of the smallest class")
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}, expected more than 0 and less than 1")
    selection = require("sklearn.model_selection")
    splitter = selection.StratifiedKFold(k, shuffle=True, random_state=seed)
    folds = []
    for rest, test in splitter.split(np.zeros(len(y)), y):
        try:
            train, val = selection.train_test_split(
                rest, test_size=val_fraction, stratify=y[rest], random_state=seed
            )
        except ValueError as error:
            raise ValueError(
                f"val_fraction is {val_fraction}, which leaves a class without a graph in the "
                f"training or validation part of {len(rest)} graphs ({error}); choose another "
                "fraction or a smaller k"
            ) from error
        folds.append(Fold(*(torch.from_numpy(np.sort(part)) for part in (train, val, test))))
    return folds
