"""PointTransformerConv."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gat_ext.functional import dot_attention, gat_attention, sddmm
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.traced import TracedGraph
from gat_ext.nn import arguments
from gat_ext.nn.base import AttentionConv, Operands
from gat_ext.nn.batch import Batch
from gat_ext.nn.inputs import Adjacency, Attention, Features, NodeFeatures, check_kind
from gat_ext.nn.linear import is_plain_product, linear, reset_, reset_children
from gat_ext.ops import linear_maps
from gat_ext.ops.numbering import current_numbering
from gat_ext.ops.state import assume_several

Network = Callable[[Tensor], Tensor]


def vector_attention(
    graph: GraphLike,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    pos_dst: Tensor,
    pos_src: Tensor,
    *,
    pos_nn: Network | None,
    attn_nn: Network | None,
    return_weights: bool = False,
    **options: Any,
) -> Any:
    """The attention of :class:`PointTransformerConv`, with a softmax for each channel.

    Σ_j α_ij (v_j + δ_ij) with α_ij = softmax_j attn_nn(dst_term_i - src_term_j + δ_ij). If δ_ij is
    a_i - b_j, it is not computed for each edge.

    Args:
        graph: from the points that are attended over to those that attend.
        value: v, [N_src, C, 1].
        dst_term: [N_dst, C].
        src_term: [N_src, C].
        pos_dst: the positions [N_dst, D], or a [N_dst, C] if there is no pos_nn.
        pos_src: the positions [N_src, D], or b [N_src, C].
        pos_nn: δ_ij = pos_nn(pos_dst_i - pos_src_j); None: δ_ij = pos_dst_i - pos_src_j.
        attn_nn: from [E, C] to [E, C]; None for the identity.
        return_weights: as of :func:`gat_ext.functional.edge_attention`.
        options: dropout_p and edge_mask, likewise.

    Returns:
        out [N_dst, C, 1], or (out, weights [E, C]).
    """
    if pos_nn is not None:
        delta = _of_edges(graph, pos_nn, _differences(graph, pos_dst, pos_src), "pos_nn", value)
        # Both are sums of (q (k + δ) + bias) and (v + δ), with one element for each channel.
        query, key, bias = torch.zeros_like(dst_term), value, None
        if attn_nn is None:  # dst_term cancels: it is the same for all edges of a row
            query, key = dst_term * 0 + 1, -src_term.unsqueeze(-1)
        else:
            scores = _differences(graph, dst_term, src_term) + delta
            bias = _of_edges(graph, attn_nn, scores, "attn_nn", value)
        options |= {"bias": bias, "edge_feat": delta.unsqueeze(-1)}
        options |= {"return_weights": return_weights}
        return dot_attention(graph, query.unsqueeze(-1), key, value, scale=1.0, **options)
    value, src_term = value - pos_src.unsqueeze(-1), src_term + pos_src
    if attn_nn is None:  # pos_dst cancels
        terms = dst_term, -src_term
    else:
        scores = _differences(graph, dst_term + pos_dst, src_term)
        options["edge_term"] = _of_edges(graph, attn_nn, scores, "attn_nn", value)
        terms = torch.zeros_like(dst_term), torch.zeros_like(src_term)
    return _with_offset(graph, value, terms, pos_dst.unsqueeze(-1), return_weights, options)


def _with_offset(
    graph: GraphLike,
    value: Tensor,
    terms: tuple[Tensor, Tensor],
    offset: Tensor,
    return_weights: bool,
    options: dict[str, Any],
) -> Any:
    """Σ_j α_ij (v_j + offset_i), of scores that are the sum of terms of both ends."""
    options |= {"negative_slope": 1.0, "return_weights": return_weights}
    if options.get("edge_mask") is None:
        result = gat_attention(graph, value, *terms, return_lse=True, **options)
        out = result[0] + torch.where(result[-1].unsqueeze(-1) > -torch.inf, offset, 0)
    else:  # the weights of a row have another sum than 1
        value = torch.cat([value, torch.ones_like(value)], dim=-1)
        result = gat_attention(graph, value, *terms, **options)
        sums, factor = (result[0] if return_weights else result).split(1, dim=-1)
        out = sums + factor * offset
    return (out, result[1]) if return_weights else out


def _differences(graph: GraphLike, of_dst: Tensor, of_src: Tensor) -> Tensor:
    """a_i - b_j of every edge, [E, K], as the product of (a_i, 1) and (1, -b_j)."""
    ends = (
        torch.stack([of_dst, torch.ones_like(of_dst)], -1),
        torch.stack([torch.ones_like(of_src), -of_src], -1),
    )
    return sddmm(graph, *ends)


def _of_edges(graph: GraphLike, net: Any, rows: Tensor, name: str, value: Tensor) -> Tensor:
    """The rows of all edges through a network; raises unless they are [E, C] then.

    A traced graph has rows of the self-loops that it replaces. They must not change the statistics
    of a batch normalisation.
    """
    attended = None
    modules = net.modules() if isinstance(net, nn.Module) else ()
    normalises = any(isinstance(m, _BatchNorm) and m.training for m in modules)
    if normalises and isinstance(graph, TracedGraph) and graph.self_loops:
        attended = graph.attended.nonzero().squeeze(1)
        rows = rows[attended]
        assume_several(rows.shape[0])  # else the normalisation would have to know it
    out = net(rows)
    expected = rows.shape[0], value.shape[1]
    if not isinstance(out, Tensor) or tuple(out.shape) != expected:
        given = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"{name} returned {given}; expected {list(expected)}, a row of out_channels for each "
            "edge"
        )
    if attended is None:
        return out
    return out.new_zeros(graph.num_edges, out.shape[1]).index_copy(0, attended, out)


class PointTransformerConv(AttentionConv):
    r"""Attention between points, with a softmax for each channel and relative positions.

    .. math::
        x'_i = \sum_{j \in N(i) \cup \{i\}} \alpha_{ij} \odot (W_3 x_j + \delta_{ij}), \qquad
        \alpha_{ij} = \mathrm{softmax}_j\,
        \gamma(W_1 x_i - W_2 x_j + \delta_{ij}), \quad
        \delta_{ij} = \theta(p_i - p_j)

    where θ is ``pos_nn`` and γ ``attn_nn``; W_1, W_2 and W_3 are ``lin_dst``, ``lin_src`` and
    ``lin``.

    Args:
        in_channels: size of the input features, or a pair of those of sources and destinations; -1
            takes it from the first input.
        out_channels: size C of the output.
        pos_nn: maps differences of positions [E, D] to [E, C]; None for a linear map with D = 3.
        attn_nn: maps [E, C] to [E, C]; None for the identity.
        add_self_loops: replace the graph's self-loops by one for every point.
        **message_passing: arguments of PyG's MessagePassing (aggr, flow, …); accepted if they have
            the defaults of PyG's layer.

    Shapes:
        x [N, in_channels], or (x_src [N_src, F_src], x_dst [N_dst, F_dst]); pos [N, D], or a pair
        likewise; edge_index [2, E], a Graph or another form of edges, see :mod:`gat_ext.nn`;
        returns [N_dst, C]. With ``return_attention_weights=True``, which PyG's layer lacks, returns
        (out, (edge_index, alpha [E, C])), with added self-loops last.
        ``edge_weight``, or ``edge_mask``, two names of one argument: w [E] or [E, C], real numbers
        (differentiable) or booleans, multiplies alpha.

    Raises:
        TypeError: x or pos is not a tensor, or not of the layer's dtype.
        ValueError: sizes do not match; x is a batch; a network returns another shape than [E, C].
        IndexError: a node number in edge_index is out of range.

    Cost: with a linear θ, δ_ij is a difference of two terms, so that without ``attn_nn`` nothing
    has a row for every edge. Rounding of δ is then relative to the distance of the points from the
    first one. Else ``attn_nn`` and a ``pos_nn`` of several layers run on a row for every edge, and
    keep what their gradients need. In a traced function these rows include those of replaced
    self-loops, which the result does not read; a batch normalisation that is in training and not
    to count them needs ``capture_dynamic_output_shape_ops`` of dynamo's configuration.

    Source: Zhao, Jiang, Jia, Torr, Koltun, "Point Transformer", ICCV 2021, eq. 3 and 4.

    Example:
        >>> import torch
        >>> from gat_ext.nn import PointTransformerConv
        >>> layer = PointTransformerConv(16, 8, attn_nn=torch.nn.Linear(8, 8))
        >>> edges = torch.tensor([[0, 1], [1, 2]])
        >>> layer(torch.randn(3, 16), torch.randn(3, 3), edges).shape
        torch.Size([3, 8])
    """

    operator = staticmethod(vector_attention)
    reads: ClassVar[dict[str, str]] = {"lin_src": "src", "lin_dst": "dst", "lin": "src"}
    per_node = ("pos",)

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        pos_nn: Network | None = None,
        attn_nn: Network | None = None,
        add_self_loops: bool = True,
        **message_passing: Any,
    ) -> None:
        """Creates the parameters; see the class for the arguments."""
        super().__init__(in_channels)
        arguments.check_message_passing(message_passing)
        arguments.check_sizes(in_channels, out_channels, 1, 0.0, None)
        arguments.check_flags(add_self_loops=add_self_loops)
        for name, net in (("pos_nn", pos_nn), ("attn_nn", attn_nn)):
            if net is not None and not callable(net):
                raise TypeError(
                    f"{name} is {net!r}; expected a torch.nn.Module, a function or None"
                )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.add_self_loops = add_self_loops
        src_channels, dst_channels = arguments.pair(in_channels)
        self.pos_nn: Any = pos_nn
        if pos_nn is None:
            self.pos_nn = linear(3, out_channels, bias=True, glorot=False)
        self.attn_nn: Any = attn_nn
        self.lin = linear(src_channels, out_channels, bias=False, glorot=False)
        self.lin_src = linear(src_channels, out_channels, bias=False, glorot=False)
        self.lin_dst = linear(dst_channels, out_channels, bias=False, glorot=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all parameters, those of the networks too."""
        for net in (self.pos_nn, self.attn_nn):
            if hasattr(net, "reset_parameters"):
                net.reset_parameters()
            elif isinstance(net, nn.Module):
                reset_children(net)
        reset_(self.lin, self.lin_src, self.lin_dst)

    def forward(  # type: ignore[override]  # in the order of PyG's
        self,
        x: NodeFeatures,
        pos: Tensor | tuple[Tensor, Tensor],
        edge_index: Adjacency,
        *,
        return_attention_weights: bool | None = None,
        edge_mask: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Attends; see the class for shapes."""
        options = return_attention_weights, edge_mask, edge_weight
        shared = isinstance(pos, Tensor) and not isinstance(x, (tuple, list))
        return self.attend(x, edge_index, None, None, *options, pos=pos, shared=shared)

    def projections(self) -> tuple[nn.Linear, nn.Linear]:
        """(lin_src, lin_dst)."""
        return self.lin_src, self.lin_dst

    def split(self, x: NodeFeatures) -> tuple[Features, Features | None, Batch | None]:
        """Raises for a batch, whose elements would have positions of their own."""
        x_src, x_dst, batch = super().split(x)
        if batch is not None:
            raise ValueError(
                f"x has a batch of shape {list(batch.shape)}; {self} expects [N, C]: join the "
                "points of all elements in one graph"
            )
        return x_src, x_dst, batch

    def project(
        self,
        x_src: Features,
        x_dst: Features | None,
        edge_attr: Tensor | None,
        num_dst: int,
        *,
        pos: Any = None,
        shared: bool = False,
    ) -> Operands:
        """W_3 x, W_2 x and W_1 x, and the positions, or their products with a linear θ."""
        if (
            shared and pos.layout == torch.strided
        ):  # by sources and destinations; of a block, these are the first of the sources
            pos = pos, pos[:num_dst]
        pos_src, pos_dst = self._positions(pos, x_src.shape[0], num_dst)
        net = self.pos_nn
        # Rows of some nodes cannot tell a point near all of them.
        if self._adds_positions() and current_numbering() is None:
            check_kind("pos", pos_src, net, self)
            if pos_src.shape[1] != net.weight.shape[1]:
                raise ValueError(
                    f"pos has {pos_src.shape[1]} columns; pos_nn of {self} expects "
                    f"{net.weight.shape[1]}"
                )
            if pos_src.shape[0] > 0:  # of a cloud that is far from 0, too
                origin = pos_src[:1].detach()
                origin = origin.where(origin.isfinite(), 0)  # the point may have no edges
                pos_src, pos_dst = pos_src - origin, pos_dst - origin
            pos_dst = linear_maps.linear(pos_dst, net.weight, net.bias)
            pos_src = linear_maps.linear(pos_src, net.weight)
            net = None
        value = self.lin(x_src).unsqueeze(-1)
        nodes = value, self.lin_dst(x_dst), self.lin_src(x_src), pos_dst, pos_src
        return Operands(nodes, {"pos_nn": net, "attn_nn": self.attn_nn})

    def _adds_positions(self) -> bool:
        """True if θ is a linear map, so that δ_ij is a difference of two terms."""
        return isinstance(self.pos_nn, nn.Module) and is_plain_product(self.pos_nn)

    def _positions(self, pos: Any, num_src: int, num_dst: int) -> tuple[Tensor, Tensor]:
        """(of the sources, of the destinations)."""
        both = pos if isinstance(pos, (tuple, list)) else (pos, pos)
        dense = (isinstance(p, Tensor) and p.layout == torch.strided for p in both)
        if len(both) != 2 or not all(dense):
            kind = f"{pos.layout} Tensor" if isinstance(pos, Tensor) else type(pos).__name__
            raise TypeError(
                f"pos is a {kind}; {self} expects positions [N, D], a dense torch.Tensor, or "
                "(pos_src, pos_dst)"
            )
        for given, count, end in zip(
            both, (num_src, num_dst), ("source", "destination"), strict=True
        ):
            if given.dim() != 2 or given.shape[0] != count:
                raise ValueError(
                    f"pos has shape {list(given.shape)}; {self} expects [{count}, D], the position "
                    f"of each {end}"
                )
        return both[0], both[1]

    def __repr__(self) -> str:
        """As PyG's."""
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels})"
