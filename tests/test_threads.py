"""A small graph starts no threads: they would cost more than the work, and fork() loses them.

The tests read what this file prints when it is run: of each case, in a process of its own, how many
threads it started and how a fork of that process ended which ran the case again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch

from gat_ext import Graph, functional, nn
from gat_ext.ops.arguments import EdgeAttention
from gat_ext.ops.registry import ops

THREADS = 64
TIMEOUT = 30  # seconds, after which a case is considered to hang


def draw(*shape):
    return torch.randn(shape, requires_grad=True)


def edges(num_nodes=10, num_edges=6):  # with 20 rows torch's matrix products start threads
    return torch.randint(num_nodes, (2, num_edges))


def graph(*size):
    index = edges(*size)
    return Graph(index, num_nodes=size[0] if size else 10)


def differentiate(out):
    out.square().sum().backward()


def layer(make, *more):
    return lambda: differentiate(make()(draw(10, 8), edges(), *(part() for part in more)))


def attention(**options):
    x = draw(10, 2, 4)
    out, alpha = functional.dot_attention(graph(), x, x, x, return_weights=True, **options)
    differentiate(torch.cat([out.flatten(), alpha.flatten()]))


def cosine():
    differentiate(functional.cosine_attention(graph(), draw(10, 2, 4)))


def walk():
    start, kinds = torch.arange(10), torch.arange(10) % 3
    rank = draw(10, 3)
    differentiate(functional.walk_step(graph(), start, rank.exp(), kinds)[1])
    functional.random_walk(graph(), start, 5)
    functional.random_walk(graph(), start, 5, weight=torch.rand(6))


def traced_attention():
    value, dst_term, src_term = draw(10, 2, 4), draw(10, 2), draw(10, 2)
    csr = ops.adjacency_csr(edges(), None, None, 10, 10, True, True, True)
    given = EdgeAttention(
        **dict(zip(EdgeAttention._fields, csr, strict=False)),
        **dict(value=value, dst_term=dst_term, src_term=src_term),
        **dict(score="additive", edge_in_value=False, negative_slope=0.2, scale=1.0),
        **dict(dropout_p=0.0, top_k=0, return_weights=False, return_lse=False),
    )
    differentiate(ops.edge_attention(*given)[0])


def graphs():
    """All calls that sort edges."""
    first = graph()
    first.transpose()
    for other in (first.reverse(), first.to_undirected(), first.add_self_loops()):
        other.transpose()
    joined = Graph.batch([first, first])
    return joined.edge_index, joined.in_degrees()


def dense():
    differentiate(ops.linear(draw(10, 8), draw(4, 8), draw(4)))
    differentiate(ops.relu(ops.add(draw(10, 8), draw(8))))
    differentiate(ops.scale(draw(10, 8), ops.inverse_norm(draw(10, 8), 1e-6).unsqueeze(-1)))
    differentiate(ops.dropout(draw(10, 8), torch.tensor([3]), 0.5))


def large():
    differentiate(functional.spmm(graph(20_000, 200_000), draw(20_000, 1, 64)))


CASES = {
    "GATConv": layer(lambda: nn.GATConv(8, 4, heads=2, dropout=0.5)),
    "GATConv of edges": layer(lambda: nn.GATConv(8, 4, heads=2, edge_dim=3), lambda: draw(6, 3)),
    "GATv2Conv": layer(lambda: nn.GATv2Conv(8, 4, heads=2)),
    "GATv2Conv of edges": layer(
        lambda: nn.GATv2Conv(8, 4, heads=2, edge_dim=3), lambda: draw(6, 3)
    ),
    "AGNNConv": layer(nn.AGNNConv),
    "TransformerConv": layer(lambda: nn.TransformerConv(8, 4, heads=2)),
    "TransformerConv of edges": layer(
        lambda: nn.TransformerConv(8, 4, heads=2, edge_dim=3), lambda: draw(6, 3)
    ),
    "dot_attention": attention,
    "dot_attention, top_k": lambda: attention(top_k=2, dropout_p=0.5),
    "cosine_attention": cosine,
    "traced attention": traced_attention,
    "edge_softmax": lambda: differentiate(functional.edge_softmax(graph(), draw(6, 2))),
    "edge_softmax by source": lambda: differentiate(
        functional.edge_softmax(graph(), draw(6, 2), by="src")
    ),
    "sddmm": lambda: differentiate(functional.sddmm(graph(), draw(10, 2, 4), draw(10, 2, 4))),
    "walks": walk,
    "graphs": graphs,
    "dense steps": dense,
} | {
    f"spmm, {reduce}": lambda reduce=reduce: differentiate(
        functional.spmm(graph(), draw(10, 2, 4), draw(6, 2), reduce=reduce)
    )
    for reduce in ("sum", "mean", "max", "min")
}


def num_threads():
    return len(os.listdir("/proc/self/task"))


def in_a_fork(run, timeout=TIMEOUT):
    """The result of run in a forked process, or how the process ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(timeout)
            os.write(writer, json.dumps(run()).encode())
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if status == 0 else {"ended with": status}


def observe(case, again):
    before = num_threads()
    case()
    started = num_threads() - before
    return {"started": started, "again": in_a_fork(lambda: again() and None)}


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    if not hasattr(os, "fork") or not Path("/proc/self/task").is_dir():
        pytest.skip("needs fork and /proc")
    if torch.cuda.is_available():
        pytest.skip("with a GPU torch's backward pass has threads, which no fork gets")
    done = subprocess.run(
        [sys.executable, __file__],
        env={
            **os.environ,
            "OMP_NUM_THREADS": str(THREADS),
            "PYTHONPATH": ":".join(filter(None, sys.path)),
        },
        cwd=tmp_path_factory.mktemp("threads"),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CASES)
def test_a_small_graph_starts_no_threads(name, observed):
    assert observed[name]["started"] == 0


@pytest.mark.parametrize("name", CASES)
def test_a_fork_does_not_wait_for_threads(name, observed):
    assert observed[name]["again"] is None


def test_a_large_graph_starts_threads(observed):
    assert observed["large"]["started"] > 0


def test_a_fork_of_a_process_with_threads_runs_small_graphs(observed):
    assert observed["large"]["again"] is None


if __name__ == "__main__":
    pairs = {name: (case, case) for name, case in CASES.items()} | {
        "large": (large, CASES["GATConv"])
    }
    print(
        json.dumps(
            {
                name: in_a_fork(lambda pair=pair: observe(*pair), 3 * TIMEOUT)
                for name, pair in pairs.items()
            }
        )
    )
