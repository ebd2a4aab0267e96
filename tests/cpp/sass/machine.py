"""Interprets the machine code (SASS) of a kernel for sm_90, one warp at a time, and counts.

A ``Program`` is one kernel as ``cuobjdump --dump-sass`` prints it. ``Warp(program, ...).run()``
executes it for 32 lanes: memory is read where the pointers of the kernel point, in this process,
and stores are kept aside. Lanes that diverge run in the order of their addresses and meet where
the code says so (BSYNC). What an instruction does is in instructions.py; one that is not there
is an error.
"""

from __future__ import annotations

import ctypes
import re
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

LANES = 32
EVERY = (1 << LANES) - 1
PARAMETERS = 0x210  # where they begin in the constant bank, on sm_90
RZ, UR0, URZ, NOWHERE = 255, 256, 319, 320
PT, UP0, UPT, NO_PREDICATE = 7, 8, 15, 16
Words = npt.NDArray[np.uint32]
Bits = npt.NDArray[np.bool_]
LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
BIT = np.left_shift(np.uint64(1), np.arange(LANES, dtype=np.uint64))


class Unsupported(Exception):
    """An instruction, or a use of one, that the interpreter does not know."""


def lanes_of(mask: int) -> Bits:
    return np.asarray((np.uint64(mask) & BIT) != 0, np.bool_)


def mask_of(bits: Bits) -> int:
    return int(BIT[bits].sum())


@dataclass
class Instruction:
    address: int
    guard: tuple[int, bool] | None  # a predicate, and whether it is negated
    name: str
    operands: list[str]
    text: str
    execute: Callable[[Warp, Bits], None] | None = None  # None: control flow

    @property
    def base(self) -> str:
        return self.name.split(".")[0]


def split_operands(text: str) -> list[str]:
    """Splits at commas, and ``R2 0x0`` of a return at the space."""
    return [t for t in re.split(r"\s*,\s*|\s+(?=0x|\()", text.strip()) if t]


def predicate(text: str) -> tuple[int, bool]:
    """The number of a predicate register, and whether it is negated."""
    negated, text = text.startswith("!"), text.lstrip("!")
    match = re.fullmatch(r"(U?)P(\d|T)", text)
    if not match:
        raise Unsupported(f"predicate {text}")
    return (UP0 if match[1] else 0) + (PT if match[2] == "T" else int(match[2])), negated


def is_predicate(text: str) -> bool:
    return re.fullmatch(r"!?U?P(\d|T)", text) is not None


@dataclass
class Program:
    """The instructions of a kernel."""

    name: str
    instructions: list[Instruction]
    registers: int = 0
    index: dict[int, int] = field(default_factory=dict)  # of an address

    @staticmethod
    def parse(name: str, lines: list[str]) -> Program:
        program = Program(name, [])
        for line in lines:
            if match := LINE.search(line):
                address, guard, op, rest = int(match[1], 16), match[2], match[3], match[4]
                text = f"@{guard} " * bool(guard) + f"{op} {rest}"
                program.index[address] = len(program.instructions)
                program.instructions.append(
                    Instruction(
                        address, predicate(guard) if guard else None, op, split_operands(rest), text
                    )
                )
        return program

    def target(self, text: str) -> int:
        return self.index[int(text, 16)]


class Memory:
    """The memory of this process; a wild address is an error rather than a crash."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.stored: dict[int, int] = {}  # bytes

    def readable(self, address: int, size: int) -> bool:
        return any(low <= address and address + size <= high for low, high in self.ranges)

    def read(self, address: int, size: int) -> bytes:
        if not self.readable(address, size):
            with open("/proc/self/maps") as maps:
                self.ranges = [
                    (int(low, 16), int(high, 16))
                    for low, high in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) r", maps.read(), re.M)
                ]
            if not self.readable(address, size):
                raise MemoryError(f"a load of {size} bytes at {address:#x}")
        if address % size:
            raise MemoryError(f"a misaligned load of {size} bytes at {address:#x}")
        out = ctypes.string_at(address, size)
        if self.stored:
            out = bytes(self.stored.get(address + i, b) for i, b in enumerate(out))
        return out

    def write(self, address: int, data: bytes) -> None:
        if address % len(data):
            raise MemoryError(f"a misaligned store of {len(data)} bytes at {address:#x}")
        self.stored.update((address + i, b) for i, b in enumerate(data))


@dataclass
class Grid:
    """A launch: its size, and the constant bank with its parameters."""

    blocks: int
    threads: int  # of a block
    parameters: bytes

    def constants(self) -> npt.NDArray[np.uint8]:
        bank = bytearray(PARAMETERS)
        struct.pack_into("<6I", bank, 0, self.threads, 1, 1, self.blocks, 1, 1)
        padding = bytes(-len(self.parameters) % 8 + 64)
        return np.frombuffer(bytes(bank) + self.parameters + padding, dtype=np.uint8)


class Warp:
    """The state of one warp of a grid."""

    def __init__(self, program: Program, grid: Grid, block: int, warp: int, memory: Memory) -> None:
        self.program, self.memory = program, memory
        self.constants = grid.constants()
        self.block, self.thread = block, warp * LANES + np.arange(LANES, dtype=np.uint32)
        self.registers = np.zeros((NOWHERE + 2, LANES), dtype=np.uint32)
        self.predicates = np.zeros((NO_PREDICATE + 1, LANES), dtype=np.bool_)
        self.predicates[[PT, UPT]] = True
        self.alive = mask_of(self.thread < grid.threads)
        self.barriers: dict[str, int] = {}  # the lanes that meet at a barrier register
        self.waiting: dict[tuple[str, int], int] = {}  # at (barrier, instruction)
        self.ready: dict[int, int] = {0: self.alive}  # instruction: lanes
        self.counts: Counter[int] = Counter()  # of instructions executed, by address

    def put(self, register: int, value: Words, lanes: Bits) -> None:
        # Uniform registers have one value a warp; a row of equal ones here.
        if register in (RZ, URZ):
            return
        if register >= UR0:
            self.registers[register] = value
        else:
            np.copyto(self.registers[register], value, where=lanes)

    def put_predicate(self, number: int, value: Bits, lanes: Bits) -> None:
        if number in (PT, UPT):
            return
        if number >= UP0:
            self.predicates[number] = value
        else:
            np.copyto(self.predicates[number], value, where=lanes)

    def true(self, guard: tuple[int, bool]) -> Bits:
        value: Bits = self.predicates[guard[0]]
        return ~value if guard[1] else value

    def run(self, limit: int = 1_000_000) -> Warp:
        """Runs to the end; returns itself."""
        executed = 0
        with np.errstate(all="ignore"):
            while self.ready:
                at = min(self.ready)
                mask = self.ready.pop(at)
                # Until these lanes end, wait, or reach others that are behind.
                while mask and (not self.ready or at < min(self.ready)):
                    at, mask = self.step(at, mask)
                    executed += 1
                if mask:
                    self.ready[at] = self.ready.get(at, 0) | mask
                if executed > limit:
                    raise Unsupported(f"more than {limit} instructions in {self.program.name}")
        if self.waiting:
            raise Unsupported(f"lanes wait for ever in {self.program.name}: {self.waiting}")
        return self

    def step(self, at: int, mask: int) -> tuple[int, int]:
        """Executes one instruction; returns where which lanes go on."""
        instruction = self.program.instructions[at]
        self.counts[instruction.address] += 1
        lanes = lanes_of(mask)
        if instruction.guard:
            lanes = lanes & self.true(instruction.guard)
        if instruction.execute:
            if instruction.guard is None or lanes.any():
                instruction.execute(self, lanes)
            return at + 1, mask
        return self.control(instruction, at, mask, mask_of(lanes))

    def control(self, i: Instruction, at: int, mask: int, taken: int) -> tuple[int, int]:
        rest = mask & ~taken
        base, operands = i.base, i.operands
        if i.name.startswith("BRA.DIV"):
            if mask != self.alive:
                raise Unsupported(f"a collective of some lanes only, at {i.address:#x}")
            return at + 1, mask
        if base in ("BRA", "CALL", "RET"):
            if base == "BRA":
                for condition in operands[:-1]:
                    if is_predicate(condition):
                        taken &= mask_of(self.true(predicate(condition)))
                    elif not re.fullmatch(r"U?R\w+|~?URZ", condition):
                        raise Unsupported(i.text)
                rest = mask & ~taken
            if not taken:
                return at + 1, rest
            if base == "RET":
                lane = (taken & -taken).bit_length() - 1
                address = int(self.registers[int(operands[0][1:]), lane]) + int(operands[1], 16)
                to = self.program.index[address]
            else:
                to = self.program.target(operands[-1])
            if not rest:
                return to, taken
            self.ready[to] = self.ready.get(to, 0) | taken
            return at + 1, rest
        if base == "EXIT":
            self.alive &= ~taken
            for barrier in self.barriers:
                self.barriers[barrier] &= ~taken
            self.release()
            return at + 1, rest
        if base == "BSSY":
            self.barriers[operands[0]] = mask
        elif base == "BREAK":
            self.barriers[operands[-1]] &= ~taken
            self.release()
        elif base == "BSYNC" or (base == "WARPSYNC" and mask != self.alive):
            key = (operands[0] if base == "BSYNC" else "all", at)
            self.waiting[key] = self.waiting.get(key, 0) | mask
            self.release()
            return at, 0
        elif base not in ("WARPSYNC", "NOP", "YIELD"):
            raise Unsupported(i.text)
        return at + 1, mask

    def release(self) -> None:
        """Lets lanes go on that wait where all others have come."""
        for key, mask in list(self.waiting.items()):
            barrier, at = key
            expected = self.alive if barrier == "all" else self.barriers[barrier]
            if mask & expected == expected:
                del self.waiting[key]
                self.ready[at + 1] = self.ready.get(at + 1, 0) | mask
