"""Which processes of this machine still run, when some of a group do not answer."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def identity() -> str:
    """This process: machine, namespace of process numbers, number, and time of its start."""
    return f"{_machine()} {os.getpid()} {_state_and_start(os.getpid())[1]}"


def has_ended(identity: str) -> bool:
    """Whether a process of this machine has ended; False for those of other machines.

    Example:
        >>> from gat_ext.distributed import liveness
        >>> liveness.has_ended(liveness.identity())
        False
    """
    machine, _, rest = identity.rpartition(" ")[0].rpartition(" ")
    if machine != _machine():
        return False
    state, start = _state_and_start(int(rest))
    return state in ("Z", "X", "") or start != identity.rpartition(" ")[2]


def _machine() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return "unknown"


def _state_and_start(number: int) -> tuple[str, str]:
    """State and time of start of a process; empty if there is none."""
    try:
        text = (_PROC / str(number) / "stat").read_text()
    except OSError:
        return "", ""
    fields = text.rpartition(")")[2].split()  # the name before it may have spaces
    return fields[0], fields[19]
