"""Instructions of integers, bits and predicates. Each function makes one of the form
``name.mods operands``; U at the front of a name is gone.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from sass.machine import LANES, NOWHERE, Bits, Unsupported, Warp, is_predicate, predicate
from sass.operands import LOW, SIZES, Execute, Source, extended, low, register, signed, take


def move(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, s = register(ops[0]), Source(ops[1])
    return lambda w, m: w.put(to, s.int(w), m)


def load_constant(name: str, mods: list[str], ops: list[str]) -> Execute:
    to = register(ops[0])
    match = re.fullmatch(r"c\[0x0\]\[(?:(RZ|U?R\d+)\+?)?(-?0x[0-9a-f]+)?\]", ops[1])
    if not match:
        raise Unsupported(f"{name} {ops}")
    base, offset = Source(match[1] or "RZ"), int(match[2] or "0", 16)
    size = next((SIZES[m] for m in mods if m in SIZES), 4)

    def execute(w: Warp, m: Bits) -> None:
        at = base.raw(w).astype(np.int64) + offset
        if size < 4:
            word = sum(w.constants[at + i].astype(np.uint32) << np.uint32(8 * i) for i in (0, 1))
            value = word if size == 2 else word & np.uint32(0xFF)
            w.put(to, np.asarray(value, np.uint32), m)
        for i in range(size // 4):
            word = w.constants[at[:, None] + 4 * i + np.arange(4)].view(np.uint32)[:, 0]
            w.put(to + i, word, m)

    return execute


def multiply_add(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, ops = register(ops[0]), ops[1:]
    carry_to = take(ops)
    a, b, c = (Source(o) for o in ops[:3])
    carry = predicate(ops[3]) if "X" in mods and len(ops) > 3 else None
    unsigned = "U32" in mods
    widen = (
        (lambda s, w: s.int(w).astype(np.uint64)) if unsigned else lambda s, w: extended(s.int(w))
    )

    def execute(w: Warp, m: Bits) -> None:
        extra = w.true(carry).astype(np.uint64) if carry else np.uint64(0)
        if "WIDE" in mods or "HI" in mods:
            product = widen(a, w) * widen(b, w)
            value = product + c.pair(w)
            overflow = value < product
            value = value + extra
            if "HI" in mods:
                w.put(to, low(value >> np.uint64(32)), m)
                return
            w.put(to, low(value), m)
            w.put(to + (to != NOWHERE), low(value >> np.uint64(32)), m)
        else:
            value = low(a.int(w).astype(np.uint64) * b.int(w)).astype(np.uint64) + c.term(w) + extra
            overflow = value >> np.uint64(32) != 0
            w.put(to, low(value), m)
        for p in carry_to:
            w.put_predicate(p, overflow, m)

    return execute


def add(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, ops = register(ops[0]), ops[1:]
    carry_to = take(ops)
    terms = [Source(o) for o in ops if not is_predicate(o)]
    carries = [predicate(o) for o in ops if is_predicate(o)] if "X" in mods else []
    if "X" in mods:
        for t in terms:
            t.inverted, t.negative = t.inverted or t.negative, False

    def execute(w: Warp, m: Bits) -> None:
        total = sum((w.true(c).astype(np.uint64) for c in carries), np.zeros(LANES, np.uint64))
        carried = []
        for t in terms:
            before = total >> np.uint64(32)
            total = total + t.term(w)
            carried.append(total >> np.uint64(32) != before)
        w.put(to, low(total), m)
        if len(carry_to) == 1:
            w.put_predicate(carry_to[0], total >> np.uint64(32) != 0, m)
        elif carry_to:
            w.put_predicate(carry_to[0], total >> np.uint64(32) >= 1, m)
            w.put_predicate(carry_to[1], total >> np.uint64(32) >= 2, m)

    return execute


def shift_add(name: str, mods: list[str], ops: list[str]) -> Execute:
    """LEA: b + (a << s); .HI: b plus the upper half of (c:a) << s."""
    to, ops = register(ops[0]), ops[1:]
    carry_to = take(ops)
    a, b = Source(ops[0]), Source(ops[1])
    upper = Source(ops[2]) if "HI" in mods and "SX32" not in mods else None
    ops = ops[3:] if upper else ops[2:]
    shift = np.uint64(int(ops[0], 16))
    carry = predicate(ops[1]) if "X" in mods and len(ops) > 1 else None

    def execute(w: Warp, m: Bits) -> None:
        value = a.raw(w).astype(np.uint64)
        if "SX32" in mods:
            value = extended(a.raw(w))
        elif upper:
            value = value | upper.raw(w).astype(np.uint64) << np.uint64(32)
        value = value << shift
        if "HI" in mods:
            if a.inverted or a.negative:
                value = ~value if a.inverted else ~value + np.uint64(1)
            value = value >> np.uint64(32)
        else:
            value = value & LOW
            if a.inverted or a.negative:
                value = (value ^ LOW) + np.uint64(a.negative)
        value = value + b.term(w)
        if carry:
            value = value + w.true(carry).astype(np.uint64)
        w.put(to, low(value), m)
        for p in carry_to:
            w.put_predicate(p, value >> np.uint64(32) != 0, m)

    return execute


def shift(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, a, n, b = register(ops[0]), *(Source(o) for o in ops[1:4])

    def execute(w: Warp, m: Bits) -> None:
        by = n.raw(w).astype(np.uint64)
        value = a.raw(w).astype(np.uint64) | b.raw(w).astype(np.uint64) << np.uint64(32)
        by = by & np.uint64(63 if {"U64", "S64"} & set(mods) else 31) if "W" in mods else by
        if mods[0] == "L":
            value = np.where(by < 64, value << by, np.uint64(0))
        elif "S32" in mods or "S64" in mods:
            value = (value.view(np.int64) >> np.minimum(by, np.uint64(63)).view(np.int64)).view(
                np.uint64
            )
        else:
            value = np.where(by < 64, value >> by, np.uint64(0))
        w.put(to, low(value >> np.uint64(32) if "HI" in mods else value), m)

    return execute


def look_up(table: int, a: Any, b: Any, c: Any) -> Any:
    """The Boolean function of three bits whose values are the bits of ``table``."""
    out = a & ~a
    for i in range(8):
        if table >> i & 1:
            out = out | ((a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c))
    return out


def logic(name: str, mods: list[str], ops: list[str]) -> Execute:
    ops = list(ops)
    flags = take(ops)
    to, a, b, c = register(ops[0]), *(Source(o) for o in ops[1:4])
    table, other = int(ops[4], 16), predicate(ops[5])

    def execute(w: Warp, m: Bits) -> None:
        value = look_up(table, a.int(w), b.int(w), c.int(w))
        w.put(to, value, m)
        for p in flags:
            w.put_predicate(p, (value != 0) | w.true(other), m)

    return execute


def predicate_logic(name: str, mods: list[str], ops: list[str]) -> Execute:
    to = [predicate(o)[0] for o in ops[:2]]
    a, b, c = (predicate(o) for o in ops[2:5])
    tables = [int(o, 16) for o in ops[5:7]]

    def execute(w: Warp, m: Bits) -> None:
        values = [look_up(t, w.true(a), w.true(b), w.true(c)) for t in tables]
        for p, value in zip(to, values, strict=True):
            w.put_predicate(p, value, m)

    return execute


def add_limit(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, a, b, c, p = register(ops[0]), *(Source(o) for o in ops[1:4]), predicate(ops[4])
    kind = np.uint32 if "U32" in mods else np.int32

    def execute(w: Warp, m: Bits) -> None:
        total, bound = (a.int(w) + b.int(w)).view(kind), c.int(w).view(kind)
        value = np.where(w.true(p), np.minimum(total, bound), np.maximum(total, bound))
        w.put(to, value.astype(kind).view(np.uint32), m)

    return execute


def permute_bytes(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, a, selector, b = register(ops[0]), *(Source(o) for o in ops[1:4])

    def execute(w: Warp, m: Bits) -> None:
        value = a.raw(w).astype(np.uint64) | b.raw(w).astype(np.uint64) << np.uint64(32)
        choice, out = selector.raw(w).astype(np.uint64), np.zeros(LANES, np.uint64)
        for i in range(4):
            nibble = choice >> np.uint64(4 * i) & np.uint64(15)
            byte = value >> (nibble & np.uint64(7)) * np.uint64(8) & np.uint64(255)
            sign = np.where(byte >> np.uint64(7) != 0, np.uint64(255), np.uint64(0))
            out |= np.where(nibble >= 8, sign, byte) << np.uint64(8 * i)
        w.put(to, low(out), m)

    return execute


def count_bits(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, s = register(ops[0]), Source(ops[1])

    def execute(w: Warp, m: Bits) -> None:
        words = [int(x) for x in s.int(w)]
        if name == "POPC":
            out = [x.bit_count() for x in words]
        elif name == "FLO":
            out = [(31 - x.bit_length() + 1) if "SH" in mods else x.bit_length() - 1 for x in words]
        else:
            out = [int(f"{x:032b}"[::-1], 2) for x in words]
        w.put(to, np.array([x & 0xFFFFFFFF for x in out], dtype=np.uint32), m)

    return execute


def absolute(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, s = register(ops[0]), Source(ops[1])
    return lambda w, m: w.put(to, np.abs(signed(s.int(w))).astype(np.uint32), m)


def predicates_to_register(name: str, mods: list[str], ops: list[str]) -> Execute:
    if ops[1] != "PR" or any(m.startswith("B") for m in mods):
        raise Unsupported(f"{name}.{'.'.join(mods)}")
    to, s, mask = register(ops[0]), Source(ops[2]), int(ops[3], 16)

    def execute(w: Warp, m: Bits) -> None:
        bits = sum(w.predicates[i].astype(np.uint32) << np.uint32(i) for i in range(7))
        keep = s.raw(w) & np.uint32(~mask & 0xFFFFFFFF)
        w.put(to, np.asarray(keep | (bits & np.uint32(mask)), np.uint32), m)

    return execute


def register_to_predicates(name: str, mods: list[str], ops: list[str]) -> Execute:
    if ops[0] != "PR":
        raise Unsupported(f"{name} {ops}")
    s, mask = Source(ops[1]), int(ops[2], 16)

    def execute(w: Warp, m: Bits) -> None:
        for i in range(7):
            if mask >> i & 1:
                w.put_predicate(i, (s.raw(w) >> np.uint32(i) & np.uint32(1)) != 0, m)

    return execute


def to_uniform(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, s = register(ops[0]), Source(ops[1])
    return lambda w, m: w.put(to, np.repeat(s.raw(w)[m][:1], LANES), m)
