"""The cache: which results it keeps, for how long, and how much memory they take."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref

import pytest
import torch

import gat_ext
from gat_ext import _C, Graph
from gat_ext.graph import cache as module
from gat_ext.graph.cache import Cache
from gat_ext.nn import GATConv


@pytest.fixture
def cache():
    return Cache()


def edges_of(number: int, count: int = 4) -> torch.Tensor:
    return torch.full((2, count), number)


def test_cached_by_owner_and_key(cache):
    edges, made = edges_of(1), []

    def make():
        made.append(1)
        return torch.ones(3)

    first = cache.get((edges,), "a", make)
    assert cache.get((edges,), "a", make) is first
    assert cache.get((edges,), "b", make) is not first
    assert cache.get((edges.clone(),), "a", make) is not first
    assert len(made) == 3


def test_a_modification_drops_all_results_of_its_owner(cache):
    edges, other = edges_of(1), edges_of(1)
    for owner in (edges, other):
        for key in "ab":
            cache.get((owner,), key, object)
    edges.add_(1)
    cache.get((edges,), "a", object)
    assert len(cache) == 3


def test_results_of_two_owners_die_with_either(cache):
    graphs = [Graph(torch.zeros(2, 1, dtype=torch.int64)) for _ in range(2)]
    x = torch.ones(2)
    for graph in graphs:
        rows = cache.get((x, graph), "rows", lambda: torch.ones(3))
    known = weakref.ref(rows)
    assert len(cache) == 2
    del rows, graphs[1], graph
    gc.collect()
    assert len(cache) == 1 and known() is None
    del x
    assert len(cache) == 0 and cache.nbytes == 0


def test_errors_are_not_cached(cache):
    edges = edges_of(1)
    with pytest.raises(ZeroDivisionError):
        cache.get((edges,), "a", lambda: 1 / 0)
    assert cache.get((edges,), "a", lambda: 1) == 1


def test_bounded_over_owners(cache, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 1_000_000)
    owners = [edges_of(number) for number in range(100)]
    for owner in owners:
        cache.get((owner,), "a", lambda: torch.empty(45_904, dtype=torch.uint8))
        cache.get((owners[0],), "a", object)
    assert cache.nbytes <= 1_000_000 and len(cache) == 20
    held = {ids for (ids,) in cache._slots}
    # The first was used repeatedly; of the others, the most recent ones stay.
    assert held == {id(owner) for owner in (owners[0], *owners[-19:])}


def test_recent_results_of_any_size_stay(cache, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 100)
    owners = [edges_of(number) for number in range(30)]
    for owner in owners:
        cache.get((owner,), "a", lambda: torch.empty(1000))
    assert len(cache) == module.RECENT
    assert {ids for (ids,) in cache._slots} == {id(o) for o in owners[-module.RECENT :]}


def test_bounded_for_each_owner(cache):
    edges = edges_of(1)
    for key in range(50):
        cache.get((edges,), key, lambda: torch.empty(10))
        cache.get((edges,), 0, lambda: torch.empty(10))
    results = cache._slots[id(edges),].results
    assert len(results) == module.PER_OWNER and 0 in results
    expected = sum(module._bytes_of(made) + module._OVERHEAD for made in results.values())
    assert cache.nbytes == expected


def test_bytes_of_a_graph_are_those_with_its_transpose():
    for edges in (torch.tensor([[0, 1, 2], [0, 1, 1]]), torch.tensor([[0, 1, 2], [2, 1, 1]])):
        graph = Graph(edges, num_src=5, num_dst=3)
        parts = {id(t): t for t in (*graph.transpose(), graph.rowptr, graph.col, graph.edge_id)}
        assert graph.nbytes == sum(t.nbytes for t in parts.values() if t is not None)


def test_nothing_that_a_cuda_graph_computes_is_cached(cache, monkeypatch):
    """It has no contents before the first replay."""
    edges, before = edges_of(1), edges_of(2)
    graph, ready = Graph(edges_of(0)), Graph(edges_of(0))
    kept, transpose = cache.get((before,), "sum", before.sum), ready.transpose()
    for place in (module, sys.modules[Graph.__module__]):
        monkeypatch.setattr(place, "is_capturing", lambda of: True)
    assert cache.get((edges,), "sum", edges.sum) is not cache.get((edges,), "sum", edges.sum)
    assert graph.transpose() is not graph.transpose()
    assert cache.get((before,), "sum", before.sum) is kept and ready.transpose() is transpose
    monkeypatch.undo()
    assert graph.transpose() is graph.transpose() and len(cache) == 1


def test_empty_cache_drops_everything():
    layer, x, edges = GATConv(5, 3), torch.randn(4, 5), edges_of(1)
    expected = layer(x, edges)
    assert len(module._cache) > 0
    gat_ext.empty_cache()
    assert len(module._cache) == 0 and module._cache.nbytes == 0
    assert torch.equal(layer(x, edges), expected)


KEPT = """
import gc
from pathlib import Path
import torch, gat_ext
from gat_ext.graph import cache
from gat_ext.nn import GATConv, TransformerConv

def resident():
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024

def epoch(graphs):
    for edges in graphs:
        (first(x, edges) + second(x, edges)).sum().backward()

cache.LIMIT = 60 * 2**20
graphs = [torch.randint(5000, (2, 50_000)) for _ in range(100)]
x, first, second = torch.randn(5000, 8), GATConv(8, 8), TransformerConv(8, 8)
epoch(graphs[:1])
gat_ext.empty_cache()
before = resident()
epoch(graphs)
kept, counted = resident() - before, cache._cache.nbytes / 2**20
gat_ext.empty_cache()
print(round(kept), round(counted), round(resident() - before))
"""


def test_memory_kept_of_living_edges_is_bounded_and_given_back(tmp_path):
    """100 graphs of 50,000 edges, whose sorted forms take 240 MB in all."""
    run = subprocess.run(
        [sys.executable, "-c", KEPT],
        env=os.environ | {"PYTHONPATH": ":".join(filter(None, sys.path))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    kept, counted, left = map(int, run.stdout.split())
    assert counted <= 60 and kept < 130, run.stdout
    assert left < 30, run.stdout


def test_the_limit_is_a_share_of_the_memory_of_the_process():
    limit = _C.memory_limit()
    assert 0 < limit <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert min(2**30, limit // 16) == module.LIMIT


def test_threads(cache, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 40_000)
    shared = [edges_of(number) for number in range(40)]
    errors = []

    def work(seed):
        try:
            order = torch.randperm(40, generator=torch.Generator().manual_seed(seed)).tolist()
            for _ in range(20):
                own = edges_of(seed)
                for number in order:
                    found = cache.get((shared[number],), "n", lambda n=number: torch.tensor(n))
                    assert int(found) == number
                    assert cache.get((own, shared[number]), "n", lambda n=number: n) == number
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    cache.clear()
    assert len(cache) == 0 and cache.nbytes == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_child_does_not_wait_for_a_thread_of_its_parent():
    holding, release = threading.Event(), threading.Event()

    def hold():
        with module._cache._lock:
            holding.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    child = os.fork()
    if child == 0:
        module._cache.clear()
        os._exit(0)
    release.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
