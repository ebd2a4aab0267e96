"""TransformerConv."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gat_ext.functional import dot_attention
from gat_ext.nn import arguments
from gat_ext.nn.base import AttentionConv, Operands
from gat_ext.nn.inputs import Adjacency, Attention, Features, NodeFeatures
from gat_ext.nn.linear import linear, reset_
from gat_ext.ops import linear_maps


class TransformerConv(AttentionConv):
    r"""Multi-head query-key-value attention over the edges of a graph.

    .. math::
        x'_i = W_s x_i + \Vert_h \sum_{j \in N(i)} \alpha^h_{ij} (W_v^h x_j + W_e^h e_{ij}), \qquad
        \alpha_{ij} = \mathrm{softmax}_j\,
        \frac{(W_q x_i)^\top (W_k x_j + W_e e_{ij})}{\sqrt{C}}

    With ``beta``, a gate mixes r_i = W_s x_i and the sum over neighbours m_i:
    x'_i = β_i r_i + (1 - β_i) m_i with β_i = σ(w^T [m_i, r_i, m_i - r_i]).

    Args:
        in_channels: size of the input features, or a pair (source, destination); -1 takes the size
            from the first input.
        out_channels: size C of a head's output.
        heads: H.
        concat: concatenate the heads, else average them.
        beta: mix with a learned gate; no effect without root_weight.
        dropout: probability of dropping an attention weight in training.
        edge_dim: size of the edge features; -1 takes it from the first input; None for none.
        bias: add learned biases to the projections.
        root_weight: add W_s x_i.
        **message_passing: arguments of PyG's MessagePassing (aggr, flow, …); accepted if they have
            the defaults of PyG's layer.

    Shapes:
        x [N, in_channels], or a tuple ([N_src, in], [N_dst, in]); edge_index [2, E], a Graph or
        another form of edges, see :mod:`gat_ext.nn`; edge_attr [E, edge_dim] or [E]; returns
        [N_dst, H · C], or [N_dst, C] without concat. With ``return_attention_weights=True`` returns
        (out, (edge_index, alpha [E, H])), alpha masked but before dropout; this costs a second pass
        in training.
        ``edge_weight``, or ``edge_mask``, two names of one argument: w [E] or [E, H], real numbers
        (differentiable) or booleans, multiplies the attention weights after softmax and dropout:
        Σ_j w_ij α_ij (W_v x_j + W_e e_ij).
        x may be a batch [B, N, in_channels] of features on one graph, with any number of axes B;
        then out is [B, N, ...] and alpha [E, B, H]. The elements share the edges, which are not
        copied, and edge_attr [E, edge_dim], or have their own: [B, E, edge_dim].

    Raises:
        TypeError: x is neither a tensor nor a pair, or its dtype is not the layer's.
        ValueError: sizes do not match; edge_attr is missing, or was given to a layer without
            edge_dim.
        IndexError: a node number in edge_index is out of range.

    Source: Shi et al., "Masked Label Prediction: Unified Message Passing Model for Semi-Supervised
    Classification", IJCAI 2021, eq. 3 to 5.

    Example:
        >>> import torch
        >>> from gat_ext.nn import TransformerConv
        >>> layer = TransformerConv(16, 8, heads=4, beta=True)
        >>> layer(torch.randn(3, 16), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 32])
    """

    operator = staticmethod(dot_attention)
    reads: ClassVar[dict[str, str]] = {
        **{"lin_query": "dst", "lin_key": "src", "lin_value": "src"},
        **{"lin_edge": "edge", "lin_skip": "dst"},
    }
    score_factors = ("lin_query",)
    returns_weights_before_dropout = True

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
        super().__init__(in_channels, edge_dim)
        arguments.check_message_passing(message_passing)
        arguments.check_sizes(in_channels, out_channels, heads, dropout, edge_dim)
        arguments.check_flags(concat=concat, beta=beta, bias=bias, root_weight=root_weight)
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.concat, self.beta, self.dropout = concat, beta and root_weight, dropout
        self.edge_dim, self.root_weight = edge_dim, root_weight
        width, total = heads * out_channels, out_channels * (heads if concat else 1)
        src_channels, dst_channels = arguments.pair(in_channels)
        self.lin_key = linear(src_channels, width, bias=bias, glorot=False)
        self.lin_query = linear(dst_channels, width, bias=bias, glorot=False)
        self.lin_value = linear(src_channels, width, bias=bias, glorot=False)
        self.lin_edge = self.lin_beta = None
        if edge_dim is not None:
            self.lin_edge = linear(edge_dim, width, bias=False, glorot=False)
        self.lin_skip = linear(dst_channels, total, bias=bias, glorot=False)
        if self.beta:
            self.lin_beta = linear(3 * total, 1, bias=False, glorot=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_(self.lin_key, self.lin_query, self.lin_value, self.lin_edge)
        reset_(self.lin_skip, self.lin_beta)

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
        """(W_k, W_q)."""
        return self.lin_key, self.lin_query

    def project(
        self, x_src: Features, x_dst: Features | None, edge_attr: Tensor | None, num_dst: int
    ) -> Operands:
        """Queries of the destinations, keys and values of the sources, and W_e e."""
        if self.lin_edge is not None and edge_attr is None:
            raise ValueError(
                f"edge_attr is None, but {self} has edge_dim={self.edge_dim}; expected edge "
                "features [E, edge_dim]"
            )
        query = self.split_heads(self.lin_query(x_dst))
        key = self.split_heads(self.lin_key(x_src))
        value = self.split_heads(self.lin_value(x_src))
        return Operands((query, key, value), self.edge_options(edge_attr))

    def finish(self, out: Tensor, x_dst: Features | None) -> Tensor:
        """Adds W_s x, or mixes it with out by the gate."""
        if not self.root_weight:
            return out
        root: Tensor = self.lin_skip(x_dst)
        if self.lin_beta is None:
            return linear_maps.add(out, root)
        gate: Tensor = self.lin_beta(torch.cat([out, root, out - root], dim=-1)).sigmoid()
        return gate * root + (1 - gate) * out
