"""The dense steps of a layer, with large results from the block cache.

On the CPU, page faults in newly allocated memory take about as long as the product that fills it.
Small and sparse tensors, and other devices, use torch's own operators. Under
``torch.use_deterministic_algorithms(True)`` products are bitwise identical for any number of
threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gat_ext.ops.numbering import numbers_of_rows
from gat_ext.ops.registry import Grads, accumulate_dtype, draw_seed, ops, register_autocast
from gat_ext.ops.state import (
    excludes_native,
    in_functorch,
    is_dispatched,
    is_known,
    is_tracing,
)

_LARGE = 1 << 18  # elements


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Product of x [N, C] and the transpose of weight [K, C], plus bias [K]: [N, K]."""
    if _is_deterministic(x):
        return _deterministic_linear(x, weight, bias)
    # Cheap conditions first: most calls on small graphs fail one of them.
    if (
        x.dim() == 2
        and not _is_small(x.shape[0] * max(weight.shape))
        and _is_plain(x)
        and _same_kind(x, weight, bias)
    ):
        out: Tensor = ops.linear(x, weight, bias)
        return out
    return F.linear(x, weight, bias)


def _deterministic_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")
        x = x.to(dtype)
        weight = weight if weight.dtype == torch.float64 else weight.to(dtype)
        bias = bias if bias is None or bias.dtype == torch.float64 else bias.to(dtype)
    if any(t is not None and t.dtype != x.dtype for t in (weight, bias)):
        return F.linear(x, weight, bias)  # raises torch's error
    rows = x.reshape(-1, x.shape[-1])  # x may be a batch
    out: Tensor = _Product.apply(rows, weight.t())
    out = out.view(*x.shape[:-1], weight.shape[0])
    return out if bias is None else out + bias


class _Product(torch.autograd.Function):
    """Matrix product on one thread; its gradients of any order, too.

    BLAS splits long sums, such as the gradient of a weight, over threads, so that the last bits
    depend on the number of threads. This happens even for sums of 128 terms, so products of blocks
    of a fixed size would not help.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        # Without autocast, because the caller has cast the inputs.
        with _one_thread(), torch.autocast("cpu", enabled=False):
            return a @ b

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Grads:
        a, b = ctx.saved_tensors
        grad_a = _Product.apply(grad, b.t()) if ctx.needs_input_grad[0] else None
        return grad_a, _Product.apply(a.t(), grad) if ctx.needs_input_grad[1] else None


_setting_threads = threading.Lock()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sets the number of BLAS threads, a setting of the whole process, to one."""
    with _setting_threads:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _is_deterministic(x: Tensor) -> bool:
    """True if results must not depend on the number of threads; never while tracing."""
    return (
        torch.are_deterministic_algorithms_enabled()
        and _is_plain(x)
        and not torch.compiler.is_compiling()
        and not in_functorch()
        and not is_dispatched()
    )


def add(x: Tensor, other: Tensor) -> Tensor:
    """Sum of x [N, C] and other, [N, C] or [C]."""
    if (
        _is_large(x.numel())
        and _is_plain(x)
        and x.dtype == other.dtype  # else torch promotes one of them, under autocast, too
        and _same_kind(x, other)
        and other.shape[-1] == x.shape[-1]
    ):
        out: Tensor = ops.add(x, other)
        return out
    return x + other


def inverse_norm(x: Tensor, eps: float) -> Tensor:
    """1 / |x| over the last dimension; 0, with gradient 0, if the norm is at most eps."""
    # Inductor fuses the norms, and their gradient with the sum of the gradients of x.
    if not torch.compiler.is_compiling() and _is_large(x.numel()) and _is_plain(x):
        out: Tensor = ops.inverse_norm(x, eps)
        return out
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1)
    positive = norm > eps
    if x.device.type == "cpu" and not is_tracing() and bool(positive.all()):
        return norm.reciprocal()
    # The second derivative of a norm at 0 is NaN, whatever multiplies it.
    nonzero = torch.where(positive.unsqueeze(-1), x, 1)
    return torch.where(positive, torch.linalg.vector_norm(nonzero, dim=-1).reciprocal(), 0)


def of_unit_size(x: Tensor, eps: float) -> Tensor:
    """Each vector of x [..., D] times the power of two by which its norm is in [1, 2).

    A vector whose norm is at most eps becomes 0. Elements keep their bits, except those that are
    tiny beside the norm.
    """
    wide = x.to(accumulate_dtype(x.dtype))
    norm = torch.linalg.vector_norm(wide.detach(), dim=-1, keepdim=True)
    factor = torch.where(norm > eps, norm.log2().floor().neg().exp2(), 0)
    return (wide * factor).to(x.dtype)


def is_float16(x: Tensor) -> bool:
    """True if x is float16, or autocast makes it so."""
    if x.device.type == "meta" or not torch.is_autocast_enabled(x.device.type):
        return x.dtype == torch.float16
    return x.dtype != torch.float64 and (torch.get_autocast_dtype(x.device.type) == torch.float16)


def relu(x: Tensor) -> Tensor:
    """max(x, 0), elementwise.

    Used in compiled programs, too: torch's would store a byte for the sign of each element, and
    takes several times as long.
    """
    if _is_plain(x) and not _is_small(x.numel()):
        out: Tensor = ops.relu(x)
        return out
    return F.relu(x)


def dropout(x: Tensor, p: float) -> Tensor:
    """Multiplies x by 0 with probability p in (0, 1], else by 1 / (1 - p)."""
    if x.device.type != "cpu" or excludes_native():
        return F.dropout(x, p)
    out: Tensor = ops.dropout(x, draw_seed(x.device), p, numbers_of_rows(x))
    return out


def _is_plain(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.layout == torch.strided and not excludes_native()


def _is_large(size: int) -> bool:
    """True if so many elements come from the block cache: in a compiled program, in all its calls.

    Other elementwise operators Inductor fuses.
    """
    return is_known(size >= _LARGE)


def _is_small(size: int) -> bool:
    """The opposite; a compiled program for all sizes is neither."""
    return is_known(size < _LARGE)


def scaled(x: Tensor, factor: float | Tensor) -> Tensor:
    """Product of x [N, H] and factor, a number or a tensor [] or [H]."""
    if (
        isinstance(factor, Tensor)
        and factor.numel() == 1
        and factor.dtype == x.dtype
        and _is_deterministic(x)
    ):
        # The gradient of the factor is a sum over all elements, which torch splits over threads.
        out: Tensor = _Product.apply(x.reshape(-1, 1), factor.reshape(1, 1))
        return out.view(x.shape)
    return x * factor


def _same_kind(x: Tensor, *others: Tensor | None) -> bool:
    """True if dtypes and devices agree, or autocast makes the dtypes agree."""
    mixed = torch.is_autocast_enabled("cpu")
    return all(
        o is None or (o.device == x.device and (mixed or o.dtype == x.dtype)) for o in others
    )


@torch.library.register_fake("gat_ext::linear")
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]))


@torch.library.register_fake("gat_ext::linear_backward")
def _(
    grad: Tensor, x: Tensor, weight: Tensor, needs_grad: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = tuple(x.shape), tuple(weight.shape), (weight.shape[0],)
    return tuple(  # type: ignore[return-value]
        x.new_empty(shape if needed else (0,))
        for shape, needed in zip(shapes, needs_grad, strict=True)
    )


def _linear_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _linear_backward(ctx: Any, grad: Tensor) -> Grads:
    x, weight = ctx.saved_tensors
    needs_grad = [bool(needed) for needed in ctx.needs_input_grad]
    gradients = ops.linear_backward(grad, x, weight, needs_grad)
    return tuple(g if needed else None for g, needed in zip(gradients, needs_grad, strict=True))


def _linear_backward_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    *tensors, ctx.needs_grad = inputs
    ctx.save_for_backward(*tensors)


def _linear_double_backward(ctx: Any, *upstream: Tensor | None) -> Grads:
    # The gradients are grad weight, grad^T x and the sum over rows of grad.
    grad, x, weight = ctx.saved_tensors
    u_x, u_weight, u_bias = (
        u if needed else None for u, needed in zip(upstream, ctx.needs_grad, strict=True)
    )
    d_grad = torch.zeros_like(grad)
    d_x = d_weight = None
    if u_x is not None:
        d_grad = d_grad + u_x @ weight.t()
        d_weight = grad.t() @ u_x
    if u_weight is not None:
        d_grad = d_grad + x @ u_weight.t()
        d_x = grad @ u_weight
    if u_bias is not None:
        d_grad = d_grad + u_bias
    return d_grad, d_x, d_weight, None


torch.library.register_autograd("gat_ext::linear", _linear_backward, setup_context=_linear_setup)
torch.library.register_autograd(
    "gat_ext::linear_backward", _linear_double_backward, setup_context=_linear_backward_setup
)


@torch.library.register_fake("gat_ext::add")
def _(x: Tensor, other: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _add_setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.other_shape = inputs[1].shape


def _add_backward(ctx: Any, grad: Tensor) -> Grads:
    return grad, grad.sum_to_size(ctx.other_shape) if ctx.needs_input_grad[1] else None


torch.library.register_autograd("gat_ext::add", _add_backward, setup_context=_add_setup)


@torch.library.register_fake("gat_ext::scale")
def _(x: Tensor, factor: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _scale_setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _scale_backward(ctx: Any, grad: Tensor) -> Grads:
    x, factor = ctx.saved_tensors
    grad_x = ops.scale(grad, factor) if ctx.needs_input_grad[0] else None
    return grad_x, (grad * x).sum(-1, keepdim=True) if ctx.needs_input_grad[1] else None


torch.library.register_autograd("gat_ext::scale", _scale_backward, setup_context=_scale_setup)


@torch.library.register_fake("gat_ext::relu")
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.register_fake("gat_ext::relu_backward")
def _(grad: Tensor, out: Tensor) -> Tensor:
    return torch.empty_like(out, memory_format=torch.contiguous_format)


def _relu_setup(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _relu_backward(ctx: Any, grad: Tensor) -> Tensor:
    grad_x: Tensor = ops.relu_backward(grad, *ctx.saved_tensors)
    return grad_x


def _relu_backward_setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _relu_double_backward(ctx: Any, upstream: Tensor) -> Grads:
    return ops.relu_backward(upstream, *ctx.saved_tensors), None


torch.library.register_autograd("gat_ext::relu", _relu_backward, setup_context=_relu_setup)
torch.library.register_autograd(
    "gat_ext::relu_backward", _relu_double_backward, setup_context=_relu_backward_setup
)


@torch.library.register_fake("gat_ext::dropout")
def _(x: Tensor, seed: Tensor, p: float, row_number: Tensor | None = None) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _dropout_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, seed, ctx.p, row_number = inputs
    ctx.save_for_backward(seed, row_number)


def _dropout_backward(ctx: Any, grad: Tensor) -> Grads:
    seed, row_number = ctx.saved_tensors
    return ops.dropout(grad, seed, ctx.p, row_number), None, None, None


torch.library.register_autograd("gat_ext::dropout", _dropout_backward, setup_context=_dropout_setup)


@torch.library.register_fake("gat_ext::inverse_norm")
def _(x: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape[:-1])


def _inverse_norm_setup(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], output)


def _inverse_norm_backward(ctx: Any, grad: Tensor) -> Grads:
    x, inverse = ctx.saved_tensors  # d|x|^-1 = -|x|^-3 x dx
    # A factor at a time: the cube would be 0 for norms above 1e15, and 16 bits do not hold it.
    inverse = inverse.to(accumulate_dtype(x.dtype))
    return ops.scale(x, -(grad * inverse * inverse * inverse).unsqueeze(-1)), None


torch.library.register_autograd(
    "gat_ext::inverse_norm", _inverse_norm_backward, setup_context=_inverse_norm_setup
)

register_autocast("linear", to_lower=True)


_FEW_HEADS = 16


def map_heads(x: Tensor, maps: Tensor) -> Tensor:
    """[N, H, B], each head of x [N, H, A] times its map [H, A, B].

    As one product with a block-diagonal matrix while the heads are few, because torch's product for
    each head copies x to another layout.
    """
    if maps.shape[0] > _FEW_HEADS:
        return torch.einsum("nha,hab->nhb", x, maps)
    product: Tensor = linear(x.flatten(1), torch.block_diag(*maps.transpose(1, 2)))
    return product.view(-1, maps.shape[0], maps.shape[2])
