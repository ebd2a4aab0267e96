"""AttentionWalk: its estimates against the objective over all N × N pairs."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from gat_ext import Graph
from gat_ext.functional import random_walk
from gat_ext.models import AttentionWalk

WINDOW = 3


def undirected(pairs, num_nodes):
    edges = torch.tensor(pairs).t()
    return Graph(torch.cat([edges, edges.flip(0)], dim=1), num_nodes=num_nodes)


@pytest.fixture
def irregular():
    """A triangle with a tail, a double edge and an isolated node."""
    return undirected([[0, 1], [1, 2], [2, 0], [2, 3], [2, 3], [3, 4]], 6)


@pytest.fixture
def prism():
    """Every node has three neighbours, so that all walks of one length are equally likely."""
    return undirected([[0, 1], [1, 2], [2, 0], [3, 4], [4, 5], [5, 3], [0, 3], [1, 4], [2, 5]], 6)


def make_model(num_nodes, **options):
    torch.manual_seed(0)
    model = AttentionWalk(num_nodes, 4, WINDOW, num_walks=5.0, beta=0.3, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def transition(graph):
    """T [N, N]; a walk at a node without neighbours stays there."""
    src, dst = graph.edge_index
    counts = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    counts.index_put_((dst, src), torch.ones(len(src), dtype=torch.float64), accumulate=True)
    alone = counts.sum(1) == 0
    counts[alone, alone] = 1
    return counts / counts.sum(1, keepdim=True), counts * ~alone > 0


def exact(model, graph):
    """Both sums of the objective, over all pairs."""
    matrix, joined = transition(graph)
    q = model.theta.softmax(0)
    powers = torch.stack([torch.matrix_power(matrix, k) for k in range(1, WINDOW + 1)])
    visits = model.num_walks * torch.einsum("k,kij->ij", q, powers)
    scores = model.left @ model.right.t()
    scale = model.num_walks * graph.num_nodes
    positive = -(visits * F.logsigmoid(scores)).sum() / scale
    negative = -(F.logsigmoid(-scores) * ~joined).sum() / scale
    return positive, negative


def every_walk(graph):
    matrix, _ = transition(graph)
    walks = itertools.product(range(graph.num_nodes), repeat=WINDOW + 1)
    possible = [w for w in walks if all(matrix[i, j] > 0 for i, j in itertools.pairwise(w))]
    return torch.tensor(possible)


def gradients(loss, model):
    found = torch.autograd.grad(
        loss, list(model.parameters()), allow_unused=True, retain_graph=True
    )
    pairs = zip(found, model.parameters(), strict=True)
    return [torch.zeros_like(p) if g is None else g for g, p in pairs]


def test_equals_the_objective_over_all_walks_and_pairs(prism):
    model = make_model(6)
    positive, negative = exact(model, prism)
    nodes = torch.arange(6)
    own = model.positive(every_walk(prism)), model.negative(prism, nodes, nodes.flip(0))
    for value, truth in zip(own, (positive, negative), strict=True):
        torch.testing.assert_close(value, truth, rtol=1e-12, atol=1e-12)
        pairs = zip(gradients(value, model), gradients(truth, model), strict=True)
        for gradient, true_gradient in pairs:
            torch.testing.assert_close(gradient, true_gradient, rtol=1e-12, atol=1e-12)
    assert gradients(positive, model)[2].abs().min() > 1e-4  # the context's


def test_a_node_without_self_loop_is_a_negative_pair_of_itself(irregular):
    model = make_model(6)
    loop = Graph(torch.tensor([[0, 1, 0], [1, 0, 0]]), num_nodes=6)
    nodes = torch.arange(6)
    for graph in (irregular, loop):
        torch.testing.assert_close(
            model.negative(graph, nodes, nodes), exact(model, graph)[1], rtol=1e-12, atol=1e-12
        )


def test_estimates_are_unbiased(irregular):
    """Means of many estimates of values and gradients, in units of their standard errors."""
    model = make_model(6)
    draws = []
    torch.manual_seed(1)
    for _ in range(2000):
        loss = model.loss(irregular, torch.randint(6, (4,)), num_pairs=3)
        parts = [torch.cat([g.flatten() for g in gradients(part, model)]) for part in loss[:2]]
        draws.append(torch.cat([torch.stack(loss[:2]).detach(), *parts]))
    draws = torch.stack(draws)
    truth = exact(model, irregular)
    parts = [torch.cat([g.flatten() for g in gradients(part, model)]) for part in truth]
    expected = torch.cat([torch.stack(truth).detach(), *parts])
    error = draws.std(0) / len(draws) ** 0.5
    varies = error > 0
    z = ((draws.mean(0) - expected) / error.clamp(min=1e-12))[varies]
    assert varies.sum() > 40
    assert z.abs().max() < 4.5
    assert torch.allclose(draws.mean(0)[~varies], expected[~varies], atol=1e-9)


def test_learns_communities():
    torch.manual_seed(0)
    cliques = [[i, j] for c in (0, 5) for i, j in itertools.combinations(range(c, c + 5), 2)]
    graph = undirected([*cliques, [0, 5]], 10)
    model = AttentionWalk(10, 4, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    first = model.loss(graph).total().item()
    for _ in range(200):
        optimizer.zero_grad()
        loss = model.loss(graph).total()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * first
    scores = (model.left @ model.right.t()).detach()
    within = torch.cat([scores[:5, :5].flatten(), scores[5:, 5:].flatten()])
    across = torch.cat([scores[:5, 5:].flatten(), scores[5:, :5].flatten()])
    assert within.quantile(0.1) > across.quantile(0.9)


def test_context():
    learned, uniform = make_model(6), make_model(6, context="uniform")
    assert learned.context.sum().item() == pytest.approx(1)
    assert learned.context.std() > 0
    assert torch.equal(uniform.context, torch.full((WINDOW,), 1 / WINDOW, dtype=torch.float64))
    assert [name for name, _ in uniform.named_parameters()] == ["left", "right"]
    assert "theta" in uniform.state_dict()
    assert "context='uniform'" in repr(uniform)


def test_same_walks_for_the_same_seed(irregular):
    model, seed = make_model(6), torch.tensor([3])
    values = []
    for _ in range(2):
        torch.manual_seed(7)
        values.append(model.loss(irregular, seed=seed))
    assert all(torch.equal(a, b) for a, b in zip(*values, strict=True))
    walks = random_walk(irregular, torch.arange(6), WINDOW, seed=seed)
    assert torch.equal(values[0].positive, model.positive(walks))


def test_without_edges():
    """Every walk stays where it is."""
    model = make_model(4)
    graph = Graph(torch.empty(2, 0, dtype=torch.int64), num_nodes=4)
    loss = model.loss(graph)
    assert loss.total().isfinite()
    diagonal = (model.left * model.right).sum(1)
    torch.testing.assert_close(loss.positive, -F.logsigmoid(diagonal).mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_nodes": 0}, "num_nodes is 0"),
        ({"embedding_channels": 5}, "embedding_channels is 5; expected an even number"),
        ({"embedding_channels": 0}, "embedding_channels is 0"),
        ({"window": 0}, "window is 0"),
        ({"num_walks": 0.0}, "num_walks is 0.0"),
        ({"num_walks": float("nan")}, "num_walks is nan"),
        ({"beta": -1.0}, "beta is -1.0"),
        ({"context": "mine"}, "context is 'mine'; expected one of 'learned', 'uniform'"),
    ],
)
def test_refuses_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        AttentionWalk(**{"num_nodes": 4, **arguments})


def test_refuses_graphs_and_numbers(irregular):
    with pytest.raises(ValueError, match="the graph has 6 nodes; expected the 5 nodes"):
        make_model(5).loss(irregular)
    with pytest.raises(ValueError, match="num_pairs is 0"):
        make_model(6).loss(irregular, num_pairs=0)
    with pytest.raises(IndexError):
        make_model(6).loss(irregular, torch.tensor([6]))
