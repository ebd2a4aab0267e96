"""head_terms: the dot products of every head of a row with vectors of that head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.ops.registry import Grads, ops
from gat_ext.ops.state import excludes_native

_DEVICES = "cpu", "cuda", "meta"
_MOST_VECTORS = 4  # that a thread of the CUDA kernels has in registers


def head_terms(x: Tensor, vectors: Tensor) -> Tensor:
    """Dot products <x_nh, v_kh> of x [N, H, C] and vectors [K, H, C]: [K, N, H].

    Reads x once, and in the backward pass writes its gradient once; no [N, H, C] is materialised.
    """
    if x.device.type not in _DEVICES or x.layout != torch.strided or excludes_native():
        return torch.einsum("nhc,khc->knh", x, vectors)
    if vectors.shape[0] <= _MOST_VECTORS:
        out: Tensor = ops.head_terms(x, vectors)
        return out
    return torch.cat([ops.head_terms(x, part) for part in vectors.split(_MOST_VECTORS)])


@torch.library.register_fake("gat_ext::head_terms")
def _(x: Tensor, vectors: Tensor) -> Tensor:
    return x.new_empty((vectors.shape[0], *x.shape[:2]))


@torch.library.register_fake("gat_ext::head_terms_backward")
def _(
    grad: Tensor, x: Tensor, vectors: Tensor, grad_x: bool, grad_vectors: bool
) -> tuple[Tensor, Tensor]:
    return (
        x.new_empty(x.shape if grad_x else (0,)),
        x.new_empty(vectors.shape if grad_vectors else (0,)),
    )


def _backward_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    *tensors, ctx.grad_x, ctx.grad_vectors = inputs
    ctx.save_for_backward(*tensors)


def _double_backward(ctx: Any, u_x: Tensor | None, u_vectors: Tensor | None) -> Grads:
    # The gradients are sum_k grad v and sum_n grad x; with upstream u:
    #   d/dgrad = <u_x, v> + <x, u_v>, d/dx = sum_k grad u_v, d/dv = sum_n grad u_x.
    grad, x, vectors = ctx.saved_tensors
    u_x = u_x if ctx.grad_x else None
    u_vectors = u_vectors if ctx.grad_vectors else None
    d_grad = d_x = d_vectors = None
    if u_x is not None:
        d_grad = ops.head_terms(u_x, vectors)
        d_vectors = ops.head_terms_backward(grad, u_x, vectors, False, True)[1]
    if u_vectors is not None:
        terms = ops.head_terms(x, u_vectors)
        d_grad = terms if d_grad is None else d_grad + terms
        d_x = ops.head_terms_backward(grad, x, u_vectors, True, False)[0]
    return d_grad, d_x, d_vectors, None, None


torch.library.register_autograd(
    "gat_ext::head_terms_backward", _double_backward, setup_context=_backward_setup
)
