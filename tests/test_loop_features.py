"""Edge features of added self-loops: as torch's scatter_reduce, with gradients, without atomics."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from gat_ext import Graph
from gat_ext.graph.self_loops import with_self_loops
from gat_ext.nn import GATConv, self_loops
from gat_ext.nn.self_loops import _REDUCTIONS, loop_features

NODES = 7


def edges(count=40, nodes=NODES, seed=0):
    """Multi-edges, self-loops, and a node without in-edges."""
    generator = torch.Generator().manual_seed(seed)
    src = torch.randint(nodes, (count,), generator=generator)
    return torch.stack([src, torch.randint(1, nodes, (count,), generator=generator)])


def features(count, *shape, dtype=torch.float64):
    """Small integers: equal values, and zeros."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(-2, 4, (count, *shape), generator=generator).to(dtype)


def expected(edge_index, attr, fill, num_src=NODES, num_dst=NODES):
    kept = edge_index[0] != edge_index[1]
    attr, dst = attr[kept], edge_index[1, kept]
    start = attr.new_full((num_dst, *attr.shape[1:]), float(fill == "mul"))
    index = dst.view(-1, *[1] * (attr.dim() - 1)).expand_as(attr)
    from_start = fill in ("add", "sum", "mul")
    out = start.scatter_reduce(0, index, attr, _REDUCTIONS[fill], include_self=from_start)
    return out[: min(num_src, num_dst)]


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """The CPU, whose scatter_reduce is in order, uses it for some reductions."""
    monkeypatch.setattr(self_loops, "_scatter", self_loops._reduce)


def ours(edge_index, attr, fill, num_src=NODES, num_dst=NODES):
    looped = with_self_loops(edge_index, num_src, num_dst)
    return loop_features(looped.others(attr), looped, fill)


@pytest.mark.parametrize("form", ["edge_index", "Graph"])
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
@pytest.mark.parametrize("fill", _REDUCTIONS)
def test_values_and_gradients(fill, shape, form):
    edge_index = edges()
    # scatter_reduce gives a part of the gradient of an extreme of 0 to its start.
    shift = 0.5 if fill in ("min", "max") else 0
    attr, other = ((features(40, *shape) + shift).requires_grad_() for _ in range(2))
    given = Graph(edge_index, num_nodes=NODES) if form == "Graph" else edge_index
    found, wanted = ours(given, attr, fill), expected(edge_index, other, fill)
    assert_close(found, wanted)
    grad = torch.rand(wanted.shape, dtype=torch.float64)
    (found,) = torch.autograd.grad(found, attr, grad)
    (wanted,) = torch.autograd.grad(wanted, other, grad)
    assert_close(found, wanted)


@pytest.mark.parametrize("fill", ["mean", "max", "mul"])
@pytest.mark.parametrize("sizes", [(9, 5), (5, 9)])
def test_two_sets_of_nodes(sizes, fill):
    generator = torch.Generator().manual_seed(2)
    edge_index = torch.stack([torch.randint(n, (30,), generator=generator) for n in sizes])
    attr = features(30, 2)
    assert_close(ours(edge_index, attr, fill, *sizes), expected(edge_index, attr, fill, *sizes))


@pytest.mark.parametrize("fill", _REDUCTIONS)
@pytest.mark.parametrize("count", [0, 1])
def test_few_edges(count, fill):
    edge_index = torch.tensor([[0], [2]])[:, :count]
    attr = features(count, 2)
    assert_close(ours(edge_index, attr, fill), expected(edge_index, attr, fill))


@pytest.mark.parametrize("fill", ["min", "max"])
def test_infinite_features(fill):
    edge_index = torch.tensor([[0, 2, 3, 0], [1, 1, 4, 4]])
    attr = torch.tensor([[torch.inf], [1.0], [-torch.inf], [-torch.inf]], requires_grad=True)
    out = ours(edge_index, attr, fill)
    assert torch.equal(out, expected(edge_index, attr.detach(), fill))
    (grad,) = torch.autograd.grad(out[1], attr)
    assert grad.isfinite().all()


def test_16_bit_sums_and_autocast():
    edge_index = torch.tensor([[0], [1]]).repeat(1, 1000)
    attr = torch.ones(1000, 1, dtype=torch.bfloat16)
    assert ours(edge_index, attr, "add")[1] == 1000  # adding in bfloat16 ends at 256
    attr = torch.full((1000, 1), 1 + 2.0**-20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours(edge_index, attr, "max").dtype == torch.float32
        assert ours(edge_index, attr, "max")[1] == attr[0]


@pytest.mark.parametrize("fill", ["mean", "max", "mul"])
def test_second_derivatives(fill):
    edge_index = edges(12)
    attr = torch.rand(12, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda a: ours(edge_index, a, fill), attr)


@pytest.mark.parametrize("fill", _REDUCTIONS)
def test_no_operator_adds_in_any_order(fill):
    """On a GPU scatter_reduce and index_add use atomics."""
    layer = GATConv(4, 3, edge_dim=2, fill_value=fill)
    x, edge_index = torch.randn(NODES, 4), edges()
    attr = torch.randn(40, 2, requires_grad=True)
    with torch.profiler.profile() as profile:
        layer(x, edge_index, attr).sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert "gat_ext::spmm" in names or fill in ("min", "max", "mul")
    assert not {n for n in names if "scatter" in n or "index_add" in n or "index_reduce" in n}
