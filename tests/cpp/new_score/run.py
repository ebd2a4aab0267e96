"""Adds a score to a copy of the kernels as CONTRIBUTING.md describes, and checks its gradients.

``python tests/cpp/new_score/run.py --cxx g++`` copies csrc/core and csrc/cpu, adds one header and
one name in all.h, compiles check_gradients.cpp against the copy, and runs it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
FLAGS = ["-std=c++17", "-O1", "-fopenmp", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]


def add_score(scores: Path) -> None:
    """Add the header and the name."""
    shutil.copy(HERE / "dummy.h", scores)
    registry = scores / "all.h"
    text, count = re.subn(
        r"(using Scores = TypeList<.*)>;", r"\1, Dummy>;", registry.read_text(), flags=re.DOTALL
    )
    assert count == 1, f"{registry} has no list of scores"
    registry.write_text(
        text.replace('#include "dot.h"\n', '#include "dot.h"\n#include "dummy.h"\n')
    )


def main() -> None:
    """Copy, add, compile and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cxx", default="c++", help="the compiler")
    cxx = parser.parse_args().cxx
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("core", "cpu"):
            shutil.copytree(ROOT / "csrc" / part, folder / part)
        add_score(folder / "core" / "scores")
        program = folder / "check_gradients"
        include = [f"-I{folder}", f"-I{HERE.parent}"]
        sources = [HERE / "check_gradients.cpp", folder / "cpu" / "waiting.cpp"]
        subprocess.run([cxx, *FLAGS, *include, *sources, "-o", program], check=True)
        subprocess.run([program], check=True)


if __name__ == "__main__":
    main()
