"""The build's checks: one sentence, before anything is compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / "setup.py"
OLD = f"""
import runpy, sys, torch
torch.__version__ = "2.9.1+cpu"
sys.argv = ["setup.py", "build_ext"]
runpy.run_path({str(SETUP)!r}, run_name="__main__")
"""


def refusal(tmp_path, arguments, **environment):
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("gat_ext needs")]
    assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0], done.stderr
    assert not list(tmp_path.iterdir())
    return lines[0]


BUILD = [str(SETUP), "build_ext"]


def test_a_missing_compiler_is_named(tmp_path):
    message = refusal(tmp_path, BUILD, CXX="nowhere-g++")
    assert "no nowhere-g++ is on PATH" in message and "apt install g++" in message


@pytest.mark.parametrize("compiler", ["false", "g++ -include nowhere.h"])
def test_a_compiler_that_cannot_is_named_with_its_error(tmp_path, compiler):
    message = refusal(tmp_path, BUILD, CXX=compiler)
    assert "C++20" in message and compiler in message
    assert ("no message" in message) == (compiler == "false")


def test_missing_headers_of_python_are_named(tmp_path):
    code = f"import runpy, sys, sysconfig; sysconfig.get_path = lambda *a, **k: '/nowhere'\n{OLD}"
    message = refusal(tmp_path, ["-c", code.replace("2.9.1+cpu", "2.13.0")])
    assert "headers of Python" in message and "python3-dev" in message


def test_an_old_torch_is_named(tmp_path):
    message = refusal(tmp_path, ["-c", OLD])
    assert "torch 2.10 or later" in message and "2.9.1+cpu is installed" in message
