"""Every layer and model over a DistGraph in several processes: the results of one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layers import LAYERS, Case, all_cases, full_cases, over, random_edges
from processes import Processes
from torch import Tensor

from gat_ext import Graph, nn
from gat_ext.distributed import DistGraph, make_part, sum_over_processes
from gat_ext.functional import random_walk
from gat_ext.models import (
    AGNN,
    GAM,
    GAT,
    HAN,
    HGT,
    AttentionWalk,
    GATv2,
    GraphTransformer,
    PooledModel,
)

SIZE = 3
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def summed(tensor: Tensor | None, group: Any, like: Tensor) -> Tensor:
    return sum_over_processes(torch.zeros_like(like) if tensor is None else tensor, group)


def check_layer(
    group: Any, rank: int, size: int, name: str, options: dict[str, Any], mode: str, train: bool
) -> None:
    """Output, gradients of inputs and of parameters of a layer; attention weights."""
    case = Case(name, LAYERS[name], options)
    torch.manual_seed(1)
    layer = case.make().double()
    edges = random_edges()
    x = torch.randn(9, 5, dtype=torch.float64)
    more = case.edge_attr(edges.shape[1], dtype=torch.float64)
    assignment = torch.randint(size, (9,))
    part = make_part(edges, assignment, rank, size)
    graph = DistGraph(part, group, mode=mode)
    layer.train(train)
    with torch.no_grad():  # sizes of lazy parameters
        out = layer(x, Graph(edges, num_nodes=9), *more)
    factor = torch.randn_like(out)

    def run(x: Tensor, graph: Any, more: tuple[Tensor, ...], factor: Tensor) -> Any:
        torch.manual_seed(4)
        x = x.clone().requires_grad_()
        edge_attr = [t.clone().requires_grad_() if t.is_floating_point() else t for t in more]
        layer.zero_grad()
        out = layer(x, graph, *edge_attr)
        (out * factor).sum().backward()
        of_edges = edge_attr[-1].grad if edge_attr and edge_attr[-1].is_floating_point() else None
        return out, x.grad, of_edges, [p.grad for p in layer.parameters()]

    mine = tuple(t[part.edges] if t.shape[0] == edges.shape[1] else t[part.dst_nodes] for t in more)
    wanted = run(x, Graph(edges, num_nodes=9), more, factor)
    found = run(x[part.dst_nodes], graph, mine, factor[part.dst_nodes])
    torch.testing.assert_close(found[0], wanted[0][part.dst_nodes], **CLOSE)
    torch.testing.assert_close(found[1], wanted[1][part.dst_nodes], **CLOSE)
    if wanted[2] is not None:
        torch.testing.assert_close(found[2], wanted[2][part.edges], **CLOSE)
    for parameter, ours, theirs in zip(layer.parameters(), found[3], wanted[3], strict=True):
        if theirs is not None:
            torch.testing.assert_close(summed(ours, group, parameter), theirs, **CLOSE)


@pytest.mark.one_in(3)
@over(all_cases("distributed", typed=True))
def test_layers(processes: Processes, case: Case) -> None:
    processes.run(check_layer, SIZE, case.name, case.options, "overlap", False)


@pytest.mark.parametrize("mode", ["overlap", "sequential", "heads", "gather"])
@over(full_cases("distributed", typed=True))
def test_modes_and_dropout(processes: Processes, case: Case, mode: str) -> None:
    """With dropout, whose draws are those of one process; FAConv's are those of a DistGraph."""
    options = case.options | case.layer.random
    if case.name == "FAConv":
        options.pop("dropout")
    processes.run(check_layer, SIZE, case.name, options, mode, True)


# ---- models

MODELS = {
    "gat": lambda: GAT(5, 4, 3, heads=3, norm="batch", edge_dim=2, residual=True, num_layers=3),
    "gat of features": lambda: GAT(5, 4, 3, heads=2, feat_dropout=0.3),
    "gatv2": lambda: GATv2(5, 4, 3, heads=3, norm="layer"),
    "agnn": lambda: AGNN(5, 4, 3),
    "transformer": lambda: GraphTransformer(5, 4, 3, heads=2, edge_dim=2, attn_dropout=0.2),
}


def check_model(group: Any, rank: int, size: int, name: str, batched: bool) -> None:
    """Ten epochs of training give the losses of one process, with dropout."""
    edges, edge_attr = random_edges(), torch.randn(33, 2, dtype=torch.float64)
    edge_attr = torch.randn(edges.shape[1], 2, dtype=torch.float64)
    shape = (2, 9, 5) if batched else (9, 5)
    x, labels = torch.randn(shape, dtype=torch.float64), torch.randint(3, (9,))
    part = make_part(edges, torch.randint(size, (9,)), rank, size)
    nodes = part.dst_nodes
    graph = DistGraph(part, group)

    def train(x: Tensor, graph: Any, edge_attr: Tensor, labels: Tensor, group: Any) -> list[float]:
        torch.manual_seed(7)
        model = MODELS[name]().double()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        options = {} if model.edge_dim is None else {"edge_attr": edge_attr}
        losses = []
        for _ in range(10):
            logits = model(x, graph, **options)
            one_hot = torch.nn.functional.one_hot(labels, 3)
            loss = -(logits.log_softmax(-1) * one_hot).sum() / 9
            optimizer.zero_grad()
            loss.backward()
            if group is not None:
                loss = sum_over_processes(loss.detach(), group)
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.grad = sum_over_processes(parameter.grad, group)
            optimizer.step()
            losses.append(float(loss))
        model.eval()
        with torch.no_grad():
            losses.append(float(summed_if(model(x, graph, **options).square().sum(), group)))
        return losses

    wanted = train(x, Graph(edges, num_nodes=9), edge_attr, labels, None)
    found = train(x[..., nodes, :], graph, edge_attr[part.edges], labels[nodes], group)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)


def summed_if(value: Tensor, group: Any) -> Tensor:
    return value if group is None else sum_over_processes(value, group)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_models_train_as_in_one_process(processes: Processes, name: str, batched: bool) -> None:
    for size in (1, SIZE):
        processes.run(check_model, size, name, batched)


TYPES, RELATIONS = (
    ["author", "paper"],
    [("author", "writes", "paper"), ("paper", "by", "author"), ("paper", "cites", "paper")],
)


def check_typed_model(group: Any, rank: int, size: int, name: str) -> None:
    """Logits and gradients of a model of several types of nodes, with dropout."""
    counts = {"author": 7, "paper": 11}
    edges = {
        r: torch.stack([torch.randint(counts[r[0]], (30,)), torch.randint(counts[r[2]], (30,))])
        for r in RELATIONS
    }
    x = {kind: torch.randn(count, 4, dtype=torch.float64) for kind, count in counts.items()}
    owner = {kind: torch.randint(size, (count,)) for kind, count in counts.items()}
    graphs: dict[Any, DistGraph] = {}
    for relation in RELATIONS:
        src, _, dst = relation
        assignment: Any = owner[src] if src == dst else (owner[src], owner[dst])
        graphs[relation] = DistGraph(make_part(edges[relation], assignment, rank, size), group)
    own = {kind: (owner[kind] == rank).nonzero().flatten() for kind in counts}
    kind = {"hgt": HGT, "han": HAN}[name]
    torch.manual_seed(2)
    model = kind(4, 6, 3, (TYPES, RELATIONS), "paper", heads=2).double()
    factor = torch.randn(counts["paper"], 3, dtype=torch.float64)

    def run(x: dict[str, Tensor], edges: Any, factor: Tensor) -> Any:
        torch.manual_seed(9)
        model.zero_grad()
        x = {k: t.clone().requires_grad_() for k, t in x.items()}
        out = model(x, edges)
        (out * factor).sum().backward()
        return out, x, [p.grad for p in model.parameters()]

    wanted = run(x, edges, factor)
    found = run({k: t[own[k]] for k, t in x.items()}, graphs, factor[own["paper"]])
    torch.testing.assert_close(found[0], wanted[0][own["paper"]], **CLOSE)
    for k in counts:
        torch.testing.assert_close(found[1][k].grad, wanted[1][k].grad[own[k]], **CLOSE)
    for parameter, ours, theirs in zip(model.parameters(), found[2], wanted[2], strict=True):
        if theirs is not None:
            torch.testing.assert_close(summed(ours, group, parameter), theirs, **CLOSE)


@pytest.mark.parametrize("size", [1, 2, SIZE])
@pytest.mark.parametrize("name", ["hgt", "han"])
def test_typed_models(processes: Processes, name: str, size: int) -> None:
    processes.run(check_typed_model, size, name)


def test_walks_and_pooling_need_the_whole_graph() -> None:
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    graph = DistGraph(make_part(edges, torch.zeros(3, dtype=torch.int64), 0, 1))
    pooled = PooledModel(GAT(4, 2, 2), nn.AttentionPool(torch.nn.Linear(2, 1)))
    calls = [
        lambda: pooled(torch.randn(3, 4), graph, torch.zeros(3, dtype=torch.int64)),
        lambda: random_walk(graph, torch.tensor([0]), 2),
        lambda: AttentionWalk(3, 4).loss(graph),
        lambda: GAM(4, 2)(graph, torch.zeros(3, dtype=torch.int64), torch.tensor([0, 3])),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError, match="not available on a DistGraph"):
            call()
