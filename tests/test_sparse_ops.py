"""The unfused operators: values, gradients and second gradients against the reference."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from gat_ext import Graph, functional, reference
from gat_ext.ops.registry import ops
from gat_ext.testing import GRAPHS, SMALL_GRAPHS, devices, sample_graph, tolerance

F64 = torch.float64
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
REDUCTIONS = ("sum", "mean", "max", "min")


def draw(shape, dtype, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64).to(device, dtype).requires_grad_()


def calls(graph, dtype, device, heads=2, channels=5):
    """Each operator with its options: name → (function of a module and tensors, tensors)."""
    x = draw((graph.num_dst, heads, channels), dtype, device, 1)
    y = draw((graph.num_src, heads, channels), dtype, device, 2)
    scores = draw((graph.num_edges, heads), dtype, device, 3)
    table = {
        f"edge_softmax by {by}": (lambda m, s, by=by: m.edge_softmax(graph, s, by=by), (scores,))
        for by in ("dst", "src")
    }
    table["edge_softmax of a vector"] = (
        lambda m, s: m.edge_softmax(graph, s),
        (scores.detach()[:, 0].clone().requires_grad_(),),
    )
    table["sddmm"] = (lambda m, a, b: m.sddmm(graph, a, b), (x, y))
    for reduce in REDUCTIONS:
        table[f"spmm {reduce}"] = (lambda m, b, r=reduce: m.spmm(graph, b, reduce=r), (y,))
        table[f"spmm {reduce} weighted"] = (
            lambda m, b, w, r=reduce: m.spmm(graph, b, w, reduce=r),
            (y, scores),
        )
    shared = draw((graph.num_edges, 3), dtype, device, 4)
    table["edge_dot"] = (
        lambda m, a, e: m.edge_dot(graph, a, e),
        (draw((graph.num_dst, heads, 3), dtype, device, 5), shared),
    )
    table["edge_sum"] = (lambda m, w, e: m.edge_sum(graph, w, e), (scores, shared))
    table["spmm of a matrix"] = (
        lambda m, b: m.spmm(graph, b),
        (y.detach()[:, 0].clone().requires_grad_(),),
    )
    return table


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", GRAPHS)
def test_values_and_gradients_equal_reference(name, dtype, device):
    graph = sample_graph(name, device)
    bounds = tolerance(dtype)
    for what, (function, tensors) in calls(graph, dtype, device).items():
        ours = function(functional, *tensors)
        exact = [t.detach().to(F64).requires_grad_() for t in tensors]
        theirs = function(reference, *exact)
        scale = max(1.0, theirs.abs().max().item() if theirs.numel() else 1.0)
        assert ours.dtype == dtype
        assert_close(
            ours.to(F64) / scale, theirs / scale, **bounds, msg=lambda m, w=what: f"{w}: {m}"
        )
        upstream = draw(theirs.shape, dtype, device, 9).detach()
        grads = torch.autograd.grad(ours, tensors, upstream)
        for a, b in zip(grads, torch.autograd.grad(theirs, exact, upstream.to(F64)), strict=True):
            if (
                name == "multi_edges"
                and ("max" in what or "min" in what)
                and "weighted" not in what
            ):
                continue  # of equal values, each implementation may choose another for the gradient
            if dtype in (torch.bfloat16, torch.float16) and (
                "max" in what or "min" in what or "softmax" in what
            ):
                continue  # winners may differ after rounding; the softmax is saved rounded
            scale = max(1.0, b.abs().max().item() if b.numel() else 1.0)
            loose = {k: v * 10 for k, v in bounds.items()} if name == "long_row" else bounds
            assert_close(
                a.to(F64) / scale, b / scale, **loose, msg=lambda m, w=what: f"grad of {w}: {m}"
            )


@pytest.mark.parametrize("name", SMALL_GRAPHS)
def test_gradcheck_and_gradgradcheck(name):
    graph = sample_graph(name)
    if graph.num_edges == 0:
        pytest.skip("finite differences need an edge; values and gradients are compared above")
    for what, (function, tensors) in calls(graph, F64, "cpu", heads=2, channels=2).items():

        def call(*values, function=function):
            return function(functional, *values)

        assert torch.autograd.gradcheck(call, tensors, check_batched_grad=True, fast_mode=True), (
            what
        )
        assert torch.autograd.gradgradcheck(call, tensors, fast_mode=True), what


@pytest.mark.parametrize("device", devices())
def test_opcheck(device):
    graph = sample_graph("unsorted", device)
    t = graph.transpose()
    x, y = (draw((8, 2, 3), torch.float32, device, i) for i in (1, 2))
    scores = draw((graph.num_edges, 2), torch.float32, device)
    csr = (graph.rowptr, graph.col, graph.edge_id, t.rowptr, t.col, t.edge_id)
    check = torch.library.opcheck
    check(ops.edge_softmax.default, (graph.rowptr, graph.edge_id, scores))
    check(
        ops.edge_softmax_backward.default,
        (graph.rowptr, graph.edge_id, scores, scores.detach().exp().requires_grad_()),
    )
    check(ops.sddmm.default, (*csr, x, y))
    check(ops.spmm.default, (*csr, scores, y))
    check(ops.spmm.default, (*csr, None, y))
    check(ops.spmm_extremum.default, (*csr, scores, y, True))
    _, arg = ops.spmm_extremum(*csr, scores, y, True)
    check(ops.spmm_extremum_backward.default, (*csr, scores, x, arg))
    check(ops.winner_sum.default, (graph.rowptr, graph.edge_id, graph.num_edges, x, arg))
    check(ops.winner_weights.default, (graph.rowptr, graph.edge_id, scores, arg))
    check(ops.winner_features.default, (*csr, y, arg))
    shared = draw((graph.num_edges, 3), torch.float32, device, 4)
    check(ops.edge_dot.default, (graph.rowptr, graph.edge_id, x, shared))
    check(ops.edge_sum.default, (graph.rowptr, graph.edge_id, scores, shared))
    check(ops.edge_dropout_mask.default, (torch.tensor([4], device=device), 7, 3, 0.4))


def test_bitwise_identical_for_any_number_of_threads():
    graph = sample_graph("long_row")
    table = calls(graph, torch.float32, "cpu")
    before = torch.get_num_threads()
    try:
        for function, tensors in table.values():
            runs = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                out = function(functional, *tensors)
                runs.append((out, *torch.autograd.grad(out.square().sum(), tensors)))
            for other in runs[1:]:
                assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))
    finally:
        torch.set_num_threads(before)


def test_softmax_edge_cases():
    graph = Graph(torch.tensor([[0, 1, 2, 0], [1, 1, 2, 2]]), num_nodes=3)
    inf = torch.inf
    alpha = functional.edge_softmax(graph, torch.tensor([-inf, -inf, 1e4, -1e4]))
    assert torch.equal(alpha, torch.tensor([0.0, 0.0, 1.0, 0.0]))
    alpha = functional.edge_softmax(graph, torch.tensor([torch.nan, 0.0, 0.0, 0.0]))
    assert alpha[:2].isnan().all() and torch.equal(alpha[2:], torch.tensor([0.5, 0.5]))


def test_extremum_edge_cases():
    graph = Graph(torch.tensor([[0, 1, 0, 2], [0, 0, 0, 2]]), num_nodes=3)
    x = torch.tensor([[1.0], [1.0], [torch.nan]], requires_grad=True)
    out = functional.spmm(graph, x, reduce="max")
    assert out[0] == 1 and out[1] == 0 and out[2].isnan()
    (grad,) = torch.autograd.grad(out[0].sum(), x)
    assert torch.equal(grad.flatten(), torch.tensor([1.0, 0.0, 0.0]))  # only the first edge


def test_sums_of_16_bit_winners_are_rounded_once():
    """Added one after the other in bfloat16, ones stop at 256."""
    graph = Graph(torch.tensor([[0, 1], [0, 0]]), num_nodes=2)
    x = torch.stack([torch.ones(1000), torch.zeros(1000)]).bfloat16()
    weight = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    out = functional.spmm(graph, x, weight, reduce="max")
    (grad,) = torch.autograd.grad(out, weight, torch.ones_like(out))
    assert torch.equal(grad, torch.tensor([1000.0, 0.0]).bfloat16())


ATOMIC = {"index_add", "index_put", "_index_put_impl", "scatter_add", "scatter_reduce"}


def test_second_derivatives_of_meta_tensors():
    graph = sample_graph("unsorted")
    rowptr, edge_id = graph.rowptr.to("meta"), graph.edge_id.to("meta")
    scores = torch.empty(graph.num_edges, 2, device="meta", requires_grad=True)
    alpha = ops.edge_softmax(rowptr, edge_id, scores)
    (first,) = torch.autograd.grad(alpha.square().sum(), scores, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), scores)
    assert second.shape == scores.shape


class Recorded(TorchDispatchMode):
    """The names of torch's operators that are called, without the mark of those in place."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name().removeprefix("aten::").split(".")[0].rstrip("_"))
        return func(*args, **(kwargs or {}))


def test_gradients_of_any_order_add_without_atomics():
    """On a GPU torch's operators that add to rows do so in a random order."""
    for what, (function, tensors) in calls(sample_graph("unsorted"), F64, "cpu").items():
        with Recorded() as recorded:
            out = function(functional, *tensors)
            for _ in range(3):
                grads = torch.autograd.grad(
                    out.sin().sum(), tensors, create_graph=True, allow_unused=True
                )
                out = torch.cat([g.flatten() for g in grads if g is not None])
        assert "sin" in recorded.names and not recorded.names & ATOMIC, what


def test_one_weight_for_all_heads():
    graph = sample_graph("unsorted")
    x = draw((8, 3, 2), F64, "cpu")
    weight = draw((graph.num_edges,), F64, "cpu", 1)
    assert_close(
        functional.spmm(graph, x, weight),
        functional.spmm(graph, x, weight.unsqueeze(1).repeat(1, 3)),
    )


def test_autocast():
    graph = sample_graph("unsorted")
    x, scores = (
        draw((8, 2, 4), torch.float32, "cpu"),
        draw((graph.num_edges, 2), torch.float32, "cpu"),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert functional.spmm(graph, x, scores).dtype == torch.bfloat16
        assert functional.spmm(graph, x, reduce="max").dtype == torch.bfloat16
        assert functional.sddmm(graph, x, x.bfloat16()).dtype == torch.bfloat16
        assert functional.edge_softmax(graph, scores.bfloat16()).dtype == torch.float32
        shared = torch.ones(graph.num_edges, 4)
        assert functional.edge_dot(graph, x, shared).dtype == torch.bfloat16
        assert functional.edge_sum(graph, scores, shared.bfloat16()).dtype == torch.bfloat16


GRAPH = sample_graph("more_sources")  # 9 sources, 4 destinations, 17 edges
BAD = [
    (lambda: functional.edge_softmax(GRAPH, torch.ones(16, 2)), ValueError, "17 edges"),
    (
        lambda: functional.edge_softmax(GRAPH, torch.ones(17, 2), by="row"),
        ValueError,
        "'dst', 'src'",
    ),
    (
        lambda: functional.edge_softmax(GRAPH, torch.ones(17, 2, dtype=torch.int32)),
        TypeError,
        "int32",
    ),
    (
        lambda: functional.sddmm(GRAPH, torch.ones(9, 2), torch.ones(4, 2)),
        ValueError,
        "num_dst = 4",
    ),
    (
        lambda: functional.sddmm(GRAPH, torch.ones(4, 2), torch.ones(9, 3)),
        ValueError,
        "except the first",
    ),
    (
        lambda: functional.sddmm(GRAPH, torch.ones(4, 2), torch.ones(9, 2, dtype=F64)),
        TypeError,
        "cast",
    ),
    (lambda: functional.spmm(GRAPH, torch.ones(4, 2)), ValueError, "num_src = 9"),
    (
        lambda: functional.spmm(GRAPH, torch.ones(9, 2), reduce="prod"),
        ValueError,
        "'sum', 'mean', 'max', 'min'",
    ),
    (lambda: functional.spmm(GRAPH, torch.ones(9, 3, 2), torch.ones(17, 2)), ValueError, "2 heads"),
    (lambda: functional.spmm(GRAPH, torch.ones(9, 2).to_sparse()), TypeError, "layout"),
    (
        lambda: functional.edge_dot(GRAPH, torch.ones(4, 2, 3), torch.ones(17, 4)),
        ValueError,
        r"edge_attr has shape \[17, 4\]; expected \[17, 3\]",
    ),
    (
        lambda: functional.edge_dot(GRAPH, torch.ones(4, 3), torch.ones(17, 3)),
        ValueError,
        r"query has shape \[4, 3\]; expected \[N_dst, H, K\]",
    ),
    (
        lambda: functional.edge_sum(GRAPH, torch.ones(17), torch.ones(17, 3)),
        ValueError,
        r"weight has shape \[17\]",
    ),
    (
        lambda: functional.edge_sum(GRAPH, torch.ones(17, 2), torch.ones(16, 3)),
        ValueError,
        "17 edges",
    ),
    (
        lambda: functional.edge_sum(GRAPH, torch.ones(17, 2), torch.ones(17, 3, dtype=F64)),
        TypeError,
        "cast",
    ),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_refused(case):
    call, error, words = BAD[case]
    with pytest.raises(error, match=words):
        call()
