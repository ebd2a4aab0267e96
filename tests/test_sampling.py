"""NeighborSampler: neighbourhoods against brute force, determinism and errors."""

from __future__ import annotations

import itertools

import pytest
import torch
from sampled import random_graph, star

from gat_ext import Graph
from gat_ext.ops.registry import ops
from gat_ext.sampling import MappedGraph, NeighborSampler


def global_edges(found, number: int) -> torch.Tensor:
    """[2, E'] of a block, in the numbers of the whole graph."""
    src, dst = found.blocks[number].edge_index
    return torch.stack([found.n_id[src], found.n_id[dst]])


def check_sample(graph, found, seeds, fanouts):
    """The structure of a sample without replacement."""
    edges, degrees = graph.edge_index, graph.in_degrees()
    assert found.n_id[: found.batch_size].tolist() == seeds.tolist()
    assert len(found.blocks) == len(found.e_id) == len(fanouts)
    assert found.blocks[-1].num_dst == seeds.shape[0]
    assert found.blocks[0].num_src == found.n_id.shape[0] == sum(found.num_sampled_nodes)
    assert found.num_sampled_edges == [block.num_edges for block in found.blocks[::-1]]
    for inner, outer in itertools.pairwise(found.blocks[::-1]):
        assert inner.num_src == outer.num_dst
    for number, fanout in enumerate(reversed(fanouts)):
        block, e_id = found.blocks[number], found.e_id[number]
        assert torch.equal(edges[:, e_id], global_edges(found, number))
        wanted = degrees[found.n_id[: block.num_dst]]
        wanted = wanted if fanout < 0 else wanted.clamp(max=fanout)
        assert torch.equal(block.in_degrees(), wanted)
        rows = block.edge_index[1]
        pairs = torch.stack([rows, e_id])
        assert pairs.unique(dim=1).shape == pairs.shape, "an edge was drawn twice"


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("fanouts", [[3], [4, 2], [2, 3, 1], [5, -1], [0, 3], [70, 100]])
def test_samples_are_parts_of_the_graph(dtype, fanouts):
    graph, seeds = random_graph(dtype=dtype), torch.tensor([5, 59, 0, 17])
    check_sample(graph, NeighborSampler(graph, fanouts).sample(seeds), seeds, fanouts)


def test_rows_of_every_length_have_distinct_edges():
    dst = torch.arange(200).repeat_interleave(torch.arange(200))
    graph = Graph(torch.stack([torch.randint(200, dst.shape), dst]), 200)
    for fanout in (1, 7, 63, 64, 65, 130):
        seeds = torch.arange(200)
        check_sample(graph, NeighborSampler(graph, [fanout]).sample(seeds), seeds, [fanout])


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_all_neighbours_equal_brute_force(hops):
    graph, seeds = random_graph(90, 200), torch.tensor([3, 80, 41])
    found = NeighborSampler(graph, [-1] * hops).sample(seeds)
    edges, reached = graph.edge_index, set(seeds.tolist())
    for number in reversed(range(hops)):
        inside = torch.isin(edges[1], torch.tensor(sorted(reached)))
        assert sorted(found.e_id[number].tolist()) == inside.nonzero().flatten().tolist()
        reached |= set(edges[0, inside].tolist())
        assert set(found.n_id[: found.blocks[number].num_src].tolist()) == reached
    assert found.n_id.unique().numel() == found.n_id.numel()


def test_new_nodes_are_in_the_order_of_the_edges():
    graph = Graph(torch.tensor([[4, 2, 3, 4], [0, 0, 1, 1]]), 5)
    found = NeighborSampler(graph, [-1]).sample(torch.tensor([1, 0]))
    assert found.n_id.tolist() == [1, 0, 3, 4, 2]
    assert found.blocks[0].col.tolist() == [2, 3, 3, 4]
    assert found.e_id[0].tolist() == [2, 3, 0, 1]


def test_repeated_seeds_have_rows_of_their_own():
    graph, seeds = random_graph(), torch.tensor([7, 7, 3, 7])
    found = NeighborSampler(graph, [3, 2]).sample(seeds)
    check_sample(graph, found, seeds, [3, 2])
    rows = [found.e_id[-1][found.blocks[-1].edge_index[1] == i].tolist() for i in (0, 1, 3)]
    assert rows[0] == rows[1] == rows[2]


@pytest.mark.parametrize("seeds", [[], [3]])
def test_no_seeds_and_no_edges(seeds):
    seeds = torch.tensor(seeds, dtype=torch.int64)
    for graph in (random_graph(), Graph(torch.zeros(2, 0, dtype=torch.int64), 4)):
        sampler = NeighborSampler(graph, [2, -1])
        found = sampler.sample(seeds)
        check_sample(graph, found, seeds, [2, -1])
        part = sampler.subgraph(seeds)
        assert part.edge_index.shape == (2, part.e_id.shape[0])


def test_isolated_nodes_have_no_edges():
    graph = Graph(torch.tensor([[0], [1]]), 4)
    for replace in (False, True):
        found = NeighborSampler(graph, [2, 2], replace=replace).sample(torch.tensor([3, 2]))
        assert found.n_id.tolist() == [3, 2]
        assert [block.num_edges for block in found.blocks] == [0, 0]


# ---- disjoint trees, subgraphs


def test_disjoint_trees_share_no_node():
    graph, seeds = random_graph(30, 300), torch.tensor([3, 3, 8])
    found = NeighborSampler(graph, [4, 3], disjoint=True).sample(seeds)
    check_sample(graph, found, seeds, [4, 3])
    keys = torch.stack([found.batch, found.n_id])
    assert keys.unique(dim=1).shape == keys.shape
    for block in found.blocks:
        src, dst = block.edge_index
        assert torch.equal(found.batch[src], found.batch[dst])


def test_a_subgraph_expands_each_node_once():
    graph, seeds = random_graph(80, 600), torch.tensor([1, 2])
    sampler = NeighborSampler(graph, [3, 2, 2])
    found = sampler.subgraph(seeds)
    dst = found.edge_index[1]
    assert torch.equal(graph.edge_index[:, found.e_id], found.n_id[found.edge_index])
    sizes = found.num_sampled_nodes
    assert sum(sizes) == found.n_id.numel() == found.n_id.unique().numel()
    degrees, first, edge = torch.bincount(dst, minlength=sum(sizes)), 0, 0
    for size, fanout, count in zip(sizes, [3, 2, 2], found.num_sampled_edges, strict=False):
        nodes = torch.arange(first, first + size)
        assert torch.equal(degrees[nodes], graph.in_degrees()[found.n_id[nodes]].clamp(max=fanout))
        assert torch.isin(dst[edge : edge + count], nodes).all()
        first, edge = first + size, edge + count
    assert (degrees[first:] == 0).all()
    # The seeds' hop draws the edges of the seeds' block.
    assert torch.equal(sampler.sample(seeds).e_id[-1], found.e_id[: found.num_sampled_edges[0]])


# ---- determinism


OPTIONS = {
    "uniform": {},
    "replace": {"replace": True},
    "weighted": {"edge_weight": torch.rand(60_000, generator=torch.Generator().manual_seed(1))},
    "timed": {"edge_time": torch.arange(60_000), "temporal_strategy": "last"},
    "disjoint": {"disjoint": True},
}


def parts(found) -> list[torch.Tensor]:
    return [found.n_id, *found.e_id, *(t for b in found.blocks for t in (b.rowptr, b.col))]


@pytest.mark.parametrize("name", OPTIONS)
def test_equal_on_any_number_of_threads(name):
    graph, seeds = random_graph(5000, 60_000), torch.arange(0, 4000, 3)
    sampler = NeighborSampler(graph, [9, 7], **OPTIONS[name])
    timed = {"seed_time": torch.full((len(seeds),), 30_000)} if name == "timed" else {}
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(parts(sampler.sample(seeds, **timed)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("name", ["uniform", "replace", "weighted"])
def test_neighbours_of_a_node_do_not_depend_on_its_batch(name):
    graph = random_graph(5000, 60_000)
    sampler = NeighborSampler(graph, [5], **OPTIONS[name])
    many = sampler.sample(torch.arange(100, 900))
    for node in (100, 471, 899):
        alone = sampler.sample(torch.tensor([node]))
        mine = many.blocks[0].edge_index[1] == node - 100
        assert torch.equal(many.e_id[0][mine], alone.e_id[0])


def test_hash_table_and_array_number_nodes_alike():
    """Above 4 million nodes the numbers are in a hash table."""
    small = random_graph(3000, 30_000)
    large = Graph(small.edge_index, 5_000_000)
    seeds = torch.arange(0, 3000, 7)
    a, b = (NeighborSampler(g, [6, 4]).sample(seeds) for g in (small, large))
    assert all(torch.equal(x, y) for x, y in zip(parts(a), parts(b), strict=True))


def test_a_failed_call_leaves_the_next_one_intact():
    graph, seeds = random_graph(), torch.tensor([1, 2, 3])
    sampler = NeighborSampler(graph, [3])
    before = parts(sampler.sample(seeds))
    with pytest.raises(IndexError):
        sampler.sample(torch.tensor([1, 2, 60]))
    broken = MappedGraph(graph.rowptr, torch.where(graph.col == 5, 999, graph.col))
    with pytest.raises(IndexError, match="col has the node 999; expected nodes from 0 to 59"):
        NeighborSampler(broken, [-1, -1, -1]).sample(torch.arange(60))
    assert all(torch.equal(a, b) for a, b in zip(before, parts(sampler.sample(seeds)), strict=True))


# ---- errors


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"num_neighbors": []}, ValueError, "num_neighbors is empty"),
        ({"num_neighbors": [-2]}, ValueError, r"num_neighbors\[0\] is -2"),
        ({"num_neighbors": [1.5]}, TypeError, r"num_neighbors\[0\] is 1.5"),
        ({"num_neighbors": 3}, TypeError, "a list of integers"),
        ({"graph": torch.zeros(2, 3)}, TypeError, "graph is a Tensor"),
        ({"graph": Graph(torch.zeros(2, 1).long(), num_src=2, num_dst=1)}, ValueError, "num_src"),
        ({"replace": 1}, TypeError, "replace is a int; expected True"),
        ({"seed": 0.5}, TypeError, "seed is 0.5"),
        ({"temporal_strategy": "lst"}, ValueError, "did you mean 'last'"),
        ({"temporal_strategy": "last"}, ValueError, "there are no times"),
        (
            {"edge_weight": torch.ones(3)},
            ValueError,
            r"edge_weight has shape \[3\]; expected \[400",
        ),
        ({"edge_weight": torch.ones(400).long()}, TypeError, "edge_weight has dtype"),
        ({"edge_time": torch.ones(400)}, TypeError, "edge_time has dtype torch.float32"),
        (
            {"node_time": torch.ones(60).long(), "edge_time": torch.ones(400).long()},
            ValueError,
            "both",
        ),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error, match=text):
        NeighborSampler(**{"graph": random_graph(), "num_neighbors": [2], **options})


@pytest.mark.parametrize(
    ("seeds", "error", "text"),
    [
        ([1], TypeError, "seeds is a list"),
        (torch.tensor([0.5]), TypeError, "seeds has dtype torch.float32"),
        (torch.tensor([[1]]), ValueError, r"seeds has shape \[1, 1\]"),
        (torch.tensor([60]), IndexError, "seeds has the node 60; expected nodes from 0 to 59"),
        (torch.tensor([-1]), IndexError, "seeds has the node -1"),
    ],
)
def test_bad_seeds(seeds, error, text):
    with pytest.raises(error, match=text):
        NeighborSampler(random_graph(), [2]).sample(seeds)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_bad_weights_are_named_when_they_are_read(value):
    weight = torch.ones(4)
    weight[2] = value
    with pytest.raises(ValueError, match="the weight of edge 2 is negative, infinite or NaN"):
        NeighborSampler(star(4), [2], edge_weight=weight).sample(torch.tensor([0]))


def test_times_of_seeds_are_required_and_refused():
    seeds = torch.tensor([0])
    with pytest.raises(ValueError, match="seed_time is missing"):
        NeighborSampler(star(4), [2], edge_time=torch.arange(4)).sample(seeds)
    with pytest.raises(ValueError, match="seed_time was given"):
        NeighborSampler(star(4), [2]).sample(seeds, seed_time=seeds)


@pytest.mark.parametrize("disjoint", [False, True])
def test_the_operator_is_registered_correctly(disjoint):
    graph = random_graph()
    arguments = (graph.rowptr, graph.col, graph.edge_id, torch.tensor([1, 2]), [3, 2])
    options = (*[None] * 4, False, False, disjoint, False, 0, 0)
    torch.library.opcheck(ops.neighbor_sample.default, (*arguments, *options))
