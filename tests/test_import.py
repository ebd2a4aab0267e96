"""Importing the package: from a source folder, and its rooms at their first use."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import gat_ext

PACKAGE = Path(gat_ext.library_path).parent


ALONE = """
import pathlib, sys, tempfile
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in f"{finder}"]
with tempfile.TemporaryDirectory() as without:
    for folder in [path for path in sys.path if pathlib.Path(path, "gat_ext").is_dir()]:
        sys.path.remove(folder)
        for entry in pathlib.Path(folder).glob("*") if folder.endswith("-packages") else []:
            if not entry.name.startswith("gat_ext"):
                pathlib.Path(without, entry.name).symlink_to(entry)
    sys.path = ["", *sys.path, without, *sys.argv[1:]]
"""


def run(code: str, cwd: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    """Runs code in a folder, with ``path`` at the end of sys.path and no other gat_ext."""
    command = [sys.executable, "-c", ALONE + textwrap.indent(code, "    "), *map(str, path)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def folders(tmp_path):
    """A source folder without the extension, and a package with it."""
    source, installed = tmp_path / "clone" / "gat_ext", tmp_path / "site" / "gat_ext"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copytree(source, installed)
    for library in PACKAGE.glob("*.so"):
        (installed / library.name).symlink_to(library)
    return source, installed


USE = """
import torch, gat_ext
layer = gat_ext.nn.GATConv(4, 2)
print(layer(torch.ones(3, 4), torch.tensor([[0, 1], [1, 2]])).shape[1], gat_ext.nn.__file__)
"""


def test_a_source_folder_uses_the_installed_package(folders):
    source, installed = folders
    done = run(USE, source.parent, installed.parent)
    assert done.stdout.split() == ["2", str(installed / "nn" / "__init__.py")], done.stderr
    assert "UserWarning" not in done.stderr


def test_a_changed_source_folder_says_that_it_is_not_used(folders):
    source, installed = folders
    (source / "nn" / "mine.py").write_text("")
    done = run(USE, source.parent, installed.parent)
    assert done.returncode == 0, done.stderr
    assert f"{source} has no built extension" in done.stderr
    assert "pip install --no-build-isolation -e ." in done.stderr


def test_a_source_folder_alone_says_how_to_install(folders):
    source, _ = folders
    done = run("import gat_ext", source.parent)
    assert done.returncode == 1
    assert f"ImportError: {source} is a source folder" in done.stderr.splitlines()[-1]


def test_rooms_are_imported_at_their_first_use(tmp_path):
    code = """
import gat_ext
assert "gat_ext.datasets" not in sys.modules and "gat_ext.training" not in sys.modules
assert {"datasets", "nn", "training", "interop"} <= set(dir(gat_ext))
print(gat_ext.datasets.load("karate").name, gat_ext.explain.__name__, gat_ext.models.GAT.__name__)
try:
    gat_ext.layers
except AttributeError as error:
    print(error)
"""
    done = run(code, tmp_path, PACKAGE.parent)
    assert done.stdout.splitlines() == [
        "karate gat_ext.explain GAT",
        "module 'gat_ext' has no attribute 'layers'",
    ], done.stderr
