"""Tests that need a GPU: CUDA graphs, streams, agreement with the CPU, errors across devices."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from gat_ext import _C, Graph, functional, models, nn, reference
from gat_ext.ops.registry import ops
from gat_ext.testing import sample_graph, sample_inputs

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and _C.build_info()["cuda"]),
    reason="needs a GPU and a build with CUDA",
)
SCORES = tuple(reference.SCORES)


def leaves(inputs):
    return [v for v in inputs.values() if isinstance(v, torch.Tensor) and v.requires_grad]


def random_graph(nodes, edges, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(nodes, (2, edges), generator=generator)


@pytest.mark.parametrize("score", SCORES)
def test_cuda_graphs_read_new_inputs_and_a_new_seed(score):
    graph = Graph(random_graph(200, 3000).cuda(), num_nodes=200)
    graph.transpose()
    inputs = sample_inputs(score, graph, 2, 16, torch.float32, requires_grad=True)["dropout"]

    def run():
        out = functional.edge_attention(graph, **inputs)
        return (out, *torch.autograd.grad(out.square().sum(), leaves(inputs)))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording):
        recorded = run()
    for seed in (1, 2):
        with torch.no_grad():
            inputs["seed"].fill_(seed)
            inputs["value"].normal_()
        recording.replay()
        for ours, eager in zip(recorded, run(), strict=True):
            assert torch.equal(ours, eager)


@pytest.mark.parametrize("score", SCORES)
def test_every_run_is_bitwise_identical(score):
    edges = random_graph(300, 20_000)
    edges[1, :9_000] = 7  # a row that kernels split
    graph = Graph(edges.cuda(), num_nodes=300)
    inputs = sample_inputs(score, graph, 3, 9, torch.float32, requires_grad=True)["everything"]
    runs = []
    for _ in range(10):
        out = functional.edge_attention(graph, **inputs)
        runs.append((out, *torch.autograd.grad(out.square().sum(), leaves(inputs))))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_dropout_draws_what_the_cpu_draws():
    seed = torch.tensor([2**40 + 5])
    mask = ops.edge_dropout_mask(seed, 1000, 7, 0.4)
    assert torch.equal(mask, ops.edge_dropout_mask(seed.cuda(), 1000, 7, 0.4).cpu())


@pytest.mark.parametrize("name", models.available())
def test_models_agree_with_the_cpu(name):
    torch.manual_seed(0)
    model = models.build(name)(12, 8, 5)
    x, edges = torch.randn(60, 12), random_graph(60, 400)
    model.eval()
    out = model(x, edges)
    out.square().sum().backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model = model.cuda()
    model.zero_grad()
    on_gpu = model(x.cuda(), edges.cuda())
    on_gpu.square().sum().backward()
    assert_close(on_gpu.cpu(), out, rtol=1e-4, atol=1e-5)
    for parameter, theirs in zip(model.parameters(), grads, strict=True):
        scale = max(1.0, theirs.abs().max().item())
        assert_close(parameter.grad.cpu() / scale, theirs / scale, rtol=1e-3, atol=1e-4)


def test_results_are_ordered_on_the_current_stream():
    graph = Graph(random_graph(5000, 200_000).cuda(), num_nodes=5000)
    x = torch.randn(5000, 4, 32, device="cuda")
    expected = functional.spmm(graph, x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        doubled = functional.spmm(graph, x * 2) / 2
    torch.cuda.current_stream().wait_stream(stream)
    assert_close(doubled, expected)


def test_cached_graphs_and_transposes_on_another_stream():
    x = torch.randn(3000, 2, 16, device="cuda", requires_grad=True)
    layer = nn.GATConv(32, 8, heads=2).cuda()

    def step(edges):
        out = layer(x.flatten(1), edges)
        return torch.autograd.grad(out.square().sum(), x)[0]

    streams = [torch.cuda.Stream() for _ in range(3)]
    for seed in range(20):
        edges = random_graph(3000, 200_000, seed).cuda()
        expected = step(edges.clone())
        torch.cuda.synchronize()
        with torch.cuda.stream(streams[0]):
            torch.cuda._sleep(10_000_000)  # what follows is late on this stream
            found = [step(edges)]
        for stream in streams[1:]:
            with torch.cuda.stream(stream):
                found.append(step(edges))  # finds what the first stream has yet to compute
        del edges  # memory of the cache is reused while the streams still read it
        torch.cuda.synchronize()
        for ours in found:
            assert_close(ours, expected)


def test_a_transpose_of_a_capture_is_not_kept():
    graph, other = (sample_graph("unsorted", "cuda") for _ in range(2))
    x = torch.randn(graph.num_src, 2, 4, device="cuda", requires_grad=True)

    def step(graph):
        return torch.autograd.grad(functional.spmm(graph, x).square().sum(), x)[0]

    expected = step(other)
    recording = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(recording):
        captured = step(graph)
    torch.testing.assert_close(step(graph), expected)
    recording.replay()
    torch.testing.assert_close(captured, expected)


def test_tensors_on_different_devices_are_an_error():
    graph = sample_graph("unsorted", "cuda")
    inputs = sample_inputs("dot", graph, device="cpu")["plain"]
    with pytest.raises(ValueError, match=r"cuda.*cpu|cpu.*cuda"):
        functional.edge_attention(graph, **inputs)
    with pytest.raises(ValueError, match="expected"):
        ops.spmm(
            *(graph.rowptr, graph.col, graph.edge_id),
            *(None, None, None, None),
            torch.randn(graph.num_src, 1, 2),
        )


def test_second_derivatives():
    graph = sample_graph("unsorted", "cuda")
    for score in SCORES:
        inputs = sample_inputs(score, graph, heads=2, channels=2, requires_grad=True)["bias"]
        tensors = {k: v for k, v in inputs.items() if isinstance(v, torch.Tensor)}

        def call(*values, tensors=tensors, score=score):
            given = dict(zip(tensors, values, strict=True))
            return functional.edge_attention(graph, score=score, **given)

        assert torch.autograd.gradgradcheck(call, tuple(tensors.values()), fast_mode=True)
