"""Runs the rows of the GPU benchmark: results are proved right, then timed, then written down."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from cuda_capture import captures_equal
from cuda_cases import SPECS, Case, Spec, make_case, tiny
from cuda_check import Part, edge_budget, judge, judge_peer, take_part, truth
from cuda_clock import Clock, TimeLimitError, Timing, sets_beyond_cache, time_limit
from cuda_layers import LayerCase, judge_layer, make_layer_case
from cuda_operators import SCORES, LeftOutError, Tensors, draw, leaves_of, make
from cuda_plan import Row
from cuda_results import FAILED, LEFT_OUT, REPLAY, WRONG, GraphBuild, Record, Result, write
from cuda_targets import judge_targets
from cuda_traffic import FORWARD, Sizes, traffic

from gat_ext import Graph

# A CUDA graph is for calls so short that their launch counts.
_REPLAYED_EDGES = 1_000_000
_CAPTURED_GRAPH = "pubmed"
_GIB = 2**30


@dataclass(frozen=True)
class Options:
    """What a run was asked for.

    Attributes:
        tiny: replace every graph by one of a hundred nodes.
        seconds: spent on the samples of one figure, about.
        budget: seconds for the whole run; rows beyond it are left out. None for no limit.
        peer_limit: seconds that one figure of a peer may take, compilation included.
    """

    device: str = "cuda"
    tiny: bool = False
    seconds: float = 0.25
    budget: float | None = None
    peer_limit: float = 60.0
    out: Path = Path("runs/cuda")


def first_line(error: BaseException) -> str:
    """An error in one line."""
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text}"[:200]


class DeviceLostError(RuntimeError):
    """An error left the device unusable: nothing after it can be trusted."""


class RowRun:
    """One row on a case: its inputs and truth, shared by all libraries and modes."""

    def __init__(self, row: Row, case: Case, clock: Clock) -> None:
        self.row, self.case, self.clock = row, case, clock
        self.dtype = getattr(torch, row.dtype)
        self._programs: dict[str, Callable[[Tensors], torch.Tensor]] = {}
        # Of one layer: all leaves. Of an operator: those of the set.
        self._parameters: dict[str, Tensors] = {}
        width = row.heads * row.channels * self.dtype.itemsize
        self.feature_bytes = case.spec.num_src * width
        count = sets_beyond_cache(self._set_bytes(width), clock.cache_bytes(), clock.free_bytes())
        self.layer: LayerCase | None = None
        if row.layer:
            self.layer = make_layer_case(row, case, count)
            self.sets = self.layer.sets
            self.want = self.layer.in_float64().results("pyg")
        else:
            self.sets = [self._draw(seed) for seed in range(count)]
            free = clock.free_bytes()
            self.part = take_part(case, edge_budget(row.heads, row.channels, free))
            self.want = truth(row.item, self.sets[0], self.part)

    part: Part

    def _set_bytes(self, width: int) -> int:
        return (self.case.spec.num_src + self.case.spec.num_dst) * width

    def _draw(self, seed: int) -> Tensors:
        return draw(self.row.item, self.case, self.row.heads, self.row.channels, self.dtype, seed)

    def _program(self, library: str) -> Callable[[Tensors], torch.Tensor]:
        if library not in self._programs:
            if self.layer:
                program, parameters = self.layer.program(library)
                self._parameters[library] = dict(parameters)
            else:
                program = make(library, self.row.item, self.case, self.dtype)
            self._programs[library] = program
        return self._programs[library]

    def call(self, library: str, mode: str) -> Callable[[int], object]:
        """The k-th call, on the k-th set of inputs and round again."""
        program = self._program(library)

        def forward(k: int) -> object:
            with torch.no_grad():
                return program(self.sets[k % len(self.sets)])

        def both(k: int) -> object:
            tensors = self.sets[k % len(self.sets)]
            leaves = [*leaves_of(tensors).values(), *self._parameters.get(library, {}).values()]
            return torch.autograd.grad(program(tensors), leaves, tensors["grad_out"])

        return forward if mode == FORWARD else both

    def check(self, library: str, mode: str) -> tuple[dict[str, float], str | None]:
        """Errors by tensor, and what is wrong, if anything."""
        got = self._results(library, mode)
        if self.layer:
            want = {name: self.want[name] for name in got}
            verdict = judge_layer(got, want, self.row.dtype, library)
        else:
            judged = judge if library == "gat_ext" else judge_peer
            verdict = judged(got, self.want, self.part, self.row.dtype)
        return verdict.errors, verdict.problem

    def _results(self, library: str, mode: str) -> Tensors:
        program, tensors = self._program(library), self.sets[0]
        rows, width = self.case.spec.num_dst, self.row.heads * self.row.channels
        sums = torch.float64 if self.dtype == torch.float64 else torch.float32
        leaves = leaves_of(tensors) | self._parameters.get(library, {})
        wanted: list[tuple[tuple[int, ...], torch.dtype]] = [
            ((rows, width), self.dtype),
            ((rows, self.row.heads), sums),
        ]
        if mode != FORWARD:
            wanted += [(tuple(leaf.shape), leaf.dtype) for leaf in leaves.values()]
        self.clock.poison(*wanted)
        if mode == FORWARD:
            with torch.no_grad():
                return {"out": program(tensors)}
        out = program(tensors)
        grads = torch.autograd.grad(out, list(leaves.values()), tensors["grad_out"])
        named = {f"grad {name}": g for name, g in zip(leaves, grads, strict=True)}
        return {"out": out.detach(), **named}


class Session:
    """A run of the benchmark on one device."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.clock = Clock(torch.device(options.device))
        self._start = time.monotonic()
        config = {**asdict(options), "out": str(options.out)}
        self.record = Record(config, self.clock.describe(), self.clock.copy_bandwidth())

    def run(self, rows: list[Row]) -> Record:
        """All rows, graph by graph; what is done so far is written after each."""
        try:
            for graph, group in itertools.groupby(rows, key=lambda row: row.graph):
                self._run_graph(graph, list(group))
                self._write()
        except DeviceLostError as error:
            self.record.lost = f"stopped: the device is unusable after {error}"
        self._write()
        return self.record

    def _write(self) -> None:
        self.record.targets = judge_targets(self.record)
        write(self.record, self.options.out)

    def _left(self) -> float:
        """Seconds of the budget that are left."""
        if self.options.budget is None:
            return float("inf")
        return self.options.budget - (time.monotonic() - self._start)

    def _guard(
        self, body: Callable[[], None], seconds: float, result: Result | None = None
    ) -> tuple[str, str] | None:
        """Runs ``body``; a status and a sentence where it did not get through, told to ``result``.

        Raises:
            DeviceLostError: the device is unusable now; the result is kept.
        """
        problem = self._attempt(body, min(seconds, self._left() + 60))
        if problem and result is not None and result.milliseconds is None:
            result.status, result.note = problem
        if problem and problem[0] == FAILED and not self._is_usable():
            if result is not None:
                self._keep(result)
            raise DeviceLostError(problem[1])
        self.clock.release(cycles=problem is not None)
        return problem

    def _attempt(self, body: Callable[[], None], seconds: float) -> tuple[str, str] | None:
        try:
            with time_limit(seconds):
                body()
                self.clock.synchronize()
        except (LeftOutError, TimeLimitError) as error:
            return LEFT_OUT, str(error)
        except ImportError as error:
            return LEFT_OUT, first_line(error)
        except torch.OutOfMemoryError:
            return LEFT_OUT, "out of memory"
        except Exception as error:  # a peer, a compiler or a kernel may raise anything
            return FAILED, first_line(error)
        return None

    def _is_usable(self) -> bool:
        try:
            return torch.ones(2, device=self.clock.device).sum().item() == 2
        except RuntimeError:
            return False

    # ---- a graph

    def _run_graph(self, name: str, rows: list[Row]) -> None:
        spec = tiny(SPECS[name]) if self.options.tiny else SPECS[name]
        if self._left() <= 0:
            return self._leave_out(rows, "no time left")
        self.clock.release(cycles=True)
        if spec.build_bytes > 0.8 * self.clock.free_bytes():
            needed, free = spec.build_bytes / _GIB, self.clock.free_bytes() / _GIB
            return self._leave_out(rows, f"needs {needed:.0f} GiB to build, {free:.0f} are free")
        made: list[Case] = []
        problem = self._guard(lambda: made.append(make_case(spec, self.clock.device)), 120)
        if problem:
            return self._leave_out(rows, problem[1], problem[0])
        case = made.pop()
        if not any(build.graph == name for build in self.record.builds):
            problem = self._guard(functools.partial(self._time_builds, spec, case), 120)
            if problem:
                self.record.notes.append(f"building {name} was not timed: {problem[1]}")
        for row in rows:
            self._run_row(row, case)
        if name == _CAPTURED_GRAPH and not self.record.captures:
            scores = [score for score in SCORES if any(row.item == score for row in rows)]
            for score, dtype in itertools.product(scores, ("float32", "bfloat16")):
                self.record.captures.append(captures_equal(self.clock, case, name, score, dtype))
        return None

    def _leave_out(self, rows: list[Row], note: str, status: str = LEFT_OUT) -> None:
        for row in rows:
            for mode in row.modes:
                self._keep(Result(row, mode, "gat_ext", status, note))

    def _time_builds(self, spec: Spec, case: Case) -> None:
        """Medians of three, after one to warm up."""
        order = torch.randperm(spec.num_edges, device=self.clock.device)
        shuffled = case.edge_index[:, order]
        del order
        sizes = {"num_src": spec.num_src, "num_dst": spec.num_dst}
        times: dict[str, list[float]] = {"sorted": [], "shuffled": [], "transpose": []}
        for _ in range(4):
            for kind, edges in (("shuffled", shuffled), ("sorted", case.edge_index)):
                build = functools.partial(Graph, edges, **sizes)
                times[kind].append(self.clock.wall(build))
            graph = build()
            times["transpose"].append(self.clock.wall(graph.transpose))
        medians = {kind: sorted(values[1:])[1] for kind, values in times.items()}
        self.record.builds.append(
            GraphBuild(
                spec.name,
                spec.num_dst,
                spec.num_edges,
                from_sorted=medians["sorted"],
                from_shuffled=medians["shuffled"],
                transpose=medians["transpose"],
            )
        )

    # ---- a row

    def _run_row(self, row: Row, case: Case) -> None:
        if self._left() <= 0:
            return self._leave_out([row], "no time left")
        made: list[RowRun] = []
        problem = self._guard(lambda: made.append(RowRun(row, case, self.clock)), 120)
        if problem:
            return self._leave_out([row], f"inputs or truth: {problem[1]}", problem[0])
        run = made.pop()
        for mode in row.modes:
            ours = self._measure(run, mode, "gat_ext")
            if ours.milliseconds is not None and self._is_replayed(case):
                self._measure_replay(run, ours)
            for peer in row.peers:
                if self._left() <= 0:
                    self._keep(Result(row, mode, peer, LEFT_OUT, "no time left"))
                else:
                    self._measure(run, mode, peer, ours.milliseconds)
        return None

    def _is_replayed(self, case: Case) -> bool:
        return self.clock.on_gpu and case.spec.num_edges <= _REPLAYED_EDGES

    def _measure(self, run: RowRun, mode: str, library: str, ours: float | None = None) -> Result:
        result = self._blank(run, mode, library)

        def body() -> None:
            result.errors, wrong = run.check(library, mode)
            if wrong:
                result.status, result.note = WRONG, wrong
                return
            call = run.call(library, mode)
            self._fill(run, result, self.clock.time(call, self.options.seconds))
            result.added_bytes = self.clock.peak_added(call)

        limit = 300.0 if library == "gat_ext" else self.options.peer_limit
        self._guard(body, limit, result)
        if ours is not None and result.milliseconds is not None:
            result.ratio = result.milliseconds / ours
        return self._keep(result)

    def _measure_replay(self, run: RowRun, ours: Result) -> None:
        result = replace(self._blank(run, ours.mode, REPLAY), errors=ours.errors, added_bytes=None)

        def body() -> None:
            call = run.call("gat_ext", ours.mode)
            timing = self.clock.time_replay(call, len(run.sets), self.options.seconds)
            self._fill(run, result, timing)

        self._guard(body, 60, result)
        if result.milliseconds is not None and ours.milliseconds is not None:
            result.ratio = result.milliseconds / ours.milliseconds
        self._keep(result)

    def _blank(self, run: RowRun, mode: str, library: str) -> Result:
        row, case = run.row, run.case
        result = Result(row, mode, library, edges=case.spec.num_edges)
        result.feature_bytes, result.input_sets = run.feature_bytes, len(run.sets)
        if not row.layer:
            sizes = Sizes(
                edges=case.spec.num_edges,
                sources=case.touched_sources,
                destinations=case.spec.num_dst,
                heads=row.heads,
                channels=row.channels,
                itemsize=run.dtype.itemsize,
                index_bytes=case.graph.index_dtype.itemsize,
            )
            moved = traffic(row.item, mode, sizes)
            result.gathered_bytes, result.unique_bytes = moved.gathered, moved.unique
        return result

    def _fill(self, run: RowRun, result: Result, timing: Timing) -> None:
        result.milliseconds, result.low, result.high = timing.median, timing.low, timing.high
        result.samples = timing.samples
        if result.gathered_bytes:
            result.gbs = result.gathered_bytes / timing.median / 1e6
            result.share = result.gbs / self.record.copy_gbs

    def _keep(self, result: Result) -> Result:
        self.record.results.append(result)
        figure = (
            f"{result.status}: {result.note}"
            if result.milliseconds is None
            else f"{result.milliseconds:.4f} ms"
        )
        print(f"{result.row.label}, {result.mode}: {result.title} {figure}", flush=True)
        return result
