"""Dot products of every head of a row with vectors of that head: values, gradients, refusals."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from gat_ext.ops.head_terms import head_terms
from gat_ext.ops.registry import ops
from gat_ext.testing import devices

F64 = torch.float64
# N, H, C, K: no rows, one channel, channels that fill no vector, several tiles and work items.
SIZES = [(0, 2, 3, 2), (7, 1, 1, 1), (65, 3, 5, 2), (70, 4, 32, 3), (4200, 2, 8, 2), (9, 2, 300, 4)]


def reference(x, att):
    return torch.einsum("nhc,khc->knh", x.double(), att.double())


def inputs(size, dtype, device="cpu", requires_grad=False):
    n, h, c, k = size
    generator = torch.Generator().manual_seed(n + c)
    draw = [torch.randn(*s, generator=generator, dtype=F64) for s in ((n, h, c), (k, h, c))]
    return [t.to(device, dtype).requires_grad_(requires_grad) for t in draw]


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients(size, dtype, device):
    x, att = inputs(size, dtype, device, requires_grad=True)
    out = head_terms(x, att)
    grad = torch.randn(out.shape, dtype=F64).to(device, dtype)
    found = [out, *torch.autograd.grad(out, [x, att], grad)]
    wide = [t.detach().double().requires_grad_() for t in (x, att)]
    expected = reference(*wide)
    expected = [expected, *torch.autograd.grad(expected, wide, grad.double())]
    eps = torch.finfo(dtype).eps * max(size[0], size[2]) ** 0.5
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        scale = theirs.abs().max().item() if theirs.numel() else 1
        assert_close(ours.double(), theirs, rtol=4 * eps, atol=4 * eps * max(scale, 1))


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("needed", [(True, False), (False, True)])
def test_one_gradient_alone(needed, device):
    x, att = inputs((65, 3, 5, 2), F64, device)
    grad = torch.randn(2, 65, 3, dtype=F64, device=device)
    both = ops.head_terms_backward(grad, x, att, True, True)
    alone = ops.head_terms_backward(grad, x, att, *needed)
    for found, expected, wanted in zip(alone, both, needed, strict=True):
        assert torch.equal(found, expected) if wanted else found.numel() == 0


@pytest.mark.parametrize("device", devices())
def test_derivatives_of_any_order(device):
    x, att = inputs((5, 2, 3, 2), F64, device, requires_grad=True)
    assert torch.autograd.gradcheck(head_terms, (x, att))
    assert torch.autograd.gradgradcheck(head_terms, (x, att))


def test_operator_conforms():
    x, att = inputs((5, 2, 3, 2), torch.float32, requires_grad=True)
    torch.library.opcheck(ops.head_terms, (x, att))
    grad = torch.randn(2, 5, 2)
    torch.library.opcheck(ops.head_terms_backward, (grad, x, att, True, True))


def test_transformed():
    x, att = inputs((5, 2, 3, 2), F64)
    batch = torch.stack([x, 2 * x])
    assert_close(
        torch.func.vmap(head_terms, (0, None))(batch, att),
        torch.stack([reference(x, att), 2 * reference(x, att)]),
    )
    _, tangent = torch.func.jvp(lambda x: head_terms(x, att), (x,), (x,))
    assert_close(tangent, reference(x, att))


def test_more_vectors_than_a_thread_holds():
    x, att = inputs((5, 2, 3, 19), F64)
    assert_close(head_terms(x, att), reference(x, att))


def test_any_layout_of_memory():
    x, att = inputs((65, 3, 5, 2), F64)
    strided = x.transpose(0, 2).contiguous().transpose(0, 2)
    assert not strided.is_contiguous()
    assert torch.equal(head_terms(strided, att), head_terms(x, att))


@pytest.mark.parametrize("size", [(5000, 4, 32, 2), (70000, 1, 8, 1)], ids=str)
def test_bits_do_not_depend_on_the_threads(size):
    x, att = inputs(size, torch.float32)
    grad = torch.randn(size[3], size[0], size[1])
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append([ops.head_terms(x, att), *ops.head_terms_backward(grad, x, att, 1, 1)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


@pytest.mark.parametrize("device", devices())
def test_refusals(device):
    x, att = inputs((5, 2, 3, 2), torch.float32, device)
    with pytest.raises(ValueError, match=r"expected \[N, H, C\] and \[K, H, C\]"):
        ops.head_terms(x.flatten(1), att)
    with pytest.raises(ValueError, match=r"vectors has shape \[2, 2, 2\]"):
        ops.head_terms(x, att[..., :2])
    with pytest.raises(TypeError, match="vectors has dtype"):
        ops.head_terms(x, att.double())
    with pytest.raises(TypeError, match="is not supported"):
        ops.head_terms(x.int(), att.int())
    with pytest.raises(ValueError, match="grad has shape"):
        ops.head_terms_backward(torch.ones(2, 4, 2, device=device), x, att, True, True)
