"""The graph that every operator takes: CSR by destination, its transpose, and the caller's edge order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gat_ext import _graph_io
from gat_ext._graph_csr import (
    block_diagonal,
    build_csr,
    check_edge_index,
    expand_rows,
    index_dtype_for,
    node_counts,
    row_pointers,
    scan,
)


class Transpose(NamedTuple):
    """The CSR by source of a graph.

    Attributes:
        rowptr: int64 ``[num_src + 1]``; source j owns the positions ``rowptr[j]`` to ``rowptr[j + 1]``.
        col: ``[E]``, the destination of each edge.
        pos: ``[E]``, the position of each edge in the CSR by destination; ascending within a source.
        edge_id: ``[E]``, the position of each edge in the caller's order; ``pos`` itself when the two orders agree.
    """

    rowptr: Tensor
    col: Tensor
    pos: Tensor
    edge_id: Tensor


class Graph:
    """A directed graph from ``num_src`` sources to ``num_dst`` destinations, stored as CSR by destination.

    Edge e goes from ``edge_index[0, e]`` to ``edge_index[1, e]``. Multi-edges and self-loops are kept. A tensor with one
    entry per edge is in the caller's order, the order of ``edge_index``, wherever it enters or leaves the package; the
    graph knows the permutation to CSR order. Indices are checked once, here. A graph is immutable and shares no memory with
    ``edge_index``.

    Args:
        edge_index: int32 or int64 ``[2, E]``; row 0 the sources, row 1 the destinations. Any device.
        num_nodes: number of nodes where sources and destinations are the same. Default: the largest index plus one.
        num_src: number of sources of a bipartite graph; needs ``num_dst``, excludes ``num_nodes``.
        num_dst: number of destinations of a bipartite graph.
        index_dtype: dtype of ``col`` and ``edge_id``. Default: int32 when the numbers of nodes and edges fit, else int64.

    Raises:
        TypeError: ``edge_index`` is not a dense int32 or int64 tensor; a count is not an int.
        ValueError: ``edge_index`` is not ``[2, E]``; counts contradict each other or are negative; ``index_dtype`` is not
            int32 or int64, or too narrow.
        IndexError: an index is negative, or not below its number of nodes.

    Example:
        >>> graph = Graph(torch.tensor([[0, 2, 1], [1, 1, 0]]), num_nodes=3)
        >>> graph
        Graph(num_nodes=3, num_edges=3, index_dtype=torch.int32, device='cpu')
        >>> graph.rowptr.tolist(), graph.col.tolist(), graph.edge_id.tolist()
        ([0, 1, 3, 3], [1, 0, 2], [2, 0, 1])
    """

    __slots__ = ("__weakref__", "_col", "_edge_id", "_num_src", "_rowptr", "_transpose")

    _rowptr: Tensor
    _col: Tensor
    _edge_id: Tensor | None
    _num_src: int
    _transpose: Transpose | None

    def __init__(
        self,
        edge_index: Tensor,
        num_nodes: int | None = None,
        *,
        num_src: int | None = None,
        num_dst: int | None = None,
        index_dtype: torch.dtype | None = None,
    ) -> None:
        check_edge_index(edge_index)
        with torch.inference_mode(False):
            edge_index = _graph_io.plain_tensor(edge_index)
            largest, is_sorted = scan(edge_index)
            num_src, num_dst = node_counts(edge_index, largest, num_nodes, num_src, num_dst)
            dtype = index_dtype_for(max(num_src, num_dst, edge_index.shape[1]), index_dtype)
            self._rowptr, self._col, self._edge_id = build_csr(edge_index, num_dst, is_sorted, dtype)
        self._num_src = num_src
        self._transpose = None

    @classmethod
    def _from_csr(
        cls,
        rowptr: Tensor,
        col: Tensor,
        edge_id: Tensor | None,
        num_src: int,
        transpose: Transpose | None = None,
    ) -> Graph:
        """A graph of parts that are known to be right."""
        graph = cls.__new__(cls)
        graph._rowptr, graph._col, graph._edge_id = rowptr, col, edge_id
        graph._num_src, graph._transpose = num_src, transpose
        return graph

    def _derive(self, edge_index: Tensor, num_src: int, num_dst: int) -> Graph:
        """A graph of other edges, whose index dtype is no narrower than that of this one."""
        dtype = torch.int64 if self.index_dtype == torch.int64 else None
        return Graph(edge_index, num_src=num_src, num_dst=num_dst, index_dtype=dtype)

    # ---- from other libraries

    @classmethod
    def _from_edges(cls, edges: _graph_io.Edges) -> Graph:
        edge_index, counts = edges
        return cls(edge_index) if counts is None else cls(edge_index, num_src=counts[0], num_dst=counts[1])

    @classmethod
    def from_scipy(cls, matrix: Any) -> Graph:
        """The graph of a SciPy sparse matrix ``[num_dst, num_src]``: a stored ``A[i, j]`` is an edge j -> i.

        So ``spmm`` with the weights ``A.data`` is ``A @ x``. Edges are in the order of ``A.tocoo()``; stored zeros and
        repeated entries are edges too.

        Raises:
            TypeError: not a sparse matrix.
        """
        return cls._from_edges(_graph_io.scipy_edges(matrix))

    @classmethod
    def from_torch_sparse(cls, matrix: Tensor) -> Graph:
        """The graph of a torch CSR or COO tensor ``[num_dst, num_src]``: a stored ``A[i, j]`` is an edge j -> i.

        Edges are in the order of the stored values. Entries of an uncoalesced tensor are multi-edges.

        Raises:
            TypeError: another layout.
            ValueError: not one matrix.
        """
        return cls._from_edges(_graph_io.torch_sparse_edges(matrix))

    @classmethod
    def from_networkx(cls, graph: Any) -> Graph:
        """The graph of a NetworkX graph, its nodes numbered in the order of ``graph.nodes``.

        An edge (u, v) is u -> v. Of an undirected graph the edges come first, then their other directions in the same
        order; a self-loop has one direction only.

        Raises:
            TypeError: not a NetworkX graph.
        """
        return cls._from_edges(_graph_io.networkx_edges(graph))

    @classmethod
    def from_pyg(cls, data: Any) -> Graph:
        """The graph of what PyTorch Geometric takes for one.

        ``data`` is a homogeneous ``Data``, an ``edge_index`` (tensor or ``EdgeIndex``), or a transposed adjacency matrix
        ``adj_t`` (``SparseTensor`` or torch sparse tensor) with a row for each destination.

        Raises:
            TypeError: nothing of these.
        """
        return cls._from_edges(_graph_io.pyg_edges(data))

    @classmethod
    def from_dgl(cls, graph: Any) -> Graph:
        """The graph of a DGL graph (DGL 1.1 or later) with one edge type, edges by edge id; a bipartite block too.

        Raises:
            TypeError: not a DGL graph.
        """
        return cls._from_edges(_graph_io.dgl_edges(graph))

    # ---- what a graph is

    @property
    def num_src(self) -> int:
        """Number of sources."""
        return self._num_src

    @property
    def num_dst(self) -> int:
        """Number of destinations."""
        return self._rowptr.shape[0] - 1

    @property
    def num_nodes(self) -> int:
        """Number of nodes.

        Raises:
            ValueError: the graph is bipartite with ``num_src != num_dst``.
        """
        if self.num_src != self.num_dst:
            raise ValueError(
                f"num_nodes is asked of a graph with num_src={self.num_src} and num_dst={self.num_dst}; "
                "it needs both to be equal: use num_src or num_dst"
            )
        return self.num_src

    @property
    def num_edges(self) -> int:
        """Number of edges, multi-edges counted each."""
        return self._col.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the index tensors lie."""
        return self._col.device

    @property
    def index_dtype(self) -> torch.dtype:
        """Dtype of ``col`` and ``edge_id``: int32 or int64."""
        return self._col.dtype

    @property
    def rowptr(self) -> Tensor:
        """int64 ``[num_dst + 1]``; destination i owns the CSR positions ``rowptr[i]`` to ``rowptr[i + 1]``."""
        return self._rowptr

    @property
    def col(self) -> Tensor:
        """``[E]``, the source of each edge in CSR order; within a destination, edges keep the caller's order."""
        return self._col

    @property
    def edge_id(self) -> Tensor | None:
        """``[E]``, the caller's position of each edge in CSR order; None when both orders are the same."""
        return self._edge_id

    @property
    def edge_index(self) -> Tensor:
        """int64 ``[2, E]`` in the caller's order; a new tensor at each access."""
        by_position = torch.stack([self._col.long(), expand_rows(self._rowptr, self.num_edges)])
        if self._edge_id is None:
            return by_position
        return torch.empty_like(by_position).index_copy_(1, self._edge_id.long(), by_position)

    def transpose(self) -> Transpose:
        """The CSR by source, built at the first call and kept.

        Example:
            >>> graph = Graph(torch.tensor([[1, 0, 1], [0, 1, 1]]))
            >>> graph.transpose().rowptr.tolist(), graph.transpose().col.tolist()
            ([0, 1, 3], [1, 0, 1])
        """
        if self._transpose is None:
            with torch.inference_mode(False):
                order = torch.sort(self._col, stable=True)
                pos = order.indices.to(self.index_dtype)
                self._transpose = Transpose(
                    rowptr=row_pointers(order.values, self.num_src),
                    col=expand_rows(self._rowptr, self.num_edges)[order.indices].to(self.index_dtype),
                    pos=pos,
                    edge_id=pos if self._edge_id is None else self._edge_id[order.indices],
                )
        return self._transpose

    def in_degrees(self) -> Tensor:
        """int64 ``[num_dst]``, the number of edges into each destination."""
        return self._rowptr.diff()

    def out_degrees(self) -> Tensor:
        """int64 ``[num_src]``, the number of edges out of each source."""
        if self._transpose is not None:
            return self._transpose.rowptr.diff()
        return torch.bincount(self._col, minlength=self.num_src)

    def __repr__(self) -> str:
        """The counts, the index dtype and the device."""
        square = self.num_src == self.num_dst
        nodes = f"num_nodes={self.num_src}" if square else f"num_src={self.num_src}, num_dst={self.num_dst}"
        return (
            f"Graph({nodes}, num_edges={self.num_edges}, "
            f"index_dtype={self.index_dtype}, device='{self.device}')"
        )

    # ---- other graphs from this one

    def to(self, device: torch.device | str | int) -> Graph:
        """This graph with its tensors, and its transpose if built, on ``device``; itself when they are there already."""
        target = torch.empty(0, device=device).device
        if target == self.device:
            return self

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(target)

        transpose = None
        if self._transpose is not None:
            rowptr, col, pos, edge_id = self._transpose
            moved = move(pos)
            transpose = Transpose(move(rowptr), move(col), moved, moved if edge_id is pos else move(edge_id))
        edge_id = None if self._edge_id is None else move(self._edge_id)
        return Graph._from_csr(move(self._rowptr), move(self._col), edge_id, self._num_src, transpose)

    def add_self_loops(self) -> Graph:
        """This graph with a loop at every node ``i < min(num_src, num_dst)`` that has none.

        The loops follow the existing edges, by ascending node; a node that has one loop or more gets no other.

        Example:
            >>> Graph(torch.tensor([[0, 1], [0, 0]])).add_self_loops().edge_index.tolist()
            [[0, 1, 1], [0, 0, 1]]
        """
        src, dst = edge_index = self.edge_index
        missing = torch.ones(min(self.num_src, self.num_dst), dtype=torch.bool, device=self.device)
        missing[src[src == dst]] = False
        loops = missing.nonzero().flatten()
        return self._derive(
            torch.cat([edge_index, torch.stack([loops, loops])], dim=1), self.num_src, self.num_dst
        )

    def remove_self_loops(self) -> Graph:
        """This graph without its loops; the other edges keep their order.

        A tensor with one entry per edge follows with ``src, dst = graph.edge_index; tensor[src != dst]``.

        Example:
            >>> Graph(torch.tensor([[0, 1], [0, 0]])).remove_self_loops().edge_index.tolist()
            [[1], [0]]
        """
        src, dst = edge_index = self.edge_index
        return self._derive(edge_index[:, src != dst], self.num_src, self.num_dst)

    def to_undirected(self) -> Graph:
        """This graph with the reverse ``v -> u`` of every edge ``u -> v`` for which there is no edge ``v -> u``.

        Existing edges, multi-edges included, come first and unchanged. The reverses follow in the order of the edges that
        lack one; each edge of a multi-edge gets its own. Nothing is merged.

        Raises:
            ValueError: the graph is bipartite with ``num_src != num_dst``.

        Example:
            >>> Graph(torch.tensor([[0, 1, 2], [1, 0, 1]])).to_undirected().edge_index.tolist()
            [[0, 1, 2, 1], [1, 0, 1, 2]]
        """
        num_nodes = self.num_nodes
        src, dst = edge_index = self.edge_index
        lonely = torch.isin(dst * num_nodes + src, src * num_nodes + dst, invert=True)
        return self._derive(
            torch.cat([edge_index, edge_index[:, lonely].flip(0)], dim=1), num_nodes, num_nodes
        )

    def reverse(self) -> Graph:
        """This graph with every edge turned round; the order of the edges stays.

        Example:
            >>> Graph(torch.tensor([[0], [2]]), num_src=1, num_dst=3).reverse()
            Graph(num_src=3, num_dst=1, num_edges=1, index_dtype=torch.int32, device='cpu')
        """
        return self._derive(self.edge_index.flip(0), self.num_dst, self.num_src)

    def reorder(self, method: str) -> tuple[Graph, Tensor]:
        """This graph with its nodes renumbered so that neighbours lie closer in memory; the order of the edges stays.

        Args:
            method: ``"degree"`` (in-degree, falling; equal degrees by node) or ``"rcm"`` (reverse Cuthill-McKee on the
                undirected pattern: Cuthill and McKee 1969; computed by SciPy on the host).

        Returns:
            The new graph, and int64 ``permutation`` ``[num_nodes]`` with the old number of each new node: node features
            follow with ``x[permutation]``, and results return with ``out_old[permutation] = out``.

        Raises:
            ValueError: unknown method, or ``num_src != num_dst``.
            ImportError: ``"rcm"`` without SciPy.

        Example:
            >>> star = Graph(torch.tensor([[0, 1, 3], [2, 2, 2]]), num_nodes=4)
            >>> reordered, permutation = star.reorder("degree")
            >>> permutation.tolist(), reordered.edge_index.tolist()
            ([2, 0, 1, 3], [[1, 2, 3], [0, 0, 0]])
        """
        num_nodes = self.num_nodes
        if method == "degree":
            permutation = torch.argsort(self.in_degrees(), descending=True, stable=True)
        elif method == "rcm":
            permutation = _graph_io.cuthill_mckee(self.edge_index, num_nodes)
        else:
            raise ValueError(f"unknown method {method!r} for reorder; choose one of 'degree', 'rcm'")
        new_number = torch.empty_like(permutation)
        new_number[permutation] = torch.arange(num_nodes, device=self.device)
        return self._derive(new_number[self.edge_index], num_nodes, num_nodes), permutation

    @staticmethod
    def batch(graphs: Sequence[Graph]) -> Graph:
        """The disjoint union of graphs: nodes and edges of each follow those of the one before (block diagonal).

        Raises:
            ValueError: no graph, or graphs on different devices.
            TypeError: something else than a Graph among them.

        Example:
            >>> edge = Graph(torch.tensor([[0], [1]]))
            >>> Graph.batch([edge, edge]).edge_index.tolist()
            [[0, 2], [1, 3]]
        """
        if len(graphs) == 0:
            raise ValueError("batch got no graph; expected at least one")
        for position, graph in enumerate(graphs):
            if not isinstance(graph, Graph):
                raise TypeError(f"batch got a {type(graph).__name__} at position {position}; expected a Graph")
        devices = sorted({str(graph.device) for graph in graphs})
        if len(devices) > 1:
            raise ValueError(f"batch got graphs on {', '.join(devices)}; move them to one with graph.to(device)")
        num_src = [graph.num_src for graph in graphs]
        sizes = (sum(num_src), sum(g.num_dst for g in graphs), sum(g.num_edges for g in graphs))
        wide = any(graph.index_dtype == torch.int64 for graph in graphs)
        dtype = index_dtype_for(max(sizes), torch.int64 if wide else None)
        with torch.inference_mode(False):
            blocks = [(graph._rowptr, graph._col, graph._edge_id) for graph in graphs]
            return Graph._from_csr(*block_diagonal(blocks, num_src, dtype), sizes[0])
