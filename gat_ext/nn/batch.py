"""Batches of features on one graph: the batch becomes heads.

The operators take any number of heads, and so compute B sets of features on one graph in one pass
over its edges, which are stored once. Inside a layer a batch has one axis, whatever its shape
outside, and such features are [N, B, F]: the nodes, or edges, come first, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gat_ext.graph.protocol import GraphLike
from gat_ext.nn.inputs import NodeFeatures


class Batch(NamedTuple):
    """The shape of a batch.

    Attributes:
        shape: its axes, in the caller's tensors.
        size: B, their product.
    """

    shape: tuple[int, ...]
    size: int

    def restore(self, tensor: Tensor, axis: int) -> Tensor:
        """Gives ``axis``, which has B elements, the shape of the batch."""
        return tensor if len(self.shape) == 1 else tensor.unflatten(axis, self.shape)


def nodes_first(x: NodeFeatures) -> tuple[NodeFeatures, Batch | None]:
    """Moves a batch behind the nodes: x [..., N, F], or a pair, becomes [N, B, F].

    Returns:
        (x, its batch), or (x as given, None) if it is not a batch.

    Raises:
        TypeError: the batch is sparse.
        ValueError: it is empty, or only one of sources and destinations is a batch, or their
            batches differ in shape.
    """
    if isinstance(x, Tensor):
        batch = _batch_of(x)
        return (x if batch is None else _moved(x, batch)), batch
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        return x, None  # the layer checks it
    batches = [_batch_of(t) for t in x]
    if batches == [None, None]:
        return x, None
    (x_src, x_dst), batch = x, batches[0]
    if batch is None or (x_dst is not None and batches[1] != batch):
        given = [list(t.shape) if isinstance(t, Tensor) else type(t).__name__ for t in x]
        raise ValueError(
            f"x of the sources has shape {given[0]}, x of the destinations {given[1]}; expected "
            "[B, N_src, F] and [B, N_dst, F] with the same B, or two matrices"
        )
    assert isinstance(x_src, Tensor)
    moved = _moved(x_src, batch)
    if x_dst is None or x_dst is x_src:
        return (moved, None if x_dst is None else moved), batch
    assert isinstance(x_dst, Tensor)
    return (moved, _moved(x_dst, batch)), batch


def _batch_of(x: Any) -> Batch | None:
    if not isinstance(x, Tensor) or x.dim() < 3:
        return None
    shape = tuple(x.shape[:-2])
    return Batch(shape, math.prod(shape))


def _moved(x: Tensor, batch: Batch, name: str = "x") -> Tensor:
    given = f"{name} has shape {list(x.shape)}"
    if x.layout != torch.strided:
        raise TypeError(
            f"{given} and layout {x.layout}; expected a dense batch: pass {name}.to_dense()"
        )
    if batch.size == 0:
        raise ValueError(f"{given}; expected a batch of at least one element")
    return x.flatten(0, -3).transpose(0, 1).contiguous()


def edges_first(edge_attr: Tensor | None, batch: Batch | None) -> Tensor | None:
    """Edge features of each element, [..., E, D], as [E, B, D]; shared ones are unchanged.

    Raises:
        ValueError: they have a batch that is not that of x.
    """
    if not isinstance(edge_attr, Tensor) or edge_attr.dim() < 3:
        return edge_attr
    if batch is None or tuple(edge_attr.shape[:-2]) != batch.shape:
        axes = "no batch" if batch is None else f"a batch of shape {list(batch.shape)}"
        raise ValueError(
            f"edge_attr has shape {list(edge_attr.shape)}, but x is {axes}; expected [E, edge_dim] "
            "for all elements, or the batch of x before E"
        )
    return _moved(edge_attr, batch, "edge_attr")


class Folded(NamedTuple):
    """An attention operator for a batch of B, whose elements are concatenated as heads.

    Takes the operator's arguments: the graph, node tensors [N · B, H, …], in which the B rows of a
    node are adjacent, and keyword arguments; edge_feat and edge_term are shared, with E rows, or
    those of each element, with E · B. Returns out [N_dst, B, H, F] and, with ``return_weights``,
    the weights [E, B, H].
    """

    operator: Callable[..., Any]
    batch: int

    def __call__(
        self, graph: GraphLike, *nodes: Tensor, **options: Any
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See the class."""
        heads, edge_feat = nodes[0].shape[1], options.get("edge_feat")
        if edge_feat is not None and edge_feat.shape[0] == graph.num_edges:
            return self._one_by_one(graph, nodes, options)
        folded = [t.reshape(-1, self.batch * heads, *t.shape[2:]) for t in nodes]
        for name in ("edge_feat", "edge_term"):
            given = options.get(name)
            if given is not None and given.shape[0] != graph.num_edges:
                shape = (graph.num_edges, self.batch * heads, *given.shape[2:])
                options[name] = given.reshape(shape)
            else:
                options[name] = self._repeat(name, given, heads)
        for name in ("att", "edge_map", "edge_mask"):
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
        """Repeats an argument that the elements share for all heads.

        These are att [H, D], edge_map [H, D, K], and edge_term and edge_mask [E, H].
        """
        if shared is None or (
            name == "edge_mask" and (shared.dim() == 1 or shared.shape[1] != heads)
        ):
            return shared  # one for all heads, or invalid: the operator checks it
        if name in ("att", "edge_map"):
            return shared.repeat(self.batch, *[1] * (shared.dim() - 1))
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
