"""Checkpoints: plain dictionaries of tensors and numbers, written whole or not at all, read without running code."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gat_ext.training.files import replacing

FORMAT = 1


def save(state: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint; a crash in between leaves the old one.

    Args:
        state: tensors, numbers, strings, and lists and dictionaries of them.
        path: where to; the folder is made.
    """
    with replacing(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint with ``weights_only=True``: a file that asks for code to run is refused.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: the file is no checkpoint of this format.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no checkpoint {path} to go on from; start without --resume"
        ) from error
    try:
        # From memory, so that an error of the system is one of the content: a position beyond its
        # end, for instance.
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} is not a checkpoint of gat-ext: it is damaged, or holds more than tensors, "
            "numbers and text"
        ) from error
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if not isinstance(state, dict) or not same(found, FORMAT):
        raise ValueError(f"{path} has checkpoint format {found!r}; expected {FORMAT}")
    return state


def random_state() -> dict[str, Any]:
    """The state of torch's random number generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(state: Any) -> None:
    """Puts torch's random number generators where a state was taken.

    Raises:
        ValueError: it is not such a state.
    """
    number_of_devices = len(state["cuda"]) if _is_list_in(state, "cuda") else 0
    like = {"cpu": torch.get_rng_state(), "cuda": [ANYTHING] * number_of_devices}
    check(state, like, "random", any_device=True)
    try:
        torch.set_rng_state(state["cpu"].cpu())
        for index, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
            check(cuda, torch.cuda.get_rng_state(index), f"random.cuda[{index}]", any_device=True)
            torch.cuda.set_rng_state(cuda.cpu(), index)
    except RuntimeError as error:  # what torch raises for a content that is no state
        raise ValueError(f"random holds no state of a generator: {error}") from error


def _is_list_in(state: Any, name: str) -> bool:
    return isinstance(state, dict) and isinstance(state.get(name), list)


# ---- whether what was read is what was written


ANYTHING = object()
"""In place of a value: any."""


class ListOf:
    """In place of a list: one of any length, each of whose values is like this one."""

    def __init__(self, like: Any) -> None:
        self.like = like


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Has a ValueError say which checkpoint it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"cannot go on from {path}: {error}") from error


def check(given: Any, like: Any, name: str, any_device: bool = False) -> None:
    """Raises unless keys, kinds of values, shapes, dtypes and devices are those of ``like``.

    Args:
        given: from a checkpoint.
        like: dictionaries, lists and tuples of tensors and plain values; ``ANYTHING`` or ``ListOf``
            in place of some.
        name: what it is called in errors.
        any_device: tensors may be on another device.

    Raises:
        ValueError: it differs.

    Example:
        >>> check({"a": 2.0}, {"a": 0.0}, "state")
        >>> check({"a": torch.ones(1)}, {"a": torch.ones(2)}, "state")
        Traceback (most recent call last):
        ValueError: state.a is a float32 tensor [1] on cpu; expected a float32 tensor [2] on cpu
    """
    if like is ANYTHING:
        return
    if isinstance(like, dict):
        if not isinstance(given, dict):
            raise ValueError(f"{name} is {_kind(given)}; expected a dictionary")
        for what, keys in (
            ("lacks", like.keys() - given.keys()),
            ("has", given.keys() - like.keys()),
        ):
            if keys:
                raise ValueError(f"{name} {what} {min(map(repr, keys))}")
        for key, value in like.items():
            check(given[key], value, f"{name}.{key}", any_device)
    elif isinstance(like, (list, tuple, ListOf)):
        kind = tuple if isinstance(like, tuple) else list
        if not isinstance(given, kind):
            raise ValueError(f"{name} is {_kind(given)}; expected a {kind.__name__}")
        values = [like.like] * len(given) if isinstance(like, ListOf) else like
        if len(given) != len(values):
            raise ValueError(f"{name} has {len(given)} values; expected {len(values)}")
        for index, (one, other) in enumerate(zip(given, values, strict=True)):
            check(one, other, f"{name}[{index}]", any_device)
    elif isinstance(like, Tensor):
        _check_tensor(given, like, name, any_device)
    elif type(given) is not type(like) and not (type(like) is float and type(given) is int):
        raise ValueError(f"{name} is {_kind(given)}; expected {_kind(like)}")


def _check_tensor(given: Any, like: Tensor, name: str, any_device: bool) -> None:
    right = (
        isinstance(given, Tensor)
        and given.layout == like.layout
        and (given.shape, given.dtype) == (like.shape, like.dtype)
        and (any_device or given.device == like.device)
    )
    if not right:
        raise ValueError(f"{name} is {_kind(given)}; expected {_kind(like)}")
    if not given.is_contiguous() and given.stride() != like.stride():
        raise ValueError(f"{name} has strides {given.stride()}; expected a contiguous tensor")


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor):
        return "None" if value is None else f"of type {type(value).__name__}"
    dtype, layout = str(value.dtype).removeprefix("torch."), value.layout
    dense = "" if layout == torch.strided else f" of layout {layout}"
    return f"a {dtype} tensor {list(value.shape)}{dense} on {value.device}"


def same(given: Any, expected: Any) -> bool:
    """Whether two plain values, or dictionaries and lists of them, are equal; what is no such value is different."""
    try:
        check(given, expected, "")
    except ValueError:
        return False
    return bool(given == expected)


def check_optimizer(state: Any, optimizer: torch.optim.Adam, stepped: bool) -> None:
    """Raises unless the state is one of this Adam, whose fused step checks no shapes or strides.

    Args:
        state: from a checkpoint.
        optimizer: that is to load it; the learning rate alone may differ.
        stepped: whether it has made a step.

    Raises:
        ValueError: it is of another optimizer.
    """
    own = optimizer.state_dict()
    check(state, {"state": ANYTHING, "param_groups": own["param_groups"]}, "optimizer")
    for index, (given, group) in enumerate(
        zip(state["param_groups"], own["param_groups"], strict=True)
    ):
        for name in group.keys() - {"lr"}:
            if given[name] != group[name]:
                raise ValueError(
                    f"optimizer.param_groups[{index}].{name} is {given[name]}; expected {group[name]}"
                )
    parameters = [p.detach() for group in optimizer.param_groups for p in group["params"]]
    moments = state["state"] if isinstance(state["state"], dict) else {}
    # A parameter that never had a gradient has no state.
    like = {
        index: {"step": p.new_zeros((), dtype=torch.float32), "exp_avg": p, "exp_avg_sq": p}
        for index, p in enumerate(parameters)
        if index in moments or (stepped and not moments)
    }
    check(state["state"], like, "optimizer.state")
