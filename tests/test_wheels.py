"""The script that builds and tries wheels: what it excludes and says; one OpenMP runtime."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gat_ext
from gat_ext import _C

FOLDER = Path(__file__).parents[1] / "release"
# Libraries that manylinux expects of every system (PEP 600).
SYSTEM = {"ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6"}
SYSTEM |= {"libpthread.so.0", "librt.so.1", "libstdc++.so.6"}

# Uses each symbol whose version the header sets.
PROGRAM = """
#include <cmath>
#include <condition_variable>
#include <memory>
#include <mutex>

std::mutex mutex;
std::condition_variable changed;

double f(double x, std::shared_ptr<double> y) {
  std::unique_lock<std::mutex> lock(mutex, std::try_to_lock), second(mutex);
  changed.wait(second);
  const std::shared_ptr<double> copy = y;
  return std::exp(x) + std::log(*copy);
}
"""


@pytest.fixture(scope="module")
def wheels():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import wheels

        yield wheels


def readelf(*arguments):
    if shutil.which("readelf") is None:
        pytest.skip("needs readelf")
    command = ("readelf", "--wide", *map(str, arguments))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_library_is_excluded_or_of_the_system(wheels):
    if _C.build_info()["cuda"]:
        pytest.skip("wheels have no CUDA kernels")
    library = Path(gat_ext.library_path)
    needed = set()
    for path in (library, Path(_C.__file__)):
        needed |= set(re.findall(r"\(NEEDED\).*\[(.*)\]", readelf("--dynamic", path)))
    assert "libgomp.so.1" in needed
    assert needed <= {*wheels.EXCLUDED, *SYSTEM, library.name}


def test_there_is_one_openmp_runtime():
    """That of torch: a second one would start threads of its own."""
    smoke = [sys.executable, str(FOLDER / "smoke.py")]
    done = subprocess.run(smoke, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["openmp"]) == 1 and found["operators"] > 50
    torchs = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
    if torchs.exists():  # not in a torch that was built on this machine
        assert Path(found["openmp"][0]).samefile(torchs)


def test_no_symbol_is_newer_than_glibc_2_28(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    source, library = tmp_path / "probe.cpp", tmp_path / "probe.so"
    source.write_text(PROGRAM)
    flags = ("-std=c++20", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-o", str(library))
    header = str(FOLDER / "glibc_2_28.h")
    subprocess.run(["g++", "-include", header, *flags, str(source)], check=True)
    needed = re.findall(r"Name: (GLIBC|GLIBCXX)_([\d.]+)", readelf("--version-info", library))
    newest = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24)}
    assert {name for name, _ in needed} == set(newest)
    for name, version in needed:
        assert tuple(map(int, version.split("."))) <= newest[name], (name, version)
    exported = readelf("--dyn-syms", library)
    assert "__libc_single_threaded" not in exported and "exp@GLIBC_2.2.5" in exported


def test_interpreters_that_are_not_there_are_listed(wheels, tmp_path, capsys):
    broken = tmp_path / "python3.10"
    broken.write_text("#!/bin/sh\necho not installed >&2\nexit 127\n")
    broken.chmod(0o755)
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    assert wheels.main(["--python", "python-nowhere", str(broken), *folders]) == 1
    lines = capsys.readouterr().out.splitlines()
    header = ["python", "wheel", "platform", "size", "build", "trial", "result"]
    assert lines[0].split() == header
    assert re.fullmatch(r"python-nowhere +left out: no such interpreter", lines[1])
    assert lines[2].endswith("does not start: not installed")
    assert not list((tmp_path / "out").iterdir())


def test_the_torch_is_that_of_the_build_backend(wheels):
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+", wheels.default_torch())


def test_the_trial_sees_nothing_of_the_users_environment(wheels, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org")
    env = wheels.environment("/only/this", GAT_EXT_CUDA="0")
    assert env["PATH"] == "/only/this" and "PYTHONPATH" not in env
    assert env["GAT_EXT_CUDA"] == "0" and env["PIP_INDEX_URL"] == "https://example.org"
