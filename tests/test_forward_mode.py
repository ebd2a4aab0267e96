"""Forward-mode differentiation, through torch's own operators; walks raise NotImplementedError."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.testing import assert_close

from gat_ext import functional, nn, reference
from gat_ext.nn.features import dropout
from gat_ext.ops import linear_maps
from gat_ext.reference import SCORES
from gat_ext.testing import sample_graph, sample_inputs

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
    "edge_attention of a mask": (lambda m, t: m.dot_attention(GRAPH, X, X, X, edge_mask=t), EDGES),
    "edge_attention of a bias": (lambda m, t: m.dot_attention(GRAPH, X, X, X, bias=t), EDGES),
    "edge_attention of cosines": (lambda m, t: m.cosine_attention(GRAPH, t), X),
}


@pytest.mark.parametrize("name", CALLS)
def test_operators_have_tangents(name):
    """Tangents equal reverse mode's, of the operators and of the reference, also with gradients."""
    call, tensor = CALLS[name]
    tangent = torch.linspace(-1, 1, tensor.numel(), dtype=F64).view_as(tensor)
    out, found = torch.func.jvp(lambda t: call(functional, t), (tensor,), (tangent,))
    assert_close(out, call(functional, tensor))
    _, twice = torch.autograd.functional.jvp(lambda t: call(functional, t), tensor, tangent)
    _, theirs = torch.func.jvp(lambda t: call(reference, t), (tensor,), (tangent,))
    assert_close(found, twice)
    assert_close(found, theirs)
    primal = tensor.clone().requires_grad_()
    with forward_ad.dual_level():
        out = call(functional, forward_ad.make_dual(primal, tangent))
        assert_close(forward_ad.unpack_dual(out).tangent, theirs)
        (gradient,) = torch.autograd.grad(forward_ad.unpack_dual(out).primal.sum(), primal)
    (expected,) = torch.autograd.grad(call(functional, primal).sum(), primal)
    assert_close(gradient, expected)


@pytest.mark.parametrize("score", SCORES)
def test_every_option(score):
    """Bias, edge features, top_k and seeded dropout: all results, with tangents of all inputs."""
    inputs = sample_inputs(score, GRAPH, 2, 3, requires_grad=True)["everything"]
    leaves = {n: t for n, t in inputs.items() if isinstance(t, torch.Tensor) and t.requires_grad}
    fixed = {n: v for n, v in inputs.items() if n not in leaves}

    def call(*tensors):
        given = dict(zip(leaves, tensors, strict=True))
        return functional.edge_attention(
            GRAPH, **given, **fixed, return_weights=True, return_lse=True
        )

    primals = tuple(t.detach() for t in leaves.values())
    tangents = tuple(torch.linspace(-1, 2, t.numel(), dtype=F64).view_as(t) for t in primals)
    results, found = torch.func.jvp(call, primals, tangents)
    plain, expected = torch.autograd.functional.jvp(call, primals, tangents)
    for mine, theirs in zip((*results, *found), (*plain, *expected), strict=True):
        assert_close(mine, theirs)


@pytest.mark.parametrize(
    "layer",
    [nn.GATConv(4, 2, edge_dim=3), nn.GATv2Conv(4, 2), nn.AGNNConv(), nn.TransformerConv(4, 2)],
    ids=str,
)
@pytest.mark.parametrize("form", ["graph", "edge_index"])
def test_layers_have_tangents(layer, form):
    layer = layer.double()
    edges = GRAPH if form == "graph" else GRAPH.edge_index
    attr = [torch.randn(24, 3, dtype=F64)] if getattr(layer, "edge_dim", None) else []
    x, tangent = torch.randn(2, 8, 4, dtype=F64)
    _, found = torch.func.jvp(lambda t: layer(t, edges, *attr), (x,), (tangent,))
    _, expected = torch.autograd.functional.jvp(lambda t: layer(t, edges, *attr), x, tangent)
    assert_close(found, expected)


def test_autocast_with_tangents():
    """The dtype is that of the fused operator."""
    x = X.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, tangent = torch.func.jvp(lambda t: functional.cosine_attention(GRAPH, t), (x,), (x,))
        plain = functional.cosine_attention(GRAPH, x)
    assert out.dtype == tangent.dtype == plain.dtype
    assert_close(out, plain, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("learned", [False, True])
def test_walks_refuse_tangents(learned):
    rank = torch.rand(3, 2)
    words = r"walk_step has no forward-mode derivative.*reverse mode"

    def walk(rank):
        return functional.walk_step(GRAPH, PLACES, rank, TYPES)[1]

    with pytest.raises(NotImplementedError, match=words):
        torch.func.jvp(walk, (rank,), (torch.ones_like(rank),))
    primal = rank.requires_grad_(learned)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match=words):
        walk(forward_ad.make_dual(primal, torch.ones_like(rank)))


def test_inputs_without_tangents_mix_with_inputs_with_them():
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X, X)
        out = functional.dot_attention(GRAPH, X, X, X)
        assert_close(forward_ad.unpack_dual(dual * 2).tangent, X * 2)
    assert_close(out, functional.dot_attention(GRAPH, X, X, X))


def test_dense_steps_have_tangents():
    """Large tensors use operators without tangents, except in forward mode."""
    x, weight = torch.randn(70_000, 4, dtype=F64), torch.randn(4, 4, dtype=F64)
    for call, expected in (
        (lambda t: linear_maps.linear(t, weight), lambda t: t @ weight.t()),
        (lambda t: linear_maps.add(t, x), lambda t: t),
        (lambda t: dropout(t, 1.0, training=True), torch.zeros_like),
    ):
        _, tangent = torch.func.jvp(call, (x,), (x,))
        assert_close(tangent, expected(x))
    _, tangent = torch.func.jvp(lambda t: linear_maps.inverse_norm(t, 1e-12), (x,), (x,))
    assert_close(tangent, -1 / x.norm(dim=-1))
