"""Time and memory of one step of a program, the limits of the machine, and what the machine is."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import platform
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from cases import DTYPES, Case
from peers import Program
from torch import Tensor

_COPY_BYTES = 256 * 2**20
_STATUS = Path("/proc/self/status")


class Step(NamedTuple):
    """Seconds of one step, and its result."""

    forward: float
    backward: float
    update: float
    out: Tensor


def step(program: Program, grad_out: Tensor) -> Step:
    """One training step: forward, backward for every leaf, and the optimizer where there is one."""
    for leaf in program.leaves.values():
        leaf.grad = None
    start = time.perf_counter()
    out = program.function(*program.args)
    middle = time.perf_counter()
    out.backward(grad_out)
    end = time.perf_counter()
    if program.update is not None:
        program.update()
    return Step(middle - start, end - middle, time.perf_counter() - end, out)


def sample(program: Program, grad_out: Tensor, min_seconds: float) -> dict[str, list[float]]:
    """Milliseconds of as many steps as fill ``min_seconds``, one at least."""
    samples: dict[str, list[float]] = {"forward": [], "backward": [], "update": [], "total": []}
    spent = 0.0
    while spent < min_seconds or not samples["total"]:
        seconds = step(program, grad_out)[:3]
        spent += sum(seconds)
        for part, value in zip(samples, (*seconds, sum(seconds)), strict=True):
            samples[part].append(1e3 * value)
    return samples


# ---- memory


def peak_resident() -> int:
    """Bytes of this process at its highest."""
    return _status("VmHWM")


def _status(key: str) -> int:
    """Bytes of a line of /proc/self/status; getrusage would mix in the parent's peak."""
    found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} has no line {key}")
    return int(found[1]) * 1024


def _reset_high_water() -> bool:
    """Sets VmHWM back to VmRSS; False where the system does not let us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _trim() -> None:
    """Gives freed memory back to the system, so that it does not hide in the resident set."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # another libc than glibc
        return


def peak_memory(program: Program, grad_out: Tensor) -> dict[str, int | bool]:
    """Bytes at the peak of one step, in a process that does nothing else.

    A first step warms up (thread pools, compiled code); its peak is forgotten where the system
    allows, else there is none. ``peak`` is the resident set at its highest, ``increase`` how far
    that is above the set before the step, ``kept`` the result and the gradients that the step
    leaves behind.
    """
    warmed = _reset_high_water()
    if warmed:
        step(program, grad_out)
        for leaf in program.leaves.values():
            leaf.grad = None
        _trim()
        _reset_high_water()
    before = _status("VmRSS")
    out = step(program, grad_out).out
    peak = _status("VmHWM")
    kept = [out, *(leaf.grad for leaf in program.leaves.values() if leaf.grad is not None)]
    return {
        "peak": peak,
        "increase": peak - before,
        "kept": sum(t.nbytes for t in kept),
        "warmed": warmed,
    }


# ---- the limits of the machine


@functools.cache
def _copy_buffers() -> tuple[Tensor, Tensor]:
    return torch.ones(_COPY_BYTES // 4), torch.zeros(_COPY_BYTES // 4)


class Roofline:
    """Copy bandwidth, and the gather limit of a graph: what a bare loop over its edges takes.

    ``rows`` ``[num_src, width]`` are what is gathered; ``rowptr`` and ``col`` have one dtype.
    """

    def __init__(self, rows: Tensor, rowptr: Tensor, col: Tensor) -> None:
        if rows.dtype == torch.float64:
            # embedding_bag has a fast loop for 32 and 16 bits only; as many bytes in float32.
            rows = torch.randn(rows.shape[0], 2 * rows.shape[1])
        self._rows, self._rowptr, self._col = rows, rowptr, col

    def copy(self) -> float:
        """GB/s of a large copy, read and written bytes counted."""
        source, target = _copy_buffers()
        start = time.perf_counter()
        target.copy_(source)
        return 2 * _COPY_BYTES / (time.perf_counter() - start) / 1e9

    def gather(self) -> float:
        """Milliseconds of a pass that reads and sums a row for each edge (``embedding_bag``)."""
        start = time.perf_counter()
        F.embedding_bag(self._col, self._rows, self._rowptr, mode="sum", include_last_offset=True)
        return 1e3 * (time.perf_counter() - start)


class Limits:
    """What no implementation on this machine can beat, with torch alone, on one case.

    ``copy`` and ``gather`` as of ``Roofline``, with rows of ``heads * channels``; ``projection``:
    one dense product of that width, forward and backward.
    """

    def __init__(self, case: Case) -> None:
        dtype, width = DTYPES[case.setting.dtype], case.setting.width
        self._rows = torch.randn(case.num_nodes, width).to(dtype)
        counts = torch.bincount(case.edge_index[1], minlength=case.num_nodes)
        rowptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        self._roofline = Roofline(self._rows, rowptr, case.edge_index[0].clone())
        x = case.tensors.get("x", self._rows)
        self._x = (x if x.dim() == 2 else x.flatten(1)).detach().clone().requires_grad_()
        self._weight = torch.randn(width, self._x.shape[1]).to(dtype).requires_grad_()

    def sample(self) -> dict[str, float]:
        """Milliseconds, and GB/s for the copy."""
        copied, gathered = self._roofline.copy(), self._roofline.gather()
        self._x.grad = self._weight.grad = None
        start = time.perf_counter()
        out = F.linear(self._x, self._weight)
        middle = time.perf_counter()
        out.backward(self._rows)
        end = time.perf_counter()
        return {
            "copy": copied,
            "gather": gathered,
            "projection_forward": 1e3 * (middle - start),
            "projection_backward": 1e3 * (end - middle),
        }


def available_memory() -> int:
    """Bytes that programs may still take."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def machine() -> dict[str, Any]:
    """The processor, its cores and memory, the system, and how busy it is at this moment."""
    cpuinfo = Path("/proc/cpuinfo")
    model = (
        re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.M)
        if cpuinfo.exists()
        else None
    )
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": platform.platform(),
        "load": os.getloadavg()[0],
    }
