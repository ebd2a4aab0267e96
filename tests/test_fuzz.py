"""Random calls, drawn and judged by random_calls.

``GAT_EXT_FUZZ_CALLS=200000 pytest tests/test_fuzz.py`` makes that many calls, from other seeds each
time.
"""

from __future__ import annotations

import math
import os

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from random_calls import TARGETS

CALLS = int(os.environ.get("GAT_EXT_FUZZ_CALLS", "10000"))
LONG = "GAT_EXT_FUZZ_CALLS" in os.environ
EXAMPLE_CALLS = 5  # from one example, because drawing an example takes longer than a call


def test_shares_add_up():
    assert sum(share for share, _ in TARGETS.values()) == 100 and CALLS >= 10_000


@pytest.mark.parametrize("target", TARGETS)
def test_random_calls(target):
    share, call = TARGETS[target]
    wanted, made = math.ceil(CALLS * share / 100), 0

    @settings(
        max_examples=math.ceil(wanted / EXAMPLE_CALLS),
        derandomize=not LONG,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def run(rnd):
        nonlocal made
        for _ in range(EXAMPLE_CALLS):
            call(rnd, note)
            made += 1

    run()
    assert made >= wanted
