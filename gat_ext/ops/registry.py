"""The namespace of the native operators, and helpers shared by the modules that register them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gat_ext import _C  # noqa: F401  registers torch.ops.gat_ext
from gat_ext.ops.state import without_dispatch_key

ops = torch.ops.gat_ext
Grads = tuple[Tensor | None, ...]


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums over ``dtype``: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def draw_seed(device: torch.device) -> Tensor:
    """A random seed, int64 [1], from torch's generator."""
    return torch.randint(2**63 - 1, (1,), dtype=torch.int64, device=device)


def needs_grad(*tensors: Tensor | None) -> bool:
    """True if one of these tensors may need a gradient."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


_LIBRARY = torch.library.Library("gat_ext", "IMPL")


def register_autocast(name: str, to_lower: bool) -> None:
    """Registers casts of an operator's inputs to the dtype of autocast, or to float32."""
    op = getattr(ops, name).default
    for device, key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
        _LIBRARY.impl(name, _autocast_kernel(op, device, key, to_lower), key)


def _autocast_kernel(op: Any, device: str, key: str, to_lower: bool) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(device) if to_lower else torch.float32

        def cast(value: Any) -> Any:
            castable = isinstance(value, Tensor) and value.is_floating_point()
            # As in torch's own rules, autocast does not change float64.
            return value.to(dtype) if castable and value.dtype != torch.float64 else value

        with without_dispatch_key(key):
            return op(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})

    return kernel
