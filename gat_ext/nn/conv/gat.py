"""GATConv."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gat_ext.functional import checks, gat_attention
from gat_ext.nn import arguments, old_names
from gat_ext.nn.base import AttentionConv, Operands, add_residual
from gat_ext.nn.features import dropout
from gat_ext.nn.inputs import Adjacency, Attention, Features, NodeFeatures, check_kind
from gat_ext.nn.linear import dot_heads, is_plain_product, linear, reset_
from gat_ext.nn.self_loops import check_fill_value
from gat_ext.ops import linear_maps
from gat_ext.ops.state import is_tracing


class GATConv(AttentionConv):
    r"""Multi-head graph attention.

    .. math::
        x'_i = \Vert_h \sum_{j \in N(i) \cup \{i\}} \alpha^h_{ij} W^h x_j, \qquad
        \alpha_{ij} = \mathrm{softmax}_j\, \mathrm{LeakyReLU}
        (a_{dst}^\top W x_i + a_{src}^\top W x_j + a_{edge}^\top W_e e_{ij})

    Args:
        in_channels: size of the input features, or a pair (source, destination), which gives each
            end a projection of its own; -1 takes the size from the first input.
        out_channels: size C of a head's output.
        heads: H.
        concat: concatenate the heads, else average them.
        negative_slope: of LeakyReLU.
        dropout: probability of dropping an attention weight in training.
        add_self_loops: replace the graph's self-loops by one for every node.
        edge_dim: size of the edge features; -1 takes it from the first input; None ignores
            edge_attr, as PyG's layer does, with a UserWarning at the first call.
        fill_value: edge features of the added self-loops: a number, a tensor, or a reduction over
            the edges into the node ("add", "mean", "min", "max", "mul").
        bias: add a learned bias.
        residual: add a learned linear map of the destination's features.
        feat_dropout: dropout of the projected features in the weighted sum, but not in the scores
            (the second feature dropout of the authors' code). Not in PyG's layer.
        **message_passing: arguments of PyG's MessagePassing (aggr, flow, …); accepted if they have
            the defaults of PyG's layer.

    Shapes:
        x [N, in_channels], or a tuple ([N_src, in], [N_dst, in] or None); edge_index [2, E], a
        Graph or another form of edges, see :mod:`gat_ext.nn`; edge_attr [E, edge_dim] or [E]; size
        (N_src, N_dst), required if x_dst is None and N_dst differs from N_src; returns
        [N_dst, H · C], or [N_dst, C] without concat. With ``return_attention_weights=True`` returns
        (out, (edge_index, alpha [E', H])), with self-loops last and alpha as applied, after dropout
        and mask.
        ``edge_weight``, or ``edge_mask``, two names of one argument: w [E] or [E, H], real numbers
        (differentiable) or booleans, multiplies the attention weights of the caller's edges after
        softmax and dropout: Σ_j w_ij α_ij W x_j. It does not apply to added self-loops.
        x may be a batch [B, N, in_channels] of features on one graph, with any number of axes B;
        then out is [B, N, ...] and alpha [E', B, H]. The elements share the edges, which are not
        copied, and edge_attr [E, edge_dim], or have their own: [B, E, edge_dim].

    Raises:
        TypeError: x is neither a tensor nor a pair, or its dtype is not the layer's.
        ValueError: sizes do not match.
        IndexError: a node number in edge_index is out of range.

    Source: Veličković et al., "Graph Attention Networks", ICLR 2018, eq. 3 to 6.

    Example:
        >>> import torch
        >>> from gat_ext.nn import GATConv
        >>> layer = GATConv(16, 8, heads=4)
        >>> layer(torch.randn(3, 16), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([3, 32])
    """

    operator = staticmethod(gat_attention)
    reads: ClassVar[dict[str, str]] = {
        **{"res": "dst", "lin": "src", "lin_src": "src", "lin_dst": "dst"},
        **{"lin_edge": "edge"},
    }
    score_factors = "att_src", "att_dst", "att_edge"
    accepts_sources_alone = True
    bias: nn.Parameter | None
    att_edge: nn.Parameter | None
    _ignores_edge_attr = False

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
        super().__init__(in_channels, edge_dim)
        arguments.check_message_passing(message_passing)
        arguments.check_sizes(in_channels, out_channels, heads, dropout, edge_dim)
        checks.probability(feat_dropout, "feat_dropout")
        arguments.check_flags(
            concat=concat, add_self_loops=add_self_loops, bias=bias, residual=residual
        )
        check_fill_value(fill_value)
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
            self.lin_edge = linear(edge_dim, heads * out_channels, bias=False)
            self.att_edge = nn.Parameter(torch.empty(1, heads, out_channels))
        total, dst_channels = (
            out_channels * (heads if concat else 1),
            arguments.pair(in_channels)[1],
        )
        self.res = linear(dst_channels, total, bias=False) if residual else None
        self.register_parameter("bias", nn.Parameter(torch.empty(total)) if bias else None)
        self.reset_parameters()

    def _create_projections(self, width: int) -> None:
        """Creates one projection, or one for each end of an edge if in_channels is a pair."""
        self.lin: nn.Linear | None = None
        self.lin_src: nn.Linear | None = None
        self.lin_dst: nn.Linear | None = None
        src_channels, dst_channels = arguments.pair(self.in_channels)
        if isinstance(self.in_channels, (tuple, list)):
            self.lin_src = linear(src_channels, width, bias=False)
            self.lin_dst = linear(dst_channels, width, bias=False)
        else:
            self.lin = linear(src_channels, width, bias=False)

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_(self.lin, self.lin_src, self.lin_dst, self.lin_edge, self.res)
        reset_(self.att_src, self.att_dst, self.att_edge)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(  # type: ignore[override]  # in the order of PyG's
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
        if edge_attr is not None and self.edge_dim is None:
            self._ignore_edge_attr()
            edge_attr = None
        options = return_attention_weights, edge_mask, edge_weight
        return self.attend(x, edge_index, edge_attr, size, *options)

    def _ignore_edge_attr(self) -> None:
        """As PyG's layer does, but not silently: warns at the first call."""
        if self._ignores_edge_attr or is_tracing():
            return
        self._ignores_edge_attr = True
        warnings.warn(
            f"{self} was made without edge_dim and ignores edge_attr, as PyG's does; make it with "
            "edge_dim, or leave edge_attr out",
            stacklevel=arguments.stacklevel_of_caller(),
        )

    def projections(self) -> tuple[nn.Linear, nn.Linear]:
        """(lin, lin), or (lin_src, lin_dst) if in_channels is a pair."""
        lin = self.lin
        if lin is not None:
            return lin, lin
        assert self.lin_src is not None and self.lin_dst is not None
        return self.lin_src, self.lin_dst

    def project(
        self, x_src: Features, x_dst: Features | None, edge_attr: Tensor | None, num_dst: int
    ) -> Operands:
        """W x of the sources, and the terms of the score from sources, destinations and edges."""
        lin_src, lin_dst = self.projections()
        src = self.split_heads(lin_src(x_src))
        if x_dst is x_src and lin_dst is lin_src:
            src_term, dst_term = dot_heads(src, self.att_src, self.att_dst)
        else:
            (src_term,) = dot_heads(src, self.att_src)
            if x_dst is None:
                dst_term = src_term.new_zeros(num_dst, self.heads)
            else:
                (dst_term,) = dot_heads(self.split_heads(lin_dst(x_dst)), self.att_dst)
        value = dropout(src, self.feat_dropout, self.training)
        edge_term = None if edge_attr is None else self._edge_term(edge_attr)
        options = {"edge_term": edge_term, "negative_slope": self.negative_slope}
        return Operands((value, dst_term, src_term), options)

    def finish(self, out: Tensor, x_dst: Features | None) -> Tensor:
        """Adds the residual and the bias."""
        return add_residual(out, self.res, x_dst, self.bias)

    def result_dtype(self, x: Features, out: Tensor) -> torch.dtype:
        """The dtype of W x times the attention vectors."""
        return torch.promote_types(out.dtype, self.att_src.dtype)

    def _edge_term(self, edge_attr: Tensor) -> Tensor:
        """a_edge · W_e e of every edge, [E, H], or [E · B, H] of each element of a batch.

        Multiplies a_edge and W_e first, to [edge_dim, H], unless a hook needs W_e e.
        """
        assert self.lin_edge is not None and self.att_edge is not None
        check_kind("edge_attr", edge_attr, self.lin_edge, self)
        if not is_plain_product(self.lin_edge):
            return (self.split_heads(self.lin_edge(edge_attr)) * self.att_edge).sum(-1)
        weight = self.lin_edge.weight.view(self.heads, self.out_channels, -1)
        folded = (weight * self.att_edge.view(self.heads, self.out_channels, 1)).sum(1)
        return linear_maps.linear(edge_attr.flatten(0, -2), folded)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        old_names.rename(state_dict, prefix, self.out_channels, shared=self.lin is not None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
