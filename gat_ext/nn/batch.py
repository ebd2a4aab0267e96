"""Batches of node features on one graph: the batch becomes heads.

The operators take any number of heads, and so compute B sets of features on one graph in one pass
over its edges, which are stored once. Inside a layer such features are [N, B, F]: the nodes come
first, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gat_ext.graph.protocol import GraphLike
from gat_ext.nn.inputs import NodeFeatures


def nodes_first(x: NodeFeatures) -> tuple[NodeFeatures, int | None]:
    """Moves the batch behind the nodes: ([N, B, F], B) for x [B, N, F], or a pair; else (x, None).

    Raises:
        ValueError: the batch is empty, or only one of sources and destinations is a batch, or their
            batches differ in size.
    """
    if isinstance(x, Tensor):
        return (_moved(x), x.shape[0]) if x.dim() == 3 else (x, None)
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        return x, None  # the layer checks it
    sizes = [t.shape[0] if isinstance(t, Tensor) and t.dim() == 3 else None for t in x]
    if sizes == [None, None]:
        return x, None
    x_src, x_dst = x
    if sizes[0] is None or (x_dst is not None and sizes[1] != sizes[0]):
        given = [list(t.shape) if isinstance(t, Tensor) else type(t).__name__ for t in x]
        raise ValueError(
            f"x of the sources has shape {given[0]}, x of the destinations {given[1]}; expected "
            "[B, N_src, F] and [B, N_dst, F] with the same B, or two matrices"
        )
    assert isinstance(x_src, Tensor)
    moved = _moved(x_src)
    if x_dst is None or x_dst is x_src:
        return (moved, None if x_dst is None else moved), sizes[0]
    assert isinstance(x_dst, Tensor)
    return (moved, _moved(x_dst)), sizes[0]


def _moved(x: Tensor) -> Tensor:
    if x.shape[0] == 0:
        raise ValueError(f"x has shape {list(x.shape)}; expected a batch of at least one element")
    return x.transpose(0, 1).contiguous()


class Folded(NamedTuple):
    """An attention operator for a batch of B, whose elements are concatenated as heads.

    Takes the operator's arguments: the graph, node tensors [N · B, H, …], in which the B rows of a
    node are adjacent, and keyword arguments. Returns out [N_dst, B, H, F] and, with
    ``return_weights``, the weights [E, B, H].
    """

    operator: Callable[..., Any]
    batch: int

    def __call__(
        self, graph: GraphLike, *nodes: Tensor, **options: Any
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See the class."""
        if options.get("edge_feat") is not None:
            return self._one_by_one(graph, nodes, options)
        heads = nodes[0].shape[1]
        folded = [t.reshape(-1, self.batch * heads, *t.shape[2:]) for t in nodes]
        for name in ("att", "edge_term", "edge_mask"):
            options[name] = self._repeat(name, options.get(name), heads)
        result = self.operator(
            graph, *folded, **{k: v for k, v in options.items() if v is not None}
        )
        shape = (self.batch, heads)
        if not isinstance(result, tuple):
            out: Tensor = result.unflatten(1, shape)
            return out
        return result[0].unflatten(1, shape), result[1].unflatten(1, shape)

    def _repeat(self, name: str, shared: Tensor | None, heads: int) -> Tensor | None:
        """Repeats an argument that the elements share, att [H, D] or [E, H], for all heads."""
        if shared is None or (
            name == "edge_mask" and (shared.dim() == 1 or shared.shape[1] != heads)
        ):
            return shared  # one for all heads, or invalid: the operator checks it
        if name == "att":
            return shared.repeat(self.batch, 1)
        return shared.repeat(1, self.batch)

    def _one_by_one(
        self, graph: GraphLike, nodes: tuple[Tensor, ...], options: dict[str, Any]
    ) -> Tensor | tuple[Tensor, Tensor]:
        """One call for each element; a single call would copy edge features [E, H, D] B times."""
        split = [t.reshape(-1, self.batch, *t.shape[1:]).unbind(1) for t in nodes]
        results = [
            self.operator(graph, *element, **options) for element in zip(*split, strict=True)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results, 1)
        out, weights = (torch.stack(parts, 1) for parts in zip(*results, strict=True))
        return out, weights
