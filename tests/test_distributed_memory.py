"""Memory of training on a graph in parts."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import TIMEOUT, Processes

from gat_ext import Graph, empty_cache
from gat_ext.distributed import DistGraph, make_part, partition, save
from gat_ext.functional import dot_attention

SIZE, NODES, NEIGHBOURS, WIDTH = 4, 100_000, 5, 256


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the system does not report peaks of memory")
    started = Processes(SIZE)
    yield started
    started.close()


def resident(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def peak_of_step(group: Any, rank: int, size: int, mode: str, cut: str) -> int:
    """Bytes that a step of attention adds, over a graph whose edges are within a ring."""
    node = torch.arange(NODES)
    edges = torch.cat(
        [torch.stack([(node + d) % NODES, node]) for d in range(1, NEIGHBOURS + 1)], dim=1
    )
    if cut == "low":
        assignment = node * size // NODES
    else:
        assignment = torch.randint(size, (NODES,), generator=torch.Generator().manual_seed(0))
    part = make_part(edges, assignment, rank, size)
    graph: Any = DistGraph(part, group, mode=mode)
    if size == 1:
        graph = Graph(edges, num_nodes=NODES)
    inputs = [torch.randn(graph.num_src, 4, WIDTH // 4, requires_grad=True) for _ in range(3)]
    del edges, assignment, node

    def step() -> None:
        dot_attention(graph, *inputs).square().sum().backward()
        for tensor in inputs:
            tensor.grad = None

    step()
    gc.collect()
    empty_cache()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def largest(processes: Processes, size: int, mode: str, cut: str) -> int:
    return max(processes.run(peak_of_step, size, mode, cut))


@pytest.mark.slow
def test_peak_of_sequential_mode_does_not_grow_with_the_cut(processes: Processes) -> None:
    """It has the rows of one process at a time, in forward and backward."""
    sequential = {cut: largest(processes, SIZE, "sequential", cut) for cut in ("low", "high")}
    overlapped = largest(processes, SIZE, "overlap", "high")
    rows = NODES // SIZE * WIDTH * 4  # bytes of one tensor of own nodes
    # Key and value of one other process, what is sent, the gradients of both, and sums of rows.
    assert sequential["high"] < sequential["low"] + 16 * rows, (sequential, rows)
    assert overlapped > sequential["high"] + 4 * rows, (overlapped, sequential)


@pytest.mark.slow
def test_two_processes_take_half_the_memory(processes: Processes) -> None:
    alone = largest(processes, 1, "overlap", "low")
    assert largest(processes, 2, "overlap", "low") < 0.65 * alone


@pytest.mark.slow
def test_two_processes_train_what_one_cannot_hold(tmp_path: Path, monkeypatch: Any) -> None:
    """Under a limit of three quarters of what one process takes, that process fails."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import bench_distributed
    from cases import Setting, make_case

    case = make_case(Setting(graph="mesh", nodes=150_000))
    edges = case.edge_index.long()
    for size in (1, 2):
        found = partition(edges, size, "range", num_nodes=case.num_nodes)
        save(tmp_path / str(size), edges, found)
    config = {"model": "gat", "channels": 128, "heads": 4, "threads": 1, "mode": "overlap"}

    def train(size: int, limit: int) -> tuple[float, float]:
        """(loss of the second step, bytes at the peak)."""
        folder, given = tmp_path / str(size), config | {"limit": limit}
        processes = bench_distributed.Processes(folder, size, given, TIMEOUT)
        try:
            processes.ask("step")
            loss = processes.ask("step")[0]["loss"]
            return loss, max(answer["memory"] for answer in processes.ask("memory"))
        finally:
            processes.close()

    wanted, peak = train(1, 0)
    limit = int(0.75 * peak)
    with pytest.raises(RuntimeError, match="a process ended"):
        train(1, limit)
    loss, _ = train(2, limit)
    assert loss == pytest.approx(wanted, rel=1e-4)
