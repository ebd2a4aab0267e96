"""GATv2Conv."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gat_ext.functional import gatv2_attention
from gat_ext.nn import arguments
from gat_ext.nn.base import AttentionConv, Operands, add_residual
from gat_ext.nn.inputs import Adjacency, Attention, Features, NodeFeatures
from gat_ext.nn.linear import linear, reset_
from gat_ext.nn.self_loops import check_fill_value


class GATv2Conv(AttentionConv):
    r"""Multi-head graph attention in which the ranking of neighbours depends on the query.

    .. math::
        x'_i = \Vert_h \sum_{j \in N(i) \cup \{i\}} \alpha^h_{ij} W_l^h x_j, \qquad
        \alpha_{ij} = \mathrm{softmax}_j\, a^\top
        \mathrm{LeakyReLU}(W_r x_i + W_l x_j + W_e e_{ij})

    Args:
        in_channels: size of the input features, or a pair (source, destination); -1 takes the size
            from the first input.
        out_channels: size C of a head's output.
        heads: H.
        concat: concatenate the heads, else average them.
        negative_slope: of LeakyReLU.
        dropout: probability of dropping an attention weight in training.
        add_self_loops: replace the graph's self-loops by one for every node.
        edge_dim: size of the edge features; -1 takes it from the first input; None for none.
        fill_value: edge features of the added self-loops: a number, a tensor, or a reduction over
            the edges into the node ("add", "mean", "min", "max", "mul").
        bias: add learned biases to the projections and to the output.
        share_weights: one projection for both ends of an edge: W_l = W_r.
        residual: add a learned linear map of the destination's features.
        **message_passing: arguments of PyG's MessagePassing (aggr, flow, …); accepted if they have
            the defaults of PyG's layer.

    Shapes:
        x [N, in_channels], or a tuple ([N_src, in], [N_dst, in]); edge_index [2, E], a Graph or
        another form of edges, see :mod:`gat_ext.nn`; edge_attr [E, edge_dim] or [E]; returns
        [N_dst, H · C], or [N_dst, C] without concat. With ``return_attention_weights=True`` returns
        (out, (edge_index, alpha [E', H])), with self-loops last and alpha as applied, after dropout
        and mask.
        ``edge_weight``, or ``edge_mask``, two names of one argument: w [E] or [E, H], real numbers
        (differentiable) or booleans, multiplies the attention weights of the caller's edges after
        softmax and dropout: Σ_j w_ij α_ij W_l x_j. It does not apply to added self-loops.
        x may be a batch [B, N, in_channels] of features on one graph, with any number of axes B;
        then out is [B, N, ...] and alpha [E', B, H]. The elements share the edges, which are not
        copied, and edge_attr [E, edge_dim], with which they are computed one by one, or have their
        own: [B, E, edge_dim].

    Raises:
        TypeError: x is neither a tensor nor a pair, or its dtype is not the layer's.
        ValueError: sizes do not match, or edge_attr was given to a layer without edge_dim.
        IndexError: a node number in edge_index is out of range.

    Source: Brody, Alon, Yahav, "How Attentive are Graph Attention Networks?", ICLR 2022, eq. 7.

    Example:
        >>> import torch
        >>> from gat_ext.nn import GATv2Conv
        >>> layer = GATv2Conv(16, 8, heads=4)
        >>> layer(torch.randn(3, 16), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 32])
    """

    operator = staticmethod(gatv2_attention)
    reads: ClassVar[dict[str, str]] = {
        "res": "dst",
        "lin_l": "src",
        "lin_r": "dst",
        "lin_edge": "edge",
    }
    score_factors = ("att",)
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        edge_dim: int | None = None,
        fill_value: float | Tensor | str = "mean",
        bias: bool = True,
        share_weights: bool = False,
        residual: bool = False,
        **message_passing: Any,
    ) -> None:
        """Creates the parameters; see the class for the arguments."""
        super().__init__(in_channels, edge_dim)
        arguments.check_message_passing(message_passing)
        arguments.check_sizes(in_channels, out_channels, heads, dropout, edge_dim)
        check_fill_value(fill_value)
        arguments.check_flags(concat=concat, add_self_loops=add_self_loops, bias=bias)
        arguments.check_flags(share_weights=share_weights, residual=residual)
        src_channels, dst_channels = arguments.pair(in_channels)
        if share_weights and src_channels != dst_channels:
            raise ValueError(
                f"in_channels is {in_channels}; with share_weights=True expected one size, because "
                "one matrix projects both ends of an edge: give one size, or leave share_weights "
                "out"
            )
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.concat, self.negative_slope, self.dropout = concat, negative_slope, dropout
        self.add_self_loops, self.edge_dim, self.fill_value = add_self_loops, edge_dim, fill_value
        self.residual, self.share_weights = residual, share_weights
        width, total = heads * out_channels, out_channels * (heads if concat else 1)
        self.lin_l = linear(src_channels, width, bias=bias)
        self.lin_r = self.lin_l if share_weights else linear(dst_channels, width, bias=bias)
        self.att = nn.Parameter(torch.empty(1, heads, out_channels))
        self.lin_edge = None if edge_dim is None else linear(edge_dim, width, bias=False)
        self.res = linear(dst_channels, total, bias=False) if residual else None
        self.register_parameter("bias", nn.Parameter(torch.empty(total)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_(self.lin_l, self.lin_r, self.lin_edge, self.res, self.att)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        x: NodeFeatures,
        edge_index: Adjacency,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
        *,
        edge_mask: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Attends; see the class for shapes."""
        options = return_attention_weights, edge_mask, edge_weight
        return self.attend(x, edge_index, edge_attr, None, *options)

    def projections(self) -> tuple[nn.Linear, nn.Linear]:
        """(W_l, W_r)."""
        return self.lin_l, self.lin_r

    def project(
        self, x_src: Features, x_dst: Features | None, edge_attr: Tensor | None, num_dst: int
    ) -> Operands:
        """W_r x of the destinations, W_l x of the sources and W_e e."""
        key = self.split_heads(self.lin_l(x_src))
        same = self.share_weights and x_dst is x_src
        query = key if same else self.split_heads(self.lin_r(x_dst))
        options = {
            "att": self.att.squeeze(0),
            "negative_slope": self.negative_slope,
            **self.edge_options(edge_attr),
        }
        return Operands((query, key), options)

    def finish(self, out: Tensor, x_dst: Features | None) -> Tensor:
        """Adds the residual and the bias."""
        return add_residual(out, self.res, x_dst, self.bias)

    def result_dtype(self, x: Features, out: Tensor) -> torch.dtype:
        """The dtype of W x times the attention vectors."""
        return torch.promote_types(out.dtype, self.att.dtype)
