"""Runs the sweeps: each in a process of its own, whose points are timed in interleaved rounds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any

import sweep_epoch
import sweep_worker
from measure import available_memory
from sweep_graphs import LeftOutError
from sweep_plan import Epoch, Point, Sweep
from sweep_results import Record, Row, epoch_lines, memory_table, sweep_table
from worker import sentence

_DATA = 0.9  # share of the free memory that a process may take
_SLOW = 2000.0  # milliseconds of a step above which its first one counts: it is all warming up
_MOST_ROUNDS = 9


class PointError(Exception):
    """A point could not be measured.

    Attributes:
        status: "wrong", "left out" or "failed"; the message says why.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Process:
    """A process that measures. Use as a context manager: leaving it ends the process."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(
            1,
            mp_context=get_context("spawn"),
            initializer=sweep_worker.limit_memory,
            initargs=(int(_DATA * available_memory()),),
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """What the function returns there.

        Raises:
            PointError: it failed, or the process ended.
        """
        try:
            return self._pool.submit(function, *args).result()
        except BrokenProcessPool:
            raise PointError("failed", "its process ended; the system may lack memory") from None
        except LeftOutError as error:
            raise PointError("left out", str(error)) from None
        except sweep_worker.WrongResultError as error:
            raise PointError("wrong", str(error)) from None
        except Exception as error:
            raise PointError(*_blame(error)) from None


def _blame(error: Exception) -> tuple[str, str]:
    text = str(error).lower()
    if isinstance(error, MemoryError) or "allocate memory" in text or "not enough memory" in text:
        return "left out", "this machine has not enough memory free"
    return "failed", sentence(error)


@dataclass
class Session:
    """A run of sweeps.

    Attributes:
        record: what was measured so far.
        out: folder of results.json, written after each group of points.
        min_seconds: an operator repeats its step for so long in each round.
    """

    record: Record
    out: Path
    min_seconds: float
    started: float = field(default_factory=time.perf_counter)

    def sweep(self, sweep: Sweep) -> None:
        """Measures a sweep and prints its table."""
        labels = list(sweep.points)
        groups = [[label] for label in labels] if sweep.apart else [labels]
        rows = []
        for group in groups:
            self._say(f"{sweep.name}: {', '.join(group)}")
            rows += self._group(sweep, group)
            self._write()
        print(f"\n{sweep_table(sweep.title, rows)}", flush=True)

    def _group(self, sweep: Sweep, labels: list[str]) -> list[Row]:
        rows = {
            label: [Row(sweep.name, label, point, operator) for operator in point.operators]
            for label, point in sweep.points.items()
            if label in labels
        }
        self.record.rows += [row for some in rows.values() for row in some]
        with Process() as process:
            ready = [label for label in labels if _prepare(process, label, rows[label])]
            start = time.perf_counter()
            for turn in range(_MOST_ROUNDS):
                done = min((rows[label][0].rounds for label in ready), default=sweep.least)
                if done >= sweep.least and time.perf_counter() - start > sweep.seconds:
                    break
                first = turn % len(ready) if ready else 0
                for label in ready[first:] + ready[:first]:
                    if not _measure(process, label, rows[label], self.min_seconds):
                        ready.remove(label)
        return [row for some in rows.values() for row in some]

    def memory(self, point: Point) -> None:
        """Peak memory of a step of each operator beyond inputs, output and gradients."""
        for name in point.operators:
            self._say(f"memory: {name}")
            try:
                with Process() as process:
                    found = process.call(sweep_worker.peak, point, name)
            except PointError as error:
                self.record.memory[name] = {"status": error.status, "note": str(error)}
                continue
            extra = max(found["increase"] - found["kept"], 0)
            note = "" if found["warmed"] else "with what the first step alone takes"
            unit = point.graph.edges * point.heads * 4
            self.record.memory[name] = {
                **found, "status": "ok", "note": note, "extra": extra, "ratio": extra / unit
            }  # fmt: skip
        self._write()
        print(f"\n{memory_table(self.record.memory)}", flush=True)

    def epoch(self, epoch: Epoch) -> None:
        """Time and peak memory of training on a large graph."""
        self._say(f"epoch: {epoch.graph.edges:,} edges")
        try:
            _refuse_large(epoch.bytes_needed)
            with Process() as process:
                self.record.epoch = {"status": "ok", **process.call(sweep_epoch.train, epoch)}
        except PointError as error:
            self.record.epoch = {"status": error.status, "note": str(error)}
        self._write()
        print(f"\n{epoch_lines(self.record.epoch)}", flush=True)

    def _write(self) -> None:
        self.record.write(self.out / "results.json")

    def _say(self, text: str) -> None:
        elapsed = time.perf_counter() - self.started
        print(f"  {elapsed:4.0f} s  {text} ...", file=sys.stderr, flush=True)


def _refuse_large(needed: int) -> None:
    free = available_memory()
    if needed > _DATA * free:
        raise PointError(
            "left out", f"needs about {needed / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB are free"
        )


def _stop(rows: list[Row], error: PointError) -> bool:
    for row in rows:
        row.status, row.note = error.status, str(error)
    return False


def _prepare(process: Process, label: str, rows: list[Row]) -> bool:
    """Whether a point is ready; where its steps are slow, the first already counts."""
    try:
        _refuse_large(rows[0].point.bytes_needed)
        found = process.call(sweep_worker.prepare, label, rows[0].point)
    except PointError as error:
        return _stop(rows, error)
    for row in rows:
        row.graph, row.error = found["graph"], found["errors"][row.operator]
        if all(times["total"][0] > _SLOW for times in found["first"].values()):
            row.add(found["copy"], found["first"][row.operator])
    return True


def _measure(process: Process, label: str, rows: list[Row], min_seconds: float) -> bool:
    try:
        copy, times = process.call(sweep_worker.measure, label, min_seconds)
    except PointError as error:
        return _stop(rows, error)
    for row in rows:
        row.add(copy, times[row.operator])
    return True
