"""torch.func over layers and operators: grad, vjp, jacrev, vmap; and what cannot be had says so."""

from __future__ import annotations

import pytest
import torch
from torch import func
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from gat_ext import Graph, functional, nn

LAYERS = {
    "GATConv": (lambda: nn.GATConv(5, 4, heads=2, edge_dim=3), 3),
    "GATv2Conv": (lambda: nn.GATv2Conv(5, 4, heads=2, edge_dim=3), 3),
    "TransformerConv": (lambda: nn.TransformerConv(5, 4, heads=2), 0),
    "AGNNConv": (nn.AGNNConv, 0),
}


@pytest.fixture(params=["graph", "edge_index"])
def edges(request):
    edge_index = torch.randint(9, (2, 30), generator=torch.Generator().manual_seed(0))
    return Graph(edge_index, num_nodes=9) if request.param == "graph" else edge_index


@pytest.fixture(params=LAYERS)
def layer(request):
    """A layer in float64 as a function of its parameters, of x [N, 5] and of the edges."""
    make, edge_dim = LAYERS[request.param]
    module = make().double()
    attr = [torch.randn(30, edge_dim, dtype=torch.float64)] if edge_dim else []

    def run(parameters, x, edges):
        return func.functional_call(module, parameters, (x, edges, *attr))

    return run, {name: p.detach() for name, p in module.named_parameters()}


def batch(size=3):
    return torch.randn(size, 9, 5, dtype=torch.float64)


def test_grad(layer, edges):
    run, parameters = layer
    x = batch()[0]

    def loss(parameters, x):
        return run(parameters, x, edges).square().sum()

    found = func.grad(loss, argnums=(0, 1))(parameters, x)
    leaves = {name: p.clone().requires_grad_() for name, p in parameters.items()}
    x_leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(loss(leaves, x_leaf), [*leaves.values(), x_leaf])
    for mine, theirs in zip([*found[0].values(), found[1]], expected, strict=True):
        assert_close(mine, theirs)


def test_vmap(layer, edges):
    run, parameters = layer
    xs = batch()
    found = func.vmap(lambda x: run(parameters, x, edges))(xs)
    assert_close(found, torch.stack([run(parameters, x, edges) for x in xs]))
    by_channel = func.vmap(lambda x: run(parameters, x, edges), in_dims=2, out_dims=1)(
        xs.permute(1, 2, 0)
    )
    assert_close(by_channel.movedim(1, 0), found)


def test_vmap_over_parameters(layer, edges):
    run, parameters = layer
    x = batch()[0]
    stacked = {name: torch.stack([p, 2 * p, -p]) for name, p in parameters.items()}
    found = func.vmap(lambda p: run(p, x, edges))(stacked)
    each = [{name: p[i] for name, p in stacked.items()} for i in range(3)]
    assert_close(found, torch.stack([run(p, x, edges) for p in each]))


def test_gradient_of_every_sample(layer, edges):
    run, parameters = layer
    xs = batch()
    gradient = func.grad(lambda p, x: run(p, x, edges).square().sum())
    found = func.vmap(gradient, in_dims=(None, 0))(parameters, xs)
    for i, x in enumerate(xs):
        for name, expected in gradient(parameters, x).items():
            assert_close(found[name][i], expected)


def test_gradient_through_vmap(layer, edges):
    run, parameters = layer
    xs = batch()

    def loss(parameters, mapped):
        if mapped:
            return func.vmap(lambda x: run(parameters, x, edges))(xs).square().sum()
        return sum(run(parameters, x, edges).square().sum() for x in xs)

    found, expected = (func.grad(loss)(parameters, mapped) for mapped in (True, False))
    for name in parameters:
        assert_close(found[name], expected[name])


def test_jacobian(layer, edges):
    run, parameters = layer
    x = batch()[0]
    found = func.jacrev(lambda x: run(parameters, x, edges))(x)
    expected = torch.autograd.functional.jacobian(lambda x: run(parameters, x, edges), x)
    assert_close(found, expected)


def test_weights_and_lse_under_vmap(edges):
    graph = edges if isinstance(edges, Graph) else Graph(edges, num_nodes=9)
    q = torch.randn(3, 9, 2, 4, dtype=torch.float64)

    def attend(q):
        return functional.dot_attention(
            graph, q, q, q, return_weights=True, return_lse=True, top_k=2
        )

    found = func.vmap(attend)(q)
    for i in range(3):
        for mine, theirs in zip(found, attend(q[i]), strict=True):
            assert_close(mine[i], theirs)
    grad = func.vmap(func.grad(lambda q: sum(t.sum() for t in attend(q))))(q)
    for i in range(3):
        assert_close(grad[i], func.grad(lambda q: sum(t.sum() for t in attend(q)))(q[i]))


# ---- what says no


def test_no_vmap_over_edges():
    layer, x = nn.GATConv(5, 4), torch.randn(9, 5)
    with pytest.raises(NotImplementedError, match=r"vmap over edges.*Graph\.batch"):
        func.vmap(lambda e: layer(x, e))(torch.randint(9, (3, 2, 30)))


def test_no_vmap_with_dropout(edges):
    layer = nn.GATConv(5, 4, dropout=0.5)
    with pytest.raises(NotImplementedError, match=r"dropout 0\.5; call eval"):
        func.vmap(lambda x: layer(x, edges), randomness="same")(batch().float())
    layer.eval()
    assert func.vmap(lambda x: layer(x, edges))(batch().float()).shape == (3, 9, 4)


def test_no_second_derivative_under_func(edges):
    layer = nn.GATConv(5, 4)
    gradient = func.grad(lambda x: layer(x, edges).square().sum())
    with pytest.raises(
        NotImplementedError, match=r"no second derivative within .*differentiate twice"
    ):
        func.grad(lambda x: gradient(x).sum())(torch.randn(9, 5))


class Watching(TorchDispatchMode):
    """Sees every operator, as what traces does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_no_second_derivative_of_a_traced_operator(edges):
    layer, x = nn.GATConv(5, 4), torch.randn(9, 5, requires_grad=True)
    with Watching():
        (gradient,) = torch.autograd.grad(layer(x, edges).square().sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="no second derivative within"):
            torch.autograd.grad(gradient.sum(), x)


OPERATORS = {
    "edge_softmax": lambda graph, x: functional.edge_softmax(graph, x[:, 0].repeat(4)[:30]),
    "sddmm": lambda graph, x: functional.sddmm(graph, x, x),
    "spmm": lambda graph, x: functional.spmm(graph, x),
    "edge_attention": lambda graph, x: functional.cosine_attention(graph, x.unsqueeze(1)),
}


@pytest.mark.parametrize("name", ["edge_softmax", "sddmm", "spmm"])
@pytest.mark.parametrize("transform", [func.vmap, func.grad])
def test_unfused_operators_refuse_transforms(name, transform):
    graph = Graph(torch.randint(9, (2, 30)), num_nodes=9)
    x = torch.randn(2, 9, 4) if transform is func.vmap else torch.randn(9, 4)
    with pytest.raises(NotImplementedError, match=rf"{name} cannot be transformed by torch\.func"):
        transform(lambda x: OPERATORS[name](graph, x).sum())(x)
