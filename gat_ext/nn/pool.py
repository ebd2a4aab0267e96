"""Pooling: a batch of graphs' node features become one row of features for each graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gat_ext.functional import checks, edge_softmax, spmm
from gat_ext.graph import Graph
from gat_ext.graph.cache import cached
from gat_ext.graph.csr import adjacency_csr
from gat_ext.graph.traced import TracedGraph
from gat_ext.nn.arguments import asks_for_weights, check_size
from gat_ext.nn.batch import Batch, nodes_first
from gat_ext.nn.linear import reset_children
from gat_ext.nn.tracers import TracedModule, check_is_no_proxy
from gat_ext.ops.scatter import expand_rows
from gat_ext.ops.state import is_dispatched, is_exporting_to_onnx

REDUCTIONS = ("sum", "mean", "max", "min")


class Pool(TracedModule):
    r"""Sum, mean, maximum or minimum of the features of each graph's nodes.

    .. math:: \mathrm{out}_g = \mathrm{reduce}_{i \in g} \; x_i

    It is :func:`gat_ext.functional.spmm` on the graph of an edge from each node to the graph that
    it belongs to: bitwise identical for any number of threads, and differentiable any number of
    times. That graph is cached until ``batch`` or ``node_ptr`` is modified.

    Args:
        reduce: ``"sum"``, ``"mean"``, ``"max"`` or ``"min"`` (elementwise; the gradient goes to the
            first of equal values).

    Raises:
        ValueError: ``reduce`` is unknown.

    Example:
        >>> from gat_ext.nn import Pool
        >>> x = torch.tensor([[1.0], [2.0], [4.0]])
        >>> Pool("sum")(x, torch.tensor([0, 1, 0]))
        tensor([[5.], [2.]])
        >>> Pool("mean")(x, node_ptr=torch.tensor([0, 2, 2, 3]))
        tensor([[1.5000], [0.0000], [4.0000]])
    """

    def __init__(self, reduce: str = "sum") -> None:
        """Keeps the reduction; see the class for the argument."""
        super().__init__()
        checks.choice(reduce, REDUCTIONS, "reduce")
        self.reduce = reduce

    def forward(
        self,
        x: Tensor,
        batch: Tensor | None = None,
        *,
        node_ptr: Tensor | None = None,
        num_graphs: int | None = None,
    ) -> Tensor:
        """Pools the nodes of each graph.

        Without ``batch`` and ``node_ptr`` all nodes are of one graph.

        Args:
            x: [N, C], or [B, N, C] for a batch of features of the same nodes, with any number of
                axes B.
            batch: int64 [N], the graph of each node, in any order; PyG's vector of that name.
            node_ptr: int64 [G + 1], graph g has the nodes ``node_ptr[g]:node_ptr[g + 1]``; as in
                :class:`gat_ext.datasets.GraphDataset`.
            num_graphs: G, with ``batch``; None: its largest value plus one. Required in a compiled
                function, which cannot read it.

        Returns:
            [G, C], or [B, G, C]; 0 for a graph without nodes.

        Raises:
            TypeError: an argument has another type or dtype.
            ValueError: shapes or devices do not match; node_ptr does not ascend from 0 to N, which
                in a compiled function is not looked at; or an argument excludes another.
            IndexError: a value of batch is negative, or not below num_graphs.
        """
        check_is_no_proxy(self, x, batch, node_ptr)
        graph = membership(_rows(x), x.device, batch, node_ptr, num_graphs)
        rows, features = _nodes_first(x)
        return _restored(spmm(graph, rows, reduce=self.reduce), features)

    def extra_repr(self) -> str:
        """The reduction."""
        return repr(self.reduce)


class AttentionPool(TracedModule):
    r"""Weighted sum of the features of each graph's nodes; a softmax of learned gates weights them.

    .. math::
        \mathrm{out}_g = \sum_{i \in g} \alpha_i \, \mathrm{nn}(x_i), \qquad
        \alpha_i = \frac{\exp(\mathrm{gate}(x_i))}{\sum_{j \in g} \exp(\mathrm{gate}(x_j))}

    Arguments, results and names of parameters are those of PyG's ``AttentionalAggregation``.

    Args:
        gate_nn: maps [N, C] to gates [N, H], where H divides the number C' of pooled channels; each
            gate weights C' / H consecutive channels. PyG has H = 1 and H = C'.
        nn: maps [N, C] to the features [N, C'] to pool; None pools x itself.

    Raises:
        TypeError: an argument is not a module.

    Source: Li, Tarlow, Brockschmidt, Zemel, "Gated Graph Sequence Neural Networks", ICLR 2016,
    equation 7, with a softmax in place of the sigmoid, and without tanh.

    Example:
        >>> from gat_ext.nn import AttentionPool
        >>> pool = AttentionPool(torch.nn.Linear(8, 1))
        >>> out, alpha = pool(
        ...     torch.randn(4, 8), torch.tensor([0, 0, 0, 1]), return_attention_weights=True
        ... )
        >>> out.shape, alpha[3]
        (torch.Size([2, 8]), tensor([1.], grad_fn=<SelectBackward0>))
    """

    def __init__(self, gate_nn: nn.Module, nn: nn.Module | None = None) -> None:
        """Keeps the modules; see the class for the arguments."""
        super().__init__()
        for name, given in (("gate_nn", gate_nn), ("nn", nn)):
            if not isinstance(given, torch.nn.Module) and not (name == "nn" and given is None):
                raise TypeError(
                    f"{name} is a {type(given).__name__}; expected a module, such as "
                    "torch.nn.Linear(channels, 1)"
                )
        self.gate_nn, self.nn = gate_nn, nn

    def reset_parameters(self) -> None:
        """Resets the parameters of both modules."""
        reset_children(self)

    def forward(
        self,
        x: Tensor,
        batch: Tensor | None = None,
        *,
        node_ptr: Tensor | None = None,
        num_graphs: int | None = None,
        return_attention_weights: bool | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Pools the nodes of each graph.

        Args:
            x: as for :class:`Pool`.
            batch: likewise.
            node_ptr: likewise.
            num_graphs: likewise.
            return_attention_weights: also return alpha [N, H], or [B, N, H].

        Returns:
            [G, C'], or [B, G, C']; 0 for a graph without nodes. With ``return_attention_weights`` a
            pair of it and alpha.

        Raises:
            TypeError, ValueError, IndexError: as :class:`Pool`; or a result of ``gate_nn`` or
                ``nn`` does not have the shape given there.
        """
        check_is_no_proxy(self, x, batch, node_ptr)
        wanted = asks_for_weights(return_attention_weights)
        graph = membership(_rows(x), x.device, batch, node_ptr, num_graphs)
        gate, value = self.gate_nn(x), x if self.nn is None else self.nn(x)
        _check_rows("gate_nn", gate, x)
        _check_rows("nn", value, x)
        heads, channels = gate.shape[-1], value.shape[-1]
        if heads < 1 or channels % heads:
            raise ValueError(
                f"gate_nn returned {heads} gates for {channels} channels to pool; expected 1, or a "
                f"divisor of {channels}"
            )
        (gate, features), (value, _) = _nodes_first(gate), _nodes_first(value)
        alpha = edge_softmax(graph, gate.flatten(1))
        split = value.unflatten(-1, (heads, channels // heads)).flatten(1, -2)
        out = spmm(graph, split, alpha).flatten(1).unflatten(1, value.shape[1:])
        out, alpha = _restored(out, features), _restored(alpha.view(gate.shape), features)
        return (out, alpha) if wanted else out


# ---- batches of features


def _nodes_first(x: Tensor) -> tuple[Tensor, Batch | None]:
    """([N, B, C], its batch) of [..., N, C]; ([N, C], None) of [N, C]."""
    rows, features = nodes_first(x)
    assert isinstance(rows, Tensor)
    return rows, features


def _restored(out: Tensor, features: Batch | None) -> Tensor:
    """[..., G, C] of [G, B, C]; [G, C] stays."""
    return out if features is None else features.restore(out.transpose(0, 1), 0)


# ---- which nodes belong to which graph


def membership(
    num_nodes: int,
    device: torch.device,
    batch: Tensor | None,
    node_ptr: Tensor | None,
    num_graphs: int | None,
) -> Any:
    """The graph of an edge from each node to the graph that it belongs to, edges by node.

    Args:
        num_nodes: N.
        device: of the nodes' features.
        batch: as of :meth:`Pool.forward`.
        node_ptr: likewise.
        num_graphs: likewise.

    Raises:
        TypeError, ValueError, IndexError: likewise.
    """
    if batch is not None and node_ptr is not None:
        raise ValueError(
            "batch and node_ptr are two ways to say which nodes a graph has; give one of them"
        )
    if batch is None and num_graphs is not None:
        raise ValueError(
            f"num_graphs is {num_graphs}, without batch; expected None: node_ptr [G + 1] says G, "
            "and without both there is one graph"
        )
    if node_ptr is not None:
        checks.index_vector(node_ptr, "node_ptr", "[G + 1]")
        _check_device(node_ptr, "node_ptr", device)
        key = ("pool", num_nodes)
        return cached((node_ptr,), key, lambda: _of_pointers(node_ptr, num_nodes))
    if batch is None:
        return _of_batch(torch.zeros(num_nodes, dtype=torch.int64, device=device), 1)
    checks.index_vector(batch, "batch", "[N]")
    _check_device(batch, "batch", device)
    if batch.shape[0] != num_nodes:
        raise ValueError(
            f"batch has shape {list(batch.shape)}; expected [{num_nodes}], the graph of each node"
        )
    if num_graphs is not None and not torch.compiler.is_compiling():  # else it may be a symbol
        check_size("num_graphs", num_graphs)
    return cached((batch,), ("pool", num_graphs), lambda: _of_batch(batch, num_graphs))


def _of_pointers(node_ptr: Tensor, num_nodes: int) -> Any:
    num_graphs = checks.node_pointers(node_ptr, num_nodes, at_least=0)
    if is_exporting_to_onnx():  # which has no binary search
        return _of_batch(expand_rows(node_ptr, num_nodes), num_graphs)
    nodes = torch.arange(num_nodes, device=node_ptr.device)
    return _of_batch(torch.searchsorted(node_ptr[1:], nodes, right=True), num_graphs)


def _of_batch(batch: Tensor, num_graphs: int | None) -> Any:
    num_nodes = batch.shape[0]
    if num_graphs is None:
        if torch.compiler.is_compiling():
            raise ValueError(
                "num_graphs is None in a compiled function; expected the number of graphs, which "
                "there cannot depend on the values of batch"
            )
        num_graphs = int(batch.max()) + 1 if num_nodes else 0
    edges = torch.stack([torch.arange(num_nodes, device=batch.device), batch])
    if is_exporting_to_onnx():
        return TracedGraph(edges, num_nodes, num_graphs, self_loops=False)
    if torch.compiler.is_compiling() or is_dispatched():  # the operator checks the values
        parts, _ = adjacency_csr((edges, None, None), (num_nodes, num_graphs))
        return Graph._from_csr(parts, num_nodes)
    checks.in_range(batch, num_graphs, "batch", "num_graphs")
    return Graph(edges, num_src=num_nodes, num_dst=num_graphs)


# ---- checks


def _rows(x: Tensor) -> int:
    """N, of features [N, C] or [..., N, C]; raises for others."""
    checks.floating(x, "x")
    if x.dim() < 2:
        raise ValueError(
            f"x has shape {list(x.shape)}; expected [N, C], or [B, N, C] for a batch of features"
        )
    return x.shape[-2]


def _check_device(tensor: Tensor, name: str, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(
            f"{name} is on {tensor.device} and x is on {device}; expected the same device: move "
            "one of them with .to()"
        )


def _check_rows(name: str, result: Tensor, x: Tensor) -> None:
    """Raises unless a result has the rows of x."""
    checks.floating(result, f"the result of {name}")
    if result.dim() != x.dim() or result.shape[:-1] != x.shape[:-1]:
        raise ValueError(
            f"{name} returned shape {list(result.shape)} for x of shape {list(x.shape)}; expected "
            "one row for each of x"
        )
