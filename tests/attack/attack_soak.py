"""Thousands of mixed calls: good, bad and odd ones of everything, judged by the reference.

Memory does not grow: no bytes and no objects are left of a call, once all of them were made before.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from random import Random

import torch
from attack_tensors import attack as odd_tensor
from live_memory import live_bytes
from random_calls import TARGETS, Note
from steps import draw_steps

CALLS = 40  # in a case, which makes them five times or more
BYTES, OBJECTS = 40, 0.75  # of a call, at most: torch and Python keep a little now and then
ATTEMPTS = 6
RESIDENT = 200 * 2**20  # that a process may grow after its first cases
WARM = 20  # cases

resident_of_warm = 0
cases = 0


def prepare() -> None:
    """A new process has made no cases."""
    global cases
    cases = 0


def one_call(seed: int) -> None:
    """A call, and its judge."""
    rnd = Random(seed)
    torch.manual_seed(seed)
    which = rnd.randrange(10)
    if which < 7:
        (target,) = rnd.choices(list(TARGETS), [share for share, _ in TARGETS.values()])
        TARGETS[target][1](rnd, silent)
    elif which < 9:
        odd_tensor(rnd, silent)
    else:
        draw_steps(rnd, 1, dropout=True)[0].run()


def silent(text: str) -> None:
    """Keeps nothing."""


def attack(rnd: Random, note: Note) -> None:
    """Makes the same calls again and again."""
    global cases, resident_of_warm
    seeds = [rnd.getrandbits(60) for _ in range(CALLS)]
    note(f"{CALLS} calls, the first one drawn from {seeds[0]}")

    def make_all() -> None:
        for seed in seeds:
            one_call(seed)

    make_all()
    make_all()
    for _ in range(ATTEMPTS):
        before = live_bytes(), sys.getallocatedblocks()
        for _ in range(3):
            make_all()
        after = live_bytes(), sys.getallocatedblocks()
        bytes_left, objects_left = (
            (b - a) / (3 * CALLS) for a, b in zip(before, after, strict=True)
        )
        if bytes_left < BYTES and objects_left < OBJECTS:
            break
    else:
        raise AssertionError(f"a call leaves {bytes_left:.0f} bytes, {objects_left:.2f} objects")
    cases += 1
    if cases <= WARM:
        resident_of_warm = resident()
    grown = resident() - resident_of_warm
    assert grown < RESIDENT, f"the process grew by {grown >> 20} MiB in {cases - WARM} cases"


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
