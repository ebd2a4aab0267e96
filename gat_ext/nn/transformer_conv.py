"""TransformerConv."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gat_ext.functional import dot_attention
from gat_ext.nn import _common as common
from gat_ext.nn._common import Adjacency, Attention, NodeFeatures


class TransformerConv(nn.Module):
    r"""Multi-head query-key-value attention over the edges of a graph.

    .. math::
        x'_i = W_s x_i + \Vert_h \sum_{j \in N(i)} \alpha^h_{ij} (W_v^h x_j + W_e^h e_{ij}), \qquad
        \alpha_{ij} = \mathrm{softmax}_j\, \frac{(W_q x_i)^\top (W_k x_j + W_e e_{ij})}{\sqrt{C}}

    With ``beta`` the two summands are mixed by a gate: β_i W_s x_i + (1 - β_i) m_i, β_i = σ(w^T [m_i, W_s x_i, m_i - W_s x_i]).

    Args:
        in_channels: size of the input features, or a pair (source, destination).
        out_channels: size C of a head's output.
        heads: H.
        concat: concatenate the heads, else average them.
        beta: mix with a learned gate; needs root_weight.
        dropout: probability with which an attention weight is dropped in training.
        edge_dim: size of edge features, None for none.
        bias: learned biases of the projections.
        root_weight: add W_s x_i.

    Shapes:
        x [N, in_channels], or a tuple ([N_src, in], [N_dst, in]); edge_index [2, E] or a Graph; edge_attr [E, edge_dim];
        returns [N_dst, H · C], or [N_dst, C] without concat. With ``return_attention_weights=True`` returns
        (out, (edge_index, alpha [E, H])), alpha as applied, dropout included.

    Raises:
        ValueError: sizes do not match, or edge_attr is missing.

    Source: Shi et al., "Masked Label Prediction: Unified Message Passing Model for Semi-Supervised Classification", IJCAI 2021.

    Example:
        >>> import torch
        >>> from gat_ext.nn import TransformerConv
        >>> layer = TransformerConv(16, 8, heads=4, beta=True)
        >>> layer(torch.randn(3, 16), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 32])
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        beta: bool = False,
        dropout: float = 0.0,
        edge_dim: int | None = None,
        bias: bool = True,
        root_weight: bool = True,
    ) -> None:
        super().__init__()
        common.check_sizes(out_channels, heads, dropout)
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.concat, self.beta, self.dropout = concat, beta and root_weight, dropout
        self.edge_dim, self.root_weight = edge_dim, root_weight
        width, (src_channels, dst_channels) = heads * out_channels, common.pair(in_channels)
        total = width if concat else out_channels
        self.lin_key = nn.Linear(src_channels, width, bias=bias)
        self.lin_query = nn.Linear(dst_channels, width, bias=bias)
        self.lin_value = nn.Linear(src_channels, width, bias=bias)
        self.lin_edge = None if edge_dim is None else nn.Linear(edge_dim, width, bias=False)
        self.lin_skip = nn.Linear(dst_channels, total, bias=bias)
        self.lin_beta = nn.Linear(3 * total, 1, bias=False) if self.beta else None

    def reset_parameters(self) -> None:
        """Draws new parameters."""
        for linear in self.children():
            if isinstance(linear, nn.Linear):
                linear.reset_parameters()

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
        query = self.lin_query(x_dst).view(shape)
        key = self.lin_key(x_src).view(shape)
        graph = common.as_graph(edge_index, key.shape[0], query.shape[0])
        edge_feat = None
        if self.lin_edge is not None:
            if edge_attr is None:
                raise ValueError(f"{self} was made with edge_dim={self.edge_dim}; edge_attr is missing")
            edge_feat = self.lin_edge(common.edge_matrix(edge_attr, graph.num_edges, self.edge_dim)).view(shape)
        elif edge_attr is not None:
            raise ValueError("edge_attr was given, but the layer was made without edge_dim")
        result = dot_attention(
            graph,
            query,
            key,
            self.lin_value(x_src).view(shape),
            edge_feat=edge_feat,
            dropout_p=self.dropout if self.training else 0.0,
            return_weights=bool(return_attention_weights),
        )
        out, weights = common.split_result(result)
        out = common.join_heads(out, self.concat)
        if self.root_weight:
            out = self._add_root(out, self.lin_skip(x_dst))
        return common.with_attention(out, graph, weights)

    def _add_root(self, message: Tensor, root: Tensor) -> Tensor:
        if self.lin_beta is None:
            return message + root
        gate = self.lin_beta(torch.cat([message, root, message - root], dim=-1)).sigmoid()
        return gate * root + (1 - gate) * message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"
