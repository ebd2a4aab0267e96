"""Many threads use one graph, edge_index, layers and models at the same time, backward too.

Results and gradients are bitwise those of one thread, while another one changes the number of
OpenMP's threads, empties the cache and collects garbage. No thread waits for ever.
"""

from __future__ import annotations

import gc
import sys
import threading
from random import Random

import torch
from random_calls import Note
from steps import Step, differing, draw_steps

import gat_ext

ROUNDS = 1


def prepare() -> None:
    """Makes Python change threads often; for the products of layers see attack_bits."""
    torch.use_deterministic_algorithms(True, warn_only=True)


def attack(rnd: Random, note: Note) -> None:
    """Compares steps in threads with the same steps, on other objects, before."""
    seed, seed_of_torch = rnd.getrandbits(64), rnd.getrandbits(32)
    torch.set_num_threads(1)
    alone, shared = (steps_of(seed, seed_of_torch) for _ in range(2))
    note("; ".join(step.name for step in alone))
    expected = [step.run() for step in alone]
    threads, wrong = rnd.randint(2, 8), list[str]()
    ready = threading.Barrier(threads + 1)
    workers = [
        threading.Thread(target=work, args=(rnd.getrandbits(32), shared, expected, ready, wrong))
        for _ in range(threads)
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(rnd.choice([1e-6, 1e-5, interval]))
    try:
        for worker in workers:
            worker.start()
        ready.wait()
        while any(worker.is_alive() for worker in workers):
            disturb(rnd)
            workers[rnd.randrange(threads)].join(rnd.choice([0.0005, 0.005, 0.02]))
    finally:
        sys.setswitchinterval(interval)
    assert not wrong, "\n".join(wrong[:5])


def steps_of(seed: int, seed_of_torch: int) -> list[Step]:
    """The same steps whenever it is called, on new objects."""
    torch.manual_seed(seed_of_torch)
    return draw_steps(Random(seed), 4, dropout=False)


def work(
    seed: int,
    steps: list[Step],
    expected: list[list[torch.Tensor]],
    ready: threading.Barrier,
    wrong: list[str],
) -> None:
    """Runs all steps in an order of its own, and records what differs."""
    rnd = Random(seed)
    torch.set_num_threads(rnd.choice([1, 2, 3]))
    ready.wait()
    for _ in range(ROUNDS):
        for number in rnd.sample(range(len(steps)), len(steps)):
            try:
                found = differing(steps[number].run(), expected[number])
            except Exception as error:
                found = repr(error)
            if found:
                wrong.append(f"{steps[number].name}: {found}")


def disturb(rnd: Random) -> None:
    """What another part of a program may do meanwhile."""
    what = rnd.randrange(4)
    if what == 0:
        torch.set_num_threads(rnd.choice([1, 2, 3, 5]))
    elif what == 1:
        gat_ext.empty_cache()
    elif what == 2:
        gc.collect()
