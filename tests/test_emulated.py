"""What only the emulator of CUDA can show: reads of memory that nobody wrote, or too early.

The kernels run in three orders of their blocks, and with results and scratch memory that are NaN
before they are written. All must have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from gat_ext import Graph, functional, reference
from gat_ext.ops.registry import ops
from gat_ext.testing import GRAPHS, sample_graph, sample_inputs

SHAPES = [(1, 1), (3, 7), (2, 33), (1, 130), (8, 8)]
DTYPES = [torch.float32, torch.bfloat16, torch.float64]
REDUCTIONS = ("sum", "mean", "max", "min")


@pytest.fixture(autouse=True)
def emulated(request):
    if request.config.getoption("--cuda-emulation") is None:
        pytest.skip("needs --cuda-emulation")


def rows(*degrees: int, flip: bool = False) -> Graph:
    """A graph with these in-degrees, or out-degrees, some of them beyond a warp's share."""
    dst = torch.arange(len(degrees)).repeat_interleave(torch.tensor(degrees))
    generator = torch.Generator().manual_seed(len(dst))
    src = torch.randint(len(degrees), dst.shape, generator=generator)
    edges = torch.stack([dst, src] if flip else [src, dst])
    return Graph(edges[:, torch.randperm(len(dst), generator=generator)], num_nodes=len(degrees))


LONG = {
    f"{name}{' of sources' if flip else ''}": (degrees, flip)
    for name, degrees in {
        "one long row": (0, 600, 0, 1),
        "at the limit": (512, 511, 513),
        "two long rows": (1, 1024, 2, 1500),
    }.items()
    for flip in (False, True)
}
NAMES = [name for name in GRAPHS if name != "long_row"]


def graph_of(name: str) -> Graph:
    graph = rows(*LONG[name][0], flip=LONG[name][1]) if name in LONG else sample_graph(name)
    graph.transpose()  # torch builds it, whose memory is not checked here
    return graph


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory from torch is NaN, or the largest integer, until it is written."""
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def check(run: Callable[[], list[Tensor]], monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    found = {"in order": run()}
    for order in ("1", "2"):
        monkeypatch.setenv("GAT_EMULATION_ORDER", order)
        found[f"order {order}"] = run()
    monkeypatch.delenv("GAT_EMULATION_ORDER")
    with poisoned():
        found["poisoned"] = run()
    wanted = found.pop("in order")
    for how, tensors in found.items():
        for number, (ours, expected) in enumerate(zip(tensors, wanted, strict=True)):
            assert torch.equal(ours.isnan(), expected.isnan()), (case, how, number)
            assert torch.equal(ours.nan_to_num(), expected.nan_to_num()), (case, how, number)


@pytest.mark.one_in(19)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [*NAMES, *LONG])
@pytest.mark.parametrize("score", reference.SCORES)
def test_edge_attention(score, name, dtype, shape, monkeypatch):
    graph = graph_of(name)
    for option, inputs in sample_inputs(score, graph, *shape, dtype, requires_grad=True).items():

        def run(inputs=inputs):
            out, weights, lse = functional.edge_attention(
                graph, **inputs, return_weights=True, return_lse=True
            )
            finite = lse.float().masked_fill(lse == -torch.inf, 0)
            loss = out.float().square().sum() + weights.float().square().sum() + finite.sum()
            leaves = [t for t in inputs.values() if isinstance(t, Tensor) and t.requires_grad]
            return [out, weights, lse, *torch.autograd.grad(loss, leaves)]

        check(run, monkeypatch, option)


@pytest.mark.one_in(7)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [*NAMES, *LONG])
def test_sparse_operators(name, dtype, shape, monkeypatch):
    graph, (heads, channels) = graph_of(name), shape
    generator = torch.Generator().manual_seed(3)

    def leaf(*sizes):
        return torch.randn(sizes, generator=generator).to(dtype).requires_grad_()

    x, y = leaf(graph.num_dst, *shape), leaf(graph.num_src, heads, channels)
    of_edges = leaf(graph.num_edges, heads)
    calls = {
        "edge_softmax": (lambda s: functional.edge_softmax(graph, s), of_edges),
        "sddmm": (lambda x, y: functional.sddmm(graph, x, y), x, y),
    }
    for reduce in REDUCTIONS:
        calls[reduce] = (
            lambda y, w, reduce=reduce: functional.spmm(graph, y, w, reduce=reduce),
            *(y, of_edges),
        )
    for case, (function, *leaves) in calls.items():

        def run(function=function, leaves=leaves):
            out = function(*leaves)
            return [out, *torch.autograd.grad(out.float().square().sum(), leaves)]

        check(run, monkeypatch, case)


# ---- edges that a program sorts


def sorted_in_a_program(edges: Tensor) -> tuple[Tensor, ...]:
    csr: tuple[Tensor, ...] = ops.adjacency_csr(edges, None, None, 3, 3, True, True, True)
    return csr


def test_a_node_out_of_range_is_reported_at_the_next_call(monkeypatch):
    """The host does not wait for the device, and no kernel reads the edge."""
    monkeypatch.delenv("CUDA_LAUNCH_BLOCKING", raising=False)
    good = torch.tensor([[0, 1], [1, 2]])
    for bad in (torch.tensor([[0, 7, 1, 0], [1, 0, 2, -2]]), torch.tensor([[0, 1, 3], [1, 2, 1]])):
        found = sorted_in_a_program(bad)
        with pytest.raises(IndexError, match=r"edge_index\[\d\] contains (7|-2|3)"):
            sorted_in_a_program(good)
        wanted = sorted_in_a_program(good)
        for rows in (0, 3):  # of destinations, of sources
            assert torch.equal(found[rows], wanted[rows])
            read = int(found[rows][-1])
            assert torch.equal(found[rows + 1][:read], wanted[rows + 1][:read])
            assert all(int(t.min()) >= 0 and int(t.max()) < 3 for t in (found[1], found[4]))
