"""Graphs: what a destination attends to, sorted once.

Uses ``ops`` for native building only. Offers :class:`Graph` to everybody; to ``functional`` and
``nn`` also ``traced`` (graphs inside torch.compile and torch.func), ``protocol`` (what both kinds
have), ``self_loops``, ``formats`` (edges of other libraries, a file each) and ``cache`` (what was
computed from edges and features).
"""

from gat_ext.graph.csr import Transpose
from gat_ext.graph.graph import Graph
from gat_ext.graph.order import ORDERS

__all__ = ["ORDERS", "Graph", "Transpose"]
