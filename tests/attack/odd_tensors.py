"""Odd tensors, and what a reader of their values would take them for."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor


class Odd(NamedTuple):
    """How a tensor is changed.

    Attributes:
        make: from a dense tensor of at least one element; returns None where it cannot be.
        plain: a dense tensor of the same values, with which the call must have the same result;
            None if only the kinds of error are judged.
        works: it must not be refused.
        errors: other exceptions that torch itself raises for it.
    """

    make: Callable[[Random, Tensor], Any]
    plain: Callable[[Tensor, Any], Tensor | None] | None = None
    works: bool = False
    errors: tuple[type[Exception], ...] = ()


class Subclass(Tensor):
    """A tensor of a class of its own."""


def copied(x: Tensor, odd: Any) -> Tensor:
    """The values of an odd tensor in a plain one."""
    values = odd.detach().as_subclass(Tensor).resolve_neg()
    return values.clone(memory_format=torch.contiguous_format).requires_grad_(odd.requires_grad)


def same(x: Tensor, odd: Any) -> Tensor:
    """The tensor itself, of which the odd one is another form."""
    return x.detach()


def as_dtype(x: Tensor, odd: Tensor) -> Tensor:
    """Where another dtype is taken, its values count."""
    values = odd.detach()
    return (values.real if values.is_complex() else values).to(x.dtype)


def moved(x: Tensor) -> Tensor | None:
    return x.transpose(0, -1).contiguous().transpose(0, -1) if x.dim() > 1 else None


def expanded(rnd: Random, x: Tensor) -> Tensor:
    return x[:1].expand(x.shape) if rnd.random() < 0.5 else x.flatten()[0].expand(x.shape)


def overlapping(rnd: Random, x: Tensor) -> Tensor:
    """Rows that share elements."""
    return x.detach().flatten().repeat(2).as_strided(x.shape, (1,) * x.dim())


def unaligned(rnd: Random, x: Tensor) -> Tensor:
    """Elements at addresses that are no multiple of their size."""
    memory = bytearray(x.numel() * x.element_size() + 1)
    odd = torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=1).view(x.shape)
    return odd.copy_(x.detach())


def read_only(rnd: Random, x: Tensor) -> Tensor | None:
    if x.dtype == torch.bfloat16:
        return None
    array = x.detach().numpy().copy()
    array.flags.writeable = False
    return torch.from_numpy(array)


def negated(rnd: Random, x: Tensor) -> Tensor | None:
    """With the bit that says: negate when it is read."""
    return torch._neg_view(-x) if x.is_floating_point() else None


def in_inference(rnd: Random, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.detach().clone()


def with_one(value: float) -> Callable[[Random, Tensor], Tensor | None]:
    """One element replaced."""

    def make(rnd: Random, x: Tensor) -> Tensor | None:
        if not x.is_floating_point():
            return None
        odd = x.detach().clone(memory_format=torch.contiguous_format)
        odd.view(-1)[rnd.randrange(odd.numel())] = value
        return odd

    return make


def cast(rnd: Random, x: Tensor) -> Tensor:
    kinds = (
        "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128"
    )
    dtype = getattr(torch, rnd.choice([*kinds.split(), "float8_e4m3fn", "uint16"]))
    return x.detach().to(dtype)


def quantized(rnd: Random, x: Tensor) -> Tensor:
    return torch.quantize_per_tensor(x.detach().float(), 0.1, 0, torch.qint8)


def another_shape(rnd: Random, x: Tensor) -> Tensor:
    shape = list(x.shape)
    if not shape or rnd.random() < 0.3:
        return x.detach().unsqueeze(rnd.randint(0, x.dim()))
    if rnd.random() < 0.3:
        return x.detach().flatten()[: rnd.randint(0, 2)]
    shape[rnd.randrange(len(shape))] = rnd.choice([0, 1, 2, 7])
    return x.new_zeros(shape)


def sparse(rnd: Random, x: Tensor) -> Any:
    if x.dim() != 2:
        return x.detach().to_sparse() if x.dim() else None
    layout = rnd.choice([torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
    return x.detach().to_sparse(layout=layout)


def nested(rnd: Random, x: Tensor) -> Any:
    layout = rnd.choice([torch.strided, torch.jagged])
    return torch.nested.nested_tensor([x.detach()], layout=layout) if x.dim() else None


def fake(rnd: Random, x: Tensor) -> Any:
    return FakeTensorMode().from_tensor(x.detach())


def in_mkldnn(rnd: Random, x: Tensor) -> Any:
    return x.detach().to_mkldnn() if x.dtype == torch.float32 and x.dim() else None


TORCHS = (RuntimeError, AssertionError, AttributeError)  # for its own wrappers
ODD = {
    "transposed": Odd(lambda rnd, x: moved(x), copied, works=True),
    "every other": Odd(lambda rnd, x: torch.stack([x, x], -1)[..., 1], copied, works=True),
    "with an offset": Odd(
        lambda rnd, x: torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape),
        copied, works=True,
    ),
    "expanded": Odd(expanded, copied, works=True),
    "overlapping": Odd(overlapping, copied, works=True),
    "unaligned": Odd(unaligned, copied, works=True),
    "parameter": Odd(
        lambda rnd, x: torch.nn.Parameter(x.detach()) if x.is_floating_point() else None,
        copied, works=True,
    ),
    "subclass": Odd(lambda rnd, x: x.as_subclass(Subclass), copied, works=True),
    "negated": Odd(negated, copied, works=True),
    "shared": Odd(lambda rnd, x: x.detach().clone().share_memory_(), copied, works=True),
    "of DLPack": Odd(lambda rnd, x: torch.from_dlpack(x.detach().clone()), copied, works=True),
    "read-only": Odd(read_only, copied, works=True),
    "of inference": Odd(in_inference, copied, errors=(RuntimeError,)),
    "NaN": Odd(with_one(math.nan), copied),
    "infinite": Odd(with_one(math.inf), copied),
    "minus infinite": Odd(with_one(-math.inf), copied),
    "huge": Odd(with_one(1e30), copied),
    "largest": Odd(with_one(65504.0), copied),
    "denormal": Odd(with_one(1e-310), copied),
    "another dtype": Odd(cast, as_dtype),
    "quantized": Odd(quantized, errors=TORCHS),
    "of another shape": Odd(another_shape),
    "sparse": Odd(sparse, same),
    "MKL-DNN": Odd(in_mkldnn, same),
    "on meta": Odd(lambda rnd, x: x.detach().to("meta")),
    "nested": Odd(nested, errors=TORCHS),
    "fake": Odd(fake, errors=TORCHS),
    "two tensors": Odd(lambda rnd, x: TwoTensor(x.detach(), x.detach()), errors=TORCHS),
    "list": Odd(lambda rnd, x: x.tolist(), same),
    "array": Odd(lambda rnd, x: x.detach().float().numpy(), same),
    "pair": Odd(lambda rnd, x: (x, x)),
    "object": Odd(lambda rnd, x: np.array([None], dtype=object)),
}  # fmt: skip
