"""SuperGATConv."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gat_ext.functional import checks, sddmm, supergat_attention
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.nn import arguments
from gat_ext.nn.adjacency import unwrap
from gat_ext.nn.base import AttentionConv, Operands, add_residual
from gat_ext.nn.inputs import Adjacency, Attention, Features, NodeFeatures, as_graph
from gat_ext.nn.linear import dot_heads, linear, reset_
from gat_ext.nn.negative import negative_edges
from gat_ext.nn.self_loops import loops_of
from gat_ext.nn.typed import check_rows
from gat_ext.ops.slots import are_attended
from gat_ext.ops.state import is_tracing


class _Seen(NamedTuple):
    """What the loss reads of the last call in training.

    Attributes:
        projected: W x, [N · B, H, C].
        adjacency: the edges, in the caller's form.
        negative: the given negative edges, or None.
        graphs: the graph of each node, or None.
        num_nodes: N.
    """

    projected: Tensor
    adjacency: Adjacency
    negative: Tensor | None
    graphs: Tensor | None
    num_nodes: int


class SuperGATConv(AttentionConv):
    r"""Multi-head graph attention whose dot products also learn to predict the edges.

    .. math::
        x'_i = \Vert_h \sum_{j \in N(i) \cup \{i\}} \alpha^h_{ij} W^h x_j, \qquad
        \alpha_{ij} = \mathrm{softmax}_j\, \mathrm{LeakyReLU}(e_{ij})

    where, with the logit of an edge l_ij, "MX" and "SD" are

    .. math::
        e^{MX}_{ij} = (a_r^\top W x_i + a_l^\top W x_j)\, \sigma(l_{ij}), \quad
        l^{MX}_{ij} = (W x_i)^\top W x_j, \qquad
        e^{SD}_{ij} = l^{SD}_{ij} = (W x_i)^\top W x_j / \sqrt{C}

    In training, add :meth:`get_attention_loss` to the loss after each call: the cross-entropy of
    the mean of l_ij over the heads, with the edges attended over as positive and pairs without an
    edge as negative examples.

    Args:
        in_channels: size of the input features; -1 takes it from the first input.
        out_channels: size C of a head's output.
        heads: H.
        concat: concatenate the heads, else average them.
        negative_slope: of LeakyReLU.
        dropout: probability of dropping an attention weight in training.
        add_self_loops: replace the graph's self-loops by one for every node.
        bias: add a learned bias.
        attention_type: "MX" or "SD".
        neg_sample_ratio: number of negative examples for each positive one.
        edge_sample_ratio: share of the edges that are positive examples, drawn at each call of the
            loss.
        is_undirected: as of PyG's layer, which then skips a test of the edges; here sampling leaves
            out both directions of every edge in any case.
        **message_passing: arguments of PyG's MessagePassing (aggr, flow, …); accepted if they have
            the defaults of PyG's layer.

    Shapes:
        x [N, in_channels]; edge_index [2, E], a Graph or another form of edges, see
        :mod:`gat_ext.nn`; neg_edge_index [2, E^-], negative examples for the loss, None samples
        them; batch [N], the graph of each node, among whose nodes negative examples are drawn;
        returns [N, H · C], or [N, C] without concat. With ``return_attention_weights=True``, which
        PyG's layer lacks, returns (out, (edge_index, alpha [E', H])), with self-loops last and
        alpha as applied, after dropout and mask.
        ``edge_weight``, or ``edge_mask``, two names of one argument: w [E] or [E, H], real numbers
        (differentiable) or booleans, multiplies the attention weights of the caller's edges after
        softmax and dropout: Σ_j w_ij α_ij W x_j. It does not apply to added self-loops.
        x may be a batch [B, N, in_channels] of features on one graph, with any number of axes B;
        then out is [B, N, ...], alpha [E', B, H], and the loss the mean over the elements.

    Raises:
        TypeError: x is not a tensor, or its dtype is not the layer's.
        ValueError: sizes do not match.
        IndexError: a node number in edge_index or neg_edge_index is out of range.

    Cost: MX is one fused pass; SD computes its scores [E', H] before it. The loss is computed only
    if requested, in a pass that allocates [E'] and [E^-], of W x, which the layer keeps until its
    next call. Under torch.compile, SD and the loss gather [E', H, C].

    Source: Kim, Oh, "How to Find Your Friendly Neighborhood: Graph Attention Design with
    Self-Supervision", ICLR 2021, eq. 3 to 8.

    Example:
        >>> import torch
        >>> from gat_ext.nn import SuperGATConv
        >>> layer = SuperGATConv(16, 8, heads=4, attention_type="SD")
        >>> layer(torch.randn(3, 16), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 32])
        >>> layer.get_attention_loss().shape
        torch.Size([])
    """

    operator = staticmethod(supergat_attention)
    reads: ClassVar[dict[str, str]] = {"lin": "src"}
    accepts_pairs = False
    per_node = ("neg_edge_index", "batch")
    bias: nn.Parameter | None
    att_l: nn.Parameter | None
    att_r: nn.Parameter | None
    _seen: _Seen | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        bias: bool = True,
        attention_type: str = "MX",
        neg_sample_ratio: float = 0.5,
        edge_sample_ratio: float = 1.0,
        is_undirected: bool = False,
        **message_passing: Any,
    ) -> None:
        """Creates the parameters; see the class for the arguments."""
        super().__init__(in_channels)
        arguments.check_message_passing(message_passing)
        arguments.check_sizes(in_channels, out_channels, heads, dropout, None, pairs=False)
        arguments.check_flags(concat=concat, add_self_loops=add_self_loops, bias=bias)
        arguments.check_flags(is_undirected=is_undirected)
        checks.choice(attention_type, ("MX", "SD"), "attention_type")
        if checks.number(neg_sample_ratio, "neg_sample_ratio") <= 0:
            raise ValueError(f"neg_sample_ratio is {neg_sample_ratio}; expected more than 0")
        if checks.probability(edge_sample_ratio, "edge_sample_ratio") == 0:
            raise ValueError("edge_sample_ratio is 0; expected more than 0, and at most 1")
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.concat, self.negative_slope, self.dropout = concat, negative_slope, dropout
        self.add_self_loops, self.attention_type = add_self_loops, attention_type
        self.neg_sample_ratio, self.edge_sample_ratio = neg_sample_ratio, edge_sample_ratio
        self.is_undirected = is_undirected
        self.lin = linear(in_channels, heads * out_channels, bias=False)
        for name in ("att_l", "att_r"):
            empty = torch.empty(1, heads, out_channels)
            self.register_parameter(name, nn.Parameter(empty) if attention_type == "MX" else None)
        total = out_channels * (heads if concat else 1)
        self.register_parameter("bias", nn.Parameter(torch.empty(total)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_(self.lin, self.att_l, self.att_r)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(  # type: ignore[override]  # in the order of PyG's
        self,
        x: NodeFeatures,
        edge_index: Adjacency,
        neg_edge_index: Tensor | None = None,
        batch: Tensor | None = None,
        *,
        return_attention_weights: bool | None = None,
        edge_mask: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Attends; see the class for shapes."""
        if not torch.compiler.is_exporting():
            self._seen = None
        options = return_attention_weights, edge_mask, edge_weight
        more = {"adjacency": edge_index, "negative": neg_edge_index, "graphs": batch}
        return self.attend(x, edge_index, None, None, *options, **more)

    def projections(self) -> tuple[nn.Linear, nn.Linear]:
        """(lin, lin)."""
        return self.lin, self.lin

    def project(
        self,
        x_src: Features,
        x_dst: Features | None,
        edge_attr: Tensor | None,
        num_dst: int,
        *,
        adjacency: Adjacency = None,
        negative: Tensor | None = None,
        graphs: Tensor | None = None,
    ) -> Operands:
        """W x, and for MX its products with the attention vectors."""
        num_nodes = x_src.shape[0]
        if negative is not None:
            as_graph(negative, num_nodes, num_nodes)
        if graphs is not None:
            check_rows(graphs, num_nodes, "batch", "graph of each node")
        src = self.split_heads(self.lin(x_src))
        if self.training and not torch.compiler.is_exporting():
            self._seen = _Seen(src, adjacency, negative, graphs, num_nodes)
        options = {"negative_slope": self.negative_slope}
        if self.att_l is None or self.att_r is None:
            return Operands((src, src, src), options)
        src_term, dst_term = dot_heads(src, self.att_l, self.att_r)
        return Operands((src, src, src, dst_term, src_term), options)

    def finish(self, out: Tensor, x_dst: Features | None) -> Tensor:
        """Adds the bias."""
        return add_residual(out, None, None, self.bias)

    def get_attention_loss(self) -> Tensor:
        """The cross-entropy of the edges' logits in the last call, a number; differentiable.

        Returns:
            tensor([0]) in evaluation, as PyG's layer does.

        Raises:
            RuntimeError: the layer was not called in training mode before.
            NotImplementedError: inside a traced function, if neg_edge_index was not given, because
                the number of sampled pairs depends on the edges.
        """
        if not self.training:
            return torch.tensor([0], device=self.lin.weight.device)
        if self._seen is None:
            raise RuntimeError(
                f"{self} has no logits of edges; call it in training mode before "
                "get_attention_loss()"
            )
        seen, num_nodes = self._seen, self._seen.num_nodes
        adjacency = unwrap(seen.adjacency)
        if isinstance(adjacency, ShardedGraph):
            raise NotImplementedError(
                "the loss of the edges is not available on a DistGraph, because its negative edges "
                "are pairs of all nodes; train without it"
            )
        if self.add_self_loops:
            graph = loops_of(adjacency, num_nodes, num_nodes).graph
        else:
            graph = as_graph(adjacency, num_nodes, num_nodes)
        src, dst = graph.edge_index
        negative = seen.negative
        if negative is None:
            if is_tracing():
                raise NotImplementedError(
                    "negative edges cannot be sampled inside a traced function, because their "
                    "number depends on the edges; pass neg_edge_index to the layer"
                )
            count = int(self.neg_sample_ratio * self.edge_sample_ratio * graph.num_edges)
            negative = negative_edges(torch.stack([src, dst]), num_nodes, count, seen.graphs)
        # Weights instead of a selection, so that no size depends on a value.
        weight = torch.ones_like(src, dtype=seen.projected.dtype)
        if self.add_self_loops and is_tracing():  # slots of given self-loops are not attended over
            given = graph.num_edges - num_nodes
            weight = are_attended(src[:given], dst[:given], num_nodes).to(weight.dtype)
        if self.edge_sample_ratio < 1:
            weight = weight * (torch.rand_like(weight) < self.edge_sample_ratio)
        rows = seen.projected.reshape(num_nodes, -1, self.heads * self.out_channels)
        scale = 1 / self.heads
        if self.attention_type == "SD":
            scale *= self.out_channels**-0.5
        positive = scale * sddmm(graph, rows, rows)
        others = scale * sddmm(as_graph(negative, num_nodes, num_nodes), rows, rows)
        total = (weight.unsqueeze(-1) * F.softplus(-positive)).sum() + F.softplus(others).sum()
        return total / ((weight.sum() + others.shape[0]) * rows.shape[1])

    def __getstate__(self) -> dict[str, Any]:
        """The state without the last call, which a copy does not share."""
        return {**self.__dict__, "_seen": None}

    def __repr__(self) -> str:
        """As PyG's."""
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads}, "
            f"type={self.attention_type})"
        )
