"""Layers: the attention operators with learned projections.

Constructor arguments, parameter names, results and, for a given seed, initial weights are those of
PyG's layers of the same names, so a state_dict loads unchanged; GATConv also loads those of older
versions, and :func:`gat_ext.interop.from_dgl` translates DGL's. AttentionPool loads the state_dict
of PyG's AttentionalAggregation, and Pool is its global_add_pool, global_mean_pool and
global_max_pool. EdgeGATConv is DGL's. WalkAgent has no counterpart in PyG.

HGTConv takes dictionaries, of features by node type and of edges by relation.

Edges come as an edge_index [2, E], as a :class:`gat_ext.Graph`, or in any form of
:mod:`gat_ext.graph.formats`: ``EdgeIndex`` and ``SparseTensor`` of PyG, sparse matrices of torch
and SciPy, graphs of NetworkX and DGL. An edge_index is sorted once, until it is modified.

With ``return_attention_weights=True`` the weights are returned with an edge_index [2, E'], or as
the values of a SparseTensor or a torch sparse matrix if the edges were given as one; with False or
None, all layers return the result alone. A COO matrix that is not coalesced has an edge for each
entry.

Uses ``functional``, ``graph`` and ``ops``. ``conv`` holds a file for each attention layer;
``base.AttentionConv`` is their base class and implements the call, from the caller's inputs to
PyG's results.
"""

from __future__ import annotations

from gat_ext.nn.conv.agnn import AGNNConv
from gat_ext.nn.conv.edge_gat import EdgeGATConv
from gat_ext.nn.conv.fa import FAConv
from gat_ext.nn.conv.gat import GATConv
from gat_ext.nn.conv.gatv2 import GATv2Conv
from gat_ext.nn.conv.han import HANConv
from gat_ext.nn.conv.heat import HEATConv
from gat_ext.nn.conv.hgt import HGTConv
from gat_ext.nn.conv.point_transformer import PointTransformerConv
from gat_ext.nn.conv.rgat import RGATConv
from gat_ext.nn.conv.supergat import SuperGATConv
from gat_ext.nn.conv.transformer import TransformerConv
from gat_ext.nn.pool import AttentionPool, Pool
from gat_ext.nn.reordered import Reordered
from gat_ext.nn.walk_agent import WalkAgent

__all__ = [
    "AGNNConv",
    "AttentionPool",
    "EdgeGATConv",
    "FAConv",
    "GATConv",
    "GATv2Conv",
    "HANConv",
    "HEATConv",
    "HGTConv",
    "PointTransformerConv",
    "Pool",
    "RGATConv",
    "Reordered",
    "SuperGATConv",
    "TransformerConv",
    "WalkAgent",
]
