"""Runs tests that name no device on another one: ``pytest --device cuda``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

RANDOM = ("rand", "randn", "randint", "randperm")


def moved(make: Callable[..., Tensor], device: str) -> Callable[..., Tensor]:
    """A random function of torch that draws where its generator is, and moves the numbers.

    The tests seed generators of the CPU, which torch does not let draw on another device.
    """

    def draw(*sizes: Any, **options: Any) -> Tensor:
        generator = options.get("generator")
        if generator is None or options.get("device") is not None or "out" in options:
            return make(*sizes, **options)
        grad = options.pop("requires_grad", False)
        drawn = make(*sizes, **options, device=generator.device)
        return drawn.to(device).requires_grad_(grad)

    return draw


@contextmanager
def default_device(device: str, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors are created on the device, unless the code says otherwise."""
    with patch.context() as patched, torch.device(device):
        for name in RANDOM:
            patched.setattr(torch, name, moved(getattr(torch, name), device))
        yield
