"""A training epoch of the paper's two-layer GAT on the chosen graph: forward, backward and Adam.

Heads and features of the hidden layer come from ``--heads`` and ``--channels`` (the paper's: 8 and
8); the second layer has one head of as many features as there are classes. Dropout, 0.6 unless
asked otherwise, is on the inputs of both layers and on the attention; results are compared without
it.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import dense
import torch
import torch.nn.functional as F
from bench_layers import LAYERS, Sizes, draw, make_layer
from cases import DTYPES, Case, Setting
from peers import Item, Program, graph_of
from torch import Tensor, nn


class Network(nn.Module):
    """Two attention layers of one library."""

    def __init__(self, first: nn.Module, second: nn.Module, dropout: float) -> None:
        super().__init__()
        self.first, self.second, self.dropout = first, second, dropout

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        x = F.elu(self.first(F.dropout(x, self.dropout), graph))
        return F.log_softmax(self.second(F.dropout(x, self.dropout), graph), dim=-1)


class NativeNetwork(nn.Module):
    """gat_ext's own model with these layers, which takes features that are mostly zeros for sparse."""

    def __init__(self, first: nn.Module, second: nn.Module, dropout: float) -> None:
        from gat_ext.models import GAT

        super().__init__()
        self.model = GAT(1, 1, 1, dropout=dropout)
        self.model.layers = nn.ModuleList([first, second])

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        return F.log_softmax(self.model(x, graph), dim=-1)


def _sizes(case: Case) -> tuple[Sizes, Sizes]:
    setting = case.setting
    in_channels = setting.width if case.features is None else case.features.shape[1]
    if "x" in case.tensors:
        in_channels = case.tensors["x"].shape[1]
    first = Sizes(in_channels, setting.channels, setting.heads, case.dropout)
    return first, replace(first, in_channels=setting.width, channels=case.num_classes, heads=1)


def _tensors(case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    setting, sizes = case.setting, _sizes(case)
    weights = {
        f"{place}.{name}": weight
        for place, size in zip(("first", "second"), sizes, strict=True)
        for name, weight in draw(LAYERS["gat"].shapes(size), setting.dtype, generator).items()
    }
    x = case.features
    if x is None:
        x = torch.randn(case.num_nodes, sizes[0].in_channels, generator=generator)
    grad_out = torch.randn(case.num_nodes, case.num_classes, generator=generator) / case.num_nodes
    dtype = DTYPES[setting.dtype]
    return {"x": x.to(dtype), "grad_out": grad_out.to(dtype), **weights}


def _program(family: str, case: Case) -> Program:
    layers, leaves = [], {}
    for place, size in zip(("first", "second"), _sizes(case), strict=True):
        own = {
            k.removeprefix(f"{place}."): t
            for k, t in case.tensors.items()
            if k.startswith(f"{place}.")
        }
        layer, parameters = make_layer("gat", family, size, own)
        layers.append(layer)
        leaves |= {tuple(f"{place}.{name}" for name in names): p for names, p in parameters.items()}
    network = (NativeNetwork if family == "gat_ext" else Network)(*layers, dropout=case.dropout)
    adam = torch.optim.Adam(leaves.values(), lr=0.005, weight_decay=5e-4)
    return Program(network, (case.tensors["x"], graph_of(family, case)), leaves, adam.step)


def _dense_bytes(setting: Setting, nodes: int) -> int:
    return dense.score_bytes(setting.heads + 1, nodes, DTYPES[setting.dtype].itemsize)


ITEMS = {
    "gat_epoch": Item(
        title="training epoch of a two-layer GAT",
        tensors=_tensors,
        build={
            family: functools.partial(_program, family)
            for family in ("gat_ext", "pyg", "dense", "dgl")
        },
        dense_bytes=_dense_bytes,
        gathers=0,
        dropout=0.6,
    )
}
