"""edge_attention by operators of torch alone, where the fused operator cannot go.

That is where inputs have tangents of forward-mode differentiation, and in transformations of torch.func that are compiled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext import _ops_second as second
from gat_ext._dense import have_tangents
from gat_ext._traced import TracedGraph
from gat_ext.graph import Graph
from gat_ext.reference import rank_by_score


def is_needed(*inputs: Tensor | None) -> bool:
    """Whether the fused operator cannot take these inputs here."""
    if torch.compiler.is_compiling():
        return torch._C._are_functorch_transforms_active()
    return have_tangents(*inputs)


def attend(
    graph: Graph,
    inputs: second.Inputs,
    seed: Tensor | None,
    constants: second.Constants,
    top_k: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(out, weights, lse); rows are gathered into [E, H, D].

    Args:
        graph: the graph.
        inputs: value … edge_feat of edge_attention.
        seed: of dropout, or None.
        constants: score … dropout_p.
        top_k: 0 for all.
    """
    value = inputs[0]
    assert value is not None
    if torch.is_autocast_enabled(value.device.type):
        dtype = torch.get_autocast_dtype(value.device.type)
        inputs = [t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in inputs]
    if not isinstance(graph, TracedGraph):
        graph = TracedGraph(graph, graph.num_src, graph.num_dst, self_loops=False)
    edges = second.edges_of_slots(
        graph.arguments, value.shape[1], seed, constants[-1], value.new_empty(0)
    )
    if top_k > 0:
        scores = second.scores_of(
            edges, [t if t is None else t.detach() for t in inputs], constants
        ).detach()
        chosen = rank_by_score(scores, edges.dst, graph.num_dst) < top_k
        edges = edges._replace(attended=chosen & (scores > -torch.inf))
    return second.compose(edges, inputs, constants, graph.num_dst)
