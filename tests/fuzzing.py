"""Draws and spoils the arguments of random calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gat_ext import Graph, functional, reference
from gat_ext.reference import SCORES

F64 = torch.float64

# ---- drawing arguments


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
    """The same values with other strides."""
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


# ---- spoiling arguments

SCALARS: list[Any] = [
    None, "x", "", -1, 0, 3, 0.5, 1.5, -0.0, True, 2**63, 10**30, 1e38,
    math.nan, math.inf, -math.inf, 1j, [], (), {}, b"x", object(), np.float32(0.5), np.int64(2),
    torch.tensor(0.5), torch.tensor([2]), torch.tensor([0.1, 0.2]), torch.float64,
]  # fmt: skip


NUMBERS: dict[torch.dtype, list[Any]] = {
    torch.int64: [-1, 99, 2**62, -(2**63)],
    torch.int32: [-1, 99, -(2**31)],
} | {dtype: [1e30, -1.0] for dtype in (F64, torch.float32, torch.float16, torch.bfloat16)}
"""Substitutes for a tensor."""


def spoilt_tensor(rnd: Random, x: Tensor) -> Any:
    """Returns a substitute for a tensor."""
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
