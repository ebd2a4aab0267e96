"""torch.use_deterministic_algorithms(True): bitwise identical for any number of threads."""

from __future__ import annotations

import warnings

import pytest
import torch
from layers import full_cases, over, plain_cases

from gat_ext import functional, models
from gat_ext.ops import linear_maps
from gat_ext.reference import SCORES
from gat_ext.testing import sample_graph, sample_inputs

RUNS = 100


@pytest.fixture(autouse=True)
def deterministic():
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def assert_same_bits(run, runs=RUNS):
    """Compares runs on one thread, two and more, in turn; run() returns tensors."""
    torch.set_num_threads(1)
    first = run()
    for i in range(1, runs):
        torch.set_num_threads(3 if i == 2 else 1 + i % 2)
        for number, (a, b) in enumerate(zip(first, run(), strict=True)):
            assert torch.equal(a, b), f"result {number} of run {i}"


def results_and_gradients(outputs, tensors):
    """The outputs, and the gradients of a weighted sum of them."""
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    live = [out for out in outputs if out.requires_grad]
    # In float64, because torch's linspace of many float16 numbers has NaN.
    ramps = [torch.linspace(-1, 1, out.numel(), dtype=torch.float64) for out in live]
    upstream = [ramp.to(out.dtype).view_as(out) for ramp, out in zip(ramps, live, strict=True)]
    finite = [u.masked_fill(out.isinf(), 0) for u, out in zip(upstream, live, strict=True)]
    return [*outputs, *torch.autograd.grad(live, tensors, finite, materialize_grads=True)]


# ---- operators


@pytest.mark.one_in(3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("score", SCORES)
def test_edge_attention(score, dtype):
    graph = sample_graph("long_row")
    inputs = sample_inputs(score, graph, 2, 5, dtype, requires_grad=True)["everything"]
    leaves = [t for t in inputs.values() if isinstance(t, torch.Tensor) and t.requires_grad]

    def run():
        out = functional.edge_attention(graph, **inputs, return_weights=True, return_lse=True)
        return results_and_gradients(out, leaves)

    assert_same_bits(run)


def test_dropout_follows_the_torch_seed():
    graph = sample_graph("long_row")
    inputs = sample_inputs("dot", graph, 2, 5, torch.float32, requires_grad=True)["plain"]

    def run():
        torch.manual_seed(3)
        out = functional.edge_attention(graph, **inputs, dropout_p=0.4)
        return results_and_gradients(out, [inputs["query"], inputs["value"]])

    assert_same_bits(run)


GRAPH = sample_graph("long_row")
X, Y, SCORES_OF_EDGES = (
    torch.randn(n, 2, 5, generator=torch.Generator().manual_seed(n)).requires_grad_()
    for n in (GRAPH.num_dst, GRAPH.num_src, GRAPH.num_edges)
)
WEIGHT = SCORES_OF_EDGES.detach()[:, :, 0].contiguous().requires_grad_()
PLACES = torch.randint(60, (3000,), generator=torch.Generator().manual_seed(1))
RANK = torch.rand(3000, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
SEED = torch.tensor([5])
OPERATORS = {
    "edge_softmax": (lambda: functional.edge_softmax(GRAPH, WEIGHT), [WEIGHT]),
    "edge_softmax by source": (lambda: functional.edge_softmax(GRAPH, WEIGHT, by="src"), [WEIGHT]),
    "sddmm": (lambda: functional.sddmm(GRAPH, X, Y), [X, Y]),
    "walk_step": (
        lambda: functional.walk_step(GRAPH, PLACES, RANK, torch.arange(60) % 3, seed=SEED),
        [RANK],
    ),
} | {
    f"spmm {how}": (lambda how=how: functional.spmm(GRAPH, Y, WEIGHT, reduce=how), [Y, WEIGHT])
    for how in ("sum", "mean", "max", "min")
}


@pytest.mark.parametrize("name", OPERATORS)
def test_unfused_operators(name):
    function, leaves = OPERATORS[name]
    assert_same_bits(lambda: results_and_gradients(function(), leaves))


def test_random_walk():
    weight = WEIGHT.detach()[:, 0].abs()
    assert_same_bits(lambda: [functional.random_walk(GRAPH, PLACES, 8, weight=weight, seed=SEED)])


# ---- dense steps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(2708, 1433, 64), (20_000, 128, 1), (5000, 128, 256), (40_000, 5, 40), (10_000, 300, 7)],
)
def test_linear_maps(rows, inputs, outputs, dtype):
    """BLAS splits these sums over threads: the weight's over rows, the first over inputs too."""
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()
        for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    ]
    assert_same_bits(lambda: results_and_gradients(linear_maps.linear(*tensors), tensors), runs=6)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_equals_torch(bias):
    x, weight, b = (
        torch.randn(*shape, dtype=torch.float64).requires_grad_()
        for shape in ((6, 5), (3, 5), (3,))
    )
    tensors = [x, weight, *([b] if bias else [])]
    ours, theirs = linear_maps.linear(*tensors), torch.nn.functional.linear(*tensors)
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(
        results_and_gradients(ours, tensors), results_and_gradients(theirs, tensors), strict=True
    ):
        torch.testing.assert_close(mine, other)
    assert torch.autograd.gradgradcheck(linear_maps.linear, tensors)


def test_linear_under_autocast():
    x, weight, b = torch.randn(6, 5), torch.randn(3, 5, requires_grad=True), torch.randn(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = linear_maps.linear(x, weight, b), torch.nn.functional.linear(x, weight, b)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
    (grad,) = torch.autograd.grad(ours.float().sum(), [weight])
    assert grad.dtype == torch.float32


# ---- layers and models

WITH_FEATURES = [
    case._replace(options=case.options | case.layer.random)
    for case in full_cases("determinism", typed=True)
]


def edges_and_features(num_nodes):
    generator = torch.Generator().manual_seed(4)
    edge_index = torch.randint(num_nodes, (2, 3 * num_nodes), generator=generator)
    x = torch.randn(num_nodes, 40, generator=generator).requires_grad_()
    return edge_index, x


# Some sums are split over threads only from about 30,000 terms on.
@pytest.mark.one_in(5)
@pytest.mark.parametrize(("num_nodes", "runs"), [(1000, RUNS), (40_000, 4)])
@over(WITH_FEATURES)
def test_layers(case, num_nodes, runs):
    edge_index, x = edges_and_features(num_nodes)
    torch.manual_seed(0)
    layer = case.make(40)
    arguments = (x, edge_index, *case.edge_attr(3 * num_nodes, num_nodes=num_nodes))

    def run():
        torch.manual_seed(7)
        return results_and_gradients(layer(*arguments), [x, *layer.parameters()])

    assert_same_bits(run, runs)


@over(plain_cases("determinism", "batch", typed=True))
def test_batches(case):
    edge_index, x = edges_and_features(200)
    layer, attr = case.make(40), case.edge_attr(600, num_nodes=200)
    xs = torch.stack([x.detach(), x.detach().sin()]).requires_grad_()
    assert_same_bits(
        lambda: results_and_gradients(layer(xs, edge_index, *attr), [xs, *layer.parameters()]),
        runs=4,
    )


@over(plain_cases("determinism", typed=True))
def test_gradients_of_autocast(case):
    """Threads are unchanged outside; results equal nondeterministic ones up to rounding."""
    edge_index, x = edges_and_features(200)
    layer, attr = case.make(40), case.edge_attr(600, num_nodes=200)

    def run():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = layer(x, edge_index, *attr)
        return results_and_gradients(out.float(), [x, *layer.parameters()])

    assert_same_bits(run, runs=4)
    ours = run()[:2]  # result and gradient of x
    torch.use_deterministic_algorithms(False)
    for a, b in zip(ours, run()[:2], strict=True):
        # relu may switch off other elements; HANConv has two.
        bound = 5e-2 if case.name == "HANConv" else 2e-2
        assert (a - b).norm() < bound * b.norm()


# Without norm="batch": torch's batch normalisation sums per thread, forward and backward.
@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in models.available()), ("gat", {"norm": "layer"})],
    ids=str,
)
def test_models(name, options):
    edge_index, x = edges_and_features(1000)
    torch.manual_seed(0)
    model = models.build(name)(40, 8, 5, **options)

    def run():
        torch.manual_seed(7)
        return results_and_gradients(model(x, edge_index), [x, *model.parameters()])

    assert_same_bits(run)
