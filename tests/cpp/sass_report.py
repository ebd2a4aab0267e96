"""Prints how many machine instructions the edge-attention kernels execute for an edge, on sm_90.

python tests/cpp/sass_report.py LIBRARY FILE...
    LIBRARY is gat_ext_emulated.so of tests/cuda_emulation/build.py, made of the same sources; each
    FILE is an object or cubin of csrc/cuda for sm_90. Needs cuobjdump and nvdisasm, which are in
    the packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm, --tools says in which folder
python tests/cpp/sass_report.py LIBRARY FILE... --show additive:bfloat16:forward
    also prints that kernel with the number of times each instruction is executed for an edge

Nothing is guessed: the emulated kernels are launched on two graphs of one row, and the machine code
of each launch is interpreted with its parameters and memory, for every warp (see sass/machine.py).
The difference of the two, by edges, is what an edge costs; the rest is what a row costs once. One
head of 128 channels, columns of 32 bits, no options; the first score of a row is its largest; the
row is too short to be split. What the machine code stores must be what the emulator stores.

The exit status is 1 if a count is above its limit in LIMITS.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ptxas_report import shorten
from sass.instructions import decode
from sass.machine import LANES, Grid, Memory, Program, Warp

import gat_ext
from gat_ext import functional

HEADS, CHANNELS = 1, 128
SCORES = ["additive", "additive_v2", "dot", "cosine"]
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# What is in the name of the kernel of each pass. Other kernels of a call count as "other".
PASSES = {"forward": "ForwardPass", "destination": "DestinationPass", "source": "SourcePass"}
# Largest number of instructions an edge: {score: {dtype: (forward, destination, source)}}: what
# it is now, and a little; additive has no destination pass. Edit them together with the kernels.
LIMITS: dict[str, dict[str, tuple[float, float, float]]] = {
    "additive": {
        "bfloat16": (20, 0, 34),
        "float32": (23, 0, 38),
    },
    "additive_v2": {
        "bfloat16": (55, 105, 99),
        "float32": (68, 126, 119),
    },
    "dot": {
        "bfloat16": (40, 54, 63),
        "float32": (53, 70, 73),
    },
    "cosine": {
        "bfloat16": (41, 57, 64),
        "float32": (54, 73, 75),
    },
}


class Observed(ctypes.Structure):
    """gat_emulation::Observed."""

    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("args", ctypes.POINTER(ctypes.c_void_p)),
        ("sizes", ctypes.POINTER(ctypes.c_size_t)),
        ("alignments", ctypes.POINTER(ctypes.c_size_t)),
        ("count", ctypes.c_size_t),
        ("done", ctypes.c_bool),
    ]


OBSERVER = ctypes.CFUNCTYPE(None, ctypes.POINTER(Observed))


@dataclass
class Cost:
    """What the launches of a kernel in one call executed."""

    program: Program
    counts: Counter[int] = field(default_factory=Counter)  # by address
    blocks: int = 0


def demangled(names: list[str]) -> list[str]:
    done = subprocess.run(
        ["c++filt"], input="\n".join(names), check=True, capture_output=True, text=True
    )
    return [shorten(name) for name in done.stdout.splitlines()]


def output_of(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Kernels:
    """The kernels for sm_90 in some files, by their names without parameters."""

    def __init__(self, files: list[Path]) -> None:
        self.where: dict[str, tuple[Path, str, int]] = {}  # file, mangled name, registers
        self.read: dict[str, Program] = {}
        for file in files:
            usage = output_of("cuobjdump", "-res-usage", "-arch", "sm_90", file)
            found = re.findall(r"Function (\S+):\s*REG:(\d+)", usage)
            for (mangled, count), name in zip(found, demangled([f[0] for f in found]), strict=True):
                self.where[name] = file, mangled, int(count)
        if not self.where:
            sys.exit(f"no machine code for sm_90 in {', '.join(map(str, files))}")

    def __contains__(self, name: str) -> bool:
        return name in self.where

    def __getitem__(self, name: str) -> Program:
        if name not in self.read:
            file, mangled, registers = self.where[name]
            text = output_of("cuobjdump", "--dump-sass", "-arch", "sm_90", "-fun", mangled, file)
            self.read[name] = decode(Program.parse(name, text.splitlines()))
            self.read[name].registers = registers
        return self.read[name]


def check_stored(name: str, stored: dict[int, int]) -> None:
    """Compares the words that the machine code stored with what the emulator left: as float32 or as
    two 16-bit numbers, since memory has no types."""
    words = sorted({address & ~3 for address in stored})
    if not words:  # such as a merge without long rows
        return
    left = np.array([np.frombuffer(ctypes.string_at(a, 4), np.uint32)[0] for a in words])
    mine = left.copy()
    for row, address in zip(mine.view(np.uint8).reshape(-1, 4), words, strict=True):
        for i in range(4):
            row[i] = stored.get(address + i, row[i])
    pairs = [
        [w.view(np.float32) for w in (mine, left)],
        *([(w << s & 0xFFFF0000).view(np.float32) for w in (mine, left)] for s in (0, 16)),
    ]
    single, high, low = (np.isclose(a, b, rtol=0.01, atol=1e-4) for a, b in pairs)
    wrong = ~(single | (high & low))
    if wrong.any():
        at = int(wrong.argmax())
        raise AssertionError(
            f"{name}: {wrong.sum()} of {len(words)} stored words differ; the first is "
            f"{mine[at]:#x} = {pairs[0][0][at]}, expected {left[at]:#x} = {pairs[0][1][at]}"
        )


class Watch:
    """Interprets the launches of the emulated library."""

    def __init__(self, library: Path, kernels: Kernels) -> None:
        self.kernels, self.library = kernels, ctypes.CDLL(str(library.resolve()))
        self.set_observer = self.library.gat_emulation_observe
        with open("/proc/self/maps") as maps:
            begins = [line.split("-")[0] for line in maps if line.endswith(f"{library.name}\n")]
        base = min(int(begin, 16) for begin in begins)
        symbols = [line.split() for line in output_of("nm", library).splitlines()]
        found = {base + int(s[0], 16): s[2] for s in symbols if len(s) == 3 and "_kernel" in s[2]}
        self.names = dict(zip(found, demangled(list(found.values())), strict=True))
        self.costs: dict[str, Cost] = {}
        self.stored: dict[int, int] = {}  # bytes, of the launch that runs
        self.error: Exception | None = None
        self.wanted: Callable[[str], bool] = bool

    @contextmanager
    def __call__(self, wanted: Callable[[str], bool]) -> Iterator[None]:
        """Sets ``costs`` to what the wanted kernels execute that are launched inside."""
        self.costs, self.error, self.wanted = {}, None, wanted
        observer = OBSERVER(self.see)
        self.set_observer(observer)
        try:
            yield
        finally:
            self.set_observer(None)
        if self.error:
            raise self.error

    def see(self, launch: ctypes._Pointer[Observed]) -> None:
        try:
            self.interpret(launch.contents)
        except Exception as error:  # a callback of C cannot raise
            self.error = self.error or error

    def interpret(self, launch: Observed) -> None:
        name = self.names[launch.kernel]
        if name not in self.kernels or not self.wanted(name):
            return
        if launch.done:
            check_stored(name, self.stored)
            return
        parameters = b""
        for i in range(launch.count):
            parameters += bytes(-len(parameters) % launch.alignments[i])
            parameters += ctypes.string_at(launch.args[i], launch.sizes[i])
        grid = Grid(launch.grid[0], launch.block[0], parameters)
        program = self.kernels[name]
        cost = self.costs.setdefault(name, Cost(program))
        cost.blocks += grid.blocks
        memory = Memory()
        for block in range(grid.blocks):
            for warp in range((grid.threads + LANES - 1) // LANES):
                cost.counts += Warp(program, grid, block, warp, memory).run().counts
        self.stored = memory.stored


def inputs(score: str, dtype: torch.dtype, num_dst: int, num_src: int) -> dict[str, Any]:
    """Of which the first edge of each row has the largest score, so that no sum is scaled later."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"value": (num_src, HEADS, CHANNELS)}
    if score != "additive":
        shapes |= {"query": (num_dst, HEADS, CHANNELS), "key": (num_src, HEADS, CHANNELS)}
    if score == "additive_v2":
        shapes["att"] = (HEADS, CHANNELS)
    if score in ("additive", "cosine"):
        shapes |= {"dst_term": (num_dst, HEADS), "src_term": (num_src, HEADS)}
    tensors = {n: torch.rand(shape, generator=generator) for n, shape in shapes.items()}
    for name in {"key", "src_term"} & set(tensors):
        tensors[name] = tensors[name].sort(0, descending=True).values
    return {n: t.to(dtype).requires_grad_() for n, t in tensors.items()}


def measure(watch: Watch, score: str, dtype: torch.dtype, degree: int) -> dict[str, Cost]:
    """The costs of one row with ``degree`` edges: a destination, for the source pass a source."""
    found: dict[str, Cost] = {}
    every, one = torch.arange(degree), torch.zeros(degree, dtype=torch.int64)
    for of_sources, (src, dst) in enumerate(((every, one), (one, every))):
        num_dst, num_src = int(dst.max()) + 1, int(src.max()) + 1
        graph = gat_ext.Graph(torch.stack([src, dst]), num_src=num_src, num_dst=num_dst)
        graph.transpose()
        tensors = inputs(score, dtype, num_dst, num_src)
        grad = torch.rand(num_dst, HEADS, CHANNELS, generator=torch.Generator().manual_seed(1))
        with watch(lambda name, wanted=bool(of_sources): (PASSES["source"] in name) == wanted):
            out = functional.edge_attention(graph, score=score, **tensors)
            torch.autograd.grad(out, list(tensors.values()), grad.to(dtype))
        found |= watch.costs
    return found


@dataclass
class Entry:
    """A kernel in the table."""

    score: str
    dtype: str
    role: str
    name: str
    registers: int
    edge: float
    row: float
    by_address: dict[int, float]
    program: Program


def entries(watch: Watch, score: str, dtype: str, degrees: tuple[int, int]) -> list[Entry]:
    few, many = (measure(watch, score, DTYPES[dtype], degree) for degree in degrees)
    edges = degrees[1] - degrees[0]
    out = []
    for name, cost in many.items():
        if name not in few or few[name].blocks != cost.blocks:
            sys.exit(f"{name}: its grids differ; are rows of {degrees[1]} edges split?")
        first = few[name].counts
        by_address = {a: (n - first[a]) / edges for a, n in cost.counts.items() if n != first[a]}
        edge = sum(by_address.values())
        row = cost.counts.total() - edge * degrees[1]
        role = next((role for role, word in PASSES.items() if word in name), "other")
        program = cost.program
        entry = Entry(score, dtype, role, name, program.registers, edge, row, by_address, program)
        out.append(entry)
    order = [*PASSES, "other"]
    return sorted(out, key=lambda entry: order.index(entry.role))


def listing(entry: Entry) -> str:
    """The instructions that an edge costs, with how often each is executed for an edge."""
    lines = [f"{entry.name}: {entry.edge:.1f} an edge"]
    kinds: Counter[str] = Counter()
    for i in entry.program.instructions:
        if count := entry.by_address.get(i.address, 0):
            lines.append(f"  {i.address:05x} {count:8.4f}  {i.text}")
            kinds[".".join(i.name.split(".")[:2])] += count  # type: ignore[assignment]
    lines += [f"  {count:8.2f}  {kind}" for kind, count in kinds.most_common(24)]
    return "\n".join(lines)


def limit(entry: Entry) -> float | None:
    of_passes = LIMITS.get(entry.score, {}).get(entry.dtype)
    return of_passes[list(PASSES).index(entry.role)] if of_passes and entry.role in PASSES else None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("library", type=Path)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tools", type=Path, help="folder of cuobjdump and nvdisasm")
    parser.add_argument("--scores", nargs="+", choices=SCORES, default=SCORES)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--degrees", nargs=2, type=int, default=(32, 64), metavar="DEGREE")
    parser.add_argument("--show", action="append", default=[], metavar="SCORE:DTYPE:PASS")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    if args.tools:
        os.environ["PATH"] = f"{args.tools}{os.pathsep}{os.environ['PATH']}"
    if missing := [tool for tool in ("cuobjdump", "nvdisasm") if not shutil.which(tool)]:
        sys.exit(f"{' and '.join(missing)} not found; see --help")
    torch.ops.load_library(str(args.library))
    watch = Watch(args.library, Kernels(args.files))
    print("  an edge   limit  a row  registers  score        dtype     pass")
    over = 0
    for score in args.scores:
        for dtype in args.dtypes:
            for entry in entries(watch, score, dtype, tuple(args.degrees)):
                most = limit(entry)
                over += most is not None and entry.edge > most
                print(
                    f"{entry.edge:9.1f}  {'-' if most is None else most:>6}  {entry.row:5.0f}  "
                    f"{entry.registers:9d}  {score:11}  {dtype:8}  {entry.role}: {entry.name}",
                    flush=True,
                )
                if f"{score}:{dtype}:{entry.role}" in args.show:
                    print(listing(entry))
    if over:
        print(f"{over} above their limits; see LIMITS in {Path(__file__).name}")
    return bool(over)


if __name__ == "__main__":
    sys.exit(main())
