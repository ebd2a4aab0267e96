"""The operators alone, without projections, against their like in PyG, DGL and dense torch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import dense
import torch
import torch.nn.functional as F
from bench_layers import normal
from cases import DTYPES, Case, Setting
from peers import Item, graph_of
from timing import Program
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


# ---- PyG: gather to the edges, its softmax, scatter to the destinations


class Edges(NamedTuple):
    """The graph as PyG's functions take it."""

    src: Tensor
    dst: Tensor
    num_nodes: int


def _pyg_softmax(graph: Edges, scores: Tensor) -> Tensor:
    from torch_geometric.utils import softmax

    return softmax(scores, graph.dst, num_nodes=graph.num_nodes)


def _pyg_sddmm(graph: Edges, x: Tensor, y: Tensor) -> Tensor:
    return (x[graph.dst] * y[graph.src]).sum(-1)


def _pyg_spmm(graph: Edges, x: Tensor, weight: Tensor) -> Tensor:
    from torch_geometric.utils import scatter

    return scatter(x[graph.src] * weight.unsqueeze(-1), graph.dst, dim=0, dim_size=graph.num_nodes)


def _pyg_gat(graph: Edges, value: Tensor, dst_term: Tensor, src_term: Tensor) -> Tensor:
    scores = F.leaky_relu(dst_term[graph.dst] + src_term[graph.src], dense.SLOPE)
    return _pyg_spmm(graph, value, _pyg_softmax(graph, scores))


def _pyg_gatv2(graph: Edges, query: Tensor, key: Tensor, att: Tensor) -> Tensor:
    scores = (F.leaky_relu(query[graph.dst] + key[graph.src], dense.SLOPE) * att).sum(-1)
    return _pyg_spmm(graph, key, _pyg_softmax(graph, scores))


def _pyg_dot(graph: Edges, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = _pyg_sddmm(graph, query, key) / math.sqrt(query.shape[-1])
    return _pyg_spmm(graph, value, _pyg_softmax(graph, scores))


def _pyg_cosine(graph: Edges, query: Tensor) -> Tensor:
    unit = F.normalize(query, dim=-1)
    return _pyg_spmm(graph, query, _pyg_softmax(graph, _pyg_sddmm(graph, unit, unit)))


# ---- DGL: its SpMM, SDDMM and edge softmax


def _dgl_softmax(graph: Any, scores: Tensor) -> Tensor:
    from dgl.nn.functional import edge_softmax

    return edge_softmax(graph, scores)


def _dgl_sddmm(graph: Any, x: Tensor, y: Tensor) -> Tensor:
    from dgl import ops

    return ops.u_dot_v(graph, y, x).squeeze(-1)


def _dgl_spmm(graph: Any, x: Tensor, weight: Tensor) -> Tensor:
    from dgl import ops

    return ops.u_mul_e_sum(graph, x, weight.unsqueeze(-1))


def _dgl_add(graph: Any, dst: Tensor, src: Tensor) -> Tensor:
    from dgl import ops

    return F.leaky_relu(ops.u_add_v(graph, src, dst), dense.SLOPE)


def _dgl_gat(graph: Any, value: Tensor, dst_term: Tensor, src_term: Tensor) -> Tensor:
    return _dgl_spmm(graph, value, _dgl_softmax(graph, _dgl_add(graph, dst_term, src_term)))


def _dgl_gatv2(graph: Any, query: Tensor, key: Tensor, att: Tensor) -> Tensor:
    scores = (_dgl_add(graph, query, key) * att).sum(-1)
    return _dgl_spmm(graph, key, _dgl_softmax(graph, scores))


def _dgl_dot(graph: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = _dgl_sddmm(graph, query, key) / math.sqrt(query.shape[-1])
    return _dgl_spmm(graph, value, _dgl_softmax(graph, scores))


def _dgl_cosine(graph: Any, query: Tensor) -> Tensor:
    unit = F.normalize(query, dim=-1)
    return _dgl_spmm(graph, query, _dgl_softmax(graph, _dgl_sddmm(graph, unit, unit)))


# ---- dense: scores of all pairs under the mask; only the whole attentions have such a form


def _dense_gat(mask: Tensor, value: Tensor, dst_term: Tensor, src_term: Tensor) -> Tensor:
    return dense.attend(dense.additive(dst_term, src_term), mask, value)


def _dense_gatv2(mask: Tensor, query: Tensor, key: Tensor, att: Tensor) -> Tensor:
    return dense.attend(dense.additive_v2(query, key, att), mask, key)


def _dense_dot(mask: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return dense.attend(dense.dot(query, key), mask, value)


def _dense_cosine(mask: Tensor, query: Tensor) -> Tensor:
    return dense.attend(dense.cosine(query), mask, query)


def _native(name: str) -> Callable[..., Tensor]:
    """The operator of gat_ext.functional, imported when called: other peers run without it."""

    def call(graph: Any, *tensors: Tensor) -> Tensor:
        from gat_ext import functional

        return getattr(functional, name)(graph, *tensors)

    return call


@dataclass(frozen=True)
class Operator:
    """One operator: its inputs in the order in which every family's function takes them.

    Attributes:
        shapes: for a setting and numbers of nodes and edges, as is ``out``.
        score: the attention's.
        wide: whether the dense form needs an N×N×width array.
    """

    title: str
    shapes: Callable[[Setting, int, int], Shapes]
    out: Callable[[Setting, int, int], tuple[int, ...]]
    run: dict[str, Callable[..., Tensor]]
    score: str | None = None
    gathers: int = 1
    wide: bool = False


def _per_edge(s: Setting, n: int, e: int) -> tuple[int, ...]:
    return (e, s.heads)


def _per_node(s: Setting, n: int, e: int) -> tuple[int, ...]:
    return (n, s.heads, s.channels)


def _rows(*names: str) -> Callable[[Setting, int, int], Shapes]:
    return lambda s, n, e: dict.fromkeys(names, (n, s.heads, s.channels))


OPERATORS: dict[str, Operator] = {
    "edge_softmax": Operator(
        title="edge_softmax",
        shapes=lambda s, n, e: {"scores": (e, s.heads)},
        out=_per_edge,
        run={"pyg": _pyg_softmax, "dgl": _dgl_softmax},
        gathers=0,
    ),
    "sddmm": Operator(
        title="sddmm",
        shapes=_rows("x", "y"),
        out=_per_edge,
        run={"pyg": _pyg_sddmm, "dgl": _dgl_sddmm},
    ),
    "spmm": Operator(
        title="spmm, weighted sum",
        shapes=lambda s, n, e: {"x": (n, s.heads, s.channels), "weight": (e, s.heads)},
        out=_per_node,
        run={"pyg": _pyg_spmm, "dgl": _dgl_spmm},
    ),
    "gat_attention": Operator(
        title="gat_attention (additive)",
        shapes=lambda s, n, e: {
            "value": (n, s.heads, s.channels),
            "dst_term": (n, s.heads),
            "src_term": (n, s.heads),
        },
        out=_per_node,
        run={"pyg": _pyg_gat, "dgl": _dgl_gat, "dense": _dense_gat},
        score="additive",
    ),
    "gatv2_attention": Operator(
        title="gatv2_attention (additive_v2)",
        shapes=lambda s, n, e: {
            **dict.fromkeys(("query", "key"), (n, s.heads, s.channels)),
            "att": (s.heads, s.channels),
        },
        out=_per_node,
        run={"pyg": _pyg_gatv2, "dgl": _dgl_gatv2, "dense": _dense_gatv2},
        score="additive_v2",
        wide=True,
    ),
    "dot_attention": Operator(
        title="dot_attention (QKV)",
        shapes=_rows("query", "key", "value"),
        out=_per_node,
        run={"pyg": _pyg_dot, "dgl": _dgl_dot, "dense": _dense_dot},
        score="dot",
        gathers=2,
    ),
    "cosine_attention": Operator(
        title="cosine_attention",
        shapes=_rows("query"),
        out=_per_node,
        run={"pyg": _pyg_cosine, "dgl": _dgl_cosine, "dense": _dense_cosine},
        score="cosine",
    ),
}


def _tensors(name: str, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    operator, sizes = OPERATORS[name], (case.setting, case.num_nodes, case.num_edges)
    shapes = {**operator.shapes(*sizes), "grad_out": operator.out(*sizes)}
    return {key: normal(shape, case.dtype, generator) for key, shape in shapes.items()}


def _program(name: str, family: str, case: Case) -> Program:
    run = {"gat_ext": _native(name), **OPERATORS[name].run}[family]
    leaves = {(key,): t.requires_grad_() for key, t in case.tensors.items() if key != "grad_out"}
    graph = graph_of(family, case)
    if family == "pyg":
        graph = Edges(graph[0], graph[1], case.num_nodes)
    return Program(run, (graph, *leaves.values()), leaves)


def _rows_of(operator: Operator) -> dict[str, str]:
    """Whose rows each tensor has, by its first size in a setting that tells all apart."""
    nodes, edges = 1009, 2003
    setting = Setting(heads=3, channels=5)
    shapes = {**operator.shapes(setting, nodes, edges), "out": operator.out(setting, nodes, edges)}
    kinds = {nodes: "node", edges: "edge"}
    return {name: kinds[shape[0]] for name, shape in shapes.items() if shape[0] in kinds}


def _item(name: str) -> Item:
    operator = OPERATORS[name]

    def dense_bytes(setting: Setting, nodes: int) -> int:
        width = setting.width if operator.wide else 0
        return dense.score_bytes(setting.heads, nodes, DTYPES[setting.dtype].itemsize, width)

    return Item(
        title=operator.title,
        tensors=functools.partial(_tensors, name),
        build={
            family: functools.partial(_program, name, family)
            for family in ("gat_ext", *operator.run)
        },
        rows=_rows_of(operator),
        gathers=operator.gathers,
        dense_bytes=dense_bytes,
        score=operator.score,
    )


ITEMS = {name: _item(name) for name in OPERATORS}
