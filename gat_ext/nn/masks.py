"""Edge masks of the layers: from the edges that the caller gave to those that a layer attends over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gat_ext.graph.traced import TracedGraph
from gat_ext.nn.base import Adjacency, as_graph
from gat_ext.nn.self_loops import with_self_loops
from gat_ext.ops.state import is_tracing


def mask_of_layer(
    edge_mask: Tensor,
    adjacency: Adjacency,
    sizes: tuple[int, int],
    add_self_loops: bool,
    layer: nn.Module,
) -> Tensor:
    """The mask of the edges that a layer attends over, [E'] or [E', H]; 1 for the self-loops that it adds.

    Args:
        edge_mask: [E] or [E, H], of the caller's edges.
        adjacency: these edges.
        sizes: (N_src, N_dst).
        add_self_loops: whether the layer replaces self-loops by its own.
        layer: named in errors.

    Raises:
        TypeError: the mask is no tensor of floating-point numbers.
        ValueError: it does not have one row for each of the caller's edges.
    """
    traced = TracedGraph(adjacency, *sizes, self_loops=add_self_loops) if is_tracing() else None
    looped = with_self_loops(adjacency, *sizes) if add_self_loops and traced is None else None
    if traced is not None:
        given = traced.num_given
    else:
        given = as_graph(adjacency, *sizes).num_edges if looped is None else looped.num_given
    if not isinstance(edge_mask, Tensor) or not edge_mask.is_floating_point():
        kind = edge_mask.dtype if isinstance(edge_mask, Tensor) else type(edge_mask).__name__
        raise TypeError(
            f"edge_mask is a {kind}; {layer} expects a tensor of floating-point numbers, [{given}] "
            f"or [{given}, heads]: convert it with torch.as_tensor(edge_mask, dtype=x.dtype)"
        )
    if edge_mask.dim() not in (1, 2) or edge_mask.shape[0] != given:
        raise ValueError(
            f"edge_mask has shape {list(edge_mask.shape)}; {layer} expects [{given}] or "
            f"[{given}, heads], for {given} edges were given; its own self-loops count 1"
        )
    if traced is not None:  # slots of self-loops that are replaced stay
        own = traced.num_slots - given
        return torch.cat([edge_mask, edge_mask.new_ones(own, *edge_mask.shape[1:])])
    if looped is None:
        return edge_mask
    others = edge_mask if looped.kept is None else edge_mask[looped.kept]
    return torch.cat([others, edge_mask.new_ones(looped.num_loops, *edge_mask.shape[1:])])
