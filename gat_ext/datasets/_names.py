"""What rows, columns and classes of a user's own data are called, and how columns were scaled."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gat_ext.datasets._arrays import Array


@dataclass(frozen=True)
class Scale:
    """``(column - mean) / deviation``, for each column.

    Attributes:
        mean: A number for each column; empty: the columns stay as they are.
        deviation: Likewise.
    """

    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    @classmethod
    def of(cls, table: Array) -> Scale:
        """The scale that gives columns the mean 0 and the standard deviation 1.

        Columns of zeros and ones stay as they are; other constant ones become zeros.

        Args:
            table: [N, C] finite numbers.

        Example:
            >>> Scale.of(np.array([[10.0, 1], [30, 0]]))
            Scale(mean=(20.0, 0.0), deviation=(10.0, 1.0))
        """
        mean, deviation = table.mean(axis=0), table.std(axis=0)
        binary = ((table == 0) | (table == 1)).all(axis=0)
        # Rounding of its mean gives a constant column a deviation above 0.
        constant = (table == table[:1]).all(axis=0) | ~(deviation > 0)
        mean = np.where(constant, table[0], mean)
        return cls(
            tuple(np.where(binary, 0.0, mean).tolist()),
            tuple(np.where(binary | constant, 1.0, deviation).tolist()),
        )

    def applied(self, table: Array) -> Array:
        """The scaled columns."""
        if not self.mean:
            return table
        scaled: Array = (table - np.array(self.mean)) / np.array(self.deviation)
        return scaled


@dataclass(frozen=True, eq=False, repr=False)
class Names:
    """Names of a data set that was read from the user's tables.

    Attributes:
        features: Of the columns of ``x``.
        classes: Of the classes, in the order of their numbers.
        edges: Of the columns of ``edge_attr``.
        scale: How the columns of ``x`` were scaled.
        edge_scale: Likewise of ``edge_attr``.
        ids: Of the nodes.
        unread: Columns that were not read, each with the reason, for people.
    """

    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    edges: tuple[str, ...] = ()
    scale: Scale = Scale()
    edge_scale: Scale = Scale()
    ids: Sequence[str] = ()
    unread: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """The numbers of names."""
        return f"Names({len(self.features)} features, {len(self.classes)} classes)"

    def settings(self) -> dict[str, Any]:
        """What a model that was trained with these names needs, as plain lists.

        Example:
            >>> Names(("age",), ("a", "b")).settings()["classes"]
            ['a', 'b']
        """
        return {
            "features": list(self.features),
            "classes": list(self.classes),
            "edges": list(self.edges),
            "mean": list(self.scale.mean),
            "deviation": list(self.scale.deviation),
            "edge_mean": list(self.edge_scale.mean),
            "edge_deviation": list(self.edge_scale.deviation),
        }

    @classmethod
    def from_settings(cls, settings: Any) -> Names:
        """The inverse of :meth:`settings`.

        Raises:
            ValueError: The settings, of a damaged file, are not such.
        """
        texts = {name: _list(settings, name, _is_text) for name in ("features", "classes", "edges")}
        numbers = {
            name: _list(settings, name, _is_number)
            for name in ("mean", "deviation", "edge_mean", "edge_deviation")
        }
        for name, of in (("mean", "features"), ("edge_mean", "edges")):
            deviation = name.replace("mean", "deviation")
            if len(numbers[name]) not in (0, len(texts[of])) or len(numbers[name]) != len(
                numbers[deviation]
            ):
                raise ValueError(
                    f"{name} and {deviation} have {len(numbers[name])} and "
                    f"{len(numbers[deviation])} values; expected one for each of {of}"
                )
            if not all(value > 0 for value in numbers[deviation]):
                raise ValueError(f"{deviation} has a value that is not above 0")
        scale = Scale(numbers["mean"], numbers["deviation"])
        edge_scale = Scale(numbers["edge_mean"], numbers["edge_deviation"])
        return cls(**texts, scale=scale, edge_scale=edge_scale)

    def take(self, nodes: Sequence[int]) -> Names:
        """The names after the nodes were renumbered."""
        return dataclasses.replace(self, ids=tuple(self.ids[node] for node in nodes))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _list(settings: Any, name: str, fits: Callable[[Any], bool]) -> tuple[Any, ...]:
    values = settings.get(name) if isinstance(settings, dict) else None
    if not isinstance(values, list) or not all(map(fits, values)):
        raise ValueError(f"{name} is not a list of the right values")
    return tuple(values)
