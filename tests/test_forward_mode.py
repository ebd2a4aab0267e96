"""Forward-mode differentiation is refused by name; a product with the Jacobian comes of reverse mode twice."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.testing import assert_close

from gat_ext import _dense, functional, nn, reference
from gat_ext.features import dropout
from gat_ext.testing import sample_graph

F64 = torch.float64
GRAPH = sample_graph("unsorted")
X = torch.randn(8, 2, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
EDGES = torch.randn(24, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
PLACES, TYPES = torch.tensor([0, 1, 2]), torch.arange(8) % 2
CALLS = {
    "edge_softmax": (lambda m, t: m.edge_softmax(GRAPH, t), EDGES),
    "sddmm": (lambda m, t: m.sddmm(GRAPH, X, t), X),
    "spmm": (lambda m, t: m.spmm(GRAPH, t, EDGES), X),
    "spmm of a weight": (lambda m, t: m.spmm(GRAPH, X, t, reduce="max"), EDGES),
    "edge_attention": (lambda m, t: m.dot_attention(GRAPH, t, X, X), X),
    "edge_attention of a bias": (lambda m, t: m.dot_attention(GRAPH, X, X, X, bias=t), EDGES),
    "edge_attention of cosines": (lambda m, t: m.cosine_attention(GRAPH, t), X),
    "walk_step": (lambda m, t: m.walk_step(GRAPH, PLACES, t, TYPES)[1], torch.rand(3, 2)),
}


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_operators_refuse_tangents(name, learned):
    call, tensor = CALLS[name]
    words = f"{name.split()[0]} has no forward-mode derivative.*reverse mode"
    with pytest.raises(NotImplementedError, match=words):
        torch.func.jvp(lambda t: call(functional, t), (tensor,), (torch.ones_like(tensor),))
    primal = tensor.clone().requires_grad_(learned)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match=words):
        call(functional, forward_ad.make_dual(primal, torch.ones_like(tensor)))


@pytest.mark.parametrize(
    "layer",
    [nn.GATConv(4, 2), nn.GATv2Conv(4, 2), nn.AGNNConv(), nn.TransformerConv(4, 2)],
    ids=str,
)
def test_layers_refuse_tangents(layer):
    x = torch.randn(8, 4)
    with pytest.raises(NotImplementedError, match="edge_attention has no forward-mode derivative"):
        torch.func.jvp(lambda t: layer(t, GRAPH), (x,), (x,))


def test_what_has_no_tangent_passes_beside_what_has():
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X, X)
        out = functional.spmm(GRAPH, X)
        assert_close(forward_ad.unpack_dual(dual * 2).tangent, X * 2)
    assert_close(out, functional.spmm(GRAPH, X))


@pytest.mark.parametrize("name", [name for name in CALLS if name != "walk_step"])
def test_a_product_with_the_jacobian_by_reverse_mode_twice(name):
    call, tensor = CALLS[name]
    tangent = torch.linspace(-1, 1, tensor.numel(), dtype=F64).view_as(tensor)
    _, ours = torch.autograd.functional.jvp(lambda t: call(functional, t), tensor, tangent)
    _, theirs = torch.func.jvp(lambda t: call(reference, t), (tensor,), (tangent,))
    assert_close(ours, theirs)


def test_dense_steps_have_tangents():
    """Large ones go through operators that have none; under forward mode they don't."""
    x, weight = torch.randn(70_000, 4, dtype=F64), torch.randn(4, 4, dtype=F64)
    for call, expected in (
        (lambda t: _dense.linear(t, weight), lambda t: t @ weight.t()),
        (lambda t: _dense.add(t, x), lambda t: t),
        (lambda t: dropout(t, 1.0, training=True), torch.zeros_like),
    ):
        _, tangent = torch.func.jvp(call, (x,), (x,))
        assert_close(tangent, expected(x))
    _, tangent = torch.func.jvp(lambda t: _dense.inverse_norm(t, 1e-12), (x,), (x,))
    assert_close(tangent, -1 / x.norm(dim=-1))
