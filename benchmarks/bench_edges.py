"""Whole layers with edge features, of gat_ext and PyG; bench_layers.py has them without.

python benchmarks/run.py edges --edge-dim 11 --heads 8 --channels 128 --nodes 20000
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from bench_layers import LAYERS, Layer, Sizes, draw_tensors, make_layer, normal, sizes_of
from cases import Case
from peers import Item, graph_of
from timing import Program
from torch import Tensor


def _with_edges(layer: Layer, edge_dim: int) -> Layer:
    def shapes(s: Sizes) -> dict[str, tuple[int, ...]]:
        width = s.heads * s.channels
        of_edges: dict[str, tuple[int, ...]] = {"lin_edge.weight": (width, edge_dim)}
        if layer.conv == "GATConv":
            of_edges["att_edge"] = (1, s.heads, s.channels)
        return {**layer.shapes(s), **of_edges}

    def options(s: Sizes) -> dict[str, Any]:
        return {**layer.options(s), "edge_dim": edge_dim}

    return replace(layer, shapes=shapes, options=options)


def _tensors(name: str, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    edge_dim = case.setting.edge_dim
    edge_attr = normal((case.num_edges, edge_dim), case.dtype, generator)
    layer = _with_edges(LAYERS[name], edge_dim)
    return {"edge_attr": edge_attr, **draw_tensors(layer, case, generator)}


def _program(name: str, family: str, case: Case) -> Program:
    layer = _with_edges(LAYERS[name], case.setting.edge_dim)
    x, edge_attr = case.tensors["x"].requires_grad_(), case.tensors["edge_attr"]
    weights = {k: t for k, t in case.tensors.items() if k not in ("x", "edge_attr", "grad_out")}
    module, leaves = make_layer(layer, family, sizes_of(layer, case), weights)
    return Program(module, (x, graph_of(family, case), edge_attr), {("x",): x, **leaves})


def _item(name: str) -> Item:
    layer = LAYERS[name]
    build: dict[str, Callable[[Case], Program]] = {
        family: functools.partial(_program, name, family) for family in ("gat_ext", "pyg")
    }
    return Item(
        title=f"{layer.title} with edge features",
        tensors=functools.partial(_tensors, name),
        build=build,
        rows={"x": "node", "edge_attr": "edge", "out": "node"},
        gathers=layer.gathers,
        projections=layer.projections,
    )


ITEMS = {f"{name}_edges": _item(name) for name in ("gat", "gatv2", "qkv")}
"""GATConv, GATv2Conv and TransformerConv with edge features."""
