"""Checkpoints of a training in several processes, from which any number of processes continues."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gat_ext.distributed.failures import naming_the_dead, raised_by_all
from gat_ext.distributed.reduce import _processes

FORMAT, VERSION = "gat_ext checkpoint", 1
DESCRIPTION = "checkpoint.json"
_NAME = re.compile(r"epoch-(\d{9,})|\.epoch-(\d{9,})\.old")


def save_checkpoint(
    folder: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    epoch: int = 0,
    extra: Mapping[str, Any] | None = None,
    keep: int = 1,
    group: Any = None,
) -> Path:
    """Writes model, optimizer and torch's random generator by torch.distributed.checkpoint.

    All processes call it, with a folder that all of them reach. Model, optimizer and generator are
    the same in all of them, as DistributedDataParallel or :func:`average_gradients` and one seed
    leave them. The checkpoint is written next to its place and renamed when it is complete, so that
    a process that is killed leaves the last complete one.

    Args:
        folder: for the checkpoints; it is created.
        model: any module; DistributedDataParallel may wrap it.
        optimizer: of the model's parameters, or None.
        epoch: epochs run so far. A checkpoint of the same epoch is replaced.
        extra: anything else that JSON can express, such as settings and the best score.
        keep: number of checkpoints to keep; older ones are removed.
        group: the processes; None: all of them.

    Returns:
        The folder of this checkpoint, ``FOLDER/epoch-000000012``.

    Raises:
        TypeError: an argument is not of these types.
        ValueError: ``epoch`` is negative, or ``keep`` less than 1.
        OSError: a process cannot write; all processes raise it.
        RankError: a process ended.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from gat_ext.distributed import load_checkpoint, save_checkpoint
        >>> model, folder = torch.nn.Linear(2, 3), tempfile.mkdtemp()
        >>> save_checkpoint(folder, model, epoch=12, extra={"best": 0.8}).name  # in one process
        'epoch-000000012'
        >>> load_checkpoint(folder, torch.nn.Linear(2, 3))
        (12, {'best': 0.8})
    """
    _check_number("epoch", epoch, 0)
    _check_number("keep", keep, 1)
    description = _describe(epoch, optimizer, extra)
    folder, first = Path(folder), _rank(group) == 0
    place = folder / f"epoch-{epoch:09d}"
    part = folder / f".{place.name}.part"
    with raised_by_all(group):
        if first:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
    dcp = _library()
    with raised_by_all(group), _causes("write", part), naming_the_dead(group):
        writer = dcp.FileSystemWriter(part)
        dcp.save(_state(model, optimizer), storage_writer=writer, **_how(group))
    with raised_by_all(group):
        if first:
            _publish(description, part, place)
            _remove_old(folder, place, keep)
    return place


def load_checkpoint(
    folder: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    group: Any = None,
) -> tuple[int, dict[str, Any]]:
    """Loads the newest complete checkpoint, in any number of processes.

    Model, optimizer and torch's random generator are as they were; nothing changes if an error is
    raised. torch.distributed.checkpoint unpickles what is not a tensor: load checkpoints that you
    trust only.

    Args:
        folder: that :func:`save_checkpoint` was given.
        model: of the same parameters and buffers; DistributedDataParallel may wrap it, whether or
            not it did when the checkpoint was written.
        optimizer: of the same type and parameters, or None, also if there was one.
        group: the processes; None: all of them.

    Returns:
        ``epoch`` and ``extra`` of the checkpoint.

    Raises:
        FileNotFoundError: there is no complete checkpoint.
        ValueError: it is of another model or optimizer, damaged, or of another version.
        OSError: a process cannot read it.
        RankError: a process ended. All processes raise if one of them does.

    Example:
        See :func:`save_checkpoint`.
    """
    folder = Path(folder)
    with raised_by_all(group):
        found = _newest(folder) if _rank(group) == 0 else None
    place = _from_first(found, group)
    dcp = _library()
    with raised_by_all(group):
        description = _read_description(place)
        reader = dcp.FileSystemReader(place)
        state = _template(place, reader, description, model, optimizer)
    with raised_by_all(group), _causes("read", place), naming_the_dead(group):
        dcp.load(state, storage_reader=reader, **_how(group))
    with raised_by_all(group):
        _restore(place, state, model, optimizer)
    return description["epoch"], description["extra"]


# ---- the state


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


def _state(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    state: dict[str, Any] = {"model": dict(_unwrapped(model).state_dict())}
    state["random"] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["random"]["cuda"] = torch.cuda.get_rng_state()
    if optimizer is not None:
        given = optimizer.state_dict()
        state["groups"] = _joined(dict(enumerate(given["param_groups"])))
        state["optimizer"] = _joined(given["state"])
    return {name: value for name, value in state.items() if value}


def _template(
    place: Path,
    reader: Any,
    description: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
) -> dict[str, Any]:
    """What the checkpoint is to be read into: new tensors, and None for other values."""
    try:
        stored = reader.read_metadata().state_dict_metadata
    except Exception as error:
        raise ValueError(
            f"{place} is damaged ({type(error).__name__}: {error}); expected what save_checkpoint "
            "wrote: remove it to load the one before"
        ) from error
    own = _unwrapped(model).state_dict()
    _check_model(place, stored, own)
    state: dict[str, Any] = {
        "model": {
            name: torch.empty_like(value) if isinstance(value, Tensor) else None
            for name, value in own.items()
        },
        "random": {"cpu": torch.get_rng_state()},
    }
    if torch.cuda.is_available() and "random.cuda" in stored:
        state["random"]["cuda"] = torch.cuda.get_rng_state()
    if optimizer is not None:
        described = _describe_optimizer(optimizer)
        if description["optimizer"] != described:
            raise ValueError(
                f"{place} has the optimizer {description['optimizer']}; expected {described}: "
                "build the same optimizer over the same parameters"
            )
        for kind in ("optimizer", "groups"):
            keys = [n.removeprefix(f"{kind}.") for n in stored if n.startswith(f"{kind}.")]
            state[kind] = {key: _empty(stored[f"{kind}.{key}"], key, optimizer) for key in keys}
    return {name: value for name, value in state.items() if value}


def _joined(nested: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """One dictionary of two levels, which torch.distributed.checkpoint does not take apart."""
    return {f"{i}/{name}": value for i, values in nested.items() for name, value in values.items()}


def _separated(joined: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The inverse of :func:`_joined`."""
    nested: dict[int, dict[str, Any]] = {}
    for key, value in joined.items():
        index, _, name = key.partition("/")
        nested.setdefault(int(index), {})[name] = value
    return nested


def _empty(stored: Any, key: str, optimizer: torch.optim.Optimizer) -> Tensor | None:
    """A tensor for a value of the optimizer's state, on the device of the parameter."""
    if not hasattr(stored, "size"):
        return None
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    device = parameters[int(key.partition("/")[0])].device if stored.size else "cpu"
    return torch.empty(stored.size, dtype=stored.properties.dtype, device=device)


def _check_model(place: Path, stored: dict[str, Any], own: dict[str, Any]) -> None:
    names = {name.removeprefix("model.") for name in stored if name.startswith("model.")}
    for what, missing in (("lacks", own.keys() - names), ("has", names - own.keys())):
        if missing:
            raise ValueError(
                f"{place} is of another model: it {what} {min(missing)!r}; expected the tensors of "
                "this one: build the same model"
            )
    for name, value in own.items():
        given = stored[f"model.{name}"]
        if not (isinstance(value, Tensor) and hasattr(given, "size")):
            continue
        found, expected = (given.properties.dtype, tuple(given.size)), (value.dtype, value.shape)
        if found != expected:
            raise ValueError(
                f"{place} is of another model: {name} is {found[0]} {list(found[1])}; expected "
                f"{value.dtype} {list(value.shape)}: build the same model"
            )


def _restore(
    place: Path,
    state: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
) -> None:
    if optimizer is not None:
        groups = [group for _, group in sorted(_separated(state["groups"]).items())]
        values = _separated(state.get("optimizer", {}))
        optimizer.load_state_dict({"state": values, "param_groups": groups})
    _unwrapped(model).load_state_dict(state["model"])
    torch.set_rng_state(state["random"]["cpu"])
    if "cuda" in state["random"]:
        torch.cuda.set_rng_state(state["random"]["cuda"])


# ---- descriptions


def _describe(
    epoch: int, optimizer: torch.optim.Optimizer | None, extra: Mapping[str, Any] | None
) -> str:
    if extra is not None and not isinstance(extra, Mapping):
        raise TypeError(f"extra is a {type(extra).__name__}; expected a dictionary, or None")
    record = {
        "format": FORMAT,
        "version": VERSION,
        "epoch": int(epoch),
        "optimizer": None if optimizer is None else _describe_optimizer(optimizer),
        "extra": dict(extra or {}),
    }
    try:
        return json.dumps(record, indent=1)
    except (TypeError, ValueError) as error:
        raise TypeError(f"extra: {error}; expected values that JSON can express") from error


def _describe_optimizer(optimizer: torch.optim.Optimizer) -> str:
    """Type and shapes, such as ``Adam over [3, 2], [3]``."""
    shapes = [str(list(p.shape)) for group in optimizer.param_groups for p in group["params"]]
    return f"{type(optimizer).__name__} over {', '.join(shapes)}"


def _read_description(place: Path) -> dict[str, Any]:
    try:
        record = json.loads((place / DESCRIPTION).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{place / DESCRIPTION} is damaged ({error}); expected JSON: remove {place} to load "
            "the checkpoint before"
        ) from error
    version = record.get("version") if isinstance(record, dict) else None
    if version != VERSION or record.get("format") != FORMAT:
        raise ValueError(
            f"{place / DESCRIPTION} has version {version!r} of the format; this gat_ext reads "
            f"version {VERSION}"
        )
    return dict(record)


def _check_number(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a {type(value).__name__}; expected an int")
    if value < least:
        raise ValueError(f"{name} is {value}; expected at least {least}")


# ---- files


def _publish(description: str, part: Path, place: Path) -> None:
    """Completes the folder ``part`` and moves it to ``place``."""
    with (part / DESCRIPTION).open("x", encoding="utf-8") as file:
        file.write(description)
        file.flush()
        os.fsync(file.fileno())
    _sync(part)
    old = place.with_name(f".{place.name}.old")
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(place, old)  # which _newest finds until the next line has run
    os.rename(part, place)
    _sync(place.parent)


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _complete(folder: Path) -> list[tuple[int, Path]]:
    """(epoch, folder) of the complete checkpoints, the newest first."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if match := _NAME.fullmatch(path.name):  # names with a dot come first
            found[int(match[1] or match[2])] = path
    return sorted(found.items(), reverse=True)


def _newest(folder: Path) -> Path:
    complete = _complete(folder)
    if not complete:
        raise FileNotFoundError(
            f"{folder} holds no checkpoint; expected a folder that save_checkpoint was given"
        )
    return complete[0][1]


def _remove_old(folder: Path, mine: Path, keep: int) -> None:
    for path in folder.glob(".epoch-*"):  # of killed processes, and the one that mine replaced
        shutil.rmtree(path, ignore_errors=True)
    for _, path in _complete(folder)[keep:]:
        if path != mine:
            part = path.with_name(f".{path.name}.part")  # so that none is taken for complete
            os.rename(path, part)
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _causes(what: str, place: Path) -> Iterator[None]:
    """Turns the error that torch.distributed.checkpoint collects into one of its causes."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            yield
    except CheckpointException as error:
        rank, (cause, _) = min(error.failures.items())
        kind = OSError if isinstance(cause, OSError) else ValueError
        raise kind(f"rank {rank} cannot {what} {place}: {cause}") from cause


# ---- processes


def _library() -> Any:
    """torch.distributed.checkpoint, which takes half a second to import."""
    import torch.distributed.checkpoint

    return torch.distributed.checkpoint


def _rank(group: Any) -> int:
    return dist.get_rank(group) if _processes(group) > 1 else 0


def _how(group: Any) -> dict[str, Any]:
    return {"process_group": group} if _processes(group) > 1 else {"no_dist": True}


def _from_first(value: Any, group: Any) -> Any:
    if _processes(group) == 1:
        return value
    values = [value]
    with naming_the_dead(group):
        dist.broadcast_object_list(values, group=group, group_src=0)
    return values[0]
