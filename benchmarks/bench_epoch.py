"""A training epoch of a two-layer GAT on the chosen graph: forward, backward and Adam.

Heads and features of the hidden layer are ``--heads`` and ``--channels`` (8 and 8 in the paper).
The second layer of ``gat_epoch`` has one head with a feature for each class; that of
``gat_epoch_wide`` has the heads and features of the first, averaged. Dropout, 0.6 by default,
applies to the inputs of both layers and to the attention; results are compared without it.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import formulas
import torch
import torch.nn.functional as F
from bench_layers import LAYERS, Sizes, draw, make_layer, normal
from cases import DTYPES, Case, Setting
from peers import Item, graph_of
from timing import Program
from torch import Tensor, nn

_PLACES = ("first", "second")


class Network(nn.Module):
    """Two attention layers of one library."""

    def __init__(self, first: nn.Module, second: nn.Module, dropout: float) -> None:
        super().__init__()
        self.first, self.second, self.dropout = first, second, dropout

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        x = F.elu(self.first(F.dropout(x, self.dropout), graph))
        return F.log_softmax(self.second(F.dropout(x, self.dropout), graph), dim=-1)


class NativeNetwork(nn.Module):
    """gat_ext's model with these layers, which converts mostly-zero features to sparse ones."""

    def __init__(self, first: nn.Module, second: nn.Module, dropout: float) -> None:
        from gat_ext.models import GAT

        super().__init__()
        self.model = GAT(1, 1, 1, dropout=dropout)
        self.model.layers = nn.ModuleList([first, second])

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        return F.log_softmax(self.model(x, graph), dim=-1)


def _sizes(case: Case, wide: bool) -> tuple[Sizes, Sizes]:
    setting = case.setting
    in_channels = setting.width if case.features is None else case.features.shape[1]
    if "x" in case.tensors:
        in_channels = case.tensors["x"].shape[1]
    first = Sizes(in_channels, setting.channels, setting.heads, case.dropout)
    if wide:
        return first, replace(first, in_channels=setting.width, concat=False)
    return first, replace(first, in_channels=setting.width, channels=case.num_classes, heads=1)


def _tensors(wide: bool, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    sizes = _sizes(case, wide)
    weights = {
        f"{place}.{name}": weight
        for place, size in zip(_PLACES, sizes, strict=True)
        for name, weight in draw(LAYERS["gat"].shapes(size), case.dtype, generator).items()
    }
    if case.features is None:
        x = normal((case.num_nodes, sizes[0].in_channels), case.dtype, generator)
    else:
        x = case.features.to(case.dtype)
    grad_out = normal((case.num_nodes, sizes[1].channels), case.dtype, generator)
    return {"x": x, "grad_out": grad_out / case.num_nodes, **weights}


def _program(wide: bool, family: str, case: Case) -> Program:
    layers, leaves = [], {}
    for place, size in zip(_PLACES, _sizes(case, wide), strict=True):
        own = {
            name.removeprefix(f"{place}."): t
            for name, t in case.tensors.items()
            if name.startswith(f"{place}.")
        }
        layer, parameters = make_layer(LAYERS["gat"], family, size, own)
        layers.append(layer)
        leaves |= {tuple(f"{place}.{name}" for name in names): p for names, p in parameters.items()}
    network = (NativeNetwork if family == "gat_ext" else Network)(*layers, dropout=case.dropout)
    adam = torch.optim.Adam(leaves.values(), lr=0.005, weight_decay=5e-4)
    return Program(network, (case.tensors["x"], graph_of(family, case)), leaves, adam.step)


def _dense_bytes(setting: Setting, nodes: int) -> int:
    return formulas.score_bytes(setting.heads + 1, nodes, DTYPES[setting.dtype].itemsize)


def _item(title: str, families: tuple[str, ...], *, wide: bool) -> Item:
    return Item(
        title=title,
        tensors=functools.partial(_tensors, wide),
        build={family: functools.partial(_program, wide, family) for family in families},
        rows={"x": "node", "out": "node"},
        local=False,
        gathers=0,
        dense_bytes=_dense_bytes,
        dropout=0.6,
        on_request=wide,
    )


_TITLE = "training epoch of a two-layer GAT"
ITEMS = {
    "gat_epoch": _item(_TITLE, ("gat_ext", "pyg", "dense", "dgl"), wide=False),
    "gat_epoch_wide": _item(f"{_TITLE}, all heads in both", ("gat_ext", "pyg"), wide=True),
}
