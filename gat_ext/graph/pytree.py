"""A Graph among the arguments of torch's transformations, which flatten them to tensors."""

from __future__ import annotations

from typing import Any, NoReturn

from torch.utils import _pytree as pytree

from gat_ext.graph.graph import Graph


def _with_keys(graph: Graph) -> NoReturn:
    raise TypeError(
        f"torch.export takes tensors, and was given a Graph, {graph}; pass its edge_index, which "
        "is sorted inside the program: torch.export.export(model, (x, graph.edge_index))"
    )


def _flatten(graph: Graph) -> tuple[list[Any], Graph]:
    """No tensors: torch.func hands on the object as it is, with what it has cached."""
    return [], graph


def _unflatten(leaves: Any, graph: Graph) -> Graph:
    return graph


# Of torch's transformations only torch.export flattens with keys.
pytree.register_pytree_node(Graph, _flatten, _unflatten, flatten_with_keys_fn=_with_keys)
