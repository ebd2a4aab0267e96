"""RGATConv."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gat_ext.functional import checks
from gat_ext.nn import arguments
from gat_ext.nn.adjacency import is_plain, values_of
from gat_ext.nn.base import AttentionConv, Operands, add_residual
from gat_ext.nn.features import SparseFeatures
from gat_ext.nn.inputs import Adjacency, Attention, Features, NodeFeatures, check_kind
from gat_ext.nn.linear import glorot_, is_plain_product, linear, reset_
from gat_ext.nn.relations import MODS, relational_attention
from gat_ext.ops import linear_maps

_ADDITIVE, _MULTIPLICATIVE = "additive-self-attention", "multiplicative-self-attention"
_ACROSS, _WITHIN = "across-relation", "within-relation"


class RGATConv(AttentionConv):
    r"""Multi-head attention over edges of several relations, with a projection for each.

    .. math::
        x'_i = \Vert_h \sum_r \sum_{j \in N_r(i)} \alpha^{h,r}_{ij} W_r^h x_j, \qquad
        q^r_i = Q^\top W_r x_i, \quad k^r_j = K^\top W_r x_j, \quad
        u_{ij} = E^\top W_e e_{ij}

    where the scores are LeakyReLU(q_i + k_j + u_ij) or q_i · k_j · u_ij, elementwise (u only with
    edge features). Their softmax is over all in-edges of i ("across-relation") or over those of one
    relation ("within-relation").

    ``mod`` preserves the number of neighbours n_i, with v_j = W_r x_j:

    ============  ==================================================================
    None          x'_i = Σ α_ij v_j
    "additive"    Σ α_ij v_j + w ⊙ Σ v_j
    "scaled"      ψ(n_i) ⊙ Σ α_ij v_j, with ψ(n) = L_2^T relu(L_1 n + b_1) + b_2
    "f-additive"  Σ (α_ij + 1) v_j
    "f-scaled"    n_i Σ α_ij v_j
    ============  ==================================================================

    Args:
        in_channels: size of the input features.
        out_channels: size C of a head's output.
        num_relations: R.
        num_bases: compose each W_r of this number of shared matrices.
        num_blocks: each W_r is block-diagonal, with this number of blocks.
        mod: see above.
        attention_mechanism: "across-relation" or "within-relation".
        attention_mode: "additive-self-attention" or "multiplicative-self-attention".
        heads: H.
        dim: D, number of scores of a head; 1 in additive mode.
        concat: concatenate the heads, else average them.
        negative_slope: of LeakyReLU.
        dropout: probability of dropping an attention weight in training; 0 with a ``mod``.
        edge_dim: size of the edge features; -1 takes it from the first input; None for none.
        bias: add a learned bias.
        **message_passing: arguments of PyG's MessagePassing (aggr, flow, …); accepted if they have
            the defaults of PyG's layer.

    Shapes:
        x [N, in_channels]; edge_index [2, E], a Graph or another form of edges, see
        :mod:`gat_ext.nn`; edge_type int64 [E], the relation of each edge; None takes the values of
        a SparseTensor; edge_attr [E, edge_dim] or [E]; size (N, N) or None; returns
        [N, H · D · C], or [N, D · C] without concat. With ``return_attention_weights=True`` returns
        (out, (edge_index, alpha [E, H · D])), alpha masked but before dropout and ``mod``.
        ``edge_weight``, or ``edge_mask``, two names of one argument: w [E] or [E, H · D], real
        numbers (differentiable) or booleans, multiplies each message: the attention weights, and
        the terms that ``mod`` adds to them.
        x may be a batch [B, N, in_channels] of features on one graph, with any number of axes B;
        then out is [B, N, ...] and alpha [E, B, H · D]. The elements share the edges, their types,
        and edge_attr [E, edge_dim], or have their own: [B, E, edge_dim].

    Raises:
        TypeError: x is not a tensor, or its dtype is not the layer's; edge_type is not int64.
        ValueError: sizes do not match; edge_type is missing; edge_attr was given to a layer without
            edge_dim.
        IndexError: a node number in edge_index, or a relation in edge_type, is out of range.

    Cost: the projections [N · R, H, C] of all nodes, D times that with ``dim`` D, and for
    "within-relation" as many sums. Of the edges, only scores [E, H · D] are allocated; under
    torch.compile, messages too if a ``mod`` adds to the weights. PyG's layer allocates a matrix W_r
    for each edge.

    Source: Busbridge, Sherburn, Cavallo, Hammerla, "Relational Graph Attention Networks", 2019,
    eq. 1 to 8; mod: Zhang, Xie, "Improving Attention Mechanism in Graph Neural Networks via
    Cardinality Preservation", IJCAI 2020.

    Example:
        >>> import torch
        >>> from gat_ext.nn import RGATConv
        >>> layer = RGATConv(16, 8, num_relations=3, heads=4)
        >>> edges, edge_type = torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 2])
        >>> layer(torch.randn(3, 16), edges, edge_type).shape
        torch.Size([3, 32])
    """

    operator = staticmethod(relational_attention)
    reads: ClassVar[dict[str, str]] = {"lin_edge": "edge"}
    accepts_pairs = False
    returns_weights_before_dropout = True
    bias: nn.Parameter | None
    e: nn.Parameter | None
    lin_edge: nn.Linear | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_relations: int,
        num_bases: int | None = None,
        num_blocks: int | None = None,
        mod: str | None = None,
        attention_mechanism: str = _ACROSS,
        attention_mode: str = _ADDITIVE,
        heads: int = 1,
        dim: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        edge_dim: int | None = None,
        bias: bool = True,
        **message_passing: Any,
    ) -> None:
        """Creates the parameters; see the class for the arguments."""
        super().__init__(edge_dim)
        arguments.check_message_passing(message_passing)
        arguments.check_size("in_channels", in_channels)
        arguments.check_sizes(in_channels, out_channels, heads, dropout, edge_dim)
        arguments.check_size("num_relations", num_relations)
        arguments.check_size("dim", dim)
        arguments.check_flags(concat=concat, bias=bias)
        checks.choice(attention_mechanism, (_ACROSS, _WITHIN), "attention_mechanism")
        checks.choice(attention_mode, (_ADDITIVE, _MULTIPLICATIVE), "attention_mode")
        if attention_mode == _ADDITIVE and dim > 1:
            raise ValueError(
                f"dim is {dim}; {_ADDITIVE!r} expects 1: use {_MULTIPLICATIVE!r} for more"
            )
        if mod is not None:
            checks.choice(mod, MODS, "mod")
            if dropout > 0:
                raise ValueError(
                    f"dropout is {dropout} and mod is {mod!r}; expected a dropout of 0 with a mod, "
                    "or mod=None"
                )
        width = heads * out_channels
        _check_parts(num_bases, num_blocks, in_channels, width)
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.num_relations, self.num_bases, self.num_blocks = num_relations, num_bases, num_blocks
        self.mod, self.attention_mechanism, self.attention_mode = (
            mod,
            attention_mechanism,
            attention_mode,
        )
        self.dim, self.concat, self.negative_slope = dim, concat, negative_slope
        self.dropout, self.edge_dim = dropout, edge_dim

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape))

        self.q, self.k = empty(width, heads * dim), empty(width, heads * dim)
        total = dim * out_channels * (heads if concat else 1)
        self.register_parameter("bias", empty(total) if bias else None)
        self.lin_edge = None if edge_dim is None else linear(edge_dim, width, bias=False)
        self.register_parameter("e", None if edge_dim is None else empty(width, heads * dim))
        if num_bases is not None:
            self.att = empty(num_relations, num_bases)
            self.basis = empty(num_bases, in_channels, width)
        elif num_blocks is not None:
            sizes = in_channels // num_blocks, width // num_blocks
            self.weight = empty(num_relations, num_blocks, *sizes)
        else:
            self.weight = empty(num_relations, in_channels, width)
        self.w = empty(out_channels)
        self.l1, self.b1 = empty(1, out_channels), empty(1, out_channels)
        self.l2, self.b2 = empty(out_channels, out_channels), empty(1, out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all parameters; l2, which PyG's layer leaves uninitialised, to 1 / C."""
        matrices = (self.weight,) if self.num_bases is None else (self.basis, self.att)
        for matrix in (*matrices, self.q, self.k):
            glorot_(matrix)
        for zero in (self.bias, self.b1, self.b2):
            if zero is not None:
                nn.init.zeros_(zero)
        nn.init.ones_(self.w)
        nn.init.ones_(self.l1)
        nn.init.constant_(self.l2, 1 / self.out_channels)
        reset_(self.lin_edge, self.e)

    def forward(  # type: ignore[override]  # in the order of PyG's
        self,
        x: NodeFeatures,
        edge_index: Adjacency,
        edge_type: Tensor | None = None,
        edge_attr: Tensor | None = None,
        size: tuple[int, int] | None = None,
        return_attention_weights: bool | None = None,
        *,
        edge_mask: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Attention]:
        """Attends; see the class for shapes."""
        if edge_type is None and not is_plain(edge_index):
            values = values_of(edge_index)
            edge_type = None if values is None else values.long()
        if edge_type is None:
            raise ValueError(
                f"edge_type is None; {self} expects the relation of each edge, int64 [E], from 0 "
                f"to {self.num_relations - 1}"
            )
        options = return_attention_weights, edge_mask, edge_weight
        return self.attend(x, edge_index, edge_attr, size, *options, edge_type=edge_type)

    def projections(self) -> tuple[Any, Any]:
        """The layer itself, whose in_channels and parameters tell what x must be."""
        return self, self

    def project(
        self,
        x_src: Features,
        x_dst: Features | None,
        edge_attr: Tensor | None,
        num_dst: int,
        *,
        edge_type: Tensor | None = None,
    ) -> Operands:
        """W_r x of all nodes and relations, and its terms of the scores."""
        checks.index_vector(edge_type, "edge_type", "[E], the relation of each edge")
        projected = self._projected(x_src)
        terms = linear_maps.linear(projected, torch.cat([self.q, self.k], dim=1).t())
        query, key = terms.chunk(2, dim=1)
        value = self.split_heads(projected)
        if self.dim > 1:
            value = value.repeat_interleave(self.dim, dim=1)
        options = {
            "edge_term": None if edge_attr is None else self._edge_term(edge_attr),
            "edge_type": edge_type,
            "num_relations": self.num_relations,
            "within": self.attention_mechanism == _WITHIN,
            "negative_slope": self.negative_slope if self.attention_mode == _ADDITIVE else None,
            "mod": self.mod,
            "factors": (self.w, self.l1, self.b1, self.l2, self.b2),
        }
        return Operands((value, query, key), options)

    def _projected(self, x: Features) -> Tensor:
        """W_r x of each node, then relation, then element of a batch: [N · R · B, H · C]."""
        width = self.heads * self.out_channels
        if self.num_blocks is not None:
            by_node = self._of_blocks(x)
        else:
            weight = self.weight if self.num_bases is None else self._composed()
            rows = weight.transpose(1, 2).reshape(-1, weight.shape[1])  # [R · H · C, in_channels]
            if isinstance(x, SparseFeatures):
                by_node = x.linear(rows)
            else:
                by_node = linear_maps.linear(x.flatten(0, -2), rows)
        if x.dim() == 2:
            return by_node.view(-1, width)
        of_elements = by_node.view(*x.shape[:2], self.num_relations, width)
        return of_elements.transpose(1, 2).reshape(-1, width)

    def _of_blocks(self, x: Features) -> Tensor:
        """W_r x of block-diagonal matrices, [N · B, R · H · C]."""
        if isinstance(x, SparseFeatures):
            raise TypeError(
                f"x is sparse; {self} with num_blocks expects a dense tensor: convert it with "
                "x.to_dense(), or use num_bases"
            )
        parts = [
            linear_maps.linear(part, block.transpose(1, 2).flatten(0, 1)).unflatten(
                1, (self.num_relations, -1)
            )
            for part, block in zip(
                x.flatten(0, -2).chunk(self.weight.shape[1], dim=1),
                self.weight.unbind(1),
                strict=True,
            )
        ]
        return torch.cat(parts, dim=2).flatten(1)

    def _composed(self) -> Tensor:
        """W_r as sums of the shared matrices, [R, in_channels, H · C]."""
        composed: Tensor = self.att @ self.basis.flatten(1)
        return composed.view(-1, *self.basis.shape[1:])

    def _edge_term(self, edge_attr: Tensor) -> Tensor:
        """E^T W_e e of every edge, [E, H · D], or [E · B, H · D]; as one small product."""
        assert self.lin_edge is not None and self.e is not None
        check_kind("edge_attr", edge_attr, self.lin_edge, self)
        rows = edge_attr.flatten(0, -2)
        if not is_plain_product(self.lin_edge):
            projected: Tensor = self.lin_edge(rows)
            return linear_maps.linear(projected, self.e.t())
        return linear_maps.linear(rows, self.e.t() @ self.lin_edge.weight)

    def join_heads(self, out: Tensor) -> Tensor:
        """[..., H · D, C] to [..., H · D · C], or the mean over the heads, [..., D · C]."""
        if self.concat:
            return out.flatten(-2)
        by_head: Tensor = out.unflatten(-2, (self.heads, self.dim))
        return by_head.mean(dim=-3).flatten(-2)

    def finish(self, out: Tensor, x_dst: Features | None) -> Tensor:
        """Adds the bias."""
        return add_residual(out, None, None, self.bias)


def _check_parts(num_bases: Any, num_blocks: Any, in_channels: int, width: int) -> None:
    """Raises unless at most one of bases and blocks is given, and blocks divide both sizes."""
    if num_bases is not None:
        arguments.check_size("num_bases", num_bases)
        if num_blocks is not None:
            raise ValueError(
                f"num_bases is {num_bases} and num_blocks is {num_blocks}; expected one of them"
            )
    if num_blocks is None:
        return
    arguments.check_size("num_blocks", num_blocks)
    if in_channels % num_blocks or width % num_blocks:
        raise ValueError(
            f"num_blocks is {num_blocks}; expected a divisor of in_channels = {in_channels} and of "
            f"heads * out_channels = {width}"
        )
