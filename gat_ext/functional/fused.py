"""The call of the fused operator with checked inputs, for one graph."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from gat_ext.functional import fallback
from gat_ext.functional.dispatch import operator_over
from gat_ext.functional.masked import masked_sum
from gat_ext.graph.graph import Graph
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.graph.traced import TracedGraph
from gat_ext.ops.arguments import Results
from gat_ext.ops.registry import needs_grad

_OUT, _WEIGHTS, _LSE = map(Results._fields.index, ("out", "weights", "lse"))


class AttentionOptions(NamedTuple):
    """The arguments of edge_attention besides its differentiable inputs.

    Attributes:
        constants: ``Constants`` of the operator.
        seed: seed of dropout, or None.
        top_k: 0 for all edges.
        edge_mask: [E], [E, H] or None.
        return_weights: compute the weights.
        return_lse: compute the lse.
    """

    constants: Any
    seed: Tensor | None
    top_k: int
    edge_mask: Tensor | None
    return_weights: bool
    return_lse: bool


def without_shared(inputs: Any) -> Any:
    """Inputs without a query or key that is the value.

    The operator reads value in place of an absent one, and sums their gradients directly.
    """
    shared = [name for name in ("query", "key") if getattr(inputs, name) is inputs.value]
    return inputs._replace(**dict.fromkeys(shared))


def attend(
    graph: GraphLike, inputs: Any, options: AttentionOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """(out, weights, lse) of checked inputs; results that are not requested are absent.

    Args:
        graph: the graph.
        inputs: ``Inputs``, with bias [E, H].
        options: the other arguments.
    """
    if isinstance(graph, ShardedGraph):
        return graph.attend(inputs, options)
    constants, seed, top_k, edge_mask, return_weights, return_lse = options
    given = without_shared(inputs)
    assert isinstance(graph, (Graph, TracedGraph))
    number = None if seed is None else graph.edge_number
    if fallback.is_needed(*given, edge_mask):
        out, weights, lse = fallback.attend(graph, given, seed, number, constants, top_k)
    else:
        operator, graph_arguments = operator_over(graph, needs_grad(*given))
        with_weights = return_weights or edge_mask is not None
        results = operator(
            *graph_arguments, *given, seed, number, *constants, top_k, with_weights, return_lse
        )
        out, weights, lse = results[_OUT], results[_WEIGHTS], results[_LSE]
    if edge_mask is not None:
        in_value: Any = None
        if constants.edge_in_value:
            linear = given.edge_map is not None and given.edge_attr is not None
            in_value = (given.edge_attr, given.edge_map) if linear else given.edge_feat
        out, weights = masked_sum(graph, given.value, weights, edge_mask, in_value)
    return out, weights, lse
