"""What the instructions of sm_90 do that the kernels use: ``decode`` gives them to a program.

Here those of floats, memory and exchange between lanes; the others are in integers.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from sass.integers import (
    absolute,
    add,
    add_limit,
    count_bits,
    load_constant,
    logic,
    move,
    multiply_add,
    permute_bytes,
    predicate_logic,
    predicates_to_register,
    register_to_predicates,
    shift,
    shift_add,
    to_uniform,
)
from sass.machine import (
    LANES,
    NOWHERE,
    RZ,
    Bits,
    Instruction,
    Program,
    Unsupported,
    Warp,
    Words,
    is_predicate,
    mask_of,
    predicate,
)
from sass.operands import (
    ALL_LANES,
    CONTROL,
    SIZES,
    Doubles,
    Execute,
    Source,
    Wide,
    low,
    register,
    rounded,
    signed,
    take,
)


def compare(name: str, a: Any, b: Any) -> Bits:
    unordered = np.isnan(a) | np.isnan(b) if a.dtype == np.float64 else np.zeros(LANES, np.bool_)
    if name == "NUM":
        return ~unordered
    if name == "NAN":
        return unordered
    result: dict[str, Callable[[Any, Any], Any]] = {
        "LT": np.less,
        "LE": np.less_equal,
        "GT": np.greater,
        "GE": np.greater_equal,
        "EQ": np.equal,
        "NE": np.not_equal,
    }
    ordered = result[name[:2]](a, b) & ~unordered
    return np.asarray(ordered | unordered if name.endswith("U") else ordered, np.bool_)


def combine(mods: list[str], a: Bits, b: Bits) -> Bits:
    if "OR" in mods:
        return a | b
    return a ^ b if "XOR" in mods else a & b


def set_predicate(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, complement = predicate(ops[0])[0], predicate(ops[1])[0]
    a, b = Source(ops[2]), Source(ops[3])
    other = predicate(ops[4])
    below = predicate(ops[5]) if len(ops) > 5 else (7, False)

    def execute(w: Warp, m: Bits) -> None:
        if name == "FSETP":
            x, y = a.float(w), b.float(w)
        elif "U32" in mods:
            x, y = a.int(w), b.int(w)
        else:
            x, y = a.int(w).view(np.int32), b.int(w).view(np.int32)
        result = compare(mods[0], x, y)
        if "EX" in mods:  # of the upper words, where those below have been compared
            equal = np.equal(x, y)
            strict = compare({"GE": "GT", "LE": "LT"}.get(mods[0], mods[0]), x, y)
            result = strict | (equal & w.true(below))
            if mods[0] == "EQ":
                result = equal & w.true(below)
        rest = w.true(other)
        both = [combine(mods, result, rest), combine(mods, ~result, rest)]
        w.put_predicate(to, both[0], m)
        w.put_predicate(complement, both[1], m)

    return execute


def select(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, a, b, p = register(ops[0]), Source(ops[1]), Source(ops[2]), predicate(ops[3])

    def execute(w: Warp, m: Bits) -> None:
        if name == "SEL":
            x, y = a.int(w), b.int(w)
        else:
            x, y = (s.float(w).astype(np.float32).view(np.uint32) for s in (a, b))
        if name in ("FMNMX", "IMNMX", "VIMNMX"):
            kind = np.float32 if name == "FMNMX" else np.uint32 if "U32" in mods else np.int32
            s, t = (x, y) if name == "FMNMX" else (a.int(w), b.int(w))
            u, v = s.view(kind), t.view(kind)
            smaller, larger = (
                (np.fmin(u, v), np.fmax(u, v))
                if name == "FMNMX"
                else (np.minimum(u, v), np.maximum(u, v))
            )
            w.put(to, np.where(w.true(p), smaller, larger).astype(kind).view(np.uint32), m)
            return
        w.put(to, np.where(w.true(p), x, y).astype(np.uint32), m)

    return execute


def float_arithmetic(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, sources = register(ops[0]), [Source(o) for o in ops[1:4]]

    def execute(w: Warp, m: Bits) -> None:
        x = [s.float(w) for s in sources]
        if name == "FFMA":
            value = x[0] * x[1] + x[2]
        else:
            value = x[0] * x[1] if name == "FMUL" else x[0] + x[1]
        w.put(to, rounded(value, mods), m)

    return execute


def half_to_float(name: str, mods: list[str], ops: list[str]) -> Execute:
    if "F32" not in mods:
        raise Unsupported(f"{name}.{'.'.join(mods)}")
    to, sources = register(ops[0]), [Source(o) for o in ops[1:3]]

    def execute(w: Warp, m: Bits) -> None:
        x = [s.float16(w) if s.half else s.float(w) for s in sources]
        w.put(to, rounded(x[0] + x[1], []), m)

    return execute


def half_constant(name: str, mods: list[str], ops: list[str]) -> Execute:
    """HFMA2 with factors of zero, which ptxas uses to write a constant."""
    if ops[1:3] != ["-RZ", "RZ"] or len(ops) != 5:
        raise Unsupported(f"{name} {ops}")
    text = [o.replace("QNAN", "nan").replace("INF", "inf") for o in ops[3:5]]
    high, below = (int(np.float16(float(t)).view(np.uint16)) for t in text)
    to, value = register(ops[0]), np.full(LANES, high << 16 | below, dtype=np.uint32)
    return lambda w, m: w.put(to, value, m)


def pack_halves(name: str, mods: list[str], ops: list[str]) -> Execute:
    if "PACK_AB" not in mods or len(ops) != 3:
        raise Unsupported(f"{name}.{'.'.join(mods)} {ops}")
    to, sources = register(ops[0]), [Source(o) for o in ops[1:3]]

    def narrow(x: Doubles) -> Words:
        single = x.astype(np.float32)
        if "F16" in mods:
            return single.astype(np.float16).view(np.uint16).astype(np.uint32)
        bits = single.view(np.uint32).astype(np.uint64)
        bits = bits + np.uint64(0x7FFF) + (bits >> np.uint64(16) & np.uint64(1))
        return np.where(np.isnan(x), 0x7FFF, bits >> np.uint64(16)).astype(np.uint32)

    def execute(w: Warp, m: Bits) -> None:
        high, below = (narrow(s.float(w)) for s in sources)
        w.put(to, high << np.uint32(16) | below, m)

    return execute


def special(name: str, mods: list[str], ops: list[str]) -> Execute:
    functions: dict[str, Callable[[Any], Any]] = {
        "RCP": lambda x: 1 / x,
        "RSQ": lambda x: 1 / np.sqrt(x),
        "SQRT": np.sqrt,
        "EX2": np.exp2,
        "LG2": np.log2,
        "TANH": np.tanh,
        "SIN": np.sin,
        "COS": np.cos,
    }
    if mods[0] not in functions:
        raise Unsupported(f"{name}.{mods[0]}")
    to, s, f = register(ops[0]), Source(ops[1]), functions[mods[0]]
    return lambda w, m: w.put(to, rounded(f(s.float(w)), []), m)


def convert(name: str, mods: list[str], ops: list[str]) -> Execute:
    """I2F, I2FP, F2I: between integers of 32 or 64 bits and float32."""
    to, s = register(ops[0]), Source(ops[1])
    long, unsigned = bool({"U64", "S64"} & set(mods)), bool({"U64", "U32"} & set(mods))

    def execute(w: Warp, m: Bits) -> None:
        if name != "F2I":
            bits = s.pair(w) if long else s.int(w).astype(np.uint64)
            if unsigned:
                value = bits.astype(np.float64)
            else:
                value = (bits.view(np.int64) if long else signed(s.int(w))).astype(np.float64)
            w.put(to, rounded(value, mods), m)
            return
        x = np.trunc(s.float(w)) if "TRUNC" in mods else np.rint(s.float(w))
        bound = 2.0 ** (64 if long else 32)
        lowest, highest = (0.0, bound - 1) if unsigned else (-bound / 2, bound / 2 - 1)
        x = np.clip(np.nan_to_num(x), lowest, highest)
        whole = np.array([int(v) & (2**64 - 1) for v in x], dtype=np.uint64)
        w.put(to, low(whole), m)
        if long:
            w.put(to + 1, low(whole >> np.uint64(32)), m)

    return execute


def narrow_double(name: str, mods: list[str], ops: list[str]) -> Execute:
    if mods[-2:] != ["F32", "F64"]:
        raise Unsupported(f"{name}.{'.'.join(mods)}")
    to, s = register(ops[0]), Source(ops[1])
    return lambda w, m: w.put(to, rounded(s.sign(s.pair(w).view(np.float64)), mods), m)


def check_division(name: str, mods: list[str], ops: list[str]) -> Execute:
    """FCHK: whether a quotient needs the slow path."""
    to, a, b = predicate(ops[0])[0], Source(ops[1]), Source(ops[2])

    def execute(w: Warp, m: Bits) -> None:
        x, y = np.abs(a.float(w)), np.abs(b.float(w))
        easy = (y > 2.0**-125) & (y < 2.0**125) & (x < 2.0**100) & ((x == 0) | (x > 2.0**-100))
        w.put_predicate(to, ~easy, m)

    return execute


def read_special(name: str, mods: list[str], ops: list[str]) -> Execute:
    to, what = register(ops[0]), ops[1]
    if what not in ("SR_TID.X", "SR_CTAID.X", "SR_LANEID", "SRZ"):
        raise Unsupported(f"{name} {ops}")

    def execute(w: Warp, m: Bits) -> None:
        value = {"SR_TID.X": w.thread, "SR_LANEID": ALL_LANES, "SR_CTAID.X": w.block, "SRZ": 0}
        word = np.zeros(LANES, np.uint32) + np.asarray(value[what], np.uint32)
        w.put(to, word, m)
        if name == "CS2R" and "32" not in mods:
            w.put(to + 1, word, m)

    return execute


def shuffle(name: str, mods: list[str], ops: list[str]) -> Execute:
    flag, to = predicate(ops[0])[0], register(ops[1])
    value, b, c = (Source(o) for o in ops[2:5])

    def execute(w: Warp, m: Bits) -> None:
        by, bounds = (s.raw(w).astype(np.int64) for s in (b, c))
        clamp, segment = bounds & 31, bounds >> 8 & 31
        by = by & 31
        first, last = ALL_LANES & segment, (ALL_LANES & segment) | (clamp & ~segment)
        source = {
            "IDX": first | (by & ~segment),
            "BFLY": ALL_LANES ^ by,
            "DOWN": ALL_LANES + by,
            "UP": ALL_LANES - by,
        }[mods[0]]
        inside = source >= last if mods[0] == "UP" else source <= last
        source = np.where(inside, source, ALL_LANES)
        if not m[source[m]].all():
            raise Unsupported(f"a shuffle from lanes that do not take part: {name} {ops}")
        w.put(to, value.raw(w)[source], m)
        w.put_predicate(flag, inside, m)

    return execute


def vote(name: str, mods: list[str], ops: list[str]) -> Execute:
    ops = list(ops)
    to = NOWHERE if is_predicate(ops[0]) else register(ops.pop(0))
    flags, source = take(ops[:-1]), predicate(ops[-1])

    def execute(w: Warp, m: Bits) -> None:
        bits = w.true(source) & m
        w.put(to, np.full(LANES, mask_of(bits), dtype=np.uint32), m)
        result = np.array_equal(bits, m) if mods[0] == "ALL" else bits.any()
        for p in flags:
            w.put_predicate(p, np.full(LANES, result), m)

    return execute


def addresses(text: str) -> Callable[[Warp], Wide]:
    match = re.fullmatch(r"desc\[UR\d+\]\[([^\]]+)\]", text.replace(" ", ""))
    if not match:
        raise Unsupported(f"address {text}")
    terms: list[Source] = []
    offset = 0
    for term in match[1].split("+"):
        if re.fullmatch(r"-?0x[0-9a-f]+", term):
            offset += int(term, 16)
        else:
            terms.append(Source(term))
    constant = np.uint64(offset & (2**64 - 1))
    return lambda w: sum((t.pair(w) for t in terms), np.zeros(LANES, np.uint64)) + constant


def memory(name: str, mods: list[str], ops: list[str]) -> Execute:
    size = next((SIZES[m] for m in mods if m in SIZES), 4)
    extend = mods.count("S8") + mods.count("S16")
    load = name in ("LDG", "LD")
    where = addresses(ops[1] if load else ops[0])
    data = register(ops[0]) if load else Source(ops[1]).number

    def execute(w: Warp, m: Bits) -> None:
        at = where(w)
        words = max(1, size // 4)
        if not load:
            rows = w.registers[[RZ if data == RZ else data + i for i in range(words)]]
            for lane in np.flatnonzero(m):
                w.memory.write(int(at[lane]), rows[:, lane].tobytes()[:size])
            return
        out = np.zeros((words, LANES), dtype=np.uint32)
        for lane in np.flatnonzero(m):
            raw = w.memory.read(int(at[lane]), size)
            if size < 4:
                value = int.from_bytes(raw, "little", signed=bool(extend))
                out[0, lane] = value & 0xFFFFFFFF
            else:
                out[:, lane] = np.frombuffer(raw, dtype=np.uint32)
        for i in range(words):
            w.put(data + i if data != NOWHERE else data, out[i], m)

    return execute


FAMILIES: dict[str, Callable[[str, list[str], list[str]], Execute]] = {
    "MOV": move,
    "LDC": load_constant,
    "IMAD": multiply_add,
    "IADD3": add,
    "VIADD": add,
    "LEA": shift_add,
    "SHF": shift,
    "LOP3": logic,
    "PLOP3": predicate_logic,
    "ISETP": set_predicate,
    "FSETP": set_predicate,
    **dict.fromkeys(("SEL", "FSEL", "FMNMX", "IMNMX", "VIMNMX"), select),
    "VIADDMNMX": add_limit,
    **dict.fromkeys(("FADD", "FMUL", "FFMA"), float_arithmetic),
    "HADD2": half_to_float,
    "HFMA2": half_constant,
    "F2FP": pack_halves,
    "MUFU": special,
    **dict.fromkeys(("I2F", "I2FP", "F2I"), convert),
    "F2F": narrow_double,
    "FCHK": check_division,
    "PRMT": permute_bytes,
    **dict.fromkeys(("S2R", "S2UR", "CS2R"), read_special),
    "SHFL": shuffle,
    **dict.fromkeys(("VOTE", "VOTEU"), vote),
    **dict.fromkeys(("POPC", "FLO", "BREV"), count_bits),
    "R2UR": to_uniform,
    "P2R": predicates_to_register,
    "R2P": register_to_predicates,
    "IABS": absolute,
    **dict.fromkeys(("LDG", "STG"), memory),
}


def unknown(text: str, error: Exception) -> Execute:
    def execute(w: Warp, m: Bits) -> None:
        raise Unsupported(f"{text}: {error}")

    return execute


def decode(program: Program) -> Program:
    """Gives every instruction but the branches its meaning. One that is not known is an error when
    it is executed."""
    for i in program.instructions:
        if i.base in CONTROL:
            continue
        base, *mods = i.name.split(".")
        name = base if base in FAMILIES else base.removeprefix("U")
        try:
            i.execute = FAMILIES[name](name, mods, i.operands)
        except (Unsupported, KeyError, IndexError, ValueError, TypeError) as error:
            i.execute = unknown(i.text, error)
    return program


def find(program: Program, address: int) -> Instruction:
    return program.instructions[program.index[address]]
