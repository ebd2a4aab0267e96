"""torch.utils.checkpoint repeats the dropout of the first pass: it changes no loss or gradient."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from layers import plain_cases
from torch.utils.checkpoint import checkpoint

from gat_ext import functional, models
from gat_ext.testing import sample_graph

CASES = plain_cases("checkpoint")
GRAPH = sample_graph("unsorted")
CALLED = {case.name: partial(case.make, 6, **case.layer.random) for case in CASES} | {
    f"the model {name}": partial(models.build(name), 6, 4, 3) for name in models.available()
}
WITHOUT_DROPOUT = {case.name for case in CASES if not case.layer.random}


def loss_and_gradients(call, tensors):
    torch.manual_seed(11)
    loss = call().square().sum()
    return [loss, *torch.autograd.grad(loss, tensors, allow_unused=True)]


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("name", CALLED)
def test_layers_and_models(name, use_reentrant):
    torch.manual_seed(0)
    layer, x = CALLED[name](), torch.randn(8, 6, requires_grad=True)

    def gradients(call):
        torch.manual_seed(11)
        layer.zero_grad()
        x.grad = None
        loss = call().square().sum()
        loss.backward()  # autograd.grad does not support reentrant checkpoints
        return [loss.detach(), x.grad, *(p.grad for p in layer.parameters())]

    plain = gradients(lambda: layer(x, GRAPH))
    saved = gradients(lambda: checkpoint(layer, x, GRAPH, use_reentrant=use_reentrant))
    for a, b in zip(plain, saved, strict=True):
        assert torch.equal(a, b)
    if name not in WITHOUT_DROPOUT:
        torch.manual_seed(12)
        assert not torch.equal(plain[0], layer(x, GRAPH).square().sum())


def test_operator():
    query, value = (torch.randn(8, 2, 4, requires_grad=True) for _ in range(2))

    def call(query, value):
        return functional.dot_attention(GRAPH, query, value, value, dropout_p=0.5)

    tensors = [query, value]
    plain = loss_and_gradients(lambda: call(*tensors), tensors)
    saved = loss_and_gradients(lambda: checkpoint(call, *tensors, use_reentrant=False), tensors)
    assert all(torch.equal(a, b) for a, b in zip(plain, saved, strict=True))
