"""What runs in the process that measures: points are prepared, checked and sampled here."""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace
from typing import Any

import torch
from bench_operators import OPERATORS
from cases import DTYPES, Setting
from compare import differences, tolerance, verdict
from measure import Roofline, peak_memory, sample, step
from peers import Program
from sweep_graphs import SEED, GraphSpec, make_graph
from sweep_plan import Point
from torch import Tensor

from gat_ext import Graph, functional, reference

_SMALL_NODES, _SMALL_EDGES = 100, 1000
_PART_EDGES, _CANDIDATES = 50_000, 32


class WrongResultError(Exception):
    """A result differs from the reference; the message is one sentence."""


@dataclass
class Held:
    """A point that is ready to be timed."""

    point: Point
    programs: dict[str, Program]
    grad_out: Tensor
    roofline: Roofline


_held: dict[str, Held] = {}


def limit_memory(limit: int) -> None:
    """Makes more than ``limit`` bytes of data an error here, before the system ends the process."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


# ---- programs


def _tensors(point: Point, graph: Graph) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
    """The inputs of each operator, which share those of one shape, and the upstream gradient."""
    generator = torch.Generator().manual_seed(SEED)
    setting = Setting(heads=point.heads, channels=point.channels, dtype=point.dtype)
    drawn: dict[tuple[tuple[int, ...], int], Tensor] = {}

    def draw(shape: tuple[int, ...], count: int) -> Tensor:
        if (shape, count) not in drawn:
            tensor = torch.randn(shape, generator=generator, dtype=DTYPES[point.dtype])
            drawn[shape, count] = tensor
        return drawn[shape, count]

    inputs = {}
    for name in point.operators:
        seen: list[tuple[int, ...]] = []
        inputs[name] = {}
        for key, shape in OPERATORS[name].shapes(setting, graph.num_dst, graph.num_edges).items():
            inputs[name][key] = draw(shape, seen.count(shape)).requires_grad_()
            seen.append(shape)
    shape = (graph.num_dst, point.heads, point.channels)
    return inputs, torch.randn(shape, generator=generator, dtype=DTYPES[point.dtype])


def _hold(point: Point) -> tuple[Held, Graph, float]:
    graph, seconds = make_graph(point.graph)
    graph.transpose()
    inputs, grad_out = _tensors(point, graph)
    programs = {
        name: Program(
            getattr(functional, name),
            (graph, *tensors.values()),
            {(k,): t for k, t in tensors.items()},
        )
        for name, tensors in inputs.items()
    }
    rows = torch.randn(graph.num_src, point.heads * point.channels).to(DTYPES[point.dtype])
    roofline = Roofline(rows, graph.rowptr.to(graph.col.dtype), graph.col)
    return Held(point, programs, grad_out, roofline), graph, seconds


# ---- equal?


@dataclass
class Part:
    """All that the results of some nodes depend on.

    Attributes:
        nodes: numbers in the whole graph of the part's nodes.
        graph: edges among those: every one into the checked nodes, and into the destinations that
            they are sources of, which their gradients need.
        out: which of the part's nodes have the right output in it, and ``grads`` gradient.
        whole: whether this is the whole graph.
    """

    nodes: Tensor
    graph: Graph
    out: Tensor
    grads: Tensor
    whole: bool


def _take_part(graph: Graph) -> Part:
    """The whole graph if it is small, else nodes drawn at random, and the output of the longest row."""
    if graph.num_edges <= _PART_EDGES:
        every = torch.arange(graph.num_nodes)
        return Part(every, graph, every, every, whole=True)
    transpose, degrees = graph.transpose(), graph.in_degrees()
    generator = torch.Generator().manual_seed(SEED)
    picks = torch.randint(graph.num_nodes, (_CANDIDATES,), generator=generator).unique()
    needs = []
    for node in picks:
        reached = transpose.col[transpose.rowptr[node] : transpose.rowptr[node + 1]]
        needs.append(torch.cat([node[None], reached.long()]).unique())
    cost = torch.stack([degrees[rows].sum() for rows in needs])
    cheapest = cost.argsort()
    cheapest = cheapest[cost[cheapest].cumsum(0) <= _PART_EDGES]
    longest = degrees.argmax()[None]
    rows = torch.cat([longest, *(needs[i] for i in cheapest)]).unique()
    counts = degrees[rows]
    first = graph.rowptr[rows] - (counts.cumsum(0) - counts)
    positions = torch.arange(int(counts.sum())) + first.repeat_interleave(counts)
    src = graph.col[positions].long()
    nodes = torch.cat([src, rows]).unique()
    edges = torch.stack([src, rows.repeat_interleave(counts)])
    grads = torch.searchsorted(nodes, picks[cheapest])
    return Part(
        nodes=nodes,
        graph=Graph(torch.searchsorted(nodes, edges), len(nodes)),
        out=torch.cat([grads, torch.searchsorted(nodes, longest)]),
        grads=grads,
        whole=False,
    )


def _check(held: Held, name: str, part: Part, out: Tensor) -> float:
    """The largest difference of ``out`` and of the leaves' gradients from float64.

    Raises:
        WrongResultError: it is more than rounding explains.
    """
    program = held.programs[name]
    leaves = {names[0]: leaf for names, leaf in program.leaves.items()}
    wide = {
        key: (leaf if key == "att" else leaf[part.nodes]).detach().double().requires_grad_()
        for key, leaf in leaves.items()
    }
    want_out = getattr(reference, name)(part.graph, **wide)
    want_out.backward(held.grad_out[part.nodes].double())
    got, want = {}, {}
    for key, leaf in leaves.items():
        assert leaf.grad is not None and wide[key].grad is not None
        if key != "att":
            got[key], want[key] = leaf.grad[part.nodes[part.grads]], wide[key].grad[part.grads]
        elif part.whole:  # every edge adds to this one
            got[key], want[key] = leaf.grad, wide[key].grad
    errors = differences(
        {"out": out.detach()[part.nodes[part.out]], "grads": got},
        {"out": want_out.detach()[part.out], "grads": want},
        [[key] for key in got],
    )
    limit = tolerance(held.point.dtype, "gat_ext")
    sentence = verdict(errors, limit, "the reference in float64")
    if sentence is not None:
        raise WrongResultError(f"{name}, N = {len(out):,}: {sentence}")
    return max(errors.values())


def _step_and_check(held: Held, name: str, part: Part) -> tuple[float, dict[str, list[float]]]:
    gather = held.roofline.gather()
    found = step(held.programs[name], held.grad_out)
    forward, backward = 1e3 * found.forward, 1e3 * found.backward
    error = _check(held, name, part, found.out)
    _forget_gradients(held)
    return error, {"gather": [gather], "forward": [forward], "total": [forward + backward]}


def _forget_gradients(held: Held) -> None:
    for program in held.programs.values():
        for leaf in program.leaves.values():
            leaf.grad = None


def _small(graph: GraphSpec) -> GraphSpec:
    return replace(
        graph, nodes=min(graph.nodes, _SMALL_NODES), edges=min(graph.edges, _SMALL_EDGES)
    )


# ---- what the session calls


def prepare(label: str, point: Point) -> dict[str, Any]:
    """Checks a point on a small graph, then on its own, and holds it ready.

    Returns:
        The graph's figures, each operator's largest error, and what the checked step took.

    Raises:
        WrongResultError: a result differs from the reference.
    """
    torch.set_num_threads(point.threads)
    small, graph, _ = _hold(replace(point, graph=_small(point.graph)))
    for name in point.operators:
        _step_and_check(small, name, _take_part(graph))
    held, graph, seconds = _hold(point)
    part = _take_part(graph)
    checked = {name: _step_and_check(held, name, part) for name in point.operators}
    _held[label] = held
    return {
        "graph": {
            "num_nodes": graph.num_nodes,
            "num_edges": graph.num_edges,
            "max_in_degree": int(graph.in_degrees().max()),
            "reorder_seconds": seconds,
        },
        "errors": {name: error for name, (error, _) in checked.items()},
        "first": {name: times for name, (_, times) in checked.items()},
        "copy": held.roofline.copy(),
    }


def measure(label: str, min_seconds: float) -> tuple[float, dict[str, dict[str, list[float]]]]:
    """Copy bandwidth in GB/s, and by operator milliseconds of the bare gather beside its own."""
    held = _held[label]
    torch.set_num_threads(held.point.threads)
    times = {}
    for name, program in held.programs.items():
        own = sample(program, held.grad_out, min_seconds)
        gathers = [held.roofline.gather()]
        while sum(gathers) < 1e3 * min_seconds:
            gathers.append(held.roofline.gather())
        times[name] = {"gather": gathers, "forward": own["forward"], "total": own["total"]}
        _forget_gradients(held)
    return held.roofline.copy(), times


def peak(point: Point, name: str) -> dict[str, int | bool]:
    """Memory of a step of one operator, in a process that has done nothing else."""
    torch.set_num_threads(point.threads)
    held, _, _ = _hold(replace(point, operators=(name,)))
    return peak_memory(held.programs[name], held.grad_out)
