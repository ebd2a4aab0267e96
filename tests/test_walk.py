"""walk_step and random_walk: the reference's walks, distribution, gradients, edge cases, errors."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from walks import F64, SEED, agents_on, fan, p_value, seed_tensor

from gat_ext import Graph, nn
from gat_ext.functional import random_walk, walk_step
from gat_ext.ops.registry import ops
from gat_ext.reference import walk
from gat_ext.testing import devices, sample_graph, tolerance

GRAPHS = ("isolated", "multi_edges", "self_loops", "star", "unsorted", "complete", "long_row")


def random_graph(nodes, edges):
    generator = torch.Generator().manual_seed(8)
    return Graph(torch.randint(nodes, (2, edges), generator=generator), num_nodes=nodes)


def on_each_number_of_threads(run):
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    return results


# ---- the same walks as the reference


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("mode", ["sample", "greedy"])
@pytest.mark.parametrize("name", GRAPHS)
def test_step_equals_reference(name, mode, dtype, index_dtype, device):
    graph = sample_graph(name, device, index_dtype)
    current, rank, node_type = agents_on(graph, dtype=dtype, device=device)
    for step in (0, 7):
        rank.requires_grad_()
        given = graph, current, rank, node_type
        moved, log_prob = walk_step(*given, mode=mode, seed=seed_tensor(device), step=step)
        exact = rank.detach().to(F64).requires_grad_()
        numbers = walk.uniform_numbers(SEED, len(current), step)
        theirs, exact_log_prob = walk.walk_step(
            graph, current, exact, node_type, numbers, mode=mode
        )
        assert torch.equal(moved, theirs)
        assert log_prob.dtype == dtype and not moved.requires_grad
        assert_close(log_prob.to(F64), exact_log_prob, **tolerance(dtype))
        upstream = torch.linspace(-1, 1, len(current), dtype=F64, device=device)
        (grad,) = torch.autograd.grad(log_prob, rank, upstream.to(dtype))
        (exact_grad,) = torch.autograd.grad(exact_log_prob, exact, upstream)
        scale = max(1.0, exact_grad.abs().max().item())
        assert_close(grad.to(F64) / scale, exact_grad / scale, **tolerance(dtype))


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("name", GRAPHS)
def test_random_walk_equals_reference(name, index_dtype, device):
    graph = sample_graph(name, device, index_dtype)
    start, length = torch.arange(graph.num_nodes, device=device), 5
    numbers = [walk.uniform_numbers(SEED, len(start), t) for t in range(length)]
    weight = torch.rand(graph.num_edges, generator=torch.Generator().manual_seed(1))
    weight[::3] = 0
    for w in (None, weight.to(device), weight.to(device, torch.bfloat16), torch.zeros_like(weight)):
        w = w if w is None else w.to(device)
        walks = random_walk(graph, start, length, weight=w, seed=seed_tensor(device))
        theirs = walk.random_walk(graph, start, torch.stack(numbers, 1), weight=w)
        assert torch.equal(walks, theirs)


def test_walks_are_identical_for_any_number_of_threads():
    graph = random_graph(3000, 20_000)
    current, rank, node_type = agents_on(graph, count=20_000, dtype=torch.float32)
    rank.requires_grad_()
    weight = torch.rand(graph.num_edges, generator=torch.Generator().manual_seed(1))

    def run():
        moved, log_prob = walk_step(graph, current, rank, node_type, seed=seed_tensor())
        grad = torch.autograd.grad(log_prob.sum(), rank)
        walks = [
            random_walk(graph, current, 9, weight=w, seed=seed_tensor()) for w in (None, weight)
        ]
        return moved, log_prob.detach(), *grad, *walks

    one, two = on_each_number_of_threads(run)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.skipif("cuda" not in devices(), reason="needs a GPU")
def test_a_gpu_walks_as_the_cpu():
    graph = random_graph(3000, 20_000)
    current, rank, node_type = agents_on(graph, count=20_000, dtype=torch.float32)
    weight = torch.rand(graph.num_edges, generator=torch.Generator().manual_seed(1))
    there = graph.to("cuda"), current.cuda(), rank.cuda(), node_type.cuda()
    moved, _ = walk_step(graph, current, rank, node_type, seed=seed_tensor())
    assert torch.equal(moved, walk_step(*there, seed=seed_tensor("cuda"))[0].cpu())
    for w in (None, weight):
        walks = random_walk(graph, current, 9, weight=w, seed=seed_tensor())
        w = w if w is None else w.cuda()
        theirs = random_walk(there[0], there[1], 9, weight=w, seed=seed_tensor("cuda"))
        assert torch.equal(walks, theirs.cpu())


def test_seeds():
    graph = random_graph(50, 800)
    start = torch.zeros(100, dtype=torch.int64)
    torch.manual_seed(5)
    first = random_walk(graph, start, 4)
    other = random_walk(graph, start, 4)
    torch.manual_seed(5)
    assert torch.equal(first, random_walk(graph, start, 4)) and not torch.equal(first, other)
    # walk_step at step t draws what random_walk draws at its step t, where all ranks are equal.
    rank, types = torch.ones(100, 1), torch.zeros(50, dtype=torch.int64)
    node = start
    for t in range(4):
        node, _ = walk_step(graph, node, rank, types, seed=seed_tensor(), step=t)
        assert torch.equal(node, random_walk(graph, start, 4, seed=seed_tensor())[:, t + 1])


# ---- distributions


def test_sampled_frequencies():
    graph, node_type = fan()
    count = 40_000
    rank = torch.tensor([[0.5, 0.2, 0.1]]).repeat(count, 1)
    current = torch.zeros(count, dtype=torch.int64)
    by_type = torch.tensor([0.5, 0.2, 0.1, 0.5, 0.2, 0.2], dtype=F64)
    right = by_type / by_type.sum()
    wrong = torch.tensor([0.5, 0.2, 0.1, 0.5, 0.2, 0.1], dtype=F64)  # the double edge counted once
    slightly_wrong = right + 0.02 * torch.tensor([1, -1, 0, 0, 0, 0])
    places = range(1, 7)
    for step in range(3):
        moved, _ = walk_step(graph, current, rank, node_type, seed=seed_tensor(), step=step)
        assert p_value(moved, places, right) > 1e-3
        assert p_value(moved, places, wrong / wrong.sum()) < 1e-6  # the test can fail
        assert p_value(moved, places, slightly_wrong) < 1e-6


@pytest.mark.parametrize("weighted", [False, True])
def test_random_walk_frequencies(weighted):
    graph, _ = fan()
    weight = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0, 1.5, 0.25]) if weighted else torch.ones(7)
    by_node = torch.zeros(7, dtype=F64).index_add(0, graph.edge_index[0], weight.double())[1:]
    start = torch.zeros(40_000, dtype=torch.int64)
    given = weight if weighted else None
    moved = random_walk(graph, start, 1, weight=given, seed=seed_tensor())[:, 1]
    drawn = by_node > 0
    places = (drawn.nonzero() + 1).flatten()
    assert p_value(moved, places, by_node[drawn] / by_node.sum()) > 1e-3
    flat = torch.full((len(places),), 1 / len(places), dtype=F64)
    assert p_value(moved, places, flat) < 1e-6


def test_stationary_distribution():
    edges = torch.tensor([[0, 0, 0, 1, 2, 3], [1, 2, 3, 2, 3, 4]])  # undirected, with triangles
    graph = Graph(torch.cat([edges, edges.flip(0)], 1), num_nodes=5)
    last = random_walk(graph, torch.zeros(40_000, dtype=torch.int64), 60, seed=seed_tensor())[:, -1]
    degrees = graph.in_degrees().double()
    assert p_value(last, range(5), degrees / degrees.sum()) > 1e-3
    assert p_value(last, range(5), torch.full((5,), 0.2, dtype=F64)) < 1e-6


def test_attention_weights_of_a_trained_layer_as_weights():
    torch.manual_seed(0)
    graph = random_graph(30, 150).add_self_loops()
    x, labels = torch.randn(30, 8), torch.randint(3, (30,))
    layer = nn.GATConv(8, 3, heads=2, concat=False, add_self_loops=False)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(x, graph), labels).backward()
        optimizer.step()
    _, (_, alpha) = layer(x, graph, return_attention_weights=True)
    src, dst = graph.edge_index
    node = int(graph.in_degrees().argmax())
    start = torch.full((20_000,), node)
    moved = random_walk(graph, start, 1, weight=alpha[:, 1], seed=seed_tensor())[:, 1]
    into = dst == node
    probabilities = torch.zeros(30, dtype=F64).index_add(
        0, src[into], alpha[into, 1].detach().double()
    )
    places = probabilities.nonzero().flatten()
    expected = probabilities[places] / probabilities.sum()
    assert p_value(moved, places, expected) > 1e-3
    assert p_value(moved, places, torch.full_like(expected, 1 / len(expected))) < 1e-6


# ---- gradients and torch's modes


@pytest.mark.parametrize("mode", ["sample", "greedy"])
@pytest.mark.parametrize("name", ["isolated", "multi_edges", "unsorted"])
def test_gradcheck_and_gradgradcheck(name, mode):
    graph = sample_graph(name)
    current, rank, node_type = agents_on(graph, count=7)
    rank = (rank + 0.1).requires_grad_()

    def log_prob(rank):
        return walk_step(graph, current, rank, node_type, mode=mode, seed=seed_tensor())[1]

    assert torch.autograd.gradcheck(log_prob, (rank,))
    assert torch.autograd.gradgradcheck(log_prob, (rank,))


@pytest.mark.parametrize("device", devices())
def test_opcheck(device):
    graph = sample_graph("unsorted", device)
    current, rank, node_type = agents_on(graph, count=5, dtype=torch.float32, device=device)
    rank = (rank + 0.1).requires_grad_()
    agents = graph.rowptr, graph.col, current
    check = torch.library.opcheck
    for greedy in (False, True):
        check(ops.walk_step.default, (*agents, rank, node_type, seed_tensor(device), 3, greedy))
    log_prob, moved = ops.walk_step(*agents, rank, node_type, seed_tensor(device), 3, False)
    grad = torch.rand_like(log_prob).requires_grad_()
    check(ops.walk_step_backward.default, (*agents, moved, rank, node_type, grad))
    weight = torch.rand(graph.num_edges, dtype=F64, device=device)
    for w in (None, weight):
        check(
            ops.random_walk.default,
            (graph.rowptr, graph.col, w, current, 4, seed_tensor(device)),
        )


def test_autocast():
    graph = sample_graph("unsorted")
    current, rank, node_type = agents_on(graph, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved, log_prob = walk_step(graph, current, rank, node_type, seed=seed_tensor())
    expected = walk_step(graph, current, rank.float(), node_type, seed=seed_tensor())
    assert torch.equal(moved, expected[0]) and torch.equal(log_prob, expected[1])


def test_compile():
    graph = sample_graph("unsorted")
    current, rank, node_type = agents_on(graph)

    def two_steps(current, rank, node_type, seed):
        total = 0
        for t in range(2):
            current, log_prob = walk_step(graph, current, rank, node_type, seed=seed, step=t)
            total = total + log_prob
        return current, total

    compiled = torch.compile(two_steps, backend="aot_eager", fullgraph=True)
    ours = compiled(current, rank, node_type, seed_tensor())
    theirs = two_steps(current, rank, node_type, seed_tensor())
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
