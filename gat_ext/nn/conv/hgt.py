"""HGTConv."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from gat_ext.functional import dot_attention
from gat_ext.nn import arguments
from gat_ext.nn.base import AttentionConv
from gat_ext.nn.hetero import (
    Edges,
    Metadata,
    Relation,
    StackedGraph,
    check_inputs,
    check_metadata,
    checked_features,
    of_relations,
    sizes_by_type,
    stack_relations,
)
from gat_ext.nn.linear import is_plain_product, reset_
from gat_ext.nn.masks import one_of
from gat_ext.nn.tracers import check_is_no_proxy
from gat_ext.nn.typed import (
    DictLinear,
    LazyDictLinear,
    TypedLinear,
    parameter_name,
    parameters_of_types,
)
from gat_ext.ops import linear_maps
from gat_ext.ops.stacked import stacked_linear

Features = Mapping[str, Tensor]
Results = dict[str, Tensor]
Weights = dict[Relation, Tensor]


class HGTConv(AttentionConv):
    r"""Heterogeneous graph transformer: attention over nodes and edges of several types.

    .. math::
        q_i = Q_{t(i)} x_i, \quad k^r_j = A_r K_{t(j)} x_j, \quad v^r_j = M_r V_{t(j)} x_j, \\
        h_i = \Vert_h \sum_r \sum_{j \in N_r(i)} \alpha^{h,r}_{ij} v^{h,r}_j, \qquad
        \alpha^{h,r}_{ij} = \mathrm{softmax}_{r, j}\,
        \frac{\mu^h_r}{\sqrt{d}} \langle q^h_i, k^{h,r}_j \rangle, \\
        x'_i = \sigma_{t(i)} (O_{t(i)} \mathrm{gelu}(h_i) + b_{t(i)}) + (1 - \sigma_{t(i)}) x_i

    where t are types of nodes, r are relations, d is the size of a head, and the maps Q, K and V
    have biases. σ = sigmoid of a learned number; without x_i, σ is 1: if the sizes of x and x'
    differ.

    Args:
        in_channels: size of the features of all types, or a dictionary of the size for each type;
            -1 takes it from the first input.
        out_channels: size of the output, all heads together; a multiple of ``heads``.
        metadata: (node types, relations), as ``HeteroData.metadata()`` of PyG: a list of names, and
            a list of triples (source type, name, destination type).
        heads: H.
        **message_passing: arguments of PyG's MessagePassing (aggr, flow, …); accepted if they have
            the defaults of PyG's layer.

    Shapes:
        x_dict: [N_t, in_channels] for each type t; types that no edge touches may be missing.
        edge_index_dict: for each relation [2, E_r], a Graph or another form of edges, see
        :mod:`gat_ext.nn`; relations without edges may be missing, and the order is free (results
        of PyG's layer are wrong unless it is that of ``metadata``). Returns a dictionary of
        [N_t, out_channels] for the types of x_dict that are destinations of a relation in
        ``metadata``; a node without in-edges has h = 0. Other types are not in the result.
        With ``return_attention_weights=True``, which PyG's layer lacks, returns (out_dict,
        alpha_dict), alpha [E_r, H] of each relation in edge_index_dict, as applied.
        ``edge_weight``, or ``edge_mask``, two names of one argument: a dictionary of w [E_r] or
        [E_r, H], real numbers (differentiable) or booleans, which multiply the attention weights
        after the softmax; 1 for missing relations.

    Raises:
        TypeError: an argument is not a dictionary; features are not a dense tensor, or their dtype
            is not the layer's; edges are in no form that a layer takes.
        ValueError: sizes do not match; a key is not in ``metadata``; features of a type that edges
            need are missing.
        IndexError: a node in edge_index_dict is out of range.

    Cost: one call of :func:`gat_ext.functional.dot_attention` on a bipartite graph of all
    relations, which is cached as the graph of an edge_index is. A_r K_t and M_r V_t are multiplied
    first where that is cheaper, so keys and values cost one product of matrices for each relation.
    They have a row for each relation and source node, or, for a relation that starts at most at
    half of the nodes, for those nodes only; nothing of the size [E, H, d] is allocated. The weights
    of ``k_rel`` and ``v_rel`` are read; hooks on these two are not called.

    Source: Hu, Dong, Wang, Sun, "Heterogeneous Graph Transformer", WWW 2020, eq. 3 to 5.

    Example:
        >>> import torch
        >>> from gat_ext.nn import HGTConv
        >>> writes, cites = ("author", "writes", "paper"), ("paper", "cites", "paper")
        >>> layer = HGTConv({"author": 5, "paper": 7}, 8, (["author", "paper"], [writes, cites]), 2)
        >>> x_dict = {"author": torch.randn(2, 5), "paper": torch.randn(3, 7)}
        >>> edges = {writes: torch.tensor([[0, 1], [0, 2]]), cites: torch.tensor([[0], [1]])}
        >>> {name: out.shape for name, out in layer(x_dict, edges).items()}
        {'paper': torch.Size([3, 8])}
    """

    operator = staticmethod(dot_attention)
    reads: ClassVar[dict[str, str]] = {"kqv_lin": "src"}
    accepts_pairs = False

    def __init__(
        self,
        in_channels: int | dict[str, int],
        out_channels: int,
        metadata: Metadata,
        heads: int = 1,
        **message_passing: Any,
    ) -> None:
        """Creates the parameters; see the class for the arguments."""
        node_types, relations = check_metadata(metadata)
        sizes = sizes_by_type(in_channels, node_types)
        super().__init__(*sizes.values())
        arguments.check_message_passing(message_passing)
        for size in sizes.values():
            arguments.check_channels("in_channels", size)
        arguments.check_size("out_channels", out_channels)
        arguments.check_size("heads", heads)
        if out_channels % heads:
            raise ValueError(
                f"out_channels is {out_channels} and heads is {heads}; expected a multiple of heads"
            )
        self.in_channels: dict[str, int] = sizes  # type: ignore[assignment]
        self.out_channels, self.heads = out_channels, heads
        self.node_types, self.edge_types = node_types, relations
        kind = LazyDictLinear if -1 in sizes.values() else DictLinear
        self.kqv_lin = kind(sizes, 3 * out_channels)
        self.out_lin = DictLinear(dict.fromkeys(sizes, out_channels), out_channels)
        dim, num_types = out_channels // heads, heads * len(relations)
        self.k_rel = TypedLinear(dim, dim, num_types, bias=False)
        self.v_rel = TypedLinear(dim, dim, num_types, bias=False)
        self.skip = parameters_of_types(sorted(node_types, key=parameter_name), 1)
        self.p_rel = parameters_of_types(map("__".join, relations), 1, heads)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_(self.kqv_lin, self.out_lin, self.k_rel, self.v_rel)
        for one in (*self.skip.values(), *self.p_rel.values()):
            nn.init.ones_(one)

    def forward(  # type: ignore[override]  # dictionaries, in the order of PyG's
        self,
        x_dict: Features,
        edge_index_dict: Edges,
        *,
        return_attention_weights: bool | None = None,
        edge_mask: Mapping[Relation, Tensor] | None = None,
        edge_weight: Mapping[Relation, Tensor] | None = None,
    ) -> Results | tuple[Results, Weights]:
        """Attends; see the class for shapes."""
        for given in (x_dict, edge_index_dict):
            check_is_no_proxy(self, given, *(given.values() if isinstance(given, Mapping) else ()))
        name, mask = one_of(edge_mask, edge_weight)
        asked = arguments.asks_for_weights(return_attention_weights)
        relations = check_inputs(x_dict, edge_index_dict, self.node_types, self.edge_types)
        if self._first_call is not None:
            self._first_call(x_dict, None)
        x_dict = checked_features(x_dict, self.kqv_lin.lins, self)
        sizes = {kind: x.shape[0] for kind, x in x_dict.items()}
        receiving = {dst for _, _, dst in self.edge_types}
        dst_types = [kind for kind in x_dict if kind in receiving]
        if not dst_types:
            return ({}, {}) if asked else {}
        device = x_dict[dst_types[0]].device
        stacked = stack_relations(edge_index_dict, relations, sizes, dst_types, device)
        query, key, value = self._projected(x_dict, relations, dst_types, stacked)
        mask_of_all = of_relations(name, mask, relations, stacked.num_edges, value)
        mask_of_all = stacked.of_graph(mask_of_all)
        options: dict[str, Any] = {"edge_mask": mask_of_all, "return_weights": asked}
        result: Any = dot_attention(stacked.graph, query, key, value, scale=1.0, **options)
        out = result[0] if asked else result
        parts = gelu(out.flatten(1)).split([sizes[kind] for kind in dst_types])
        mapped = self.out_lin(dict(zip(dst_types, parts, strict=True)))
        out_dict = {kind: self._skipped(kind, x_dict[kind], mapped[kind]) for kind in dst_types}
        if not asked:
            return out_dict
        weights = stacked.of_relations(result[1])
        return out_dict, dict(zip(relations, weights, strict=True))

    def split(self, x: Any) -> tuple[Any, None, None]:
        """The features, which a first call takes the sizes of."""
        return checked_features(x, self.kqv_lin.lins, self), None, None

    # ---- projections

    def _projected(
        self,
        x_dict: Features,
        relations: list[Relation],
        dst_types: list[str],
        stacked: StackedGraph,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query of the destinations, and key and value of all rows of the relations."""
        uses = Counter(src for src, _, _ in relations)
        products = {kind: self._products(kind, x, uses[kind]) for kind, x in x_dict.items()}
        maps = [self._maps_of(relation) for relation in relations]
        query = self._of_heads([products[kind].query for kind in dst_types])
        if not relations:
            return query, query[:0], query[:0]
        sources = [
            _of_rows(products[src], rows)
            for (src, _, _), rows in zip(relations, stacked.rows, strict=True)
        ]
        pairs = list(zip(sources, maps, strict=True))
        key = self._of_heads([_mapped(source.key, key_map) for source, (key_map, _) in pairs])
        value = self._of_heads([_mapped(source.value, by) for source, (_, by) in pairs])
        return query, key, value

    def _of_heads(self, products: list[_Product]) -> Tensor:
        """The rows of products, one below the other, [N, H, d]."""
        known = [(x, weight, bias) for x, weight, bias in products if weight is not None]
        if len(known) == len(products):
            rows = stacked_linear(known)
        else:
            rows = torch.cat([_rows_of(product) for product in products])
        return rows.view(-1, self.heads, self.out_channels // self.heads)

    def _products(self, kind: str, x: Tensor, uses: int) -> _Products:
        """Key, query and value of the nodes of a type, at which ``uses`` relations start.

        Key and value are left unevaluated if each relation then costs less.
        """
        lin: Any = self.kqv_lin.lins[kind]
        width, channels = self.out_channels, x.shape[1]
        if not is_plain_product(lin):
            return _Products(*map(_Product, lin(x).chunk(3, dim=1)))
        maps = zip(lin.weight.chunk(3), lin.bias.chunk(3), strict=True)
        key, query, value = (_Product(x, *weight_and_bias) for weight_and_bias in maps)
        if uses * channels > channels + uses * width:
            key, value = _Product(_rows_of(key)), _Product(_rows_of(value))
        return _Products(key, query, value)

    def _maps_of(self, relation: Relation) -> tuple[Tensor, Tensor]:
        """A_r, times the factor of the scores, and M_r, [H, d, d], of rows times matrix."""
        number, count = self.edge_types.index(relation), len(self.edge_types)
        factor = self.p_rel[parameter_name("__".join(relation))]
        key_map, value_map = (
            lin.weight.view(self.heads, count, *lin.weight.shape[1:])[:, number]
            for lin in (self.k_rel, self.v_rel)
        )
        return key_map * (factor.view(-1, 1, 1) / math.sqrt(key_map.shape[1])), value_map

    def _skipped(self, kind: str, x: Tensor, out: Tensor) -> Tensor:
        """The weighted mean with x, if it has the size of the result."""
        if x.shape[1] != self.out_channels:
            return out
        # Of each column: the gradient is then summed over rows in the same order by any threads.
        share: Tensor = self.skip[parameter_name(kind)].sigmoid().expand(self.out_channels)
        if x.dtype == out.dtype == share.dtype:
            return torch.lerp(x, out, share)
        return share * out + (1 - share) * x

    def __repr__(self) -> str:
        """As PyG's."""
        return f"{type(self).__name__}(-1, {self.out_channels}, heads={self.heads})"


class _Product(NamedTuple):
    """Rows x W^T + b; with W None, the rows x.

    Attributes:
        x: [N, F].
        weight: [H · d, F], or None.
        bias: [H · d], or None.
    """

    x: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None


class _Products(NamedTuple):
    """Those of the nodes of a type."""

    key: _Product
    query: _Product
    value: _Product


def _rows_of(product: _Product) -> Tensor:
    """The rows, [N, H · d]."""
    x, weight, bias = product
    return x if weight is None else linear_maps.linear(x, weight, bias)


def _of_rows(products: _Products, rows: Tensor | None) -> _Products:
    """Key and value of some nodes, or of all."""
    if rows is None:
        return products
    key, query, value = products
    chosen = key.x.index_select(0, rows)
    of_values = chosen if value.x is key.x else value.x.index_select(0, rows)
    return _Products(key._replace(x=chosen), query, value._replace(x=of_values))


def _mapped(product: _Product, of_heads: Tensor) -> _Product:
    """The product, of which each head is multiplied by its own matrix [H, d, d]."""
    x, weight, bias = product
    blocks = torch.diag_embed(of_heads.permute(2, 1, 0), dim1=0, dim2=2).flatten(2).flatten(0, 1)
    if weight is None or bias is None:
        return _Product(x, blocks)
    both = linear_maps.linear(blocks, torch.cat([weight, bias.unsqueeze(1)], dim=1).t())
    return _Product(x, both[:, :-1], both[:, -1])
