"""Steps per second of many agents on many small graphs, against a NetworkX loop over agents.

    python benchmarks/run.py walk

2,000 agents walk 12 steps on a block-diagonal batch of 100 molecule-like graphs (a ring with a few
chords and branches, 30 nodes of 37 types each): by the types' ranks (``walk_step``) and uniformly
(``random_walk``). The loop takes one agent at a time: ``random.choices`` among
``graph.neighbors(node)`` with the same probabilities; "with log p" also returns the log-probability
of each move, as ``walk_step`` does. Before timing, the frequencies of the first move from one node
are compared with the exact probabilities (chi-squared) for both.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from report import LEFT_OUT, WRONG, Row
from session import Session
from timing import interleave, ratio

from gat_ext import Graph
from gat_ext.functional import random_walk, walk_step
from gat_ext.reference.walk import transition_probabilities

AGENTS, STEPS, TYPES, GRAPHS, NODES = 2000, 12, 37, 100, 30
_LEAST_P = 1e-4
_TITLE = f"{AGENTS:,} agents, {STEPS} steps"


class Walks:
    """The graphs, and the ranks of the agents."""

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

    # all walk STEPS steps from the same starts

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
    """A ring with two chords and some branches; degrees are about 1 to 4."""
    import networkx as nx

    ring = NODES * 2 // 3
    graph = nx.cycle_graph(ring)
    graph.add_edges_from((i, rng.randrange(i)) for i in range(ring, NODES))
    graph.add_edges_from((i, (i + ring // 2) % ring) for i in rng.sample(range(ring // 2), 2))
    return graph


def p_values(walks: Walks, draws: int = 20_000) -> dict[str, float]:
    """p-values of the first moves under the formula, for both programs and both walks."""
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


def _timed(run: Callable[[], None], repeats: int, threads: int) -> Callable[[], dict[str, float]]:
    """A step that measures the mean milliseconds of some runs."""

    def step() -> dict[str, float]:
        torch.set_num_threads(threads)
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        return {"total": 1e3 * (time.perf_counter() - start) / repeats}

    return step


def measure(session: Session) -> Iterator[list[Row]]:
    """Rows of each walk: the operator on one and two threads, and the loops."""
    try:
        walks = Walks()
        tests = p_values(walks)
    except ImportError as error:
        yield [Row("walk", "walk", "walks", "gat_ext", status=LEFT_OUT, note=str(error))]
        return
    wrong = [f"{name}: p = {p:.1e}" for name, p in tests.items() if p < _LEAST_P]
    if wrong:
        note = f"the moves do not follow the formula: {', '.join(wrong)}"
        yield [Row("walk", "walk", "walks", "gat_ext", status=WRONG, note=note)]
        return
    loops = {"NetworkX": walks.loop_ranked, "NetworkX, with log p": walks.loop_ranked_log}
    before = torch.get_num_threads()
    try:
        yield _rows("walk_step", walks.native_ranked, loops, session.options.rounds)
        loops = {"NetworkX": walks.loop_uniform}
        yield _rows("random_walk", walks.native_uniform, loops, session.options.rounds)
    finally:
        torch.set_num_threads(before)


def _rows(
    name: str, native: Callable[[], None], loops: dict[str, Callable[[], None]], rounds: int
) -> list[Row]:
    steps = {f"{name}, {n} thread{'s'[: n - 1]}": _timed(native, 100, n) for n in (1, 2)}
    base = list(steps)[-1]
    for step in steps.values():
        step()
    steps |= {label: _timed(loop, 1, 1) for label, loop in loops.items()}
    samples, _ = interleave(steps, rounds)
    rows = []
    for label, found in samples.items():
        row = Row("walk", name, f"{name}: {_TITLE}", label, samples=found)
        row.ratio["total"] = ratio(found["total"], samples[base]["total"])
        row.note = f"{AGENTS * STEPS / row.median('total') / 1e3:.3g} million steps per second"
        rows.append(row)
    return rows
