"""Layers: the attention operators with learned projections.

Constructor arguments, parameter names, results and, for a seed, initial weights are those of PyG's
layers of the same names, so a state_dict moves over unchanged; GATConv also takes those of older
versions, and :func:`gat_ext.interop.from_dgl` translates DGL's. WalkAgent is no such layer: it
walks.

Edges come as an edge_index [2, E], as a :class:`gat_ext.Graph`, or in any form of
:mod:`gat_ext.graph.formats`: ``EdgeIndex`` and ``SparseTensor`` of PyG, sparse matrices of torch
and SciPy, graphs of NetworkX and DGL. An edge_index is sorted once, until it is modified.

Attention weights come back with an edge_index [2, E']; those of a SparseTensor or a torch sparse
matrix as its values. Asked with False or None, all layers return the result alone. A COO matrix
that is not coalesced has an edge for each entry.

Uses ``functional``, ``graph`` and ``ops``. Offers the layers to everybody, and ``base`` to whoever
writes one; ``conv`` holds a file for each attention layer. The call that they share, from the
caller's inputs to PyG's results, is ``base.AttentionConv``.
"""

from __future__ import annotations

from gat_ext.nn.conv.agnn import AGNNConv
from gat_ext.nn.conv.gat import GATConv
from gat_ext.nn.conv.gatv2 import GATv2Conv
from gat_ext.nn.conv.transformer import TransformerConv
from gat_ext.nn.reordered import Reordered
from gat_ext.nn.walk_agent import WalkAgent

__all__ = ["AGNNConv", "GATConv", "GATv2Conv", "Reordered", "TransformerConv", "WalkAgent"]
