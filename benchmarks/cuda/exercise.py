"""Runs every operator, forward and backward, on small graphs of odd sizes, for a memory checker.

    compute-sanitizer --tool memcheck python benchmarks/cuda/exercise.py --seconds 60

Results are compared with those of the CPU. The cases are in a fixed random order, so that a run out
of time has covered some of each kind. Set PYTORCH_NO_CUDA_MEMORY_CACHING=1, because in the cache of
torch's allocator the end of a tensor is not the end of an allocation.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

# For a package built in place; an installed one has priority.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from gat_ext import functional
from gat_ext.reference import SCORES
from gat_ext.testing import sample_graph, sample_inputs

Run = Callable[[str], list[Tensor]]

_GRAPHS = ("isolated", "multi_edges", "more_sources", "more_destinations", "unsorted", "no_edges")
_LARGE = ("long_row",)
_SHAPES = ((1, 1), (3, 7), (2, 33), (1, 130), (2, 64))
_DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
# Relative to the largest entry. Sums over 12,000 edges in another order differ in the last digits.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 4e-2, torch.float16: 1e-2}


def _attention(
    score: str, graph: str, shape: tuple[int, int], dtype: torch.dtype, option: str, device: str
) -> list[Tensor]:
    """Output, lse, weights, and the gradients of a sum of all three."""
    csr = sample_graph(graph, device)
    inputs = sample_inputs(score, csr, *shape, dtype, requires_grad=True)[option]
    out, weights, lse = functional.edge_attention(
        csr, **inputs, return_weights=True, return_lse=True
    )
    leaves = [t for t in inputs.values() if isinstance(t, Tensor) and t.requires_grad]
    total = out.float().square().sum() + weights.float().square().sum()
    total = total + lse.float().masked_fill(lse == -torch.inf, 0).sum()
    return [out, weights, lse, *torch.autograd.grad(total, leaves)]


def _sparse(
    operator: str, graph: str, shape: tuple[int, int], dtype: torch.dtype, device: str
) -> list[Tensor]:
    csr = sample_graph(graph, device)
    generator = torch.Generator().manual_seed(3)

    def leaf(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator).to(device, dtype).requires_grad_()

    heads, channels = shape
    if operator == "edge_softmax":
        leaves = [leaf(csr.num_edges, heads)]
        out = functional.edge_softmax(csr, *leaves)
    elif operator == "sddmm":
        leaves = [leaf(csr.num_dst, heads, channels), leaf(csr.num_src, heads, channels)]
        out = functional.sddmm(csr, *leaves)
    else:
        leaves = [leaf(csr.num_src, heads, channels), leaf(csr.num_edges, heads)]
        out = functional.spmm(csr, *leaves, reduce=operator.removeprefix("spmm "))
    return [out, *torch.autograd.grad(out.float().square().sum(), leaves)]


def cases() -> list[tuple[str, torch.dtype, Run]]:
    """(name, dtype, function of a device) in a fixed random order."""
    found: list[tuple[str, torch.dtype, Run]] = []
    graphs = [(graph, shape) for graph, shape in product(_GRAPHS, _SHAPES)]
    graphs += [(graph, shape) for graph, shape in product(_LARGE, ((2, 33), (1, 130)))]
    for (graph, shape), dtype in product(graphs, _DTYPES):
        size = f"{graph} {shape[0]}x{shape[1]} {dtype}"
        for score in SCORES:
            for option in sample_inputs(score, sample_graph("path")):
                run: Run = functools.partial(_attention, score, graph, shape, dtype, option)
                found.append((f"{score} {option} {size}", dtype, run))
        for operator in ("edge_softmax", "sddmm", *(f"spmm {r}" for r in ("sum", "mean", "max"))):
            run = functools.partial(_sparse, operator, graph, shape, dtype)
            found.append((f"{operator} {size}", dtype, run))
    random.Random(0).shuffle(found)
    return found


def difference(got: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    """The largest difference over the largest entry; infinite if non-finite entries differ."""
    worst = 0.0
    for ours, theirs in zip(got, want, strict=True):
        a, b = ours.detach().cpu().double(), theirs.detach().double()
        if not torch.equal(a.isfinite(), b.isfinite()):
            return float("inf")
        finite = b.isfinite()
        if finite.any():
            scale = b[finite].abs().max().clamp(min=1.0)
            worst = max(worst, float((a[finite] - b[finite]).abs().max() / scale))
    return worst


def main(argv: Sequence[str] | None = None) -> int:
    """Runs as many cases as time allows; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="(%(default)s)")
    args = parser.parse_args(argv)
    every = cases()
    bad, done, start = [], 0, time.monotonic()
    for name, dtype, run in every:
        if time.monotonic() - start > args.seconds:
            break
        error = difference(run(args.device), run("cpu"))
        done += 1
        if not error <= _TOLERANCE[dtype]:
            bad.append(f"{name}: off by {error:.1e}")
    for line in bad[:20]:
        print(f"ERROR {line}")
    print(f"{done} of {len(every)} cases on {args.device}, {len(bad)} differ from the CPU")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
