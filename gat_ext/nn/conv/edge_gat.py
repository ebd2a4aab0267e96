"""EdgeGATConv."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from gat_ext.functional import edge_sum, gat_attention
from gat_ext.graph.protocol import GraphLike
from gat_ext.nn import arguments
from gat_ext.nn.base import Operands
from gat_ext.nn.conv.gat import GATConv
from gat_ext.nn.inputs import Adjacency, Attention, Features, NodeFeatures
from gat_ext.ops.linear_maps import map_heads


def attend_with_edges(
    graph: GraphLike,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    *,
    edge_attr: Tensor | None = None,
    edge_map: Tensor | None = None,
    edge_feat: Tensor | None = None,
    return_weights: bool = False,
    **options: Any,
) -> Any:
    r"""GAT's attention, whose values gain W e_ij, or features [E, H, F]: Σ_j α_ij (v_j + W e_ij).

    As Σ_j α_ij v_j + W Σ_j α_ij e_ij it allocates [E, H] and [N_dst, H, K].

    Args:
        graph: the graph.
        value: [N_src, H, F].
        dst_term: [N_dst, H].
        src_term: [N_src, H].
        edge_attr: e, [E, K], together with edge_map.
        edge_map: W, [H, F, K].
        edge_feat: [E, H, F], in place of both.
        return_weights: also return the weights, [E, H].
        **options: of :func:`gat_ext.functional.gat_attention`.
    """
    nodes, attend = (value, dst_term, src_term), cast(Any, gat_attention)
    if edge_attr is None and edge_feat is None:
        return attend(graph, *nodes, return_weights=return_weights, **options)
    out, weights = attend(graph, *nodes, return_weights=True, **options)
    if edge_feat is None:
        assert edge_attr is not None and edge_map is not None
        out = out + map_heads(edge_sum(graph, weights, edge_attr), edge_map.transpose(1, 2))
    else:
        of_heads = zip(weights.split(1, 1), edge_feat.unbind(1), strict=True)
        sums = [edge_sum(graph, weight.contiguous(), feat) for weight, feat in of_heads]
        out = out + torch.cat(sums, 1)
    return (out, weights) if return_weights else out


class EdgeGATConv(GATConv):
    r"""Multi-head graph attention that also sums the features of the edges.

    .. math::
        x'_i = W_s x_i + \Vert_h \sum_{j \in N(i)} \alpha^h_{ij} (W^h x_j + W_e^h e_{ij}), \qquad
        \alpha_{ij} = \mathrm{softmax}_j\, \mathrm{LeakyReLU}
        (a_{dst}^\top W x_i + a_{src}^\top W x_j + a_{edge}^\top W_e e_{ij})

    It is DGL's layer of this name, under the names of :class:`GATConv`, from which it differs by
    W_e e_ij in the sum. DGL's (in_feats, edge_feats, out_feats, num_heads, attn_drop) are
    (in_channels, edge_dim, out_channels, heads, dropout) here, and :func:`gat_ext.interop.from_dgl`
    translates its parameters. DGL's feat_drop applies to x: put ``torch.nn.Dropout`` before the
    layer. DGL returns [N, H, C], here with heads concatenated, and raises for nodes without
    in-edges, which here get W_s x_i and the bias.

    Args:
        in_channels: size of the input features, or a pair (source, destination), which gives each
            end a projection of its own; -1 takes the size from the first input.
        out_channels: size C of a head's output.
        heads: H.
        concat: concatenate the heads, else average them.
        negative_slope: of LeakyReLU.
        dropout: probability of dropping an attention weight in training.
        add_self_loops: replace the graph's self-loops by one for every node; not the default,
            because DGL's layer adds none.
        edge_dim: size of the edge features; -1 takes it from the first input; None for none.
        fill_value: edge features of the added self-loops: a number, a tensor, or a reduction over
            the edges into the node ("add", "mean", "min", "max", "mul").
        bias: add a learned bias.
        residual: add W_s x_i, a learned linear map of the destination's features.
        **message_passing: arguments of PyG's MessagePassing (aggr, flow, …); accepted if they have
            their defaults.

    Shapes:
        x [N, in_channels], or a tuple ([N_src, in], [N_dst, in] or None); edge_index [2, E], a
        Graph or another form of edges, see :mod:`gat_ext.nn`; edge_attr [E, edge_dim] or [E]; size
        (N_src, N_dst), required if x_dst is None and N_dst differs from N_src; returns
        [N_dst, H · C], or [N_dst, C] without concat. With ``return_attention_weights=True`` returns
        (out, (edge_index, alpha [E', H])), with self-loops last and alpha as applied, after dropout
        and mask.
        ``edge_weight``, or ``edge_mask``, two names of one argument: w [E] or [E, H], real numbers
        (differentiable) or booleans, multiplies the attention weights of the caller's edges after
        softmax and dropout: Σ_j w_ij α_ij (W x_j + W_e e_ij). It does not apply to added
        self-loops.
        x may be a batch [B, N, in_channels] of features on one graph, with any number of axes B;
        then out is [B, N, ...] and alpha [E', B, H]. The elements share the edges, which are not
        copied, and edge_attr [E, edge_dim], or have their own: [B, E, edge_dim].

    Raises:
        TypeError: x is neither a tensor nor a pair, or its dtype is not the layer's.
        ValueError: sizes do not match; edge_attr is missing, or was given to a layer without
            edge_dim.
        IndexError: a node number in edge_index is out of range.

    Cost: one fused pass that returns its weights [E', H], and a sum of the edge features
    [N_dst, H, edge_dim], which W_e then maps. [E', H, C] is allocated for edge features of each
    element of a batch, or if a hook or another module computes W_e e.

    Source: Monninger et al., "SCENE: Reasoning about Traffic Scenes using Heterogeneous Graph
    Neural Networks", 2023.

    Example:
        >>> import torch
        >>> from gat_ext.nn import EdgeGATConv
        >>> layer = EdgeGATConv(16, 8, heads=4, edge_dim=3)
        >>> layer(torch.randn(3, 16), torch.tensor([[0, 1], [1, 2]]), torch.randn(2, 3)).shape
        torch.Size([3, 32])
    """

    operator = staticmethod(attend_with_edges)

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = False,
        edge_dim: int | None = None,
        fill_value: float | Tensor | str = "mean",
        bias: bool = True,
        residual: bool = True,
        **message_passing: Any,
    ) -> None:
        """Creates the parameters; see the class for the arguments."""
        arguments.check_message_passing(message_passing)
        super().__init__(
            in_channels,
            out_channels,
            heads,
            concat,
            negative_slope,
            dropout,
            add_self_loops,
            edge_dim,
            fill_value,
            bias,
            residual,
        )

    def forward(  # type: ignore[override]  # as GATConv's
        self,
        x: NodeFeatures,
        edge_index: Adjacency,
        edge_attr: Tensor | None = None,
        size: tuple[int, int] | None = None,
        return_attention_weights: bool | None = None,
        *,
        edge_mask: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Attends; see the class for shapes."""
        options = return_attention_weights, edge_mask, edge_weight
        return self.attend(x, edge_index, edge_attr, size, *options)

    def project(
        self, x_src: Features, x_dst: Features | None, edge_attr: Tensor | None, num_dst: int
    ) -> Operands:
        """As GATConv's, and the edge features with W_e for the sum."""
        if self.lin_edge is not None and edge_attr is None:
            raise ValueError(
                f"edge_attr is None, but {self} has edge_dim={self.edge_dim}; expected edge "
                "features [E, edge_dim]"
            )
        nodes, options = super().project(x_src, x_dst, None, num_dst)
        if edge_attr is None:
            return Operands(nodes, options)
        added = self.edge_options(edge_attr)
        if "edge_feat" in added:  # so that hooks run once
            term = (added["edge_feat"] * self.att_edge).sum(-1)
        else:
            term = self._edge_term(edge_attr)
        return Operands(nodes, options | added | {"edge_term": term})
