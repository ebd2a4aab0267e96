"""Are two results equal? Outputs and every gradient, against a tolerance for the dtype."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

# Norm of the difference over the norm of the tensor. A norm over all entries, since a score that
# rounding moves across the kink of leaky_relu rightly changes the gradients of its two rows.
_TOLERANCE = {"float64": 1e-9, "float32": 3e-4}
# Half precision is judged against a float32 reference. gat_ext sums in float32; libraries that sum
# in the storage dtype lose digits on long rows: their error tells, and is not a wrong formula.
_HALF, _HALF_SUMS = 0.1, 0.5
HALF = ("float16", "bfloat16")

Groups = list[list[str]]


def restrict(tensors: Mapping[str, Tensor], own: Groups, every: Iterable[str]) -> dict[str, Tensor]:
    """The tensors as far as a peer can express them.

    Names of one group get the value of the first, since the peer has one weight for all; names that
    it lacks get 0.
    """
    result = dict(tensors)
    for group in own:
        result |= {name: tensors[group[0]] for name in group}
    known = {name for group in own for name in group}
    return result | {name: torch.zeros_like(tensors[name]) for name in every if name not in known}


def difference(got: Tensor, want: Tensor) -> float:
    """``||got - want|| / ||want||``; infinite where shapes differ or an entry is not finite."""
    if got.shape != want.shape:
        return math.inf
    distance = torch.linalg.vector_norm(got.double() - want.double()).item()
    scale = torch.linalg.vector_norm(want.double()).item()
    if not math.isfinite(distance):
        return math.inf
    return distance / scale if scale > 0 else distance


def differences(got: Mapping[str, Any], want: Mapping[str, Any], own: Groups) -> dict[str, float]:
    """The difference of the output and of every gradient that the peer has."""
    found = {"out": difference(got["out"], want["out"])}
    for group in own:
        name = "+".join(group)
        expected = torch.stack([want["grads"][member] for member in group]).sum(0)
        found[f"grad {name}"] = difference(got["grads"][name], expected)
    return found


def tolerance(dtype: str, peer: str) -> float:
    """The largest difference that a peer's rounding explains."""
    if dtype in HALF:
        return _HALF if peer == "gat_ext" else _HALF_SUMS
    return _TOLERANCE[dtype]


def verdict(errors: Mapping[str, float], limit: float, reference: str) -> str | None:
    """None where all is equal up to ``limit``, else the sentence that names the worst tensor."""
    name, worst = max(errors.items(), key=lambda entry: entry[1])
    if worst <= limit:
        return None
    return (
        f"WRONG RESULT: '{name}' differs from {reference} by {worst:.1e} of its norm; "
        f"the tolerance is {limit:.0e}"
    )
