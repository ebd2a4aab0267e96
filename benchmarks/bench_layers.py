"""Whole layers, projections included: GAT, AGNN, GATv2 and QKV attention in every library.

The weights are drawn once with PyG's parameter names and loaded into every peer. The graph has
self-loops, so no layer adds them. Dropout applies to the attention, if the layer has it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import formulas
import torch
from cases import DTYPES, Case, Setting
from peers import Item, graph_of
from timing import Program
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """Sizes of a layer: ``in_channels -> heads * channels``, or ``channels`` for averaged heads."""

    in_channels: int
    channels: int
    heads: int
    dropout: float = 0.0
    concat: bool = True


@dataclass(frozen=True)
class Layer:
    """One layer in every library.

    Attributes:
        conv: name of the class in ``gat_ext.nn`` and ``torch_geometric.nn``.
        shapes: shapes of the weights, by PyG's names.
        options: constructor arguments for given sizes.
        dense: the dense N×N module in this folder.
        dgl: name of DGL's class, and its arguments for given sizes.
        dgl_names: DGL's parameter for each weight, or for each group of weights that it ties.
        dense_arrays: heads of the N×N scores, and the width of an N×N×width array, if any.
    """

    title: str
    conv: str
    shapes: Callable[[Sizes], dict[str, tuple[int, ...]]]
    options: Callable[[Sizes], dict[str, Any]]
    dense: Callable[[Sizes], nn.Module]
    dgl: str
    dgl_options: Callable[[Sizes], dict[str, Any]]
    dgl_names: dict[tuple[str, ...], str]
    gathers: int = 1
    projections: int = 1
    dense_arrays: Callable[[Setting], tuple[int, int]] = lambda setting: (setting.heads, 0)
    notes: dict[str, str] = field(default_factory=dict)


def _heads(s: Sizes) -> dict[str, Any]:
    return {
        "in_channels": s.in_channels,
        "out_channels": s.channels,
        "heads": s.heads,
        "dropout": s.dropout,
        "concat": s.concat,
    }


def _dgl_heads(s: Sizes) -> dict[str, Any]:
    return {"in_feats": s.in_channels, "out_feats": s.channels, "num_heads": s.heads}


def _gat_shapes(s: Sizes) -> dict[str, tuple[int, ...]]:
    row, width = (1, s.heads, s.channels), s.heads * s.channels
    bias = (width if s.concat else s.channels,)
    return {"lin.weight": (width, s.in_channels), "att_src": row, "att_dst": row, "bias": bias}


def _gatv2_shapes(s: Sizes) -> dict[str, tuple[int, ...]]:
    width = s.heads * s.channels
    linear = {"weight": (width, s.in_channels), "bias": (width,)}
    both = {f"{lin}.{name}": shape for lin in ("lin_l", "lin_r") for name, shape in linear.items()}
    return {**both, "att": (1, s.heads, s.channels), "bias": (width,)}


_QKV = ("lin_query.weight", "lin_key.weight", "lin_value.weight")

LAYERS: dict[str, Layer] = {
    "gat": Layer(
        title="GAT layer",
        conv="GATConv",
        shapes=_gat_shapes,
        options=lambda s: {**_heads(s), "add_self_loops": False},
        dense=lambda s: formulas.DenseGAT(s.in_channels, s.channels, s.heads, s.dropout),
        dgl="GATConv",
        dgl_options=lambda s: {**_dgl_heads(s), "attn_drop": s.dropout},
        dgl_names={
            ("lin.weight",): "fc.weight",
            ("att_src",): "attn_l",
            ("att_dst",): "attn_r",
            ("bias",): "bias",
        },
    ),
    "agnn": Layer(
        title="AGNN layer",
        conv="AGNNConv",
        shapes=lambda s: {"beta": (1,)},
        options=lambda s: {"add_self_loops": False},
        dense=lambda s: formulas.DenseAGNN(),
        dgl="AGNNConv",
        dgl_options=lambda s: {},
        dgl_names={("beta",): "beta"},
        projections=0,
        dense_arrays=lambda setting: (1, 0),
    ),
    "gatv2": Layer(
        title="GATv2 layer",
        conv="GATv2Conv",
        shapes=_gatv2_shapes,
        options=lambda s: {**_heads(s), "add_self_loops": False},
        dense=lambda s: formulas.DenseGATv2(s.in_channels, s.channels, s.heads, s.dropout),
        dgl="GATv2Conv",
        dgl_options=lambda s: {**_dgl_heads(s), "attn_drop": s.dropout},
        dgl_names={
            ("lin_l.weight",): "fc_src.weight",
            ("lin_l.bias",): "fc_src.bias",
            ("lin_r.weight",): "fc_dst.weight",
            ("lin_r.bias",): "fc_dst.bias",
            ("att",): "attn",
        },
        projections=2,
        dense_arrays=lambda setting: (setting.heads, setting.width),
        notes={"dgl": "GATv2Conv has no bias on the result: compared with that bias 0"},
    ),
    "qkv": Layer(
        title="QKV layer (TransformerConv, DotGatConv)",
        conv="TransformerConv",
        shapes=lambda s: dict.fromkeys(_QKV, (s.heads * s.channels, s.in_channels)),
        options=lambda s: {**_heads(s), "bias": False, "root_weight": False},
        dense=lambda s: formulas.DenseTransformer(s.in_channels, s.channels, s.heads, s.dropout),
        dgl="DotGatConv",
        dgl_options=_dgl_heads,
        dgl_names={_QKV: "fc.weight"},
        gathers=2,
        projections=3,
        notes={
            "dgl": "DotGatConv has one projection for query, key and value, and no dropout: "
            "compared with the three weights equal; it does a third of the projections"
        },
    ),
}


class Flat(nn.Module):
    """DGL's layer with PyG's order of arguments and concatenated heads."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        return self.conv(graph, x).flatten(1)


def make_layer(
    layer: Layer, family: str, sizes: Sizes, weights: dict[str, Tensor]
) -> tuple[nn.Module, dict[tuple[str, ...], nn.Parameter]]:
    """A library's layer with the given weights, and its parameters by PyG's names.

    The layer is ``(x, graph) -> [N, heads * channels]``.
    """
    if family == "dgl":
        import dgl.nn.pytorch as dgl_nn

        conv = getattr(dgl_nn, layer.dgl)(**layer.dgl_options(sizes))
        names, module = layer.dgl_names, Flat(conv)
    else:
        conv = module = layer.dense(sizes) if family == "dense" else _conv(family, layer, sizes)
        names = {(own,): own for own in weights}
    parameters = dict(conv.named_parameters())
    leaves = {common: parameters[own] for common, own in names.items()}
    like = next(iter(weights.values()))
    module.to(like.device, like.dtype)
    with torch.no_grad():
        for common, parameter in leaves.items():
            parameter.copy_(weights[common[0]].view_as(parameter))
    return module, leaves


def _conv(family: str, layer: Layer, sizes: Sizes) -> nn.Module:
    if family == "gat_ext":
        from gat_ext import nn as library
    else:
        from torch_geometric import nn as library
    return getattr(library, layer.conv)(**layer.options(sizes))


def draw(
    shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, generator: torch.Generator
) -> dict[str, Tensor]:
    """Normal weights, divided by the square root of the last size, for unit-variance products."""
    return {
        name: normal(shape, dtype, generator) / max(shape[-1], 1) ** 0.5
        for name, shape in shapes.items()
    }


def normal(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """A normal tensor on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device).to(dtype)


def sizes_of(layer: Layer, case: Case) -> Sizes:
    """The sizes of a layer on the nodes of a case."""
    setting = case.setting
    if "x" in case.tensors:
        in_channels = case.tensors["x"].shape[1]
    elif case.features is None or layer.projections == 0:
        in_channels = setting.width
    else:
        in_channels = case.features.shape[1]
    return Sizes(in_channels, setting.channels, setting.heads, case.dropout)


def draw_tensors(layer: Layer, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    """x, grad_out and the weights of a layer."""
    sizes = sizes_of(layer, case)
    if case.features is None or layer.projections == 0:
        x = normal((case.num_nodes, sizes.in_channels), case.dtype, generator)
    else:
        x = case.features.to(case.dtype)
    out = normal((case.num_nodes, case.setting.width), case.dtype, generator)
    return {"x": x, "grad_out": out, **draw(layer.shapes(sizes), case.dtype, generator)}


def _program(name: str, family: str, case: Case) -> Program:
    x = case.tensors["x"].requires_grad_()
    weights = {key: t for key, t in case.tensors.items() if key not in ("x", "grad_out")}
    module, leaves = make_layer(LAYERS[name], family, sizes_of(LAYERS[name], case), weights)
    return Program(module, (x, graph_of(family, case)), {("x",): x, **leaves})


def _item(name: str) -> Item:
    layer = LAYERS[name]

    def dense_bytes(setting: Setting, nodes: int) -> int:
        heads, width = layer.dense_arrays(setting)
        return formulas.score_bytes(heads, nodes, DTYPES[setting.dtype].itemsize, width)

    families = ("gat_ext", "pyg", "dense", "dgl")
    return Item(
        title=layer.title,
        tensors=functools.partial(draw_tensors, layer),
        build={family: functools.partial(_program, name, family) for family in families},
        rows={"x": "node", "out": "node"},
        gathers=layer.gathers,
        projections=layer.projections,
        dense_bytes=dense_bytes,
        notes=layer.notes,
    )


ITEMS = {name: _item(name) for name in LAYERS}
