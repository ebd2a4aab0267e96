"""Sampling of several types of nodes and edges: the sampler, the loader, and PyG's form."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from forms import SparseTensor
from torch.testing import assert_close
from typed_graphs import (
    BY,
    CITES,
    COUNTS,
    EDGES,
    IN,
    KNOWS,
    SIZES,
    WRITES,
    X,
    Y,
    hetero_data,
    loader,
    sampler,
)

from gat_ext import Graph
from gat_ext.datasets import load_typed
from gat_ext.models import HAN, HGT
from gat_ext.sampling import MappedGraph, NeighborLoader, TypedNeighborSampler

FIELDS = "x_dict", "edge_index_dict", "edge_attr_dict", "n_id_dict", "e_id_dict"


def tensors(batch):
    parts = [batch.y, batch.input_id]
    for field in FIELDS:
        parts += getattr(batch, field).values()
    return [part for part in parts if part is not None]


def assert_equal(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.num_sampled_nodes_dict == other.num_sampled_nodes_dict
        assert all(torch.equal(a, b) for a, b in zip(tensors(batch), tensors(other), strict=True))


def check_sample(found, fanouts, replace=False):
    """Compares every row of every hop with the edges of the graph."""
    first = dict.fromkeys(SIZES, 0)  # of the nodes that a hop expands
    taken = dict.fromkeys(EDGES, 0)
    for hop in range(len(next(iter(fanouts.values())))):
        for relation, (src, dst) in EDGES.items():
            kind, fanout = relation[2], fanouts[relation][hop]
            count = found.num_sampled_nodes_dict[kind][hop]
            begin = taken[relation]
            taken[relation] += found.num_sampled_edges_dict[relation][hop]
            edges = slice(begin, taken[relation])
            e_id = found.e_id_dict[relation][edges]
            ends = found.edge_index_dict[relation][:, edges]
            assert torch.equal(found.n_id_dict[relation[0]][ends[0]], src[e_id])
            assert torch.equal(found.n_id_dict[kind][ends[1]], dst[e_id])
            assert ((first[kind] <= ends[1]) & (ends[1] < first[kind] + count)).all()
            for row in range(first[kind], first[kind] + count):
                degree = int((dst == found.n_id_dict[kind][row]).sum())
                drawn = e_id[ends[1] == row]
                wanted = degree if fanout == -1 else min(degree, fanout)
                if replace and fanout != -1:
                    wanted = fanout if degree else 0
                assert len(drawn) == wanted
                assert replace or len(drawn.unique()) == wanted
        for kind in SIZES:
            first[kind] += found.num_sampled_nodes_dict[kind][hop]
    for relation in EDGES:
        assert taken[relation] == found.edge_index_dict[relation].shape[1]
    for kind, n_id in found.n_id_dict.items():
        assert sum(found.num_sampled_nodes_dict[kind]) == len(n_id)


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("fanouts", [[3, 2], [1, 1, 2], [-1, -1], [0, 2], [2, 0, 1], [40]], ids=str)
def test_sampled_edges_are_those_of_the_relations(fanouts, replace, kind):
    seeds = torch.tensor([5, 59, 0, 30, 6])
    seeds = seeds[seeds < SIZES[kind]]
    found = sampler(fanouts, replace=replace).sample(kind, seeds)
    assert torch.equal(found.n_id_dict[kind][: found.batch_size], seeds)
    check_sample(found, {relation: fanouts for relation in EDGES}, replace)
    assert all(len(n.unique()) == len(n) for n in found.n_id_dict.values())
    assert found.input_type == kind and found.batch_size == len(seeds)


def test_fanouts_of_each_relation():
    fanouts = {WRITES: [2, 1], BY: [0, 3], CITES: [-1, 0], IN: [5, 5], KNOWS: [1, 1]}
    found = sampler(fanouts).sample("paper", torch.arange(20))
    check_sample(found, fanouts)
    assert found.num_sampled_edges_dict[BY][0] == 0 < found.num_sampled_edges_dict[BY][1]
    assert found.num_sampled_nodes_dict["venue"] == [0, 0, 0]  # no relation leaves venues


def test_repeated_seeds_have_the_first_number():
    found = sampler([-1]).sample("paper", torch.tensor([7, 3, 7, 7]))
    assert found.n_id_dict["paper"][:4].tolist() == [7, 3, 7, 7]
    check_sample(found, {relation: [-1] for relation in EDGES})
    later = found.n_id_dict["paper"][4:]
    assert not {3, 7} & set(later.tolist()) and len(later.unique()) == len(later)


def test_draws_are_uniform_and_those_of_relations_independent():
    edges = torch.stack([torch.arange(6), torch.zeros(6).long()])
    graphs = {("a", name, "a"): edges for name in ("first", "second")}
    drawn = TypedNeighborSampler(graphs, [1], num_nodes={"a": 6})
    pairs = torch.zeros(6, 6)
    for epoch in range(1800):
        found = drawn.sample("a", torch.tensor([0]), epoch=epoch)
        first, second = (int(e) for e in found.e_id_dict.values())
        pairs[first, second] += 1
    # Chi-squared of 35 degrees of freedom is above 80 with a probability of 2e-5.
    assert float(((pairs - 50) ** 2 / 50).sum()) < 80


def test_neighbours_depend_on_neither_the_batch_nor_the_order_of_relations():
    alone = sampler([2]).sample("paper", torch.tensor([11]))
    turned = TypedNeighborSampler(dict(reversed(EDGES.items())), [2], num_nodes=SIZES)
    among = turned.sample("paper", torch.tensor([4, 11, 30]))
    for relation in (WRITES, CITES):
        row = among.edge_index_dict[relation][1] == 1
        assert torch.equal(among.e_id_dict[relation][row], alone.e_id_dict[relation])


def test_weights():
    """Edges of weight 0 are never drawn; relations without weights are uniform."""
    weight = torch.zeros(COUNTS[CITES])
    weight[::7] = torch.rand(len(weight[::7])) + 0.1
    found = sampler([20], edge_weight={CITES: weight}).sample("paper", torch.arange(60))
    assert (found.e_id_dict[CITES] % 7 == 0).all()
    assert len(found.e_id_dict[CITES]) == len(weight[::7])
    assert len(found.e_id_dict[WRITES]) == COUNTS[WRITES]
    with pytest.raises(ValueError, match="the weight of edge 3 is negative"):
        sampler([20], edge_weight={CITES: weight.index_fill(0, torch.tensor(3), -1)}).sample(
            "paper", torch.arange(60)
        )


def test_graphs_edges_and_mapped_graphs_are_equal():
    made = {r: Graph(e, num_src=SIZES[r[0]], num_dst=SIZES[r[2]]) for r, e in EDGES.items()}
    graphs = {r: MappedGraph(g.rowptr, g.col, g.edge_id) if r in (WRITES, BY) else g
              for r, g in made.items()}  # fmt: skip
    of_graphs = NeighborLoader((graphs, X, Y), [3, 2], "paper", batch_size=16)
    assert_equal(list(of_graphs), list(loader()))
    assert_equal(list(NeighborLoader((made, X, Y), [3, 2], "paper", batch_size=16)), list(loader()))
    bare = next(iter(NeighborLoader(made, [2], "venue", batch_size=3)))
    assert (
        bare.x_dict == {} and bare.y is None and bare.n_id_dict["venue"].tolist()[:3] == [0, 1, 2]
    )


def test_a_sampler_works_after_an_error_and_after_pickling():
    ours = sampler([3, 2])
    before = ours.sample("paper", torch.arange(9))
    graph = Graph(EDGES[CITES], 60)
    wrong = MappedGraph(graph.rowptr, graph.col + 5, graph.edge_id)
    broken = TypedNeighborSampler({WRITES: EDGES[WRITES], CITES: wrong}, [-1], num_nodes=SIZES)
    for _ in range(2):
        with pytest.raises(IndexError, match="expected"):
            broken.sample("paper", torch.arange(60))
        assert all((table == 2**31 - 1).all() for t in broken._tables for table in t.values())
    for again in (ours, pickle.loads(pickle.dumps(ours))):
        after = again.sample("paper", torch.arange(9))
        assert all(torch.equal(before.e_id_dict[r], after.e_id_dict[r]) for r in EDGES)


def test_a_mapped_graph_with_wrong_sources():
    holds = ("venue", "holds", "paper")
    rowptr = torch.arange(61)
    wrong = MappedGraph(rowptr, torch.arange(60) % 9)  # of seven venues
    ours = TypedNeighborSampler({holds: wrong}, [1], num_nodes=SIZES)
    assert ours.sample("paper", torch.tensor([0, 6])).n_id_dict["venue"].tolist() == [0, 6]
    with pytest.raises(IndexError, match="has the source 8; expected 0 to 6, because there are 7"):
        ours.sample("paper", torch.tensor([3, 8]))
    assert ours.sample("paper", torch.tensor([6, 3])).n_id_dict["venue"].tolist() == [6, 3]


def test_one_sampler_in_several_threads():
    ours, seeds = sampler([5, 5]), torch.arange(0, 60, 3)
    wanted = [ours.sample("paper", seeds, epoch=epoch) for epoch in range(20)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda e: ours.sample("paper", seeds, epoch=e), range(20)))
    for one, other in zip(found, wanted, strict=True):
        assert all(torch.equal(one.e_id_dict[r], other.e_id_dict[r]) for r in EDGES)
        assert all(torch.equal(one.n_id_dict[k], other.n_id_dict[k]) for k in SIZES)


def test_fields_of_a_batch():
    mask = torch.zeros(60, dtype=torch.bool)
    mask[[3, 50, 7, 59]] = True
    attr = {CITES: torch.arange(400.0).view(-1, 1)}
    batches = list(loader(input_nodes=("paper", mask), batch_size=3, edge_attr=attr))
    assert [batch.batch_size for batch in batches] == [3, 1]
    assert torch.cat([batch.y for batch in batches]).tolist() == [9, 21, 150, 177]
    assert torch.cat([batch.input_id for batch in batches]).tolist() == [0, 1, 2, 3]
    for batch in batches:
        assert list(batch.x_dict) == list(SIZES) and list(batch.edge_index_dict) == list(EDGES)
        assert all(torch.equal(x, X[k][batch.n_id_dict[k]]) for k, x in batch.x_dict.items())
        assert torch.equal(batch.edge_attr_dict[CITES], attr[CITES][batch.e_id_dict[CITES]])
        assert batch.x_dict["robot"].shape == (0, 4)
        moved = batch.to("meta")
        assert moved.x_dict["paper"].is_meta and moved.edge_index_dict[BY].is_meta
    assert "batch_size=1, num_nodes={'author': 0, 'paper': 1," in repr(batches[1])  # isolated
    with pytest.raises(AttributeError, match="no attribute 'x'; expected x_dict, a dict"):
        batches[0].x  # noqa: B018
    with pytest.raises(AttributeError, match=r"expected model\(batch.x_dict, batch.edge"):
        batches[0].blocks  # noqa: B018
    halved = next(iter(loader(transform=lambda batch: batch.batch_size // 2)))
    assert halved == 8


def test_threads_workers_and_ranks_give_the_same_batches():
    wanted = list(loader(shuffle=True, seed=3))
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        try:
            assert_equal(list(loader(shuffle=True, seed=3)), wanted)
        finally:
            torch.set_num_threads(threads)
    with_workers = loader(shuffle=True, seed=3, num_workers=2)
    assert_equal(list(with_workers), wanted)
    second = list(with_workers)  # the next epoch
    resumed = loader(shuffle=True, seed=3)
    resumed.set_epoch(1)
    assert_equal(list(resumed), second)
    assert not torch.equal(second[0].n_id_dict["paper"], wanted[0].n_id_dict["paper"])
    ranks = [list(loader(shuffle=True, seed=3, rank=rank, world_size=3)) for rank in range(3)]
    assert_equal([ranks[i % 3][i // 3] for i in range(len(wanted))], wanted)


@pytest.mark.parametrize("layers", [1, 2])
def test_hgt_of_full_neighbourhoods_equals_that_of_the_graph(layers):
    torch.manual_seed(0)
    model = HGT(4, 8, 3, (list(SIZES), list(EDGES)), "paper", num_layers=layers, heads=2).eval()
    wanted = model(X, EDGES)
    found = [
        model(batch.x_dict, batch.edge_index_dict)[: batch.batch_size]
        for batch in loader([-1] * layers)
    ]
    assert_close(torch.cat(found), wanted)
    wrong = [model(b.x_dict, b.edge_index_dict)[: b.batch_size] for b in loader([1] * layers)]
    assert not torch.allclose(torch.cat(wrong), wanted)


def test_han_of_full_neighbourhoods_equals_that_of_the_graph():
    """With one meta-path: attention over several depends on all nodes of a call."""
    torch.manual_seed(0)
    data = load_typed("academic")
    kind, (path, edges) = data.target, next(iter(data.metapath_edge_index.items()))
    x, seeds = {kind: data.x[kind]}, data.train_mask.nonzero().flatten()[:6]
    model = HAN(-1, 8, data.num_classes, ([kind], [path]), kind, num_layers=1, heads=2).eval()
    wanted = model(x, {path: edges})[seeds]
    paths = {path: edges}, x, data.y
    (batch,) = NeighborLoader(paths, [-1], (kind, seeds), batch_size=6)
    assert 6 < len(batch.n_id_dict[kind]) < len(data.y)
    assert_close(model(batch.x_dict, batch.edge_index_dict)[:6], wanted)
    (batch,) = NeighborLoader(paths, [1], (kind, seeds), batch_size=6)
    assert not torch.allclose(model(batch.x_dict, batch.edge_index_dict)[:6], wanted)


def test_typed_data_sets():
    data = load_typed("academic")
    seeds = data.train_mask.nonzero().flatten()[:6]
    for given in (seeds, (data.target, seeds)):
        (batch,) = NeighborLoader(data, [4, 4], given, batch_size=6)
        assert batch.input_type == data.target and torch.equal(batch.y, data.y[seeds])
        n_id = batch.n_id_dict["author"]
        assert torch.equal(batch.x_dict["author"], data.x["author"][n_id])
    (every,) = NeighborLoader(data, [1], batch_size=10**6)
    assert every.batch_size == len(data.y)
    assert next(iter(NeighborLoader(data, [1], "author"))).y is None  # labels are of papers


def test_hetero_data_of_pyg():
    data = hetero_data()
    attr = {relation: data[relation].edge_attr for relation in EDGES}
    wanted = list(loader(edge_attr=attr))
    assert_equal(list(loader(data=data)), wanted)
    for given in ({"data": data}, {"edge_attr": attr}):
        for workers in (0, 2):
            for batch, ours in zip(
                loader(form="pyg", num_workers=workers, **given), wanted, strict=True
            ):
                assert batch.validate() and batch["paper"].batch_size == ours.batch_size
                assert torch.equal(batch["paper"].input_id, ours.input_id)
                assert torch.equal(batch["paper"].y[: ours.batch_size], ours.y)
                for field in (
                    "x_dict",
                    "edge_index_dict",
                    "edge_attr_dict",
                    "n_id_dict",
                    "e_id_dict",
                ):
                    for key, value in getattr(ours, field).items():
                        assert torch.equal(getattr(batch, field)[key], value), (field, key)
                assert batch.num_sampled_nodes_dict == ours.num_sampled_nodes_dict
                assert batch.num_sampled_edges_dict == ours.num_sampled_edges_dict
                if "data" in given:
                    assert batch.title == "all"
                    assert all(torch.equal(batch[k].number, batch[k].n_id) for k in SIZES)
    assert data["paper"].x is X["paper"] and "n_id" not in data["paper"]  # unchanged


def test_weights_and_sorted_edges_of_hetero_data():
    data = hetero_data()
    data[CITES].w = torch.zeros(COUNTS[CITES])
    batch = next(iter(loader(data=data, weight_attr="w")))
    assert batch.edge_index_dict[CITES].numel() == 0 < batch.edge_index_dict[WRITES].numel()
    wanted = loader([-1]).dataset[next(iter(loader().sampler))]
    src, dst = EDGES[CITES]
    data[CITES].adj_t = SparseTensor(dst, src, sparse_sizes=(60, 60))
    del data[CITES].edge_index, data[CITES].edge_attr, data[CITES].w
    found = next(iter(loader([-1], data=data)))
    assert set(found.n_id_dict["paper"].tolist()) == set(wanted.n_id_dict["paper"].tolist())
