"""The examples run, print results and pass their assertions."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gat_ext

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


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


# Runs scripts, each in a folder of its own, in one process, and prints what each has printed.
RUNNER = """
import contextlib, io, json, os, runpy, sys
printed = {}
for path, folder in json.loads(sys.argv[1]):
    os.chdir(folder)
    sys.path[0], sys.argv[:] = os.path.dirname(path), [path]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(path, run_name="__main__")
    printed[path] = out.getvalue()
print(json.dumps(printed))
"""


def missing_modules(path):
    return [name for name in imports(path) if not is_there(name)]


@pytest.mark.slow  # a build of the site runs them, too
def test_examples_run(tmp_path):
    runs = []
    for path in SCRIPTS:
        folder = tmp_path / path.stem
        folder.mkdir()
        if not missing_modules(path):
            runs.append((str(path), str(folder)))
    result = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(runs)],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(Path(gat_ext.__file__).parents[1]), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    for path, folder in runs:
        assert printed[path].strip(), path
        assert not list(Path(folder).iterdir()), f"{path} leaves files"
    if len(runs) < len(SCRIPTS):
        skipped = {path.name: missing for path in SCRIPTS if (missing := missing_modules(path))}
        pytest.skip(f"not installed, for these examples: {skipped}")


def test_examples_have_titles_and_check_what_they_print():
    for path in SCRIPTS:
        tree = ast.parse(path.read_text())
        title, line, blank, *_ = ast.get_docstring(tree).split("\n")
        assert (line, blank) == ("=" * len(title), ""), path.name
        assert any(isinstance(node, ast.Assert) for node in ast.walk(tree)), path.name
