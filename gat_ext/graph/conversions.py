"""The methods of Graph that read and write graphs of other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from gat_ext.graph.formats import (
    Edges,
    dgl_graph,
    networkx_graph,
    pyg,
    scipy_sparse,
    torch_sparse,
)
from gat_ext.graph.protocol import SortedGraph

if TYPE_CHECKING:
    from gat_ext.graph.graph import Graph


class Conversions:
    """Base class of Graph; ``formats`` has a file for each library, with both directions."""

    __slots__ = ()

    @classmethod
    def _from_edges(cls, edges: Edges) -> Graph:
        edge_index, counts = edges
        num_src, num_dst = counts or (None, None)
        make: Any = cls
        graph: Graph = make(edge_index, num_src=num_src, num_dst=num_dst)
        return graph

    @classmethod
    def from_scipy(cls, matrix: Any) -> Graph:
        """The graph of a SciPy sparse matrix ``[num_dst, num_src]``: A[i, j] is an edge j -> i.

        So ``spmm`` with weights ``A.data`` is ``A @ x``. Edges are in the order of ``A.tocoo()``;
        stored zeros and repeated entries are edges, too.

        Raises:
            TypeError: not a sparse matrix.
            ValueError: not two dimensions, or row or column pointers that are not valid.
            IndexError: an index is out of range.
        """
        return cls._from_edges(scipy_sparse.scipy_edges(matrix))

    @classmethod
    def from_torch_sparse(cls, matrix: Tensor) -> Graph:
        """The graph of a CSR, CSC or COO tensor ``[num_dst, num_src]``: A[i, j] is an edge j -> i.

        Edges are in the order of the stored values; an uncoalesced tensor has multi-edges.

        Raises:
            TypeError: another layout.
            ValueError: not one matrix, or row or column pointers that are not valid.
            IndexError: an index is out of range.
        """
        return cls._from_edges(torch_sparse.torch_sparse_edges(matrix))

    @classmethod
    def from_networkx(cls, graph: Any) -> Graph:
        """The graph of a NetworkX graph; nodes are numbered in the order of ``graph.nodes``.

        An edge (u, v) is u -> v. For an undirected graph, the reverses follow in the same order,
        without those of self-loops.

        Raises:
            TypeError: not a NetworkX graph.
        """
        return cls._from_edges(networkx_graph.networkx_edges(graph))

    @classmethod
    def from_pyg(cls, data: Any) -> Graph:
        """The graph of an object of PyTorch Geometric.

        ``data`` is a homogeneous ``Data``, an ``edge_index`` (tensor or ``EdgeIndex``), or an
        ``adj_t`` (``SparseTensor`` or torch sparse tensor) with a row for each destination.

        Raises:
            TypeError: none of these.
        """
        return cls._from_edges(pyg.pyg_edges(data))

    @classmethod
    def from_dgl(cls, graph: Any) -> Graph:
        """The graph of a DGL graph or block (1.1 or later) with one edge type; edges by edge id.

        Raises:
            TypeError: not a DGL graph.
        """
        return cls._from_edges(dgl_graph.dgl_edges(graph))

    def to_scipy(self: SortedGraph, weights: Tensor | None = None) -> Any:
        """A SciPy ``csr_array`` ``[num_dst, num_src]``: an edge j -> i is an entry A[i, j].

        ``A @ x`` is ``spmm`` with these weights. Entries are in CSR order, by destination, then in
        the order of the edges; the k-th entry is the edge ``edge_id[k]``, or k if ``edge_id`` is
        None. Multi-edges are repeated entries, which SciPy's operations sum. ``from_scipy``
        reads the edges in the order of the entries. The matrix shares no memory with the graph and
        has no gradients.

        Args:
            weights: numbers ``[E]`` in the order of the edges, not of a 16-bit float dtype, which
                SciPy lacks. Default: float32 ones.

        Raises:
            TypeError: ``weights`` is not a tensor, or has a dtype that SciPy lacks.
            ValueError: ``weights`` is not ``[E]``.
            ImportError: SciPy is missing.

        Example:
            >>> graph = Graph(torch.tensor([[0, 2, 1], [1, 1, 0]]), num_nodes=3)
            >>> graph.to_scipy(torch.tensor([1.0, 2.0, 3.0])).toarray().tolist()
            [[0.0, 3.0, 0.0], [1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]
        """
        return scipy_sparse.to_scipy(self, weights)

    def to_networkx(self: SortedGraph) -> Any:
        """A NetworkX ``DiGraph`` of the nodes 0 to N - 1, or a ``MultiDiGraph`` with multi-edges.

        Its edges, as ``from_networkx`` reads them, are by source, then by destination, then in the
        order of this graph: the k-th one is the edge ``transpose().edge_id[k]``.

        Raises:
            ValueError: ``num_src != num_dst``.
            ImportError: NetworkX is missing.

        Example:
            >>> graph = Graph(torch.tensor([[2, 0, 0], [0, 2, 1]]))
            >>> list(graph.to_networkx().edges)
            [(0, 1), (0, 2), (2, 0)]
        """
        return networkx_graph.to_networkx(self)

    def to_pyg(self: SortedGraph) -> Any:
        """A ``Data`` of PyTorch Geometric with ``edge_index`` and ``num_nodes``.

        Raises:
            ValueError: ``num_src != num_dst``.
            ImportError: PyTorch Geometric is missing.

        Example:
            >>> Graph(torch.tensor([[2, 0], [0, 1]]), num_nodes=4).to_pyg()
            Data(edge_index=[2, 2], num_nodes=4)
        """
        return pyg.to_pyg(self)
