"""What programs do with a DistGraph besides calling a layer: results of one process, or errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.distributed as dist
from parts import NODES, both, cut
from processes import Processes
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gat_ext import Graph
from gat_ext.distributed import (
    DistGraph,
    cross_entropy,
    make_part,
)
from gat_ext.functional import dot_attention, gat_attention
from gat_ext.models import AGNN, GAT, GATv2, GraphTransformer
from gat_ext.nn import AGNNConv, GATConv, GATv2Conv, TransformerConv

SIZE = 3
MODES = ("overlap", "sequential", "heads", "gather")
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "gat": lambda: GATConv(8, 4, heads=4),
    "gatv2": lambda: GATv2Conv(8, 4, heads=4),
    "agnn": AGNNConv,
    "transformer": lambda: TransformerConv(8, 4, heads=4),
}
CLOSE = {"rtol": 1e-10, "atol": 1e-11}


# ---- dtypes


def check_sixteen_bits(group: Any, rank: int, size: int, mode: str) -> None:
    """The error over float64 of the same numbers is at most about twice that of one process."""
    graph, part, mine = cut(group, rank, size, mode)
    for dtype, make in product((torch.float16, torch.bfloat16), LAYERS.values()):
        torch.manual_seed(0)
        layer, x = make().to(dtype), torch.randn(NODES, 8).to(dtype)
        exact = copy.deepcopy(layer).double()

        def run(g: Any, x: Tensor, layer: nn.Module = layer) -> tuple[Tensor, Tensor]:
            x = x.clone().requires_grad_()
            out = layer(x, g)
            out.square().sum().backward()
            return out.detach().double(), x.grad.double()  # type: ignore[union-attr]

        wanted = run(graph, x.double(), exact)
        found = run(mine, x[part.dst_nodes])
        step = torch.finfo(dtype).eps
        for ours, theirs in zip(found, wanted, strict=True):
            limit = 4 * step * theirs.abs().max()
            assert (ours - theirs[part.dst_nodes]).abs().max() <= limit
        with torch.autocast("cpu", dtype):
            out, one = exact.float()(x[part.dst_nodes].float(), mine), exact(x.float(), graph)
        assert out.dtype == one.dtype
        assert (out - one[part.dst_nodes]).abs().max() <= 4 * step * one.abs().max()


@pytest.mark.parametrize("mode", MODES)
def test_sixteen_bits(processes: Processes, mode: str) -> None:
    processes.run(check_sixteen_bits, SIZE, mode)


# ---- gradients


def check_programs(group: Any, rank: int, size: int, mode: str) -> None:
    """Two backward passes, checkpoints, no gradients, and modification in place."""
    graph, part, mine = cut(group, rank, size, mode)
    x = torch.randn(NODES, 8, dtype=torch.float64)
    first, second = GATConv(8, 4, heads=4, dropout=0.3), GATv2Conv(16, 4, heads=4, dropout=0.3)
    first, second = first.double(), second.double()

    def run(g: Any, rows: Any, _: Any) -> list[Tensor]:
        own = x[rows].clone().requires_grad_()
        hidden = checkpoint(first, own, g, use_reentrant=False)
        hidden += 1
        hidden *= 2
        out = checkpoint(second, hidden, g, use_reentrant=False)
        out.sum().backward(retain_graph=True)
        out.square().sum().backward()
        return [out.detach(), own.grad]

    for theirs, ours in zip(*both(graph, part, mine, run), strict=True):
        torch.testing.assert_close(ours, theirs[part.dst_nodes], **CLOSE)
    with torch.no_grad():
        plain = first.eval()(x[part.dst_nodes], mine)
    with torch.inference_mode():
        again = DistGraph(part, group, mode=mode)
        torch.testing.assert_close(first(x[part.dst_nodes], again), plain, **CLOSE)
    own = x[part.dst_nodes].requires_grad_()  # in a graph whose pieces were built without gradients
    first(own, again).sum().backward()
    assert own.grad is not None


@pytest.mark.parametrize("mode", MODES)
def test_programs(processes: Processes, mode: str) -> None:
    processes.run(check_programs, SIZE, mode)


def check_frozen(group: Any, rank: int, size: int, mode: str) -> None:
    """Every subset of inputs that need gradients."""
    graph, part, mine = cut(group, rank, size, mode)
    shapes = {"value": (NODES, 4, 3), "dst_term": (NODES, 4), "src_term": (NODES, 4)}
    given = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    for needs in product([False, True], repeat=3):
        if not any(needs):
            continue

        def run(g: Any, rows: Any, _: Any, needs: Any = needs) -> list[Tensor | None]:
            leaves = [
                t[rows].clone().requires_grad_(n)
                for t, n in zip(given.values(), needs, strict=True)
            ]
            gat_attention(g, *leaves).square().sum().backward()
            return [leaf.grad for leaf in leaves]

        for theirs, ours in zip(*both(graph, part, mine, run), strict=True):
            assert (theirs is None) == (ours is None)
            if theirs is not None:
                torch.testing.assert_close(ours, theirs[part.dst_nodes], **CLOSE)


@pytest.mark.parametrize("mode", MODES)
def test_frozen_inputs(processes: Processes, mode: str) -> None:
    processes.run(check_frozen, SIZE, mode)


def check_ddp(group: Any, rank: int, size: int, find_unused: bool, mode: str) -> None:
    """Gradients of DistributedDataParallel and the global loss are those of one process."""
    graph, part, mine = cut(group, rank, size, mode)
    nodes = part.dst_nodes
    for make in (
        lambda: GAT(8, 4, 3, heads=4, norm="batch", residual=True),
        lambda: GATv2(8, 4, 3, heads=2),
        lambda: AGNN(8, 4, 3),
        lambda: GraphTransformer(8, 4, 3, heads=3),
    ):
        torch.manual_seed(0)
        model, x = make().double(), torch.randn(NODES, 8, dtype=torch.float64)
        labels, mask = torch.randint(3, (NODES,)), torch.rand(NODES) < 0.4
        wrapped = nn.parallel.DistributedDataParallel(
            copy.deepcopy(model), process_group=group, find_unused_parameters=find_unused
        )
        torch.manual_seed(9)
        loss = nn.functional.cross_entropy(model(x, graph)[mask], labels[mask])
        loss.backward()
        torch.manual_seed(9)
        found = cross_entropy(wrapped(x[nodes], mine), labels[nodes], mask[nodes], group)
        found.backward()
        torch.testing.assert_close(found, loss, **CLOSE)
        for theirs, ours in zip(model.parameters(), wrapped.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, **CLOSE)


@pytest.mark.parametrize("find_unused", [False, True])
def test_data_parallel_gradients(processes: Processes, find_unused: bool) -> None:
    for mode in MODES:
        processes.run(check_ddp, SIZE, find_unused, mode)


# ---- scores


def check_scores(group: Any, rank: int, size: int, mode: str) -> None:
    """Scores of any size, infinite ones and NaN give the results of one process."""
    graph, part, mine = cut(group, rank, size, mode)
    edges, inf = graph.num_edges, float("inf")
    draw = torch.rand(edges, 2)
    every_third = (graph.edge_index[1] % 3 == 0).unsqueeze(1).expand(-1, 2)
    one = (torch.arange(edges) == 7).unsqueeze(1).expand(-1, 2)
    biases = [
        (draw - 0.5) * 2e9,
        torch.full((edges, 2), 1e9),
        torch.where(draw < 0.5, -1e9, 0.0),
        torch.full((edges, 2), -1e9),
        (draw - 0.5) * 2e38,
        torch.where(draw < 0.5, -inf, 0.0),
        torch.where(every_third, -inf, 0.0),
        torch.full((edges, 2), -inf),
        torch.where(one, inf, 0.0),
        torch.where(one, float("nan"), 0.0),
    ]
    inputs = [torch.randn(NODES, 2, 3) for _ in range(3)]
    poisoned = inputs[2].clone()
    poisoned[5], poisoned[6] = float("nan"), inf
    for bias, value in [(b, inputs[2]) for b in biases] + [(torch.zeros(edges, 2), poisoned)]:

        def run(g: Any, rows: Any, own: Any, bias: Any = bias, value: Any = value) -> list[Any]:
            leaves = [t[rows].clone().requires_grad_() for t in (*inputs[:2], value)]
            of_edges = bias[own].clone().requires_grad_()
            out, lse = dot_attention(g, *leaves, bias=of_edges, return_lse=True)
            out.nan_to_num(posinf=0, neginf=0).square().sum().backward()
            grads = [leaf.grad for leaf in leaves]
            return [out.detach(), lse.detach(), *grads, of_edges.grad]

        wanted, found = both(graph, part, mine, run)
        for position, (theirs, ours) in enumerate(zip(wanted, found, strict=True)):
            rows = part.edges if position == 5 else part.dst_nodes
            close = {"rtol": 1e-4, "atol": 1e-5, "equal_nan": True}
            torch.testing.assert_close(ours, theirs[rows], **close)


@pytest.mark.parametrize("mode", MODES)
def test_scores_of_any_size(processes: Processes, mode: str) -> None:
    processes.run(check_scores, SIZE, mode)


def check_empty_rows(group: Any, rank: int, size: int, mode: str) -> None:
    """Rows of no elements are exchanged like others."""
    _, part, mine = cut(group, rank, size, mode)
    for shape in ((2, 0), (0, 3)):
        x = torch.randn(part.num_own_src, *shape, requires_grad=True)
        out = dot_attention(mine, x, x, x)
        out.sum().backward()
        assert out.shape == x.shape == x.grad.shape  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", MODES)
def test_rows_without_elements(processes: Processes, mode: str) -> None:
    processes.run(check_empty_rows, SIZE, mode)


# ---- edges


def check_weights(group: Any, rank: int, size: int, mode: str) -> None:
    """Returned weights are of global edges; edge_weight and edge_mask are of own edges."""
    graph, part, mine = cut(group, rank, size, mode, count=60)
    x, given = torch.randn(NODES, 8), torch.rand(graph.num_edges)

    def rows(edges: Tensor, weights: Tensor) -> list[Any]:
        """Edges with their weights, sorted; multi-edges have equal ones."""
        numbers = weights.flatten(1).detach().double()
        return sorted(torch.cat([edges.T.double(), numbers.round(decimals=3)], dim=1).tolist())

    for make in (*LAYERS.values(), lambda: GATConv(8, 4, heads=4, add_self_loops=False)):
        torch.manual_seed(2)
        layer = make()
        out, (edges, weights) = layer(x, graph, return_attention_weights=True)
        own, (own_edges, own_weights) = layer(
            x[part.dst_nodes], mine, return_attention_weights=True
        )
        torch.testing.assert_close(own, out[part.dst_nodes])
        here = torch.isin(edges[1], part.dst_nodes)
        found = torch.tensor(rows(own_edges, own_weights))
        torch.testing.assert_close(
            found, torch.tensor(rows(edges[:, here], weights[here])), rtol=0, atol=2e-3
        )
        for name in ("edge_weight", "edge_mask"):
            out = layer(x, graph, **{name: given})
            own = layer(x[part.dst_nodes], mine, **{name: given[part.edges]})
            torch.testing.assert_close(own, out[part.dst_nodes])


@pytest.mark.parametrize("mode", MODES)
def test_weights_and_masks_of_edges(processes: Processes, mode: str) -> None:
    processes.run(check_weights, SIZE, mode)


def check_several(group: Any, rank: int, size: int, mode: str) -> None:
    """Two graphs in one model, layers of several widths, every fill_value."""
    graph, part, mine = cut(group, rank, size, mode)
    other = Graph(torch.randint(NODES, (2, 90)).int(), num_nodes=NODES)
    assignment = torch.zeros(NODES, dtype=torch.int64)
    for r in range(size):  # of all processes, which each know their own nodes
        rows = [part.dst_nodes.tolist() if rank == r else None]
        dist.broadcast_object_list(rows, src=r, group=group)
        assignment[torch.tensor(rows[0])] = r
    mine_too = DistGraph(make_part(other, assignment, rank, size), group, mode=mode)
    x = torch.randn(NODES, 8, dtype=torch.float64)
    edge_attr = torch.randn(graph.num_edges, 3, dtype=torch.float64)
    for fill in ("mean", "add", "max", "min", "mul", 0.5, torch.randn(3)):
        layers = [
            GATConv(8, 4, heads=4, edge_dim=3, fill_value=fill),
            GATv2Conv(16, 7, heads=2),
            TransformerConv(14, 5),
        ]
        a, b, c = (layer.double() for layer in layers)

        def run(g: Any, rows: Any, own: Any, a: Any = a, b: Any = b, c: Any = c) -> list[Tensor]:
            h = x[rows].clone().requires_grad_()
            of_edges = edge_attr[own].clone().requires_grad_()
            second = other if g is graph else mine_too
            hidden = a(h, g, of_edges)
            out = c(b(hidden.relu(), second) + b(hidden, g), g)
            out.square().sum().backward()
            return [out.detach(), h.grad, of_edges.grad]

        wanted, found = both(graph, part, mine, run)
        for theirs, ours, rows in zip(
            wanted, found, (part.dst_nodes, part.dst_nodes, part.edges), strict=True
        ):
            torch.testing.assert_close(ours, theirs[rows], **CLOSE)


@pytest.mark.parametrize("mode", MODES)
def test_several_graphs_and_layers(processes: Processes, mode: str) -> None:
    processes.run(check_several, SIZE, mode)
