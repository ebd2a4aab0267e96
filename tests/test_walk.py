"""walk_step and random_walk: the reference's walks, distribution, gradients, edge cases, errors."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare
from torch.testing import assert_close

from gat_ext import Graph, functional, nn
from gat_ext.functional import random_walk, walk_step
from gat_ext.ops.registry import ops
from gat_ext.reference import walk
from gat_ext.testing import devices, sample_graph, tolerance

F64 = torch.float64
SEED = 2**40 + 12345
GRAPHS = ("isolated", "multi_edges", "self_loops", "star", "unsorted", "complete", "long_row")


def seed_tensor(device="cpu", seed=SEED):
    return torch.tensor([seed], device=device)


def agents_on(graph, *, count=60, types=4, dtype=F64, device="cpu"):
    """current [B], rank [B, R], node_type [N], with some ranks of 0."""
    generator = torch.Generator().manual_seed(3)
    current = torch.arange(count) % graph.num_nodes
    rank = torch.randn(count, types, generator=generator, dtype=F64).softmax(1)
    rank[::5, 1] = 0
    node_type = torch.randint(types, (graph.num_nodes,), generator=generator)
    return current.to(device), rank.to(device, dtype), node_type.to(device)


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


def test_same_walk_for_any_number_of_threads():
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


def p_value(moved, places, probabilities):
    """Of the hypothesis that the places were drawn with these probabilities."""
    counts = torch.stack([(moved == place).sum() for place in places]).double()
    assert counts.sum() == len(moved)
    return chisquare(counts.numpy(), (probabilities * len(moved)).numpy()).pvalue


def fan():
    """Node 0 with the neighbours 1 … 6 of the types 0, 1, 2, 0, 1, 2; the last by two edges."""
    graph = Graph(torch.tensor([[3, 1, 6, 2, 5, 4, 6], [0] * 7]), num_nodes=7)
    return graph, torch.tensor([0, 0, 1, 2, 0, 1, 2])


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
        assert p_value(moved, places, wrong / wrong.sum()) < 1e-6  # so the test can fail
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


# ---- gradients, and what torch needs


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


# ---- edge cases


def one_step(graph, node, rank, node_type, **options):
    rank = torch.tensor([rank], dtype=options.pop("dtype", F64)).requires_grad_()
    current = torch.tensor([node])
    moved, log_prob = walk_step(
        graph, current, rank, torch.tensor(node_type), seed=seed_tensor(), **options
    )
    (grad,) = torch.autograd.grad(log_prob.sum(), rank)
    return moved.item(), log_prob.item(), grad.flatten()


@pytest.mark.parametrize("mode", ["sample", "greedy"])
def test_a_node_without_neighbours_stays(mode):
    graph = Graph(torch.tensor([[1], [0]]), num_nodes=2)
    moved, log_prob, grad = one_step(graph, 1, [0.5, 0.5], [0, 1], mode=mode)
    assert moved == 1 and log_prob == 0 and torch.equal(grad, torch.zeros(2, dtype=F64))
    walk = random_walk(graph, torch.tensor([0, 1]), 3, seed=seed_tensor())
    assert walk.tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]


@pytest.mark.parametrize("mode", ["sample", "greedy"])
def test_all_ranks_zero_is_uniform(mode):
    graph, node_type = fan()
    moved, log_prob, grad = one_step(graph, 0, [0.0, 0.0, 0.0], node_type.tolist(), mode=mode)
    assert moved in range(1, 7) and not grad.any()
    assert log_prob == pytest.approx(-math.log(7), rel=1e-14)
    many = torch.zeros(20_000, 3)
    zeros = torch.zeros(20_000, dtype=torch.int64)
    places = walk_step(graph, zeros, many, node_type, mode=mode, seed=seed_tensor())[0]
    if mode == "greedy":
        assert (places == 3).all()  # the first in CSR order
    else:
        expected = torch.tensor([1, 1, 1, 1, 1, 2], dtype=F64) / 7
        assert p_value(places, range(1, 7), expected) > 1e-3


@pytest.mark.parametrize("bad", [-0.25, math.nan, math.inf])
def test_bad_ranks_stay_with_nan(bad):
    graph, node_type = fan()
    for mode in ("sample", "greedy"):
        moved, log_prob, _ = one_step(graph, 0, [0.5, bad, 0.5], node_type.tolist(), mode=mode)
        assert moved == 0 and math.isnan(log_prob)
    # A rank that no neighbour has does not matter.
    path = Graph(torch.tensor([[1, 2], [0, 0]]))
    moved, log_prob, grad = one_step(path, 0, [1.0, 3.0, bad], [2, 0, 1])
    assert moved in (1, 2) and grad.isfinite().all()
    assert_close(log_prob, math.log(0.25 if moved == 1 else 0.75))


def test_one_type_has_gradient_zero():
    graph, _ = fan()
    for dtype in (torch.float32, F64):
        _, log_prob, grad = one_step(graph, 0, [0.3, 0.7], [0] * 7, dtype=dtype)
        assert_close(log_prob, -math.log(7)) and grad.abs().max() < 1e-15


@pytest.mark.parametrize("scale", [1.0, 5e-324, 1e-310, 1e300])
def test_rounding_never_picks_a_weight_of_zero(scale):
    """Many draws on rows whose first and last weights are 0, of numbers that u · total rounds."""
    graph = Graph(torch.tensor([[1, 2, 3, 4, 5], [0] * 5]), num_nodes=6)
    weight = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0], dtype=F64) * scale
    count = 30_000
    start = torch.zeros(count, dtype=torch.int64)
    moved = random_walk(graph, start, 1, weight=weight, seed=seed_tensor())[:, 1]
    assert set(moved.tolist()) == {2, 4}
    rank = torch.stack([weight[0], weight[1]]).expand(count, 2)
    types = torch.tensor([0, 0, 1, 0, 1, 0])
    stepped, log_prob = walk_step(graph, start, rank, types, seed=seed_tensor())
    assert torch.equal(stepped, moved)
    assert_close(log_prob, torch.full_like(log_prob, -math.log(2)))


def test_the_oracle_draws_within_bounds():
    """Uniform numbers next to 1 and to the borders, which seeds practically never draw."""
    top = 1 - 2.0**-53
    for weights in ([0.0, 5e-324, 0.0], [1.0, 1e-30, 0.0], [0.1] * 9 + [0.0], [1e16, 1.0, 0.0]):
        for number in (0.0, 0.25, 0.5, top):
            place = walk.draw(weights, number)
            assert place is not None and weights[place] > 0


@pytest.mark.parametrize("device", devices())
def test_nothing_to_do(device):
    empty = torch.empty(0, dtype=torch.int64, device=device)
    graph = sample_graph("unsorted", device)
    _, rank, node_type = agents_on(graph, count=3, device=device)
    rank = rank[:0].clone().requires_grad_()
    moved, log_prob = walk_step(graph, empty, rank, node_type)
    log_prob.sum().backward()
    assert moved.shape == log_prob.shape == (0,) and rank.grad.shape == rank.shape
    assert random_walk(graph, empty, 4).shape == (0, 5)
    start = torch.arange(8, device=device)
    assert torch.equal(random_walk(graph, start, 0), start.unsqueeze(1))
    none = sample_graph("no_edges", device)
    stays = random_walk(
        none, torch.arange(5, device=device), 2, weight=torch.ones(0, device=device)
    )
    assert torch.equal(stays, torch.arange(5, device=device).unsqueeze(1).expand(5, 3))
    assert random_walk(sample_graph("no_nodes", device), empty, 2).shape == (0, 3)


def test_operators_do_not_follow_indices_out_of_range(request):
    graph, node_type = fan()
    rank, wild = torch.ones(1, 3, dtype=F64), node_type.clone()
    wild[3] = 2**62
    for node, types in ((-1, node_type), (7, node_type), (2**62, node_type), (0, wild)):
        current = torch.tensor([node])
        agents = graph.rowptr, graph.col, current
        given = *agents, rank, types, seed_tensor(), 0, False
        if request.config.getoption("--cuda-emulation"):  # a GPU is not waited for
            log_prob, moved = ops.walk_step(*given)
            assert moved == current and log_prob.isnan()
        else:
            with pytest.raises(IndexError, match="from 0 to 6 and types from 0 to 2"):
                ops.walk_step(*given)
        grad = ops.walk_step_backward(*agents, current, rank, types, torch.ones(1, dtype=F64))
        assert grad.isnan().all() if node == 0 else not grad.any()
    wild_start = torch.tensor([-1, 7, 2**62])
    walks = ops.random_walk(graph.rowptr, graph.col, None, wild_start, 2, seed_tensor())
    assert torch.equal(walks, wild_start.unsqueeze(1).expand(3, 3))


def test_inputs_need_not_be_contiguous():
    graph = sample_graph("unsorted")
    current, rank, node_type = agents_on(graph)
    apart = torch.stack([current, current], 1)[:, 0]
    ours = walk_step(graph, apart, rank.t().contiguous().t(), node_type, seed=seed_tensor())
    theirs = walk_step(graph, current, rank, node_type, seed=seed_tensor())
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


# ---- refusals

GRAPH = sample_graph("unsorted")  # 8 nodes, 24 edges
CURRENT, RANK, TYPES = agents_on(GRAPH, count=3)
BIPARTITE = sample_graph("more_sources")
BAD_STEPS = [
    ({"mode": "sampel"}, ValueError, "Did you mean 'sample'"),
    ({"step": -1}, ValueError, "from 0 to"),
    ({"step": 1.0}, TypeError, "float"),
    ({"step": True}, TypeError, "bool"),
    ({"seed": 4}, TypeError, "int64 tensor of one element"),
    ({"graph": BIPARTITE}, ValueError, "num_src=9"),
    ({"current": CURRENT.int()}, TypeError, r"int32; expected int64"),
    ({"current": CURRENT.tolist()}, TypeError, "list"),
    ({"current": CURRENT.view(3, 1)}, ValueError, r"expected \[B\]"),
    ({"current": torch.tensor([0, 8, 1])}, IndexError, "current has the value 8; expected 0 to 7"),
    ({"current": torch.tensor([0, -2, 1])}, IndexError, "-2"),
    ({"node_type": TYPES[:-1]}, ValueError, r"expected \[8\]"),
    ({"node_type": TYPES.double()}, TypeError, "node_type has dtype"),
    ({"node_type": torch.full((8,), 4)}, IndexError, "columns of rank is 4"),
    ({"rank": RANK[:2]}, ValueError, r"expected \[3, R\]"),
    ({"rank": RANK[0]}, ValueError, r"expected \[3, R\]"),
    ({"rank": RANK.half()}, TypeError, "float16; expected float32 or float64"),
    ({"rank": RANK.long()}, TypeError, "int64"),
]
BAD_WALKS = [
    ({"length": -1}, ValueError, "steps from 0 to"),
    ({"length": 2.0}, TypeError, "float"),
    ({"start": CURRENT.float()}, TypeError, "expected int64"),
    ({"start": torch.tensor([8])}, IndexError, "8"),
    ({"graph": BIPARTITE}, ValueError, "num_src=9"),
    ({"weight": torch.ones(23)}, ValueError, "24 edges"),
    ({"weight": torch.ones(24, 2)}, ValueError, "select one head"),
    ({"weight": torch.ones(24, dtype=torch.int64)}, TypeError, "int64"),
    ({"weight": torch.linspace(-1, 1, 24)}, ValueError, "from -1.0 to 1.0"),
    ({"weight": torch.full((24,), math.nan)}, ValueError, "nan"),
    ({"weight": torch.full((24,), math.inf)}, ValueError, "inf"),
    ({"seed": torch.tensor([1, 2])}, TypeError, "one element"),
]


@pytest.mark.parametrize(("changed", "error", "words"), BAD_STEPS)
def test_bad_steps_are_refused(changed, error, words, request):
    if error is IndexError and request.config.getoption("--cuda-emulation"):
        pytest.skip("CPU tensors are checked by the CPU's kernel")
    given = {"graph": GRAPH, "current": CURRENT, "rank": RANK, "node_type": TYPES} | changed
    with pytest.raises(error, match=words):
        walk_step(**given)


@pytest.mark.parametrize(("changed", "error", "words"), BAD_WALKS)
def test_bad_walks_are_refused(changed, error, words):
    given = {"graph": GRAPH, "start": CURRENT, "length": 2} | changed
    with pytest.raises(error, match=words):
        random_walk(**given)


def test_operators_refuse_what_does_not_fit():
    agents = GRAPH.rowptr, GRAPH.col, CURRENT
    with pytest.raises(TypeError, match="Half"):
        ops.walk_step(*agents, RANK.half(), TYPES, seed_tensor(), 0, False)
    with pytest.raises(ValueError, match="rank has shape"):
        ops.walk_step(*agents, RANK[:2], TYPES, seed_tensor(), 0, False)
    with pytest.raises(ValueError, match="length is -1"):
        ops.random_walk(GRAPH.rowptr, GRAPH.col, None, CURRENT, -1, seed_tensor())


def test_public_names():
    assert {"walk_step", "random_walk"} <= set(functional.__all__)
