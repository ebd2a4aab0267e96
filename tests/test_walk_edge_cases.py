"""walk_step and random_walk on unusual inputs: edge cases and errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close
from walks import F64, agents_on, fan, p_value, seed_tensor

from gat_ext import Graph, functional
from gat_ext.functional import random_walk, walk_step
from gat_ext.ops.registry import ops
from gat_ext.reference import walk
from gat_ext.testing import devices, sample_graph

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
    # Ranks of types without neighbours do not matter.
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
    """Many draws on rows whose first and last weights are 0, where u · total rounds."""
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


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("largest", [1.0, 1e308, 1.7e308])
def test_weights_whose_sum_is_beyond_float64(largest, compiled):
    """Finite weights draw by their shares, whatever their size."""
    weight = torch.tensor([1.0, 0.25, 1.0, 0.0], dtype=F64)
    graph = Graph(torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0]]), num_nodes=4)
    start = torch.zeros(2000, dtype=torch.int64)

    def walk_by(weight):
        return random_walk(graph, start, 1, weight=weight, seed=seed_tensor())

    expected = walk_by(weight)
    assert expected[:, 1].bincount(minlength=4)[:3].min() > 100
    run = torch.compile(walk_by, fullgraph=True, backend="aot_eager") if compiled else walk_by
    torch._dynamo.reset()
    assert torch.equal(run(weight * largest), expected)
    small = torch.tensor([5e-324, 0.0, 5e-324, 0.0], dtype=F64)
    assert set(run(small)[:, 1].tolist()) == {0, 2}


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
        if request.config.getoption("--cuda-emulation"):  # GPU checks do not synchronise
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


# ---- errors

GRAPH = sample_graph("unsorted")  # 8 nodes, 24 edges
CURRENT, RANK, TYPES = agents_on(GRAPH, count=3)
BIPARTITE = sample_graph("more_sources")
BAD_STEPS = [
    ({"mode": "sampel"}, ValueError, "did you mean 'sample'"),
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


def test_operators_refuse_wrong_shapes():
    agents = GRAPH.rowptr, GRAPH.col, CURRENT
    with pytest.raises(TypeError, match="Half"):
        ops.walk_step(*agents, RANK.half(), TYPES, seed_tensor(), 0, False)
    with pytest.raises(ValueError, match="rank has shape"):
        ops.walk_step(*agents, RANK[:2], TYPES, seed_tensor(), 0, False)
    with pytest.raises(ValueError, match="length is -1"):
        ops.random_walk(GRAPH.rowptr, GRAPH.col, None, CURRENT, -1, seed_tensor())


def test_public_names():
    assert {"walk_step", "random_walk"} <= set(functional.__all__)
