"""Steps a second of many agents on many small graphs, beside a NetworkX loop over the agents.

    python benchmarks/run.py walk --out DIR

2,000 agents walk 12 steps on a block-diagonal batch of 100 molecule-like graphs (a ring with a few
chords and branches, 30 nodes of 37 types each): by the types' ranks (``walk_step``) and uniformly
(``random_walk``). The loop takes one agent at a time: ``random.choices`` among
``graph.neighbors(node)`` with the same probabilities; "with log p" it also returns what
``walk_step`` returns, the log-probability of each move. Before anything is timed, the frequencies of
the first move of both from one node are compared with the exact probabilities (chi-squared). The
folder of --out gets walk.json. Exit status 1 where a distribution is wrong.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# The package built in place; an installed one comes first.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import torch

from gat_ext import Graph
from gat_ext.functional import random_walk, walk_step
from gat_ext.reference.walk import transition_probabilities

ITEMS: dict[str, Any] = {}  # A loop in Python is no peer that run.py could start.

AGENTS, STEPS, TYPES, GRAPHS, NODES = 2000, 12, 37, 100, 30
ROUNDS = 5


class Walks:
    """The graphs, and what the agents prefer."""

    def __init__(self) -> None:
        import networkx as nx

        rng = random.Random(0)
        self.nx = nx.disjoint_union_all([_molecule(rng) for _ in range(GRAPHS)])
        self.graph = Graph.from_networkx(self.nx)
        generator = torch.Generator().manual_seed(0)
        count = self.nx.number_of_nodes()
        self.types = torch.randint(TYPES, (count,), generator=generator)
        self.start = torch.randint(count, (AGENTS,), generator=generator)
        self.rank = torch.randn(AGENTS, TYPES, generator=generator).softmax(1)
        self.type_list, self.start_list = self.types.tolist(), self.start.tolist()
        self.rank_lists = self.rank.tolist()

    # each from start to start, STEPS steps

    def native_ranked(self) -> None:
        node, seed = self.start, torch.randint(2**62, (1,))
        for t in range(STEPS):
            node, _ = walk_step(self.graph, node, self.rank, self.types, seed=seed, step=t)

    def native_uniform(self) -> None:
        random_walk(self.graph, self.start, STEPS)

    def loop_ranked_log(self) -> None:
        types = self.type_list
        for node, rank in zip(self.start_list, self.rank_lists, strict=True):
            for _ in range(STEPS):
                neighbours = list(self.nx.neighbors(node))
                weights = [rank[types[j]] for j in neighbours]
                node = random.choices(neighbours, weights)[0]
                self.log_prob = math.log(rank[types[node]] / sum(weights))

    def loop_ranked(self) -> None:
        for node, rank in zip(self.start_list, self.rank_lists, strict=True):
            for _ in range(STEPS):
                node = self.move(node, rank)

    def loop_uniform(self) -> None:
        for node in self.start_list:
            for _ in range(STEPS):
                node = self.move(node, None)

    def move(self, node: int, rank: list[float] | None) -> int:
        """One step of the loop."""
        neighbours = list(self.nx.neighbors(node))
        if rank is None:
            return random.choices(neighbours)[0]
        types = self.type_list
        return random.choices(neighbours, [rank[types[j]] for j in neighbours])[0]


def _molecule(rng: random.Random) -> Any:
    """A ring with two chords and branches: degrees of 1 to 4 or so."""
    import networkx as nx

    ring = NODES * 2 // 3
    graph = nx.cycle_graph(ring)
    graph.add_edges_from((i, rng.randrange(i)) for i in range(ring, NODES))
    graph.add_edges_from((i, (i + ring // 2) % ring) for i in rng.sample(range(ring // 2), 2))
    return graph


def p_values(walks: Walks, draws: int = 20_000) -> dict[str, float]:
    """Of the hypothesis that first moves follow the formula, for both programs and both walks."""
    from scipy.stats import chisquare

    random.seed(1)
    node = max(walks.nx.nodes, key=walks.nx.degree)
    neighbours = sorted(walks.nx.neighbors(node))
    rank, many = walks.rank[0], torch.full((draws,), node)
    result = {}
    for name, preferred in (("ranked", rank), ("uniform", torch.ones(TYPES))):
        seed = torch.tensor([2])
        if name == "ranked":
            ranks = preferred.expand(draws, TYPES)
            native = walk_step(walks.graph, many, ranks, walks.types, seed=seed)[0]
        else:
            native = random_walk(walks.graph, many, 1, seed=seed)[:, 1]
        rank_list = preferred.tolist() if name == "ranked" else None
        loop = torch.tensor([walks.move(node, rank_list) for _ in range(draws)])
        begin, end = walks.graph.rowptr[node : node + 2].tolist()
        p = transition_probabilities(walks.graph, node, preferred.double(), walks.types)
        expected = p[walks.graph.col[begin:end].argsort()] * draws
        for program, moved in (("gat_ext", native), ("networkx", loop)):
            counts = [int((moved == j).sum()) for j in neighbours]
            assert sum(counts) == draws
            result[f"{name}, {program}"] = float(chisquare(counts, expected.numpy()).pvalue)
    return result


def seconds(run: Callable[[], None], repeats: int) -> float:
    """Of one run, the mean of some."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def measure(walks: Walks) -> list[dict[str, Any]]:
    """A row for each native walk, number of threads and loop: steps a second of both, and their ratio."""
    plans = (
        (
            "walk_step",
            walks.native_ranked,
            {"moves": walks.loop_ranked, "with log p": walks.loop_ranked_log},
        ),
        ("random_walk", walks.native_uniform, {"moves": walks.loop_uniform}),
    )
    rows = []
    for name, native, loops in plans:
        samples: dict[int | str, list[float]] = {key: [] for key in (1, 2, *loops)}
        for _ in range(ROUNDS):  # in turn, so that a ratio compares times taken side by side
            for loop, run in loops.items():
                samples[loop].append(seconds(run, 1))
            for threads in (1, 2):
                torch.set_num_threads(threads)
                seconds(native, 10)
                samples[threads].append(seconds(native, 100))
        for threads, loop in itertools.product((1, 2), loops):
            ratios = [a / b for a, b in zip(samples[loop], samples[threads], strict=True)]
            rows.append(
                {
                    "walk": name,
                    "threads": threads,
                    "loop": loop,
                    "steps_per_second": AGENTS * STEPS / statistics.median(samples[threads]),
                    "loop_steps_per_second": AGENTS * STEPS / statistics.median(samples[loop]),
                    "ratio": statistics.median(ratios),
                    "seconds": samples[threads],
                    "loop_seconds": samples[loop],
                }
            )
    return rows


def run_alone(out: Path) -> int:
    """What ``run.py walk`` does."""
    before = torch.get_num_threads()
    try:
        walks = Walks()
        tests = p_values(walks)
    except ImportError as error:
        print(f"walks left out: {error}")
        return 0
    wrong = [f"{name}: p = {p:.1e}" for name, p in tests.items() if p < 1e-4]
    if wrong:
        print("ERROR the moves do not follow the formula:", *wrong, sep="\n", file=sys.stderr)
        return 1
    print(
        f"\nwalks: {AGENTS:,} agents, {STEPS} steps, {walks.graph}; "
        f"p-values of first moves {min(tests.values()):.3f} and above"
    )
    try:
        rows = measure(walks)
    finally:
        torch.set_num_threads(before)
    for row in rows:
        print(
            f"  {row['walk']:12} {row['threads']} thread{'s' if row['threads'] > 1 else ' '}"
            f"  {row['steps_per_second'] / 1e6:8.2f} M steps/s"
            f"  NetworkX loop ({row['loop']}) {row['loop_steps_per_second'] / 1e6:.3f} M"
            f"  ratio {row['ratio']:.0f}"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "walk.json").write_text(json.dumps({"p_values": tests, "rows": rows}, indent=1) + "\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/walk"), help="folder (%(default)s)")
    return run_alone(parser.parse_args(argv).out)


if __name__ == "__main__":
    sys.exit(main())
