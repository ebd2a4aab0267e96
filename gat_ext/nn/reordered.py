"""Runs a layer or model on a renumbered graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gat_ext.graph import ORDERS, Graph, csr
from gat_ext.graph.cache import cached
from gat_ext.graph.order import inverse
from gat_ext.graph.self_loops import ends_with_loops
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.nn.adjacency import attention_of, is_plain, plain_inputs
from gat_ext.nn.features import SparseFeatures, as_features
from gat_ext.nn.inputs import Adjacency, Attention, Features
from gat_ext.ops.slots import with_loops
from gat_ext.ops.state import is_tracing


class Reordered(nn.Module):
    """Wraps a layer or model to run on a renumbered graph with better cache locality.

    ``Reordered(module, method)(x, graph, ...)`` equals ``module(x, graph, ...)`` up to rounding.
    The module runs on ``graph.reorder(method)`` with the rows of x in that order; the rows of its
    result are moved back to the caller's order. Wrap a whole model rather than each layer, so that
    only the rows of its input and output are moved. It is faster if the better locality saves more
    time than these moves cost.

    The order of a Graph is computed at the first call and cached as long as the Graph lives; that
    of an edge_index or a matrix, until it is modified. Objects that are read at every call, such as
    NetworkX graphs, are ordered at every call. The reordered rows of an x without gradient are
    cached, too, until x is modified; in-place changes are noticed by torch's version counter, or by
    contents for tensors in shared memory and while ``torch.distributed`` is initialised.

    ``state_dict`` has the keys of the module itself, so checkpoints load with and without the
    wrapper. The attribute ``module`` is the wrapped module; its other methods, such as a model's
    ``attention_weights``, are not affected.

    Args:
        module: takes ``(x [N, C], Graph, ...)``, as every layer and model of this package.
        method: one of :data:`gat_ext.graph.ORDERS`; see :meth:`gat_ext.Graph.reorder`.

    Shapes:
        As the module's. x is one tensor or ``SparseFeatures``. Other arguments are passed on
        unchanged, also those with a row for each edge, because edges keep their order. In the
        result, every tensor with N rows is returned in the caller's order, and every pair
        (edge_index, alpha) in the caller's numbering, with added self-loops by ascending node;
        other tensors are not changed.

    Raises:
        TypeError: module is not a torch.nn.Module; x is neither a tensor nor ``SparseFeatures``;
            the module returns anything but tensors and tuples of them.
        ValueError: unknown method; the graph is bipartite, or x is a pair; a layer was given
            another argument in the order or numbering of the nodes; x does not have one row for
            each node, or is on another device.
        ImportError: see :meth:`gat_ext.Graph.reorder`.

    Note:
        Feature dropout draws random numbers in the order of the rows, so a seed drops other
        elements than it does without the wrapper.

    Example:
        >>> from gat_ext.nn import GATConv
        >>> layer = GATConv(3, 2)
        >>> graph, x = Graph(torch.tensor([[0, 2, 3], [2, 1, 2]]), num_nodes=4), torch.randn(4, 3)
        >>> reordered = Reordered(layer, "degree")
        >>> torch.allclose(reordered(x, graph), layer(x, graph), atol=1e-6)
        True
        >>> list(reordered.state_dict()) == list(layer.state_dict())
        True
    """

    def __init__(self, module: nn.Module, method: str) -> None:
        """Wraps the module; see the class for the arguments."""
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"module is a {type(module).__name__}; expected a torch.nn.Module")
        if method not in ORDERS:
            names = ", ".join(map(repr, ORDERS))
            raise ValueError(f"method is {method!r}; expected one of {names}")
        self.module, self.method = module, method
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    def forward(self, x: Features, edge_index: Adjacency, *args: Any, **kwargs: Any) -> Any:
        """Calls the module; see the class for shapes.

        Args:
            x: [N, C].
            edge_index: a Graph, an edge_index [2, E], or another form of edges; see
                :mod:`gat_ext.nn`.
            args: other arguments of the module.
            kwargs: other keyword arguments of the module.
        """
        adjacency = edge_index
        if isinstance(adjacency, ShardedGraph):
            raise TypeError(
                f"edge_index is {adjacency!r}; Reordered expects a whole graph: reorder it before "
                "the partition, with Graph.reorder, and call the module itself"
            )
        if not is_plain(adjacency):
            given, edge_dim = kwargs.get("edge_attr"), getattr(self.module, "edge_dim", None)
            x, edge_index, edge_attr = plain_inputs(x, adjacency, given, None if args else edge_dim)
            if edge_attr is not given:
                kwargs["edge_attr"] = edge_attr
        x = as_features(x)
        if isinstance(x, (tuple, list)):
            raise ValueError(
                "x is a pair (x_src, x_dst); Reordered expects one tensor x, because it renumbers "
                "sources and destinations alike: call the module itself on a bipartite graph"
            )
        if not isinstance(x, (Tensor, SparseFeatures)):
            raise TypeError(
                f"x is a {type(x).__name__}; expected a tensor [N, C] or SparseFeatures"
            )
        if x.dim() != 2:
            raise ValueError(f"x has shape {list(x.shape)}; expected [N, C]")
        self._check_arguments(x, edge_index, *args, **kwargs)
        find = _untraced_order_of() if torch.compiler.is_compiling() else _order_of
        order = find(edge_index, x.shape[0], self.method)
        if x.device != order.graph.device:
            raise ValueError(
                f"x is on {x.device}, the graph on {order.graph.device}; expected the same device: "
                "move one of them with .to()"
            )
        result = order.returned(self.module(order.rows(x), order.graph, *args, **kwargs))
        if is_plain(adjacency) or not isinstance(result, tuple) or len(result) != 2:
            return result
        out, attention = result
        is_pair = isinstance(attention, tuple) and _is_attention(attention)
        return (out, attention_of(adjacency, order.graph, *attention)) if is_pair else result

    def _check_arguments(self, *args: Any, **kwargs: Any) -> None:
        """Raises ValueError for an argument of a layer whose rows or numbers are of nodes."""
        per_node: tuple[str, ...] = getattr(self.module, "per_node", ())
        if not per_node or (len(args) == 2 and not kwargs):
            return
        given = inspect.signature(self.module.forward).bind(*args, **kwargs).arguments
        for name in per_node:
            if given.get(name) is not None:
                raise ValueError(
                    f"{name} was given to Reordered, which renumbers the nodes for x and the edges "
                    f"only; expected a call without it: call the {type(self.module).__name__} "
                    "itself, on graph.reorder(method)"
                )

    def extra_repr(self) -> str:
        """The method."""
        return f"method={self.method!r}"


# ---- names of parameters


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    _rename(state, f"{prefix}module.", prefix)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    _rename(state, prefix, f"{prefix}module.")


def _rename(state: dict[str, Any], before: str, after: str) -> None:
    for key in [key for key in state if key.startswith(before)]:
        state[after + key.removeprefix(before)] = state.pop(key)


# ---- orders


class _Order(NamedTuple):
    """A renumbered graph and its permutation."""

    graph: Graph
    permutation: Tensor  # [N], the old number of each new node
    new_number: Tensor  # [N], the new number of each old node

    def rows(self, x: Features) -> Features:
        """Features in the new order; cached for constants: the copy costs as much as a layer."""
        if isinstance(x, SparseFeatures):
            graph = x.graph
            moved = cached((graph, self.graph), "rows", lambda: self._rows_of_graph(graph))
            return SparseFeatures._of(moved, x.values)
        if x.requires_grad or is_tracing():
            return x.index_select(0, self.permutation)
        rows = partial(x.index_select, 0, self.permutation)
        return cached((x, self.graph), "rows", rows, large=True)

    def _rows_of_graph(self, graph: Graph) -> Graph:
        """The graph of sparse features, from columns to rows, with its rows in the new order."""
        column, row = graph.edge_index
        edges = torch.stack([column, self.new_number[row]])
        return Graph(edges, num_src=graph.num_src, num_dst=graph.num_dst)

    def returned(self, result: Any) -> Any:
        """Maps a module's result to the caller's order and numbering."""
        if isinstance(result, Tensor):
            of_nodes = result.dim() > 0 and result.shape[0] == self.graph.num_nodes
            return result.index_select(0, self.new_number) if of_nodes else result
        if not isinstance(result, tuple):
            raise TypeError(
                f"the module returned a {type(result).__name__}; Reordered expects tensors or "
                "tuples of tensors, whose rows it moves back to the caller's order"
            )
        if _is_attention(result):
            return self._attention(*result)
        return tuple(map(self.returned, result))

    def _attention(self, edge_index: Tensor, alpha: Tensor) -> Attention:
        old, num_loops = self.permutation[edge_index], self.graph.num_nodes
        # The module's added self-loops are last, by ascending new number.
        added = ends_with_loops(edge_index, num_loops)
        if not added or torch.equal(edge_index, self.graph.edge_index):
            return old, alpha
        given = edge_index.shape[1] - num_loops
        ascending = alpha[given:].index_select(0, self.new_number)
        return with_loops(old[:, :given], num_loops), torch.cat([alpha[:given], ascending])


def _is_attention(result: tuple[Any, ...]) -> bool:
    if len(result) != 2 or not all(isinstance(part, Tensor) for part in result):
        return False
    edge_index, alpha = result
    integers = edge_index.dtype in (torch.int32, torch.int64)
    pairs = edge_index.dim() == 2 and edge_index.shape[0] == 2
    return bool(integers and pairs and alpha.dim() and alpha.shape[0] == edge_index.shape[1])


def _order_of(adjacency: Tensor | Graph, num_nodes: int, method: str) -> _Order:
    if isinstance(adjacency, Graph):
        _check_nodes(adjacency, num_nodes)
    else:
        csr.check_edge_index(adjacency)
    key = ("order", method, num_nodes)
    return cached((adjacency,), key, lambda: _new_order(adjacency, num_nodes, method))


def _untraced_order_of() -> Callable[..., _Order]:
    """_order_of, which torch.compile does not trace.

    A decorator would import the compiler with the package.
    """
    untraced: Callable[..., _Order] = torch.compiler.disable(_order_of)
    return untraced


def _check_nodes(graph: Graph, num_nodes: int) -> None:
    if graph.num_src != graph.num_dst:
        raise ValueError(
            f"{graph!r} is bipartite; Reordered expects a graph whose sources and destinations are "
            "the same nodes: call the module itself"
        )
    if graph.num_nodes != num_nodes:
        raise ValueError(
            f"x has {num_nodes} rows, but the graph is {graph!r}; expected one row for each node"
        )


def _new_order(edges: Tensor | Graph, num_nodes: int, method: str) -> _Order:
    graph = edges if isinstance(edges, Graph) else Graph(edges, num_nodes=num_nodes)
    reordered, permutation = graph.reorder(method)
    return _Order(reordered, permutation, inverse(permutation))
