"""The attention in Triton of the benchmarks, in Triton's interpreter, beside dense torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
PROGRAM = """
import torch
from bench_operators import ITEMS
from cases import Setting
from torch.testing import assert_close
from triton_attention import ATTENTIONS

for dtype in ("float64", "float32", "bfloat16"):
    for name in ATTENTIONS:
        setting = Setting("uniform", 20, 3, heads=3, channels=5, dtype=dtype)
        case = ITEMS[name].case(setting)
        found = {}
        for family in ("dense", "triton"):
            program = ITEMS[name].build[family](case)
            out = program.function(*program.args)
            leaves = list(program.leaves.values())
            found[family] = out, *torch.autograd.grad(out, leaves, case.tensors["grad_out"])
        close = {"rtol": 0.1, "atol": 0.1} if dtype == "bfloat16" else {}
        close = {"rtol": 1e-11, "atol": 1e-11} if dtype == "float64" else close
        for one, other in zip(*found.values(), strict=True):
            assert_close(one, other, **close)
print("equal")
"""


def test_attention_in_triton_has_the_results_of_dense_torch() -> None:
    pytest.importorskip("triton")
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS), "TRITON_INTERPRET": "1"},
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout == "equal\n"
