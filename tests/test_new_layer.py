"""The recipe of CONTRIBUTING for a layer: a class, its export and a row, which adds its tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import torch
from layers import LAYERS, Layer
from torch import Tensor

from gat_ext import nn
from gat_ext.functional import dot_attention
from gat_ext.nn.base import AttentionConv, Operands
from gat_ext.nn.linear import linear, reset_


class MineConv(AttentionConv):
    """Dot-product attention of projected features with themselves."""

    operator = staticmethod(dot_attention)
    reads: ClassVar[dict[str, str]] = {"lin": "src"}

    def __init__(
        self, in_channels: int, out_channels: int, heads: int = 1, add_self_loops: bool = True
    ) -> None:
        super().__init__(in_channels)
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.add_self_loops = add_self_loops
        self.lin = linear(in_channels, heads * out_channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        reset_(self.lin)

    def projections(self) -> tuple[torch.nn.Linear, torch.nn.Linear]:
        return self.lin, self.lin

    def project(self, x_src: Any, x_dst: Any, edge_attr: Tensor | None, num_dst: int) -> Operands:
        src = self.split_heads(self.lin(x_src))
        return Operands((src, src, src), {})


ROW = Layer(
    MineConv,
    "dot_attention",
    plain=[{}, {"heads": 2}, {"add_self_loops": False}],
    lacks=frozenset({"pairs", "sources alone", "edge_attr", "dropout", "pyg", "dgl"}),
)


def pytest_configure() -> None:
    """Adds the row if this file is a pytest plugin."""
    nn.MineConv = MineConv  # type: ignore[attr-defined]
    nn.__all__.append("MineConv")
    LAYERS["MineConv"] = ROW


# Test file -> number of tests that this row must add.
BOUGHT = {
    "test_batch.py": 20,
    "test_compile.py": 3,
    "test_compile_lazy.py": 6,
    "test_determinism.py": 4,
    "test_double_backward.py": 1,
    "test_edge_mask.py": 3,
    "test_explain.py": 1,
}


def test_a_row_adds_the_tests_of_its_promises(tmp_path):
    """The tests parametrised by the table pass for a layer that is defined only here."""
    folder = Path(__file__).parent
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    options = ["-q", "-rA", "-k", "MineConv", "-p", "no:cacheprovider", "-p", Path(__file__).stem]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(str(folder / file) for file in BOUGHT)],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # without the source tree
        env={**os.environ, "PYTHONPATH": path},
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    passed = Counter(re.findall(r"^PASSED (?:.*/)?(test_\w+\.py)::", run.stdout, re.MULTILINE))
    assert not {file: passed[file] for file, count in BOUGHT.items() if passed[file] < count}
