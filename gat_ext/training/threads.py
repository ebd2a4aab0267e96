"""Chooses the number of CPU threads."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from gat_ext import _C

_ROOT = Path("/")
_SAMPLES, _PAUSE = 5, 0.01  # of the number of running processes; seconds


class Threads(NamedTuple):
    """A number of threads, and why."""

    number: int
    why: str

    def __str__(self) -> str:
        """Such as ``2 threads (2 cores, load 0.3)``."""
        return f"{self.number} thread{'s' if self.number > 1 else ''} ({self.why})"


class Machine(NamedTuple):
    """What a process may use.

    Attributes:
        cores: of the machine.
        allowed: cores that the process may run on.
        quota: CPU time per second that its control groups allow; None: no limit.
        load: of other processes.
    """

    cores: int
    allowed: int
    quota: float | None
    load: float

    @classmethod
    def here(cls) -> Machine:
        """This machine, now."""
        return cls(
            os.cpu_count() or 1,
            len(os.sched_getaffinity(0)),
            cpu_quota(),
            load_of_others(),
        )


def choose(
    given: int | None = None,
    machine: Machine | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Threads:
    """The number of threads for this process.

    It is ``given``, else torch's own number where ``OMP_NUM_THREADS`` is set, else the lowest of
    the cores that the process may run on, its CPU quota, and the cores that are idle: those of the
    machine less the load of other processes, rounded. It is at least 1.

    Example:
        >>> print(choose(machine=Machine(8, 8, None, 0.3), environment={}))
        8 threads (8 cores, load 0.3)
        >>> print(choose(machine=Machine(64, 64, 4.0, 62.0), environment={}))
        2 threads (64 cores, quota 4, load 62.0)
    """
    if given is not None:
        return Threads(given, "set by option")
    if environment.get("OMP_NUM_THREADS"):
        return Threads(torch.get_num_threads(), "OMP_NUM_THREADS")
    cores, allowed, quota, load = Machine.here() if machine is None else machine
    idle = int(cores - load + 0.5)
    number = max(1, min(allowed, idle, allowed if quota is None else int(quota)))
    one_of = f"{allowed} of {cores}" if allowed < cores else f"{cores}"
    why = [f"{one_of} core{'s' if cores > 1 else ''}"]
    if quota is not None:
        why.append(f"quota {quota:g}")
    return Threads(number, ", ".join([*why, f"load {load:.1f}"]))


def load_of_others(root: Path = _ROOT) -> float:
    """How many other processes compute: the average of the last minute, or those now if fewer.

    The average alone would count a run of this process's user that has just ended.
    """
    minute, running = float("inf"), []
    for _ in range(_SAMPLES):
        time.sleep(_PAUSE)
        try:
            fields = (root / "proc/loadavg").read_text().split()
            minute = float(fields[0])
            running.append(int(fields[3].split("/")[0]) - 1)  # without this process
        except (OSError, ValueError, IndexError):
            return 0.0
    return max(0.0, min(minute, sum(running) / len(running)))


def cpu_quota(root: Path = _ROOT) -> float | None:
    """The lowest CPU quota of the process's control groups (v1 and v2) and of those above them.

    Returns:
        Seconds of CPU time per second; None where there is no quota.
    """
    quota = _C.cpu_quota(str(root))
    return None if math.isinf(quota) else quota
