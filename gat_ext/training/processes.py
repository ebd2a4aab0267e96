"""The processes of a training: which of them this one is, and how they agree and end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import current_thread, main_thread
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from gat_ext.distributed import RankError, naming_the_dead, report_failure
from gat_ext.training.checkpointed import Interrupted

_kept: list[Any] = []  # operations of torch.distributed
_TELLING = 10.0  # seconds in which the process that prints an error must have printed it


class Launch(NamedTuple):
    """What started this process, from the variables that torchrun sets.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number among those of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def launched(environment: Mapping[str, str] = os.environ) -> Launch:
    """How this process was started.

    Raises:
        ValueError: variables are missing or contradict each other.

    Example:
        >>> launched({}).size
        1
        >>> names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        >>> launched(dict(zip(names, ("1", "2", "1", "localhost", "29500"))))
        Launch(rank=1, size=2, local_rank=1)
    """
    size = _number(environment, "WORLD_SIZE", "1")
    if size <= 1:
        return Launch()
    missing = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not environment.get(n)]
    if missing:
        raise ValueError(
            f"WORLD_SIZE is {size}, but {missing[0]} is not set; expected the variables of "
            "torchrun: start with torchrun --nproc-per-node, or unset WORLD_SIZE"
        )
    rank = _number(environment, "RANK", "0")
    if rank >= size:
        raise ValueError(f"RANK is {rank} and WORLD_SIZE is {size}; expected a RANK below it")
    return Launch(rank, size, _number(environment, "LOCAL_RANK", str(rank)))


def _number(environment: Mapping[str, str], name: str, default: str) -> int:
    text = environment.get(name) or default
    if not text.isdecimal():
        raise ValueError(f"{name} is {text!r}; expected a number, as torchrun sets it")
    return int(text)


@dataclass(frozen=True)
class Team:
    """The processes that train together.

    Attributes:
        rank: number of this process.
        size: number of processes.
        device: that this process computes on.
        group: of torch.distributed; None: all processes, or the only one.
        stopped: not empty after SIGTERM.
    """

    rank: int
    size: int
    device: torch.device
    group: Any = None
    stopped: list[bool] = field(default_factory=list)

    @property
    def is_first(self) -> bool:
        """Whether this process prints, and writes files."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is True in a process; the same answer in all of them."""
        if self.size == 1:
            return flag
        found = torch.tensor(int(flag), device=self.device)
        with naming_the_dead(self.group):
            dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self.group)
        return bool(found)

    def from_first(self, value: Any) -> Any:
        """The value of the first process."""
        if self.size == 1:
            return value
        values = [value]
        with naming_the_dead(self.group):
            dist.broadcast_object_list(values, group=self.group, group_src=0)
        return values[0]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        values = [value] * self.size
        if self.size > 1:
            with naming_the_dead(self.group):
                dist.all_gather_object(values, value, group=self.group)
        return values


@contextmanager
def joined(launch: Launch, device: str, timeout: float) -> Iterator[Team]:
    """Joins the other processes; tells them if this one fails.

    SIGTERM, which torchrun sends if a process ends, stops the training after the running epoch, so
    that this process can still say what happened.

    Args:
        launch: of this process.
        device: "cpu", or "cuda" for the GPU of the number ``local_rank``.
        timeout: seconds that a process waits for the others.

    Raises:
        RankError: the processes do not find each other.
    """
    if launch.size == 1:
        yield Team(0, 1, torch.device(device))
        return
    rank, size, local_rank = launch
    where = torch.device(device)
    if where.type == "cuda":
        where = torch.device("cuda", local_rank)
        torch.cuda.set_device(where)
    backend = "nccl" if where.type == "cuda" else "gloo"
    with _terminated_later() as stopped:
        try:
            wait = timedelta(seconds=timeout)
            dist.init_process_group(backend, rank=rank, world_size=size, timeout=wait)
        except (RuntimeError, ValueError) as error:
            address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise RankError(
                f"rank {rank}: the {size} processes did not find each other at {address} within "
                f"{timeout:g} s; expected all of them to start: {error}"
            ) from error
        try:
            yield Team(rank, size, where, None, stopped)
        except BaseException as error:
            if not isinstance(error, Interrupted):
                report_failure(error)
            raise
        # A thread of Gloo frees an operation after it has ended, for which it waits for the
        # interpreter; the interpreter waits for the thread when it frees the group, with the last
        # model of DistributedDataParallel. So the last operation is kept until the process ends.
        last = dist.barrier(async_op=True)
        with naming_the_dead(None):
            last.wait()
        _kept.append(last)
        dist.destroy_process_group()


@contextmanager
def _terminated_later() -> Iterator[list[bool]]:
    """Records SIGTERM in a list."""
    noted: list[bool] = []
    if current_thread() is not main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: noted.append(True))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def told_once(launch: Launch) -> Iterator[bool]:
    """Whether this process is to print an error that all of them have.

    It is the first one to have it, because torchrun ends the others when one ends; these wait until
    it is printed.
    """
    if launch.size == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        yield launch.rank == 0
        return
    key = f"gat_ext/told/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        wait = timedelta(seconds=_TELLING)
        store = dist.TCPStore(*address, is_master=False, timeout=wait)  # type: ignore[attr-defined]
        first = store.add(f"{key}/number", 1) == 1
    except (RuntimeError, ValueError):
        yield True
        return
    yield first
    try:
        if first:
            store.set(f"{key}/done", "1")
        end = time.monotonic() + _TELLING
        while not first and not store.check([f"{key}/done"]) and time.monotonic() < end:
            time.sleep(0.02)
    except RuntimeError:
        pass  # the store ended
