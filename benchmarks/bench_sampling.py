"""Sampled mini-batches: edges per second of the samplers, and epochs of a two-layer GAT, with DGL.

    python benchmarks/run.py sampling --python dgl=PATH

``sample``: batches of 1,024 random seeds on one thread, with 15 neighbours of each seed, 10 of each
of those and 5 of each of these, without features. ``epoch``: one epoch over all nodes with 10
neighbours and 10 of each, 64 features, batches of 1,024 and Adam, of ``gat_ext.models.GAT`` on
``NeighborLoader`` and of DGL's GATConv on its DataLoader, in the loading process. Each library runs
in a process of its own, and the rounds of both are interleaved. GAT of gat_ext also attends to a
self-loop of every node, which DGL's layers lack. Before timing, the numbers of sampled edges are
compared: they have the same mean.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FANOUTS, EPOCH_FANOUTS, BATCH, FEATURES, CLASSES = [15, 10, 5], [10, 10], 1024, 64, 8
HEADS, CHANNELS = 8, 8
_BATCHES = 20  # of a round of `sample`
_GRAPHS = ("uniform", "power-law")
_MOST_DIFFERENCE = 0.02  # of the mean numbers of sampled edges


# ---- the programs of the libraries


class Native:
    """gat_ext."""

    def __init__(self, edge_index: Tensor, num_nodes: int, x: Tensor, y: Tensor) -> None:
        from gat_ext import Graph
        from gat_ext.models import GAT
        from gat_ext.sampling import NeighborLoader, NeighborSampler

        graph = Graph(edge_index, num_nodes)
        self.sampler, self.round = NeighborSampler(graph, FANOUTS), 0
        options: dict[str, Any] = {"batch_size": BATCH, "shuffle": True}
        self.loader = NeighborLoader((graph, x, y), EPOCH_FANOUTS, **options)
        self.model = GAT(FEATURES, CHANNELS, CLASSES, heads=HEADS, dropout=0.0, attn_dropout=0.0)

    def sample(self, seeds: Tensor) -> int:
        self.round += 1
        return sum(self.sampler.sample(seeds, epoch=self.round).num_sampled_edges)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader:
            yield self.model(batch.x, batch.blocks), batch.y


class _DGLNetwork(nn.Module):
    def __init__(self) -> None:
        from dgl.nn.pytorch import GATConv

        super().__init__()
        more = {"allow_zero_in_degree": True}
        self.first = GATConv(FEATURES, CHANNELS, HEADS, **more)
        self.second = GATConv(HEADS * CHANNELS, CLASSES, 1, **more)

    def forward(self, blocks: list[Any], x: Tensor) -> Tensor:
        x = F.elu(self.first(blocks[0], x).flatten(1))
        return self.second(blocks[1], x).mean(1)


class DGL:
    """DGL."""

    def __init__(self, edge_index: Tensor, num_nodes: int, x: Tensor, y: Tensor) -> None:
        import dgl

        dgl.use_libxsmm(False)  # whose kernels corrupt memory beside current versions of torch
        graph = dgl.graph((edge_index[0].long(), edge_index[1].long()), num_nodes=num_nodes)
        self.graph = graph.formats("csc")
        self.graph.ndata["x"], self.graph.ndata["y"] = x, y
        samplers = dgl.dataloading
        self.sampler = samplers.NeighborSampler(FANOUTS[::-1])
        sampler = samplers.NeighborSampler(
            EPOCH_FANOUTS, prefetch_node_feats=["x"], prefetch_labels=["y"]
        )
        seeds = torch.arange(num_nodes)
        self.loader = samplers.DataLoader(
            self.graph, seeds, sampler, batch_size=BATCH, shuffle=True
        )
        self.model = _DGLNetwork()

    def sample(self, seeds: Tensor) -> int:
        blocks = self.sampler.sample_blocks(self.graph, seeds)[2]
        return sum(block.num_edges() for block in blocks)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _, _, blocks in self.loader:
            yield self.model(blocks, blocks[0].srcdata["x"]), blocks[-1].dstdata["y"]


_FAMILIES = {"gat_ext": Native, "dgl": DGL}


class Server:
    """Runs the program of a library, in a process of its own."""

    def __init__(self, family: str, path: str) -> None:
        case = torch.load(path, weights_only=True)
        self.num_nodes = case["num_nodes"]
        self.program = _FAMILIES[family](**case)
        self.optimizer = torch.optim.Adam(self.program.model.parameters(), 1e-3)

    def sample(self, seed: int) -> dict[str, float]:
        torch.set_num_threads(1)
        generator = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(self.num_nodes, generator=generator) for _ in range(_BATCHES)]
        start = time.perf_counter()
        edges = sum(self.program.sample(order[:BATCH]) for order in orders)
        return {"total": 1e3 * (time.perf_counter() - start) / _BATCHES, "edges": edges / _BATCHES}

    def epoch(self, threads: int) -> dict[str, float]:
        torch.set_num_threads(threads)
        start = time.perf_counter()
        for out, y in self.program.batches():
            self.optimizer.zero_grad()
            F.cross_entropy(out, y).backward()
            self.optimizer.step()
        return {"total": 1e3 * (time.perf_counter() - start)}


def serve(family: str, path: str) -> None:
    """Answers the requests of standard input, a JSON list each, until it ends."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print
    server = Server(family, path)
    for line in sys.stdin:
        name, argument = json.loads(line)
        channel.write(json.dumps(getattr(server, name)(argument)) + "\n")


# ---- the measurement


class Process:
    """A server in the interpreter of a library; as a context manager, it ends on exit."""

    def __init__(self, family: str, python: str, path: Path) -> None:
        folder = Path(__file__).resolve().parent
        paths = [str(folder.parent), os.environ.get("PYTHONPATH", "")]
        env = os.environ | {
            "DGLBACKEND": "pytorch",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  see __exit__
        self.process = subprocess.Popen(
            [python, __file__, family, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            bufsize=1,
            env=env,
        )

    def ask(self, name: str, argument: int) -> dict[str, float]:
        """The answer; raises RuntimeError with the last line of the log if the process ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([name, argument]) + "\n")
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.log.seek(0)
            last = self.log.read().strip().splitlines()[-1:]
            raise RuntimeError(f"its process ended: {last[0] if last else 'without an error'}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.log.close()


def measure(session: Any) -> Iterator[list[Any]]:
    """Rows of the sampler, then of an epoch, on a uniform and on a power-law graph."""
    from cases import make_case

    pythons = {
        name: session.options.pythons.get(name, sys.executable)
        for name in ("gat_ext", "dgl")
        if name in session.options.peers
    }
    for name in _GRAPHS:
        case = make_case(replace(session.options.setting, graph=name, device="cpu"))
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(case.num_nodes, FEATURES, generator=generator)
        y = torch.randint(CLASSES, (case.num_nodes,), generator=generator)
        parts = {"edge_index": case.edge_index, "num_nodes": case.num_nodes, "x": x, "y": y}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "case.pt")
            torch.save(parts, path)
            del x, y, parts
            yield from _rows(session, pythons, path, case)


def _rows(session: Any, pythons: dict[str, str], path: Path, case: Any) -> Iterator[list[Any]]:
    from peers import PEERS
    from report import FAILED, LEFT_OUT, Row

    threads = session.options.setting.threads or torch.get_num_threads()
    where = f"{case.setting.graph}, {case.num_nodes:,} nodes, {case.num_edges:,} edges"
    titles = {
        "sample": f"sampler, fan-outs {FANOUTS}, batch {BATCH}, 1 thread, {where}",
        "epoch": f"epoch of a sampled GAT, fan-outs {EPOCH_FANOUTS}, {threads} threads, {where}",
    }
    out: dict[str, dict[str, Any]] = {
        item: {n: Row("sampling", item, title, PEERS[n].title, peer=n) for n in pythons}
        for item, title in titles.items()
    }
    processes: dict[str, Process] = {}
    try:
        for name, python in pythons.items():
            try:
                if name in session.missing:
                    raise ImportError(session.missing[name])
                processes[name] = Process(name, python, path)
                processes[name].ask("sample", 0)
            except (ImportError, OSError, RuntimeError) as error:
                for rows in out.values():
                    missing = isinstance(error, ImportError)
                    rows[name].status = LEFT_OUT if missing else FAILED
                    rows[name].note = str(error)
                process = processes.pop(name, None)
                if process is not None:
                    process.__exit__()
        for item, argument in (("sample", None), ("epoch", threads)):
            _measure(processes, out[item], item, argument, session.options.rounds)
            yield list(out[item].values())
    finally:
        for process in processes.values():
            process.__exit__()


def _measure(
    processes: dict[str, Process],
    rows: dict[str, Any],
    item: str,
    argument: int | None,
    rounds: int,
) -> None:
    """Fills the rows of an item."""
    from report import FAILED, WRONG
    from timing import interleave, ratio

    def step(process: Process) -> Callable[[], dict[str, float]]:
        turns = iter(range(1, rounds + 2))
        return lambda: process.ask(item, next(turns) if argument is None else argument)

    steps = {name: step(process) for name, process in processes.items()}
    for run in steps.values():
        run()
    samples, failed = interleave(steps, rounds)
    for name, error in failed.items():
        rows[name].status, rows[name].note = FAILED, str(error)
    edges = {name: found.pop("edges") for name, found in samples.items() if "edges" in found}
    for name, found in samples.items():
        row = rows[name]
        row.samples = found
        if found and samples.get("gat_ext"):
            row.ratio["total"] = ratio(found["total"], samples["gat_ext"]["total"])
        if name not in edges:
            continue
        mean = sum(edges[name]) / rounds
        row.note = f"{mean / row.median('total') / 1e3:.3g} million edges per second"
        base = sum(edges.get("gat_ext", edges[name])) / rounds
        if abs(mean / base - 1) > _MOST_DIFFERENCE:
            row.samples, row.status = {}, WRONG
            row.note = f"{mean:,.0f} edges of a batch, where gat_ext samples {base:,.0f}"


if __name__ == "__main__":
    serve(*sys.argv[1:])
