"""FAConv."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gat_ext.functional import checks, sddmm, spmm
from gat_ext.functional.masked import mask_of, mask_of_edges
from gat_ext.functional.sparse import of_slots
from gat_ext.graph import Graph
from gat_ext.graph.cache import cached
from gat_ext.graph.formats.torch_sparse import is_torch_sparse, stored_values
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.graph.traced import TracedGraph
from gat_ext.nn import arguments
from gat_ext.nn.adjacency import is_plain, plain_inputs
from gat_ext.nn.base import AttentionConv, Operands
from gat_ext.nn.batch import Batch
from gat_ext.nn.inputs import Adjacency, Attention, Features, NodeFeatures, check_dense
from gat_ext.nn.linear import linear, reset_
from gat_ext.nn.tracers import check_is_no_proxy
from gat_ext.ops import linear_maps
from gat_ext.ops.numbering import numbered_rows
from gat_ext.ops.registry import accumulate_dtype
from gat_ext.ops.scatter import row_sum


def signed_sum(
    graph: GraphLike,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    *,
    coefficients: Tensor | None = None,
    dropout_p: float = 0.0,
    edge_mask: Tensor | None = None,
    return_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Sums neighbours with weights in (-1, 1): Σ_j w_ij tanh(dst_term_i + src_term_j) value_j.

    It is composed of :func:`gat_ext.functional.sddmm`, whose product of (dst_term_i, 1) and
    (1, src_term_j) is the sum of both, and :func:`gat_ext.functional.spmm`; it allocates [E, H].

    Args:
        graph: the graph; square if there are no coefficients.
        value: [N_src, H, F].
        dst_term: [N_dst, H].
        src_term: [N_src, H].
        coefficients: w, [E] or [E, H]; None for 1 / sqrt(d_i d_j), with the number d of in-edges.
        dropout_p: probability of dropping a weight.
        edge_mask: [E], [E, 1] or [E, H], multiplies the weights.
        return_weights: also return tanh(…), times the mask, before dropout, [E, H].
    """
    one = torch.ones_like(dst_term[:1])
    ends = (
        torch.stack([dst_term, one.expand_as(dst_term)], -1),
        torch.stack([one.expand_as(src_term), src_term], -1),
    )
    alpha = sddmm(graph, *ends).tanh()
    weight = _dropped(graph, alpha, dropout_p) if dropout_p else alpha
    if coefficients is None:
        weight = weight * _normalisation(graph, value.dtype)
    else:
        coefficients = mask_of(value, coefficients, "edge_weight")
        checks.edge_values(graph, coefficients, "edge_weight")
        weight = weight * (coefficients.unsqueeze(-1) if coefficients.dim() == 1 else coefficients)
    if edge_mask is not None:
        mask = mask_of_edges(graph, value, edge_mask)
        mask = of_slots(graph, mask.unsqueeze(-1) if mask.dim() == 1 else mask)
        weight, alpha = weight * mask, alpha * mask
    out = spmm(graph, value, weight)
    return (out, alpha) if return_weights else out


def _dropped(graph: GraphLike, alpha: Tensor, p: float) -> Tensor:
    """Dropout as PyG's; of a DistGraph, by the number of each edge."""
    if not isinstance(graph, ShardedGraph):
        return F.dropout(alpha, p)
    with numbered_rows(graph.edge_numbering):
        return linear_maps.dropout(alpha, p)


def _normalisation(graph: GraphLike, dtype: torch.dtype) -> Tensor:
    """1 / sqrt(d_i d_j) of every edge, [E, 1]; 0 if d_j is 0. Cached with a Graph."""
    compute = partial(_inverse_roots, graph, dtype)
    if isinstance(graph, (Graph, ShardedGraph)):
        return cached((graph,), ("symmetric normalisation", dtype), compute)
    return compute()


def _inverse_roots(graph: GraphLike, dtype: torch.dtype) -> Tensor:
    (src, dst), wide = graph.edge_index, accumulate_dtype(dtype)
    count = torch.ones(graph.num_edges, dtype=wide, device=graph.device)
    if isinstance(graph, TracedGraph):
        count = graph.attended.to(wide)
    degree = row_sum(count, dst, graph.num_dst)
    root = torch.where(degree > 0, degree.clamp(min=1).rsqrt(), 0)
    if isinstance(graph, ShardedGraph):
        return (graph.extend(root)[0][src] * root[dst]).to(dtype).unsqueeze(-1)
    return (root[src] * root[dst]).to(dtype).unsqueeze(-1)


class FAConv(AttentionConv):
    r"""Frequency adaptive convolution: neighbours with weights of either sign, plus first features.

    .. math::
        x'_i = \epsilon\, x^{(0)}_i + \sum_{j \in N(i) \cup \{i\}}
        \frac{\alpha_{ij}}{\sqrt{d_i d_j}}\, x_j, \qquad
        \alpha_{ij} = \tanh(a_l^\top x_j + a_r^\top x_i)

    d_i is the number of edges into i, its self-loop included. A positive weight passes on what
    neighbours share (low frequencies), a negative one in what they differ (high frequencies).

    Args:
        channels: size C of the features; -1 takes it from the first input.
        eps: ε.
        dropout: probability of dropping an α_ij in training.
        cached: as of PyG's layer, which then reuses the edges of its first call, whatever the
            later ones are. No effect here: the sorted graph and its degrees are always cached, by
            the contents of edge_index.
        add_self_loops: replace the graph's self-loops by one for every node; no effect without
            ``normalize``.
        normalize: divide by sqrt(d_i d_j); else each call needs edge_weight, which takes the place
            of 1 / sqrt(d_i d_j).
        **message_passing: arguments of PyG's MessagePassing (aggr, flow, …); accepted if they have
            the defaults of PyG's layer.

    Shapes:
        x and x_0 [N, C], where x_0 are the features of the first layer and may be None if eps is 0;
        edge_index [2, E], a Graph or another form of edges, see :mod:`gat_ext.nn`; returns [N, C].
        With ``return_attention_weights=True`` returns (out, (edge_index, alpha [E'])), with
        self-loops last and alpha masked, but before dropout and without 1 / sqrt(d_i d_j).
        With ``normalize``, ``edge_weight`` and ``edge_mask`` are two names of one argument: w [E]
        or [E, 1], real numbers (differentiable) or booleans, multiplies α of the caller's edges,
        but does not change d. It does not apply to added self-loops. Without ``normalize``,
        edge_weight [E] are the coefficients, or the values of a sparse matrix given as edges, and
        edge_mask multiplies α.
        x may be a batch [B, N, C] of features on one graph, with any number of axes B; then x_0
        and out are [B, N, C] and alpha [E', B].

    Raises:
        TypeError: x or x_0 is not a dense floating-point tensor, or not of the layer's dtype.
        ValueError: sizes do not match; there is no edge_weight, without ``normalize``.
        IndexError: a node number in edge_index is out of range.

    Cost: allocates [E'], never [E', C], except inside torch.func.

    Source: Bo, Wang, Shi, Shen, "Beyond Low-frequency Information in Graph Convolutional Networks",
    AAAI 2021, eq. 4 to 8.

    Example:
        >>> import torch
        >>> from gat_ext.nn import FAConv
        >>> x = torch.randn(3, 16)
        >>> FAConv(16)(x, x, torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 16])
    """

    operator = staticmethod(signed_sum)
    reads: ClassVar[dict[str, str]] = {"att_l": "src", "att_r": "src"}
    accepts_pairs = False

    def __init__(
        self,
        channels: int,
        eps: float = 0.1,
        dropout: float = 0.0,
        cached: bool = False,
        add_self_loops: bool = True,
        normalize: bool = True,
        **message_passing: Any,
    ) -> None:
        """Creates the parameters; see the class for the arguments."""
        super().__init__(channels)
        arguments.check_message_passing(message_passing)
        arguments.check_channels("channels", channels)
        checks.number(eps, "eps")
        checks.probability(dropout, "dropout")
        arguments.check_flags(cached=cached, add_self_loops=add_self_loops, normalize=normalize)
        self.channels, self.eps, self.dropout, self.cached = channels, eps, dropout, cached
        self.add_self_loops, self.normalize = add_self_loops, normalize
        self.att_l = linear(channels, 1, bias=False, glorot=False)
        self.att_r = linear(channels, 1, bias=False, glorot=False)
        self.reset_parameters()

    @property
    def replaces_loops(self) -> bool:
        """Only as a part of the normalisation, as in PyG's layer."""
        return self.add_self_loops and self.normalize

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_(self.att_l, self.att_r)

    def forward(  # type: ignore[override]  # in the order of PyG's
        self,
        x: Tensor,
        x_0: Tensor | None,
        edge_index: Adjacency,
        edge_weight: Tensor | None = None,
        return_attention_weights: bool | None = None,
        *,
        edge_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Propagates; see the class for shapes."""
        check_is_no_proxy(self, x, x_0, edge_index)
        self._check_first(x, x_0)
        coefficients = None
        if not self.normalize:
            coefficients, edge_weight = self._coefficients(edge_index, edge_weight), None
        options = return_attention_weights, edge_mask, edge_weight
        result = self.attend(x, edge_index, None, None, *options, coefficients=coefficients)
        if self.eps == 0.0 or x_0 is None:
            return result
        if isinstance(result, tuple):
            return result[0] + self.eps * x_0, result[1]
        return result + self.eps * x_0

    def projections(self) -> tuple[nn.Linear, nn.Linear]:
        """(att_l, att_r)."""
        return self.att_l, self.att_r

    def split(self, x: NodeFeatures) -> tuple[Features, Features | None, Batch | None]:
        """Raises for sparse x, too, because x itself is summed."""
        if not isinstance(x, (tuple, list)):
            check_dense("x", x, self)
        return super().split(x)

    def project(
        self,
        x_src: Features,
        x_dst: Features | None,
        edge_attr: Tensor | None,
        num_dst: int,
        *,
        coefficients: Tensor | None = None,
    ) -> Operands:
        """X itself, as one head, and the two terms of the weights."""
        assert isinstance(x_src, Tensor)
        src_term, dst_term = self.att_l(x_src).view(-1, 1), self.att_r(x_src).view(-1, 1)
        value = x_src.flatten(0, -2).unsqueeze(1)
        return Operands((value, dst_term, src_term), {"coefficients": coefficients})

    def result_dtype(self, x: Features, out: Tensor) -> torch.dtype:
        """The dtype of x, which is not projected."""
        return x.dtype

    def _check_first(self, x: Any, x_0: Any) -> None:
        """Raises unless x_0 can be added to the result for x."""
        if (self.eps == 0.0 and x_0 is None) or not isinstance(x, Tensor):
            return  # split raises for another x
        if not x.is_floating_point() or x.layout != torch.strided:
            return  # likewise
        if not isinstance(x_0, Tensor):
            raise TypeError(
                f"x_0 is a {type(x_0).__name__}; {self} expects the features of the first layer, a "
                "torch.Tensor [N, C]; None only with eps=0"
            )
        checks.same_kind(x, "x", x_0, "x_0")
        if x_0.shape != x.shape:
            raise ValueError(
                f"x_0 has shape {list(x_0.shape)}; {self} expects {list(x.shape)}, that of x"
            )

    def _coefficients(self, adjacency: Adjacency, edge_weight: Tensor | None) -> Tensor:
        """``edge_weight``, or the values of a sparse matrix; raises without both."""
        if edge_weight is None and not is_plain(adjacency):
            is_matrix = is_torch_sparse(adjacency)
            values = stored_values(adjacency) if is_matrix else None
            edge_weight = plain_inputs(None, adjacency, values, 1)[2]
        if edge_weight is None:
            raise ValueError(
                f"edge_weight is None, but {self} has normalize=False; expected the coefficients "
                "[E] of the edges"
            )
        return edge_weight

    def _attention(self, weights: Tensor, graph: GraphLike, adjacency: Adjacency) -> Any:
        """The weights without an axis of heads, as PyG's."""
        return super()._attention(weights.squeeze(-1), graph, adjacency)

    def __repr__(self) -> str:
        """As PyG's."""
        return f"{type(self).__name__}({self.channels}, eps={self.eps})"
