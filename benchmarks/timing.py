"""Time and memory of one step of a program, on the CPU or a GPU, and interleaved rounds."""

from __future__ import annotations

import ctypes
import functools
import gc
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PARTS = ("forward", "backward", "update")
_STATUS = Path("/proc/self/status")
# Written before each timed step on a GPU; larger than any L2 cache, so that no input stays in it.
_FLUSH_BYTES = 2**28

Samples = dict[str, list[float]]


@dataclass
class Program:
    """A peer's program: ``function(*args)``.

    Attributes:
        leaves: the tensors whose gradients are computed and compared, by name. A key of several
            names is a tensor of tied weights, whose gradient is the sum of theirs.
        update: the optimizer's step, if the item has one.
        replays: CUDA graphs of the forward pass, and of forward and backward, which are timed in
            place of ``function``.
    """

    function: Callable[..., Tensor]
    args: tuple[Any, ...]
    leaves: dict[tuple[str, ...], Tensor]
    update: Callable[[], object] | None = None
    replays: tuple[torch.cuda.CUDAGraph, torch.cuda.CUDAGraph] | None = None

    @property
    def device(self) -> torch.device:
        return next(iter(self.leaves.values())).device

    def clear(self) -> None:
        """Drops the gradients."""
        for leaf in self.leaves.values():
            leaf.grad = None


def run(program: Program, grad_out: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The result and the gradient of each leaf for one step, without update."""
    program.clear()
    out = program.function(*program.args)
    out.backward(grad_out)
    grads = {"+".join(names): leaf.grad for names, leaf in program.leaves.items()}
    assert all(grad is not None for grad in grads.values())
    return out.detach(), grads  # type: ignore[return-value]


# ---- time


class _Marks:
    """Points in time: host clock on the CPU, events (without synchronisation) on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[list[Any]] = []

    def start(self) -> None:
        if self._on_gpu:
            _flush_buffer().zero_()
        self._marks.append([])
        self.mark()

    def mark(self) -> None:
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks[-1].append(event)
        else:
            self._marks[-1].append(time.perf_counter())

    def milliseconds(self) -> list[list[float]]:
        """Milliseconds between successive marks, for each start."""
        if self._on_gpu:
            torch.cuda.synchronize()
        return [[self._between(a, b) for a, b in pairwise(marks)] for marks in self._marks]

    def _between(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end)) if self._on_gpu else 1e3 * (end - start)


@functools.cache
def _flush_buffer() -> Tensor:
    return torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda")


def elapsed(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call."""
    marks = _Marks(device)
    marks.start()
    call()
    marks.mark()
    return marks.milliseconds()[0][0]


def _step(program: Program, grad_out: Tensor, marks: _Marks) -> None:
    program.clear()
    marks.start()
    out = program.function(*program.args)
    marks.mark()
    out.backward(grad_out)
    marks.mark()
    if program.update is not None:
        program.update()
    marks.mark()


def sample(program: Program, grad_out: Tensor, min_seconds: float) -> dict[str, float]:
    """Milliseconds of forward, backward, update and total: medians over at least one step.

    ``mean`` is the mean of the total.

    On a GPU steps are issued without synchronisation, so short steps take the host's time of their
    launches; a program with ``replays`` takes the device's time.
    """
    marks, start, count = _Marks(program.device), time.perf_counter(), 0
    while count == 0 or (time.perf_counter() - start < min_seconds and count < 10_000):
        if program.replays:
            for graph in program.replays:
                marks.start()
                graph.replay()
                marks.mark()
        else:
            _step(program, grad_out, marks)
        count += 1
    found = marks.milliseconds()
    program.clear()
    if program.replays:
        forward, total = (statistics.median(ms for (ms,) in found[i::2]) for i in (0, 1))
        mean = statistics.fmean(ms for (ms,) in found[1::2])
        times = {"forward": forward, "backward": total - forward, "update": 0.0}
        return {**times, "total": total, "mean": mean}
    times = {part: statistics.median(ms[i] for ms in found) for i, part in enumerate(PARTS)}
    totals = [sum(ms) for ms in found]
    return {**times, "total": statistics.median(totals), "mean": statistics.fmean(totals)}


def capture(program: Program, grad_out: Tensor) -> None:
    """Replaces the program by CUDA graphs of its forward pass, and of forward and backward."""
    leaves = list(program.leaves.values())

    def forward() -> Tensor:
        with torch.no_grad():
            return program.function(*program.args)

    def both() -> tuple[Tensor, tuple[Tensor, ...]]:
        out = program.function(*program.args)
        return out.detach(), torch.autograd.grad(out, leaves, grad_out)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        forward()
        both()
    torch.cuda.current_stream().wait_stream(side)
    graphs = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graphs[0]):
        forward()
    with torch.cuda.graph(graphs[1]):
        results = both()
    program.function = functools.partial(_Replay.apply, graphs[1].replay, *results)
    program.args, program.replays = tuple(leaves), graphs


class _Replay(torch.autograd.Function):
    """The results of a replay as a differentiable function of the leaves."""

    @staticmethod
    def forward(ctx, replay, out, grads, *leaves):  # type: ignore[no-untyped-def]
        replay()
        ctx.grads = grads
        return out.clone()

    @staticmethod
    def backward(ctx, grad_out):  # type: ignore[no-untyped-def]
        return None, None, None, *(grad.clone() for grad in ctx.grads)


def interleave(
    steps: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int
) -> tuple[dict[str, Samples], dict[str, Exception]]:
    """The figures of every step by name, one per round, and the errors of failed steps.

    Each round visits every step, starting from another one, so that the i-th figures of all steps
    are close in time.
    """
    samples: dict[str, Samples] = {name: {} for name in steps}
    failed: dict[str, Exception] = {}
    names = list(steps)
    for turn in range(rounds):
        first = turn % max(len(names), 1)
        for name in names[first:] + names[:first]:
            try:
                figures = steps[name]()
            except Exception as error:  # a library may raise anything
                failed[name] = error
                samples[name] = {}
                names.remove(name)
                continue
            for part, value in figures.items():
                samples[name].setdefault(part, []).append(value)
    return samples, failed


def ratio(own: list[float], base: list[float]) -> float:
    """Median over rounds of the ratio of two times of the same round."""
    return statistics.median(a / b for a, b in zip(own, base, strict=True))


# ---- memory


def memory_status(key: str) -> int:
    """Bytes of a line of /proc/self/status; getrusage would mix in the parent's peak."""
    found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} has no line {key}")
    return int(found[1]) * 1024


def reset_peak() -> bool:
    """Resets VmHWM to VmRSS; False if the system does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def trim() -> None:
    """Returns freed memory to the system, so that it does not count as resident."""
    gc.collect()
    if "gat_ext._C" in sys.modules:  # it caches memory blocks
        sys.modules["gat_ext._C"].empty_cache()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # not glibc
        return


def peak_memory(program: Program, grad_out: Tensor) -> dict[str, int]:
    """Peak bytes of one step, after one as warm-up.

    ``peak`` is the largest resident set of the process, which should do nothing else, or on a GPU
    the largest memory allocated by torch. ``increase`` is its difference from the level before the
    step, ``kept`` the size of the result and the gradients, which remain after the step.
    """
    on_gpu = program.device.type == "cuda"
    run(program, grad_out)
    program.clear()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        trim()
        reset_peak()
        before = memory_status("VmRSS")
    out = program.function(*program.args)
    out.backward(grad_out)
    if program.update is not None:
        program.update()
    peak = torch.cuda.max_memory_allocated() if on_gpu else memory_status("VmHWM")
    kept = [out, *(leaf.grad for leaf in program.leaves.values() if leaf.grad is not None)]
    return {"peak": peak, "increase": peak - before, "kept": sum(t.nbytes for t in kept)}
