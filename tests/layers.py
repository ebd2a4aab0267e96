"""The table of layers: arguments, calls, variants, and the promises that tests check.

A new layer adds one row. The row buys all promises of ``PROMISES``: the tests run the layer through
each of them, except those that it says it lacks.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from called_layers import FAConv, HANConv, HGTConv, PointTransformerConv
from torch import Tensor

from gat_ext import nn

PROMISES = {
    "plain call": "sizes make it, and it is called with x, edges and edge features, if it has any",
    "projections": "the constructor takes in_channels, out_channels, heads, concat and bias",
    "pairs": "x may be a pair, of sources and destinations",
    "sources alone": "x may be (tensor, None)",
    "edge_attr": "edge_dim gives it edge features",
    "self_loops": "it replaces self-loops, unless add_self_loops is False",
    "dropout": "it drops attention weights in training",
    "lazy": "in_channels -1 takes the size of the first input",
    "sparse": "x may be sparse",
    "forms": "every form of edges",
    "batch": "x may be a batch [B, N, F]",
    "edge_mask": "a mask of edges or of edges and heads, as PyG's explainers apply it",
    "weights": "it returns its attention weights, and record_attention collects them",
    "compile": "torch.compile, in one graph for all sizes",
    "transforms": "torch.func",
    "double_backward": "gradients of gradients",
    "checkpoint": "torch.utils.checkpoint",
    "determinism": "bitwise identical results, for any number of threads",
    "large_scores": "scores of any finite size",
    "memory": "nothing is left of a call",
    "reorder": "nn.Reordered",
    "distributed": "a DistGraph in place of a Graph, with the results of one process",
    "copies": "copy.deepcopy and pickle",
    "half": "float16 and bfloat16",
    "pyg": "PyG has a layer of the same name, with the same parameters and results",
    "pyg_pairs": "PyG's layer takes pairs, if this one does",
    "pyg_weights": "PyG's layer returns its attention weights, too",
    "dgl": "from_dgl translates the parameters of DGL's layer",
}


@dataclass(frozen=True)
class Layer:
    """A row of the table.

    Attributes:
        kind: the class.
        operator: the attention of ``gat_ext.functional`` and ``reference`` that it computes with.
        plain: its options, a dictionary for each variant; PyG's layer is compared in all.
        edge: likewise of edge features, combined with each of ``plain``.
        full: options of its hardest case, with everything that it can do at once.
        random: options of the random numbers that it draws in training.
        lacks: the promises that it does not give.
        fixed: options of every variant, which have no default.
        types: how many types of nodes and edges there are, of the layers without a "plain call":
            they take a vector of types for each, before edge features; 0 for none.
        num_sizes: how many of in_channels, out_channels and heads come first in its constructor.
    """

    kind: type[torch.nn.Module]
    operator: str
    plain: list[dict[str, Any]]
    edge: list[dict[str, Any]] = field(default_factory=list)
    full: dict[str, Any] = field(default_factory=dict)
    random: dict[str, Any] = field(default_factory=dict)
    lacks: frozenset[str] = frozenset()
    fixed: dict[str, Any] = field(default_factory=dict)
    types: tuple[int, int] = (0, 0)
    num_sizes: int = 3

    def __post_init__(self) -> None:
        assert set(PROMISES) >= self.lacks, self.lacks - set(PROMISES)

    def supports(self, *promises: str) -> bool:
        """True if the layer gives all these promises."""
        assert set(promises) <= set(PROMISES), promises
        return self.lacks.isdisjoint(promises)

    def sizes(self, *sizes: Any) -> tuple[Any, ...]:
        """The first constructor arguments: (in_channels, out_channels, heads) or fewer."""
        return sizes[: self.num_sizes]

    def ends(self, src: int, dst: int) -> tuple[int, int]:
        """Channels of both ends of a pair: these, or ``src`` twice if nothing projects them."""
        return (src, dst) if self.supports("projections") else (src, src)


class Case(NamedTuple):
    """A layer with some options."""

    name: str
    layer: Layer
    options: dict[str, Any]

    def __str__(self) -> str:
        given = ", ".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.name} {given}".strip()

    @property
    def has_edges(self) -> bool:
        """True if calls have edge features."""
        return (self.layer.fixed | self.options).get("edge_dim") is not None

    @property
    def heads(self) -> int:
        """Number of weights of an edge: H, or H · D."""
        return self.options.get("heads", 1) * self.options.get("dim", 1)

    @property
    def replaces_loops(self) -> bool:
        """True if the layer adds self-loops."""
        if not self.layer.supports("self_loops"):
            return False
        parameter = inspect.signature(self.layer.kind).parameters.get("add_self_loops")
        default = True if parameter is None else parameter.default
        return bool(self.options.get("add_self_loops", default))

    def make(self, in_channels: Any = 5, out_channels: int = 4, **more: Any) -> torch.nn.Module:
        """The layer."""
        return self.layer.kind(
            *self.layer.sizes(in_channels, out_channels),
            **{**self.layer.fixed, **self.options, **more},
        )

    def make_pyg(self, in_channels: Any = 5, out_channels: int = 4) -> torch.nn.Module:
        """PyG's layer of the same name."""
        kind = getattr(importlib.import_module("torch_geometric.nn"), self.name)
        options = self.layer.fixed | self.options
        layer = kind(*self.layer.sizes(in_channels, out_channels), **options)
        if self.name == "RGATConv":  # whose l2 has no initial value
            torch.nn.init.constant_(layer.l2, 1 / out_channels)
        return layer

    def types(self, num_nodes: int, num_edges: int) -> tuple[Tensor, ...]:
        """Random types of the nodes and of the edges, of those that the layer takes."""
        sizes = zip(self.layer.types, (num_nodes, num_edges), strict=True)
        return tuple(torch.randint(types, (count,)) for types, count in sizes if types)

    def edge_attr(
        self, num_edges: int, dtype: torch.dtype = torch.float32, num_nodes: int = 9
    ) -> tuple[Tensor, ...]:
        """The arguments after the edges: types, and edge features, if it has any."""
        types = self.types(num_nodes, num_edges)
        if not self.has_edges:
            return types
        width = (self.layer.fixed | self.options)["edge_dim"]
        return (*types, torch.randn(num_edges, width, dtype=dtype))


EDGE = {"edge_dim": 3}
LAYERS = {
    "GATConv": Layer(
        nn.GATConv,
        "gat_attention",
        plain=[
            {},
            {"heads": 3},
            {"heads": 2, "concat": False},
            {"heads": 2, "negative_slope": 0.05, "bias": False},
            {"heads": 2, "residual": True},
            {"heads": 2, "concat": False, "residual": True},
            {"heads": 2, "add_self_loops": False},
        ],
        edge=[
            EDGE,
            EDGE | {"fill_value": 0.5},
            EDGE | {"fill_value": torch.tensor([1.0, -2.0, 0.5])},
            *(EDGE | {"fill_value": how} for how in ("add", "min", "max", "mul")),
        ],
        full=EDGE | {"residual": True},
        random={"dropout": 0.3, "feat_dropout": 0.2},
    ),
    "GATv2Conv": Layer(
        nn.GATv2Conv,
        "gatv2_attention",
        plain=[
            {},
            {"heads": 3},
            {"heads": 2, "concat": False},
            {"heads": 2, "negative_slope": 0.05},
            {"heads": 2, "share_weights": True},
            {"heads": 2, "residual": True, "bias": False},
            {"add_self_loops": False},
        ],
        edge=[EDGE, EDGE | {"fill_value": 0.5}, EDGE | {"fill_value": "max"}],
        full=EDGE | {"residual": True},
        random={"dropout": 0.3},
        lacks=frozenset({"sources alone"}),
    ),
    "AGNNConv": Layer(
        nn.AGNNConv,
        "cosine_attention",
        plain=[{}, {"requires_grad": False}, {"add_self_loops": False}],
        lacks=frozenset(
            {"projections", "sources alone", "edge_attr", "dropout", "lazy", "sparse"}
            | {"pyg_pairs", "pyg_weights", "dgl"}
        ),
        num_sizes=0,
    ),
    "EdgeGATConv": Layer(
        nn.EdgeGATConv,
        "attend_with_edges",
        plain=[
            {},
            {"heads": 3},
            {"heads": 2, "concat": False, "bias": False},
            {"heads": 2, "negative_slope": 0.05, "residual": False},
            {"heads": 2, "add_self_loops": True},
        ],
        edge=[EDGE, EDGE | {"add_self_loops": True, "fill_value": "max"}],
        full=EDGE | {"add_self_loops": True},
        random={"dropout": 0.3},
        lacks=frozenset({"pyg", "pyg_pairs", "pyg_weights"}),
    ),
    "FAConv": Layer(
        FAConv,
        "signed_sum",
        plain=[{}, {"eps": 0.0}, {"add_self_loops": False}],
        random={"dropout": 0.3},
        lacks=frozenset(
            {"projections", "pairs", "sources alone", "edge_attr", "lazy", "sparse"}
            | {"pyg", "pyg_weights", "dgl"}
        ),
        num_sizes=1,
    ),
    "HANConv": Layer(
        HANConv,
        "gat_attention",
        plain=[{}, {"heads": 2}, {"heads": 2, "negative_slope": 0.05}],
        random={"dropout": 0.3},
        lacks=frozenset(
            {"pairs", "sources alone", "edge_attr", "self_loops", "batch", "edge_mask", "weights"}
            | {"pyg", "pyg_pairs", "pyg_weights", "dgl"}
        ),
    ),
    "HEATConv": Layer(
        nn.HEATConv,
        "gat_attention",
        plain=[
            {},
            {"heads": 3},
            {"heads": 2, "concat": False},
            {"heads": 2, "negative_slope": 0.05, "bias": False},
            {"heads": 2, "concat": False, "root_weight": False},
        ],
        random={"dropout": 0.3},
        lacks=frozenset({"plain call", "pairs", "sources alone", "self_loops", "edge_attr"})
        # A type of each node would have to be renumbered with the nodes.
        | {"pyg_weights", "reorder", "dgl"},
        fixed={
            **{"num_node_types": 2, "num_edge_types": 3, "edge_type_emb_dim": 5},
            **{"edge_dim": 3, "edge_attr_emb_dim": 6},
        },
        types=(2, 3),
    ),
    "PointTransformerConv": Layer(
        PointTransformerConv,
        "vector_attention",
        plain=[{}, {"add_self_loops": False}, {"attn_nn": torch.nn.Tanh()}],
        full={"attn_nn": torch.nn.Tanh(), "nonlinear": True},
        lacks=frozenset(
            {"sources alone", "edge_attr", "dropout", "sparse", "batch", "edge_mask", "weights"}
            | {"pyg", "pyg_pairs", "pyg_weights", "dgl"}
        ),
    ),
    "HGTConv": Layer(
        HGTConv,
        "dot_attention",
        plain=[{}, {"heads": 2}],
        lacks=frozenset(
            {"plain call", "pairs", "sources alone", "edge_attr", "self_loops", "dropout"}
            | {"sparse", "batch", "reorder", "weights", "pyg", "pyg_pairs", "pyg_weights", "dgl"}
        ),
    ),
    "RGATConv": Layer(
        nn.RGATConv,
        "gat_attention",
        plain=[
            {},
            {"heads": 3, "concat": False},
            {"heads": 2, "attention_mechanism": "within-relation", "num_bases": 2},
            {"heads": 2, "num_blocks": 1, "bias": False, "negative_slope": 0.05},
            {"attention_mode": "multiplicative-self-attention"},
            {"heads": 2, "concat": False, "attention_mode": "multiplicative-self-attention"}
            | {"dim": 2},
            *(
                {"heads": 2, "mod": mod, "attention_mechanism": mechanism}
                for mod in ("additive", "scaled", "f-additive", "f-scaled")
                for mechanism in ("across-relation", "within-relation")
            ),
        ],
        edge=[EDGE],
        full=EDGE
        | {"attention_mode": "multiplicative-self-attention", "dim": 2}
        | {"attention_mechanism": "within-relation"},
        random={"dropout": 0.3},
        lacks=frozenset({"plain call", "pairs", "sources alone", "self_loops", "lazy", "dgl"}),
        fixed={"num_relations": 3},
        types=(0, 3),
    ),
    "SuperGATConv": Layer(
        nn.SuperGATConv,
        "supergat_attention",
        plain=[
            options | kind
            for kind in ({}, {"attention_type": "SD"})
            for options in (
                {},
                {"heads": 3},
                {"heads": 2, "concat": False, "bias": False},
                {"heads": 2, "negative_slope": 0.05, "add_self_loops": False},
            )
        ],
        full={"attention_type": "SD"},
        random={"dropout": 0.3},
        lacks=frozenset({"pairs", "sources alone", "edge_attr", "pyg_weights", "dgl"}),
    ),
    "TransformerConv": Layer(
        nn.TransformerConv,
        "dot_attention",
        plain=[
            {},
            {"heads": 3},
            {"heads": 2, "concat": False},
            {"heads": 2, "beta": True},
            {"heads": 2, "concat": False, "beta": True},
            {"root_weight": False},
            {"beta": True, "root_weight": False},
            {"bias": False},
        ],
        edge=[EDGE],
        full=EDGE | {"beta": True},
        random={"dropout": 0.3},
        lacks=frozenset({"sources alone", "self_loops", "dgl"}),
    ),
}


def layers_that(*promises: str, typed: bool = False) -> list[str]:
    """The names of the layers that give all these promises, among them a "plain call".

    Args:
        promises: names in ``PROMISES``.
        typed: also layers without a "plain call", for tests that pass them ``Case.edge_attr``.
    """
    wanted = promises if typed else (*promises, "plain call")
    return [name for name, layer in LAYERS.items() if layer.supports(*wanted)]


def plain_cases(*promises: str, typed: bool = False) -> list[Case]:
    """One case for each layer that gives these promises, with two heads if it has heads."""
    return [
        Case(name, LAYERS[name], {"heads": 2} if LAYERS[name].supports("projections") else {})
        for name in layers_that(*promises, typed=typed)
    ]


def full_cases(*promises: str, typed: bool = False) -> list[Case]:
    """One case for each layer with all options together: edge features, residual, …"""
    return [
        case._replace(options=case.options | case.layer.full)
        for case in plain_cases(*promises, typed=typed)
    ]


def all_cases(*promises: str, typed: bool = False) -> list[Case]:
    """Every variant of each layer, with and without edge features."""
    return [
        Case(case.name, case.layer, options)
        for case in plain_cases(*promises, typed=typed)
        for options in [*case.layer.plain, *(case.options | edge for edge in case.layer.edge)]
    ]


def grid_cases(*promises: str, typed: bool = False) -> list[Case]:
    """Every variant without edge features, alone and combined with each of those with them."""
    return [
        Case(name, LAYERS[name], plain | edge)
        for name in layers_that(*promises, typed=typed)
        for plain, edge in itertools.product(LAYERS[name].plain, [{}, *LAYERS[name].edge])
    ]


def over(cases: list[Case]) -> pytest.MarkDecorator:
    """Parametrises a test by cases, as its argument ``case``."""
    return pytest.mark.parametrize("case", cases, ids=str)


def random_edges(num_src: int = 9, num_dst: int = 9, seed: int = 0) -> Tensor:
    """Edges with isolated nodes, multi-edges and self-loops; not sorted."""
    generator = torch.Generator().manual_seed(seed)
    src = torch.randint(num_src, (25,), generator=generator)
    dst = torch.randint(num_dst - 2, (25,), generator=generator)
    extra = torch.tensor([[0, 1, 2, 2], [0, 1, 3, 3]])
    return torch.cat([torch.stack([src, dst]), extra, torch.stack([src, dst])[:, :4]], dim=1)
