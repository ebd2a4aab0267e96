"""Nothing uses stale edges after an in-place change, even one that torch does not count.

Every write here leaves the version of the tensor as it was, which the tests check.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

from gat_ext import _C, Graph
from gat_ext.models import GAT
from gat_ext.nn import AGNNConv, GATConv, Reordered, TransformerConv
from gat_ext.nn.features import as_features

NODES, SECONDS = 4, 60
OTHER = [[3, 1, 2, 0, 1], [1, 2, 0, 3, 3]]


def make_edges(dtype=torch.int64):
    return torch.tensor([[0, 1, 2, 3, 3], [1, 2, 0, 0, 3]], dtype=dtype)


def make_layer(**options):
    torch.manual_seed(0)
    return GATConv(5, 3, **options)


# ---- writes in the same process


def overwrite(target, source):
    target.numpy()[...] = source.numpy()  # as a kernel writes memory


def by_operator(target, source):
    """An operator whose schema declares a write, without an autograd kernel to count it."""
    with torch.library._scoped_library("gat_ext_stale", "FRAGMENT") as library:
        library.define("overwrite(Tensor(a!) target, Tensor source) -> ()")
        library.impl("overwrite", overwrite, "CPU")
        torch.ops.gat_ext_stale.overwrite(target, source)


def by_storage(target, source):
    alias = torch.empty(0, dtype=target.dtype)
    alias.set_(target.untyped_storage(), target.storage_offset(), target.shape, target.stride())
    alias.copy_(source)


WRITES = {
    "data": lambda target, source: target.data.copy_(source),
    "numpy": lambda target, source: target.numpy().__setitem__(..., source.numpy()),
    "dlpack": lambda target, source: torch.from_dlpack(target).copy_(source),
    "storage": by_storage,
    "operator": by_operator,
}


def assert_notices(use, target, write, fresh=None):
    """After an uncounted write to ``target``, ``use(target)`` equals ``fresh()``.

    By default, ``fresh`` is ``use`` of a copy of ``target``.
    """
    before, version = use(target), target._version
    write(target)
    assert target._version == version, "a write that torch counts tests nothing"
    after, expected = use(target), use(target.clone()) if fresh is None else fresh()
    assert torch.equal(after, expected) and not torch.equal(before, after)


USES = {
    "looped": lambda: make_layer(),
    "as given": lambda: make_layer(add_self_loops=False),
    "agnn": lambda: AGNNConv(),
    "transformer": lambda: TransformerConv(5, 3),
    "reordered": lambda: Reordered(make_layer(), "rcm"),
    "compiled": lambda: torch.compile(make_layer(), backend="eager"),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("use", USES)
def test_edge_index(use, write):
    layer, x = USES[use](), torch.randn(NODES, 5)
    source = torch.tensor(OTHER)
    assert_notices(lambda e: layer(x, e), make_edges(), lambda e: WRITES[write](e, source))


@pytest.mark.parametrize(
    "form",
    [
        lambda: make_edges(torch.int32),
        lambda: make_edges().t().contiguous().t(),  # as of a list of pairs
        lambda: make_edges().repeat(1, 2)[:, :5],
        lambda: make_edges().repeat_interleave(3, dim=1)[:, ::3],
    ],
    ids=["int32", "transposed", "narrowed", "strided"],
)
def test_forms_of_an_edge_index(form):
    layer, x, edges = make_layer(), torch.randn(NODES, 5), form()
    for place in range(10):  # each element is read
        row, column = divmod(place, 5)
        changed = (edges[row, column] + 1) % NODES
        assert_notices(
            lambda e: layer(x, e),
            edges,
            lambda e, r=row, c=column, n=changed: e.data[r, c].copy_(n),
        )


def test_permuted_edges_are_noticed():
    """The sum, and the sets of sources and destinations, are unchanged."""
    layer, x = make_layer(), torch.randn(NODES, 5)
    assert_notices(
        lambda e: layer(x, e), make_edges(), lambda e: e.data[1].copy_(e[1].flip(0).clone())
    )


def test_attention_weights_and_mask_follow_the_new_edges():
    layer, x, edges = make_layer(), torch.randn(NODES, 5), make_edges()
    mask = torch.rand(5)
    for _ in range(2):
        results = [
            layer(x, e, edge_mask=mask, return_attention_weights=True)
            for e in (edges, edges.clone())
        ]
        (out, (index, alpha)), (expected, (expected_index, expected_alpha)) = results
        assert torch.equal(out, expected)
        assert torch.equal(index, expected_index) and torch.equal(alpha, expected_alpha)
        edges.numpy()[...] = OTHER


def test_pyg_edge_index():
    pyg = pytest.importorskip("torch_geometric")
    edges, layer, x = pyg.EdgeIndex(make_edges()), make_layer(), torch.randn(NODES, 5)
    before = layer(x, edges)
    edges.as_tensor().numpy()[...] = OTHER
    after = layer(x, edges)
    assert torch.equal(after, layer(x, torch.tensor(OTHER))) and not torch.equal(before, after)


# ---- sparse matrices, as edges and as features


def sparse(layout):
    rows, columns = [[0, 1, 2, 3], [1, 2, 0, 3]]
    values, size = torch.tensor([1.0, 2.0, 3.0, 4.0]), (NODES, NODES)
    options = {"check_invariants": True}
    if layout == "coo":
        matrix = torch.sparse_coo_tensor([rows, columns], values, size, **options).coalesce()
        return matrix, [matrix._indices()]
    make = torch.sparse_csr_tensor if layout == "csr" else torch.sparse_csc_tensor
    matrix = make([0, 1, 2, 3, 4], columns, values, size, **options)
    if layout == "csr":
        return matrix, [matrix.crow_indices(), matrix.col_indices()]
    return matrix, [matrix.ccol_indices(), matrix.row_indices()]


INDEX_WRITES = [
    ("coo", 0, [[0, 1, 2, 3], [2, 3, 0, 1]]),
    ("csr", 1, [3, 0, 1, 2]),
    ("csr", 0, [0, 2, 3, 3, 4]),
    ("csc", 1, [3, 0, 1, 2]),
    ("csc", 0, [0, 2, 3, 3, 4]),
]


@pytest.mark.parametrize("write", ["data", "numpy", "dlpack"])
@pytest.mark.parametrize(("layout", "part", "indices"), INDEX_WRITES)
def test_sparse_matrix(layout, part, indices, write):
    layer, x = make_layer(), torch.randn(NODES, 5)
    weight = torch.randn(3, NODES)
    for use in (lambda m: layer(x, m), lambda m: as_features(m).linear(weight)):
        matrix, parts = sparse(layout)
        assert_notices(
            lambda _, use=use, matrix=matrix: use(matrix),
            parts[part],
            lambda target: WRITES[write](target, torch.tensor(indices)),
            lambda use=use, matrix=matrix: use(matrix.clone()),
        )


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_values_of_sparse_features_are_read_at_each_call(layout):
    matrix, weight = sparse(layout)[0], torch.randn(3, NODES)
    assert_notices(
        lambda _: as_features(matrix).linear(weight),
        matrix.values(),
        lambda values: values.data.mul_(torch.tensor([1.0, -1.0, 2.0, 0.5])),
        lambda: as_features(matrix.clone()).linear(weight),
    )


@pytest.mark.parametrize("part", ["row", "col"])
def test_sparse_tensor(part):
    parts = dict(zip(("row", "col"), make_edges().flip(0).clone(), strict=True))

    class SparseTensor:
        coo = staticmethod(lambda: (parts["row"], parts["col"], None))
        sparse_sizes = staticmethod(lambda: (NODES, NODES))

    layer, x, matrix = make_layer(), torch.randn(NODES, 5), SparseTensor()
    before = layer(x, matrix)
    parts[part].numpy()[...] = [3, 1, 2, 0, 1]
    after = layer(x, matrix)
    edges = torch.stack([parts["col"], parts["row"]])
    assert torch.equal(after, layer(x, Graph(edges, num_nodes=NODES)))
    assert not torch.equal(before, after)


# ---- writes of other processes


def bag_of_words():
    words = torch.zeros(NODES, 12)
    words[:, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    return words


def other_words():
    return bag_of_words().roll(3, dims=1)


def users_of_features():
    torch.manual_seed(0)
    model = GAT(12, 4, 3).eval()
    reordered = Reordered(GATConv(12, 3), "rcm")
    edges = make_edges()
    return [lambda x: model(x, edges), lambda x: reordered(x, edges)]


def write_to(edges, words):
    edges.copy_(torch.tensor(OTHER))
    words.copy_(other_words())


def finish(processes):
    for process in processes:
        process.join(SECONDS)
    late = [process for process in processes if process.is_alive()]
    for process in late:
        process.kill()
    assert not late and all(process.exitcode == 0 for process in processes)


@pytest.fixture
def spawning(monkeypatch):
    """The context of processes started by spawn.

    They import this module by pytest's name for it, and the installed package.
    """
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[1])])
    return multiprocessing.get_context("spawn")


def test_shared_memory(spawning):
    edges, words = make_edges().share_memory_(), bag_of_words().share_memory_()
    layer, x = make_layer(), torch.randn(NODES, 5)
    uses = [(lambda e: layer(x, e), edges), *((use, words) for use in users_of_features())]
    before = [use(tensor) for use, tensor in uses]
    versions = edges._version, words._version
    process = spawning.Process(target=write_to, args=(edges, words))
    process.start()
    finish([process])
    assert (edges._version, words._version) == versions
    for (use, tensor), old in zip(uses, before, strict=True):
        assert torch.equal(use(tensor), use(tensor.clone())) and not torch.equal(use(tensor), old)


def send(tensor, source, rank):
    if rank == 0:
        distributed.send(source, 1)
    else:
        distributed.recv(tensor, 0)


def isend(tensor, source, rank):
    work = distributed.isend(source, 1) if rank == 0 else distributed.irecv(tensor, 0)
    work.wait()


def broadcast(tensor, source, rank):
    distributed.broadcast(source if rank == 0 else tensor, 0)


def all_reduce(tensor, source, rank):
    distributed.all_reduce(source if rank == 0 else tensor, distributed.ReduceOp.MAX)


def scatter(tensor, source, rank):
    out = torch.empty_like(tensor) if rank == 0 else tensor
    distributed.scatter(out, [source, source] if rank == 0 else None, 0)


def all_to_all(tensor, source, rank):
    distributed.all_to_all_single(tensor, source)


# Ways of writing to a tensor, and True if process 0 writes, too.
COLLECTIVES = {
    "broadcast": (broadcast, False),
    "send": (send, False),
    "isend": (isend, False),
    "all_reduce": (all_reduce, False),
    "scatter": (scatter, False),
    "all_to_all_single": (all_to_all, True),
}


class WithEdges(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = make_layer()
        self.register_buffer("edges", make_edges())

    def forward(self, x):
        return self.layer(x, self.edges)


def compare(rank, store, results):
    """In two processes: {name: (right, changed)} for every way of writing, of process ``rank``."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.manual_seed(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=SECONDS),
    )
    layer, x, found = make_layer(), torch.randn(NODES, 5), {}

    def judge(name, use, tensor, source, write):
        before, version = use(tensor), tensor._version
        write(tensor, source, rank)
        assert tensor._version == version
        after = use(tensor)
        right = torch.equal(after, use(tensor.clone()))
        found[name] = right, not torch.equal(before, after)

    for name, (write, _) in COLLECTIVES.items():
        judge(name, lambda e: layer(x, e), make_edges(), torch.tensor(OTHER), write)
    for number, use in enumerate(users_of_features()):
        judge(f"features {number}", use, bag_of_words(), other_words(), broadcast)

    model = nn.parallel.DistributedDataParallel(WithEdges())
    before = model(x)
    if rank == 0:
        model.module.edges.copy_(torch.tensor(OTHER))
    after = model(x)
    right = torch.equal(after, model.module.layer(x, torch.tensor(OTHER)))
    found["ddp"] = right, not torch.equal(before, after)
    results.put((rank, found))
    distributed.barrier()
    distributed.destroy_process_group()
    os._exit(0)  # a thread of Gloo that outlives the interpreter would abort the process


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch without Gloo")
def test_distributed(tmp_path, spawning):
    results = spawning.SimpleQueue()
    processes = [
        spawning.Process(target=compare, args=(r, tmp_path / "store", results)) for r in range(2)
    ]
    for process in processes:
        process.start()
    finish(processes)
    found = dict(results.get() for _ in processes)
    assert set(found[1]) == {*COLLECTIVES, "features 0", "features 1", "ddp"}
    assert [name for name, (right, _) in found[0].items() if not right] == []
    assert [name for name, judged in found[1].items() if judged != (True, True)] == []
    both = [name for name, (_, both) in COLLECTIVES.items() if both]
    assert [found[0][name] for name in both] == [(True, True)] * len(both)


# ---- tensors that are not read


def test_large_features_are_read_only_where_others_may_write(monkeypatch):
    read, fingerprint = [], _C.fingerprint
    monkeypatch.setattr(_C, "fingerprint", lambda t: read.append(t.shape) or fingerprint(t))
    (use, _), words = users_of_features(), bag_of_words()
    use(words)
    assert words.shape not in read
    use(words.share_memory_())
    assert words.shape in read
