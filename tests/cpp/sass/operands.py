"""What the instructions of sm_90 read and write: registers, constants, immediates.

Integers are computed in 64 bits and cut to 32; float32 in float64 and rounded. Registers that begin
with U are one a warp.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sass.machine import (
    LANES,
    NO_PREDICATE,
    NOWHERE,
    RZ,
    UR0,
    URZ,
    Bits,
    Unsupported,
    Warp,
    Words,
    is_predicate,
    predicate,
)

Wide = npt.NDArray[np.uint64]
Doubles = npt.NDArray[np.float64]
Execute = Callable[[Warp, Bits], None]
LOW, ALL_LANES = np.uint64(0xFFFFFFFF), np.arange(LANES)
CONTROL = {"BRA", "CALL", "RET", "EXIT", "BSSY", "BSYNC", "BREAK", "WARPSYNC", "NOP", "YIELD"}
CONTROL |= {"ENDCOLLECTIVE", "BRX"}
SIZES = {"64": 8, "128": 16, "U8": 1, "S8": 1, "U16": 2, "S16": 2}


def low(x: Wide) -> Words:
    return (x & LOW).astype(np.uint32)


def signed(x: Words) -> npt.NDArray[np.int64]:
    return x.view(np.int32).astype(np.int64)


def extended(x: Words) -> Wide:
    return signed(x).view(np.uint64)


def register(text: str) -> int:
    """The number of a register that is written; NOWHERE for RZ."""
    match = re.fullmatch(r"(U?)R(Z|\d+)", text)
    if not match:
        raise Unsupported(f"register {text}")
    return NOWHERE if match[2] == "Z" else (UR0 if match[1] else 0) + int(match[2])


class Source:
    """An operand that is read: a register, a constant or an immediate, with its sign."""

    def __init__(self, text: str) -> None:
        self.text = text
        text = text.replace(".reuse", "")
        self.negative = text.startswith("-") and not text[1:2].isdigit()
        if self.negative:
            text = text[1:]
        self.inverted, text = text.startswith("~"), text.lstrip("~")
        self.absolute, text = text.startswith("|"), text.strip("|")
        self.number = self.offset = -1
        self.immediate: Words | None = None
        text, _, self.half = text.partition(".H")
        if match := re.fullmatch(r"(U?)R(Z|\d+)(?:\.64)?", text):
            zero = URZ if match[1] else RZ
            self.number = zero if match[2] == "Z" else (UR0 if match[1] else 0) + int(match[2])
        elif match := re.fullmatch(r"c\[0x0\]\[(RZ|0x[0-9a-f]+)\]", text):
            self.offset = 0 if match[1] == "RZ" else int(match[1], 16)
        elif re.fullmatch(r"-?0x[0-9a-f]+", text):
            self.immediate = np.full(LANES, int(text, 16) & 0xFFFFFFFF, dtype=np.uint32)
        elif re.fullmatch(r"-?[\d.]+(e[-+]?\d+)?|[-+]?(INF|QNAN)", text):
            value = np.float32(text.replace("QNAN", "nan").replace("INF", "inf"))
            if self.negative:
                value, self.negative = -value, False
            self.immediate = np.full(LANES, value, dtype=np.float32).view(np.uint32)
        else:
            raise Unsupported(f"operand {self.text}")

    def raw(self, w: Warp, next_word: int = 0) -> Words:
        if self.immediate is not None:
            return self.immediate
        if self.offset >= 0:
            begin = self.offset + 4 * next_word
            return np.repeat(w.constants[begin : begin + 4].view(np.uint32), LANES)
        zero = self.number in (RZ, URZ)
        out: Words = w.registers[self.number + (0 if zero else next_word)]
        return out

    def int(self, w: Warp) -> Words:
        x = self.raw(w)
        if self.inverted:
            return ~x
        return (~x + np.uint32(1)) if self.negative else x

    def term(self, w: Warp) -> Wide:
        """As an addend whose carry counts: 2^32 - x for -x."""
        x = self.raw(w).astype(np.uint64)
        if self.inverted:
            return x ^ LOW
        return (x ^ LOW) + np.uint64(1) if self.negative else x

    def pair(self, w: Warp) -> Wide:
        x = self.raw(w).astype(np.uint64)
        if self.immediate is None:
            x = x | self.raw(w, 1).astype(np.uint64) << np.uint64(32)
        if self.inverted:
            return ~x
        return ~x + np.uint64(1) if self.negative else x

    def sign(self, x: Doubles) -> Doubles:
        x = np.abs(x) if self.absolute else x
        return -x if self.negative else x

    def float(self, w: Warp) -> Doubles:
        return self.sign(self.raw(w).view(np.float32).astype(np.float64))

    def float16(self, w: Warp) -> Doubles:
        halves = self.raw(w).view(np.float16).reshape(LANES, 2)
        return self.sign(halves[:, int(self.half == "1_H1")].astype(np.float64))


def rounded(x: Doubles, mods: list[str]) -> Words:
    """float32 of x, rounded as .RM (down), .RP (up) or .RZ say."""
    out = x.astype(np.float32)
    if "RM" in mods or "RP" in mods or "RZ" in mods:
        toward = np.where(x > 0, -np.inf, np.inf) if "RZ" in mods else np.float64(np.inf)
        over = np.abs(out) > np.abs(x) if "RZ" in mods else out > x
        if "RM" in mods:
            toward = np.float64(-np.inf)
        if "RP" in mods:
            over = out < x
        out = np.where(over, np.nextafter(out, np.float32(1) * toward), out).astype(np.float32)
    if "SAT" in mods:
        out = np.clip(np.nan_to_num(out), 0, 1)
    return out.astype(np.float32).view(np.uint32)


def take(operands: list[str]) -> list[int]:
    """Removes the predicates from the front of operands: those that are written."""
    out = []
    while operands and is_predicate(operands[0]):
        number = predicate(operands.pop(0))[0]
        out.append(NO_PREDICATE if number in (7, 15) else number)
    return out
