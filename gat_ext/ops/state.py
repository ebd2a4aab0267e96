"""The current modes of torch: tracing, transforming, forward-mode differentiation.

The only module that reads torch's private state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def in_functorch() -> bool:
    """True inside a transformation of ``torch.func``."""
    return torch._C._are_functorch_transforms_active()


def is_dispatched() -> bool:
    """True inside a ``TorchDispatchMode``: fake tensors, ``make_fx``."""
    return torch._C._len_torch_dispatch_stack() > 0


def is_tracing() -> bool:
    """True while torch traces or transforms: nothing may then depend on the values of a tensor."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or in_functorch()
        or is_dispatched()
    )


def is_known(condition: bool) -> bool:
    """The condition; while torch.compile traces, if it holds whatever values the symbols take."""
    if not torch.compiler.is_compiling():
        return condition
    # Imported here, because it imports sympy.
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)


def is_capturing(of: Any) -> bool:
    """True for a tensor or graph on a GPU while the current stream captures a CUDA graph.

    What is computed from it then has no contents before the first replay: it must not be cached.
    """
    device = getattr(of, "device", None)
    on_gpu = isinstance(device, torch.device) and device.type == "cuda"
    return on_gpu and torch.cuda.is_current_stream_capturing()


def break_graph(reason: str) -> None:
    """Ends the graph that torch.compile builds; with fullgraph, its error says the reason."""
    torch._dynamo.graph_break(msg=reason)


def in_forward_mode() -> bool:
    """True if tensors may have tangents, which the native operators would drop."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def is_transformed() -> bool:
    """True if tensors may have a tangent or a batch, which the native operators would drop."""
    return in_functorch() or in_forward_mode()


_TO_ONNX: ContextVar[bool] = ContextVar("exporting_to_onnx", default=False)


@contextmanager
def exporting_to_onnx() -> Iterator[None]:
    """Within it, ``torch.export.export`` records operators that ONNX has counterparts of."""
    token = _TO_ONNX.set(True)
    try:
        yield
    finally:
        _TO_ONNX.reset(token)


def is_exporting_to_onnx() -> bool:
    """True in an export to ONNX, whose programs must not contain native operators."""
    if torch.compiler.is_dynamo_compiling() or not torch.compiler.is_exporting():
        return False
    return _TO_ONNX.get() or torch.onnx.is_in_onnx_export()


def excludes_native() -> bool:
    """True if native operators would drop a tangent or a batch, or are unknown to ONNX."""
    return is_transformed() or is_exporting_to_onnx()


def have_tangents(*tensors: Any) -> bool:
    """True if one of these tensors has a tangent, or may have one inside torch.func.

    Another transformation of torch.func can hide a tangent.
    """
    if not in_forward_mode():
        return False
    return in_functorch() or any(
        isinstance(t, Tensor)
        and t.is_floating_point()
        and forward_ad.unpack_dual(t).tangent is not None
        for t in tensors
    )


def without_dispatch_key(name: str) -> AbstractContextManager[None]:
    """Makes calls skip the kernels of a dispatch key, such as "AutocastCPU"."""
    guard: AbstractContextManager[None] = torch._C._ExcludeDispatchKeyGuard(
        torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, name))
    )
    return guard


def smaller(a: int, b: int) -> int:
    """The smaller of two sizes, which may be symbols, without a guard on the comparison."""
    if isinstance(a, Tensor):  # sizes are tensors in torch.jit.trace
        return min(a, b)
    if torch.compiler.is_compiling():
        # Before torch 2.13, dynamo cannot trace sym_min of known numbers.
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        if statically_known_true(a <= b):
            return a
        if statically_known_true(b <= a):
            return b
    least: int = torch.sym_min(a, b)
    return least


def are_at_most(sizes: Iterable[int], limit: int) -> bool:
    """True if all sizes are at most ``limit``; False where a trace cannot say or must not ask.

    torch.compile guards on the answer. An exported program serves all sizes of its constraints.
    """
    for size in sizes:
        if isinstance(size, Tensor):  # in torch.jit.trace
            return False
        if torch.compiler.is_exporting():
            from torch.fx.experimental.symbolic_shapes import statically_known_true

            if not statically_known_true(size <= limit):
                return False
        elif size > limit:
            return False
    return True


def assume_several(count: int | torch.SymInt) -> None:
    """Tells a trace that a number, which it cannot know, is above 1; raises if it is not."""
    torch._check(count > 1)


def has_global_hooks() -> bool:
    """True if hooks are registered that torch calls for every module."""
    return bool(torch.nn.modules.module._has_any_global_hook())
