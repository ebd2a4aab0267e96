"""NeighborLoader: its batches, for threads, workers and processes, and in PyG's form."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sampled import random_graph

from gat_ext import Graph, datasets
from gat_ext.sampling import Batch, MappedGraph, NeighborLoader

GRAPH = random_graph(200, 1500)
X = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(200) * 3
EDGE_ATTR = torch.arange(1500.0).view(-1, 1)


def loader(**options) -> NeighborLoader:
    defaults = {"data": (GRAPH, X, Y), "num_neighbors": [4, 3], "batch_size": 32}
    return NeighborLoader(**{**defaults, **options})


def tensors(batch: Batch) -> list[torch.Tensor]:
    graphs = [t for block in batch.blocks for t in (block.rowptr, block.col)]
    return [batch.x, batch.y, batch.n_id, *batch.e_id, batch.input_id, *graphs]


def assert_equal(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(batch), tensors(other), strict=True))


def test_fields():
    seeds = torch.tensor([5, 190, 3, 77, 60])
    batches = list(loader(input_nodes=seeds, batch_size=2, edge_attr=EDGE_ATTR))
    assert [batch.batch_size for batch in batches] == [2, 2, 1]
    assert torch.cat([b.n_id[: b.batch_size] for b in batches]).equal(seeds)
    assert torch.cat([b.input_id for b in batches]).tolist() == [0, 1, 2, 3, 4]
    for batch in batches:
        assert torch.equal(batch.x, X[batch.n_id]) and batch.x.shape[0] == batch.num_nodes
        assert torch.equal(batch.y, Y[batch.n_id[: batch.batch_size]])
        for rows, e_id, block in zip(batch.edge_attr, batch.e_id, batch.blocks, strict=True):
            assert torch.equal(rows, EDGE_ATTR[e_id]) and rows.shape[0] == block.num_edges
        assert batch.batch is None and batch.seed_time is None


@pytest.mark.parametrize("given", ["all", "mask", "list"])
def test_input_nodes(given):
    mask = torch.zeros(200, dtype=torch.bool)
    mask[[4, 9, 100]] = True
    nodes = {"all": None, "mask": mask, "list": [4, 9, 100]}[given]
    found = torch.cat([b.n_id[: b.batch_size] for b in loader(input_nodes=nodes)])
    assert found.tolist() == (list(range(200)) if given == "all" else [4, 9, 100])


def test_a_graph_alone_has_no_features():
    batch = next(iter(loader(data=GRAPH)))
    assert batch.x is None and batch.y is None and batch.edge_attr is None


# ---- the same batches everywhere


@pytest.mark.parametrize("workers", [1, 2])
def test_equal_for_any_number_of_workers(workers):
    alone, many = loader(shuffle=True), loader(shuffle=True, num_workers=workers)
    for _ in range(2):
        assert_equal(list(alone), list(many))


def test_persistent_workers_continue_with_the_next_epoch():
    alone = loader(shuffle=True)
    many = loader(shuffle=True, num_workers=1, persistent_workers=True)
    for _ in range(3):
        assert_equal(list(alone), list(many))


@pytest.mark.parametrize("width", [3, 1000])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_batches_of_workers_are_in_shared_memory(width, method):
    x = torch.randn(200, width)
    options = {"data": (GRAPH, x, Y), "edge_attr": torch.ones(1500)}
    for batch in loader(num_workers=1, multiprocessing_context=method, **options):
        shared = [batch.x, batch.y, batch.n_id, *batch.edge_attr, *batch.e_id, batch.input_id]
        assert all(t.is_shared() for t in shared + [block.col for block in batch.blocks])
        small = {t.untyped_storage().data_ptr() for t in shared[1:]}
        assert len(small) == 1, "all small tensors arrive in one piece"
        assert (batch.x.untyped_storage().data_ptr() in small) == (width == 3)
        assert torch.equal(batch.x, x[batch.n_id])


def test_batches_can_be_pickled_and_copied():
    batch = next(iter(loader(edge_attr=EDGE_ATTR)))
    for other in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)):
        assert_equal([batch], [other])
        assert not other.x.is_shared()


def test_epochs_differ_and_repeat():
    first, second = loader(shuffle=True), loader(shuffle=True)
    epochs = [list(first) for _ in range(3)]
    assert not torch.equal(epochs[0][0].n_id, epochs[1][0].n_id)
    second.set_epoch(2)
    assert_equal(epochs[2], list(second))
    ordered = [torch.cat([b.input_id for b in epoch]) for epoch in epochs]
    assert all(torch.equal(order.sort().values, torch.arange(200)) for order in ordered)
    assert not torch.equal(ordered[0], ordered[1])


def test_seeds_differ():
    a, b = (next(iter(loader(shuffle=True, seed=seed))) for seed in (0, 1))
    assert not torch.equal(a.input_id, b.input_id)
    a, b = (next(iter(loader(seed=seed))) for seed in (0, 1))
    assert torch.equal(a.input_id, b.input_id) and not torch.equal(a.e_id[0], b.e_id[0])


@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_of_all_ranks_are_those_of_one(world_size, drop_last):
    options = {"shuffle": True, "drop_last": drop_last}
    alone = list(loader(**options))
    ranks = [loader(rank=r, world_size=world_size, **options) for r in range(world_size)]
    parts = [list(part) for part in ranks]
    assert [len(part) for part in ranks] == [len(part) for part in parts]
    if drop_last:
        assert len({len(part) for part in parts}) == 1
        alone = alone[: len(parts[0]) * world_size]
    merged = [
        parts[i % world_size][i // world_size] for i in range(sum(len(part) for part in parts))
    ]
    if alone:
        assert_equal(alone, merged)


def _rank(rank: int, folder: str, results) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    results.put((rank, [batch.input_id.tolist() for batch in loader(shuffle=True)]))
    results.close()
    results.join_thread()
    dist.destroy_process_group()


def test_ranks_are_those_of_torch_distributed(tmp_path):
    context = mp.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_rank, args=(r, str(tmp_path), results)) for r in (0, 1)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    alone = [batch.input_id.tolist() for batch in loader(shuffle=True)]
    assert found[0] == alone[::2] and found[1] == alone[1::2]


# ---- files


@pytest.mark.parametrize("workers", [0, 1])
def test_mapped_graph_and_features(tmp_path, workers):
    MappedGraph.save(tmp_path, GRAPH, x=X, y=Y)
    mapped = MappedGraph.open(tmp_path)
    assert_equal(list(loader()), list(loader(data=mapped, num_workers=workers)))
    assert mapped.load().edge_index.equal(GRAPH.edge_index)


def test_a_mapped_graph_is_not_read_as_a_whole(tmp_path):
    """Faulty rows raise an error where they are read, and nowhere else."""
    MappedGraph.save(tmp_path, GRAPH)
    mapped = MappedGraph.open(tmp_path)
    begin, end = mapped.rowptr[150:152].tolist()
    assert end > begin
    mapped.col[begin:end] = 1_000_000
    list(loader(data=mapped, num_neighbors=[3], input_nodes=torch.arange(100)))
    with pytest.raises(IndexError, match="col has the node 1000000"):
        list(loader(data=mapped, num_neighbors=[3]))
    mapped.rowptr[151] = begin - 1
    with pytest.raises(ValueError, match="rowptr is invalid at node 150"):
        list(loader(data=mapped, num_neighbors=[3]))
    with pytest.raises(ValueError, match="rowptr descends at row 150"):
        mapped.load()


def test_empty_graphs_can_be_saved(tmp_path):
    MappedGraph.save(tmp_path, Graph(torch.zeros(2, 0, dtype=torch.int64), 3))
    mapped = MappedGraph.open(tmp_path)
    assert (mapped.num_nodes, mapped.num_edges) == (3, 0)
    assert [b.num_nodes for b in loader(data=mapped, batch_size=2)] == [2, 1]


@pytest.mark.parametrize(
    ("parts", "error", "text"),
    [
        ((torch.tensor([0, 1]), torch.tensor([0.5])), TypeError, "col is torch.float32"),
        ((torch.tensor([0, 1]).int(), torch.tensor([0])), TypeError, "rowptr is torch.int32"),
        ((torch.tensor([0, 2]), torch.tensor([0])), ValueError, "rowptr has .* the ends"),
        ((torch.tensor([1, 1]), torch.tensor([0])), ValueError, "rowptr has .* the ends"),
        ((torch.empty(0).long(), torch.tensor([0])), ValueError, "rowptr has"),
        ((torch.tensor([0, 1]), torch.tensor([[0]])), ValueError, "col has shape"),
        ((torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([0, 1])), ValueError, "edge_id"),
    ],
)
def test_faulty_parts_of_a_mapped_graph(parts, error, text):
    with pytest.raises(error, match=text):
        MappedGraph(*parts)


# ---- PyG


@pytest.fixture
def data():
    pyg = pytest.importorskip("torch_geometric.data")
    edges = GRAPH.edge_index
    return pyg.Data(x=X, y=Y, edge_index=edges, edge_attr=EDGE_ATTR, train_mask=Y % 2 == 0)


def test_data_of_pyg_in_blocks(data):
    ours = loader(edge_attr=EDGE_ATTR)
    assert_equal(list(ours), list(loader(data=data)))
    assert next(iter(loader(data=data))).edge_attr[0].shape[1] == 1


def test_batches_in_the_form_of_pyg(data):
    batches = list(loader(data=data, form="pyg", input_nodes=data.train_mask))
    assert sum(batch.batch_size for batch in batches) == 100
    for batch in batches:
        assert type(batch) is type(data)
        assert torch.equal(batch.x, X[batch.n_id]) and torch.equal(batch.y, Y[batch.n_id])
        assert torch.equal(batch.train_mask, data.train_mask[batch.n_id])
        assert torch.equal(batch.edge_attr, EDGE_ATTR[batch.e_id])
        assert torch.equal(batch.n_id[batch.edge_index], GRAPH.edge_index[:, batch.e_id])
        assert batch.num_nodes == batch.n_id.numel() == sum(batch.num_sampled_nodes)
        assert batch.edge_index.shape[1] == sum(batch.num_sampled_edges)
        assert batch.validate()
    assert data.x is X, "the data of the caller is unchanged"


def test_full_neighbourhoods_in_the_form_of_pyg_give_full_graph_results(data):
    nn = pytest.importorskip("torch_geometric.nn")
    model = nn.GAT(6, 8, 2, 3).eval()
    full = model(data.x, data.edge_index)
    for batch in loader(data=data, form="pyg", num_neighbors=[-1, -1]):
        out = model(batch.x, batch.edge_index)[: batch.batch_size]
        assert torch.allclose(out, full[batch.n_id[: batch.batch_size]], atol=1e-5)


def test_names_of_attributes_of_pyg(data):
    data.when, data.weight = torch.arange(200), torch.ones(1500)
    batch = next(iter(loader(data=data, time_attr="when", weight_attr="weight")))
    assert torch.equal(batch.seed_time, data.when[batch.n_id[: batch.batch_size]])
    assert (data.when[batch.n_id] <= batch.seed_time[batch.batch]).all()
    data.since = torch.arange(1500)
    timed = loader(data=data, time_attr="since", input_time=torch.full((200,), 700))
    assert all((e < 701).all() for b in timed for e in b.e_id)
    with pytest.raises(ValueError, match="time_attr is 'wen'; expected one of the attributes"):
        loader(data=data, time_attr="wen")
    with pytest.raises(ValueError, match="edge_time was given, but data is a Data"):
        loader(data=data, edge_time=torch.arange(1500))


# ---- errors


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"data": 3}, TypeError, "data is a int"),
        ({"data": datasets.load("karate")}, TypeError, r"give \(data.graph, data.x, data.y\)"),
        ({"data": (GRAPH, X[:5])}, ValueError, r"x has shape \[5, 6\]; expected \[200, ...\]"),
        ({"data": (GRAPH, X, Y[:5])}, ValueError, r"y has shape \[5\]"),
        ({"data": (GRAPH, X.to_sparse())}, TypeError, "x is torch.sparse_coo"),
        ({"edge_attr": X}, ValueError, "edge_attr has shape"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size is 2.0"),
        ({"shuffle": 1}, TypeError, "shuffle is a int; expected True"),
        ({"form": "pyq"}, ValueError, "did you mean 'pyg'"),
        ({"subgraph_type": "induced"}, ValueError, "subgraph_type is 'induced'"),
        ({"input_nodes": torch.tensor([200])}, IndexError, r"input_nodes\[0\] is 200"),
        ({"input_nodes": torch.ones(3, dtype=torch.bool)}, ValueError, "mask of shape"),
        ({"input_nodes": torch.ones(3)}, TypeError, "input_nodes has dtype"),
        ({"input_nodes": ("paper", [1])}, TypeError, "expected an int64 tensor .* of one type"),
        ({"input_nodes": {1, 2}}, TypeError, "input_nodes is {1, 2}; expected"),
        ({"input_time": torch.arange(200)}, ValueError, "input_time was given"),
        ({"edge_time": torch.arange(1500)}, ValueError, "input_time is missing"),
        ({"time_attr": "t"}, ValueError, "time_attr is the name of an attribute"),
        ({"rank": 1}, ValueError, "world_size is None"),
        ({"rank": 2, "world_size": 2}, ValueError, "rank is 2"),
        ({"rank": "0", "world_size": 2}, TypeError, "rank is '0' of type str"),
        ({"rank": 0.5, "world_size": 2}, TypeError, "rank is 0.5"),
        ({"rank": 0, "world_size": 0}, ValueError, "world_size is 0"),
        ({"collate_fn": list}, TypeError, "collate_fn was given"),
        ({"is_sorted": True}, TypeError, "is_sorted is not an argument of NeighborLoader"),
        ({"transform": 3}, TypeError, "transform is a int; expected a function"),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error, match=text):
        loader(**options)


def test_a_batch_says_what_replaces_an_edge_index():
    batch = next(iter(loader()))
    with pytest.raises(AttributeError, match=r"'edge_index'; expected .*model\(batch.x, batch.blo"):
        batch.edge_index  # noqa: B018
    assert not hasattr(batch, "train_mask")


def test_set_epoch_checks_its_number():
    with pytest.raises(ValueError, match="epoch is -1"):
        loader().set_epoch(-1)
