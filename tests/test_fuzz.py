"""Random calls, drawn and judged by random_calls.

``GAT_EXT_FUZZ_CALLS=200000 pytest tests/test_fuzz.py`` makes that many calls, from other seeds each
time. A failure shows the call and its seed.
"""

from __future__ import annotations

import math
import os
from random import Random, SystemRandom

import pytest
import torch
from random_calls import TARGETS

CALLS = int(os.environ.get("GAT_EXT_FUZZ_CALLS", "10000"))
LONG = "GAT_EXT_FUZZ_CALLS" in os.environ


def test_shares_add_up():
    assert sum(share for share, _ in TARGETS.values()) == 100 and CALLS >= 10_000


def try_call(call, seed):
    """Makes one call; one that fails is drawn again, and described."""
    torch.manual_seed(0)
    try:
        call(Random(seed), None)
    except Exception as error:
        notes = []
        torch.manual_seed(0)
        try:
            call(Random(seed), notes.append)
        except Exception:
            raise AssertionError("\n".join([f"seed {seed!r}:", *notes])) from error
        raise AssertionError(f"seed {seed!r} failed once, but not again") from error


@pytest.mark.parametrize("target", TARGETS)
def test_random_calls(target):
    share, call = TARGETS[target]
    start = SystemRandom().getrandbits(32) if LONG else 0
    for number in range(math.ceil(CALLS * share / 100)):
        try_call(call, f"{target} {start} {number}")


def test_a_failing_call_is_described():
    def call(rnd, note):
        number = rnd.randint(1, 6)
        if note is not None:
            note(f"drew {number}")
        raise ZeroDivisionError

    with pytest.raises(AssertionError, match=f"seed 'x':\ndrew {Random('x').randint(1, 6)}"):
        try_call(call, "x")
