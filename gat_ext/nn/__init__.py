"""Layers: the attention operators with learned projections.

Constructor arguments, parameter names and results are those of PyG's layers of the same names, so
a state_dict moves over unchanged. Each accepts a :class:`gat_ext.Graph`, which sorts its edges
once, or an edge_index, which is sorted at every call. WalkAgent is no such layer: it walks.
"""

from __future__ import annotations

from gat_ext.nn.agnn_conv import AGNNConv
from gat_ext.nn.gat_conv import GATConv
from gat_ext.nn.gatv2_conv import GATv2Conv
from gat_ext.nn.reordered import Reordered
from gat_ext.nn.transformer_conv import TransformerConv
from gat_ext.nn.walk_agent import WalkAgent

__all__ = ["AGNNConv", "GATConv", "GATv2Conv", "Reordered", "TransformerConv", "WalkAgent"]
