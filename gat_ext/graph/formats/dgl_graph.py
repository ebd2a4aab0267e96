"""Graphs and blocks of DGL."""

from __future__ import annotations

from typing import Any

import torch

from gat_ext.graph.formats.form import Edges, Form


def is_dgl(value: Any) -> bool:
    """True for a graph or a block of DGL."""
    return hasattr(value, "num_src_nodes") and hasattr(value, "num_dst_nodes")


def dgl_edges(graph: Any) -> Edges:
    """Edges of a DGL graph (1.1 or later) with one edge type, in the order of its edge ids."""
    if not is_dgl(graph):
        raise TypeError(
            f"from_dgl got a {type(graph).__name__}; expected a dgl.DGLGraph with one edge type"
        )
    src, dst = graph.edges()
    return torch.stack([src, dst]), (int(graph.num_src_nodes()), int(graph.num_dst_nodes()))


def _num_first(graph: Any) -> int | None:
    is_block = getattr(graph, "is_block", False) is True
    return int(graph.num_dst_nodes()) if is_block else None


FORM = Form("a DGL graph or block", is_dgl, dgl_edges, constructor="from_dgl", num_first=_num_first)
