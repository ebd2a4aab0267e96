"""The operators, without projections, against those of PyG, DGL and dense torch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import formulas
import torch
from bench_layers import normal
from cases import DTYPES, Case, Setting
from formulas import LIBRARIES, Edges
from peers import Item, graph_of
from timing import Program
from torch import Tensor

Shape = tuple[int, ...]
_EDGE_LIBRARIES, _ALL = ("pyg", "dgl"), ("pyg", "dgl", "dense", "triton")


@dataclass(frozen=True)
class Operator:
    """One operator, with its inputs in the order of every library's function.

    Attributes:
        inputs: kinds of shapes by name: "node" ``[N, H, F]``, "term" ``[N, H]``, "edge"
            ``[E, H]`` or "weight" ``[H, F]``.
        out: kind of the result.
        formula: ``(library, graph, *inputs)``, in the libraries of ``families``.
        score: score of the attention.
        wide: True if the dense form needs an N×N×width array.
    """

    title: str
    inputs: dict[str, str]
    out: str
    formula: Callable[..., Tensor]
    families: tuple[str, ...] = _ALL
    score: str | None = None
    gathers: int = 1
    wide: bool = False


_QKV = {"query": "node", "key": "node", "value": "node"}
_GAT = {"value": "node", "dst_term": "term", "src_term": "term"}
_GATV2 = {"query": "node", "key": "node", "att": "weight"}

OPERATORS: dict[str, Operator] = {
    "edge_softmax": Operator(
        "edge_softmax",
        {"scores": "edge"},
        "edge",
        lambda lib, *args: lib.softmax(*args),
        _EDGE_LIBRARIES,
        gathers=0,
    ),
    "sddmm": Operator(
        "sddmm",
        {"x": "node", "y": "node"},
        "edge",
        lambda lib, *args: lib.sddmm(*args),
        _EDGE_LIBRARIES,
    ),
    "spmm": Operator(
        "spmm, weighted sum",
        {"x": "node", "weight": "edge"},
        "node",
        lambda lib, *args: lib.spmm(*args),
        _EDGE_LIBRARIES,
    ),
    "gat_attention": Operator(
        "gat_attention (additive)", _GAT, "node", formulas.gat, score="additive"
    ),
    "gatv2_attention": Operator(
        "gatv2_attention (additive_v2)",
        _GATV2,
        "node",
        formulas.gatv2,
        score="additive_v2",
        wide=True,
    ),
    "dot_attention": Operator(
        "dot_attention (QKV)", _QKV, "node", formulas.dot, score="dot", gathers=2
    ),
    "cosine_attention": Operator(
        "cosine_attention", {"query": "node"}, "node", formulas.cosine, score="cosine"
    ),
}


def _native(name: str) -> Callable[..., Tensor]:
    """The operator of gat_ext.functional, imported at the call: other peers run without it."""

    def call(graph: Any, *tensors: Tensor) -> Tensor:
        from gat_ext import functional

        return getattr(functional, name)(graph, *tensors)

    return call


def _shape(kind: str, case: Case) -> Shape:
    heads, channels = case.setting.heads, case.setting.channels
    return {
        "node": (case.num_nodes, heads, channels),
        "term": (case.num_nodes, heads),
        "edge": (case.num_edges, heads),
        "weight": (heads, channels),
    }[kind]


def _tensors(name: str, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    kinds = {**OPERATORS[name].inputs, "grad_out": OPERATORS[name].out}
    return {key: normal(_shape(kind, case), case.dtype, generator) for key, kind in kinds.items()}


def _program(name: str, family: str, case: Case) -> Program:
    leaves = {(key,): t.requires_grad_() for key, t in case.tensors.items() if key != "grad_out"}
    graph = graph_of(family, case)
    if family == "gat_ext":
        return Program(_native(name), (graph, *leaves.values()), leaves)
    if family == "triton":
        from triton_attention import ATTENTIONS

        return Program(ATTENTIONS[name], (graph, *leaves.values()), leaves)
    if family == "pyg":
        graph = Edges(graph[0], graph[1], case.num_nodes)
    run = functools.partial(OPERATORS[name].formula, LIBRARIES[family])
    return Program(run, (graph, *leaves.values()), leaves)


def _item(name: str) -> Item:
    operator = OPERATORS[name]
    kinds = {"node": "node", "term": "node", "edge": "edge"}
    every = {**operator.inputs, "out": operator.out}

    def dense_bytes(setting: Setting, nodes: int) -> int:
        width = setting.width if operator.wide else 0
        itemsize = DTYPES[setting.dtype].itemsize
        return formulas.score_bytes(setting.heads, nodes, itemsize, width)

    return Item(
        title=operator.title,
        tensors=functools.partial(_tensors, name),
        build={f: functools.partial(_program, name, f) for f in ("gat_ext", *operator.families)},
        rows={key: kinds[kind] for key, kind in every.items() if kind in kinds},
        gathers=operator.gathers,
        dense_bytes=dense_bytes,
        score=operator.score,
    )


ITEMS = {name: _item(name) for name in OPERATORS}
