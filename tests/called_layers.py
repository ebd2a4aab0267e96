"""Layers whose calls have other arguments, called as the other layers, for the table of layers."""

from __future__ import annotations

from typing import Any

import torch

from gat_ext import Graph, nn
from gat_ext.nn.linear import linear


class FAConv(nn.FAConv):
    """Called as the other layers, x as its own x_0; :mod:`test_fa` calls it as it is."""

    def forward(  # type: ignore[override]
        self,
        x: Any,
        edge_index: Any,
        return_attention_weights: Any = None,
        *,
        edge_mask: Any = None,
        edge_weight: Any = None,
    ) -> Any:
        options = edge_weight, return_attention_weights
        return super().forward(x, x, edge_index, *options, edge_mask=edge_mask)


class HANConv(nn.HANConv):
    """Called as the other layers: two relations with the given edges; see :mod:`test_han`."""

    def __init__(self, in_channels: int, out_channels: int, heads: int = 1, **options: Any) -> None:
        metadata = ["node"], [("node", "to", "node"), ("node", "from", "node")]
        super().__init__(in_channels, heads * out_channels, metadata, heads, **options)

    def forward(self, x: Any, edge_index: Any) -> Any:  # type: ignore[override]
        return super().forward({"node": x}, dict.fromkeys(self.metadata[1], edge_index))["node"]


def first_channels(x: Any) -> Any:
    """The first three of dense features."""
    return x[..., :3] if isinstance(x, torch.Tensor) and x.layout == torch.strided else x


class PointTransformerConv(nn.PointTransformerConv):
    """Called as the other layers: positions are features; see :mod:`test_point_transformer`."""

    def __init__(
        self,
        in_channels: Any,
        out_channels: int,
        heads: int = 1,
        nonlinear: bool = False,
        **options: Any,
    ) -> None:
        size = heads * out_channels
        if nonlinear:
            # Not a Linear of torch, whose gradients may depend on the number of threads.
            first = linear(3, size, bias=True, glorot=False)
            options["pos_nn"] = torch.nn.Sequential(first, torch.nn.Tanh())
        super().__init__(in_channels, size, **options)

    def forward(  # type: ignore[override]
        self,
        x: Any,
        edge_index: Any,
        return_attention_weights: Any = None,
        *,
        edge_mask: Any = None,
        edge_weight: Any = None,
    ) -> Any:
        options = {"return_attention_weights": return_attention_weights, "edge_mask": edge_mask}
        pos = tuple(map(first_channels, x)) if isinstance(x, tuple) else first_channels(x)
        return super().forward(x, pos, edge_index, edge_weight=edge_weight, **options)


class HGTConv(nn.HGTConv):
    """Called as the other layers, on one type of nodes and one relation; :mod:`test_hgt` has more.

    ``out_channels`` is the size of a head.
    """

    relation = ("node", "to", "node")

    def __init__(self, in_channels: Any, out_channels: int, heads: int = 1) -> None:
        super().__init__(in_channels, heads * out_channels, (["node"], [self.relation]), heads)

    def forward(  # type: ignore[override]
        self,
        x: Any,
        edge_index: Any,
        return_attention_weights: Any = None,
        *,
        edge_mask: Any = None,
        edge_weight: Any = None,
    ) -> Any:
        masks = [None if m is None else {self.relation: m} for m in (edge_mask, edge_weight)]
        options = {"edge_mask": masks[0], "edge_weight": masks[1]}
        asked = return_attention_weights
        edges = {self.relation: edge_index}
        out = super().forward({"node": x}, edges, return_attention_weights=asked, **options)
        if not asked:
            return out["node"]
        given = edge_index.edge_index if isinstance(edge_index, Graph) else edge_index
        return out[0]["node"], (given, out[1][self.relation])
