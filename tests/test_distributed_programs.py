"""Groups, losses, normalisations, compilers and copies of a DistGraph."""

from __future__ import annotations

import copy
import pickle
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from parts import NODES, both, cut
from processes import Processes
from torch import Tensor, nn

from gat_ext.distributed import (
    DistGraph,
    Part,
    RankError,
    convert_norms,
    cross_entropy,
    failures,
    normalise,
    sum_over_processes,
)
from gat_ext.explain import record_attention
from gat_ext.functional import dot_attention, random_walk
from gat_ext.models import GAT
from gat_ext.nn import GATConv, Reordered

SIZE = 3
MODES = ("overlap", "sequential", "heads", "gather")
CLOSE = {"rtol": 1e-10, "atol": 1e-11}


# ---- groups


def check_group(group: Any, rank: int, size: int) -> None:
    """The ranks in a group are not those of the processes: in [1, 3], process 3 has rank 1."""
    mine = [dist.new_group([1, 3]), dist.new_group([0, 2])][rank % 2 == 0]
    number = dist.get_rank(mine)
    for mode in MODES:
        graph, part, dist_graph = cut(mine, number, 2, mode)
        torch.manual_seed(1)
        model = GAT(8, 4, 3, heads=2, norm="batch").double()
        x = torch.randn(NODES, 8, dtype=torch.float64)

        def run(g: Any, rows: Any, _: Any, model: Any = model, x: Tensor = x) -> list[Tensor]:
            own = x[rows].clone().requires_grad_()
            out = copy.deepcopy(model)(own, g)
            out.square().sum().backward()
            return [out.detach(), own.grad]

        for theirs, ours in zip(*both(graph, part, dist_graph, run), strict=True):
            torch.testing.assert_close(ours, theirs[part.dst_nodes], **CLOSE)


def check_absent(group: Any, rank: int, size: int) -> None:
    """A failure within a group names no process outside of it."""
    pair = dist.new_group([1, 3], timeout=timedelta(seconds=1))
    if rank in (1, 3):
        _, part, graph = cut(pair, dist.get_rank(pair), 2)
        failures._PATIENCE, patience = 0.5, failures._PATIENCE
        if rank == 1:
            with pytest.raises(RankError, match="rank 1: rank 3 ended") as caught:
                GATConv(8, 4)(torch.randn(part.num_own_src, 8), graph)
            assert caught.value.ranks == (3,)
        failures._PATIENCE = patience


def test_groups_of_some_processes(processes: Processes) -> None:
    processes.run(check_group, 4)


def test_failures_name_processes_of_the_group(processes: Processes) -> None:
    processes.run(check_absent, 4)


# ---- losses and normalisations


def check_losses(group: Any, rank: int, size: int) -> None:
    _, part, _ = cut(group, rank, size)
    nodes, logits, labels = part.dst_nodes, torch.randn(NODES, 5), torch.randint(5, (NODES,))
    labels[:10] = -100
    for target in (labels, torch.rand(NODES, 5).softmax(-1)):
        wanted = nn.functional.cross_entropy(logits, target)
        torch.testing.assert_close(cross_entropy(logits[nodes], target[nodes], None, group), wanted)
    x = torch.randn(3, 4)
    given = x.T.contiguous().T if rank == 0 else x  # the same numbers in another order in memory
    torch.testing.assert_close(sum_over_processes(given, group), x * size)


def test_losses_and_sums(processes: Processes) -> None:
    processes.run(check_losses, SIZE)


def check_norms(group: Any, rank: int, size: int) -> None:
    _, part, _ = cut(group, rank, size)
    x = torch.randn(NODES, 8) * 3 + 20
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        norm = nn.BatchNorm1d(8)
        mine, given = copy.deepcopy(norm), x.to(dtype)
        wanted, found = norm(given), normalise(mine, given[part.dst_nodes], group)
        assert found.dtype == wanted.dtype
        torch.testing.assert_close(found, wanted[part.dst_nodes], rtol=1e-2, atol=2e-2)
        torch.testing.assert_close(mine.running_mean, norm.running_mean, rtol=1e-4, atol=1e-4)
    inner = nn.Sequential(nn.BatchNorm1d(8), nn.ReLU())
    with pytest.raises(ValueError, match="Sequential contains BatchNorm1d"):
        normalise(inner, x[part.dst_nodes], group)
    wanted = copy.deepcopy(inner)(x)
    found = convert_norms(inner, group)(x[part.dst_nodes])
    torch.testing.assert_close(found, wanted[part.dst_nodes], rtol=1e-4, atol=1e-5)


def check_norms_of_pyg(group: Any, rank: int, size: int) -> None:
    pyg = pytest.importorskip("torch_geometric.nn")
    _, part, _ = cut(group, rank, size)
    x = torch.randn(NODES, 8) * 3 + 20
    for norm in (pyg.BatchNorm(8), pyg.GraphNorm(8), pyg.PairNorm(), pyg.LayerNorm(8, mode="node")):
        wanted = copy.deepcopy(norm)(x)
        found = normalise(norm, x[part.dst_nodes], group)
        torch.testing.assert_close(found, wanted[part.dst_nodes], rtol=1e-4, atol=1e-4)
    for norm in (
        *(pyg.LayerNorm(8), pyg.InstanceNorm(8), pyg.GraphSizeNorm()),
        *(pyg.MeanSubtractionNorm(), pyg.DiffGroupNorm(8, 2)),
    ):
        with pytest.raises(ValueError, match="statistics of the nodes of this process alone"):
            normalise(norm, x[part.dst_nodes], group)
        with pytest.raises(ValueError, match="statistics of the nodes of this process alone"):
            convert_norms(nn.Sequential(norm), group)


def check_patched(group: Any, rank: int, size: int) -> None:
    """A model of PyG with patched layers and converted normalisations."""
    pyg = pytest.importorskip("torch_geometric.nn")
    from gat_ext.interop import patch_pyg

    graph, part, mine = cut(group, rank, size)
    x = torch.randn(NODES, 8)
    for norm, v2 in (("batch_norm", False), ("graph_norm", True), (None, False)):
        torch.manual_seed(0)
        model = pyg.GAT(8, 8, 3, 3, norm=norm, v2=v2, jk="cat")
        wanted = model(x, graph.edge_index.long())
        patch_pyg(model)
        convert_norms(model, group)
        found = model(x[part.dst_nodes], mine)
        torch.testing.assert_close(found, wanted[part.dst_nodes], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("check", [check_norms, check_norms_of_pyg, check_patched])
def test_normalisations(processes: Processes, check: Any) -> None:
    if check is not check_norms:
        pytest.importorskip("torch_geometric")
    processes.run(check, SIZE)


# ---- what a DistGraph is not


def check_compile(group: Any, rank: int, size: int) -> None:
    """Compiled models run eagerly over a DistGraph; fullgraph says why it cannot."""
    graph, part, mine = cut(group, rank, size)
    x, model = torch.randn(NODES, 8), GAT(8, 4, 3, heads=2).eval()
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(x[part.dst_nodes], mine), model(x, graph)[part.dst_nodes])
    torch._dynamo.reset()
    with pytest.raises(Exception, match="run eagerly over a DistGraph"):
        torch.compile(model, backend="eager", fullgraph=True)(x[part.dst_nodes], mine)


def test_compiled_models_run_eagerly(processes: Processes) -> None:
    processes.run(check_compile, 2)


def check_refusals(group: Any, rank: int, size: int) -> None:
    _, part, graph = cut(group, rank, size)
    x = torch.randn(part.num_own_src, 8)
    for again in (copy.copy(graph), copy.deepcopy(graph), pickle.loads(pickle.dumps(part))):
        again = DistGraph(again, group) if isinstance(again, Part) else again
        layer = GATConv(8, 4)
        assert torch.equal(layer(x, again), layer(x, graph))
    with pytest.raises(TypeError, match=r"cannot be pickled.*pickle its \.part"):
        pickle.dumps(graph)
    for name in ("transpose", "subgraph", "to_pyg", "num_nodes", "reorder"):
        with pytest.raises(AttributeError, match=rf"no {name}, which a Graph has.*\.local"):
            getattr(graph, name)
    with pytest.raises(AttributeError, match=r"a DistGraph has no lcoal$"):
        _ = graph.lcoal
    with pytest.raises(NotImplementedError, match="not available on a DistGraph"):
        random_walk(graph, torch.zeros(3, dtype=torch.int64), 4)
    with pytest.raises(TypeError, match="Reordered expects a whole graph"):
        Reordered(GATConv(8, 4), "rcm")(x, graph)
    model = GAT(8, 4, 3)
    match = "expected the edges of the whole graph"
    with pytest.raises(TypeError, match=match), record_attention(model):
        model(x, graph)
    with pytest.raises(NotImplementedError, match="runs eagerly and in reverse mode"):
        torch.func.grad(lambda v: dot_attention(graph, v, v, v).sum())(x.unsqueeze(1))
    wrong = torch.randn(part.num_own_src + 1, 8)
    with pytest.raises(ValueError, match="expected one row for each node"):
        GATConv(8, 4)(wrong, graph)


def test_copies_and_refusals(processes: Processes) -> None:
    processes.run(check_refusals, SIZE)
