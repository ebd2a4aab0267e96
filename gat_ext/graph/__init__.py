"""Graphs, sorted by destination.

Uses ``ops``, only to build graphs. :class:`gat_ext.Graph` is public; ``functional`` and ``nn`` also
use ``traced`` (graphs inside torch.compile and torch.func), ``protocol`` (the interface of both
kinds), ``self_loops``, ``formats`` (edges of other libraries, one file for each) and ``cache``
(results computed from edges and features).
"""

from gat_ext.graph import pytree  # noqa: F401  registers Graph
from gat_ext.graph.csr import Transpose
from gat_ext.graph.graph import Graph
from gat_ext.graph.order import ORDERS

__all__ = ["ORDERS", "Graph", "Transpose"]
