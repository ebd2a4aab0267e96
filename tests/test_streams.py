"""Cached results on the streams of a GPU, with streams that write down what is done on them."""

from __future__ import annotations

import copy

import pytest
import torch

from gat_ext import Graph, empty_cache
from gat_ext.graph import streams
from gat_ext.graph.cache import Cache
from gat_ext.graph.degrees import largest_degrees
from gat_ext.graph.self_loops import with_self_loops

EDGES = torch.tensor([[2, 0, 1, 1], [0, 1, 2, 0]])


class Stream:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def record_event(self):
        self.log.append(f"{self.name} records")
        return f"event of {self.name}"

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for {event}")


class Fake:
    """Two streams for the CPU; ``stream`` is the current one."""

    def __init__(self):
        self.log, self.used = [], []
        self.first, self.second = Stream("first", self.log), Stream("second", self.log)
        self.stream = self.first

    def current(self, device):
        assert device.type == "cpu"
        return self.stream

    def record_use(self, tensor, stream):
        assert self.log[-1].startswith(f"{stream.name} waits")  # no use before
        self.used.append((tensor.data_ptr(), stream.name))


@pytest.fixture
def fake(monkeypatch):
    empty_cache()
    found = Fake()
    monkeypatch.setattr(streams, "STREAMS", {"cpu": found})
    yield found
    empty_cache()


def uses(name, *tensors):
    return [(tensor.data_ptr(), name) for tensor in tensors]


def test_another_stream_waits_once_for_a_cached_result(fake):
    cache, owner = Cache(), torch.zeros(3)
    made = cache.get((owner,), "double", lambda: (owner * 2, None, 5))
    assert cache.get((owner,), "double", list) is made
    assert fake.log == ["first records"] and not fake.used
    fake.stream = fake.second
    for _ in range(3):
        assert cache.get((owner,), "double", list) is made
    fake.stream = fake.first
    assert cache.get((owner,), "double", list) is made
    assert fake.log == ["first records", "second waits for event of first"]
    assert fake.used == uses("second", made[0])


def test_a_result_without_tensors_needs_no_stream(fake):
    cache, owner = Cache(), torch.zeros(3)
    cache.get((owner,), "count", lambda: 3)
    fake.stream = fake.second
    assert cache.get((owner,), "count", list) == 3
    assert not fake.log


def test_what_another_thread_cached_meanwhile(fake):
    cache, owner = Cache(), torch.zeros(3)

    def slow():
        fake.stream = fake.first
        kept.append(cache.get((owner,), "ones", lambda: torch.ones(2)))
        fake.stream = fake.second
        return torch.ones(2)

    kept = []
    fake.stream = fake.second
    assert cache.get((owner,), "ones", slow) is kept[0]
    assert fake.log == ["first records", "second records", "second waits for event of first"]
    assert fake.used == uses("second", kept[0])


def test_the_transpose_of_a_graph(fake):
    graph = Graph(EDGES)
    assert not fake.log  # the caller orders what the caller made
    transpose = graph.transpose()
    fake.stream = fake.second
    assert graph.transpose() is transpose
    graph.out_degrees()
    assert fake.log == ["first records", "second waits for event of first"]
    assert fake.used == uses("second", *transpose)
    duplicate = copy.deepcopy(graph)
    fake.stream = fake.first
    duplicate.transpose()
    assert len(fake.log) == 2


def test_degrees_are_counted_after_the_transpose(fake):
    graph = Graph(EDGES)
    graph.transpose()
    fake.stream = fake.second
    assert largest_degrees(graph).tolist() == [2, 2]
    assert fake.log == ["first records", "second waits for event of first"]


def test_a_graph_with_self_loops_and_its_transpose(fake):
    looped = with_self_loops(EDGES, 3, 3)
    fake.stream = fake.second
    assert with_self_loops(EDGES, 3, 3) is looped
    graph = looped.graph
    assert fake.used == uses("second", graph.rowptr, graph.col, graph.edge_id)
    graph.transpose()  # the second stream makes it
    fake.stream = fake.first
    graph.transpose()
    assert fake.log[-2:] == ["second records", "first waits for event of second"]


def test_a_capture_does_not_wait(fake, monkeypatch):
    graph = Graph(EDGES)
    graph.transpose()
    fake.stream = fake.second
    monkeypatch.setattr(streams, "is_capturing", lambda of: True)
    graph.transpose()
    assert fake.log == ["first records"]


def test_the_cpu_has_no_streams():
    assert streams.ready((torch.zeros(2), Graph(EDGES))) is None
