"""GATConv."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gat_ext.functional import gat_attention
from gat_ext.graph import Graph
from gat_ext.nn import base as common
from gat_ext.nn import old_names
from gat_ext.nn import self_loops as loops
from gat_ext.nn.adjacency import is_plain, plain_inputs
from gat_ext.nn.base import Adjacency, Attention, Features, NodeFeatures
from gat_ext.nn.batch import Folded, nodes_first
from gat_ext.nn.features import dropout
from gat_ext.nn.masks import mask_of_layer
from gat_ext.ops import linear_maps


class GATConv(common.Layer):
    r"""Multi-head graph attention.

    .. math::
        x'_i = \Vert_h \sum_{j \in N(i) \cup \{i\}} \alpha^h_{ij} W^h x_j, \qquad
        \alpha_{ij} = \mathrm{softmax}_j\, \mathrm{LeakyReLU}
        (a_{dst}^\top W x_i + a_{src}^\top W x_j + a_{edge}^\top W_e e_{ij})

    Args:
        in_channels: size of the input features, or a pair (source, destination) with a projection
            each; -1 takes the size from the first input.
        out_channels: size C of a head's output.
        heads: H.
        concat: concatenate the heads, else average them.
        negative_slope: of LeakyReLU.
        dropout: probability with which an attention weight is dropped in training.
        add_self_loops: replace the graph's self-loops by one for every node.
        edge_dim: size of edge features, -1 for that of the first ones, None for none; without it edge_attr is not looked at.
        fill_value: edge features of the added self-loops: a number, a tensor, or a reduction over
            the edges into the node ("add", "mean", "min", "max", "mul").
        bias: add a learned bias.
        residual: add a learned linear map of the destination's features.
        feat_dropout: dropout of the projected features that are summed, after the attention was
            computed from them (the second feature dropout of the authors' code). Not in PyG's
            layer.
        **message_passing: arguments of PyG's base class (aggr, flow, …), taken where they are the
            layer's defaults there.

    Shapes:
        x [N, in_channels], or a tuple ([N_src, in], [N_dst, in] or None); edge_index [2, E] or a
        Graph, or other forms of edges, see :mod:`gat_ext.nn`; edge_attr [E, edge_dim] or [E]; size
        (N_src, N_dst), needed where x has no destinations and their number is not that of the
        sources; returns [N_dst, H · C], or
        [N_dst, C] without concat. With ``return_attention_weights=True`` returns
        (out, (edge_index, alpha [E', H])), self-loops last, alpha as applied, dropout and mask included.
        ``edge_mask`` [E] or [E, H] multiplies the attention weights of the caller's edges, and may
        learn; self-loops that the layer adds count 1.
        x may be a batch [B, N, in_channels] of features on one graph, then out is [B, N, ...] and
        alpha [E', B, H]: the elements share edges and edge features, which are not copied.

    Raises:
        TypeError: x is neither a tensor nor a pair, or of another dtype than the layer.
        ValueError: sizes do not match.
        IndexError: edge_index names a node that does not exist.

    Source: Veličković et al., "Graph Attention Networks", ICLR 2018, eq. 3 to 6.

    Example:
        >>> import torch
        >>> from gat_ext.nn import GATConv
        >>> layer = GATConv(16, 8, heads=4)
        >>> layer(torch.randn(3, 16), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 32])
    """

    bias: nn.Parameter | None
    att_edge: nn.Parameter | None

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
        residual: bool = False,
        *,
        feat_dropout: float = 0.0,
        **message_passing: Any,
    ) -> None:
        """Creates the parameters; see the class for the arguments."""
        super().__init__()
        common.check_message_passing(message_passing)
        common.check_sizes(in_channels, out_channels, heads, dropout, edge_dim)
        common.check_probability("feat_dropout", feat_dropout)
        common.check_flags(
            concat=concat, add_self_loops=add_self_loops, bias=bias, residual=residual
        )
        loops.check_fill_value(fill_value)
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.concat, self.negative_slope, self.dropout = concat, negative_slope, dropout
        self.add_self_loops, self.edge_dim, self.fill_value = add_self_loops, edge_dim, fill_value
        self.residual, self.feat_dropout = residual, feat_dropout
        self._create_projections(heads * out_channels)
        self.att_src = nn.Parameter(torch.empty(1, heads, out_channels))
        self.att_dst = nn.Parameter(torch.empty(1, heads, out_channels))
        self.lin_edge: nn.Linear | None = None
        self.register_parameter("att_edge", None)
        if edge_dim is not None:
            self.lin_edge = common.linear(edge_dim, heads * out_channels, bias=False)
            self.att_edge = nn.Parameter(torch.empty(1, heads, out_channels))
        total, dst_channels = out_channels * (heads if concat else 1), common.pair(in_channels)[1]
        self.res = common.linear(dst_channels, total, bias=False) if residual else None
        self.register_parameter("bias", nn.Parameter(torch.empty(total)) if bias else None)
        self.reset_parameters()

    def _create_projections(self, width: int) -> None:
        """One projection, or one for each end of an edge where in_channels is a pair."""
        self.lin: nn.Linear | None = None
        self.lin_src: nn.Linear | None = None
        self.lin_dst: nn.Linear | None = None
        src_channels, dst_channels = common.pair(self.in_channels)
        if isinstance(self.in_channels, (tuple, list)):
            self.lin_src = common.linear(src_channels, width, bias=False)
            self.lin_dst = common.linear(dst_channels, width, bias=False)
        else:
            self.lin = common.linear(src_channels, width, bias=False)

    def _projections(self) -> tuple[nn.Linear, nn.Linear]:
        if self.lin is not None:
            return self.lin, self.lin
        assert self.lin_src is not None and self.lin_dst is not None
        return self.lin_src, self.lin_dst

    def reset_parameters(self) -> None:
        """Draws new parameters."""
        for linear in (self.lin, self.lin_src, self.lin_dst, self.lin_edge, self.res):
            if linear is not None:
                linear.reset_parameters()
        for vector in (self.att_src, self.att_dst, self.att_edge):
            common.glorot_(vector)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        x: NodeFeatures,
        edge_index: Adjacency,
        edge_attr: Tensor | None = None,
        size: tuple[int, int] | None = None,
        return_attention_weights: bool | None = None,
        *,
        edge_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Attends; see the class for shapes."""
        adjacency = edge_index
        if not is_plain(adjacency):
            x, edge_index, edge_attr = plain_inputs(x, adjacency, edge_attr, self.edge_dim)
        lin_src, lin_dst = self._projections()
        x, batch = nodes_first(x)
        x_src, x_dst = common.split_features(x, lin_src, lin_dst, self)
        sizes = _sizes(x_src, x_dst, edge_index, size)
        graph, edge_attr = loops.graph_and_edges(
            edge_index,
            sizes,
            edge_attr if self.edge_dim is not None else None,
            common.edge_channels(self.edge_dim, self.lin_edge),
            self.fill_value,
            self.add_self_loops,
        )
        src = self._split_heads(lin_src(x_src))
        if x_dst is x_src and lin_dst is lin_src:
            src_term, dst_term = _dot_heads(src, self.att_src, self.att_dst)
        else:
            (src_term,) = _dot_heads(src, self.att_src)
            dst_term = self._dst_term(x_dst, src_term, sizes[1] * (batch or 1))
        if edge_mask is not None:
            edge_mask = mask_of_layer(edge_mask, edge_index, sizes, self.add_self_loops, self)
        attend = gat_attention if batch is None else Folded(gat_attention, batch)
        result = attend(
            graph,
            dropout(src, self.feat_dropout, self.training),
            dst_term,
            src_term,
            edge_term=None if edge_attr is None else self._edge_term(edge_attr),
            negative_slope=self.negative_slope,
            dropout_p=self.dropout if self.training else 0.0,
            edge_mask=edge_mask,
            return_weights=common.asks_for_weights(return_attention_weights),
        )
        out, weights = common.split_result(result)
        out = common.add_rest(common.join_heads(out, self.concat), self.res, x_dst, self.bias)
        dtype = torch.promote_types(out.dtype, self.att_src.dtype)
        out, weights = common.in_dtype(out, weights, dtype)
        out = out if batch is None else out.transpose(0, 1)
        return common.with_attention(out, graph, weights, adjacency, self.add_self_loops)

    def _split_heads(self, projected: Tensor) -> Tensor:
        return projected.view(-1, self.heads, self.out_channels)

    def _dst_term(self, x_dst: Features | None, src_term: Tensor, num_dst: int) -> Tensor:
        """a_dst · W x of the destinations [N_dst, H]."""
        if x_dst is None:
            return src_term.new_zeros(num_dst, self.heads)
        (dst_term,) = _dot_heads(self._split_heads(self._projections()[1](x_dst)), self.att_dst)
        return dst_term

    def _edge_term(self, edge_attr: Tensor) -> Tensor:
        """a_edge · W_e e of every edge, [E, H]; W_e is folded into [edge_dim, H] first, unless a hook is to see W_e e."""
        assert self.lin_edge is not None and self.att_edge is not None
        common.check_kind("edge_attr", edge_attr, self.lin_edge, self)
        if not common.is_plain_product(self.lin_edge):
            return (self._split_heads(self.lin_edge(edge_attr)) * self.att_edge).sum(-1)
        weight = self.lin_edge.weight.view(self.heads, self.out_channels, -1)
        folded = (weight * self.att_edge.view(self.heads, self.out_channels, 1)).sum(1)
        return linear_maps.linear(edge_attr, folded)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        old_names.rename(state_dict, prefix, self.out_channels, shared=self.lin is not None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __repr__(self) -> str:
        """As PyG's."""
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"


def _sizes(
    x_src: Features, x_dst: Features | None, adjacency: Adjacency, size: tuple[int, int] | None
) -> tuple[int, int]:
    """(N_src, N_dst) from what is known of the destinations."""
    num_src = x_src.shape[0]
    if x_dst is not None:
        num_dst = x_dst.shape[0]
    elif size is not None:
        num_dst = size[1]
    else:
        num_dst = adjacency.num_dst if isinstance(adjacency, Graph) else num_src
    if size is not None and tuple(size) != (num_src, num_dst):
        raise ValueError(
            f"size is {tuple(size)}, but x has {num_src} sources and {num_dst} destinations; "
            "leave size out, or give these"
        )
    return num_src, num_dst


def _dot_heads(x: Tensor, *att: Tensor) -> tuple[Tensor, ...]:
    """The products of every head of x [N, H, C] with its vector of each att [1, H, C]: [N, H] each.

    As one matrix product with their block-diagonal [K · H, H · C], which reads x once and makes no [N, H, C].
    """
    # Autocast to float16 joins no vectors of bfloat16.
    joined = torch.cat([vector.to(x.dtype) for vector in att])
    blocks = torch.diag_embed(joined.transpose(1, 2), dim1=1, dim2=3)  # [K, H, C, H]
    terms = linear_maps.linear(
        x.flatten(1), blocks.permute(0, 3, 1, 2).reshape(-1, x.shape[1] * x.shape[2])
    )
    return terms.chunk(len(att), dim=1)
