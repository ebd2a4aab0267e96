"""What the sweeps are to reach, and whether a run did."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from sweep_plan import ATTENTIONS
from sweep_results import Record, Row, markdown

MET, MISSED, NOT_MEASURED, NO_BOUND = "met", "missed", "not measured", "no bound"


@dataclass(frozen=True)
class Verdict:
    """A target with what a run found."""

    name: str
    wanted: str
    verdict: str
    found: dict[str, float]


@dataclass(frozen=True)
class Target:
    """One line. ``found`` is by operator; a bound None asks for the figure only.

    Attributes:
        least: whether the bound is a lower one.
        judged: which operators the verdict is about; None: all.
    """

    name: str
    measure: Callable[[Record], dict[str, float]]
    bound: float | None = None
    least: bool = False
    judged: tuple[str, ...] | None = None
    unit: str = "×"

    def judge(self, record: Record) -> Verdict:
        """Compares a run's figures with the bound."""
        found = self.measure(record)
        values = [v for name, v in found.items() if self.judged is None or name in self.judged]
        if not values:
            verdict = NOT_MEASURED
        elif self.bound is None:
            verdict = NO_BOUND
        else:
            good = (v >= self.bound if self.least else v <= self.bound for v in values)
            verdict = MET if all(good) else MISSED
        sign = (
            "" if self.bound is None else f"{'≥' if self.least else '≤'} {self.bound:g} {self.unit}"
        )
        return Verdict(self.name, sign, verdict, found)


def _standard(part: str, *operators: str) -> Callable[[Record], dict[str, float]]:
    """Time over the gather limit: the median of all rounds of all sweeps at the standard case."""

    def measure(record: Record) -> dict[str, float]:
        found = {}
        for operator in operators:
            ratios = [
                ratio
                for row in record.rows
                if row.operator == operator and row.point == record.standard and row.timed
                for ratio in row.ratios(part)
            ]
            if ratios:
                found[operator] = statistics.median(ratios)
        return found

    return measure


def _over(upper: Row, lower: Row, part: str) -> float:
    """Median over the rounds of one row's time over another's, timed side by side."""
    pairs = zip(upper.samples[part], lower.samples[part], strict=False)
    return statistics.median(a / b for a, b in pairs)


def _compared(
    sweep: str, compare: Callable[[dict[str, Row]], float]
) -> Callable[[Record], dict[str, float]]:
    """A figure of each operator's rows of a sweep, where it has the rows that this needs."""

    def measure(record: Record) -> dict[str, float]:
        found = {}
        for operator in ATTENTIONS:
            try:
                found[operator] = compare(record.timed(sweep, operator))
            except (KeyError, ValueError):  # a row is missing, or all that the best is of
                continue
        return found

    return measure


def _threads(part: str) -> Callable[[Record], dict[str, float]]:
    return _compared("threads", lambda rows: _over(rows["1"], rows["2"], part))


def _skew(part: str) -> Callable[[Record], dict[str, float]]:
    def worst(rows: dict[str, Row]) -> float:
        uniform = rows["uniform"]
        laws = (row for label, row in rows.items() if label.startswith("power law"))
        return max(_over(row, uniform, part) for row in laws)

    return _compared("skew", worst)


def _half(part: str) -> Callable[[Record], dict[str, float]]:
    return _compared("beyond", lambda rows: _over(rows["float32"], rows["bfloat16"], part))


def _regained(part: str) -> Callable[[Record], dict[str, float]]:
    def best(rows: dict[str, Row]) -> float:
        ordered = (row for label, row in rows.items() if label.startswith("shuffled, "))
        return max(_over(rows["shuffled"], row, part) for row in ordered)

    return _compared("order", best)


def _growth(part: str) -> Callable[[Record], dict[str, float]]:
    def compare(rows: dict[str, Row]) -> float:
        by_edges = sorted(rows.values(), key=lambda row: int(row.label))
        if len(by_edges) < 2:
            raise ValueError("growth needs two sizes")
        return by_edges[-1].ns_per_edge(part) / by_edges[0].ns_per_edge(part)

    return _compared("growth", compare)


def _memory(record: Record) -> dict[str, float]:
    return {name: found["ratio"] for name, found in record.memory.items() if "ratio" in found}


def _epoch(record: Record) -> dict[str, float]:
    return {"GAT": record.epoch["peak"] / 1e9} if "peak" in record.epoch else {}


_BOTH = "forward and backward"
TARGETS = (
    Target(
        "forward over the gather limit",
        _standard("forward", "gat_attention", "cosine_attention"),
        1.3,
    ),
    Target("forward over the gather limit", _standard("forward", "gatv2_attention"), 1.5),
    Target("forward over two gathers", _standard("forward", "dot_attention"), 1.3),
    Target(f"{_BOTH} over the gather limit", _standard("total", "gat_attention"), 4.5),
    Target("memory of a step beyond inputs and outputs", _memory, 3, unit="E·H·4 bytes"),
    Target("one thread over two, forward", _threads("forward")),
    Target(f"one thread over two, {_BOTH}", _threads("total")),
    Target("steepest power law over uniform, forward", _skew("forward")),
    Target(f"steepest power law over uniform, {_BOTH}", _skew("total")),
    Target("float32 over bfloat16 beyond the cache, forward", _half("forward")),
    Target(f"float32 over bfloat16 beyond the cache, {_BOTH}", _half("total")),
    Target(
        "shuffled mesh over the best order, forward (judged: gat)",
        _regained("forward"),
        1.5,
        least=True,
        judged=("gat_attention",),
    ),
    Target(f"shuffled mesh over the best order, {_BOTH}", _regained("total")),
    Target("time an edge, largest graph over smallest, forward", _growth("forward")),
    Target(f"time an edge, largest graph over smallest, {_BOTH}", _growth("total")),
    Target("peak memory of training on the largest graph", _epoch, 24, unit="GB"),
)


def judge(record: Record) -> list[Verdict]:
    """Every target in order."""
    return [target.judge(record) for target in TARGETS]


def table(verdicts: list[Verdict]) -> str:
    """The targets in Markdown."""
    cells = [
        [v.name, v.wanted, v.verdict, ", ".join(
            f"{name.removesuffix('_attention')} {value:.3g}" for name, value in v.found.items()
        )]
        for v in verdicts
    ]  # fmt: skip
    return markdown(["target", "wanted", "", "found"], cells)
