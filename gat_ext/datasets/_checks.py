"""Checks and the repr shared by ``NodeDataset`` and ``GraphDataset``."""

from __future__ import annotations

import dataclasses
from html import escape
from typing import Any

import torch
from torch import Tensor


def check_tensor(
    data: Any, field: str, dtype: torch.dtype, shape: tuple[int, ...], *, finite: bool = False
) -> None:
    """Raises unless a field of a data set has this dtype and shape, and finite values if asked.

    Raises:
        TypeError: The dtype is another one.
        ValueError: The shape is another one, or a value is not finite.
    """
    value: Tensor = getattr(data, field)
    if value.dtype != dtype:
        raise TypeError(f"{data.name}: {field} is {value.dtype}, expected {dtype}")
    if tuple(value.shape) != shape:
        raise ValueError(
            f"{data.name}: {field} has shape {list(value.shape)}, expected {list(shape)}"
        )
    if finite and not bool(value.isfinite().all()):
        raise ValueError(
            f"{data.name}: {field} has a NaN or an infinite value; expected finite ones"
        )


def check_dimensions(data: Any, field: str, expected: str) -> None:
    """Raises ValueError unless a field has as many dimensions as ``expected``, such as [N, C]."""
    shape = list(getattr(data, field).shape)
    if len(shape) != expected.count(",") + 1:
        raise ValueError(f"{data.name}: {field} has shape {shape}, expected {expected}")


def short_repr(data: Any) -> str:
    """The fields of a data set that differ from their defaults, with tensors by their shapes."""
    parts = []
    for field in dataclasses.fields(data):
        value = getattr(data, field.name)
        if isinstance(value, Tensor):
            parts.append(f"{field.name}={list(value.shape)}")
        elif value != field.default:
            parts.append(f"{field.name}={value!r}")
    return f"{type(data).__name__}({', '.join(parts)})"


def html(data: Any) -> str:
    """The fields of :func:`short_repr` as rows of an HTML table, and the size of the tensors."""
    rows, size = [], 0
    for field in dataclasses.fields(data):
        value = getattr(data, field.name)
        if isinstance(value, Tensor):
            size += value.numel() * value.element_size()
            dtype = str(value.dtype).removeprefix("torch.")
            rows.append((field.name, f"{dtype} {list(value.shape)}"))
        elif value != field.default:
            rows.append((field.name, repr(value)))
    rows.append(("tensors", f"{size / 1e6:.1f} MB"))
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows
    )
    return f"<table><caption>{escape(type(data).__name__)}</caption>{cells}</table>"
