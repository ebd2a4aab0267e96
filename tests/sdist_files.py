"""Fails unless a source distribution has every file of the repository that a build or a test reads.

python tests/sdist_files.py dist/gat_ext-0.1.0.tar.gz
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# For work on the repository itself.
LEFT_OUT = {".ci/run", ".ci/stranger", ".clang-format", ".gitignore", ".pre-commit-config.yaml"}


def tracked() -> set[str]:
    """The files that git tracks."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(listed.stdout.rstrip("\0").split("\0"))


def packed(archive: Path) -> set[str]:
    """The files of a source distribution, relative to its folder."""
    with tarfile.open(archive) as files:
        return {member.name.split("/", 1)[1] for member in files if member.isfile()}


def main(archive: str) -> int:
    """Compares, and prints what is missing."""
    found = packed(Path(archive))
    missing = sorted(tracked() - LEFT_OUT - found)
    built = sorted(name for name in found if name.endswith((".so", ".pyc")))
    for name in missing:
        print(f"missing: {name}")
    for name in built:
        print(f"should not be there: {name}")
    print(f"{archive}: {len(found)} files, {len(missing)} missing")
    return 1 if missing or built else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
