"""Compares the figures of a visit with the targets: ``python benchmarks/cuda/targets.py FOLDER``.

FOLDER is the one of ``visit.py --out``. Each line has the target, what was measured, and "met",
"missed" or "not measured". The limits of single forward passes are those that the model of
docs/notes/cuda_kernels.md predicts, for an H100; the others are ratios of one run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MILLISECONDS = {
    ("reddit-size", "bfloat16", "gat_ext"): 7.0,
    ("amazon0505-size", "bfloat16", "gat_ext"): 0.4,
    ("pubmed-size", "bfloat16", "gat_ext-replayed"): 0.03,
}
"""Forward passes of gat_attention"""

SPEED_UP = {"pyg": 8.0, "pyg-compiled": 3.0}
"""Forward and backward, where a graph keeps the GPU busy"""

BUSY = 1_000_000  # edges
OF_COPY = 0.7  # bandwidth, over that of a copy, where the features exceed the L2 cache
BEYOND_L2 = ("products-size", "reddit-size")  # float32


@dataclass(frozen=True)
class Verdict:
    """A target and the figure that it is about; None if that was not measured."""

    target: str
    limit: float
    figure: float | None
    at_most: bool = False

    def __str__(self) -> str:
        """One line of the table."""
        if self.figure is None:
            return f"{self.target:<62} not measured"
        met = self.figure <= self.limit if self.at_most else self.figure >= self.limit
        return f"{self.target:<62} {self.figure:8.3g}  {'met' if met else 'missed'}"


def verdicts(rows: Sequence[dict[str, Any]]) -> Iterator[Verdict]:
    """The verdicts on rows of ``results.json`` files."""
    timed = [row for row in rows if "total" in row["median"] or "forward" in row["median"]]
    for (graph, dtype, peer), limit in MILLISECONDS.items():
        found = [
            row["median"]["forward"]
            for row in timed
            if (row["item"], row["peer"]) == ("gat_attention", peer) and _is_of(row, graph, dtype)
        ]
        name = f"gat_attention forward, {graph} {dtype}, {peer}: ≤ {limit:g} ms"
        yield Verdict(name, limit, found[0] if found else None, at_most=True)
    for peer, limit in SPEED_UP.items():
        ratios = list(_ratios(timed, peer))
        name = f"forward and backward over {peer}, E ≥ 1 M, the least: ≥ {limit:g}"
        yield Verdict(name, limit, min(ratios, default=None))
    for graph in BEYOND_L2:
        shares = [
            row["moved"]["forward"] / row["median"]["forward"] / 1e6 / row["median"]["copy"]
            for row in timed
            if row["peer"] == "gat_ext" and "forward" in row["moved"] and "copy" in row["median"]
            if _is_of(row, graph, "float32")
        ]
        name = f"of the copy bandwidth, forward, {graph} float32, the least: ≥ {OF_COPY:g}"
        yield Verdict(name, OF_COPY, min(shares, default=None))


def _is_of(row: dict[str, Any], graph: str, dtype: str) -> bool:
    return (row["setting"].get("graph"), row["setting"].get("dtype")) == (graph, dtype)


def _ratios(rows: Sequence[dict[str, Any]], peer: str) -> Iterator[float]:
    """The time of a peer over ours, of every case that both ran."""
    ours = "gat_ext-compiled" if peer.endswith("compiled") else "gat_ext"
    cases: dict[Any, dict[str, float]] = {}
    for row in rows:
        if row["edges"] >= BUSY and "total" in row["median"]:
            key = row["bench"], row["item"], json.dumps(row["setting"], sort_keys=True)
            cases.setdefault(key, {})[row["peer"]] = row["median"]["total"]
    for times in cases.values():
        if peer in times and ours in times:
            yield times[peer] / times[ours]


def report(folder: Path) -> None:
    """Prints the verdicts on all results in a folder and the folders within it."""
    files = sorted(folder.rglob("results.json"))
    rows = [row for file in files for row in json.loads(file.read_text())["rows"]]
    for verdict in verdicts(rows):
        print(verdict)


if __name__ == "__main__":
    report(Path(sys.argv[1]))
