"""GATConv."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gat_ext.functional import gat_attention
from gat_ext.nn import _common as common
from gat_ext.nn._common import Adjacency, Attention, GlorotLinear, NodeFeatures


class GATConv(nn.Module):
    r"""Multi-head graph attention.

    .. math::
        x'_i = \Vert_h \sum_{j \in N(i) \cup \{i\}} \alpha^h_{ij} W^h x_j, \qquad
        \alpha_{ij} = \mathrm{softmax}_j\, \mathrm{LeakyReLU}
        (a_{dst}^\top W x_i + a_{src}^\top W x_j + a_{edge}^\top W_e e_{ij})

    Args:
        in_channels: size of the input features, or a pair (source, destination) with a projection each.
        out_channels: size C of a head's output.
        heads: H.
        concat: concatenate the heads, else average them.
        negative_slope: of LeakyReLU.
        dropout: probability with which an attention weight is dropped in training.
        add_self_loops: replace the graph's self-loops by one for every node.
        edge_dim: size of edge features, None for none.
        fill_value: edge features of the added self-loops: a number, a tensor, or a reduction over the node's in-edges
            ("add", "mean", "min", "max", "mul").
        bias: add a learned bias.
        residual: add a learned linear map of the destination's features.
        feat_dropout: dropout of the projected features that are summed, after the attention was computed from them (the
            second feature dropout of the authors' code). Not in PyG's layer.

    Shapes:
        x [N, in_channels], or a tuple ([N_src, in], [N_dst, in] or None); edge_index [2, E] or a Graph; edge_attr [E, edge_dim]
        or [E]; returns [N_dst, H · C], or [N_dst, C] without concat. With ``return_attention_weights=True`` returns
        (out, (edge_index, alpha [E', H])), self-loops last.

    Raises:
        ValueError: sizes do not match.

    Source: Veličković et al., "Graph Attention Networks", ICLR 2018.

    Example:
        >>> import torch
        >>> from gat_ext.nn import GATConv
        >>> layer = GATConv(16, 8, heads=4)
        >>> layer(torch.randn(3, 16), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 32])
    """

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
    ) -> None:
        super().__init__()
        common.check_sizes(out_channels, heads, dropout)
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.concat, self.negative_slope, self.dropout = concat, negative_slope, dropout
        self.add_self_loops, self.edge_dim, self.fill_value = add_self_loops, edge_dim, fill_value
        self.residual, self.feat_dropout = residual, feat_dropout
        width, (src_channels, dst_channels) = heads * out_channels, common.pair(in_channels)
        shared = isinstance(in_channels, int)
        self.lin = GlorotLinear(src_channels, width, bias=False) if shared else None
        self.lin_src = None if shared else GlorotLinear(src_channels, width, bias=False)
        self.lin_dst = None if shared else GlorotLinear(dst_channels, width, bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, out_channels))
        self.att_dst = nn.Parameter(torch.empty(1, heads, out_channels))
        self.lin_edge = None if edge_dim is None else GlorotLinear(edge_dim, width, bias=False)
        self.att_edge = None if edge_dim is None else nn.Parameter(torch.empty(1, heads, out_channels))
        total = width if concat else out_channels
        self.res = GlorotLinear(dst_channels, total, bias=False) if residual else None
        self.bias = nn.Parameter(torch.empty(total)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new parameters."""
        for linear in (self.lin, self.lin_src, self.lin_dst, self.lin_edge, self.res):
            if linear is not None:
                linear.reset_parameters()
        for vector in (self.att_src, self.att_dst, self.att_edge):
            common.glorot_(vector)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _project(self, x: NodeFeatures) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(W x of the sources, W x of the destinations, features of the destinations)."""
        shape = (-1, self.heads, self.out_channels)
        lin_src, lin_dst = (self.lin, self.lin) if self.lin is not None else (self.lin_src, self.lin_dst)
        assert lin_src is not None and lin_dst is not None
        if isinstance(x, Tensor):
            src = lin_src(x).view(shape)
            return src, src if lin_dst is lin_src else lin_dst(x).view(shape), x
        x_src, x_dst = x
        return lin_src(x_src).view(shape), None if x_dst is None else lin_dst(x_dst).view(shape), x_dst

    def _edge_term(self, edge_attr: Tensor | None, num_edges: int) -> Tensor | None:
        """a_edge · (W_e e) of every edge, [E, H], with W_e folded into [edge_dim, H] before it meets the edges."""
        if edge_attr is None:
            return None
        edge_attr = common.edge_matrix(edge_attr, num_edges, self.edge_dim)
        assert self.lin_edge is not None and self.att_edge is not None
        weight = self.lin_edge.weight.view(self.heads, self.out_channels, -1)
        return edge_attr @ (weight * self.att_edge.view(self.heads, -1, 1)).sum(1).t()

    def forward(
        self,
        x: NodeFeatures,
        edge_index: Adjacency,
        edge_attr: Tensor | None = None,
        size: tuple[int, int] | None = None,
        return_attention_weights: bool | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Attends; see the class for shapes."""
        common.check_features(x, common.pair(self.in_channels), self)
        src, dst, x_dst = self._project(x)
        num_dst = size[1] if size is not None else src.shape[0] if dst is None else dst.shape[0]
        graph = common.as_graph(edge_index, src.shape[0], num_dst)
        if edge_attr is not None and self.edge_dim is not None:
            edge_attr = common.edge_matrix(edge_attr, graph.num_edges, self.edge_dim)
        if self.add_self_loops:
            looped = common.with_self_loops(graph)
            graph, edge_attr = looped.graph, common.with_loop_features(edge_attr, looped, self.fill_value)
        src_term = (src * self.att_src).sum(-1)
        dst_term = src_term.new_zeros(num_dst, self.heads) if dst is None else (dst * self.att_dst).sum(-1)
        result = gat_attention(
            graph,
            F.dropout(src, self.feat_dropout, self.training),
            dst_term,
            src_term,
            edge_term=self._edge_term(edge_attr, graph.num_edges) if self.edge_dim is not None else None,
            negative_slope=self.negative_slope,
            dropout_p=self.dropout if self.training else 0.0,
            return_weights=bool(return_attention_weights),
        )
        out, weights = common.split_result(result)
        out = common.join_heads(out, self.concat)
        if self.res is not None and x_dst is not None:
            out = out + self.res(x_dst)
        if self.bias is not None:
            out = out + self.bias
        return common.with_attention(out, graph, weights)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"
