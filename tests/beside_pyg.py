"""Layers beside PyG's, with the same parameters, and comparisons of the two."""

from __future__ import annotations

import torch
from layers import LAYERS, Case, layers_that, random_edges
from torch.testing import assert_close

PROJECTING = layers_that("projections", "pyg")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


EDGES = random_edges(9, 9)


def normal(*size, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def both(name, options, in_channels=5, dtype=torch.float64):
    """Our layer and PyG's, with PyG's parameters."""
    case = Case(name, LAYERS[name], options)
    theirs = case.make_pyg(in_channels).to(dtype)
    ours = case.make(in_channels).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def make(name, **options):
    return Case(name, LAYERS[name], options).make()


def compare(outs, leaves, dtype):
    """Equal values, and equal gradients of the named leaves: (name, ours, theirs)."""
    bound = TOLERANCE[dtype]
    assert_close(*outs, rtol=bound, atol=bound)
    upstream = normal(*outs[0].shape, dtype=dtype, seed=3).detach()
    grads = [
        torch.autograd.grad(out, tensors, upstream, allow_unused=True)
        for out, tensors in zip(outs, zip(*(pair for _, pair in leaves), strict=True), strict=True)
    ]
    for (what, _), a, b in zip(leaves, *grads, strict=True):
        if a is None or b is None:
            assert (a is None or not a.any()) and (b is None or not b.any()), what
            continue
        scale = max(1.0, b.abs().max().item())
        message = f"gradient of {what}: {{}}".format
        assert_close(a / scale, b / scale, rtol=bound, atol=bound, msg=message)


def parameters(ours, theirs):
    named = dict(ours.named_parameters())
    return [(name, (named[name], p)) for name, p in theirs.named_parameters()]
