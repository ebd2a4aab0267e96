"""Waiting threads stop spinning beside other busy processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# One busy process for each CPU, and one for the threads of this process to wait for.
PROGRAM = """
import os, subprocess, sys, time
import torch
from gat_ext import Graph, _C, functional

torch.set_num_threads(2)
graph, x = Graph(torch.randint(3000, (2, 20_000)), num_nodes=3000), torch.randn(3000, 64)
busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(len(os.sched_getaffinity(0)))]
try:
    start, expected = time.monotonic(), functional.spmm(graph, x)
    while not _C.waits_briefly() and time.monotonic() - start < float(sys.argv[1]):
        assert torch.equal(functional.spmm(graph, x), expected)
    print(_C.waits_briefly())
    assert torch.equal(functional.spmm(graph, x), expected)
    if os.fork() == 0:  # without the threads of this process
        torch.set_num_threads(1)
        assert torch.equal(functional.spmm(graph, x), expected)
        os._exit(0)
    assert os.wait()[1] == 0
finally:
    for process in busy:
        process.kill()
"""


def run(seconds: float, **environment: str) -> str:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    cleared = {name: value for name, value in os.environ.items() if name not in names}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(seconds)],
        env=cleared | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_waits_are_brief_beside_busy_processes():
    assert run(60) == "True"


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_the_environment_decides(name):
    assert run(1, **{name: "PASSIVE" if name == "OMP_WAIT_POLICY" else "1000"}) == "False"
