"""What the CUDA kernels are to reach, and whether a run did."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cuda_results import LEFT_OUT, OK, REPLAY, WRONG, Record, Result, milliseconds
from cuda_traffic import BOTH, FORWARD

_SKEWED, _UNIFORM = "arxiv", "arxiv-uniform"


@dataclass(frozen=True)
class Target:
    """One line of the table. ``verdict`` is "yes", "no", or "not measured"."""

    name: str
    wanted: str
    verdict: str
    found: str


def _verdict(values: Iterable[bool]) -> str:
    values = list(values)
    return "not measured" if not values else "yes" if all(values) else "no"


def _ours(record: Record, library: str, mode: str, **row: Any) -> list[Result]:
    """Operators, not layers, whose row has these attributes."""
    timed = record.timed(library, mode).values()
    return [
        r
        for r in timed
        if r.row.layer is None and all(getattr(r.row, name) == v for name, v in row.items())
    ]


def _by_score(results: Iterable[Result], text: Callable[[Result], str]) -> str:
    return ", ".join(f"{r.row.item} {text(r)}" for r in results)


def _time(record: Record, graph: str, dtype: str, limit: float, library: str = "gat_ext") -> Target:
    found = _ours(record, library, FORWARD, graph=graph, dtype=dtype, heads=1, channels=128)
    how = " in a CUDA graph" if library == REPLAY else ""
    return Target(
        f"{graph} {dtype} forward, 1 × 128{how}",
        f"≤ {limit} ms",
        _verdict(r.milliseconds <= limit for r in found if r.milliseconds is not None),
        _by_score(found, lambda r: milliseconds(r.milliseconds)),
    )


def _speedup(record: Record, peer: str, factor: float) -> Target:
    ratios: dict[str, list[float]] = {}
    for r in record.results:
        # Layers share their projections with the peer: they are in the table, not in the target.
        if r.library == peer and r.mode == BOTH and r.ratio is not None and r.row.layer is None:
            ratios.setdefault(r.row.graph, []).append(r.ratio)
    found = [f"{kind} {min(found):.1f}-{max(found):.1f}" for kind, found in ratios.items()]
    return Target(
        f"forward+backward over {peer}",
        f"≥ {factor:g} ×",
        _verdict(ratio >= factor for found in ratios.values() for ratio in found),
        ", ".join(found),
    )


def _skew(record: Record, mode: str, limit: float) -> Target:
    timed = record.timed("gat_ext", mode)
    ratios = []
    for row, skewed in timed.items():
        if row.graph != _SKEWED or row.layer is not None:
            continue
        same = [r for key, r in timed.items() if key.graph == _UNIFORM and _alike(key, row)]
        for uniform in same:
            assert skewed.ns_per_edge is not None and uniform.ns_per_edge is not None
            ratios.append((row, skewed.ns_per_edge / uniform.ns_per_edge))
    found = ", ".join(f"{row.item} {row.dtype} {ratio:.2f}" for row, ratio in ratios)
    verdict = _verdict(ratio <= limit for _, ratio in ratios)
    return Target(
        f"{_SKEWED} over {_UNIFORM}, time an edge, {mode}", f"≤ {limit:g} ×", verdict, found
    )


def _alike(a: Any, b: Any) -> bool:
    names = ("item", "heads", "channels", "dtype")
    return all(getattr(a, name) == getattr(b, name) for name in names)


def _bandwidth(record: Record, mode: str, share: float) -> Target:
    cache = record.device["l2"]
    shares: dict[str, list[float]] = {}
    for r in _ours(record, "gat_ext", mode):
        if r.feature_bytes > cache and r.share is not None:
            shares.setdefault(f"{r.row.graph} {r.row.dtype}", []).append(r.share)
    found = [f"{kind} {min(found):.0%}-{max(found):.0%}" for kind, found in shares.items()]
    return Target(
        f"share of the copy bandwidth, features beyond L2, {mode}",
        f"≥ {share:.0%}",
        _verdict(value >= share for found in shares.values() for value in found),
        ", ".join(found),
    )


def _captured(record: Record) -> Target:
    tried = [c for c in record.captures if c.status != LEFT_OUT]
    equal = [c.status == OK for c in tried]
    found = f"{sum(equal)} of {len(equal)}" if equal else ""
    return Target("CUDA graph replays equal eager, bit for bit", "all", _verdict(equal), found)


def _checked(record: Record) -> Target:
    ours = [r for r in record.results if r.library == "gat_ext" and r.status != LEFT_OUT]
    good = [r.status == OK and bool(r.errors) for r in ours]
    wrong = sum(r.status == WRONG for r in ours)
    found = f"{sum(good)} of {len(good)} checked and right, {wrong} wrong" if good else ""
    return Target("results right by float64", "all", _verdict(good), found)


def judge_targets(record: Record) -> list[Target]:
    """Every target in order. "not measured" where the run had none of its rows."""
    return [
        _checked(record),
        _captured(record),
        _time(record, "reddit", "float32", 31),
        _time(record, "reddit", "bfloat16", 9),
        _time(record, "products", "bfloat16", 25),
        _time(record, "amazon0505", "bfloat16", 0.68),
        _time(record, "pubmed", "float32", 0.03),
        _time(record, "pubmed", "bfloat16", 0.03),
        _time(record, "pubmed", "float32", 0.03, REPLAY),
        _time(record, "pubmed", "bfloat16", 0.03, REPLAY),
        _speedup(record, "pyg", 8),
        _speedup(record, "pyg-compiled", 3),
        _skew(record, FORWARD, 1.5),
        _skew(record, BOTH, 1.5),
        _bandwidth(record, FORWARD, 0.7),
        _bandwidth(record, BOTH, 0.7),
    ]
