"""Checks of the arguments of a layer's constructor."""

from __future__ import annotations

import os
import sys
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from gat_ext.functional import checks


def pair(channels: int | tuple[int, int]) -> tuple[int, int]:
    """(source, destination) channels."""
    if isinstance(channels, (tuple, list)):
        return channels[0], channels[1]
    return channels, channels


def check_sizes(
    in_channels: int | tuple[int, int],
    out_channels: int,
    heads: int,
    dropout: float,
    edge_dim: int | None,
    *,
    pairs: bool = True,
) -> None:
    """Raises ValueError or TypeError unless the sizes and the dropout probability are valid.

    With ``pairs``, in_channels may be a pair (source, destination).
    """
    if not pairs:
        _check_integer("in_channels", in_channels)
    ends = in_channels if isinstance(in_channels, (tuple, list)) else (in_channels,)
    for channels in ends:
        _check_integer("in_channels", channels)
        if len(ends) not in (1, 2) or (channels < 1 and channels != -1):
            raise ValueError(
                f"in_channels is {in_channels}; expected sizes of at least 1, or -1 for the size "
                "of the first input"
            )
    check_size("out_channels", out_channels)
    check_size("heads", heads)
    if edge_dim is not None:
        _check_integer("edge_dim", edge_dim)
        if edge_dim < 1 and edge_dim != -1:
            raise ValueError(
                f"edge_dim is {edge_dim}; expected at least 1, or -1 for the size of the first "
                "edge_attr"
            )
    checks.probability(dropout, "dropout")


def check_channels(name: str, channels: Any) -> None:
    """Raises TypeError or ValueError unless ``channels`` is an integer of at least 1, or -1."""
    _check_integer(name, channels)
    if channels < 1 and channels != -1:
        raise ValueError(
            f"{name} is {channels}; expected at least 1, or -1 for the size of the first input"
        )


def check_size(name: str, size: Any, at_most: int | None = None) -> None:
    """Raises TypeError or ValueError unless ``size`` is an integer from 1 to ``at_most``."""
    _check_integer(name, size)
    if size < 1:
        raise ValueError(f"{name} is {size}; expected at least 1")
    if at_most is not None and size > at_most:
        raise ValueError(f"{name} is {size}; expected at most {at_most}")


_LARGEST = 2**31 - 1  # so that products of two sizes fit into 64 bits


def _check_integer(name: str, size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, Integral):  # NumPy's integers, too
        raise TypeError(f"{name} is {size!r} of type {type(size).__name__}; expected an int")
    if int(size) > _LARGEST:
        raise ValueError(f"{name} is {size}; expected at most {_LARGEST}")


def check_pair(size: Any) -> None:
    """Raises TypeError unless ``size`` is a pair of integers, which a trace may not know."""
    is_pair = isinstance(size, (tuple, list)) and len(size) == 2
    if not is_pair or not all(isinstance(n, (Integral, torch.SymInt)) for n in size):
        raise TypeError(
            f"size is {size!r} of type {type(size).__name__}; expected (N_src, N_dst), two integers"
        )


def check_flags(**flags: Any) -> None:
    """Raises TypeError unless all flags are True or False."""
    for name, given in flags.items():
        checks.flag(given, name)


def asks_for_weights(return_attention_weights: bool | None) -> bool:
    """True if a layer returns its attention weights; None means False."""
    if return_attention_weights is not None:
        checks.flag(return_attention_weights, "return_attention_weights")
    return bool(return_attention_weights)


def stacklevel_of_caller() -> int:
    """The ``stacklevel`` of a warning that blames the first caller outside of gat_ext and torch."""
    inside = tuple(
        f"{Path(module.__file__ or '').parent}{os.sep}"
        for module in (torch, sys.modules["gat_ext"])
    )
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    return level


def check_message_passing(options: dict[str, Any]) -> None:
    """Raises if an argument of PyG's MessagePassing would change what a layer computes."""
    known: dict[str, tuple[Any, ...]] = {
        "aggr": ("add", "sum"),
        "flow": ("source_to_target",),
        "node_dim": (0, -2),
    }
    known |= {"aggr_kwargs": (None, {}), "decomposed_layers": (1,)}
    hints = {
        "aggr": "attention is a weighted sum",
        "flow": "reverse the edges with edge_index.flip(0)",
    }
    for name, value in options.items():
        if name not in known:
            raise TypeError(
                f"got an unknown argument {name!r}; expected an argument of the layer, or of PyG's "
                f"MessagePassing: {', '.join(known)}"
            )
        if value not in known[name]:
            expected = " or ".join(map(repr, known[name]))
            hint = f": {hints[name]}" if name in hints else ""
            raise ValueError(f"{name} is {value!r}; expected {expected}{hint}")
