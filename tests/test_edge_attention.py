"""edge_attention against the reference: values, first and second derivatives, edge cases."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from attention_calls import leaves, raw_arguments
from torch.testing import assert_close

from gat_ext import Graph, functional, reference
from gat_ext.ops.arguments import (
    EdgeAttentionBackward,
    Inputs,
    Results,
    select,
)
from gat_ext.ops.registry import ops
from gat_ext.testing import (
    GRAPHS,
    devices,
    reference_inputs,
    sample_graph,
    sample_inputs,
    tolerance,
)

SCORES = tuple(reference.SCORES)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INDEX_DTYPES = (torch.int32, torch.int64)
F64 = torch.float64


def native_and_reference(inputs, graph, dtype):
    """(results, gradients) of both; the reference in float64 on the same rounded inputs."""
    generator = torch.Generator().manual_seed(1)
    sides = []
    truth = reference_inputs(graph, inputs, dtype=F64)
    upstream = None
    for function, arguments in ((functional, inputs), (reference, truth)):
        results = function.edge_attention(graph, **arguments, return_weights=True, return_lse=True)
        if upstream is None:
            upstream = [
                torch.randn(r.shape, generator=generator, dtype=F64).to(r.device, dtype)
                for r in results
            ]
            upstream[2] = upstream[2].masked_fill(results[2] == -torch.inf, 0)
        grads = torch.autograd.grad(
            [r if i < 2 else r.masked_fill(r == -torch.inf, 0) for i, r in enumerate(results)],
            list(leaves(arguments).values()),
            [u.to(r.dtype) for u, r in zip(upstream, results, strict=True)],
            allow_unused=True,
        )
        sides.append((results, dict(zip(leaves(arguments), grads, strict=True))))
    return sides


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("score", SCORES)
def test_values_and_gradients_equal_reference(score, name, dtype, device):
    graph = sample_graph(name, device)
    variants = sample_inputs(score, graph, heads=3, channels=5, dtype=dtype, requires_grad=True)
    if name == "long_row":
        variants = {k: variants[k] for k in ("plain", "everything")}
    bounds = tolerance(dtype)
    if name == "long_row" and dtype == torch.float32:
        bounds = {"rtol": 1e-4, "atol": 1e-4}  # sums of 12,000 terms
    for variant, inputs in variants.items():
        if dtype not in (F64, torch.float32) and ("top_k" in inputs or variant == "everything"):
            continue  # top_k may choose differently among scores that rounding makes equal
        (results, grads), (expected, truth) = native_and_reference(inputs, graph, dtype)
        for ours, theirs in zip(results, expected, strict=True):
            assert_close(ours.to(F64), theirs, **bounds, msg=lambda m, v=variant: f"{v}: {m}")
        for key, theirs in truth.items():
            ours = grads[key]
            assert (ours is None) == (theirs is None), (variant, key)
            if ours is None:
                continue
            scale = max(1.0, theirs.abs().max().item() if theirs.numel() else 1.0)
            assert_close(
                ours.to(F64) / scale,
                theirs / scale,
                **bounds,
                msg=lambda m, v=variant, k=key: f"{v} {k}: {m}",
            )


# Heads and channels: single elements, odd numbers, whole vectors, more than a warp of a GPU holds,
# more than it holds at once.
WIDTHS = ((1, 1), (1, 3), (2, 7), (3, 2), (8, 8), (1, 33), (1, 64), (2, 130), (1, 300), (1, 1100))


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", WIDTHS, ids=str)
@pytest.mark.parametrize("score", SCORES)
def test_any_number_of_heads_and_channels(score, width, dtype, device):
    graph = sample_graph("unsorted", device)
    variants = sample_inputs(score, graph, *width, dtype, requires_grad=True)
    bounds = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else tolerance(dtype)
    for variant in ("plain", "uneven", "edge_in_value", "edge_term"):
        if variant not in variants:
            continue
        inputs = variants[variant]
        for name in ("att",) if "att" in inputs else ("query",) if "query" in inputs else ():
            # logits of order one, whatever the width
            inputs[name] = (inputs[name].detach() / width[1] ** 0.5).requires_grad_()
        (results, grads), (expected, truth) = native_and_reference(inputs, graph, dtype)
        for ours, theirs in zip(results, expected, strict=True):
            assert_close(ours.to(F64), theirs, **bounds)
        for key in grads:
            scale = max(1.0, truth[key].abs().max().item())
            assert_close(grads[key].to(F64) / scale, truth[key] / scale, **bounds)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("offset", [1, 2, 4])
@pytest.mark.parametrize("score", SCORES)
def test_rows_may_start_anywhere_in_memory(score, offset, dtype, device):
    graph = sample_graph("unsorted", device)
    inputs = sample_inputs(score, graph, 2, 16, dtype, requires_grad=True)["bias"]
    moved = {}
    for name, tensor in inputs.items():
        moved[name] = tensor
        if isinstance(tensor, torch.Tensor):
            room = torch.empty(offset + tensor.numel(), dtype=tensor.dtype, device=device)
            moved[name] = room[offset:].view(tensor.shape).copy_(tensor.detach()).requires_grad_()
    out, same = (functional.edge_attention(graph, **given) for given in (inputs, moved))
    assert_close(out, same, **tolerance(dtype))
    for ours, theirs in zip(
        torch.autograd.grad(out.sin().sum(), leaves(inputs).values()),
        torch.autograd.grad(same.sin().sum(), leaves(moved).values()),
        strict=True,
    ):
        assert_close(ours, theirs, **tolerance(dtype))


# In-degrees around 512, from which on a GPU splits rows, so that parts start and end anywhere and
# exactly at a boundary.
LONG_ROWS = (
    (512, 513, 0, 511, 600, 3, 1024, 1025, 1),
    (100, 2000, 700, 0, 0, 512, 512, 1536),
    (1, 5000, 1),
)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("degrees", LONG_ROWS, ids=str)
@pytest.mark.parametrize("score", SCORES)
def test_long_rows_are_split_and_merged(score, degrees, device):
    dst = torch.arange(len(degrees)).repeat_interleave(torch.tensor(degrees))
    src = torch.randint(7, dst.shape, generator=torch.Generator().manual_seed(0))
    for edges in (
        torch.stack([src, dst]),
        torch.stack([dst, src]),
    ):  # long rows for the source pass, too
        graph = Graph(edges.to(device), num_src=10, num_dst=10)
        inputs = sample_inputs(score, graph, 3, 2, F64, requires_grad=True)
        for variant in ("plain", "everything"):
            (results, grads), (expected, truth) = native_and_reference(inputs[variant], graph, F64)
            for ours, theirs in zip(results, expected, strict=True):
                assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
            for key in grads:
                assert_close(grads[key], truth[key], rtol=1e-9, atol=1e-10)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("name", ["unsorted", "isolated", "more_sources"])
def test_gradcheck_and_gradgradcheck(score, name):
    graph = sample_graph(name)
    for variant, inputs in sample_inputs(
        score, graph, heads=2, channels=2, requires_grad=True
    ).items():
        if variant == "masked":  # -inf has no finite differences
            continue
        tensors = leaves(inputs)
        fixed = {k: v for k, v in inputs.items() if k not in tensors}

        def call(*values, tensors=tensors, fixed=fixed):
            given = dict(zip(tensors, values, strict=True))
            return functional.edge_attention(graph, **given, **fixed, return_weights=True)

        assert torch.autograd.gradcheck(call, tuple(tensors.values()), fast_mode=True), variant
        assert torch.autograd.gradgradcheck(call, tuple(tensors.values()), fast_mode=True), variant


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("score", SCORES)
def test_opcheck(score, device):
    graph = sample_graph("unsorted", device)
    variants = sample_inputs(
        score, graph, heads=2, channels=3, dtype=torch.float32, requires_grad=True
    )
    for variant in ("plain", "everything"):
        given = raw_arguments(variants[variant], graph)
        torch.library.opcheck(ops.edge_attention.default, tuple(given))
    inputs = {
        k: v.detach() if isinstance(v, torch.Tensor) else v
        for k, v in variants["everything"].items()
    }
    arguments = raw_arguments(inputs, graph)
    results = Results(*ops.edge_attention(*arguments))
    gradient = select(EdgeAttentionBackward, arguments)._replace(
        **dict(grad_out=torch.ones_like(results.out), out_acc=results.out),
        **dict(softmax=results.softmax, selected=results.selected, weights=results.weights),
        needs_grad=[True] * len(Inputs._fields),
    )
    torch.library.opcheck(
        ops.edge_attention_backward.default,
        tuple(gradient),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES, ids=str)
@pytest.mark.parametrize("score", SCORES)
def test_index_width_does_not_matter(score, index_dtype):
    graph, other = sample_graph("unsorted"), sample_graph("unsorted", index_dtype=index_dtype)
    assert other.col.dtype == index_dtype
    inputs = sample_inputs(score, graph, requires_grad=True)["everything"]
    first = functional.edge_attention(graph, **inputs)
    second = functional.edge_attention(other, **inputs)
    assert torch.equal(first, second)
    for a, b in zip(
        torch.autograd.grad(first.sum(), leaves(inputs).values()),
        torch.autograd.grad(second.sum(), leaves(inputs).values()),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["long_row", "unsorted"])
@pytest.mark.parametrize("score", SCORES)
def test_bitwise_identical_for_any_number_of_threads_and_runs(score, name):
    graph = sample_graph(name)
    inputs = sample_inputs(
        score, graph, heads=2, channels=6, dtype=torch.float32, requires_grad=True
    )["everything"]
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 3, 2, 1):
            torch.set_num_threads(threads)
            out = functional.edge_attention(graph, **inputs)
            runs.append((out, *torch.autograd.grad(out.square().sum(), leaves(inputs).values())))
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_narrower_instruction_sets_agree(isa, tmp_path):
    script = (
        "import torch, gat_ext; from gat_ext.testing import *\n"
        "from gat_ext import functional, reference\n"
        "graph = sample_graph('unsorted')\n"
        "for score in reference.SCORES:\n"
        "    cases = sample_inputs(score, graph, 3, 13, torch.float32, requires_grad=True)\n"
        "    inputs = cases['bias']\n"
        "    out = functional.edge_attention(graph, **inputs)\n"
        "    expected = reference.edge_attention(graph, **inputs)\n"
        "    torch.testing.assert_close(out, expected)\n"
        "    for a, b in zip(*(torch.autograd.grad(o.sin().sum(), [v for v in inputs.values()"
        " if isinstance(v, torch.Tensor)]) for o in (out, expected))):\n"
        "        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)\n"
        "print(gat_ext._C.isa())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={"GAT_EXT_ISA": isa, "PYTHONPATH": ":".join(filter(None, sys.path))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() in (isa, "baseline")  # a machine without avx2 falls back


@pytest.mark.parametrize("score", SCORES)
def test_a_part_of_a_graph_draws_the_dropout_of_the_graph(score):
    """The edges of some destinations, with their numbers, have the weights that they have there."""
    graph = sample_graph("unsorted")
    inputs = sample_inputs(score, graph)["everything"]
    inputs |= {"dropout_p": 0.4, "seed": torch.tensor([5]), "top_k": None}
    dst = graph.edge_index[1]
    kept = (dst % 2 == 1).nonzero().flatten()
    part = Graph(graph.edge_index[:, kept], num_src=graph.num_src, num_dst=graph.num_dst)
    part = part._numbered(kept)
    per_edge = ("edge_term", "bias", "edge_feat", "edge_attr", "edge_mask")
    given = {k: v[kept] if k in per_edge and v is not None else v for k, v in inputs.items()}
    results = []
    for each, arguments in ((graph, inputs), (part, given)):
        arguments = {
            k: v.detach().requires_grad_() if torch.is_tensor(v) and v.is_floating_point() else v
            for k, v in arguments.items()
        }
        out, weights = functional.edge_attention(each, return_weights=True, **arguments)
        chosen = out[torch.arange(graph.num_dst) % 2 == 1]
        value = arguments["value"]
        (grad,) = torch.autograd.grad(chosen.square().sum(), value, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), value)
        results.append((chosen, weights, grad, second))
    (out, weights, *grads), (part_out, part_weights, *part_grads) = results
    assert_close(part_weights, weights[kept])
    assert (part_weights == 0).any()
    assert_close(part_out, out)
    for found, wanted in zip(part_grads, grads, strict=True):
        assert_close(found, wanted, **tolerance(found.dtype))
