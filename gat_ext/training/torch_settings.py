"""The settings of torch for a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gat_ext.training import threads


@contextmanager
def settings_of_torch(given: int | None, deterministic: bool = False) -> Iterator[threads.Threads]:
    """Sets the number of threads, and whether results may depend on it; restores both."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    chosen = threads.choose(given)
    torch.set_num_threads(chosen.number)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    memory.fill_uninitialized_memory = False  # nothing reads it
    try:
        yield chosen
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=only_warn)
        memory.fill_uninitialized_memory = fill
