"""edge_attention on unusual inputs: edge cases, autocast, memory, shared tensors, errors."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from attention_calls import leaves, raw_arguments
from torch.testing import assert_close

from gat_ext import Graph, functional, reference
from gat_ext.ops.registry import ops
from gat_ext.testing import (
    SMALL_GRAPHS,
    complete_graph,
    devices,
    reference_inputs,
    sample_graph,
    sample_inputs,
    tolerance,
)

SCORES = tuple(reference.SCORES)
F64 = torch.float64


# ---- edge cases


@pytest.mark.parametrize("score", SCORES)
def test_large_logits_are_finite(score):
    graph = sample_graph("unsorted")
    inputs = sample_inputs(score, graph, dtype=torch.float32)["bias"]
    for shift in (1e4, -1e4):
        shifted = inputs | {"bias": inputs["bias"] + shift}
        out, lse = functional.edge_attention(graph, **shifted, return_lse=True)
        expected, expected_lse = reference.edge_attention(
            graph, **reference_inputs(graph, shifted, dtype=F64), return_lse=True
        )
        assert out.isfinite().all()
        assert_close(
            out.to(F64), expected, rtol=1e-2, atol=1e-2
        )  # at 1e4, three digits remain in float32
        assert_close(lse.to(F64), expected_lse, rtol=1e-6, atol=0)


def scores_to_select_from(kind, count, dtype):
    generator = torch.Generator().manual_seed(count)
    scores = torch.randn(count, 2, generator=generator, dtype=dtype)
    if kind == "close":
        return 1 + 1e-5 * scores
    if kind == "equal":
        return scores.round()
    special = torch.tensor(
        [torch.nan, -torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0], dtype=dtype
    )
    return (
        special[torch.randint(7, (count, 2), generator=generator)] if kind == "special" else scores
    )


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("kind", ["random", "close", "equal", "special"])
def test_top_k_of_long_and_short_rows(kind, dtype, device):
    """NaN is above any number, and the first of equal scores is selected."""
    degrees = torch.tensor([0, 1, 31, 32, 33, 255, 256, 257, 511, 512, 513, 1, 1100])
    dst = torch.arange(len(degrees)).repeat_interleave(degrees)
    graph = Graph(torch.stack([dst % 3, dst]), num_nodes=len(degrees)).to(device)
    bias = scores_to_select_from(kind, len(dst), dtype)
    zeros = torch.zeros(len(degrees), 2, 1, dtype=dtype, device=device)
    inputs = {"score": "dot", "value": zeros, "query": zeros, "key": zeros}
    for top_k in (1, 5, 32, 300):
        call = raw_arguments(inputs | {"bias": bias.to(device), "top_k": top_k}, graph)
        selected = ops.edge_attention(*call)[4].cpu()
        for row, scores in enumerate(bias.split(degrees.tolist())):
            known = scores.nan_to_num(1e9, 1e8, -1e8)
            order = known.sort(dim=0, descending=True, stable=True).indices
            expected = torch.zeros(scores.shape, dtype=torch.uint8).scatter(0, order[:top_k], 1)
            assert torch.equal(selected[dst == row], expected), (top_k, row)


@pytest.mark.parametrize("score", SCORES)
def test_nan_reaches_only_its_neighbours(score):
    graph = sample_graph("path")
    inputs = sample_inputs(score, graph, dtype=torch.float32)["plain"]
    name = "key" if "key" in inputs else "src_term"
    poisoned = inputs[name].clone()
    poisoned[2] = torch.nan
    out = functional.edge_attention(graph, **(inputs | {name: poisoned}))
    assert out[3].isnan().all()
    others = torch.tensor([0, 1, 2, 4, 5])
    assert torch.equal(out[others], functional.edge_attention(graph, **inputs)[others])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("score", SCORES)
def test_identical_messages_send_no_gradient_to_scores(score, dtype):
    graph = sample_graph("complete")
    inputs = sample_inputs(score, graph, 2, 8, dtype, requires_grad=True)["plain"]
    message = torch.linspace(-1.3, 1.7, 8).to(dtype).expand(graph.num_src, 2, 8).clone()
    out = functional.edge_attention(graph, **(inputs | {"value": message}))
    names = [n for n in leaves(inputs) if n != "value"]
    grads = torch.autograd.grad(out, [inputs[n] for n in names], torch.ones_like(out) * 3)
    for name, grad in zip(names, grads, strict=True):
        assert grad.abs().max() < 1e-4, name


def test_equal_scores_average():
    graph = sample_graph("star")
    value = torch.randn(graph.num_src, 2, 3)
    zeros = torch.zeros(graph.num_dst, 2)
    out = functional.gat_attention(graph, value, zeros, zeros)
    assert_close(out, functional.spmm(graph, value, reduce="mean"))


def test_complete_graph_is_dense_attention():
    graph = complete_graph(7)
    q, k, v = (torch.randn(7, 2, 4, dtype=F64) for _ in range(3))
    dense = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(0, 1) for t in (q, k, v))
    )
    assert_close(functional.dot_attention(graph, q, k, v), dense.transpose(0, 1))


@pytest.mark.parametrize("score", SCORES)
def test_empty_rows(score):
    graph = sample_graph("isolated")
    inputs = sample_inputs(score, graph, requires_grad=True)["masked"]
    out, lse = functional.edge_attention(graph, **inputs, return_lse=True)
    empty = graph.in_degrees() == 0
    assert empty.any() and (out[empty] == 0).all() and (lse[empty] == -torch.inf).all()
    for grad in torch.autograd.grad(out.sum(), leaves(inputs).values()):
        assert grad.isfinite().all()


def test_non_contiguous_inputs():
    graph = sample_graph("unsorted")
    inputs = sample_inputs("dot", graph)["bias"]
    strided = {
        k: v.transpose(0, 1).contiguous().transpose(0, 1) if isinstance(v, torch.Tensor) else v
        for k, v in inputs.items()
    }
    assert not strided["value"].is_contiguous()
    assert torch.equal(
        functional.edge_attention(graph, **strided), functional.edge_attention(graph, **inputs)
    )


def test_dropout_statistics_and_seed():
    graph = complete_graph(60)
    value, zeros = torch.ones(60, 3, 1), torch.zeros(60, 3)

    def weights(seed, p=0.25):
        seed = None if seed is None else torch.tensor([seed])
        return functional.gat_attention(
            graph, value, zeros, zeros, dropout_p=p, seed=seed, return_weights=True
        )[1]

    kept = (weights(1) > 0).double()
    assert abs(kept.mean().item() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / kept.numel())
    assert_close(weights(1).max().item(), 1 / 60 / 0.75)
    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))
    torch.manual_seed(3)
    first = weights(None)
    torch.manual_seed(3)
    assert torch.equal(first, weights(None)) and not torch.equal(first, weights(None))
    correlation = torch.corrcoef(kept.t())
    assert (correlation - torch.eye(3)).abs().max() < 5 / math.sqrt(
        3600
    )  # heads draw independently
    assert (weights(1, p=1.0) == 0).all()


def test_named_functions_equal_reference():
    graph = sample_graph("more_sources")
    q, k, v = (
        torch.randn(n, 2, 4, dtype=F64) for n in (graph.num_dst, graph.num_src, graph.num_src)
    )
    e, att = torch.randn(graph.num_edges, 2, 4, dtype=F64), torch.randn(2, 4, dtype=F64)
    for module in (functional, reference):
        assert module.edge_attention is not None
    pairs = [
        [
            m.gat_attention(graph, v, q[..., 0], k[..., 0], edge_term=e[..., 0])
            for m in (functional, reference)
        ],
        [
            m.gatv2_attention(graph, q, k, att, edge_feat=e, negative_slope=0.1)
            for m in (functional, reference)
        ],
        [m.dot_attention(graph, q, k, v, edge_feat=e) for m in (functional, reference)],
        [
            m.cosine_attention(graph, q, k, v, beta=torch.tensor([2.0, -1.0], dtype=F64))
            for m in (functional, reference)
        ],
    ]
    for ours, theirs in pairs:
        assert_close(ours, theirs)


def test_cosine_of_the_zero_vector():
    graph = sample_graph("complete")
    x = torch.randn(5, 1, 3)
    x[2] = 0
    x.requires_grad_()
    out = functional.cosine_attention(graph, x)
    assert_close(out, reference.cosine_attention(graph, x))
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.isfinite().all()


# ---- autocast and memory


@pytest.mark.parametrize("score", SCORES)
def test_autocast(score):
    graph = sample_graph("unsorted")
    inputs = sample_inputs(score, graph, dtype=torch.float32, requires_grad=True)["bias"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, lse = functional.edge_attention(graph, **inputs, return_lse=True)
    assert out.dtype == torch.bfloat16 and lse.dtype == torch.float32
    exact = functional.edge_attention(graph, **inputs)
    assert_close(out.float(), exact, rtol=5e-2, atol=5e-2)
    for grad in torch.autograd.grad(out.float().sum(), leaves(inputs).values()):
        assert grad.dtype == torch.float32 and grad.isfinite().all()


MEMORY = """
import json, resource, sys, torch
from gat_ext import Graph, functional
from gat_ext.reference import SCORES, score_inputs
torch.set_num_threads(1)
graph = Graph(torch.randint(400, (2, 120_000), generator=torch.Generator().manual_seed(0)))
graph.transpose()
def step(score, channels):
    shapes = dict.fromkeys(("query", "key"), (400, 2, channels)) | {"att": (2, channels)}
    inputs = {
        name: torch.randn(shapes.get(name, (400, 2)), requires_grad=True)
        for name in score_inputs(score)
    }
    value = torch.randn(400, 2, channels, requires_grad=True)
    out, _ = functional.edge_attention(graph, value, score=score, **inputs, return_weights=True)
    out.sum().backward()
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
grown = {}
for score in SCORES:
    step(score, 64)
    before = peak()
    step(score, 128)
    grown[score] = peak() - before
print(json.dumps(grown))
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """By how much the peak of a process grows with the channels, in bytes, of each score."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        cwd=tmp_path_factory.mktemp("memory"),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("score", SCORES)
def test_memory_does_not_grow_with_edges_times_channels(score, grown):
    # Node tensors of 400·2·128 floats are 0.4 MB each; one [E, H, F] of these 120,000 edges would
    # be 123 MB at F = 128.
    one_edge_tensor = 120_000 * 2 * 64 * 4
    assert grown[score] < 0.2 * one_edge_tensor


# ---- errors

GRAPH = sample_graph("unsorted")
GOOD = sample_inputs("dot", GRAPH, heads=2, channels=4, dtype=torch.float32)["plain"]
BAD = [
    ({"score": "dott"}, ValueError, "'dot'"),
    ({"score": "cosine"}, ValueError, "dst_term is None"),
    ({"att": torch.ones(2, 4)}, ValueError, "att was given, but"),
    ({"query": None}, ValueError, "query is None"),
    ({"value": torch.ones(8, 2)}, ValueError, r"\[8, H, F\]"),
    ({"value": torch.ones(7, 2, 4)}, ValueError, "num_src = 8"),
    ({"value": torch.ones(8, 2, 4, dtype=torch.int64)}, TypeError, "int64"),
    ({"value": "x"}, TypeError, "str"),
    ({"key": torch.ones(8, 2, 3)}, ValueError, r"\[8, 2, 4\]"),
    ({"key": torch.ones(8, 2, 4, dtype=F64)}, TypeError, "float64"),
    ({"bias": torch.ones(3, 2)}, ValueError, r"\[24, 2\]"),
    ({"edge_in_value": True}, ValueError, "edge_feat was not given"),
    ({"dropout_p": 1.5}, ValueError, "from 0 to 1"),
    ({"dropout_p": 0.5, "seed": torch.tensor([1.0])}, TypeError, "int64"),
    ({"top_k": 0}, ValueError, "at least 1"),
    ({"top_k": 1.5}, ValueError, "at least 1"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD, ids=lambda v: str(v)[:40])
def test_bad_input_is_refused(change, error, words):
    with pytest.raises(error, match=words):
        functional.edge_attention(GRAPH, **(GOOD | change))


@pytest.mark.parametrize("name", SMALL_GRAPHS)
def test_operators_refuse_wrong_shapes_when_called_directly(name):
    graph = sample_graph(name)
    inputs = sample_inputs("dot", graph)["plain"]
    with pytest.raises(ValueError, match="key has shape"):
        ops.edge_attention(*raw_arguments(inputs | {"key": torch.ones(99, 2, 4, dtype=F64)}, graph))


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("score", SCORES)
def test_inputs_that_a_score_does_not_read_are_refused(score, device):
    """Both the operator, on every device, and the function raise."""
    graph = sample_graph("unsorted", device)
    inputs = sample_inputs(score, graph, 2, 3)["plain"]
    reads = reference.score_inputs(score)
    shapes = {"query": (8, 2, 3), "key": (8, 2, 3), "att": (2, 3), "dst_term": (8, 2)}
    shapes |= {"src_term": (8, 2), "edge_term": (24, 2), "edge_feat": (24, 2, 3)}
    adds_to = {"edge_term": "src_term", "edge_feat": "key"}
    for name, shape in shapes.items():
        more = inputs | {name: torch.ones(shape, dtype=F64, device=device)}
        if adds_to.get(name, name) in reads:
            functional.edge_attention(graph, **more)
            ops.edge_attention(*raw_arguments(more, graph))
            continue
        with pytest.raises(ValueError, match=f"does not use {name}"):
            ops.edge_attention(*raw_arguments(more, graph))
        with pytest.raises(ValueError, match=f"{name} was given, but"):
            functional.edge_attention(graph, **more)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shared", ["query", "key", "both"])
@pytest.mark.parametrize("score", [s for s in SCORES if "query" in reference.score_inputs(s)])
def test_gradients_of_a_query_or_key_that_is_the_value(score, shared, dtype, device):
    """A tensor passed as several arguments gets the sum of its copies' gradients."""
    graph = sample_graph("unsorted", device)
    inputs = sample_inputs(score, graph, 2, 7, dtype, requires_grad=True)["plain"]
    names = ["value", *(["query", "key"] if shared == "both" else [shared])]

    def run(one):
        same = inputs["value"].detach().clone().requires_grad_()
        copies = [same if one else same.detach().clone().requires_grad_() for _ in names]
        out = functional.edge_attention(
            graph, **{**inputs, **dict(zip(names, copies, strict=True))}
        )
        others = [t for n, t in inputs.items() if isinstance(t, torch.Tensor) and n not in names]
        grads = torch.autograd.grad(out.square().sum(), [*dict.fromkeys(copies), *others])
        first = len(dict.fromkeys(copies))
        return out, sum(grads[:first]), grads[first:]

    assert_close(run(True), run(False), **tolerance(dtype))
