"""Forward and backward in a CUDA graph: replayed on new inputs, is the result that of eager?"""

from __future__ import annotations

import torch
from cuda_cases import Case
from cuda_clock import Clock
from cuda_operators import Tensors, draw, leaves_of, with_dropout
from cuda_results import FAILED, LEFT_OUT, OK, WRONG, Capture
from torch import Tensor

_HEADS, _CHANNELS, _DROPOUT = 4, 32, 0.3


def captures_equal(clock: Clock, case: Case, graph: str, score: str, dtype: str) -> Capture:
    """Captures one step with dropout, changes inputs and seed in place, replays and compares bits."""
    if not clock.on_gpu:
        return Capture(graph, score, dtype, LEFT_OUT, "needs a GPU")
    try:
        different = _differences(clock, case, score, getattr(torch, dtype))
    except Exception as error:  # whatever a capture may raise is the finding
        line = next(iter(str(error).strip().splitlines()), "")
        return Capture(graph, score, dtype, FAILED, f"{type(error).__name__}: {line}"[:200])
    if different:
        return Capture(graph, score, dtype, WRONG, f"differs in {', '.join(different)}")
    return Capture(graph, score, dtype, OK)


def _differences(clock: Clock, case: Case, score: str, dtype: torch.dtype) -> list[str]:
    """The results in which a replay differs from eager."""
    static, fresh = (draw(score, case, _HEADS, _CHANNELS, dtype, seed) for seed in (10, 11))
    seed = torch.tensor([5], device=case.device)

    def step() -> dict[str, Tensor]:
        return _step(score, case, static, seed)

    graph, captured = clock.capture(step)
    with torch.no_grad():
        for name, tensor in static.items():
            tensor.copy_(fresh[name])
        seed.fill_(6)
    graph.replay()
    clock.synchronize()
    expected = step()
    return [name for name, want in expected.items() if not torch.equal(captured[name], want)]


def _step(score: str, case: Case, tensors: Tensors, seed: Tensor) -> dict[str, Tensor]:
    leaves = leaves_of(tensors)
    out = with_dropout(score, case, tensors, _DROPOUT, seed)
    grads = torch.autograd.grad(out, list(leaves.values()), tensors["grad_out"])
    return {"out": out.detach(), **dict(zip(leaves, grads, strict=True))}
