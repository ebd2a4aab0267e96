"""Records the attention of layers, and matches it with the caller's edges."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from gat_ext.graph import Graph
from gat_ext.graph.cache import cached
from gat_ext.graph.self_loops import given_positions
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.nn.adjacency import attention_of, is_plain, unwrap
from gat_ext.nn.base import AttentionConv
from gat_ext.nn.inputs import Adjacency, as_graph


class LayerAttention(NamedTuple):
    """The attention of a layer in one call.

    A layer that adds self-loops attends over the given edges without self-loops, then over one loop
    for every node. ``edge_id`` is the position of each edge among the given ones, -1 for a
    self-loop that was not given. For a given self-loop it is the position of the first one at its
    node.

    Attributes:
        name: name of the layer in the recorded model, or "".
        edge_index: [2, E'], the edges that the layer attended over, with added self-loops last.
        alpha: [E', H], their weights as the layer returns them; [E', B, H] for a batch of features
            on one graph.
        edge_id: [E'], int64.
        num_given: E, the number of given edges.
        num_src: number of sources.
        num_dst: number of destinations.

    Example:
        >>> from gat_ext.nn import GATConv
        >>> layer, edges = GATConv(4, 2, heads=3), torch.tensor([[0, 1, 1], [1, 1, 2]])
        >>> with record_attention(layer) as records:
        ...     out = layer(torch.randn(3, 4), edges)
        >>> records[0].edge_index, records[0].edge_id
        (tensor([[0, 1, 0, 1, 2],
                [1, 2, 0, 1, 2]]), tensor([ 0,  2, -1,  1, -1]))
        >>> records[0].of_given_edges().shape
        torch.Size([3, 3])
    """

    name: str
    edge_index: Tensor
    alpha: Tensor
    edge_id: Tensor
    num_given: int
    num_src: int
    num_dst: int

    @property
    def added(self) -> Tensor:
        """True for self-loops that were not given; [E'], bool."""
        return self.edge_id < 0

    def of_given_edges(self) -> Tensor:
        """The weights of the given edges in their order, [E, H]; differentiable.

        0 for edges that the layer omitted: second and further self-loops of a node.
        """
        given = (~self.added).nonzero().flatten()
        zeros = self.alpha.new_zeros((self.num_given, *self.alpha.shape[1:]))
        return zeros.index_copy(0, self.edge_id[given], self.alpha[given])

    def of_added_loops(self) -> Tensor:
        """The weight of each node's added self-loop, [N_dst, H]; 0 without one; differentiable."""
        loops = self.added.nonzero().flatten()
        zeros = self.alpha.new_zeros((self.num_dst, *self.alpha.shape[1:]))
        return zeros.index_copy(0, self.edge_index[1, loops], self.alpha[loops])

    def graph(self) -> Graph:
        """The graph of ``edge_index``."""
        edges, num_src, num_dst = self.edge_index, self.num_src, self.num_dst
        # A Graph under torch.func too, where layers have none: these edges are not transformed.
        key = (num_src, num_dst, "as given")
        return cached((edges,), key, lambda: Graph(edges, num_src=num_src, num_dst=num_dst))


def check_attention(attention: Any) -> None:
    """Raises TypeError unless it is a LayerAttention."""
    if not isinstance(attention, LayerAttention):
        raise TypeError(
            f"attention is a {type(attention).__name__}; expected a LayerAttention, which "
            "record_attention collects for each layer and match_edges returns"
        )


def sequence_of(attention: Any) -> list[LayerAttention]:
    """The layers, in a list; raises TypeError unless each is a LayerAttention."""
    if isinstance(attention, LayerAttention) or not isinstance(attention, (list, tuple)):
        raise TypeError(
            f"attention is a {type(attention).__name__}; expected a list with a LayerAttention for "
            "each layer, as record_attention collects it"
        )
    for layer in attention:
        check_attention(layer)
    return list(attention)


def match_edges(
    attention: tuple[Tensor, Tensor], adjacency: Adjacency, *, name: str = ""
) -> LayerAttention:
    """Matches the result of ``return_attention_weights=True`` with the caller's edges.

    Args:
        attention: (edge_index [2, E'], alpha [E', H]) of a layer.
        adjacency: the Graph or the edge_index [2, E] of the layer's call; must be a Graph if
            sources and destinations are not the same nodes.
        name: name of the result.

    Returns:
        The attention with the position of each edge among the given ones.

    Raises:
        TypeError: attention is no pair of tensors.
        ValueError: the layer's edges do not come from these.

    Example:
        >>> from gat_ext.nn import AGNNConv
        >>> edges = torch.tensor([[0, 1, 1], [1, 1, 0]])
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> _, attention = AGNNConv()(x, edges, return_attention_weights=True)
        >>> matched = match_edges(attention, edges)
        >>> matched.edge_index, matched.edge_id  # node 1's loop was given, node 0's was added
        (tensor([[0, 1, 0, 1],
                [1, 0, 0, 1]]), tensor([ 0,  2, -1,  1]))
        >>> matched.of_given_edges().flatten(), matched.of_added_loops().flatten()
        (tensor([0.5000, 0.5000, 0.5000], grad_fn=<ViewBackward0>),
         tensor([0.5000, 0.0000], grad_fn=<ViewBackward0>))
    """
    if (
        not isinstance(attention, (tuple, list))
        or len(attention) != 2
        or not all(isinstance(part, Tensor) for part in attention)
    ):
        raise TypeError(
            f"attention is a {type(attention).__name__}; expected the pair (edge_index, alpha) "
            "that a layer returns with return_attention_weights=True"
        )
    edges, alpha = attention
    graph = adjacency
    if isinstance(graph, ShardedGraph):
        raise TypeError(
            f"adjacency is {graph!r}; expected the edges of the whole graph: attention of a part "
            "says nothing about paths through others, so call the model on the whole graph, or "
            "read (edges, weights) of the part with return_attention_weights=True"
        )
    if not isinstance(graph, Graph):
        graph = Graph(graph, num_nodes=int(edges.max()) + 1 if edges.numel() else 0)
    edge_id = given_positions(edges, graph.edge_index)
    return LayerAttention(
        name, edges, alpha, edge_id, graph.num_edges, graph.num_src, graph.num_dst
    )


@contextmanager
def record_attention(model: nn.Module) -> Iterator[list[LayerAttention]]:
    """Records the attention of every layer of :mod:`gat_ext.nn` in a module while it runs.

    Inside the ``with`` block every call of such a layer, or of one derived from
    ``gat_ext.nn.base.AttentionConv``, appends to the list. Results of the layers are unchanged, and
    hooks are removed afterwards; other hooks of the layers receive edges of another form as a
    Graph. Call ``model.eval()`` first: in training the weights include dropout, or, for
    TransformerConv, a second pass computes them. A layer of several relations appends once for
    each, with a name such as "layers.0 author__writes__paper". The weights are differentiable,
    except under ``torch.no_grad()``. Record the uncompiled module of a compiled one.

    Args:
        model: any module, or a layer itself.

    Yields:
        The list, empty at first.

    Raises:
        TypeError: model is not a torch.nn.Module.
        ValueError: the model has no such layer.

    Example:
        >>> from gat_ext.models import GAT
        >>> model = GAT(4, 8, 2, heads=3).eval()
        >>> with record_attention(model) as layers, torch.no_grad():
        ...     out = model(torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]]))
        >>> [(layer.name, list(layer.alpha.shape)) for layer in layers]
        [('layers.0', [5, 3]), ('layers.1', [5, 1])]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
    found = {name: m for name, m in model.named_modules() if isinstance(m, AttentionConv)}
    if not found:
        names = ", ".join(kind.__name__ for kind in AttentionConv.__subclasses__())
        raise ValueError(
            f"{type(model).__name__} has no attention to record; expected a module with one of the "
            f"layers {names}"
        )
    records: list[LayerAttention] = []
    handles: list[Any] = []
    try:
        for name, layer in found.items():
            handles += _Recorder(name, records).attach(layer)
        yield records
    finally:
        for handle in handles:
            handle.remove()


class _Recorder:
    """Two hooks of a layer: one requests its attention, the other removes it from the result."""

    def __init__(self, name: str, records: list[LayerAttention]) -> None:
        self.name, self.records, self.asked = name, records, False
        self.adjacency: Any = None

    def attach(self, layer: AttentionConv) -> list[Any]:
        # Prepended, so that other hooks of the layer see the caller's form of the result.
        return [
            layer.register_forward_pre_hook(self.before, with_kwargs=True),
            layer.register_forward_hook(self.after, with_kwargs=True, prepend=True),
        ]

    def before(self, layer: AttentionConv, args: Any, kwargs: Any) -> tuple[Any, Any]:
        call = inspect.signature(layer.forward).bind(*args, **kwargs)
        given = call.arguments
        self.asked = bool(given.get("return_attention_weights"))
        if "edge_index_dict" in given:
            given["return_attention_weights"] = True
            return call.args, call.kwargs
        self.adjacency = given["edge_index"]
        if not is_plain(self.adjacency):
            given["x"], given["edge_index"], edge_attr = layer.plain_inputs(
                given["x"], self.adjacency, given.get("edge_attr")
            )
            if edge_attr is not None:
                given["edge_attr"] = edge_attr
        given["return_attention_weights"] = True
        return call.args, call.kwargs

    def after(self, layer: AttentionConv, args: Any, kwargs: Any, result: Any) -> Any:
        out, attention = result
        given = inspect.signature(layer.forward).bind(*args, **kwargs).arguments
        if "edge_index_dict" in given:
            self._record_relations(given, attention)
            return result if self.asked else out
        x, num_dst = given["x"], out.shape[-2]
        num_src = (x[0] if isinstance(x, (tuple, list)) else x).shape[-2]
        graph = as_graph(given["edge_index"], num_src, num_dst)
        self.records.append(match_edges(attention, graph, name=self.name))
        adjacency, self.adjacency = self.adjacency, None
        if not self.asked:
            return out
        return result if is_plain(adjacency) else (out, attention_of(adjacency, graph, *attention))

    def _record_relations(self, given: dict[str, Any], attention: dict[Any, Tensor]) -> None:
        """Those of a layer of several relations: one after the other."""
        sizes = {name: x.shape[0] for name, x in given["x_dict"].items()}
        for relation, alpha in attention.items():
            edges = unwrap(given["edge_index_dict"][relation])
            graph = as_graph(edges, sizes[relation[0]], sizes[relation[2]])
            name = f"{self.name} {'__'.join(relation)}".strip()
            self.records.append(match_edges((graph.edge_index, alpha), graph, name=name))
