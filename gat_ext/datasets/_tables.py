"""Files of comma-separated numbers, as tables, or as rows of several lengths."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gat_ext.datasets._arrays import Array
from gat_ext.datasets._files import Folder

_LOST = 1e-4  # of a column's range, by rounding to float32, that is worth a warning


class Labels(NamedTuple):
    """The labels of nodes or edges.

    Attributes:
        kinds: The kind of each line, int64 [N], from 0.
        num_kinds: Their number.
        since: The time of each line's last label, float64 [N, 1], if labels have times; else
            [N, 0].
    """

    kinds: Array
    num_kinds: int
    since: Array


def read_table(
    file: Folder,
    *,
    columns: int | None = None,
    rows: tuple[int, str] | None = None,
    dtype: type | None = np.int64,
) -> Array:
    """The numbers of a file of comma-separated lines, [lines, columns].

    Args:
        file: The file.
        columns: Numbers in a line; None: as many as in the first.
        rows: The required number of lines, and what each line is for.
        dtype: int64 or float64; None: int64 if all numbers are written as integers, else float64.

    Raises:
        ValueError: A line has other content, or the number of lines is wrong.
    """
    return _table(file, _content(file, rows), columns, dtype)


def read_labels(file: Folder, rows: tuple[int, str]) -> Labels:
    """The labels of nodes or edges, one line for each.

    A line is a label, a row of labels, or a list of pairs of a time and the label from that time
    on. Lines of different lengths are lists. Kinds are the distinct labels, rows, or sequences of
    labels by time, numbered in increasing order.

    Args:
        file: The file.
        rows: The required number of lines, and what each line is for.

    Raises:
        ValueError: A line has other content, or the number of lines is wrong.
    """
    content = _content(file, rows)
    lengths = _row_lengths(content)
    if len(lengths) and (lengths != lengths[0]).any():
        return _timed_labels(file, content, lengths)
    table = _table(file, content, None, np.int64)
    if table.shape[1] == 1:
        table = table[:, 0]  # which sorts faster
    distinct, kinds = np.unique(table, axis=0, return_inverse=True)
    return Labels(kinds.reshape(-1), len(distinct), np.empty((len(table), 0)))


def _timed_labels(file: Folder, content: bytes, lengths: Array) -> Labels:
    numbers = _parsed(content, np.float64)
    if numbers is None or (lengths % 2).any() or not np.isfinite(numbers).all():
        raise _blame(file, content, None, np.float64)
    labels = numbers[1::2]
    if not are_whole(labels):
        raise _blame(file, content, None, np.float64)
    ends = np.cumsum(lengths // 2)
    line = np.repeat(np.arange(len(lengths)), lengths // 2)
    by_time = np.lexsort([numbers[::2], line])
    sequences = labels[by_time].astype(np.int64).tobytes()
    starts = np.concatenate([[0], ends[:-1]])
    keys = [
        sequences[8 * first : 8 * end]
        for first, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    distinct = sorted(set(keys), key=lambda key: np.frombuffer(key, np.int64).tolist())
    number = {key: place for place, key in enumerate(distinct)}
    kinds = np.array([number[key] for key in keys], np.int64)
    return Labels(kinds, len(distinct), numbers[::2][by_time][ends - 1][:, None])


def are_whole(numbers: Array) -> bool:
    """True for int64, and for float64 if all are integers that it represents exactly."""
    return numbers.dtype == np.int64 or bool(
        (np.abs(numbers) < 2**53).all() and (numbers % 1 == 0).all()
    )


def as_float32(table: Array, name: str) -> Tensor:
    """A table in float32; warns about a column that loses much of its precision.

    Args:
        table: [N, C] numbers.
        name: What they are, for the warning.
    """
    if table.size:
        with np.errstate(all="ignore"):
            low, high = table.min(axis=0), table.max(axis=0)
            error = np.maximum(np.abs(low), np.abs(high)) * 2.0**-24
            lost = np.flatnonzero((high > low) & (error > _LOST * (high - low)))
        if len(lost):
            column = int(lost[0])
            warnings.warn(
                f"{name}, column {column}: float32 rounds numbers from {low[column]} to "
                f"{high[column]} by up to {error[column]:.2g}; to keep their differences, subtract "
                "a constant from the column in the file",
                stacklevel=5,
            )
    with np.errstate(over="ignore"):
        return torch.from_numpy(table.astype(np.float32))


def _content(file: Folder, rows: tuple[int, str] | None) -> bytes:
    """The content of a file of ASCII text, with newlines between lines and none at the end.

    Raises:
        ValueError: It is not ASCII, or the number of lines is wrong.
    """
    content = file.read_bytes()
    if not content.isascii():
        byte = next(position for position, byte in enumerate(content) if byte > 127)
        raise ValueError(
            f"{file} is damaged: byte {byte} is not ASCII; download it again from its source"
        )
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    content = content.rstrip()
    lines = content.count(b"\n") + 1 if content else 0
    if rows is not None and lines != rows[0]:
        raise ValueError(
            f"{file} has {lines} lines, expected {rows[0]}, one for each of the {rows[1]}"
        )
    return content


def _table(file: Folder, content: bytes, columns: int | None, dtype: type | None) -> Array:
    """As ``read_table``, of a content of the right number of lines."""
    if columns is None:
        columns = io.BytesIO(content).readline().count(b",") + 1
    if not content:
        return np.empty((0, columns), dtype or np.int64)
    table = None
    if (_row_lengths(content) == columns).all():
        table = _parsed(content, dtype or np.int64)
        if table is None and dtype is None:
            table = _parsed(content, np.float64)
    if table is None:
        raise _blame(file, content, columns, dtype or np.float64)
    return table.reshape(-1, columns)


def _row_lengths(content: bytes) -> Array:
    """How many numbers each line would have by its commas, int64 [lines]."""
    if not content:
        return np.empty(0, np.int64)
    separators = np.frombuffer(content, np.uint8)
    separators = separators[(separators == ord(",")) | (separators == ord("\n"))]
    ends = np.append(np.flatnonzero(separators == ord("\n")), len(separators))
    return np.diff(ends, prepend=-1)


def _parsed(content: bytes, dtype: type) -> Array | None:
    """The numbers between commas and newlines; None if there is other text."""
    cells = content.count(b",") + content.count(b"\n") + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of text that is not read to its end
        try:
            numbers: Array = np.fromstring(content.replace(b"\n", b","), dtype, sep=",")
        except (ValueError, Warning):
            return None
    # An integer beyond 64 bits becomes the largest one.
    limits = np.iinfo(np.int64)
    beyond = (
        dtype is np.int64
        and len(numbers)
        and (numbers.max() == limits.max or numbers.min() == limits.min)
    )
    return None if beyond or len(numbers) != cells else numbers


def _blame(file: Folder, content: bytes, columns: int | None, dtype: type) -> ValueError:
    """An error that names the first line of other content.

    Args:
        file: The file.
        content: Its content.
        columns: Numbers in a line; None: pairs of a time and an integer.
        dtype: int64 or float64.
    """
    kind, number = ("integers", int) if dtype is np.int64 else ("numbers", float)
    expected = f"{columns} {kind}, separated by commas"
    if columns is None:
        expected = "pairs of a time and an integer label, because lines have different lengths"
    for position, line in enumerate(io.BytesIO(content), 1):
        cells = line.split(b",")
        try:
            numbers = [number(cell) for cell in cells]
            fits = all(abs(value) < 2**63 for value in numbers)
            if columns is None:
                fits &= len(cells) % 2 == 0 and all(value % 1 == 0 for value in numbers[1::2])
            else:
                fits &= len(cells) == columns
        except ValueError:
            fits = False
        if not fits:
            given = line[:60].decode().rstrip("\n")
            return ValueError(f"{file}, line {position}: {given!r}; expected {expected}")
    return ValueError(f"{file} is damaged; download it again from its source")
