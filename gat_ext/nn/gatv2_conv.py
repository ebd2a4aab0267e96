"""GATv2Conv."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gat_ext.functional import gatv2_attention
from gat_ext.nn import _common as common
from gat_ext.nn._common import Adjacency, Attention, GlorotLinear, NodeFeatures


class GATv2Conv(nn.Module):
    r"""Multi-head graph attention whose ranking of neighbours depends on the query.

    .. math::
        x'_i = \Vert_h \sum_{j \in N(i) \cup \{i\}} \alpha^h_{ij} W_l^h x_j, \qquad
        \alpha_{ij} = \mathrm{softmax}_j\, a^\top \mathrm{LeakyReLU}(W_r x_i + W_l x_j + W_e e_{ij})

    Args:
        in_channels: size of the input features, or a pair (source, destination).
        out_channels: size C of a head's output.
        heads: H.
        concat: concatenate the heads, else average them.
        negative_slope: of LeakyReLU.
        dropout: probability with which an attention weight is dropped in training.
        add_self_loops: replace the graph's self-loops by one for every node.
        edge_dim: size of edge features, None for none.
        fill_value: edge features of the added self-loops: a number, a tensor, or a reduction over the node's in-edges
            ("add", "mean", "min", "max", "mul").
        bias: learned biases, of the projections and of the output.
        share_weights: one projection for both ends: W_l = W_r.
        residual: add a learned linear map of the destination's features.

    Shapes:
        x [N, in_channels], or a tuple ([N_src, in], [N_dst, in]); edge_index [2, E] or a Graph; edge_attr [E, edge_dim] or [E];
        returns [N_dst, H · C], or [N_dst, C] without concat. With ``return_attention_weights=True`` returns
        (out, (edge_index, alpha [E', H])), self-loops last.

    Raises:
        ValueError: sizes do not match.

    Source: Brody, Alon, Yahav, "How Attentive are Graph Attention Networks?", ICLR 2022.

    Example:
        >>> import torch
        >>> from gat_ext.nn import GATv2Conv
        >>> layer = GATv2Conv(16, 8, heads=4)
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
        share_weights: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        common.check_sizes(out_channels, heads, dropout)
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.concat, self.negative_slope, self.dropout = concat, negative_slope, dropout
        self.add_self_loops, self.edge_dim, self.fill_value = add_self_loops, edge_dim, fill_value
        self.residual, self.share_weights = residual, share_weights
        width, (src_channels, dst_channels) = heads * out_channels, common.pair(in_channels)
        self.lin_l = GlorotLinear(src_channels, width, bias=bias)
        self.lin_r = self.lin_l if share_weights else GlorotLinear(dst_channels, width, bias=bias)
        self.att = nn.Parameter(torch.empty(1, heads, out_channels))
        self.lin_edge = None if edge_dim is None else GlorotLinear(edge_dim, width, bias=False)
        total = width if concat else out_channels
        self.res = GlorotLinear(dst_channels, total, bias=False) if residual else None
        self.bias = nn.Parameter(torch.empty(total)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new parameters."""
        for linear in (self.lin_l, self.lin_r, self.lin_edge, self.res):
            if linear is not None:
                linear.reset_parameters()
        common.glorot_(self.att)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        x: NodeFeatures,
        edge_index: Adjacency,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Attends; see the class for shapes."""
        common.check_features(x, common.pair(self.in_channels), self)
        x_src, x_dst = (x, x) if isinstance(x, Tensor) else x
        if x_dst is None:
            raise ValueError(f"{self} needs the features of the destinations; x is (tensor, None)")
        shape = (-1, self.heads, self.out_channels)
        key = self.lin_l(x_src).view(shape)
        query = key if self.share_weights and x_dst is x_src else self.lin_r(x_dst).view(shape)
        graph = common.as_graph(edge_index, key.shape[0], query.shape[0])
        if edge_attr is not None:
            edge_attr = common.edge_matrix(edge_attr, graph.num_edges, self.edge_dim)
        if self.add_self_loops:
            looped = common.with_self_loops(graph)
            graph, edge_attr = looped.graph, common.with_loop_features(edge_attr, looped, self.fill_value)
        result = gatv2_attention(
            graph,
            query,
            key,
            self.att.squeeze(0),
            edge_feat=None if edge_attr is None or self.lin_edge is None else self.lin_edge(edge_attr).view(shape),
            negative_slope=self.negative_slope,
            dropout_p=self.dropout if self.training else 0.0,
            return_weights=bool(return_attention_weights),
        )
        out, weights = common.split_result(result)
        out = common.join_heads(out, self.concat)
        if self.res is not None:
            out = out + self.res(x_dst)
        if self.bias is not None:
            out = out + self.bias
        return common.with_attention(out, graph, weights)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"
