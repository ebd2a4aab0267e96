"""Operators, layers and models, forward and backward, on graphs large enough for several threads.

For the attacks that compare bits.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import torch
from layers import all_cases
from test_determinism import results_and_gradients
from torch import Tensor

from gat_ext import Graph, functional, models
from gat_ext.reference import SCORES
from gat_ext.testing import sample_inputs

CASES = all_cases("determinism")


class Step(NamedTuple):
    """A function that returns results and gradients, the same ones whenever it is called.

    Attributes:
        dense: it computes matrix products too, whose bits depend on the number of threads unless
            torch is in deterministic mode.
    """

    name: str
    run: Callable[[], list[Tensor]]
    dense: bool


def edges_of(rnd: Random, num_nodes: int) -> Tensor:
    """Random edges; of some graphs many are of one destination or source."""
    generator = torch.Generator().manual_seed(rnd.getrandbits(32))
    edges = torch.randint(
        num_nodes, (2, rnd.choice([0, 7, 900, 5_000, 20_000])), generator=generator
    )
    hub, part = rnd.randint(0, 1), rnd.choice([0, 0, edges.shape[1] // 2])
    edges[hub, :part] = rnd.randrange(num_nodes)
    return edges


def draw_steps(rnd: Random, count: int, dropout: bool) -> list[Step]:
    """Steps that share a graph, its edge_index and layers.

    Args:
        rnd: where they come from.
        count: how many.
        dropout: some draw random numbers, after setting torch's seed: not for several threads.
    """
    num_nodes = rnd.choice([1, 30, 700, 3_000])
    edges = edges_of(rnd, num_nodes)
    graph = Graph(edges.clone(), num_nodes=num_nodes)
    seed = rnd.getrandbits(32)
    draws = [_attention, _sparse, _walk, _graph, _layer, _layer, _model]
    return [rnd.choice(draws)(rnd, graph, edges, dropout, seed + n) for n in range(count)]


def _values(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype).requires_grad_()


def _dtype(rnd: Random) -> torch.dtype:
    return rnd.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16])


def _attention(rnd: Random, graph: Graph, edges: Tensor, dropout: bool, seed: int) -> Step:
    score, dtype = rnd.choice(list(SCORES)), _dtype(rnd)
    # The inverse norm of a row of one channel can exceed float16, which makes results NaN.
    sizes = [5, 5, 8, 16] if dtype == torch.float16 else [1, 5, 8, 16]
    heads, channels = rnd.randint(1, 4), rnd.choice(sizes)
    given = sample_inputs(score, graph, heads, channels, dtype, seed=seed, requires_grad=True)
    option = rnd.choice(list(given))
    inputs = given[option]
    leaves = [t for t in inputs.values() if isinstance(t, Tensor) and t.requires_grad]

    def run() -> list[Tensor]:
        out = functional.edge_attention(graph, **inputs, return_weights=True, return_lse=True)
        return results_and_gradients(out, leaves)

    return Step(f"edge_attention {score} {option} {dtype} {heads} x {channels}", run, dense=False)


def _sparse(rnd: Random, graph: Graph, edges: Tensor, dropout: bool, seed: int) -> Step:
    dtype, heads = _dtype(rnd), rnd.randint(1, 4)
    x, y = (_values(seed + n, graph.num_nodes, heads, 6, dtype=dtype) for n in range(2))
    weight = _values(seed + 2, graph.num_edges, heads, dtype=dtype)
    reduce, by = rnd.choice(["sum", "mean", "max", "min"]), rnd.choice(["dst", "src"])
    kinds: dict[str, tuple[Callable[[], Any], list[Tensor]]] = {
        "sddmm": (lambda: functional.sddmm(graph, x, y), [x, y]),
        f"edge_softmax {by}": (lambda: functional.edge_softmax(graph, weight, by=by), [weight]),
        f"spmm {reduce}": (lambda: functional.spmm(graph, x, weight, reduce=reduce), [x, weight]),
    }
    name = rnd.choice(list(kinds))
    function, leaves = kinds[name]
    return Step(
        f"{name} {dtype} {heads}", lambda: results_and_gradients(function(), leaves), dense=False
    )


def _walk(rnd: Random, graph: Graph, edges: Tensor, dropout: bool, seed: int) -> Step:
    number = torch.tensor([seed])
    starts = torch.randint(graph.num_nodes, (rnd.choice([3, 2_000]),))
    rank = torch.rand(len(starts), 3).requires_grad_()
    types = torch.arange(graph.num_nodes) % 3
    weight = torch.rand(graph.num_edges) if rnd.random() < 0.5 else None

    def run() -> list[Tensor]:
        walks = functional.random_walk(graph, starts, 5, weight=weight, seed=number)
        step = functional.walk_step(graph, starts, rank, types, seed=number)
        return [walks, *results_and_gradients(step, [rank])]

    return Step("walks", run, dense=False)


def _graph(rnd: Random, graph: Graph, edges: Tensor, dropout: bool, seed: int) -> Step:
    def run() -> list[Tensor]:
        parts = [graph, graph.to_undirected(), graph.add_self_loops(), graph.reverse()]
        transposes = [part for one in parts for part in one.transpose() if part is not None]
        again = Graph(edges, num_nodes=graph.num_nodes)
        return [again.rowptr, again.col, *transposes, graph.in_degrees(), graph.out_degrees()]

    return Step("Graph", run, dense=False)


def _layer(rnd: Random, graph: Graph, edges: Tensor, dropout: bool, seed: int) -> Step:
    case, dtype = rnd.choice(CASES), rnd.choice([torch.float32, torch.float64])
    drops = case.layer.random if dropout else {}
    channels = rnd.choice([3, 40])
    layer = case.make(channels, rnd.choice([1, 8]), **drops).to(dtype)
    x = _values(seed, graph.num_nodes, channels, dtype=dtype)
    more = case.edge_attr(graph.num_edges, dtype)
    adjacency = rnd.choice([graph, edges, edges])

    def run() -> list[Tensor]:
        if dropout:
            torch.manual_seed(seed)
        return results_and_gradients(layer(x, adjacency, *more), [x, *layer.parameters()])

    return Step(f"{case} {dtype}", run, dense=True)


def _model(rnd: Random, graph: Graph, edges: Tensor, dropout: bool, seed: int) -> Step:
    name = rnd.choice(models.available())
    model = models.build(name)(20, 8, 5).train(dropout)
    x = _values(seed, graph.num_nodes, 20)
    adjacency = rnd.choice([graph, edges])

    def run() -> list[Tensor]:
        if dropout:
            torch.manual_seed(seed)
        return results_and_gradients(model(x, adjacency), [x, *model.parameters()])

    return Step(name, run, dense=True)


def differing(ours: list[Tensor | None], theirs: list[Tensor | None]) -> str:
    """Which results differ in a bit, or an empty text."""
    assert len(ours) == len(theirs)
    return ", ".join(
        f"result {number} {list(a.shape)}: {int((a != b).sum())} elements"
        for number, (a, b) in enumerate(zip(ours, theirs, strict=True))
        if (a is None) != (b is None) or (a is not None and not torch.equal(a, b))
    )
