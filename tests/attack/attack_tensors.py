"""One tensor of a call is odd: in dtype, layout, shape, strides, device, class or values.

The call is refused with a sentence, or has the result of a plain tensor of the same values, also
under vmap and functionalize. Results that are finite in the reference equal it. No argument is
modified.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from calls import Call, contents, draw_call, results_of
from fuzzing import F64
from odd_tensors import ODD, Odd
from random_calls import REFUSALS, Note, assert_within_rounding
from torch import Tensor

from gat_ext import Graph

WRAPPERS: dict[str, Callable[[Callable[[Tensor], Any], Tensor], Any]] = {
    "vmap": lambda f, x: [t[0] for t in torch.func.vmap(f)(x.unsqueeze(0))],
    "functionalize": lambda f, x: torch.func.functionalize(f)(x),
    "vjp": lambda f, x: torch.func.vjp(f, x)[0],
}


def attack(rnd: Random, note: Note) -> None:
    """Draws a call, and changes one tensor."""
    call = draw_call(rnd)
    names = [name for name in call.tensors() if call.given[name].numel()]
    if not names:
        return
    name = rnd.choice(names)
    if rnd.random() < 0.1:
        return judge_wrapped(rnd, call, name, note)
    how = rnd.choice(list(ODD))
    kind, x = ODD[how], call.given[name]
    odd = kind.make(rnd, x)
    if odd is None:
        return
    note(
        f"{call}\n{name} {how}: {odd!r}"
        if how not in ("nested", "fake")
        else f"{call}\n{name} {how}"
    )
    judge(call, name, how, odd)


def judge(call: Call, name: str, how: str, odd: Any) -> None:
    """Compares the call on an odd tensor with that on a plain one."""
    kind, x = ODD[how], call.given[name]
    plain = None if kind.plain is None else kind.plain(x, odd)
    changed = {name: odd}
    before = contents({**call.given, **changed})
    ours = outcome(call, changed, kind)
    assert contents({**call.given, **changed}) == before, "an argument was modified"
    if plain is None:
        return
    theirs = outcome(call, {name: plain}, kind)
    if ours is None:
        assert not kind.works or theirs is None, "the odd tensor was refused"
        return
    assert theirs is not None, "the plain tensor was refused, and the odd one was not"
    assert len(ours) == len(theirs)
    dtype = coarsest([*ours, *theirs, x, *([odd] if isinstance(odd, Tensor) else [])])
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and (a.dtype == b.dtype or how == "another dtype")
        assert_same(a, b, dtype)
    if dtype == F64 and how not in ("sparse", "list", "array"):
        judge_by_reference(call, {name: plain}, ours)


def judge_by_reference(call: Call, changed: dict[str, Any], ours: list[Tensor]) -> None:
    """What is finite by the reference is so here."""
    if "top_k" in call.given or call.given.get("reduce") in ("max", "min") or "mode" in call.given:
        return  # either of two equal scores
    theirs = call.by_reference(**changed)
    for a, b in zip(ours, theirs or [], strict=False):
        finite = b.isfinite() if b.is_floating_point() else torch.ones_like(b, dtype=torch.bool)
        assert_within_rounding(a.detach()[finite], b[finite], F64)


def judge_wrapped(rnd: Random, call: Call, name: str, note: Note) -> None:
    """A transform of torch.func that changes nothing."""
    wrapper, x = rnd.choice(list(WRAPPERS)), call.given[name].detach()
    expected = call.run(**{name: x})
    if isinstance(expected, Graph) or not all(t.is_floating_point() for t in results_of(expected)):
        return
    note(f"{call}\n{name} under {wrapper}")
    if not x.is_floating_point() and wrapper != "functionalize":
        return
    try:
        ours = WRAPPERS[wrapper](lambda t: tuple(results_of(call.run(**{name: t}))), x)
    except REFUSALS as error:
        assert str(error)
        return
    except RuntimeError:  # torch's, of what it cannot transform: random numbers, .item()
        return
    for a, b in zip(ours, results_of(expected), strict=True):
        assert_same(a, b, coarsest([a, b]))


def outcome(call: Call, changed: dict[str, Any], kind: Odd) -> list[Tensor] | None:
    """The results, after a backward pass where they need one; None if the call was refused."""
    try:
        results = results_of(call.run(**changed))
        live = [t for t in results if t.requires_grad]
        leaves = [t for t in [*changed.values()] if isinstance(t, Tensor) and t.requires_grad]
        grads: list[Tensor] = []
        if live and leaves:
            upstream = [torch.ones_like(t) for t in live]
            found = torch.autograd.grad(live, leaves, upstream, allow_unused=True)
            grads = [
                torch.zeros_like(t) if g is None else g for t, g in zip(leaves, found, strict=True)
            ]
    except REFUSALS as error:
        assert type(error) in REFUSALS and str(error), repr(error)
        return None
    except kind.errors:
        return None
    return [*results, *grads]


def assert_same(a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
    """NaN and infinities at the same places, the rest within rounding."""
    if a.device.type == "meta" or b.device.type == "meta":
        return
    a, b = a.detach().as_subclass(Tensor), b.detach().as_subclass(Tensor)
    if a.layout != torch.strided or b.layout != torch.strided:
        a, b = a.to_dense(), b.to_dense()
    if not a.is_floating_point():
        assert torch.equal(a, b)
        return
    with contextlib.suppress(RuntimeError):
        a, b = a.resolve_neg(), b.resolve_neg()
    finite = b.isfinite()
    assert torch.equal(a[~finite].nan_to_num(2e38), b[~finite].nan_to_num(2e38))
    assert_within_rounding(a[finite], b[finite], dtype)


def coarsest(tensors: list[Tensor]) -> torch.dtype:
    """The floating-point dtype with the largest rounding errors."""
    dtypes = [t.dtype for t in tensors if t.is_floating_point() and t.dtype.itemsize > 1]
    return max(dtypes, key=lambda d: torch.finfo(d).eps) if dtypes else F64
