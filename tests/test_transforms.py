"""torch.func of layers and operators: grad, vjp, jacrev, jvp, hessian, vmap, and clear errors."""

from __future__ import annotations

import pytest
import torch
from layers import full_cases, plain_cases
from torch import func
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from gat_ext import Graph, functional, nn
from gat_ext.reference import SCORES
from gat_ext.testing import sample_graph, sample_inputs


@pytest.fixture(params=["graph", "edge_index"])
def edges(request):
    edge_index = torch.randint(9, (2, 30), generator=torch.Generator().manual_seed(0))
    return Graph(edge_index, num_nodes=9) if request.param == "graph" else edge_index


CASES = {case.name: case for case in plain_cases("transforms", typed=True)}
CASES |= {f"{case.name}, edges": case for case in full_cases("transforms", "edge_attr", typed=True)}


@pytest.fixture(params=CASES)
def layer(request):
    """A layer in float64 as a function of its parameters, of x [N, 5] and of the edges."""
    case = CASES[request.param]
    module = case.make().double()
    attr = case.edge_attr(30, torch.float64)

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
    expected = torch.autograd.grad(
        loss(leaves, x_leaf), [*leaves.values(), x_leaf], materialize_grads=True
    )
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


@pytest.mark.parametrize("score", SCORES)
def test_vmap_with_dropout_equals_a_loop(score):
    """For each seed the same mask as in a call of its own, forward and backward."""
    graph = sample_graph("unsorted")
    inputs = sample_inputs(score, graph)["everything"] | {"dropout_p": 0.5}
    del inputs["seed"]
    value, seeds = inputs.pop("value"), torch.arange(3)

    def attend(value, seed):
        return functional.edge_attention(graph, value, **inputs, seed=seed)

    def loss(value, seed):
        return attend(value, seed[None]).square().sum()

    xs = torch.stack([value, 2 * value, -value])
    each = list(zip(xs, seeds, strict=True))
    found = func.vmap(lambda x, s: attend(x, s[None]))(xs, seeds)
    assert_close(found, torch.stack([attend(x, s[None]) for x, s in each]))
    shared = func.vmap(attend, in_dims=(0, None))(xs, seeds[:1])
    assert_close(shared, torch.stack([attend(x, seeds[:1]) for x in xs]))
    found = func.vmap(func.grad(loss))(xs, seeds)
    assert_close(found, torch.stack([func.grad(loss)(x, s) for x, s in each]))
    twice = func.vmap(func.vmap(loss, in_dims=(None, 0)), in_dims=(0, None))(xs, seeds)
    assert_close(twice, torch.stack([torch.stack([loss(x, s) for s in seeds]) for x in xs]))


@pytest.mark.parametrize("kind", [nn.GATConv, nn.GATv2Conv, nn.TransformerConv])
def test_randomness_of_vmap(kind, edges):
    layer = kind(5, 4, heads=2, dropout=0.5)
    xs = torch.randn(9, 5).expand(3, 9, 5)
    same = func.vmap(lambda x: layer(x, edges), randomness="same")(xs)
    assert_close(same, same[:1].expand_as(same))
    torch.manual_seed(0)
    different = func.vmap(lambda x: layer(x, edges), randomness="different")(xs)
    assert not torch.equal(different[0], different[1])
    torch.manual_seed(0)
    assert torch.equal(func.vmap(lambda x: layer(x, edges), randomness="different")(xs), different)


def test_second_derivatives_under_vmap_with_dropout():
    graph = Graph(torch.tensor([[0, 1, 2, 2, 0], [1, 1, 1, 0, 0]]), num_nodes=3)
    xs, seeds = torch.randn(2, 3, 1, 2, dtype=torch.float64), torch.arange(2)

    def curvature(x, seed):
        def loss(x):
            out = functional.dot_attention(graph, x, x, x, dropout_p=0.5, seed=seed[None])
            return out.square().sum()

        return func.hessian(loss)(x)

    expected = torch.stack([curvature(x, s) for x, s in zip(xs, seeds, strict=True)])
    assert_close(func.vmap(curvature)(xs, seeds), expected)
    assert expected.abs().sum() > 0


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


# ---- derivatives of higher order


@pytest.fixture
def total(layer, edges):
    """A scalar function of a layer's x [9, 5]."""
    run, parameters = layer
    return lambda x: run(parameters, x, edges).pow(3).sum()


@pytest.mark.one_in(7)
@pytest.mark.parametrize(
    "hessian",
    [func.hessian, lambda f: func.jacrev(func.jacrev(f)), lambda f: func.jacrev(func.jacfwd(f))],
    ids=["forward over reverse", "reverse over reverse", "reverse over forward"],
)
def test_hessian(total, hessian):
    x = batch()[0]
    assert_close(hessian(total)(x), torch.autograd.functional.hessian(total, x))


def test_third_derivative(total):
    x = batch()[0]

    def penalty(gradient):
        return lambda x: gradient(x).square().sum()

    found = func.grad(penalty(func.grad(penalty(func.grad(total)))))(x)
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(total(leaf), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), leaf, create_graph=True)
    (third,) = torch.autograd.grad(second.square().sum(), leaf)
    largest = third.abs().max()  # small elements are differences of large numbers
    assert_close(found / largest, third / largest)


def test_second_derivatives_of_every_sample(total):
    curvature = func.grad(lambda x: func.grad(total)(x).square().sum())
    xs = batch()
    assert_close(func.vmap(curvature)(xs), torch.stack([curvature(x) for x in xs]))


@pytest.mark.parametrize("score", SCORES)
def test_second_derivatives_of_every_option(score, edges):
    """Bias, edge features, top_k and seeded dropout: all results, all inputs, both edge orders."""
    graph = edges if isinstance(edges, Graph) else sample_graph("unsorted")
    inputs = sample_inputs(score, graph, 2, 3, requires_grad=True)["everything"]
    leaves = {n: t for n, t in inputs.items() if isinstance(t, torch.Tensor) and t.requires_grad}
    fixed = {n: v for n, v in inputs.items() if n not in leaves}

    def total(given):
        found = functional.edge_attention(
            graph, **given, **fixed, return_weights=True, return_lse=True
        )
        return sum(t.masked_fill(t.isinf(), 0).pow(3).sum() for t in found)

    def penalty(given):
        return sum(g.square().sum() for g in func.grad(total)(given).values())

    found = func.grad(penalty)({name: t.detach() for name, t in leaves.items()})
    first = torch.autograd.grad(total(leaves), list(leaves.values()), create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), list(leaves.values()))
    for mine, theirs in zip(found.values(), second, strict=True):
        assert_close(mine, theirs)


class Watching(TorchDispatchMode):
    """A dispatch mode that sees every operator, as a tracer does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_second_derivative_of_a_traced_operator(total):
    x = batch()[0].requires_grad_()

    def curvature():
        (gradient,) = torch.autograd.grad(total(x), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), x)[0]

    with Watching():
        found = curvature()
    assert_close(found, curvature())


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv"])
def test_features_of_replaced_loops_are_not_read(name):
    """Nor in any derivative."""
    layer = getattr(nn, name)(5, 4, edge_dim=3, fill_value=0.5).double()
    edges = torch.tensor([[0, 1, 2, 2], [1, 2, 2, 0]])
    attr = torch.ones(4, 3, dtype=torch.float64)
    spoilt = attr.index_fill(0, torch.tensor([2]), torch.nan)
    x = torch.randn(3, 5, dtype=torch.float64)

    def run(x, attr):
        return layer(x, edges, attr).pow(3).sum()

    assert_close(func.hessian(run)(x, spoilt), func.hessian(run)(x, attr))
    assert_close(func.jacrev(func.jacrev(run))(x, spoilt), func.hessian(run)(x, attr))


# ---- the unfused operators, by those of torch

OPERATORS = {
    "edge_softmax": lambda graph, x: functional.edge_softmax(graph, x.flatten()[:30]),
    "edge_softmax by source": lambda graph, x: functional.edge_softmax(
        graph, x.flatten()[:30], by="src"
    ),
    "sddmm": lambda graph, x: functional.sddmm(graph, x, x),
    "sddmm of heads": lambda graph, x: functional.sddmm(graph, *x.view(2, 9, 2, 2).sin()),
    "spmm": lambda graph, x: functional.spmm(graph, x),
    "spmm weighted": lambda graph, x: functional.spmm(
        graph, x.unsqueeze(1), x.flatten()[:30], reduce="mean"
    ),
    "spmm max": lambda graph, x: functional.spmm(graph, x, reduce="max"),
    "masked attention": lambda graph, x: functional.cosine_attention(
        graph, x.unsqueeze(1), edge_mask=x.flatten()[:30]
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name):
    graph = Graph(torch.randint(9, (2, 30)), num_nodes=9)
    x, tangent = torch.randn(2, 9, 8, dtype=torch.float64)

    def run(x):
        return OPERATORS[name](graph, x)

    jacobian = torch.autograd.functional.jacobian(run, x)
    assert_close(func.jacrev(run)(x), jacobian)
    assert_close(func.jacfwd(run)(x), jacobian)
    assert_close(func.jvp(run, (x,), (tangent,))[1], (jacobian * tangent).sum((-1, -2)))
    assert_close(func.vmap(run)(torch.stack([x, tangent])), torch.stack([run(x), run(tangent)]))


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "transform",
    [func.grad, func.hessian, lambda f: func.vmap(func.grad(f), in_dims=1), func.jacfwd],
    ids=["grad", "hessian", "vmap of grad", "jacfwd"],
)
@pytest.mark.parametrize(
    ("layer", "edges"),
    [("GATConv, edges", "edge_index"), ("TransformerConv", "graph")],
    indirect=True,
)
def test_compiled_transforms(total, transform):
    x = batch(9)[0] if transform in (func.grad, func.hessian, func.jacfwd) else batch()
    x = x if x.dim() == 2 else x.transpose(0, 1)
    torch._dynamo.reset()
    compiled = torch.compile(transform(total), fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), transform(total)(x))
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
def test_sixteen_bits_have_wide_sums(dtype, autocast):
    """A node with 3000 in-edges, more than float16 and bfloat16 can count exactly."""
    count = 3000
    graph = Graph(torch.stack([torch.arange(count), torch.zeros(count, dtype=torch.int64)]))
    ones = torch.ones(2, count, 1, 2, dtype=torch.float32 if autocast else dtype)
    calls = {
        "spmm": lambda x: functional.spmm(graph, x)[0],
        "mean": lambda x: functional.spmm(graph, x, reduce="mean")[0],
        "softmax": lambda x: functional.edge_softmax(graph, x[..., 0]),
        "sddmm": lambda x: functional.sddmm(graph, x, x),
        "attention": lambda x: functional.cosine_attention(graph, x)[0],
        "masked": lambda x: functional.cosine_attention(graph, x, edge_mask=x[..., 0])[0],
    }
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        for name, call in calls.items():
            plain = call(ones[0])
            for found in (
                func.vmap(call)(ones)[0],
                func.jvp(call, (ones[0],), (ones[0],))[0],
                func.vjp(call, ones[0])[0],
            ):
                assert found.dtype == plain.dtype, name
                assert_close(found, plain, rtol=2e-2, atol=0, msg=name)


# ---- clear errors


def test_no_vmap_over_edges():
    layer, x = nn.GATConv(5, 4), torch.randn(9, 5)
    with pytest.raises(NotImplementedError, match=r"vmap over edges.*Graph\.batch"):
        func.vmap(lambda e: layer(x, e))(torch.randint(9, (3, 2, 30)))


def test_dropout_within_vmap_is_random(edges):
    layer = nn.GATConv(5, 4, dropout=0.5)
    with pytest.raises(RuntimeError, match="randomness"):
        func.vmap(lambda x: layer(x, edges))(batch().float())
    layer.eval()
    assert func.vmap(lambda x: layer(x, edges))(batch().float()).shape == (3, 9, 4)


def test_no_transforms_of_walks():
    graph = Graph(torch.randint(9, (2, 30)), num_nodes=9)
    places, types = torch.arange(4), torch.arange(9) % 2

    def walk(rank):
        return functional.walk_step(graph, places, rank, types)[1].sum()

    for transform in (func.grad, func.vmap):
        rank = torch.rand(3, 4, 2) if transform is func.vmap else torch.rand(4, 2)
        with pytest.raises(NotImplementedError, match=r"walk_step .* does not support torch\.func"):
            transform(walk)(rank)
