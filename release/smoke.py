"""Checks an installed gat_ext: values, gradients, and that it runs on torch's own libraries.

python smoke.py    prints as JSON what it found; an AssertionError if a check fails
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

# Sleeping threads, so that none is added beside busy processes and the threads can be counted.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import torch

import gat_ext
from gat_ext import _C, Graph, functional, reference
from gat_ext.nn import GATConv
from gat_ext.testing import reference_inputs, sample_graph, sample_inputs, tolerance

THREADS = 3
OPENMP = r"lib(gomp|iomp5|omp)\b.*\.so.*"
TORCHS = r"lib(c10|torch|torch_cpu|torch_python)\.so"


def mapped(pattern: str) -> list[str]:
    """The shared libraries of this process whose file name matches."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[5] for line in maps if line.count("/")}
    return sorted(path for path in paths if re.fullmatch(pattern, os.path.basename(path)))


def check_operators() -> int:
    """Compares every score and option, with gradients, with plain torch; returns their number."""
    count, graph = 0, sample_graph("multi_edges")
    for score in reference.SCORES:
        for name, inputs in sample_inputs(score, graph, requires_grad=True).items():
            given = {key: value for key, value in inputs.items() if torch.is_tensor(value)}
            leaves = [tensor for tensor in given.values() if tensor.requires_grad]
            out = functional.edge_attention(graph, **inputs)
            expected = reference.edge_attention(graph, **reference_inputs(graph, inputs))
            for found, wanted in zip(
                (out, *torch.autograd.grad(out.square().sum(), leaves)),
                (expected, *torch.autograd.grad(expected.square().sum(), leaves)),
                strict=True,
            ):
                assert torch.allclose(found, wanted, **tolerance(found.dtype)), (score, name)
            count += 1
    return count


def check_layer() -> None:
    """Compares a GATConv, forward and backward, with the formula in plain torch."""
    layer = GATConv(8, 4, heads=2, add_self_loops=False).double()
    index = torch.randint(50, (2, 400))
    x = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    h = layer.lin(x).view(50, 2, 4)
    terms = ((h * layer.att_dst).sum(-1), (h * layer.att_src).sum(-1))
    expected = reference.gat_attention(Graph(index, num_nodes=50), h, *terms).flatten(1)
    expected = expected + layer.bias
    out = layer(x, index)
    inputs = (x, *layer.parameters())
    found = torch.autograd.grad(out.square().sum(), inputs)
    wanted = torch.autograd.grad(expected.square().sum(), inputs)
    for one, other in zip((out, *found), (expected, *wanted), strict=True):
        assert torch.allclose(one, other, **tolerance(one.dtype))


def check_threads() -> int:
    """The loops of gat_ext run on the threads that torch's loops have started; their number."""
    torch.set_num_threads(THREADS)
    tasks = Path("/proc/self/task")
    graph = Graph(torch.randint(20_000, (2, 400_000)), num_nodes=20_000)
    x = torch.rand(20_000, 64).exp()  # a loop of torch
    before = len(list(tasks.iterdir()))
    functional.spmm(graph, x)
    after = len(list(tasks.iterdir()))
    assert after == before >= THREADS, f"{before} threads after torch's loop, {after} after ours"
    return after


def main() -> None:
    """Runs the checks."""
    torch.manual_seed(0)
    operators, threads = check_operators(), check_threads()
    check_layer()
    openmp, libraries = mapped(OPENMP), mapped(TORCHS)
    found = {
        "gat_ext": gat_ext.__version__,
        "torch": torch.__version__,
        "file": gat_ext.__file__,
        "isa": _C.isa(),
        "cuda": _C.build_info()["cuda"],
        "operators": operators,
        "threads": threads,
        "openmp": openmp,
        "libraries": libraries,
    }
    print(json.dumps(found))
    assert len(openmp) == 1, f"expected one OpenMP runtime: {openmp}"
    folder = Path(torch.__file__).parent
    assert all(Path(path).is_relative_to(folder) for path in libraries), libraries
    assert len({os.path.basename(path) for path in libraries}) == len(libraries)


if __name__ == "__main__":
    main()
