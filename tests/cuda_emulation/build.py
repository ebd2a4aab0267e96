"""Compiles the CUDA kernels for the emulator: ``python tests/cuda_emulation/build.py OUT_DIR``.

Leaves ``OUT_DIR/gat_ext_emulated.so`` and prints its path. Loaded after ``gat_ext`` by
``torch.ops.load_library``, it lets CPU tensors run on the CUDA kernels. Only what changed is
compiled again. MAX_JOBS says how many compilers run at once (2), CXX which one (g++).

With ``--sanitize address`` every access of a kernel to memory is checked; Python then has to be
started with ``LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++
-print-file-name=libstdc++.so.6)"`` and ``ASAN_OPTIONS=detect_leaks=0``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAME = "gat_ext_emulated.so"
FLAGS = [
    "-std=c++20",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",  # as nvcc: rows are accessed as words and vectors
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-psabi",
    "-Wno-unknown-pragmas",  # unroll
    "-Wno-maybe-uninitialized",  # false positives for registers that a loop over lanes fills
]
RULES = """\
rule compile
  command = $cxx $flags -MD -MF $out.d -x c++ -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = $in
rule link
  command = $cxx -shared $in $link -o $out
"""


def sources() -> list[Path]:
    """All CUDA kernels and bindings, the code they share with the CPU's, and their registration."""
    kernels = sorted(ROOT.glob("csrc/cuda/*.cu"))
    bindings = sorted(ROOT.glob("csrc/torch/cuda/*.cpp"))
    shared = ROOT / "csrc/torch/cpu/allocate.cpp"
    return [
        *kernels,
        *(p for p in bindings if p.name != "library.cpp"),
        shared,
        HERE / "library.cpp",
    ]


def ninja_file(sanitize: str | None) -> str:
    """The build file of ninja."""
    cxx = os.environ.get("CXX", "g++")
    launcher = "ccache " if shutil.which("ccache") else ""
    flags = [*FLAGS, f"-I{HERE / 'include'}", *(f"-isystem {p}" for p in include_paths())]
    flags.append(f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}")
    link = [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
    if sanitize:
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g1"]
        link.append(f"-fsanitize={sanitize}")
    lines = [
        f"cxx = {launcher}{cxx}",
        f"flags = {' '.join(flags)}",
        f"link = {' '.join(link)}",
        RULES,
    ]
    objects = []
    for source in sources():
        objects.append(f"{source.parent.name}_{source.name}.o")
        lines.append(f"build {objects[-1]}: compile {source}")
    lines.append(f"build {NAME}: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def build(folder: Path, sanitize: str | None = None) -> Path:
    """Compiles into ``folder`` and returns the library."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text(ninja_file(sanitize))
    jobs = os.environ.get("MAX_JOBS", "2")
    subprocess.run(["ninja", "-C", str(folder), "-j", jobs, NAME], check=True, stdout=sys.stderr)
    return (folder / NAME).resolve()


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Compile the CUDA kernels for the emulator.")
    parser.add_argument("folder", type=Path, help="where the library and the objects go")
    parser.add_argument("--sanitize", help="a sanitizer, as -fsanitize takes it")
    args = parser.parse_args()
    print(build(args.folder, args.sanitize))


if __name__ == "__main__":
    main()
