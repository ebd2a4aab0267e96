"""Random calls of the public operators, Graph and the layers, and what must hold of each.

A call with good arguments equals the reference, where something is to be learned in its gradients
too; what is not finite in an input reaches only what reads it; a call with bad arguments raises a
TypeError, ValueError, IndexError or NotImplementedError, or gives numbers. For test_fuzz and the
attacks.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import torch
from fuzzing import (
    F64,
    Values,
    attention_call,
    graph_call,
    named_call,
    shuffled_graph,
    sparse_call,
    spoil,
    walk_call,
)
from layers import LAYERS, layers_that
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.testing import assert_close

from gat_ext import Graph, functional, nn, reference
from gat_ext.reference import walk
from gat_ext.testing import tolerance

Note = Callable[[str], None]
"""Receives what is called, to be shown if the call fails; None instead of one saves the text."""

REFUSALS = (TypeError, ValueError, IndexError, NotImplementedError)

# ---- checks


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
    """True if no sum of a few products of these overflows float16."""
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
    # lse of a row without edges is -inf; both drop its gradient, which is NaN here.
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


def attend_with_edges(
    graph: Any, *nodes: Tensor, edge_feat: Any = None, return_weights: bool = False, **options: Any
) -> Any:
    """The operator of EdgeGATConv, with a row for every edge."""
    out, weights = reference.gat_attention(graph, *nodes, return_weights=True, **options)
    if edge_feat is not None:
        out = out.index_add(0, graph.edge_index[1], weights.unsqueeze(-1) * edge_feat)
    return (out, weights) if return_weights else out


def signed_sum(
    graph: Any,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    *,
    coefficients: None = None,
    edge_mask: Tensor | None = None,
    return_weights: bool = False,
) -> Any:
    """The normalised operator of FAConv, with a row for every edge."""
    src, dst = graph.edge_index
    mask = torch.ones(len(src), 1) if edge_mask is None else edge_mask.view(len(src), -1)
    alpha = (dst_term[dst] + src_term[src]).tanh() * mask.to(value.dtype)
    degree = torch.bincount(dst, minlength=graph.num_dst).to(value.dtype)
    root = torch.where(degree > 0, degree.rsqrt(), 0)
    weights = alpha * (root[src] * root[dst]).unsqueeze(-1)
    zeros = value.new_zeros(graph.num_dst, *value.shape[1:])
    out = zeros.index_add(0, dst, weights.unsqueeze(-1) * value[src])
    return (out, alpha) if return_weights else out


def vector_attention(
    graph: Any,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    pos_dst: Tensor,
    pos_src: Tensor,
    *,
    pos_nn: Any,
    attn_nn: Any,
    edge_mask: Tensor | None = None,
    return_weights: bool = False,
) -> Any:
    """The operator of PointTransformerConv, with a row for every edge."""
    src, dst = graph.edge_index
    delta = pos_dst[dst] - pos_src[src]
    delta = delta if pos_nn is None else pos_nn(delta)
    scores = dst_term[dst] - src_term[src] + delta
    weights = reference.edge_softmax(graph, scores if attn_nn is None else attn_nn(scores))
    if edge_mask is not None:
        weights = weights * edge_mask.view(len(src), -1)
    zeros = value.new_zeros(graph.num_dst, value.shape[1])
    out = zeros.index_add(0, dst, weights * (value[src].squeeze(-1) + delta)).unsqueeze(-1)
    if pos_src.numel() > 0 and pos_src.abs().max() > 1e6:
        out = out * torch.nan  # the layer's rounding errors are relative to the positions
    return (out, weights) if return_weights else out


COMPOSED = {
    "attend_with_edges": attend_with_edges,
    "signed_sum": signed_sum,
    "vector_attention": vector_attention,
}
"""Oracles of operators that are no functions of the package"""


@contextlib.contextmanager
def by_reference(name: str):
    """Calls the layer with the reference instead of the operator."""
    layer = LAYERS[name]
    theirs = COMPOSED.get(layer.operator) or getattr(reference, layer.operator)

    def without_dropout(*args: Any, dropout_p: float = 0.0, **kwargs: Any) -> Any:
        assert dropout_p == 0
        if "edge_map" in kwargs:  # features of edges as a linear map, which the reference computes
            edge_attr, edge_map = kwargs.pop("edge_attr"), kwargs.pop("edge_map")
            kwargs["edge_feat"] = torch.einsum("ed,hcd->ehc", edge_attr, edge_map)
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
        "bias": rnd.random() < 0.7,
    }
    if not LAYERS[name].supports("pairs"):
        options["in_channels"] = rnd.choice([3, 3, -1])
    if name == "SuperGATConv":
        options |= {"attention_type": rnd.choice(["MX", "SD"])}
        return options | {"add_self_loops": rnd.random() < 0.6}
    options["edge_dim"] = rnd.choice([None, None, 2])
    if name == "TransformerConv":
        return options | {"beta": rnd.random() < 0.3, "root_weight": rnd.random() < 0.7}
    options |= {
        "add_self_loops": rnd.random() < 0.6,
        "residual": rnd.random() < 0.3,
        "negative_slope": rnd.choice([0.2, 0.0]),
    }
    options |= {"fill_value": rnd.choice(["mean", "add", "min", "max", "mul", 1.0])}
    return options


def layer_call(rnd: Random, note: Note | None) -> None:
    """Constructs a layer and calls it, both with good or spoilt arguments."""
    known = [
        name
        for name in layers_that()
        if hasattr(reference, LAYERS[name].operator) and LAYERS[name].kind is getattr(nn, name)
    ]
    name = rnd.choice(known)
    options = layer_options(rnd, name)
    if rnd.random() < 0.25:
        options = spoil(rnd, (), options)[1]
        if note is not None:
            note(f"{name}(**{options})")
        with contextlib.suppress(*REFUSALS):
            getattr(nn, name)(**options)
        return
    torch.manual_seed(rnd.getrandbits(32))
    layer = getattr(nn, name)(**options).to(F64)
    draw = Values(rnd, F64)
    pair = isinstance(options.get("in_channels"), tuple) or (
        "in_channels" not in options and rnd.random() < 0.3
    )
    graph = shuffled_graph(rnd, square=not pair)
    x: Any = draw.normal(graph.num_src, 3)
    if pair:
        x = x, draw.normal(graph.num_dst, LAYERS[name].ends(3, 4)[1])
    arguments: dict[str, Any] = {"x": x, "edge_index": rnd.choice([graph, graph.edge_index])}
    if options.get("edge_dim"):
        arguments["edge_attr"] = draw.normal(graph.num_edges, 2)
    if rnd.random() < 0.3:
        arguments["return_attention_weights"] = True
    if rnd.random() < 0.5:
        layer.train(rnd.random() < 0.5)
        _, arguments = spoil(rnd, (), arguments)
        if note is not None:
            note(f"{layer} {options} on {arguments}")
        attempt(layer, (), arguments)
        return
    if note is not None:
        note(f"{layer} {options} on {arguments}")
    layer.eval()

    def run() -> list[Tensor]:
        results = [t for t in tensors_of(layer(**arguments)) if t.is_floating_point()]
        leaves = [
            t
            for t in [*(x if pair else [x]), *layer.parameters()]
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


def operator_call(rnd: Random, note: Note | None, make: Callable[[Random], Any]) -> None:
    function, args, kwargs = make(rnd)
    bad = rnd.random() < 0.6
    if bad:
        args, kwargs = spoil(rnd, args, kwargs)
    if note is not None:
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


TARGETS: dict[str, tuple[int, Callable[[Random, Note | None], None]]] = {
    "edge_attention": (35, partial(operator_call, make=attention_call)),
    "its four names": (15, partial(operator_call, make=named_call)),
    "edge_softmax, sddmm, spmm": (15, partial(operator_call, make=sparse_call)),
    "walk_step, random_walk": (10, partial(operator_call, make=walk_call)),
    "Graph": (10, partial(operator_call, make=graph_call)),
    "layers": (15, layer_call),
}
"""(share of the calls in percent, function that draws one)"""
