"""Out of memory, an operator raises an exception, and works again afterwards."""

from __future__ import annotations

import subprocess
import sys

SHORTAGE = """
import resource, torch
from gat_ext import Graph, functional

EDGES, HEADS = 1_000_000, 64
source = torch.arange(EDGES) % 1000
graph = Graph(torch.stack([source, torch.zeros_like(source)]), num_nodes=1000)
number = torch.arange(1000.0).view(-1, 1).expand(1000, HEADS).contiguous()

def largest(top_k):
    out = functional.gat_attention(graph, number.unsqueeze(-1), number, number, top_k=top_k)
    return out[0].unique().tolist()

assert largest(5) == [999]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20, resource.RLIM_INFINITY))
assert largest(5) == [999]  # of a million edges it keeps few at a time
try:
    largest(EDGES // 2)
except (MemoryError, RuntimeError):
    print("refused")
assert largest(5) == [999]
"""


def test_out_of_memory_is_an_exception(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SHORTAGE],
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
