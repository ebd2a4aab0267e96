"""A NodeDataset of the parts that a user's own file gives: classes, splits, edges, scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gat_ext.datasets._arrays import Array, attributed_edges, mask, undirected_edges
from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._names import Names, Scale

COLUMNS = {"id": "id", "label": "label", "split": "split", "source": "source", "target": "target"}
"""What a column is for, and its name"""
SPLITS = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}
_SHOWN = 5  # of names that an error lists


@dataclass(frozen=True)
class Reading:
    """How own data are read; see :func:`from_tables`.

    Attributes:
        columns: Names of columns that are not called as ``COLUMNS`` says.
        features: Names of the feature columns; None: all other columns of numbers.
        edge_features: True: all other columns of numbers; False: none; or their names.
        directed: False: every edge gets its reverse; None: as the kind of file says.
        fractions: Of the labelled nodes for training, validation and test.
        seed: Of that split.
        standardize: Whether columns are scaled; None: those of tables.
        command: Whether errors name options of the command line.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    features: Sequence[str] | None = None
    edge_features: bool | Sequence[str] = False
    directed: bool | None = None
    fractions: Sequence[float] = (0.6, 0.2, 0.2)
    seed: int = 0
    standardize: bool | None = None
    command: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(self.columns.keys() - COLUMNS.keys())
        if unknown:
            raise ValueError(
                f"columns has {unknown[0]!r}; expected some of {', '.join(map(repr, COLUMNS))}"
            )
        shares = list(self.fractions)
        if len(shares) != 3 or not all(0 < share < 1 for share in shares) or sum(shares) > 1 + 1e-9:
            raise ValueError(
                f"fractions is {shares}; expected three numbers above 0, of training, validation "
                "and test, whose sum is at most 1"
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed is {self.seed!r}; expected an integer of at least 0")

    def column(self, what: str) -> str:
        """Name of a column."""
        return self.columns.get(what, COLUMNS[what])

    def argument(self, what: str) -> str:
        """How a caller names a column, for errors."""
        return f"--columns {what}=NAME" if self.command else f"columns={{{what!r}: NAME}}"

    @property
    def features_argument(self) -> str:
        """How a caller names the feature columns, for errors."""
        return "--features" if self.command else "features"


class Labels(NamedTuple):
    """Classes and splits, as texts of each node; "" is unknown.

    Attributes:
        label: Arrow's or NumPy's texts; None: there are no labels.
        split: Words of ``SPLITS``; None: fractions of the labelled nodes.
        place: The place of a node's ``"label"`` or ``"split"``, for errors.
    """

    label: Any
    split: Any
    place: Any


class Parts(NamedTuple):
    """What a file of any kind gives.

    Attributes:
        ids: Of the nodes.
        x: float64 [N, C].
        features: C names.
        pairs: int64 [2, E].
        rows: float64 [E, D], of the edges.
        edges: D names.
        labels: Classes and splits.
        unread: Columns that were not read.
        directed: Whether edges stay as they are.
        standardize: Whether columns are scaled.
    """

    ids: Sequence[str]
    x: Array
    features: Sequence[str]
    pairs: Array
    rows: Array
    edges: Sequence[str]
    labels: Labels
    unread: Sequence[str] = ()
    directed: bool = False
    standardize: bool = True


def assemble(
    parts: Parts, how: Reading, name: str, known: Names | None = None, labels: bool = True
) -> NodeDataset:
    """The data set of the parts.

    Args:
        parts: Of a file.
        how: It is read.
        name: Of the data set.
        known: Names of a trained model, whose classes and scales hold; None: those of the parts.
        labels: False: all labels are unknown, and the masks are empty.

    Raises:
        ValueError: Labels or splits are not such.
    """
    num_nodes = len(parts.x)
    scale, edge_scale = Scale(), Scale()
    if known is not None:
        _check_width(name, parts, known)
        scale, edge_scale = known.scale, known.edge_scale
    elif parts.standardize if how.standardize is None else how.standardize:
        scale = Scale.of(parts.x)
        edge_scale = Scale.of(parts.rows) if len(parts.rows) else edge_scale
    directed = parts.directed if how.directed is None else how.directed
    edge_index, rows = _edges(parts, directed, num_nodes)
    classes = () if known is None else known.classes
    y, masks = np.full(num_nodes, -1), [np.empty(0, np.int64)] * 3
    if labels:
        y, classes = _classes(name, parts.labels, num_nodes, known)
        masks = _masks(name, parts.labels, y, how)
    train, val, test = (mask(nodes, num_nodes) for nodes in masks)
    edge_attr = None
    if parts.edges:
        edge_attr = _float32(edge_scale.applied(rows), f"{name}: a feature of an edge")
    names = Names(
        *(tuple(parts.features), tuple(classes), tuple(parts.edges), scale, edge_scale),
        ids=tuple(parts.ids),
        unread=tuple(parts.unread),
    )
    return NodeDataset(
        name,
        x=_float32(scale.applied(parts.x), f"{name}: a feature"),
        y=torch.from_numpy(y),
        edge_index=edge_index,
        train_mask=train,
        val_mask=val,
        test_mask=test,
        num_classes=len(classes),
        edge_attr=edge_attr,
        names=names,
    )


def _check_width(name: str, parts: Parts, known: Names) -> None:
    for what, given, expected in (
        ("features", parts.features, known.features),
        ("features of edges", parts.edges, known.edges),
    ):
        if len(given) != len(expected):
            raise ValueError(
                f"{name} has {len(given)} {what}; expected {len(expected)}, as the model was "
                "trained with: use a file with the same columns"
            )


def _edges(parts: Parts, directed: bool, num_nodes: int) -> tuple[Tensor, Array]:
    if directed:
        order = np.lexsort([parts.pairs[0], parts.pairs[1]])
        return torch.from_numpy(parts.pairs[:, order]), parts.rows[order]
    if parts.edges:
        return attributed_edges(parts.pairs, parts.rows, num_nodes)
    return undirected_edges(parts.pairs, num_nodes), parts.rows


def _float32(table: Array, what: str) -> Tensor:
    with np.errstate(over="ignore"):
        result = torch.from_numpy(np.asarray(table, np.float32))
    if not bool(result.isfinite().all()):
        raise ValueError(
            f"{what} is too large for float32, or not finite; expected up to 1e38: divide the "
            "column by a constant"
        )
    return result


def _classes(
    name: str, labels: Labels, num_nodes: int, known: Names | None
) -> tuple[Array, tuple[str, ...]]:
    """Classes [N], -1 where unknown, and their names."""
    if labels.label is None:
        raise ValueError(f"{name} has no labels; expected a class for some of the nodes")
    texts, inverse = np.unique(np.asarray(labels.label, dtype=object), return_inverse=True)
    distinct = [str(text) for text in texts]
    if known is None:
        classes = [text for text in distinct if text]
        _check_classes(name, labels, classes, texts, inverse)
        if all(_is_integer(text) for text in classes):
            classes.sort(key=int)
    else:
        classes = list(known.classes)
    number = {text: i for i, text in enumerate(classes)}
    strange = [text for text in distinct if text and text not in number]
    if strange:
        row = int(np.flatnonzero(inverse.reshape(-1) == distinct.index(strange[0]))[0])
        raise ValueError(
            f"{labels.place(row, 'label')}: {strange[0]!r} is no class of the trained model; "
            f"expected {_some(classes)}, or nothing"
        )
    y: Array = np.array([number.get(text, -1) for text in distinct], np.int64)[inverse.reshape(-1)]
    return y, tuple(classes)


def _check_classes(
    name: str, labels: Labels, classes: list[str], texts: Array, inverse: Array
) -> None:
    for text in classes:
        try:
            fraction = isfinite(float(text)) and float(text) % 1 != 0
        except ValueError:
            continue
        if fraction:
            number = int(np.flatnonzero(texts == text)[0])
            row = int(np.flatnonzero(inverse.reshape(-1) == number)[0])
            raise ValueError(
                f"{labels.place(row, 'label')}: the label {text} is a number with a fraction; "
                "expected the name or number of a class, because models of nodes do not predict "
                "quantities: replace it by a class, such as low and high"
            )
    if len(classes) < 2:
        given = f"one class, {classes[0]!r}" if classes else "no label"
        raise ValueError(
            f"{name} has {given}; expected labels of at least two classes, without which there "
            "is nothing to learn"
        )


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _masks(name: str, labels: Labels, y: Array, how: Reading) -> list[Array]:
    """Nodes for training, validation and test."""
    if labels.split is None:
        return split_by_fractions(name, y, how.fractions, how.seed)
    words, inverse = np.unique(np.asarray(labels.split, dtype=object), return_inverse=True)
    numbers: list[int] = []
    for word in map(str, words):
        if word and word.lower() not in SPLITS:
            row = int(np.flatnonzero(inverse.reshape(-1) == len(numbers))[0])
            raise ValueError(
                f"{labels.place(row, 'split')}: {word!r}; expected train, val or test, or nothing"
            )
        numbers.append(SPLITS.get(word.lower(), -1))
    split = np.array(numbers)[inverse.reshape(-1)]
    unlabelled = np.flatnonzero((split >= 0) & (y < 0))
    if len(unlabelled):
        raise ValueError(
            f"{labels.place(int(unlabelled[0]), 'split')}: the node has a split, but no label; "
            "expected both: remove the word, or fill in the label"
        )
    masks = [np.flatnonzero(split == number) for number in range(3)]
    for word, nodes in zip(("train", "val", "test"), masks, strict=True):
        if not len(nodes):
            raise ValueError(
                f"{name}: no node has the split {word}; expected some for train, val and test: "
                "remove the column to have it drawn at random"
            )
    return masks


def split_by_fractions(name: str, y: Array, fractions: Sequence[float], seed: int) -> list[Array]:
    """Nodes for training, validation and test, drawn at random in each class alike.

    The first node of a class is for training, and each of the three has one of a class of at least
    three. The same arguments give the same nodes.

    Args:
        name: Of the data set, for errors.
        y: [N] classes from 0, -1 where unknown.
        fractions: Three numbers.
        seed: Of the draw.

    Raises:
        ValueError: No node is left for one of them.

    Example:
        >>> [len(nodes) for nodes in split_by_fractions("a", np.zeros(10), (0.6, 0.2, 0.2), 0)]
        [6, 2, 2]
        >>> [len(nodes) for nodes in split_by_fractions("a", np.zeros(3), (0.6, 0.2, 0.2), 0)]
        [1, 1, 1]
    """
    order = np.random.default_rng(seed).permutation(len(y))
    found: list[list[Array]] = [[], [], []]
    for one in np.unique(y[y >= 0]):
        nodes = order[y[order] == one]
        ends = np.round(np.cumsum(fractions) * len(nodes) + 1e-9).astype(int)
        ends = np.maximum(ends, 1)
        if len(nodes) >= 3:
            place = np.arange(3)
            ends = np.minimum(ends, len(nodes) - 2 + place)
            ends = np.maximum.accumulate(ends - place) + place
        for chosen, first, end in zip(found, (0, *ends[:-1]), ends, strict=True):
            chosen.append(nodes[first:end])
    masks = [np.sort(np.concatenate(chosen)) for chosen in found]
    if not all(map(len, masks)):
        counts = np.bincount(y[y >= 0].astype(int))
        raise ValueError(
            f"{name} has {counts.sum()} labelled nodes in {np.count_nonzero(counts)} classes, too "
            f"few to split by {tuple(fractions)} in each class; expected at least 3 nodes in one: "
            "label more, or give a column split"
        )
    return masks


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return shown + (f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else "")
