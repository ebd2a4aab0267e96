"""Operators, layers and models, forward and backward, on 1, 2, 3 and 5 threads and repeated.

Results and gradients are bitwise equal, whatever is in the memory that is allocated: it is filled
with bytes that differ from run to run, or with NaN. Layers run in torch's deterministic mode,
because of their matrix products.
"""

from __future__ import annotations

import ctypes
from random import Random

import torch
from random_calls import Note
from steps import differing, draw_steps

import gat_ext

M_PERTURB = -6  # glibc: fill what is allocated and freed with this byte and its complement
THREADS = [1, 2, 3, 5, 2, 1]


def perturb(byte: int) -> None:
    """Fills memory from here on; 0: no longer."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_PERTURB, byte)


def attack(rnd: Random, note: Note) -> None:
    """Runs a step several times."""
    (step,) = draw_steps(rnd, 1, dropout=True)
    deterministic = step.dense or rnd.random() < 0.5
    note(f"{step.name}, deterministic: {deterministic}")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)  # which fills with NaN, too
    try:
        torch.set_num_threads(1)
        first = step.run()
        assert not any(t.isnan().any() for t in first if t is not None), "a result is NaN"
        if not step.dense:
            torch.use_deterministic_algorithms(not deterministic, warn_only=True)
        for threads in rnd.sample(THREADS, 4):
            byte = rnd.choice([0, 1, 127, 128, 255])
            perturb(byte)
            torch.set_num_threads(threads)
            if rnd.random() < 0.3:
                gat_ext.empty_cache()
            wrong = differing(step.run(), first)
            assert not wrong, f"on {threads} threads, memory filled with {byte}: {wrong}"
    finally:
        perturb(0)
        torch.use_deterministic_algorithms(False)
