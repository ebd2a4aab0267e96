"""SuperGATConv: its attention, and the loss of its edges, against PyG's layer."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch_geometric.nn as pyg
from beside_pyg import EDGES, TOLERANCE, compare, normal, parameters
from layers import random_edges
from torch.testing import assert_close

from gat_ext import Graph, functional, nn, reference
from gat_ext.nn.negative import negative_edges
from gat_ext.testing import sample_graph

NEGATIVE = torch.tensor([[0, 4, 8, 2, 2], [8, 1, 0, 5, 5]])
OPTIONS = [
    {"attention_type": kind, "heads": heads, "concat": concat, "add_self_loops": loops}
    for kind, heads, concat, loops in itertools.product(
        ("MX", "SD"), (1, 3), (True, False), (True, False)
    )
]


def both(dtype=torch.float64, **options):
    theirs = pyg.SuperGATConv(5, 4, **options).to(dtype)
    ours = nn.SuperGATConv(5, 4, **options).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_loss_equals_pyg(options, dtype):
    """Alone and with the result, gradients included."""
    ours, theirs = both(dtype, **options)
    x, results = normal(9, 5, dtype=dtype), []
    for layer in (ours, theirs):
        out = layer(x, EDGES, NEGATIVE)
        loss = layer.get_attention_loss()
        results.append((loss, torch.cat([out.flatten(), loss.flatten()])))
    leaves = [("x", (x, x)), *parameters(ours, theirs)]
    assert_close(*(loss for loss, _ in results), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    compare([total for _, total in results], leaves, dtype)


@pytest.mark.parametrize("kind", ["MX", "SD"])
def test_the_loss_of_every_form_of_call(kind):
    """A Graph, a layer without gradient, and a batch, whose loss is the mean over its elements."""
    layer = nn.SuperGATConv(5, 4, heads=2, attention_type=kind).double()
    xs = torch.randn(3, 9, 5, dtype=torch.float64)
    losses = []
    for x in xs:
        layer(x, Graph(EDGES, num_nodes=9), NEGATIVE)
        losses.append(layer.get_attention_loss())
    layer(xs, EDGES, NEGATIVE)
    assert_close(layer.get_attention_loss(), torch.stack(losses).mean())
    with torch.no_grad():
        layer(xs[0], EDGES, NEGATIVE)
    assert_close(layer.get_attention_loss(), losses[0])


def test_gradgradcheck_of_the_loss():
    layer = nn.SuperGATConv(5, 4, heads=2, attention_type="SD").double()

    def both_losses(x):
        out = layer(x, EDGES, NEGATIVE)
        return out.square().mean() + layer.get_attention_loss()

    x = normal(9, 5)
    assert torch.autograd.gradcheck(both_losses, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(both_losses, x, fast_mode=True)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", ["MX", "SD"])
def test_a_step_of_training_compiles(kind):
    """The loss too, in one graph, if the negative edges are given."""
    layer = nn.SuperGATConv(5, 4, heads=2, attention_type=kind)
    x = torch.randn(9, 5, requires_grad=True)

    def step(x, edges, negative):
        out = layer(x, edges, negative)
        return out.square().mean() + layer.get_attention_loss()

    expected = step(x, EDGES, NEGATIVE)
    torch._dynamo.reset()
    found = torch.compile(step, fullgraph=True, backend="aot_eager")(x, EDGES, NEGATIVE)
    assert_close(found, expected)
    for a, b in zip(
        *(
            torch.autograd.grad(s, [x, *layer.parameters()], allow_unused=True)
            for s in (found, expected)
        ),
        strict=True,
    ):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(a, b)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    out = compiled(x, EDGES, NEGATIVE)
    assert_close(out.square().mean() + layer.get_attention_loss(), expected)
    with pytest.raises(Exception, match="negative edges cannot be sampled inside a traced"):
        torch.compile(lambda x: (layer(x, EDGES), layer.get_attention_loss()), fullgraph=True)(x)


def test_positive_and_negative_examples_are_sampled():
    """The expected loss of samples of edges and of other pairs is that of all of them."""
    torch.manual_seed(0)
    layer = nn.SuperGATConv(5, 4, neg_sample_ratio=0.5, edge_sample_ratio=0.5)
    layer(torch.randn(9, 5), EDGES)
    drawn = {layer.get_attention_loss().item() for _ in range(4)}
    assert len(drawn) == 4
    with torch.no_grad():
        layer.lin.weight.zero_()  # every logit is 0
    layer(torch.randn(9, 5), EDGES)
    assert_close(layer.get_attention_loss(), torch.tensor(2.0).log())


def test_the_loss_before_a_call_and_in_evaluation():
    ours, theirs = both()
    with pytest.raises(RuntimeError, match="has no logits of edges; call it in training mode"):
        ours.get_attention_loss()
    assert torch.equal(ours.eval().get_attention_loss(), theirs.eval().get_attention_loss())
    ours(normal(9, 5), EDGES)
    with pytest.raises(RuntimeError, match="call it in training mode"):
        ours.train().get_attention_loss()


def test_a_copy_does_not_share_the_last_call():
    layer = nn.SuperGATConv(5, 4)
    layer(torch.randn(9, 5), EDGES)
    with pytest.raises(RuntimeError, match="has no logits"):
        copy.deepcopy(layer).get_attention_loss()
    assert layer.get_attention_loss().requires_grad


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.SuperGATConv(5, 4, attention_type="XM"), ValueError, "attention_type is 'XM'"),
        (lambda: nn.SuperGATConv(5, 4, neg_sample_ratio=0), ValueError, "more than 0"),
        (lambda: nn.SuperGATConv(5, 4, edge_sample_ratio=0), ValueError, "edge_sample_ratio is 0"),
        (lambda: nn.SuperGATConv(5, 4, edge_sample_ratio=2), ValueError, "edge_sample_ratio is 2"),
        (
            lambda: nn.SuperGATConv((5, 5), 4),
            TypeError,
            r"in_channels is \(5, 5\).*expected an int",
        ),
        (lambda: nn.SuperGATConv(5, 4, is_undirected=1), TypeError, "is_undirected is a int"),
        (
            lambda: nn.SuperGATConv(5, 4)((torch.ones(9, 5),) * 2, EDGES),
            TypeError,
            r"x is a tuple; SuperGATConv.* expects one tensor \[N, C\]",
        ),
        (
            lambda: nn.SuperGATConv(5, 4)(torch.ones(9, 5), EDGES, NEGATIVE + 1),
            IndexError,
            "9",
        ),
        (
            lambda: nn.SuperGATConv(5, 4)(torch.ones(9, 5), EDGES, batch=torch.zeros(8).long()),
            ValueError,
            r"batch has shape \[8\]; expected \[9\]",
        ),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- negative sampling


@pytest.mark.parametrize("count", [0, 1, 5, 20, 10**6])
@pytest.mark.parametrize("num_nodes", [9, 300])
def test_negative_edges_are_distinct_pairs_without_an_edge(num_nodes, count):
    edges = random_edges(num_nodes, num_nodes)
    drawn = negative_edges(edges, num_nodes, count)
    taken = {tuple(pair) for pair in torch.cat([edges, edges.flip(0)], 1).t().tolist()}
    found = [tuple(pair) for pair in drawn.t().tolist()]
    assert len(found) == min(count, num_nodes**2 - len(taken))
    assert len(set(found)) == len(found) and taken.isdisjoint(found)
    assert drawn.numel() == 0 or (drawn.min() >= 0 and drawn.max() < num_nodes)


def test_negative_edges_are_uniform():
    edges = torch.tensor([[0, 1], [1, 2]])
    counts = torch.zeros(4, 4)
    for seed in range(600):
        torch.manual_seed(seed)
        src, dst = negative_edges(edges, 4, 1)
        counts[src, dst] += 1
    free = torch.ones(4, 4, dtype=torch.bool)
    free[[0, 1, 1, 2], [1, 0, 2, 1]] = False
    assert not counts[~free].any()
    assert (counts[free] > 25).all() and (counts[free] < 80).all()  # 50 each on average


def test_negative_edges_within_the_graphs_of_a_batch():
    graphs = torch.tensor([1, 0, 1, 0, 0, 1])
    edges = torch.tensor([[0, 2, 1, 1], [2, 5, 3, 1]])
    src, dst = negative_edges(edges, 6, 100, graphs)
    assert torch.equal(graphs[src], graphs[dst])
    assert src.numel() == (9 - 4) + (9 - 3)
    layer = nn.SuperGATConv(5, 4)
    layer(torch.randn(6, 5), edges, batch=graphs)
    assert layer.get_attention_loss().isfinite()


def test_a_complete_graph_has_no_negative_edges():
    edges = torch.ones(3, 3).nonzero().t()
    assert negative_edges(edges, 3, 5).shape == (2, 0)
    layer = nn.SuperGATConv(5, 4)
    layer(torch.randn(3, 5), edges)
    assert layer.get_attention_loss().isfinite()


# ---- the operator


@pytest.mark.parametrize("name", ["unsorted", "isolated", "more_sources", "more_destinations"])
@pytest.mark.parametrize("kind", ["MX", "SD"])
def test_operator_equals_the_reference(kind, name):
    graph = sample_graph(name)
    query, key = normal(graph.num_dst, 2, 3), normal(graph.num_src, 2, 3, seed=2)
    value = normal(graph.num_src, 2, 5, seed=3)
    given = [query, key, value]
    if kind == "MX":
        given += [normal(graph.num_dst, 2, seed=4), normal(graph.num_src, 2, seed=5)]
    options = {"negative_slope": 0.1, "return_weights": True}
    sides = []
    for module in (functional, reference):
        out, weights = module.supergat_attention(graph, *given, **options)
        total = out.square().sum() + weights.pow(3).sum()
        sides.append([out, weights, *torch.autograd.grad(total, given)])
    for ours, theirs in zip(*sides, strict=True):
        assert_close(ours, theirs)
