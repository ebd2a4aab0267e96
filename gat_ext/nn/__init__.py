"""Layers: the attention operators with learned projections.

Constructor arguments, parameter names, results and, for a seed, initial weights are those of PyG's layers of the same names, so a
state_dict moves over unchanged; GATConv also takes those of older versions, and :func:`gat_ext.interop.from_dgl` translates
DGL's. WalkAgent is no such layer: it walks.

Edges come in any of these forms, none of whose libraries is needed:

==============================================  ==================================================================================
edge_index [2, E], PyG's ``EdgeIndex``          sources, destinations; sorted once, for as long as the tensor is not written to
:class:`gat_ext.Graph`                          sorted when it was made
``SparseTensor``, torch sparse (COO, CSR, CSC)  a row for each destination, as PyG's ``adj_t``; values of more than one dimension
                                                (of a SparseTensor: any) stand for edge_attr where the layer has edge_dim
SciPy sparse matrix                             [N_dst, N_src]; read at every call
NetworkX graph                                  u -> v, nodes in the order of ``graph.nodes``; read at every call
DGL graph or block                              by edge id; for a block x may be the features of its sources; read at every call
==============================================  ==================================================================================

Attention weights come back with an edge_index [2, E']; those of a SparseTensor or a torch sparse matrix as its values. Asked with
False or None, all layers return the result alone. A COO matrix that is not coalesced has an edge for each entry.

Uses ``functional``, ``graph`` and ``ops``. Offers the layers to everybody, and ``base`` to whoever writes one; ``conv`` holds
a file for each attention layer. The call that they share, from the caller's inputs to PyG's results,
is ``base.AttentionConv``.
"""

from __future__ import annotations

from gat_ext.nn.conv.agnn import AGNNConv
from gat_ext.nn.conv.gat import GATConv
from gat_ext.nn.conv.gatv2 import GATv2Conv
from gat_ext.nn.conv.transformer import TransformerConv
from gat_ext.nn.reordered import Reordered
from gat_ext.nn.walk_agent import WalkAgent

__all__ = ["AGNNConv", "GATConv", "GATv2Conv", "Reordered", "TransformerConv", "WalkAgent"]
