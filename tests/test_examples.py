"""The examples run, print results and pass their assertions."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gat_ext

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
ARGUMENTS = {"explain_karate.py": ["karate.png"]}


def imports(path):
    """Modules that a script imports at the top."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def is_there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def test_there_are_examples():
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_example_runs(path, tmp_path):
    missing = [name for name in imports(path) if not is_there(name)]
    if path.name in ARGUMENTS and not is_there("matplotlib"):
        missing.append("matplotlib")
    if missing:
        pytest.skip(f"{path.name} needs {', '.join(missing)}, which is not installed")
    assert ast.get_docstring(ast.parse(path.read_text()))
    result = subprocess.run(
        [sys.executable, str(path), *ARGUMENTS.get(path.name, [])],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(gat_ext.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    if path.name in ARGUMENTS:
        assert (tmp_path / ARGUMENTS[path.name][0]).stat().st_size > 1000


def test_examples_check_what_they_print():
    for path in SCRIPTS:
        tree = ast.walk(ast.parse(path.read_text()))
        assert any(isinstance(node, ast.Assert) for node in tree), path.name
