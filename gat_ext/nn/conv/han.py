"""HANConv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gat_ext.functional import checks, gat_attention
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.nn import arguments
from gat_ext.nn.adjacency import unwrap
from gat_ext.nn.batch import Batch, Folded, nodes_first
from gat_ext.nn.features import as_features
from gat_ext.nn.first_call import FirstCall
from gat_ext.nn.hetero import check_keys, check_metadata, of_relations, sizes_by_type
from gat_ext.nn.inputs import Adjacency, Features, as_graph, check_features
from gat_ext.nn.linear import dot_heads, linear, reset_
from gat_ext.nn.masks import one_of
from gat_ext.nn.semantic import over_relations
from gat_ext.nn.tracers import TracedModule, check_is_no_proxy

EdgeType = tuple[str, str, str]
"""(type of the sources, relation, type of the destinations)"""


class HANConv(TracedModule):
    r"""Multi-head attention over the edges of each relation, then attention over the relations.

    .. math::
        z_i = W_{t(i)} x_i + b_{t(i)}, \qquad
        z^r_i = \mathrm{relu}\Big(\Vert_h \sum_{j \in N_r(i)} \alpha^{h,r}_{ij} z^h_j\Big), \quad
        \alpha^r_{ij} = \mathrm{softmax}_j\, \mathrm{LeakyReLU}(a_r^\top z_i + b_r^\top z_j), \\
        x'_i = \sum_r \beta_r z^r_i, \qquad
        \beta_r = \mathrm{softmax}_r\, \frac{1}{N} \sum_i q^\top \tanh(K z^r_i + k)

    where t are types of nodes, and r the relations into the type of i, of which it has N nodes.

    Args:
        in_channels: size of the input features, or a dictionary with that of each type of nodes;
            -1 takes it from the first input.
        out_channels: size of the output, a multiple of ``heads``.
        metadata: the types of nodes and of edges: ``(["a", "b"], [("a", "to", "b"), ...])``.
        heads: H.
        negative_slope: of LeakyReLU.
        dropout: probability of dropping an attention weight α in training.
        **message_passing: arguments of PyG's MessagePassing (aggr, flow, …); accepted if they have
            the defaults of PyG's layer.

    Shapes:
        x_dict {type: [N, in_channels]}; edge_index_dict {(source type, relation, destination type):
        edge_index [2, E], a Graph or another form of edges, see :mod:`gat_ext.nn`}; returns
        {type: [N, out_channels]} for each type of x_dict, None for one without relations into it.
        With ``return_semantic_attention_weights=True`` returns (out, {type: β [R]}), in the order
        of the relations in edge_index_dict.
        ``edge_weight``, or ``edge_mask``, two names of one argument: {relation: w [E] or [E, H]},
        real numbers (differentiable) or booleans, multiplies α^r after softmax and dropout.
        The x of all types may be batches [B, N, in_channels] of features on the same graphs, with
        any number of axes B; then out is [B, N, out_channels], and β [R, B].

    Raises:
        TypeError: an argument is not a dictionary; an x is not a tensor, or not of the layer's
            dtype.
        ValueError: a type of nodes or edges is unknown, or has no x; sizes do not match.
        IndexError: a node number in an edge_index is out of range.

    Cost: z [N, out_channels] of each type; z^r and its tanh for each relation; nothing has a row of
    features for every edge. The weights of ``k_lin`` are read; hooks on it are not called.

    Source: Wang, Ji, Shi, Wang, Cui, Yu, Ye, "Heterogeneous Graph Attention Network", WWW 2019,
    eq. 1 to 9.

    Example:
        >>> import torch
        >>> from gat_ext.nn import HANConv
        >>> relations = [("author", "writes", "paper"), ("paper", "cites", "paper")]
        >>> types = ["author", "paper"], relations
        >>> layer = HANConv({"author": 4, "paper": 16}, 8, types, heads=2)
        >>> x = {"author": torch.randn(2, 4), "paper": torch.randn(3, 16)}
        >>> writes, cites = torch.tensor([[0, 1], [2, 0]]), torch.tensor([[0, 1], [1, 2]])
        >>> out = layer(x, dict(zip(relations, (writes, cites))))
        >>> out["author"], out["paper"].shape
        (None, torch.Size([3, 8]))
    """

    operator = staticmethod(gat_attention)
    aggr, flow = "add", "source_to_target"  # as PyG's
    _first_call: FirstCall | None = None
    edge_dim = None

    def __init__(
        self,
        in_channels: int | dict[str, int],
        out_channels: int,
        metadata: tuple[list[str], list[EdgeType]],
        heads: int = 1,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        **message_passing: Any,
    ) -> None:
        """Creates the parameters; see the class for the arguments."""
        super().__init__()
        arguments.check_message_passing(message_passing)
        node_types, edge_types = check_metadata(metadata)
        in_channels = sizes_by_type(in_channels, node_types)
        for channels in in_channels.values():
            arguments.check_sizes(channels, out_channels, heads, dropout, None, pairs=False)
        if out_channels % heads:
            raise ValueError(
                f"out_channels is {out_channels} and heads is {heads}; expected a multiple of heads"
            )
        checks.number(negative_slope, "negative_slope")
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.metadata, self.negative_slope, self.dropout = metadata, negative_slope, dropout
        # Not a submodule, which would be counted, hooked and printed.
        lazy = -1 in in_channels.values()
        object.__setattr__(self, "_first_call", FirstCall(self) if lazy else None)
        self.k_lin = linear(out_channels, out_channels, bias=True, glorot=False)
        self.q = nn.Parameter(torch.empty(1, out_channels))
        self.proj = nn.ModuleDict()
        for node_type, channels in in_channels.items():
            self.proj[node_type] = linear(channels, out_channels, bias=True, glorot=False)
        self.lin_src, self.lin_dst = nn.ParameterDict(), nn.ParameterDict()
        shape = 1, heads, out_channels // heads
        for edge_type in edge_types:
            for terms in (self.lin_src, self.lin_dst):
                terms["__".join(edge_type)] = nn.Parameter(torch.empty(shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets all parameters."""
        reset_(*self.proj.values())
        reset_(*self.lin_src.values(), *self.lin_dst.values())
        reset_(self.k_lin, self.q)

    def first_inputs(self, x: Any, edge_attr: Any) -> Iterator[tuple[Any, Any]]:
        """Each projection with the first x of its type."""
        return ((self.proj[name], rows) for name, rows in self._features(x)[0].items())

    def forward(
        self,
        x_dict: dict[str, Features],
        edge_index_dict: dict[EdgeType, Adjacency],
        return_semantic_attention_weights: bool = False,
        *,
        edge_mask: Mapping[EdgeType, Tensor] | None = None,
        edge_weight: Mapping[EdgeType, Tensor] | None = None,
    ) -> Any:
        """Attends; see the class for shapes."""
        check_is_no_proxy(self, x_dict, edge_index_dict)
        checks.flag(return_semantic_attention_weights, "return_semantic_attention_weights")
        self._check_types(x_dict, edge_index_dict)
        name, masks = one_of(edge_mask, edge_weight)
        check_keys(name, masks, edge_index_dict)
        check_is_no_proxy(self, *x_dict.values(), *edge_index_dict.values())
        if self._first_call is not None:
            self._first_call(x_dict, None)
        features, batch = self._features(x_dict)
        shape = -1, self.heads, self.out_channels // self.heads
        nodes = {name: self.proj[name](x).view(shape) for name, x in features.items()}
        terms = self._terms(nodes, edge_index_dict)
        found: dict[str, list[Tensor]] = {name: [] for name in x_dict}
        for edge_type, adjacency in edge_index_dict.items():
            src, _, dst = edge_type
            size = batch.size if batch else 1
            ends = nodes[src].shape[0] // size, nodes[dst].shape[0] // size
            graph = as_graph(unwrap(adjacency), *ends)
            mask = (
                None if masks is None or edge_type not in masks else {edge_type: masks[edge_type]}
            )
            attend: Any = self.operator if batch is None else Folded(self.operator, size)
            out = attend(
                graph,
                nodes[src],
                terms[edge_type, "dst"],
                terms[edge_type, "src"],
                negative_slope=self.negative_slope,
                dropout_p=self.dropout if self.training else 0.0,
                edge_mask=of_relations(name, mask, [edge_type], [graph.num_edges], nodes[src]),
            )
            found[dst].append(out.flatten(-2))
        means = {r[2]: g.mean for r, g in edge_index_dict.items() if isinstance(g, ShardedGraph)}
        results = {
            name: self._over_relations(outs, batch, means.get(name)) for name, outs in found.items()
        }
        out_dict = {name: out for name, (out, _) in results.items()}
        if return_semantic_attention_weights:
            return out_dict, {name: weights for name, (_, weights) in results.items()}
        return out_dict

    def _check_types(self, x_dict: Any, edge_index_dict: Any) -> None:
        """Raises unless both are dictionaries with known types, and all ends have an x."""
        for given, name in ((x_dict, "x_dict"), (edge_index_dict, "edge_index_dict")):
            if not isinstance(given, Mapping):
                raise TypeError(
                    f"{name} is a {type(given).__name__}; {self} expects a dictionary by types"
                )
        for node_type in x_dict:
            if node_type not in self.proj:
                raise ValueError(
                    f"x_dict has the type {node_type!r}; {self} expects the types of its "
                    f"in_channels: {', '.join(map(repr, self.proj))}"
                )
        for edge_type in edge_index_dict:
            if edge_type not in map(tuple, self.metadata[1]):
                raise ValueError(
                    f"edge_index_dict has the type {edge_type!r}; {self} expects the types of its "
                    f"metadata: {', '.join(map(repr, self.metadata[1]))}"
                )
            for end in (edge_type[0], edge_type[2]):
                if end not in x_dict:
                    raise ValueError(
                        f"edge_index_dict has edges of type {edge_type!r}, but x_dict has no "
                        f"{end!r}: give the features of these nodes, or leave the edges out"
                    )

    def _features(self, x_dict: dict[str, Any]) -> tuple[dict[str, Any], Batch | None]:
        """(each x, checked, [N, F], or [N, B, F] with a batch; the batch)."""
        found: dict[str, Any] = {}
        batches: dict[str, Batch | None] = {}
        for name, given in x_dict.items():
            found[name], batches[name] = nodes_first(as_features(given))
            check_features(f"x_dict[{name!r}]", found[name], self.proj[name], self)
        if len(set(batches.values())) > 1:
            shapes = {name: list(batch.shape) if batch else [] for name, batch in batches.items()}
            raise ValueError(
                f"x_dict has batches of the shapes {shapes}; expected the same for all types"
            )
        return found, next(iter(batches.values()), None)

    def _terms(
        self, nodes: dict[str, Tensor], edge_types: Any
    ) -> dict[tuple[EdgeType, str], Tensor]:
        """Terms of the scores, [N, H], of each relation and end; one product for each type."""
        terms: dict[tuple[EdgeType, str], Tensor] = {}
        for name, z in nodes.items():
            ends = [(r, "src") for r in edge_types if r[0] == name]
            ends += [(r, "dst") for r in edge_types if r[2] == name]
            vectors = [
                (self.lin_src if end == "src" else self.lin_dst)["__".join(r)] for r, end in ends
            ]
            if vectors:
                terms.update(zip(ends, dot_heads(z, *vectors), strict=True))
        return terms

    def _over_relations(
        self, outs: list[Tensor], batch: Batch | None, mean: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        """(Σ_r β_r z^r, β [R]), or with a batch ([..., N, C], [R, ...]); None without relations."""
        if not outs:
            return None, None
        if outs[0].shape[0] == 0 and mean is None:
            out, weights = outs[0], None
        else:
            out, weights = over_relations(outs, self.k_lin.weight, self.k_lin.bias, self.q, mean)
        out = out.to(torch.promote_types(out.dtype, self.q.dtype))
        if batch is None:
            return out, weights
        out = batch.restore(out.transpose(0, 1), 0)
        return out, None if weights is None else batch.restore(weights, 1)

    def __repr__(self) -> str:
        """As PyG's."""
        return f"{type(self).__name__}({self.out_channels}, heads={self.heads})"
