"""NeighborSampler: the statistics of its draws, and times."""

from __future__ import annotations

import itertools

import pytest
import torch
from sampled import random_graph, star
from scipy.stats import chi2, chisquare

from gat_ext import Graph
from gat_ext.sampling import NeighborSampler

LEAST_P = 1e-4


def counts(sampler: NeighborSampler, node: int, draws: int) -> torch.Tensor:
    """[draws, E]: how often each edge into a node was drawn, for successive epochs."""
    total = torch.zeros(draws, sampler.graph.num_edges)
    for epoch in range(draws):
        e_id = sampler.sample(torch.tensor([node]), epoch=epoch).e_id[0]
        total[epoch].index_add_(0, e_id, torch.ones(e_id.shape[0]))
    return total


def p_value(observed: torch.Tensor, probability: float, draws: int) -> float:
    """Of how often each of D edges was drawn, if every draw takes a fixed number of them.

    The counts have variance n p (1 - p) and correlation -1 / (D - 1), so the sum of their squared
    deviations over n p (1 - p), times (D - 1) / D, is chi-squared with D - 1 degrees of freedom.
    """
    size = len(observed)
    deviation = ((observed - draws * probability) ** 2).sum() / (draws * probability)
    return float(chi2.sf(deviation / (1 - probability) * (size - 1) / size, size - 1))


@pytest.mark.parametrize("degree", [5, 21, 100])
def test_uniform_inclusion(degree):
    draws, fanout = 3000, 4
    drawn = counts(NeighborSampler(star(degree), [fanout]), 0, draws)
    assert drawn.max() == 1 and (drawn.sum(1) == fanout).all()
    assert p_value(drawn.sum(0), fanout / degree, draws) > LEAST_P


def test_every_pair_is_equally_likely():
    drawn = counts(NeighborSampler(star(6), [2]), 0, 6000)
    pairs = drawn.nonzero()[:, 1].view(-1, 2)
    found = torch.bincount(pairs[:, 0] * 6 + pairs[:, 1])
    found = found[found > 0]
    assert len(found) == 15 and chisquare(found).pvalue > LEAST_P


@pytest.mark.parametrize("weight", [None, [1.0, 0.0, 3.0, 2.0, 0.5]])
def test_with_replacement_draws_are_independent(weight):
    weight = None if weight is None else torch.tensor(weight)
    sampler = NeighborSampler(star(5), [8], replace=True, edge_weight=weight)
    drawn = counts(sampler, 0, 2000)
    assert (drawn.sum(1) == 8).all()
    probability = torch.ones(5) if weight is None else weight
    expected = 16000 * probability / probability.sum()
    assert (drawn.sum(0)[expected == 0] == 0).all()
    kept = expected > 0
    assert chisquare(drawn.sum(0)[kept], expected[kept]).pvalue > LEAST_P
    # The variance of a multinomial count; draws that depended on each other would change it.
    share = probability[0] / probability.sum()
    assert drawn[:, 0].var().item() == pytest.approx(float(8 * share * (1 - share)), rel=0.15)


def successive_draws(weight: list[float], size: int) -> dict[frozenset[int], float]:
    """The probability of each set of edges drawn one after the other by weight."""
    found: dict[frozenset[int], float] = {}
    for order in itertools.permutations([i for i, w in enumerate(weight) if w > 0], size):
        p, left = 1.0, sum(weight)
        for i in order:
            p, left = p * weight[i] / left, left - weight[i]
        found[frozenset(order)] = found.get(frozenset(order), 0.0) + p
    return found


def test_weighted_without_replacement():
    weight = [1.0, 4.0, 0.0, 2.0, 0.5]
    drawn = counts(NeighborSampler(star(5), [2], edge_weight=torch.tensor(weight)), 0, 6000)
    exact = successive_draws(weight, 2)
    found = dict.fromkeys(exact, 0)
    for row in drawn:
        found[frozenset(row.nonzero().flatten().tolist())] += 1
    expected = [6000 * p for p in exact.values()]
    assert chisquare(list(found.values()), expected).pvalue > LEAST_P


def test_edges_of_weight_zero_are_never_drawn():
    weight = torch.tensor([0.0, 1.0, 0.0, 2.0])
    for fanout, replace in ((-1, False), (3, False), (10, False)):
        sampler = NeighborSampler(star(4), [fanout], replace=replace, edge_weight=weight)
        assert sampler.sample(torch.tensor([0])).e_id[0].tolist() == [1, 3]
    for replace in (False, True):
        nothing = NeighborSampler(star(4), [2], replace=replace, edge_weight=torch.zeros(4))
        assert nothing.sample(torch.tensor([0])).e_id[0].tolist() == []


def test_nodes_layers_seeds_and_epochs_have_draws_of_their_own():
    edges = torch.cat([star(50).edge_index, star(50).edge_index + 51], dim=1)
    graph = Graph(edges, 102)
    sampler = NeighborSampler(graph, [5, 5])
    first = sampler.sample(torch.tensor([0]))
    (a, b) = (set(e[:5].tolist()) for e in first.e_id)
    other_epoch = set(sampler.sample(torch.tensor([0]), epoch=1).e_id[-1].tolist())
    other_seed = set(NeighborSampler(graph, [5], seed=1).sample(torch.tensor([0])).e_id[0].tolist())
    node = {e - 50 for e in sampler.sample(torch.tensor([51])).e_id[-1].tolist()}
    drawn = [frozenset(edges) for edges in (a, b, other_epoch, other_seed, node)]
    assert len(set(drawn)) == 5


# ---- times


@pytest.mark.parametrize("kind", ["node_time", "edge_time"])
@pytest.mark.parametrize("strategy", ["uniform", "last"])
def test_no_edge_is_later_than_its_seed(kind, strategy):
    graph = random_graph(40, 500)
    size = graph.num_nodes if kind == "node_time" else graph.num_edges
    times = torch.randint(100, (size,), generator=torch.Generator().manual_seed(3))
    edge_time = times if kind == "edge_time" else times[graph.edge_index[0]]
    seeds, seed_time = torch.tensor([4, 4, 9]), torch.tensor([80, 20, 50])
    sampler = NeighborSampler(graph, [3, 2], temporal_strategy=strategy, **{kind: times})
    found = sampler.sample(seeds, seed_time=seed_time)
    for block, e_id, fanout in zip(found.blocks, found.e_id, [2, 3], strict=True):
        src, dst = block.edge_index
        assert torch.equal(found.batch[src], found.batch[dst])
        limit = seed_time[found.batch[dst]]
        assert (edge_time[e_id] <= limit).all()
        for i in range(block.num_dst):
            node, latest = found.n_id[i], seed_time[found.batch[i]]
            allowed = (graph.edge_index[1] == node) & (edge_time <= latest)
            mine = e_id[dst == i]
            assert mine.unique().numel() == mine.numel() == min(fanout, int(allowed.sum()))
            if strategy == "last":
                newest = edge_time[allowed].sort(descending=True).values[: mine.numel()]
                assert torch.equal(edge_time[mine].sort(descending=True).values, newest)


def test_equal_times_take_the_later_edges():
    sampler = NeighborSampler(
        star(4), [2], edge_time=torch.tensor([5, 5, 5, 9]), temporal_strategy="last"
    )
    found = sampler.sample(torch.tensor([0]), seed_time=torch.tensor([6]))
    assert found.e_id[0].tolist() == [1, 2]


def test_times_of_seeds_are_those_of_their_nodes():
    graph = Graph(torch.tensor([[0, 1, 2], [3, 3, 3]]))
    sampler = NeighborSampler(graph, [-1], node_time=torch.tensor([1, 5, 3, 3]))
    assert sampler.sample(torch.tensor([3])).e_id[0].tolist() == [0, 2]


def test_uniform_draws_among_allowed_edges():
    times = torch.arange(20)
    sampler = NeighborSampler(star(20), [3], edge_time=times)
    total = torch.zeros(20)
    for epoch in range(2000):
        found = sampler.sample(torch.tensor([0]), seed_time=torch.tensor([9]), epoch=epoch)
        total[found.e_id[0]] += 1
    assert (total[10:] == 0).all()
    assert p_value(total[:10], 0.3, 2000) > LEAST_P
