"""Graphs: what a destination attends to, sorted once.

Uses ``ops`` for native building only. Offers :class:`Graph` to everybody; to ``functional`` and ``nn`` also
``traced`` (graphs inside torch.compile and torch.func), ``formats`` (edges of other libraries) and ``cache``
(what was computed from a tensor of edges).
"""

from gat_ext.graph.csr import Transpose
from gat_ext.graph.graph import Graph
from gat_ext.graph.order import ORDERS

__all__ = ["ORDERS", "Graph", "Transpose"]
