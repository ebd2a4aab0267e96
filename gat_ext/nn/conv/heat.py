"""HEATConv."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from gat_ext.functional import edge_sum, gat_attention
from gat_ext.graph.protocol import GraphLike
from gat_ext.nn import arguments
from gat_ext.nn.base import AttentionConv, Operands
from gat_ext.nn.inputs import Adjacency, Attention, Features, NodeFeatures, check_kind
from gat_ext.nn.linear import linear, reset_, weight_of
from gat_ext.nn.typed import LazyTypedLinear, TypedLinear, check_types
from gat_ext.ops import linear_maps
from gat_ext.ops.pointwise import leaky_relu


def heat_attention(
    graph: GraphLike,
    value: Tensor,
    dst_term: Tensor,
    src_term: Tensor,
    root: Tensor | None = None,
    *,
    edge_term: Tensor,
    edge_value: Tensor,
    value_map: Tensor,
    negative_slope: float,
    return_weights: bool = False,
    **options: Any,
) -> Any:
    """The attention of :class:`HEATConv`: Σ_j α_ij (v_j + W f_ij) = Σ_j α_ij v_j + W Σ_j α_ij f_ij.

    Args:
        graph: of the nodes.
        value: v, [N, H, C].
        dst_term: as of :func:`gat_ext.functional.gat_attention`.
        src_term: likewise.
        root: [N, H, C], added to the result, or None.
        edge_term: likewise.
        edge_value: f, [E, A], or [E, G, A], of each group of H / G heads.
        value_map: W, [C, A].
        negative_slope: likewise.
        return_weights: likewise.
        options: dropout_p and edge_mask, likewise.

    Returns:
        out [N, H, C], or (out, weights [E, H]).
    """
    out, weights = gat_attention(
        graph,
        value,
        dst_term,
        src_term,
        edge_term=edge_term,
        negative_slope=negative_slope,
        return_weights=True,
        **options,
    )
    groups = edge_value.unbind(1) if edge_value.dim() == 3 else (edge_value,)
    columns = weights.to(edge_value.dtype).chunk(len(groups), dim=1)
    sums = [edge_sum(graph, *pair) for pair in zip(columns, groups, strict=True)]
    of_edges = linear_maps.linear(torch.cat(sums, dim=1).flatten(0, 1), value_map)
    out = out + of_edges.view(out.shape)
    out = out if root is None else out + root
    return (out, weights) if return_weights else out


class HEATConv(AttentionConv):
    r"""Multi-head graph attention over nodes and edges of several types, and features of edges.

    .. math::
        z_i = W_{t(i)} x_i + b_{t(i)}, \quad
        f_{ij} = \mathrm{LeakyReLU}(W_e e_{ij}), \quad
        x'_i = \Vert_h z_i + \sum_{j \in N(i)} \alpha^h_{ij} (W [z_j \Vert f_{ij}] + b), \\
        \alpha_{ij} = \mathrm{softmax}_j\, \mathrm{LeakyReLU}
        (A [z_i \Vert z_j \Vert \mathrm{LeakyReLU}(u_{t(ij)}) \Vert f_{ij}])

    where t are types and u learned embeddings of the types of edges.

    Args:
        in_channels: size of the input features; -1 takes it from the first input.
        out_channels: size C of the output of every head, which share their values.
        num_node_types: number of types of nodes.
        num_edge_types: number of types of edges.
        edge_type_emb_dim: size of the embeddings u.
        edge_dim: size of the edge features; -1 takes it from the first input.
        edge_attr_emb_dim: size A of f.
        heads: H.
        concat: concatenate the heads, else average them.
        negative_slope: of all LeakyReLU.
        dropout: probability of dropping an attention weight in training.
        root_weight: add z_i to the output.
        bias: add the learned biases b_t and b.
        **message_passing: arguments of PyG's MessagePassing (aggr, flow, …); accepted if they have
            the defaults of PyG's layer.

    Shapes:
        x [N, in_channels]; edge_index [2, E], a Graph or another form of edges, see
        :mod:`gat_ext.nn`; node_type int64 [N]; edge_type int64 [E]; edge_attr [E, edge_dim] or [E];
        returns [N, H · C], or [N, C] without concat. With ``return_attention_weights=True``, which
        PyG's layer lacks, returns (out, (edge_index, alpha [E, H])), alpha as applied, after
        dropout and mask.
        ``edge_weight``, or ``edge_mask``, two names of one argument: w [E] or [E, H], real numbers
        (differentiable) or booleans, multiplies the attention weights after softmax and dropout.
        x may be a batch [B, N, in_channels] of features on one graph, with any number of axes B;
        then out is [B, N, ...] and alpha [E, B, H]. The elements share the edges, all types, and
        edge_attr [E, edge_dim], or have their own: [B, E, edge_dim].

    Raises:
        TypeError: x is not a tensor, or its dtype is not the layer's; types are not int64.
        ValueError: sizes do not match; edge_attr is missing.
        IndexError: a node number in edge_index, or a type, is out of range.

    Cost: W f_ij is computed of the sums of f over the edges of a node, so that of the edges only
    scores and weights [E, H] and f [E, A] are allocated; under torch.compile, a product of f with
    the weights of a head, too. The weights of the maps ``att`` and ``lin`` are read; hooks on these
    two are not called.

    Source: Mo, Xing, Lv, "Heterogeneous Edge-Enhanced Graph Attention Network For Multi-Agent
    Trajectory Prediction", 2021, eq. 4 to 9.

    Example:
        >>> import torch
        >>> from gat_ext.nn import HEATConv
        >>> layer = HEATConv(16, 8, 2, 3, 5, 4, 6, heads=4)
        >>> edges, edge_type = torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 2])
        >>> node_type, edge_attr = torch.tensor([0, 1, 1]), torch.randn(2, 4)
        >>> layer(torch.randn(3, 16), edges, node_type, edge_type, edge_attr).shape
        torch.Size([3, 32])
    """

    operator = staticmethod(heat_attention)
    reads: ClassVar[dict[str, str]] = {"hetero_lin": "src", "edge_attr_emb": "edge"}
    accepts_pairs = False
    per_node = ("node_type",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_node_types: int,
        num_edge_types: int,
        edge_type_emb_dim: int,
        edge_dim: int,
        edge_attr_emb_dim: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        root_weight: bool = True,
        bias: bool = True,
        **message_passing: Any,
    ) -> None:
        """Creates the parameters; see the class for the arguments."""
        super().__init__(in_channels, edge_dim)
        arguments.check_message_passing(message_passing)
        arguments.check_sizes(in_channels, out_channels, heads, dropout, edge_dim, pairs=False)
        if edge_dim is None:
            raise TypeError("edge_dim is None; expected an int: HEATConv always has edge features")
        sizes = {
            "num_node_types": num_node_types,
            "num_edge_types": num_edge_types,
            "edge_type_emb_dim": edge_type_emb_dim,
            "edge_attr_emb_dim": edge_attr_emb_dim,
        }
        for name, size in sizes.items():
            arguments.check_size(name, size)
        arguments.check_flags(concat=concat, root_weight=root_weight, bias=bias)
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.concat, self.negative_slope, self.dropout = concat, negative_slope, dropout
        self.root_weight = root_weight
        typed = LazyTypedLinear if in_channels == -1 else TypedLinear
        self.hetero_lin = typed(in_channels, out_channels, num_node_types, bias)
        self.edge_type_emb = nn.Embedding(num_edge_types, edge_type_emb_dim)
        self.edge_attr_emb = linear(edge_dim, edge_attr_emb_dim, bias=False, glorot=False)
        width = 2 * out_channels + edge_type_emb_dim + edge_attr_emb_dim
        self.att = linear(width, heads, bias=False, glorot=False)
        total = out_channels + edge_attr_emb_dim
        self.lin = linear(total, out_channels, bias=bias, glorot=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_(self.hetero_lin, self.edge_type_emb, self.edge_attr_emb, self.att, self.lin)

    @property
    def edge_dim(self) -> int:  # type: ignore[override]
        """Size of the edge features; -1 before the first call sets it."""
        weight = weight_of(self.edge_attr_emb)
        return -1 if weight is None else weight.shape[1]

    def forward(  # type: ignore[override]  # in the order of PyG's
        self,
        x: NodeFeatures,
        edge_index: Adjacency,
        node_type: Tensor,
        edge_type: Tensor,
        edge_attr: Tensor | None = None,
        *,
        return_attention_weights: bool | None = None,
        edge_mask: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Attends; see the class for shapes."""
        options = return_attention_weights, edge_mask, edge_weight
        types: dict[str, Any] = {"node_type": node_type, "edge_type": edge_type}
        return self.attend(x, edge_index, edge_attr, None, *options, **types)

    def projections(self) -> tuple[Any, Any]:
        """The map of the nodes."""
        return self.hetero_lin, self.hetero_lin

    def project(
        self,
        x_src: Features,
        x_dst: Features | None,
        edge_attr: Tensor | None,
        num_dst: int,
        *,
        node_type: Tensor | None = None,
        edge_type: Tensor | None = None,
    ) -> Operands:
        """Computes f and z, and their products with the weights of attention and values."""
        if edge_attr is None:
            raise ValueError(
                f"edge_attr is None, but {self} has edge_dim={self.edge_dim}; expected edge "
                "features [E, edge_dim]"
            )
        assert node_type is not None and edge_type is not None
        node_types, edge_types = self.hetero_lin.num_types, self.edge_type_emb.num_embeddings
        check_types(node_type, x_src.shape[0], "node_type", "type of each node", node_types)
        check_types(edge_type, edge_attr.shape[0], "edge_type", "type of each edge", edge_types)
        check_kind("edge_attr", edge_attr, self.edge_attr_emb, self)
        slope, size = self.negative_slope, self.out_channels
        z = self.hetero_lin(x_src, node_type).flatten(0, -2)
        features = leaky_relu(self.edge_attr_emb(edge_attr), slope)
        weight = self.att.weight
        sizes = size, size, self.edge_type_emb.embedding_dim, features.shape[-1]
        of_dst, of_src, of_type, of_features = weight.split(sizes, dim=1)
        value_map, edge_map = self.lin.weight.split([size, features.shape[-1]], dim=1)
        maps = torch.cat([value_map, of_dst, of_src])
        value, dst_term, src_term = linear_maps.linear(z, maps).split(
            [size, self.heads, self.heads], dim=1
        )
        if self.lin.bias is not None:
            value = value + self.lin.bias
        of_types = leaky_relu(self.edge_type_emb.weight, slope) @ of_type.t()
        terms = linear_maps.linear(features.flatten(0, -2), of_features)
        typed = embedding(edge_type, of_types)
        if features.dim() == 3:
            typed = typed.repeat_interleave(features.shape[1], dim=0)
        options = {
            "edge_term": terms + typed,
            "edge_value": features,
            "value_map": edge_map,
            "negative_slope": slope,
        }
        nodes = self._of_all_heads(value), dst_term, src_term
        return Operands((*nodes, self._of_all_heads(z)) if self.root_weight else nodes, options)

    def _of_all_heads(self, rows: Tensor) -> Tensor:
        return rows.unsqueeze(1).expand(-1, self.heads, -1)
