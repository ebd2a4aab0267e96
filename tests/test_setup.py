"""The build's checks: one sentence, before anything is compiled."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gat_ext

SETUP = Path(__file__).parents[1] / "setup.py"
# Runs setup.py for each list of statements, in one process, and prints why each run ended.
SEVERAL = f"""
import json, os, runpy, sys, sysconfig, torch
before = os.environ.copy(), torch.__version__, sysconfig.get_path
sentences = []
for statements in json.loads(sys.argv[1]):
    os.environ["CXX"], torch.__version__, sysconfig.get_path = "g++", *before[1:]
    exec(statements)
    sys.argv[:] = ["setup.py", "build_ext"]
    try:
        runpy.run_path({str(SETUP)!r}, run_name="__main__")
    except SystemExit as error:
        sentences.append(error.code)
print(json.dumps(sentences))
"""


def run(tmp_path, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert not list(tmp_path.iterdir())
    return done


def test_a_missing_compiler_is_named(tmp_path):
    done = run(tmp_path, str(SETUP), "build_ext", CXX="nowhere-g++")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("gat_ext needs")]
    assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0], done.stderr
    assert "no nowhere-g++ is on PATH" in lines[0] and "apt install g++" in lines[0]


def test_what_is_missing_is_named(tmp_path):
    cases = {
        'os.environ["CXX"] = "false"': ("C++20", "with false: no message"),
        'os.environ["CXX"] = "g++ -include nowhere.h"': ("C++20", "nowhere.h: No such file"),
        "sysconfig.get_path = lambda *a, **k: '/nowhere'": ("headers of Python", "python3-dev"),
        'torch.__version__ = "2.9.1+cpu"': ("torch 2.10 or later", "2.9.1+cpu is installed"),
    }
    done = run(tmp_path, "-c", SEVERAL, json.dumps(list(cases)))
    assert done.returncode == 0, done.stderr
    sentences = json.loads(done.stdout)
    for (case, words), sentence in zip(cases.items(), sentences, strict=True):
        assert sentence.startswith("gat_ext needs") and "\n" not in sentence, case
        assert all(word in sentence for word in words), (case, sentence)


def test_the_version_is_in_one_place_and_cited():
    root = SETUP.parent
    project = (root / "pyproject.toml").read_text().split("[project]")[1].split("\n[")[0]
    assert '"version"' in project.split("dynamic =")[1].split("\n")[0]
    assert not re.search(r"^version =", project, re.MULTILINE)
    cited = re.search(r"^version: (.*)$", (root / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None and cited[1] == gat_ext.__version__


def test_a_source_distribution_has_every_source():
    """What setup.py compiles and what it reads is in a folder that MANIFEST.in names."""
    root = SETUP.parent
    lines = [line.split() for line in (root / "MANIFEST.in").read_text().splitlines()]
    grafted = {name for command, *names in lines if command == "graft" for name in names}
    included = {name for command, *names in lines if command == "include" for name in names}
    patterns = re.findall(r'"((?:csrc|build_backend)/[^"]*)"', SETUP.read_text())
    assert patterns and {pattern.split("/")[0] for pattern in patterns} <= grafted
    assert {"build_backend", "tests"} <= grafted and "LICENSE" in included
    assert all((root / name).exists() for name in grafted | included)
