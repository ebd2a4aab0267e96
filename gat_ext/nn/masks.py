"""Maps edge masks from the caller's edges to the edges that a layer attends over."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from gat_ext.functional import checks
from gat_ext.functional.masked import mask_of
from gat_ext.nn.inputs import Adjacency, as_graph
from gat_ext.nn.self_loops import loops_of

T = TypeVar("T")


def one_of(edge_mask: T, edge_weight: T) -> tuple[str, T]:
    """(the name under which the caller gave a mask, the mask or None).

    Raises:
        ValueError: both are given.
    """
    if edge_weight is None:
        return "edge_mask", edge_mask
    if edge_mask is not None:
        raise ValueError(
            "edge_mask and edge_weight are two names of one argument, which multiplies the "
            "attention weights; give one of them: their product, if you want both"
        )
    return "edge_weight", edge_weight


def mask_of_layer(
    name: str,
    mask: Tensor,
    value: Tensor,
    adjacency: Adjacency,
    sizes: tuple[int, int],
    add_self_loops: bool,
    layer: nn.Module,
) -> Tensor:
    """The mask of the edges that a layer attends over, [E'] or [E', H]; 1 for its self-loops.

    Args:
        name: of the mask, in errors.
        mask: [E] or [E, H], of the caller's edges.
        value: [N, H, C], what the layer sums.
        adjacency: the caller's edges.
        sizes: (N_src, N_dst).
        add_self_loops: whether the layer replaces the caller's self-loops.
        layer: named in errors.

    Raises:
        TypeError: the mask is not a dense tensor of real numbers or booleans.
        ValueError: the mask does not have one row for each of the caller's edges.
    """
    looped = loops_of(adjacency, *sizes) if add_self_loops else None
    given = as_graph(adjacency, *sizes).num_edges if looped is None else looped.num_given
    checks.numbers(mask, name)
    if mask.dim() not in (1, 2) or mask.shape[0] != given:
        raise ValueError(
            f"{name} has shape {list(mask.shape)}; {layer} expects [{given}] or "
            f"[{given}, heads], a row for each of the {given} given edges; added self-loops are "
            "not masked"
        )
    mask = mask_of(value, mask, name)
    if looped is None:
        return mask
    return looped.rows(mask, mask.new_ones(looped.num_loops, *mask.shape[1:]))
