"""Checkpoints: dictionaries of tensors and numbers.

They are written whole or not at all, and read without running code.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gat_ext.training.files import replacing

FORMAT = 2
"""2 keeps the weights of every seed, and the state of all trainings that can go on"""


def save(state: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint; a crash leaves the old one.

    Args:
        state: tensors, numbers, strings, and lists and dictionaries of them.
        path: of the file; its folder is created.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint with ``weights_only=True``, so that no file makes code run.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: the file is not a checkpoint of this format.
    """
    return parse(read(path), path, device)


def read(path: Path) -> bytes:
    """The content of a checkpoint's file.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no checkpoint {path}; start without --resume") from error


def parse(content: bytes, path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The checkpoint with this content; ``path`` is for errors.

    Raises:
        ValueError: the content is not of a checkpoint of this format.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()  # torch itself does not compare the checksums
        if damaged is not None:
            raise ValueError(f"{damaged} has another checksum")
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
        older = "" if not same(found, 1) else ", which has the weights of one seed only"
        raise ValueError(
            f"{path} has checkpoint format {found!r}{older}; expected format {FORMAT}. Train "
            "again: --overwrite replaces these results, --out keeps them"
        )
    return state


def random_state() -> dict[str, Any]:
    """The state of torch's random number generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def check_random_state(state: Any) -> None:
    """Raises unless :func:`restore_random_state` can use the state; changes no generator.

    Raises:
        ValueError: it is not such a state.
    """
    number_of_devices = len(state["cuda"]) if _is_list_in(state, "cuda") else 0
    like = {"cpu": torch.get_rng_state(), "cuda": [ANYTHING] * number_of_devices}
    check(state, like, "random", any_device=True)
    for index, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        check(cuda, torch.cuda.get_rng_state(index), f"random.cuda[{index}]", any_device=True)
    try:
        torch.Generator().set_state(state["cpu"].cpu())
    except RuntimeError as error:  # what torch raises for content that is not a state
        raise ValueError(f"random is not the state of a generator: {error}") from error


def restore_random_state(state: Any) -> None:
    """Sets torch's random number generators to a state that :func:`random_state` returned.

    Raises:
        ValueError: it is not such a state.
    """
    check_random_state(state)
    torch.set_rng_state(state["cpu"].cpu())
    for index, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda.cpu(), index)


def _is_list_in(state: Any, name: str) -> bool:
    return isinstance(state, dict) and isinstance(state.get(name), list)


# ---- comparing what was read with what was written


ANYTHING = object()
"""Stands for any value."""


class ListOf:
    """Stands for a list of any length whose values are all like one."""

    def __init__(self, like: Any) -> None:
        self.like = like


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Adds the file's name to a ValueError, or to a TypeError, which a setting of it may cause."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot use {path}: {error}") from error


def check(given: Any, like: Any, name: str, any_device: bool = False) -> None:
    """Raises unless keys, types, shapes, dtypes and devices are those of ``like``.

    Args:
        given: from a checkpoint.
        like: dictionaries, lists and tuples of tensors and plain values; ``ANYTHING`` and
            ``ListOf`` are placeholders.
        name: of the value, for errors.
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
    """Whether two plain values, or dictionaries and lists of them, have equal types and values."""
    try:
        check(given, expected, "")
    except ValueError:
        return False
    return bool(given == expected)


def check_optimizer(state: Any, optimizer: torch.optim.Adam, stepped: bool) -> None:
    """Raises unless the state fits this Adam, whose fused step checks no shapes or strides.

    Args:
        state: from a checkpoint.
        optimizer: that is to load it; only the learning rate may differ.
        stepped: whether the state was saved after a step.

    Raises:
        ValueError: it does not fit.
    """
    own = optimizer.state_dict()
    check(state, {"state": ANYTHING, "param_groups": own["param_groups"]}, "optimizer")
    for index, (given, group) in enumerate(
        zip(state["param_groups"], own["param_groups"], strict=True)
    ):
        for name in group.keys() - {"lr"}:
            if given[name] != group[name]:
                raise ValueError(
                    f"optimizer.param_groups[{index}].{name} is {given[name]}; expected "
                    f"{group[name]}"
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
