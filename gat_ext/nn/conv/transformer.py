"""TransformerConv."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gat_ext.functional import dot_attention
from gat_ext.graph.protocol import GraphLike
from gat_ext.nn import base as common
from gat_ext.nn.adjacency import is_plain, plain_inputs
from gat_ext.nn.base import Adjacency, Attention, NodeFeatures
from gat_ext.nn.batch import Folded, nodes_first
from gat_ext.nn.masks import mask_of_layer
from gat_ext.ops import linear_maps


class TransformerConv(common.Layer):
    r"""Multi-head query-key-value attention over the edges of a graph.

    .. math::
        x'_i = W_s x_i + \Vert_h \sum_{j \in N(i)} \alpha^h_{ij} (W_v^h x_j + W_e^h e_{ij}), \qquad
        \alpha_{ij} = \mathrm{softmax}_j\,
        \frac{(W_q x_i)^\top (W_k x_j + W_e e_{ij})}{\sqrt{C}}

    With ``beta`` a gate mixes the two summands, r_i = W_s x_i and the sum m_i:
    β_i r_i + (1 - β_i) m_i with β_i = σ(w^T [m_i, r_i, m_i - r_i]).

    Args:
        in_channels: size of the input features, or a pair (source, destination); -1 takes the size
            from the first input.
        out_channels: size C of a head's output.
        heads: H.
        concat: concatenate the heads, else average them.
        beta: mix with a learned gate; needs root_weight.
        dropout: probability with which an attention weight is dropped in training.
        edge_dim: size of edge features, -1 for that of the first ones, None for none.
        bias: learned biases of the projections.
        root_weight: add W_s x_i.
        **message_passing: arguments of PyG's base class (aggr, flow, …), taken where they are the
            layer's defaults there.

    Shapes:
        x [N, in_channels], or a tuple ([N_src, in], [N_dst, in]); edge_index [2, E] or a Graph,
        or other forms of edges, see :mod:`gat_ext.nn`;
        edge_attr [E, edge_dim] or [E]; returns [N_dst, H · C], or [N_dst, C] without concat. With
        ``return_attention_weights=True`` returns (out, (edge_index, alpha [E, H])), alpha before
        dropout (which in training costs a second pass), mask included. ``edge_mask`` [E] or [E, H]
        multiplies the attention weights, and may learn.
        x may be a batch [B, N, in_channels] of features on one graph, then out is [B, N, ...] and
        alpha [E, B, H]: the elements share edges and edge features, which are not copied;
        with edge features one element is computed after the other.

    Raises:
        TypeError: x is neither a tensor nor a pair, or of another dtype than the layer.
        ValueError: sizes do not match, or edge_attr is missing, or it was given to a layer without
            edge_dim.
        IndexError: edge_index names a node that does not exist.

    Source: Shi et al., "Masked Label Prediction: Unified Message Passing Model for Semi-Supervised
    Classification", IJCAI 2021, eq. 3 to 5.

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
        **message_passing: Any,
    ) -> None:
        """Creates the parameters; see the class for the arguments."""
        super().__init__()
        common.check_message_passing(message_passing)
        common.check_sizes(in_channels, out_channels, heads, dropout, edge_dim)
        common.check_flags(concat=concat, beta=beta, bias=bias, root_weight=root_weight)
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.concat, self.beta, self.dropout = concat, beta and root_weight, dropout
        self.edge_dim, self.root_weight = edge_dim, root_weight
        width, total = heads * out_channels, out_channels * (heads if concat else 1)
        src_channels, dst_channels = common.pair(in_channels)

        def linear(size: int, out: int, bias: bool) -> nn.Linear:
            return common.linear(size, out, bias=bias, glorot=False)

        self.lin_key = linear(src_channels, width, bias)
        self.lin_query = linear(dst_channels, width, bias)
        self.lin_value = linear(src_channels, width, bias)
        self.lin_edge = None if edge_dim is None else linear(edge_dim, width, False)
        self.lin_skip = linear(dst_channels, total, bias)
        self.lin_beta = linear(3 * total, 1, False) if self.beta else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new parameters."""
        projections = self.lin_key, self.lin_query, self.lin_value, self.lin_edge
        for linear in (*projections, self.lin_skip, self.lin_beta):
            if linear is not None:
                linear.reset_parameters()

    def forward(
        self,
        x: NodeFeatures,
        edge_index: Adjacency,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
        *,
        edge_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Attends; see the class for shapes."""
        adjacency = edge_index
        if not is_plain(adjacency):
            x, edge_index, edge_attr = plain_inputs(x, adjacency, edge_attr, self.edge_dim)
        x, batch = nodes_first(x)
        x_src, x_dst = common.split_features(x, self.lin_key, self.lin_query, self)
        if x_dst is None:
            raise ValueError(f"{self} needs the features of the destinations; x is (tensor, None)")
        graph = common.as_graph(edge_index, x_src.shape[0], x_dst.shape[0])
        edge_feat = self._project_edges(edge_attr, graph)
        if edge_mask is not None:
            edge_mask = mask_of_layer(
                edge_mask, edge_index, (x_src.shape[0], x_dst.shape[0]), False, self
            )
        attend = dot_attention if batch is None else Folded(dot_attention, batch)
        query = self._split_heads(self.lin_query(x_dst))
        key = self._split_heads(self.lin_key(x_src))
        value = self._split_heads(self.lin_value(x_src))

        def attention(dropout_p: float, return_weights: bool) -> tuple[Tensor, Tensor | None]:
            result = attend(
                graph,
                query,
                key,
                value,
                edge_feat=edge_feat,
                dropout_p=dropout_p,
                edge_mask=edge_mask,
                return_weights=return_weights,
            )
            return common.split_result(result)

        dropout_p = self.dropout if self.training else 0.0
        asked = common.asks_for_weights(return_attention_weights)
        out, weights = attention(dropout_p, asked and dropout_p == 0)
        if asked and weights is None:  # as PyG's, before the dropout that the sum needs
            _, weights = attention(0.0, True)
        out = common.join_heads(out, self.concat)
        if self.root_weight:
            out = self._add_root(out, self.lin_skip(x_dst))
        out = out if batch is None else out.transpose(0, 1)
        return common.with_attention(out, graph, weights, adjacency, looped=False)

    def _split_heads(self, projected: Tensor) -> Tensor:
        return projected.view(-1, self.heads, self.out_channels)

    def _project_edges(self, edge_attr: Tensor | None, graph: GraphLike) -> Tensor | None:
        """W_e e of every edge, [E, H, C]."""
        if edge_attr is not None:
            edge_dim = common.edge_channels(self.edge_dim, self.lin_edge)
            edge_attr = common.edge_matrix(edge_attr, graph.num_edges, edge_dim)
        if self.lin_edge is None:
            return None
        if edge_attr is None:
            raise ValueError(f"{self} was made with edge_dim={self.edge_dim}; edge_attr is missing")
        common.check_kind("edge_attr", edge_attr, self.lin_edge, self)
        return self._split_heads(self.lin_edge(edge_attr))

    def _add_root(self, message: Tensor, root: Tensor) -> Tensor:
        if self.lin_beta is None:
            return linear_maps.add(message, root)
        stacked = torch.cat([message, root, message - root], dim=-1)
        gate: Tensor = self.lin_beta(stacked).sigmoid()
        return gate * root + (1 - gate) * message

    def __repr__(self) -> str:
        """As PyG's."""
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"
