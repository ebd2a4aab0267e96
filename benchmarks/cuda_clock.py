"""Time and memory on a device: CUDA events on a GPU, the host's clock on the CPU.

Calls are numbered, so that a caller can rotate over sets of inputs; see :func:`sets_beyond_cache`.
"""

from __future__ import annotations

import gc
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch

Call = Callable[[int], object]

# A sample lasts at least so long, beside which the resolution of an event is nothing.
_SHORTEST_SAMPLE = 1e-3
_WARM_UP = 0.02
_MOST_SAMPLES, _MOST_SETS = 200, 64
_USUAL_CACHE = 64 * 2**20  # where torch does not tell
_COPY_BYTES = {"cuda": 2**31, "cpu": 2**24}


class TimeLimitError(Exception):
    """Something took longer than it may."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeLimitError in the main thread once ``seconds`` are over."""

    def stop(*_: object) -> None:
        raise TimeLimitError(f"more than {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call: median, and the tenth and ninetieth percentile of the samples."""

    median: float
    low: float
    high: float
    samples: int
    calls_per_sample: int

    @staticmethod
    def of(milliseconds: list[float], calls: int) -> Timing:
        ordered = sorted(milliseconds)
        tenth = len(ordered) // 10
        median = statistics.median(ordered)
        return Timing(median, ordered[tenth], ordered[-1 - tenth], len(ordered), calls)


class Clock:
    """Times calls on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on_gpu = device.type == "cuda"

    # ---- time

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def wall(self, call: Callable[[], object]) -> float:
        """Milliseconds until the device is done, the host's work included."""
        self.synchronize()
        start = time.perf_counter()
        call()
        self.synchronize()
        return 1e3 * (time.perf_counter() - start)

    def time(self, call: Call, seconds: float) -> Timing:
        """Repeats ``call(0), call(1), ...`` for about ``seconds``; at least three samples.

        The calls follow one another without waiting for the device, so that a sample has the
        device's time where that is longer than the host's, and else the host's.
        """
        self._warm_up(call)
        one = self._samples(call, calls=3, count=1)[0] / 1e3
        calls = max(1, math.ceil(_SHORTEST_SAMPLE / max(one, 1e-7)))
        count = int(seconds / max(one * calls, 1e-7))
        samples = self._samples(call, calls, min(max(count, 3), _MOST_SAMPLES))
        return Timing.of(samples, calls)

    def _warm_up(self, call: Call) -> None:
        spent, k = 0.0, 0
        while k < 2 or (spent < _WARM_UP and k < 50):
            spent += self.wall(partial(call, k)) / 1e3
            k += 1

    def _samples(self, call: Call, calls: int, count: int) -> list[float]:
        """Milliseconds a call of each sample."""
        marks, k = [self._mark()], 0
        for _ in range(count):
            for _ in range(calls):
                call(k)
                k += 1
            marks.append(self._mark())
        self.synchronize()
        return [self._between(start, end) / calls for start, end in pairwise(marks)]

    def _mark(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, start: Any, end: Any) -> float:
        milliseconds = float(start.elapsed_time(end) if self.on_gpu else 1e3 * (end - start))
        return max(milliseconds, 1e-6)

    # ---- CUDA graphs

    def capture(self, body: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
        """A CUDA graph of ``body``, which has run once before, and what the captured run returned."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            body()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = body()
        return graph, result

    def time_replay(self, call: Call, sets: int, seconds: float) -> Timing:
        """Time of a call inside a CUDA graph that has one call for each set of inputs."""

        def every_set() -> None:
            for k in range(sets):
                call(k)

        graph, _ = self.capture(every_set)
        timing = self.time(lambda _: graph.replay(), seconds)
        median, low, high = (ms / sets for ms in (timing.median, timing.low, timing.high))
        return Timing(median, low, high, timing.samples, timing.calls_per_sample * sets)

    # ---- memory

    def peak_added(self, call: Call) -> int | None:
        """Bytes that one call adds at its peak to what is allocated; None on the CPU."""
        if not self.on_gpu:
            return None
        self.synchronize()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call(0)
        self.synchronize()
        return torch.cuda.max_memory_allocated(self.device) - before

    def release(self, *, cycles: bool = False) -> None:
        """Gives freed memory back, so that no peer works in what another left.

        Exceptions and compiled code leave ``cycles``, whose collection takes a tenth of a second.
        """
        if cycles:
            gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def free_bytes(self) -> int:
        """Free memory of the device; on the CPU a constant that tiny graphs stay below."""
        return torch.cuda.mem_get_info(self.device)[0] if self.on_gpu else 2**31

    def poison(self, *shapes: tuple[tuple[int, ...], torch.dtype]) -> None:
        """Leaves NaN in the memory that results of these shapes are going to get.

        The allocator hands out the block that was freed last and fits.
        """
        self.release()
        blocks = [
            torch.full(shape, math.nan, dtype=dtype, device=self.device) for shape, dtype in shapes
        ]
        del blocks

    # ---- the device

    def describe(self) -> dict[str, Any]:
        """Name, memory and cache of the device, and the software."""
        about: dict[str, Any] = {"torch": torch.__version__, "device": str(self.device)}
        if self.on_gpu:
            properties = torch.cuda.get_device_properties(self.device)
            about |= {
                "name": properties.name,
                "memory": properties.total_memory,
                "multiprocessors": properties.multi_processor_count,
                "cuda": torch.version.cuda,
            }
        return about | {"l2": self.cache_bytes()}

    def cache_bytes(self) -> int:
        """Size of the L2 cache; 0 on the CPU, where nothing is to be concluded from times."""
        if not self.on_gpu:
            return 0
        properties = torch.cuda.get_device_properties(self.device)
        return int(getattr(properties, "L2_cache_size", _USUAL_CACHE))

    def copy_bandwidth(self) -> float:
        """GB/s of one large copy on the device, bytes read plus bytes written."""
        words = _COPY_BYTES[self.device.type] // 8
        source = torch.randint(2**62, (words,), device=self.device)
        target = torch.empty_like(source)
        timing = self.time(lambda _: target.copy_(source), seconds=0.05)
        return 2 * source.nbytes / timing.median / 1e6


def sets_beyond_cache(bytes_per_set: int, cache: int, free: int) -> int:
    """How many sets of inputs to rotate over, so that none is in the cache when its turn comes.

    Three caches' worth, in a fourth of the free memory at most; two sets at least, save where one
    alone is that large.
    """
    if bytes_per_set >= 3 * cache > 0:
        return 1
    wanted = max(2, math.ceil(3 * cache / max(bytes_per_set, 1)))
    return max(1, min(wanted, _MOST_SETS, free // 4 // max(bytes_per_set, 1)))
