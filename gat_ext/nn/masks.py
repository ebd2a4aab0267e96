"""Maps edge masks from the caller's edges to the edges that a layer attends over."""

from __future__ import annotations

from torch import Tensor, nn

from gat_ext.nn.inputs import Adjacency, as_graph
from gat_ext.nn.self_loops import loops_of


def mask_of_layer(
    edge_mask: Tensor,
    adjacency: Adjacency,
    sizes: tuple[int, int],
    add_self_loops: bool,
    layer: nn.Module,
) -> Tensor:
    """The mask of the edges that a layer attends over, [E'] or [E', H]; 1 for its self-loops.

    Args:
        edge_mask: [E] or [E, H], of the caller's edges.
        adjacency: the caller's edges.
        sizes: (N_src, N_dst).
        add_self_loops: whether the layer replaces the caller's self-loops.
        layer: named in errors.

    Raises:
        TypeError: the mask is not a floating-point tensor.
        ValueError: the mask does not have one row for each of the caller's edges.
    """
    looped = loops_of(adjacency, *sizes) if add_self_loops else None
    given = as_graph(adjacency, *sizes).num_edges if looped is None else looped.num_given
    if not isinstance(edge_mask, Tensor) or not edge_mask.is_floating_point():
        kind = edge_mask.dtype if isinstance(edge_mask, Tensor) else type(edge_mask).__name__
        raise TypeError(
            f"edge_mask is a {kind}; {layer} expects a floating-point tensor [{given}] or "
            f"[{given}, heads]: convert it with torch.as_tensor(edge_mask, dtype=x.dtype)"
        )
    if edge_mask.dim() not in (1, 2) or edge_mask.shape[0] != given:
        raise ValueError(
            f"edge_mask has shape {list(edge_mask.shape)}; {layer} expects [{given}] or "
            f"[{given}, heads], a row for each of the {given} given edges; added self-loops are "
            "not masked"
        )
    if looped is None:
        return edge_mask
    return looped.rows(edge_mask, edge_mask.new_ones(looped.num_loops, *edge_mask.shape[1:]))
