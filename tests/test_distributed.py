"""Attention over a DistGraph in several processes: the results of one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from processes import Processes
from torch import Tensor

from gat_ext import Graph
from gat_ext.distributed import DistGraph, make_part, sum_over_processes
from gat_ext.functional import (
    cosine_attention,
    dot_attention,
    gat_attention,
    gatv2_attention,
)

MODES = ("overlap", "sequential", "heads", "gather")
GRAPHS = ("uniform", "power_law", "mesh", "star", "empty_part", "bipartite", "no_edges")
OPERATORS = ("gat", "gatv2", "dot", "cosine")


def edges_of(name: str, generator: torch.Generator) -> tuple[Tensor, int, int]:
    """(edge_index, num_src, num_dst)."""

    def draw(high: int, count: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    if name == "uniform":
        return torch.stack([draw(30, 140), draw(30, 140)]), 30, 30
    if name == "power_law":
        return torch.stack([draw(40, 200), (draw(40, 200) * draw(40, 200)) // 60]), 40, 40
    if name == "mesh":
        cell = torch.arange(36).view(6, 6)
        right = torch.stack([cell[:, :-1].flatten(), cell[:, 1:].flatten()])
        down = torch.stack([cell[:-1].flatten(), cell[1:].flatten()])
        one_way = torch.cat([right, down], 1)
        return torch.cat([one_way, one_way.flip(0)], 1), 36, 36
    if name == "star":
        leaves = torch.arange(1, 20)
        centre = torch.zeros_like(leaves)
        return torch.cat([torch.stack([leaves, centre]), torch.stack([centre, leaves])], 1), 21, 21
    if name == "empty_part":
        return torch.stack([draw(3, 12), draw(3, 12)]), 3, 3
    if name == "bipartite":
        return torch.stack([draw(17, 90), draw(25, 90)]), 17, 25
    return torch.empty(2, 0, dtype=torch.int64), 6, 6


def assigned(name: str, num_src: int, num_dst: int, size: int, generator: Any) -> Any:
    """The part of each node; with "empty_part", one part has no nodes."""
    if name == "empty_part":
        nodes = torch.arange(num_src) % max(size - 1, 1)
        return nodes
    of_dst = torch.randint(size, (num_dst,), generator=generator)
    if num_src != num_dst:
        return torch.randint(size, (num_src,), generator=generator), of_dst
    return of_dst


def inputs_of(
    operator: str, sizes: tuple[int, int, int], options: dict[str, Any]
) -> dict[str, Any]:
    """Leaf tensors for all nodes and edges, by name."""
    num_src, num_dst, num_edges = sizes
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    heads, channels = options.get("heads", 3), 4
    found = {"value": draw(num_src, heads, channels)}
    if operator == "gat":
        found |= {"dst_term": draw(num_dst, heads), "src_term": draw(num_src, heads)}
        if options.get("edges"):
            found["edge_term"] = draw(num_edges, heads)
    else:
        found |= {"query": draw(num_dst, heads, channels), "key": draw(num_src, heads, channels)}
        if operator == "gatv2":
            found["att"] = draw(heads, channels)
        if options.get("edges") and operator != "cosine":
            found |= {"edge_attr": draw(num_edges, 2), "edge_map": draw(heads, channels, 2)}
    if options.get("bias"):
        found["bias"] = draw(num_edges, heads)
    if options.get("mask"):
        found["edge_mask"] = draw(num_edges, heads).abs()
    return found


KINDS = {
    **dict.fromkeys(("value", "key", "src_term"), "src"),
    **dict.fromkeys(("query", "dst_term"), "dst"),
    **dict.fromkeys(("edge_term", "edge_attr", "bias", "edge_mask"), "edge"),
    **dict.fromkeys(("att", "edge_map"), "all"),
}


def call(operator: str, graph: Any, given: dict[str, Tensor], options: dict[str, Any]) -> Any:
    more: dict[str, Any] = {"return_lse": True}
    for name in ("bias", "edge_mask", "edge_attr", "edge_map"):
        if name in given:
            more[name] = given[name]
    more |= {k: options[k] for k in ("dropout_p", "top_k", "return_weights") if k in options}
    if options.get("dropout_p"):
        more["seed"] = torch.tensor([17])
    value = given["value"]
    if operator == "gat":
        terms = given["dst_term"], given["src_term"]
        return gat_attention(graph, value, *terms, edge_term=given.get("edge_term"), **more)
    query, key = given["query"], given["key"]
    if operator == "gatv2":
        shared = options.get("shared")
        return gatv2_attention(
            graph,
            query,
            value if shared else key,
            given["att"],
            value=None if shared else value,
            **more,
        )
    if operator == "dot":
        if options.get("shared"):
            return dot_attention(graph, value, value, value, **more)
        return dot_attention(graph, query, key, value, **more)
    return cosine_attention(graph, query, key, value, **more)


def compare(
    group: Any, rank: int, size: int, name: str, operator: str, mode: str, options: dict[str, Any]
) -> None:
    """Outputs, first and second gradients of own rows equal those of one process."""
    generator = torch.Generator().manual_seed(3)
    edges, num_src, num_dst = edges_of(name, generator)
    assignment = assigned(name, num_src, num_dst, size, generator)
    whole = Graph(edges, num_src=num_src, num_dst=num_dst)
    part = make_part(edges, assignment, rank, size)
    graph = DistGraph(part, group, mode=mode)
    everything = inputs_of(operator, (num_src, num_dst, edges.shape[1]), options)
    rows = {"src": part.src_nodes, "dst": part.dst_nodes, "edge": part.edges, "all": slice(None)}

    def leaves(of: Any) -> dict[str, Tensor]:
        return {k: of(k, t).clone().requires_grad_() for k, t in everything.items()}

    ours, theirs = leaves(lambda k, t: t[rows[KINDS[k]]]), leaves(lambda k, t: t)
    factor = torch.randn(num_dst, *everything["value"].shape[1:], generator=generator).double()

    def gradients(loss: Any, used: list[Tensor], **more: bool) -> list[Tensor]:
        if not (isinstance(loss, Tensor) and loss.requires_grad):
            return [torch.zeros_like(t) for t in used]
        found = torch.autograd.grad(loss, used, allow_unused=True, **more)
        return [torch.zeros_like(t) if g is None else g for g, t in zip(found, used, strict=True)]

    def first(given: dict[str, Tensor], graph: Any, factor: Tensor) -> Any:
        result = call(operator, graph, given, options)
        lse = result[-1]
        finite = torch.where(lse > -torch.inf, lse, 0)
        loss = (result[0] * factor).sum() + (finite * factor[..., 0]).sum()
        if options.get("return_weights"):
            loss = loss + result[1].square().sum()
        used = list(given.values())
        grads = gradients(loss, used, create_graph=True)
        # Not of att and W: each process has a part of their gradients only.
        own = [g for k, g in zip(given, grads, strict=True) if KINDS[k] != "all"]
        second = gradients(sum(g.square().sum() for g in own if g.requires_grad), used)
        plain = gradients((call(operator, graph, given, options)[0] * factor).sum(), used)
        return result, {"first": grads, "second": second, "plain": plain}

    expected = first(theirs, whole, factor)
    found = first(ours, graph, factor[part.dst_nodes])
    close = {"rtol": 1e-11, "atol": 1e-12}
    result, wanted = found[0], expected[0]
    torch.testing.assert_close(result[0], wanted[0][part.dst_nodes], **close)
    torch.testing.assert_close(result[-1], wanted[-1][part.dst_nodes], **close)
    if options.get("return_weights"):
        torch.testing.assert_close(result[1], wanted[1][part.edges], **close)
    for kind, grads in found[1].items():
        for key, grad, reference in zip(everything, grads, expected[1][kind], strict=True):
            if KINDS[key] == "all":
                grad = sum_over_processes(grad.detach(), group)
            message = f"{kind} gradient of {key}: {{}}".format
            wanted_rows = reference[rows[KINDS[key]]]
            torch.testing.assert_close(grad, wanted_rows, **close, msg=message)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_attention_equals_that_of_one_process(processes: Processes, size: int, mode: str) -> None:
    for name in GRAPHS:
        all_of_them = name == "bipartite" or (name == "uniform" and size == 4)
        for operator in OPERATORS if all_of_them else ("gat", "dot"):
            options = {"heads": 3 if operator == "gat" else 2}
            processes.run(compare, size, name, operator, mode, options)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options",
    [
        {"edges": True},
        {"bias": True, "edges": True, "dropout_p": 0.4},
        {"dropout_p": 0.4, "heads": 5},
        {"mask": True, "dropout_p": 0.3},
        {"top_k": 2},
        {"return_weights": True},
        {"shared": True, "edges": True},
    ],
    ids=lambda o: "-".join(o),
)
def test_options(processes: Processes, mode: str, options: dict[str, Any]) -> None:
    for operator in OPERATORS:
        processes.run(compare, 3, "uniform", operator, mode, options)
