"""Measures points: compares results, times in interleaved rounds, then measures memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import check
import torch
from cases import DATASETS, SIZES, Case, Setting, make_case
from limits import Limits, Sizes, bytes_moved
from peers import BASE, PEERS, Item, PeerError, Remote
from report import FAILED, LEFT_OUT, WRONG, Row
from timing import interleave, ratio
from worker import Worker, available_memory, sentence

_DENSE_NODES = 2000  # largest graph with dense torch as reference


@dataclass(frozen=True)
class Options:
    """Options of a measurement.

    Attributes:
        pythons: interpreters of peers in other environments.
        rounds: number of rounds; each visits every point.
        min_seconds: time for which a point repeats its step in each round.
        timeout: seconds to wait for an answer of a peer in another process.
        dense_limit: largest number of bytes for dense N×N attention.
        memory: True to measure peak memory.
    """

    setting: Setting
    peers: tuple[str, ...]
    pythons: Mapping[str, str]
    rounds: int = 5
    min_seconds: float = 0.2
    timeout: float = 1800.0
    dense_limit: int = 2**31
    memory: bool = True


@dataclass(frozen=True)
class Point:
    """One peer on one item in one setting.

    Attributes:
        bench: the file of the benchmark.
        seldom: a large point, measured in two rounds of one step each.
    """

    label: str
    bench: Path
    name: str
    item: Item
    peer: str
    setting: Setting
    seldom: bool = False


class LeftOutError(Exception):
    """A point cannot be measured here, without being a failure; the message says why."""


class Session:
    """The available peers and the options of their measurement."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.versions: dict[str, dict[str, str]] = {}
        self.missing: dict[str, str] = {}
        for peer in options.peers:
            try:
                self.versions[peer] = self._probe(peer)
            except (PeerError, ImportError) as error:
                self.missing[peer] = sentence(error)

    def _probe(self, peer: str) -> dict[str, str]:
        if PEERS[peer].needs_gpu and self.options.setting.device == "cpu":
            raise PeerError("it needs --device cuda")
        if peer not in self.options.pythons:
            return Worker().probe(peer)
        with self.remote(peer) as remote:
            return remote.ask("probe", peer=peer)

    def remote(self, peer: str) -> Remote:
        """A worker in another process."""
        options = self.options
        threads = options.setting.threads or torch.get_num_threads()
        return Remote(options.pythons.get(peer, sys.executable), threads, options.timeout)

    def _worker(self, peer: str) -> Worker | Remote:
        """In another process if it has its own interpreter, or is compiled (shared state)."""
        apart = peer in self.options.pythons or PEERS[peer].way == "compiled"
        return self.remote(peer) if apart else Worker()

    def compare(self, bench: Path, name: str, item: Item) -> list[Row]:
        """Measures every peer on one item."""
        setting = self.options.setting
        points = [
            Point(PEERS[peer].title, bench, name, item, peer, setting)
            for peer in self.options.peers
        ]
        return self.measure(points, PEERS[BASE].title)

    def measure(self, points: Sequence[Point], base: str, *, apart: bool = False) -> list[Row]:
        """A row for each point, with ratios relative to the point with label ``base``.

        Args:
            points: points with distinct labels.
            base: a label.
            apart: measure one point after the other, if they do not fit into memory together;
                ratios are then those of medians.
        """
        rows: list[Row] = []
        for group in [[point] for point in points] if apart else [list(points)]:
            rows += self._measure_group(group)
        first = next((row for row in rows if row.label == base and row.timed), None)
        for row in rows:
            if first is not None and row.timed:
                edges = first.edges / row.edges
                for part in ("forward", "backward", "total"):
                    own, other = row.samples[part], first.samples[part]
                    if apart:
                        own, other = [row.median(part)], [first.median(part)]
                    if len(own) == len(other) and other[0] > 0:
                        row.ratio[part] = edges * ratio(own, other)
        return rows

    def _measure_group(self, points: list[Point]) -> list[Row]:
        rows = {point.label: _row(point) for point in points}
        workers: dict[str, Worker | Remote] = {}
        steps: dict[str, Callable[[], dict[str, float]]] = {}
        limits: dict[Setting, Limits] = {}
        try:
            for point in points:
                row = rows[point.label]
                workers[point.label] = worker = Worker()
                try:
                    self._refuse(point)
                    workers[point.label] = worker = self._worker(point.peer)
                    case = self.prove(point, row, worker)
                    if point.setting not in limits:
                        limits[point.setting] = Limits(case, point.item.projections)
                    step = self._step(point, worker, limits[point.setting])
                    step()
                    steps[point.label] = step
                except Exception as error:  # a library may raise anything
                    _stop(row, error)
                    worker.close()
            rounds = 2 if any(point.seldom for point in points) else self.options.rounds
            self._say(f"{points[0].name}: {rounds} rounds of {', '.join(steps) or 'nothing'}")
            samples, failed = interleave(steps, rounds)
            for label, found in samples.items():
                rows[label].samples = found
            for label, error in failed.items():
                _stop(rows[label], error)
        finally:
            if points[0].setting.device == "cpu":
                for worker in workers.values():
                    worker.close()
        if self.options.memory:
            for point in points:
                if rows[point.label].timed:
                    self._memory(point, rows[point.label], workers[point.label])
        for worker in workers.values():
            worker.close()
        gc.collect()
        return list(rows.values())

    def _step(
        self, point: Point, worker: Worker | Remote, limits: Limits
    ) -> Callable[[], dict[str, float]]:
        seconds = 0.0 if point.seldom else self.options.min_seconds

        def step() -> dict[str, float]:
            times = worker.sample(seconds)
            if point.setting.threads:
                torch.set_num_threads(point.setting.threads)
            return {**times, **limits.sample()}

        return step

    def _refuse(self, point: Point) -> None:
        if point.peer in self.missing:
            raise LeftOutError(self.missing[point.peer])
        if PEERS[point.peer].family not in point.item.build:
            raise LeftOutError("it has no form of this item")

    # ---- comparison

    def prove(self, point: Point, row: Row, worker: Worker | Remote) -> Case:
        """Compares the results, then prepares the worker for the timed case.

        Raises:
            WrongResultError: results differ.
            LeftOutError: there is nothing to compare with, or the case is too large.
        """
        self._say(f"{point.name}: comparing {point.label}")
        peer, item, setting = PEERS[point.peer], point.item, point.setting
        small, proved = check.small_setting(setting), False
        # Compiling twice takes minutes, and a part of the timed case suffices for a single layer.
        if small is not None and not (peer.way == "compiled" and item.local):
            case = item.case(small)
            whole = check.Part(case, {}, {}, whole=True)
            self._compare(point, row, worker, case, whole)
            proved = True
        nodes = _nodes(setting)
        if peer.family == "dense" and item.dense_bytes(setting, nodes) > self.options.dense_limit:
            needed, limit = item.dense_bytes(setting, nodes), self.options.dense_limit
            raise LeftOutError(
                f"N×N scores of {nodes:,} nodes need about {needed / 2**30:,.1f} GiB, the limit is "
                f"{limit / 2**30:g} GiB; compared on a small graph instead"
            )
        case = item.case(setting)
        part = check.take_part(case, item)
        if part is not None:
            self._compare(point, row, worker, case, part)
        elif not proved:
            raise LeftOutError("nothing to compare its results with")
        case.dropout = _dropout(point)
        row.nodes, row.edges = case.num_nodes, case.num_edges
        if item.score is not None:
            row.moved = bytes_moved(item.score, item.gathers, Sizes.of(case))
        worker.prepare(point.peer, point.bench, point.name, case)
        return case

    def _reference(self, point: Point, nodes: int) -> str:
        for name in ("pyg", BASE, "dense"):
            other = PEERS[name].family != PEERS[point.peer].family
            fits = name != "dense" or nodes <= _DENSE_NODES
            if other and fits and PEERS[name].family in point.item.build:
                try:
                    Worker().probe(name)
                    return name
                except ImportError:
                    continue
        raise LeftOutError("no other library is installed to compare its results with")

    def _compare(
        self, point: Point, row: Row, worker: Worker | Remote, case: Case, part: check.Part
    ) -> None:
        """Compares a peer's results on a case with another library's in float64 on a part."""
        reference = self._reference(point, part.case.num_nodes)
        truth = Worker()
        where = (point.bench, point.name)
        own = worker.prepare(point.peer, *where, case)
        every = truth.prepare(reference, *where, part.case)
        if sorted(own) != sorted(every):
            names = [name for group in every for name in group]
            case = replace(case, tensors=check.restrict(case.tensors, own, names))
            part.case.tensors = check.restrict(part.case.tensors, own, names)
            worker.prepare(point.peer, *where, case)
            truth.prepare(reference, *where, part.case)
        errors = check.compare(worker.result(), truth.result(), part, point.item)
        worst = max(errors.values())
        # Overwritten by the timed case, which is compared last.
        row.errors, row.reference = errors, PEERS[reference].title
        if not worst <= check.tolerance(case.setting.dtype, point.peer):
            row.note = f"N = {case.num_nodes:,}"
        check.refuse_unequal(errors, case.setting.dtype, point.peer, row.reference)

    # ---- memory

    def _memory(self, point: Point, row: Row, worker: Worker | Remote) -> None:
        """Measures the peak of one step; on the CPU in a new process, without earlier peaks."""
        self._say(f"{point.name}: peak memory of {point.label}")
        try:
            if point.setting.device != "cpu":
                row.memory = worker.memory()
                return
            case = point.item.case(point.setting)
            case.dropout = _dropout(point)
            with self.remote(point.peer) as remote:
                remote.prepare(point.peer, point.bench, point.name, case)
                del case
                row.memory = remote.memory()
        except Exception as error:
            row.note = f"peak memory not measured: {sentence(error)}"

    def _say(self, text: str) -> None:
        print(f"  {text} ...", file=sys.stderr, flush=True)


def _dropout(point: Point) -> float:
    asked = point.setting.dropout
    return point.item.dropout if asked is None else asked


def _nodes(setting: Setting) -> int:
    if setting.graph in DATASETS:
        return make_case(setting).num_nodes
    return SIZES[setting.graph][0] if setting.graph in SIZES else setting.nodes


def _row(point: Point) -> Row:
    item = point.item
    return Row(
        bench=point.bench.stem.removeprefix("bench_"),
        item=point.name,
        title=item.title,
        label=point.label,
        peer=point.peer,
        setting=asdict(point.setting),
        gathers=item.gathers,
        projections=item.projections,
        note=item.notes.get(PEERS[point.peer].family, ""),
    )


def _stop(row: Row, error: Exception) -> None:
    """Records in the row why it has no figures."""
    row.samples = {}
    where = f" ({row.note})" if row.note.startswith("N = ") else ""
    if isinstance(error, check.WrongResultError):
        row.status, row.note = WRONG, f"{error}{where}"
    elif isinstance(error, (LeftOutError, ImportError)):
        row.status, row.note = LEFT_OUT, str(error)
    elif _is_shortage(error):
        free = available_memory() / 2**30
        row.status, row.note = LEFT_OUT, f"not enough memory; {free:.0f} GiB are free"
    else:
        row.status, row.note = FAILED, sentence(error)


def _is_shortage(error: Exception) -> bool:
    text = str(error).lower()
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "allocate memory" in text or "enough memory" in text
