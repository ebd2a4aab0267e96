"""Prints registers, spills, stack and shared memory of every CUDA kernel, as ptxas reports them.

python tests/cpp/ptxas_report.py
    compiles csrc/cuda/*.cu with nvcc, a minute or more for each file
python tests/cpp/ptxas_report.py build/cmake/cuda/*.log
    reads the logs of a build with -DGAT_NVCC=ON
python tests/cpp/ptxas_report.py --sort registers --only forward
    prints some of the kernels

The exit status is 1 if a kernel spills or needs more than --max-registers, unless --allow exempts
it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

CUDA = Path(__file__).resolve().parents[2] / "csrc" / "cuda"
ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\w+)'")
FUNCTION = re.compile(r"Function properties for (\S+)")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


@dataclass
class Function:
    """A kernel, or a device function that was not inlined, with its worst figures over all GPUs."""

    name: str
    registers: dict[str, int] = field(default_factory=dict)  # of each architecture; kernels only
    spill_stores: int = 0
    spill_loads: int = 0
    stack: int = 0
    shared: int = 0

    @property
    def spills(self) -> int:
        return self.spill_stores + self.spill_loads

    @property
    def max_registers(self) -> int:
        return max(self.registers.values(), default=0)


def parse(lines: Iterable[str]) -> dict[str, Function]:
    """Returns {mangled name: figures} from the output of ``nvcc -Xptxas -v``."""
    found: dict[str, Function] = {}
    kernel = function = None
    arch = ""
    for line in lines:
        if match := ENTRY.search(line):
            kernel, arch = found.setdefault(match[1], Function(match[1])), match[2]
        elif match := FUNCTION.search(line):
            function = found.setdefault(match[1], Function(match[1]))
        elif function and (match := FRAME.search(line)):
            function.stack = max(function.stack, int(match[1]))
            function.spill_stores = max(function.spill_stores, int(match[2]))
            function.spill_loads = max(function.spill_loads, int(match[3]))
        elif kernel and (match := REGISTERS.search(line)):
            kernel.registers[arch] = int(match[1])
            if match := SHARED.search(line):
                kernel.shared = max(kernel.shared, int(match[1]))
    return found


def shorten(name: str) -> str:
    """Removes ``gat::cuda::`` and the parameters, which repeat the template arguments."""
    name = re.sub(r"\((?:int|bool|unsigned int|long)\)", "", name)  # (int)4 → 4
    depth = 0
    for position, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0 and not name.startswith("(anonymous", position):
            name = name[:position]
            break
    name = re.sub(r"\bgat::(?:cuda::)?|\(anonymous namespace\)::|^void ", "", name)
    return name.replace(" >", ">").replace("__nv_bfloat16", "bf16")


def demangle(functions: dict[str, Function]) -> None:
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if tool is None or not functions:
        return
    names = subprocess.run(
        [tool], input="\n".join(functions), check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for function, name in zip(functions.values(), names, strict=True):
        function.name = shorten(name)


def compile_all(architectures: list[str], jobs: int) -> str:
    """Compiles every .cu of csrc/cuda and returns the output of ptxas."""
    targets = [f"-gencode=arch=compute_{a[3:]},code={a}" for a in architectures]
    command = ["nvcc", "-std=c++17", "-O3", "-Xptxas", "-v", *targets, "-c", "-o", os.devnull]

    def one(source: Path) -> str:
        done = subprocess.run([*command, source], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}nvcc could not compile {source}")
        return done.stdout + done.stderr

    with ThreadPoolExecutor(jobs) as pool:
        return "\n".join(pool.map(one, sorted(CUDA.glob("*.cu"))))


def table(functions: list[Function], architectures: list[str]) -> str:
    heads = [*architectures, "spill stores", "spill loads", "stack", "shared"]
    rows = [
        [
            *(str(f.registers.get(a, "-")) for a in architectures),
            *(str(n) for n in (f.spill_stores, f.spill_loads, f.stack, f.shared)),
            f.name,
        ]
        for f in functions
    ]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines = ["  ".join(map(str.rjust, heads, widths)) + "  kernel"]
    lines += ["  ".join([*map(str.rjust, row, widths), row[-1]]) for row in rows]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "logs", nargs="*", type=Path, help="output of nvcc -Xptxas -v; none: compile now"
    )
    parser.add_argument(
        "--arch", nargs="+", default=["sm_80", "sm_90"], help="architectures to compile for"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilers to run at once")
    parser.add_argument("--sort", choices=["name", "registers", "spills", "stack"], default="name")
    parser.add_argument(
        "--top", type=int, metavar="N", help="print the first N kernels only; all are checked"
    )
    parser.add_argument(
        "--only", metavar="REGEX", help="leave out kernels whose name does not match"
    )
    parser.add_argument("--max-registers", type=int, default=224, metavar="N")
    parser.add_argument(
        "--allow", metavar="REGEX", help="kernels that may spill and use any number of registers"
    )
    return parser.parse_args()


def main() -> int:
    args = arguments()
    text = "\n".join(p.read_text() for p in args.logs) or compile_all(args.arch, args.jobs)
    found = parse(text.splitlines())
    demangle(found)
    functions = sorted(
        (f for f in found.values() if re.search(args.only or "", f.name)), key=lambda f: f.name
    )
    if not functions:
        sys.exit("no kernel was found in the output of ptxas, so nothing was checked")
    if args.sort != "name":
        key = {"registers": "max_registers"}.get(args.sort, args.sort)
        functions.sort(key=lambda f: getattr(f, key), reverse=True)
    print(table(functions[: args.top], sorted({a for f in functions for a in f.registers})))
    bad = [
        f
        for f in functions
        if (f.spills or f.max_registers > args.max_registers)
        and not (args.allow and re.search(args.allow, f.name))
    ]
    print(
        f"{len(functions)} kernels, at most {max(f.max_registers for f in functions)} registers; "
        f"{len(bad)} spill or use more than {args.max_registers}"
    )
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
