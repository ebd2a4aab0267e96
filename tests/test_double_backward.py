"""Second derivatives through all results, by finite differences; training a gradient penalty."""

from __future__ import annotations

import pytest
import torch
from layers import full_cases, over
from torch.autograd import gradgradcheck
from torch.testing import assert_close

from gat_ext import functional, reference
from gat_ext.reference import SCORES
from gat_ext.testing import reference_inputs, sample_graph, sample_inputs

F64 = torch.float64
RESULTS = {
    "out": {},
    "out and lse": {"return_lse": True},
    "all": {"return_weights": True, "return_lse": True},
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("results", RESULTS)
@pytest.mark.parametrize("score", SCORES)
def test_every_result_of_edge_attention(score, results):
    """Each of bias, edge features, edge_in_value, top_k and dropout by a fixed seed, and all.

    The graph has rows without edges.
    """
    graph = sample_graph("isolated")
    for name, inputs in sample_inputs(score, graph, 2, 2, requires_grad=True).items():
        if name == "masked":  # -inf has no finite differences
            continue
        leaves = {
            n: t for n, t in inputs.items() if isinstance(t, torch.Tensor) and t.requires_grad
        }
        fixed = {n: v for n, v in inputs.items() if n not in leaves}

        def call(*tensors, leaves=leaves, fixed=fixed):
            given = dict(zip(leaves, tensors, strict=True))
            found = functional.edge_attention(graph, **given, **fixed, **RESULTS[results])
            found = found if isinstance(found, tuple) else (found,)
            return tuple(t[graph.in_degrees() > 0] if t is found[-1] else t for t in found)

        assert gradgradcheck(call, tuple(leaves.values()), fast_mode=True), name


@pytest.mark.parametrize(("order", "bound"), [(2, 1e-9), (3, 1e-8)])
@pytest.mark.parametrize("score", SCORES)
def test_gradients_of_higher_order_equal_the_reference(score, order, bound):
    """The whole Hessian, instead of one direction as above."""
    graph = sample_graph("unsorted")
    inputs = sample_inputs(score, graph, 2, 3, requires_grad=True)["everything"]
    exact = reference_inputs(graph, inputs, F64)

    def highest(function, given):
        leaves = [t for t in given.values() if isinstance(t, torch.Tensor) and t.requires_grad]
        out, weights, lse = function(graph, **given, return_weights=True, return_lse=True)
        total = out.pow(3).sum() + weights.pow(3).sum() + lse[graph.in_degrees() > 0].pow(3).sum()
        for _ in range(order - 1):
            grads = torch.autograd.grad(total, leaves, create_graph=True)
            total = sum(g.pow(2).sum() for g in grads)
        return torch.autograd.grad(total, leaves)

    ours, theirs = (
        highest(functional.edge_attention, inputs),
        highest(reference.edge_attention, exact),
    )
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, rtol=bound, atol=bound)


@over(full_cases("double_backward", typed=True))
def test_gradient_penalty(case):
    """Descent on the squared norm of a layer's gradient, in parameters and features, reduces it."""
    torch.manual_seed(0)
    graph, layer = sample_graph("unsorted"), case.make(4, 3).to(F64)
    x = torch.randn(8, 4, dtype=F64, requires_grad=True)
    edge_attr = case.edge_attr(24, F64, num_nodes=8)

    def penalty():
        out = layer(x, graph, *edge_attr)
        (grad,) = torch.autograd.grad(out.pow(2).sum(), x, create_graph=True)
        return grad.pow(2).sum()

    before = penalty()
    learned = [x, *layer.parameters()]
    steps = torch.autograd.grad(before, learned, allow_unused=True)
    along = sum(float(g.pow(2).sum()) for g in steps if g is not None)
    first = before.item()
    size = 1e-5 * first / along
    with torch.no_grad():
        for tensor, step in zip(learned, steps, strict=True):
            if step is not None:
                tensor -= size * step
    # The decrease equals the first-order term, up to the order of the step.
    assert first - penalty().item() == pytest.approx(size * along, rel=1e-3)
