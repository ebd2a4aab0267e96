"""The operators in terms of torch's own, for inputs that the native ones do not support.

These are tangents of forward-mode differentiation, and tensors inside torch.func; the fused
operator supports torch.func except under torch.compile. Exports to ONNX consist of them, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gat_ext.graph import Graph
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.traced import TracedGraph
from gat_ext.ops import composed
from gat_ext.ops.arguments import Inputs
from gat_ext.ops.registry import accumulate_dtype
from gat_ext.ops.scatter import rank_in_row, row_extremum, row_softmax, row_sum
from gat_ext.ops.state import have_tangents, in_functorch, is_exporting_to_onnx


def is_needed(*inputs: Tensor | None) -> bool:
    """True if the fused operator does not support these inputs here."""
    if torch.compiler.is_compiling():
        return in_functorch() or is_exporting_to_onnx()
    return have_tangents(*inputs)


def attend(
    graph: GraphLike,
    inputs: Any,
    seed: Tensor | None,
    edge_number: Tensor | None,
    constants: Any,
    top_k: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(out, weights, lse) of edge_attention; gathers rows into [E, H, D].

    Args:
        graph: the graph.
        inputs: ``Inputs`` of edge_attention.
        seed: seed of dropout, or None.
        edge_number: int64 [E], the number of each edge in dropout; None: its position.
        constants: ``Constants`` of edge_attention.
        top_k: 0 for all.
    """
    device = inputs.value.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        inputs = Inputs(
            *(t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in inputs)
        )
    edges = _edges_of(graph)
    if constants.dropout_p > 0 and is_exporting_to_onnx():
        raise NotImplementedError(
            f"dropout of attention with p={constants.dropout_p:g} in an export to ONNX; expected a "
            "model in evaluation mode: call model.eval() first"
        )
    edges = edges._replace(
        kept=composed.dropout_mask(
            seed, graph.num_edges, inputs.value.shape[1], constants.dropout_p, edge_number
        )
    )
    if top_k > 0:
        fixed = Inputs(*(t if t is None else t.detach() for t in inputs))
        scores = composed.scores_of(edges, fixed, constants).detach()
        chosen = rank_in_row(scores, edges.dst, graph.num_dst) < top_k
        edges = edges._replace(attended=chosen & (scores > -torch.inf))
    return composed.compose(edges, inputs, constants, graph.num_dst)


def _edges_of(graph: GraphLike) -> composed.Edges:
    src, dst = graph.edge_index
    is_edge = graph.attended if isinstance(graph, TracedGraph) and graph.self_loops else None
    attended = None if is_edge is None else is_edge.unsqueeze(-1)
    return composed.Edges(src, dst, attended, kept=None, is_edge=is_edge, csr=None)


# ---- the unfused operators


def call(
    function: Callable[..., Tensor],
    graph: GraphLike,
    *tensors: Tensor | None,
    to_lower: bool = True,
    **options: str,
) -> Tensor:
    """Calls a function of this module in the dtypes of the operator it replaces, with wide sums.

    Args:
        function: of this module.
        graph: the graph.
        *tensors: inputs of the operator.
        to_lower: autocast casts them to its 16-bit dtype if True, else to float32.
        **options: options of the function.
    """
    first = tensors[0]
    assert first is not None
    dtype = first.dtype
    if torch.is_autocast_enabled(first.device.type) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(first.device.type) if to_lower else torch.float32
        tensors = tuple(t if t is None else t.to(dtype) for t in tensors)
    wide = (t if t is None else t.to(accumulate_dtype(dtype)) for t in tensors)
    return function(graph, *wide, **options).to(dtype)


def edge_softmax(graph: Graph, scores: Tensor, *, by: str) -> Tensor:
    """As :func:`gat_ext.functional.edge_softmax`."""
    src, dst = graph.edge_index
    row, num_rows = (dst, graph.num_dst) if by == "dst" else (src, graph.num_src)
    return row_softmax(scores, row, num_rows)[0]


def sddmm(graph: GraphLike, x: Tensor, y: Tensor) -> Tensor:
    """As :func:`gat_ext.functional.sddmm`."""
    src, dst = graph.edge_index
    return (x[dst] * y[src]).sum(-1)


def spmm(graph: GraphLike, x: Tensor, weight: Tensor | None, *, reduce: str) -> Tensor:
    """As :func:`gat_ext.functional.spmm`, for x [N_src, H, F] and weight [E, H]."""
    src, dst = graph.edge_index
    messages = x[src] if weight is None else weight.unsqueeze(-1) * x[src]
    if reduce in ("max", "min"):
        return _extremum(messages, dst, graph.num_dst, f"a{reduce}")
    out = row_sum(messages, dst, graph.num_dst)
    if reduce == "mean":
        degree = row_sum(torch.ones_like(dst), dst, graph.num_dst)
        out = out / degree.clamp(min=1).to(out.dtype).view(-1, 1, 1)
    return out


def edge_dot(graph: GraphLike, query: Tensor, edge_attr: Tensor) -> Tensor:
    """As :func:`gat_ext.functional.edge_dot`."""
    return (query[graph.edge_index[1]] * edge_attr.unsqueeze(1)).sum(-1)


def edge_sum(graph: GraphLike, weight: Tensor, edge_attr: Tensor) -> Tensor:
    """As :func:`gat_ext.functional.edge_sum`."""
    return row_sum(
        weight.unsqueeze(-1) * edge_attr.unsqueeze(1), graph.edge_index[1], graph.num_dst
    )


def _extremum(messages: Tensor, dst: Tensor, num_dst: int, reduce: str) -> Tensor:
    """[N_dst, H, F], the largest or smallest message of each row; NaN propagates; 0 for empty rows.

    Of several equal messages, the first edge's is returned, and receives the gradient.
    """
    known = messages.detach()
    best = row_extremum(known, dst, num_dst, reduce)[dst]
    wins = (known == best) | (known.isnan() & best.isnan())
    last = messages.shape[0]
    number = torch.arange(last, device=dst.device).view(-1, 1, 1).expand_as(messages)
    index = dst.view(-1, 1, 1).expand_as(number)
    first = number.new_full((num_dst, *messages.shape[1:]), last)
    first = first.scatter_reduce(0, index, torch.where(wins, number, last), "amin")
    padded = torch.cat([messages, messages.new_zeros((1, *messages.shape[1:]))])
    return padded.gather(0, first)
