"""Random calls of the public operators, Graph and the layers, with good and with bad arguments.

A call with good arguments equals the reference, where something is to be learned in its gradients
too; what is not finite in an input reaches only what reads it; a call with bad arguments raises a
TypeError, ValueError, IndexError or NotImplementedError, or gives numbers.
``GAT_EXT_FUZZ_CALLS=200000 pytest tests/test_fuzz.py`` makes that many calls, from other seeds each
time.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from layers import LAYERS
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.testing import assert_close

from gat_ext import Graph, functional, nn, reference
from gat_ext.reference import SCORES, walk
from gat_ext.testing import tolerance

F64 = torch.float64
REFUSALS = (TypeError, ValueError, IndexError, NotImplementedError)
CALLS = int(os.environ.get("GAT_EXT_FUZZ_CALLS", "10000"))
LONG = "GAT_EXT_FUZZ_CALLS" in os.environ
EXAMPLE_CALLS = 5  # made from one example, for to make an example takes longer than a call

# ---- what is drawn


def shuffled_graph(rnd: Random, square: bool = False) -> Graph:
    num_src = rnd.randint(0, 6)
    num_dst = num_src if square or rnd.random() < 0.5 else rnd.randint(0, 6)
    num_edges = rnd.randint(0, 14) if num_src and num_dst else 0
    generator = torch.Generator().manual_seed(rnd.getrandbits(32))
    ends = [torch.randint(max(n, 1), (num_edges,), generator=generator) for n in (num_src, num_dst)]
    if rnd.random() < 0.3:
        ends[1] = ends[1].sort().values
    edge_index = torch.stack(ends).to(rnd.choice([torch.int64, torch.int32]))
    wide = rnd.choice([None, torch.int64])
    return Graph(edge_index, num_src=num_src, num_dst=num_dst, index_dtype=wide)


class Values:
    """Draws tensors of one dtype, some of them not contiguous, some that require gradients."""

    def __init__(self, rnd: Random, dtype: torch.dtype | None = None) -> None:
        dtypes = [F64, F64, torch.float32, torch.float32, torch.bfloat16, torch.float16]
        self.rnd, self.dtype = rnd, dtype or rnd.choice(dtypes)
        self.generator = torch.Generator().manual_seed(rnd.getrandbits(32))
        self.with_grad = rnd.random() < 0.4

    def normal(self, *shape: int) -> Tensor:
        x = torch.randn(shape, generator=self.generator, dtype=F64).to(self.dtype)
        if self.rnd.random() < 0.2:
            x = _strided(self.rnd, x)
        return x.requires_grad_(self.with_grad and self.rnd.random() < 0.8)


def _strided(rnd: Random, x: Tensor) -> Tensor:
    """The same numbers in other strides."""
    how = rnd.randint(0, 2)
    if how == 0 and x.dim() > 1:
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if how == 1:
        return torch.stack([x, x], dim=-1)[..., 1]
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


def attention_call(rnd: Random) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    graph, draw = shuffled_graph(rnd), Values(rnd)
    heads, channels, out_channels = rnd.randint(1, 3), rnd.randint(0, 6), rnd.randint(0, 6)
    score = rnd.choice(list(SCORES))
    reads = reference.score_inputs(score)
    shapes = {
        "query": (graph.num_dst, heads, channels),
        "key": (graph.num_src, heads, channels),
        "att": (heads, channels),
        "dst_term": (graph.num_dst, heads),
        "src_term": (graph.num_src, heads),
    }
    inputs: dict[str, Any] = {
        "score": score,
        "value": draw.normal(graph.num_src, heads, out_channels),
    }
    inputs |= {name: draw.normal(*shape) for name, shape in shapes.items() if name in reads}
    if rnd.random() < 0.3:
        inputs["bias"] = draw.normal(graph.num_edges, heads)
    if "src_term" in reads and rnd.random() < 0.3:
        inputs["edge_term"] = draw.normal(graph.num_edges, heads)
    if "query" in reads and rnd.random() < 0.3:
        inputs["edge_feat"] = draw.normal(graph.num_edges, heads, channels)
        inputs["edge_in_value"] = channels == out_channels
    return functional.edge_attention, (graph,), inputs | _attention_options(rnd)


def _attention_options(rnd: Random) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if rnd.random() < 0.2:
        options["top_k"] = rnd.randint(1, 4)
    if rnd.random() < 0.2:
        options["dropout_p"] = rnd.choice([0.0, 0.3, 1.0])
        options["seed"] = torch.tensor([rnd.getrandbits(62)])
    for name in ("return_weights", "return_lse"):
        if rnd.random() < 0.3:
            options[name] = True
    if rnd.random() < 0.3:
        options |= {
            "negative_slope": rnd.choice([0.0, -0.5, 1.0, 2]),
            "scale": rnd.choice([0, -1.5, 2]),
        }
    return options


def named_call(rnd: Random) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    graph, draw = shuffled_graph(rnd), Values(rnd)
    heads, channels = rnd.randint(1, 3), rnd.randint(0, 5)
    query, key, value = (
        draw.normal(n, heads, channels) for n in (graph.num_dst, graph.num_src, graph.num_src)
    )
    options = _attention_options(rnd)
    options.pop("scale", None)
    slope = {"negative_slope": options.pop("negative_slope", 0.2)}
    edge_feat = (
        {} if rnd.random() < 0.6 else {"edge_feat": draw.normal(graph.num_edges, heads, channels)}
    )
    which = rnd.randint(0, 3)
    if which == 0:
        terms = draw.normal(graph.num_dst, heads), draw.normal(graph.num_src, heads)
        return functional.gat_attention, (graph, value, *terms), options | slope
    if which == 1:
        att = draw.normal(heads, channels)
        return functional.gatv2_attention, (graph, query, key, att), options | slope | edge_feat
    if which == 2:
        scale = {"scale": rnd.choice([None, 0.7])}
        return functional.dot_attention, (graph, query, key, value), options | scale | edge_feat
    beta = {"beta": rnd.choice([1.0, 2, draw.normal(heads), draw.normal()])}
    return functional.cosine_attention, (graph, query, key, value), options | beta


def sparse_call(rnd: Random) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    graph, draw = shuffled_graph(rnd), Values(rnd)
    middle = (rnd.randint(1, 3),) if rnd.random() < 0.7 else ()
    channels, which = rnd.randint(0, 6), rnd.randint(0, 2)
    y = draw.normal(graph.num_src, *middle, channels)
    if which == 0:
        by = {"by": rnd.choice(["dst", "src"])}
        return functional.edge_softmax, (graph, draw.normal(graph.num_edges, *middle)), by
    if which == 1:
        return functional.sddmm, (graph, draw.normal(graph.num_dst, *middle, channels), y), {}
    weight = draw.normal(graph.num_edges, *rnd.choice([(), middle])) if rnd.random() < 0.6 else None
    reduce = {"reduce": rnd.choice(["sum", "mean", "max", "min"])}
    return functional.spmm, (graph, y, weight), reduce


def walk_call(rnd: Random) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    graph, draw = shuffled_graph(rnd, square=True), Values(rnd, rnd.choice([F64, torch.float32]))
    agents = rnd.randint(0, 5) if graph.num_nodes else 0
    seed = {"seed": torch.tensor([rnd.getrandbits(62)])}
    place = torch.randint(max(graph.num_nodes, 1), (agents,), generator=draw.generator)
    if rnd.random() < 0.4:
        weight = draw.normal(graph.num_edges).abs() if rnd.random() < 0.5 else None
        length = rnd.randint(0, 5)
        return functional.random_walk, (graph, place, length), seed | {"weight": weight}
    types = rnd.randint(1, 4)
    rank = draw.normal(agents, types).detach().abs().requires_grad_(draw.with_grad)
    node_type = torch.randint(types, (graph.num_nodes,), generator=draw.generator)
    options = {"mode": rnd.choice(["sample", "greedy"]), "step": rnd.randint(0, 9)}
    return functional.walk_step, (graph, place, rank, node_type), seed | options


def graph_call(rnd: Random) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    graph = shuffled_graph(rnd)
    edge_index = graph.edge_index.to(rnd.choice([torch.int64, torch.int32]))
    counts: dict[str, Any] = {"num_src": graph.num_src, "num_dst": graph.num_dst}
    if rnd.random() < 0.3:
        counts = {"num_nodes": rnd.choice([None, max(graph.num_src, graph.num_dst)])}
    dtype = rnd.choice([None, torch.int64, torch.int32])
    return Graph, (edge_index,), counts | {"index_dtype": dtype}


# ---- what is spoilt

SCALARS: list[Any] = [
    None, "x", "", -1, 0, 3, 0.5, 1.5, -0.0, True, 2**63, 10**30, 1e38,
    math.nan, math.inf, -math.inf, 1j, [], (), {}, b"x", object(), np.float32(0.5), np.int64(2),
    torch.tensor(0.5), torch.tensor([2]), torch.tensor([0.1, 0.2]), torch.float64,
]  # fmt: skip


NUMBERS: dict[torch.dtype, list[Any]] = {
    torch.int64: [-1, 99, 2**62, -(2**63)],
    torch.int32: [-1, 99, -(2**31)],
} | {dtype: [1e30, -1.0] for dtype in (F64, torch.float32, torch.float16, torch.bfloat16)}
"""What a tensor is spoilt with."""


def spoilt_tensor(rnd: Random, x: Tensor) -> Any:
    """Another thing in the place of a tensor."""
    which = rnd.randint(0, 11)
    detached = x.detach()
    if x.device.type == "meta" or x.layout != torch.strided:
        return detached
    if which == 0:
        return rnd.choice(SCALARS)
    if which == 1:
        return detached.to(
            rnd.choice(
                [
                    torch.int64,
                    torch.int32,
                    torch.bool,
                    torch.complex64,
                    F64,
                    torch.bfloat16,
                    torch.uint8,
                ]
            )
        )
    if which == 2:
        return detached.unsqueeze(rnd.randint(0, x.dim()))
    if which == 3:
        return detached.reshape(-1)
    if which == 4:
        return x.new_zeros(())
    if which == 5 and x.dim():
        shape = list(x.shape)
        shape[rnd.randrange(len(shape))] = rnd.choice([0, 1, 2, 7])
        return x.new_ones(shape)
    if which == 6:
        return detached.to("meta")
    if which == 7 and x.numel() and x.dtype in NUMBERS:
        y = detached.clone(memory_format=torch.contiguous_format)
        y.view(-1)[rnd.randrange(y.numel())] = rnd.choice(NUMBERS[x.dtype])
        return y
    if which == 8:
        return detached.float().to_sparse() if x.dim() else x.tolist()
    if which == 9:
        return detached.float().numpy()
    if which == 10:
        return x.tolist()
    return (x, x)


def spoil(
    rnd: Random, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with one or two of them changed, left out, or added."""
    changed: dict[Any, Any] = dict(enumerate(args)) | kwargs
    for _ in range(rnd.choice([1, 1, 2])):
        name = rnd.choice(list(changed))
        value = changed[name]
        changed[name] = (
            spoilt_tensor(rnd, value)
            if isinstance(value, Tensor) and rnd.random() < 0.9
            else rnd.choice(SCALARS)
        )
        if isinstance(name, str) and rnd.random() < 0.1:
            del changed[name]
    return tuple(changed[i] for i in range(len(args))), {
        n: v for n, v in changed.items() if isinstance(n, str)
    }


# ---- what is checked


def tensors_of(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, tuple):
        return [t for part in result for t in tensors_of(part)]
    return [result.rowptr, result.col] if isinstance(result, Graph) else []


def attempt(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result, or None if the call was refused; checks the dtypes of results and gradients."""
    try:
        result = function(*args, **kwargs)
    except REFUSALS as error:
        assert type(error) in REFUSALS and str(error), repr(error)
        return None
    differentiable = [t for t in tensors_of(result) if t.requires_grad]
    if differentiable:
        torch.autograd.backward(differentiable, [torch.ones_like(t) for t in differentiable])
    return result


def moderate(values: list[Any]) -> bool:
    """Whether no sum of a few products of these leaves float16."""
    tensors = [
        t.detach()
        for t in values
        if isinstance(t, Tensor) and t.is_floating_point() and t.device.type == "cpu"
    ]
    dense = [t for t in tensors if t.layout == torch.strided and t.numel()]
    numbers = [
        v for v in values if isinstance(v, (float, int, np.number)) and not isinstance(v, bool)
    ]
    return all(t.abs().max() < 20 for t in dense) and all(abs(n) < 20 for n in numbers)


def check_spoilt(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    result = attempt(function, args, kwargs)
    if function is functional.walk_step or not moderate([*args, *kwargs.values()]):
        return  # log p is NaN where a rank is negative
    for t in tensors_of(result):
        assert t.device.type == "meta" or not t.is_floating_point() or not t.isnan().any()


def exact_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Arguments for the reference: float64 leaves, and its argument for dropout_p and seed."""

    def exact(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.detach().to(F64).requires_grad_(value.requires_grad)
        return value

    args, kwargs = tuple(map(exact, args)), {name: exact(value) for name, value in kwargs.items()}
    if function is functional.walk_step:
        numbers = walk.uniform_numbers(int(kwargs.pop("seed")), len(args[1]), kwargs.pop("step"))
        return walk.walk_step, (*args, numbers), kwargs
    if function is functional.random_walk:
        graph, start, length = args
        seed = int(kwargs.pop("seed"))
        numbers = [walk.uniform_numbers(seed, len(start), t) for t in range(length)]
        uniforms = torch.stack(numbers, dim=1) if numbers else torch.empty(len(start), 0)
        return walk.random_walk, (graph, start, uniforms), kwargs
    p, seed = kwargs.pop("dropout_p", 0.0), kwargs.pop("seed", None)
    if p > 0:
        first = kwargs["value"] if "value" in kwargs else args[1]
        kwargs["dropout_mask"] = reference.dropout_mask(
            seed, args[0].num_edges, first.shape[1], p, F64
        )
    return getattr(reference, function.__name__), args, kwargs


def check_good(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Values and gradients equal the reference's; top_k may pick either of two equal scores."""
    ours = tensors_of(function(*args, **kwargs))
    given = [
        t for t in [*args, *kwargs.values()] if isinstance(t, Tensor) and t.is_floating_point()
    ]
    dtype = given[0].dtype if given else F64
    for t in ours:
        assert not t.is_floating_point() or not t.isnan().any()
    chooses = {"top_k", "mode"} & kwargs.keys() or kwargs.get("reduce") in ("max", "min")
    if chooses and dtype != F64:
        return
    theirs_of, exact_args, exact_kwargs = exact_arguments(function, args, kwargs)
    theirs = tensors_of(theirs_of(*exact_args, **exact_kwargs))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert_within_rounding(a, b, dtype)
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.requires_grad]
    if not pairs or dtype not in (F64, torch.float32):
        return
    upstream = [
        torch.randn(a.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
        for a, _ in pairs
    ]
    # lse of a row without edges is -inf: what flows into it is not a number, and is dropped by
    # both.
    exact = [
        t
        for t in [*exact_args, *exact_kwargs.values()]
        if isinstance(t, Tensor) and t.requires_grad
    ]
    leaves = [t for t in given if t.requires_grad]
    grads = torch.autograd.grad(
        [a for a, _ in pairs],
        leaves,
        [u.to(a.dtype) for u, (a, _) in zip(upstream, pairs, strict=True)],
        allow_unused=True,
    )
    live = [(b, u) for (_, b), u in zip(pairs, upstream, strict=True) if b.requires_grad]
    expected: tuple[Tensor | None, ...] = (None,) * len(exact)
    if live:
        expected = torch.autograd.grad(
            [b for b, _ in live], exact, [u for _, u in live], allow_unused=True
        )
    for a, b, leaf in zip(grads, expected, leaves, strict=True):
        zero = torch.zeros_like(leaf)
        assert_within_rounding(zero if a is None else a, zero.to(F64) if b is None else b, dtype)


def check_reach(rnd: Random, graph: Graph, inputs: dict[str, Any]) -> None:
    """A non-finite row of an input changes no bit of destinations that do not read that row."""
    readers = {
        "value": 0,
        "key": 0,
        "src_term": 0,
        "query": 1,
        "dst_term": 1,
        "bias": 2,
        "edge_term": 2,
        "edge_feat": 2,
    }
    name = rnd.choice([n for n in readers if n in inputs and inputs[n].numel()] or [None])
    if name is None:
        return
    poisoned = inputs[name].detach().clone(memory_format=torch.contiguous_format)
    row = rnd.randrange(poisoned.shape[0])
    poisoned[row].view(-1)[rnd.randrange(poisoned[row].numel())] = rnd.choice(
        [math.nan, math.inf, -math.inf]
    )
    src, dst = graph.edge_index
    spared = torch.ones(graph.num_dst, dtype=torch.bool)
    if readers[name] == 1:
        spared[row] = False
    else:
        spared[dst[src == row] if readers[name] == 0 else dst[row]] = False
    clean = tensors_of(functional.edge_attention(graph, **inputs))
    other = tensors_of(functional.edge_attention(graph, **{**inputs, name: poisoned}))
    for a, b, by_edge in zip(
        clean, other, [False, inputs.get("return_weights", False), False], strict=False
    ):
        rows = spared[dst] if by_edge else spared
        assert torch.equal(a[rows], b[rows])


def assert_within_rounding(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> None:
    bounds = tolerance(dtype)
    theirs = theirs.detach()
    finite = theirs[theirs.isfinite()] if theirs.is_floating_point() else theirs
    scale = max(1.0, float(finite.abs().max())) if finite.numel() else 1.0
    bounds["atol"] *= 10 * scale
    assert_close(ours.to(theirs.dtype), theirs, **bounds)


# ---- layers


@contextlib.contextmanager
def by_reference(name: str):
    """The layer with the reference in the place of the operator."""
    layer = LAYERS[name]
    theirs = getattr(reference, layer.operator)

    def without_dropout(*args: Any, dropout_p: float = 0.0, **kwargs: Any) -> Any:
        assert dropout_p == 0
        return theirs(*args, **kwargs)

    with mock.patch.object(layer.kind, "operator", staticmethod(without_dropout)):
        yield


def layer_options(rnd: Random, name: str) -> dict[str, Any]:
    if name == "AGNNConv":
        return {"requires_grad": rnd.random() < 0.7, "add_self_loops": rnd.random() < 0.5}
    options: dict[str, Any] = {
        "in_channels": rnd.choice([3, 3, 3, (3, 4), -1]),
        "out_channels": rnd.randint(1, 4),
        "heads": rnd.randint(1, 3),
        "concat": rnd.random() < 0.6,
        "dropout": rnd.choice([0.0, 0.5]),
        "edge_dim": rnd.choice([None, None, 2]),
        "bias": rnd.random() < 0.7,
    }
    if name == "TransformerConv":
        return options | {"beta": rnd.random() < 0.3, "root_weight": rnd.random() < 0.7}
    options |= {
        "add_self_loops": rnd.random() < 0.6,
        "residual": rnd.random() < 0.3,
        "negative_slope": rnd.choice([0.2, 0.0]),
    }
    options |= {"fill_value": rnd.choice(["mean", "add", "min", "max", "mul", 1.0])}
    return options


def layer_call(rnd: Random) -> None:
    """Makes a layer and calls it, both with good or spoilt arguments."""
    name = rnd.choice(list(LAYERS))
    options = layer_options(rnd, name)
    if rnd.random() < 0.25:
        options = spoil(rnd, (), options)[1]
        note(f"{name}(**{options})")
        with contextlib.suppress(*REFUSALS):
            getattr(nn, name)(**options)
        return
    torch.manual_seed(rnd.getrandbits(32))
    layer = getattr(nn, name)(**options).to(F64)
    draw = Values(rnd, F64)
    pair = isinstance(options.get("in_channels"), tuple)
    graph = shuffled_graph(rnd, square=not pair)
    x: Any = draw.normal(graph.num_src, 3)
    if pair:
        x = x, draw.normal(graph.num_dst, 4)
    arguments: dict[str, Any] = {"x": x, "edge_index": rnd.choice([graph, graph.edge_index])}
    if options.get("edge_dim"):
        arguments["edge_attr"] = draw.normal(graph.num_edges, 2)
    if rnd.random() < 0.3:
        arguments["return_attention_weights"] = True
    if rnd.random() < 0.5:
        layer.train(rnd.random() < 0.5)
        _, arguments = spoil(rnd, (), arguments)
        note(f"{layer} {options} on {arguments}")
        attempt(layer, (), arguments)
        return
    note(f"{layer} {options} on {arguments}")
    layer.eval()

    def run() -> list[Tensor]:
        results = [t for t in tensors_of(layer(**arguments)) if t.is_floating_point()]
        leaves = [
            t
            for t in [x, *layer.parameters()]
            if isinstance(t, Tensor) and t.requires_grad and not is_lazy(t)
        ]
        total = sum((t.square().sum() for t in results), torch.zeros((), dtype=F64))
        grads = torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else ()
        return results + [torch.zeros(()) if g is None else g for g in grads]

    ours = run()
    with by_reference(name):
        theirs = run()
    for a, b in zip(ours, theirs, strict=True):
        assert not a.isnan().any()
        assert_within_rounding(a, b.expand_as(a), F64)


# ---- the calls


def operator_call(rnd: Random, make: Callable[[Random], Any]) -> None:
    function, args, kwargs = make(rnd)
    bad = rnd.random() < 0.6
    if bad:
        args, kwargs = spoil(rnd, args, kwargs)
    note(f"{getattr(function, '__name__', function)} {args} {kwargs}")
    if bad:
        check_spoilt(function, args, kwargs)
    elif function is functional.edge_attention and rnd.random() < 0.3:
        check_reach(rnd, *args, kwargs)
    elif function is Graph:
        check_graph(Graph(*args, **kwargs), args[0])
    else:
        check_good(function, args, kwargs)


def check_graph(graph: Graph, edge_index: Tensor) -> None:
    assert torch.equal(graph.edge_index, edge_index.long())
    assert graph.transpose().rowptr.diff().sum() == graph.num_edges
    assert torch.equal(graph.reverse().reverse().edge_index, graph.edge_index)


TARGETS: dict[str, tuple[int, Callable[[Random], None]]] = {
    "edge_attention": (35, lambda rnd: operator_call(rnd, attention_call)),
    "its four names": (15, lambda rnd: operator_call(rnd, named_call)),
    "edge_softmax, sddmm, spmm": (15, lambda rnd: operator_call(rnd, sparse_call)),
    "walk_step, random_walk": (10, lambda rnd: operator_call(rnd, walk_call)),
    "Graph": (10, lambda rnd: operator_call(rnd, graph_call)),
    "layers": (15, layer_call),
}
"""Share of the calls in percent, and what makes one."""


def test_shares_add_up():
    assert sum(share for share, _ in TARGETS.values()) == 100 and CALLS >= 10_000


@pytest.mark.parametrize("target", TARGETS)
def test_random_calls(target):
    share, call = TARGETS[target]
    wanted, made = math.ceil(CALLS * share / 100), 0

    @settings(
        max_examples=math.ceil(wanted / EXAMPLE_CALLS),
        derandomize=not LONG,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def run(rnd):
        nonlocal made
        for _ in range(EXAMPLE_CALLS):
            call(rnd)
            made += 1

    run()
    assert made >= wanted
