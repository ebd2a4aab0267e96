"""WalkAgent: the recurrence against its formula, computed for one agent at a time."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gat_ext import Graph
from gat_ext.nn import WalkAgent
from gat_ext.reference.walk import transition_probabilities, uniform_numbers, walk_step

TYPES = 3
SEED = torch.tensor([5])


@pytest.fixture
def graph():
    """A triangle with a tail, a pair, and a node without neighbours."""
    pairs = torch.tensor([[0, 1], [1, 2], [2, 0], [2, 3], [4, 5]]).t()
    return Graph(torch.cat([pairs, pairs.flip(0)], dim=1), num_nodes=7)


@pytest.fixture
def node_type():
    return torch.tensor([0, 1, 2, 1, 0, 2, 1])


def make_agent(**options):
    torch.manual_seed(0)
    agent = WalkAgent(TYPES, 5, (4, 6), **options).double()
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.mul_(3)  # ranks far from uniform
    return agent


def by_hand(agent, graph, node_type, start, num_steps, mode, attributes):
    """Nodes, log-probabilities, histories and ranks of each agent, by the docstring's equations."""
    nodes, log_probs, hiddens, ranks = [start], [], [], []
    rank = torch.full((len(start), TYPES), 1 / TYPES, dtype=torch.float64)
    h = c = torch.zeros(len(start), agent.hidden_channels, dtype=torch.float64)
    for step in range(num_steps):
        uniform = uniform_numbers(int(SEED), len(start), step)
        ranks.append(rank)
        node, log_prob = walk_step(graph, nodes[-1], rank, node_type, uniform, mode=mode)
        both = [F.relu(agent.attribute(attributes[node])), F.relu(agent.preference(rank))]
        seen = F.relu(agent.combine(torch.cat(both, dim=1)))
        gates = seen @ agent.cell.weight_ih.t() + agent.cell.bias_ih
        gates = gates + h @ agent.cell.weight_hh.t() + agent.cell.bias_hh
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        rank = agent.rank(h).softmax(dim=1)
        nodes.append(node)
        log_probs.append(log_prob)
        hiddens.append(h)
    return [torch.stack(each, dim=1) for each in (nodes, log_probs, hiddens, ranks)]


@pytest.mark.parametrize("mode", ["sample", "greedy"])
@pytest.mark.parametrize("attribute_channels", [None, 4])
def test_equals_the_formula(graph, node_type, mode, attribute_channels):
    agent = make_agent(attribute_channels=attribute_channels)
    given = None
    if attribute_channels is not None:
        given = torch.randn(7, attribute_channels, dtype=torch.float64)
    start = torch.arange(7).repeat(4)
    walks = agent(graph, node_type, start, 6, mode, given, SEED)
    seen = F.one_hot(node_type, TYPES).double() if given is None else given
    expected = by_hand(agent, graph, node_type, start, 6, mode, seen)
    assert torch.equal(walks.nodes, expected[0])
    assert torch.stack([torch.bincount(row, minlength=7) for row in walks.nodes]).float().std() > 0
    for value, truth in zip(walks[1:], expected[1:], strict=True):
        assert value.shape == truth.shape
        torch.testing.assert_close(value, truth, rtol=1e-12, atol=1e-12)
    weights = [torch.randn_like(value) for value in walks[1:]]
    own, truth = (
        torch.autograd.grad(
            sum((w * v).sum() for w, v in zip(weights, values[1:], strict=True)),
            list(agent.parameters()),
        )
        for values in (walks, expected)
    )
    torch.testing.assert_close(own, truth, rtol=1e-10, atol=1e-10)


def test_uniform_walk(graph, node_type):
    agent = make_agent()
    start = torch.full((4000,), 2)
    walks = agent(graph, node_type, start, 2, "uniform", seed=SEED)
    counts = torch.bincount(walks.nodes[:, 1], minlength=7)
    assert counts[[0, 1, 3]].sum() == 4000 and counts[[0, 1, 3]].min() > 4000 / 3 * 0.9
    degree = torch.tensor([2, 2, 3, 1, 1, 1, 0])
    expected = -degree[walks.nodes[:, :-1]].double().log()
    torch.testing.assert_close(walks.log_prob, expected)
    assert not walks.log_prob.requires_grad and walks.hidden.requires_grad


def test_isolated_nodes_stay(graph, node_type):
    agent = make_agent()
    for mode in ("sample", "greedy", "uniform"):
        walks = agent(graph, node_type, torch.tensor([6, 0]), 3, mode)
        assert walks.nodes[0].tolist() == [6] * 4
        assert walks.log_prob[0].tolist() == [0.0] * 3
        (walks.hidden.sum() + walks.log_prob.sum()).backward()
        assert all(p.grad.isfinite().all() for p in agent.parameters() if p.grad is not None)


def test_an_early_step_changes_all_later_ones():
    """On a ring every walk is known: attributes of the second node change all later history."""
    ring = Graph(torch.tensor([[1, 2, 3, 4, 0], [0, 1, 2, 3, 4]]))
    agent = make_agent(attribute_channels=2)
    attributes = torch.randn(5, 2, dtype=torch.float64)
    other = attributes.clone()
    other[2] += 1
    types, start = torch.zeros(5, dtype=torch.int64), torch.tensor([0])
    one, two = (agent(ring, types, start, 4, attributes=x) for x in (attributes, other))
    assert one.nodes.tolist() == [[0, 1, 2, 3, 4]]
    changed = (one.hidden - two.hidden).abs().amax(dim=2)[0]
    assert changed[0] == 0 and (changed[1:] > 1e-6).all()
    moved = (one.rank - two.rank).abs().amax(dim=2)[0]
    assert (moved[:2] == 0).all() and (moved[2:] > 1e-6).all()


def test_moves_follow_the_ranks(graph, node_type):
    """Second moves of many agents with the same first move, against the probabilities."""
    agent = make_agent()
    with torch.no_grad():
        agent.rank.bias += torch.tensor([0.0, 1.0, 2.0])
    walks = agent(graph, node_type, torch.full((20_000,), 3), 2, seed=SEED)
    assert (walks.nodes[:, 1] == 2).all()
    p = transition_probabilities(graph, 2, walks.rank[0, 1].detach(), node_type)
    begin, end = graph.rowptr[2:4].tolist()
    counts = torch.bincount(walks.nodes[:, 2], minlength=7)[graph.col[begin:end].long()]
    torch.testing.assert_close(counts / 20_000, p.float(), rtol=0, atol=0.015)
    assert p.max() > 0.4


def test_same_seed_same_walk_on_any_number_of_threads(graph, node_type):
    agent, start = make_agent(), torch.arange(7).repeat(50)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(agent(graph, node_type, start, 8, seed=SEED))
    finally:
        torch.set_num_threads(before)
    one, two = results
    assert torch.equal(one.nodes, two.nodes)
    torch.testing.assert_close(one.hidden, two.hidden)
    assert not torch.equal(
        one.nodes, agent(graph, node_type, start, 8, seed=torch.tensor([6])).nodes
    )


def test_no_agents(graph, node_type):
    walks = make_agent()(graph, node_type, torch.zeros(0, dtype=torch.int64), 3)
    assert [list(value.shape) for value in walks] == [[0, 4], [0, 3], [0, 3, 5], [0, 3, 3]]


def test_mistakes(graph, node_type):
    agent, start = make_agent(), torch.tensor([0])
    with pytest.raises(ValueError, match="'sample', 'greedy', 'uniform'"):
        agent(graph, node_type, start, 3, "random")
    with pytest.raises(ValueError, match="num_steps is 0"):
        agent(graph, node_type, start, 0)
    with pytest.raises(TypeError, match=r"num_steps is 2\.0 of type float"):
        agent(graph, node_type, start, 2.0)
    with pytest.raises(ValueError, match=r"node_type has shape \[3\]; expected \[7\]"):
        agent(graph, node_type[:3], start, 2)
    with pytest.raises(ValueError, match="attribute_channels"):
        agent(graph, node_type, start, 2, attributes=torch.zeros(7, 2))
    with pytest.raises(ValueError, match=r"attributes are not given; expected a tensor \[7, 2\]"):
        make_agent(attribute_channels=2)(graph, node_type, start, 2)
    with pytest.raises(ValueError, match=r"step_channels\[1\] is 0"):
        WalkAgent(3, step_channels=(4, 0))


def test_start_out_of_range(graph, node_type):
    with pytest.raises(IndexError, match="start has the value 7"):
        make_agent()(graph, node_type, torch.tensor([7]), 2)
