"""Graph: CSR by destination, its transpose, and the caller's edge order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gat_ext.graph import csr, order
from gat_ext.graph.conversions import Conversions
from gat_ext.graph.csr import Transpose
from gat_ext.graph.display import Display
from gat_ext.graph.formats.edge_index import plain_tensor
from gat_ext.graph.order import ORDERS
from gat_ext.graph.streams import Ready, ready
from gat_ext.ops.scatter import expand_rows
from gat_ext.ops.state import is_capturing, is_tracing

__all__ = ["ORDERS", "Graph", "Transpose"]


class Graph(Display, Conversions):
    """A directed graph from ``num_src`` sources to ``num_dst`` destinations, CSR by destination.

    Edge e goes from ``edge_index[0, e]`` to ``edge_index[1, e]``. Multi-edges and self-loops are
    kept. Tensors with one entry per edge are in the caller's order, that of ``edge_index``, in all
    public functions; the graph holds the permutation to CSR order. The constructor checks all
    indices. A graph is immutable and shares no memory with ``edge_index``.

    Args:
        edge_index: int32 or int64 ``[2, E]``: sources, then destinations. Any device.
        num_nodes: number of nodes, if sources and destinations are the same nodes. Default: the
            largest index plus one.
        num_src: number of sources of a bipartite graph; requires ``num_dst``, not ``num_nodes``.
        num_dst: number of destinations of a bipartite graph.
        index_dtype: dtype of ``col`` and ``edge_id``. Default: int32 if the numbers of nodes and
            edges fit, else int64.

    Raises:
        TypeError: ``edge_index`` is not a dense int32 or int64 tensor, or a count is not an int.
        ValueError: ``edge_index`` is not ``[2, E]``; a count is negative, or the combination of
            counts is invalid; ``index_dtype`` is not int32 or int64, or too narrow.
        IndexError: an index is out of range.

    Example:
        >>> graph = Graph(torch.tensor([[0, 2, 1], [1, 1, 0]]), num_nodes=3)
        >>> graph
        Graph(num_nodes=3, num_edges=3, index_dtype=torch.int32, device='cpu')
        >>> graph.rowptr.tolist(), graph.col.tolist(), graph.edge_id.tolist()
        ([0, 1, 3, 3], [1, 0, 2], [2, 0, 1])
    """

    __slots__ = (
        *("__weakref__", "_col", "_edge_id", "_edge_number", "_largest", "_num_src"),
        *("_rowptr", "_transpose"),
    )

    _rowptr: Tensor
    _col: Tensor
    _edge_id: Tensor | None
    _edge_number: Tensor | None
    _num_src: int
    # With the Ready of one that a call built. One object, because threads may replace it.
    _transpose: tuple[Transpose, Ready | None] | None
    _largest: tuple[bool, Tensor] | None  # of degrees.largest_degrees

    def __init__(
        self,
        edge_index: Tensor,
        num_nodes: int | None = None,
        *,
        num_src: int | None = None,
        num_dst: int | None = None,
        index_dtype: torch.dtype | None = None,
    ) -> None:
        """Checks the edges and sorts them by destination."""
        csr.check_edge_index(edge_index)
        self._transpose = self._edge_number = self._largest = None
        if torch.compiler.is_compiling():
            counts = csr.traced_counts(num_nodes, num_src, num_dst)
            parts = csr.adjacency_csr((edge_index, None, None), counts, index_dtype)[0]
            (self._rowptr, self._col, self._edge_id), self._num_src = parts, counts[0]
            return
        # Inference tensors could not be saved for a later backward.
        with torch.inference_mode(False):
            edge_index = plain_tensor(edge_index)
            largest, is_sorted = csr.scan(edge_index)
            num_src, num_dst = csr.node_counts(edge_index, largest, num_nodes, num_src, num_dst)
            dtype = csr.index_dtype_for(max(num_src, num_dst, edge_index.shape[1]), index_dtype)
            parts = csr.build_csr(edge_index, num_dst, is_sorted, dtype)
        self._rowptr, self._col, self._edge_id = parts
        self._num_src = num_src

    @classmethod
    def _from_csr(cls, parts: csr.Csr, num_src: int, transpose: Transpose | None = None) -> Graph:
        """A graph of checked parts."""
        graph = cls.__new__(cls)
        graph._rowptr, graph._col, graph._edge_id = parts
        graph._num_src = num_src
        graph._transpose = None if transpose is None else (transpose, None)
        graph._edge_number = graph._largest = None
        return graph

    def _numbered(self, numbers: Tensor) -> Graph:
        """This graph with ``edge_number``."""
        graph = Graph._from_csr((self._rowptr, self._col, self._edge_id), self._num_src)
        graph._transpose, graph._edge_number = self._transpose, numbers
        return graph

    def _derive(self, edge_index: Tensor, num_src: int, num_dst: int) -> Graph:
        """A graph of other edges, whose index dtype is not narrower than this graph's."""
        dtype = torch.int64 if self.index_dtype == torch.int64 else None
        return Graph(edge_index, num_src=num_src, num_dst=num_dst, index_dtype=dtype)

    def _held_tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors of the graph itself; those of the transpose have their own Ready."""
        return self._rowptr, self._col, self._edge_id, self._edge_number

    # ---- properties

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
        """Number of nodes; raises ValueError if ``num_src != num_dst``."""
        if self.num_src != self.num_dst:
            raise ValueError(
                f"the graph has num_src={self.num_src} and num_dst={self.num_dst}; num_nodes "
                "expects them to be equal: use num_src or num_dst"
            )
        return self.num_src

    @property
    def num_edges(self) -> int:
        """Number of edges; each edge of a multi-edge counts."""
        return self._col.shape[0]

    @property
    def device(self) -> torch.device:
        """The device of the index tensors."""
        return self._col.device

    @property
    def index_dtype(self) -> torch.dtype:
        """Dtype of ``col`` and ``edge_id``: int32 or int64."""
        return self._col.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the index tensors, including the transpose, even if it is not built yet."""
        index = self._col.element_size()
        copies = 3 if self._edge_id is None else 5
        rows = self.num_src + self.num_dst + 2
        return rows * self._rowptr.element_size() + copies * self.num_edges * index

    @property
    def rowptr(self) -> Tensor:
        """int64 ``[num_dst + 1]``; destination i owns CSR positions ``rowptr[i]:rowptr[i + 1]``."""
        return self._rowptr

    @property
    def col(self) -> Tensor:
        """``[E]``, the source of each edge in CSR order: by destination, then by caller's order."""
        return self._col

    @property
    def edge_id(self) -> Tensor | None:
        """``[E]``, the caller's position of each edge in CSR order; None if the orders agree."""
        return self._edge_id

    @property
    def edge_number(self) -> Tensor | None:
        """int64 ``[E]``, the number of each edge in the draws of dropout; None: its position.

        Part of a larger graph, in which the edges have these numbers, draws as that graph does.
        """
        return self._edge_number

    @property
    def edge_index(self) -> Tensor:
        """int64 ``[2, E]`` in the caller's order; a new tensor at each access."""
        rows = expand_rows(self._rowptr, self.num_edges)
        by_position = torch.stack([self._col.long(), rows])
        if self._edge_id is None:
            return by_position
        return torch.empty_like(by_position).index_copy_(1, self._edge_id.long(), by_position)

    def transpose(self) -> Transpose:
        """The CSR by source, built at the first call and cached.

        It may be used on any CUDA stream. A compiled program given a graph without it, and the
        replays of a captured CUDA graph, build it each time.

        Example:
            >>> graph = Graph(torch.tensor([[1, 0, 1], [0, 1, 1]]))
            >>> graph.transpose().rowptr.tolist(), graph.transpose().col.tolist()
            ([0, 1, 3], [1, 0, 1])
        """
        if self._transpose is not None:
            transpose, when = self._transpose
            if when is not None:
                when.use(transpose)
            return transpose
        parts = self._rowptr, self._col, self._edge_id, self._num_src
        if is_tracing():  # the result is a part of the program
            return csr.build_transpose(*parts)
        with torch.inference_mode(False):
            transpose = csr.build_transpose(*parts)
        if not is_capturing(self):
            self._transpose = transpose, ready(transpose)
        return transpose

    def in_degrees(self) -> Tensor:
        """int64 ``[num_dst]``, the number of edges into each destination."""
        return self._rowptr.diff()

    def out_degrees(self) -> Tensor:
        """int64 ``[num_src]``, the number of edges out of each source."""
        if self._transpose is not None:
            return self.transpose().rowptr.diff()
        return torch.bincount(self._col, minlength=self._num_src)

    def __repr__(self) -> str:
        """The counts, the index dtype and the device."""
        n, m = self.num_src, self.num_dst
        counts = f"num_nodes={n}" if n == m else f"num_src={n}, num_dst={m}"
        return (
            f"Graph({counts}, num_edges={self.num_edges}, "
            f"index_dtype={self.index_dtype}, device='{self.device}')"
        )

    # ---- other graphs from this one

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> Graph:
        """This graph, with its transpose if built, on ``device``; itself if already there.

        ``non_blocking`` is that of :meth:`torch.Tensor.to`, for a graph in pinned memory.

        Raises:
            TypeError, ValueError: ``device`` is not a device.
        """
        target = torch.empty(0, device=csr.device_of(device)).device
        if target == self.device:
            return self
        return self._map(lambda tensor: tensor.to(target, non_blocking=non_blocking))

    def pin_memory(self) -> Graph:
        """This graph, with its transpose if built, in page-locked memory.

        ``to(device, non_blocking=True)`` copies from there to a GPU while the program continues. A
        ``torch.utils.data.DataLoader`` with ``pin_memory=True`` calls this method.

        Raises:
            RuntimeError: no GPU, or the graph is on one, as :meth:`torch.Tensor.pin_memory`.

        Example:
            >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
            >>> if torch.cuda.is_available():
            ...     graph = graph.pin_memory().to("cuda", non_blocking=True)
        """
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Graph:
        """A graph of changed tensors of the same values."""
        with torch.inference_mode(False):
            edge_id = None if self._edge_id is None else change(self._edge_id)
            parts = change(self._rowptr), change(self._col), edge_id
            transpose = None
            if self._transpose is not None:
                *others, order = self.transpose()
                rowptr, col, pos = map(change, others)
                transpose = Transpose(rowptr, col, pos, pos if edge_id is None else change(order))
        graph = Graph._from_csr(parts, self._num_src, transpose)
        if self._edge_number is not None:
            graph._edge_number = change(self._edge_number)
        return graph

    def subgraph(self, nodes: Tensor | Sequence[int]) -> tuple[Graph, Tensor]:
        """The edges between some of the nodes, which are numbered anew in the given order.

        Args:
            nodes: distinct nodes, int64 or int32 ``[M]``, or a bool mask ``[num_nodes]``.

        Returns:
            The graph of M nodes, whose edges keep their order, and int64 ``[E']``, their positions
            among this graph's edges: its features are ``x[nodes]`` and ``edge_attr[positions]``.

        Raises:
            TypeError: ``nodes`` are not integers or booleans.
            ValueError: ``num_src != num_dst``, a wrong shape, or a node that occurs twice.
            IndexError: a node is out of range.

        Example:
            >>> graph = Graph(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 1]]))
            >>> part, positions = graph.subgraph([3, 1, 0])
            >>> part.edge_index.tolist(), positions.tolist()
            ([[2, 0], [1, 1]], [0, 3])
        """
        number = csr.new_numbers(nodes, self.num_nodes, self.device)
        edge_index = number[self.edge_index]
        positions = (edge_index >= 0).all(dim=0).nonzero().flatten()
        count = int((number >= 0).sum())
        return self._derive(edge_index[:, positions], count, count), positions

    def add_self_loops(self) -> Graph:
        """Appends a self-loop for each ``i < min(num_src, num_dst)`` without one, by ascending i.

        Example:
            >>> Graph(torch.tensor([[0, 1], [0, 0]])).add_self_loops().edge_index.tolist()
            [[0, 1, 1], [0, 0, 1]]
        """
        src, dst = edge_index = self.edge_index
        missing = torch.ones(min(self.num_src, self.num_dst), dtype=torch.bool, device=self.device)
        missing[src[src == dst]] = False
        loops = missing.nonzero().t().expand(2, -1)
        return self._derive(torch.cat([edge_index, loops], dim=1), self.num_src, self.num_dst)

    def remove_self_loops(self) -> Graph:
        """Removes self-loops; the other edges keep their order.

        Filter a tensor with one entry per edge by ``src, dst = graph.edge_index`` and
        ``tensor[src != dst]``.

        Example:
            >>> Graph(torch.tensor([[0, 1], [0, 0]])).remove_self_loops().edge_index.tolist()
            [[1], [0]]
        """
        src, dst = edge_index = self.edge_index
        return self._derive(edge_index[:, src != dst], self.num_src, self.num_dst)

    def to_undirected(self) -> Graph:
        """Adds the missing reverse edges: v -> u for every u -> v without any v -> u.

        They follow the existing edges in order; a multi-edge gets one for each of its edges.

        Raises:
            ValueError: ``num_src != num_dst``.

        Example:
            >>> Graph(torch.tensor([[0, 1, 2], [1, 0, 1]])).to_undirected().edge_index.tolist()
            [[0, 1, 2, 1], [1, 0, 1, 2]]
        """
        num_nodes = self.num_nodes
        src, dst = edge_index = self.edge_index
        one_way = torch.isin(dst * num_nodes + src, src * num_nodes + dst, invert=True)
        reverses = edge_index[:, one_way].flip(0)
        return self._derive(torch.cat([edge_index, reverses], dim=1), num_nodes, num_nodes)

    def reverse(self) -> Graph:
        """Reverses every edge; edges keep their order.

        Example:
            >>> Graph(torch.tensor([[0], [2]]), num_src=1, num_dst=3).reverse()
            Graph(num_src=3, num_dst=1, num_edges=1, index_dtype=torch.int32, device='cpu')
        """
        return self._derive(self.edge_index.flip(0), self.num_dst, self.num_src)

    def reorder(self, method: str) -> tuple[Graph, Tensor]:
        """Renumbers the nodes so that neighbours are closer in memory.

        :class:`gat_ext.nn.Reordered` moves features and results between the two numberings.

        Args:
            method: one of ``ORDERS``. ``"degree"``: by decreasing in-degree, then by node.
                ``"rcm"``: reverse Cuthill-McKee (Cuthill and McKee 1969), for meshes, road networks
                and other graphs of large diameter. ``"community"``: one community (Louvain: Blondel
                et al. 2008) after the other, connected ones close together, for clustered graphs.
                The last two treat edges as undirected, run on the host, and are deterministic.

        Returns:
            The new graph, with edges in the same order, and int64 ``permutation`` ``[num_nodes]``,
            the old number of each new node: new features are ``x[permutation]``, and
            ``out_old[permutation] = out`` restores the old order.

        Raises:
            ValueError: unknown method, or ``num_src != num_dst``.
            ImportError: ``"rcm"`` without SciPy, ``"community"`` without scikit-network.

        Example:
            >>> star = Graph(torch.tensor([[0, 1, 3], [2, 2, 2]]), num_nodes=4)
            >>> reordered, permutation = star.reorder("degree")
            >>> permutation.tolist(), reordered.edge_index.tolist()
            ([2, 0, 1, 3], [[1, 2, 3], [0, 0, 0]])
        """
        num_nodes, edge_index = self.num_nodes, self.edge_index
        permutation = order.node_order(method, edge_index, num_nodes)
        new_edges = order.inverse(permutation)[edge_index]
        return self._derive(new_edges, num_nodes, num_nodes), permutation

    @staticmethod
    def batch(graphs: Sequence[Graph]) -> Graph:
        """The disjoint union of graphs, block diagonal, with concatenated nodes and edges.

        Raises:
            ValueError: no graph, or graphs on different devices.
            TypeError: an element is not a Graph.

        Example:
            >>> edge = Graph(torch.tensor([[0], [1]]))
            >>> Graph.batch([edge, edge]).edge_index.tolist()
            [[0, 2], [1, 3]]
        """
        csr.check_batch(graphs, Graph)
        num_src = [graph.num_src for graph in graphs]
        sizes = (sum(num_src), sum(g.num_dst for g in graphs), sum(g.num_edges for g in graphs))
        wide = any(graph.index_dtype == torch.int64 for graph in graphs)
        dtype = csr.index_dtype_for(max(sizes), torch.int64 if wide else None)
        with torch.inference_mode(False):
            blocks = [(graph._rowptr, graph._col, graph._edge_id) for graph in graphs]
            return Graph._from_csr(csr.block_diagonal(blocks, num_src, dtype), sizes[0])
