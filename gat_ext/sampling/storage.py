"""MappedGraph: a graph in files, of which only what is read takes memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gat_ext.graph import Graph

if TYPE_CHECKING:
    from typing_extensions import Self

_PARTS = ("rowptr", "col", "edge_id")


class MappedGraph:
    """A graph by its CSR by destination, such as memory-mapped arrays.

    Building it reads two numbers. Samplers check every row and every edge that they read; operators
    and layers, which do not, take a Graph only: see :meth:`load`.

    Args:
        rowptr: int64 [N + 1]; node i owns the positions from ``rowptr[i]`` up to ``rowptr[i + 1]``.
        col: int32 or int64 [E], the source of each edge by destination.
        edge_id: int32 or int64 [E], the caller's position of each edge; None if the orders agree.

    Attributes:
        arrays: further tensors of :meth:`open`, such as features, by name.

    Raises:
        TypeError: a tensor has another dtype.
        ValueError: a tensor is not a contiguous vector on the CPU, or the first and last row
            pointers are not 0 and E.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> MappedGraph.save(folder, Graph(torch.tensor([[0, 1], [1, 0]])), x=torch.ones(2, 3))
        >>> graph = MappedGraph.open(folder)
        >>> graph, graph.arrays["x"].shape
        (MappedGraph(num_nodes=2, num_edges=2), torch.Size([2, 3]))
    """

    def __init__(self, rowptr: Tensor, col: Tensor, edge_id: Tensor | None = None) -> None:
        """Checks sizes and dtypes; see the class."""
        for name, tensor, dtypes in (
            ("rowptr", rowptr, [torch.int64]),
            ("col", col, [torch.int32, torch.int64]),
            ("edge_id", edge_id, [torch.int32, torch.int64]),
        ):
            if tensor is None and name == "edge_id":
                continue
            if not isinstance(tensor, Tensor) or tensor.dtype not in dtypes:
                kind = getattr(tensor, "dtype", type(tensor).__name__)
                raise TypeError(
                    f"{name} is {kind}; expected a tensor of {' or '.join(map(str, dtypes))}"
                )
            if tensor.dim() != 1 or not tensor.is_contiguous() or tensor.device.type != "cpu":
                raise ValueError(
                    f"{name} has shape {list(tensor.shape)} on {tensor.device}; expected a "
                    "contiguous vector on the CPU"
                )
        num_edges = col.shape[0]
        ends = [int(rowptr[0]), int(rowptr[-1])] if rowptr.numel() else []
        if ends != [0, num_edges]:
            raise ValueError(
                f"rowptr has shape {list(rowptr.shape)} and the ends {ends}; expected [N + 1] "
                f"numbers from 0 to the number of edges, {num_edges}"
            )
        if edge_id is not None and edge_id.shape[0] != num_edges:
            raise ValueError(f"edge_id has shape {list(edge_id.shape)}; expected [{num_edges}]")
        self.rowptr, self.col, self.edge_id = rowptr, col, edge_id
        self.arrays: dict[str, Tensor] = {}

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return self.rowptr.shape[0] - 1

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self.col.shape[0]

    def __repr__(self) -> str:
        """The counts."""
        return f"MappedGraph(num_nodes={self.num_nodes}, num_edges={self.num_edges})"

    @staticmethod
    def save(folder: str | Path, graph: Graph, **arrays: Tensor) -> None:
        """Writes a graph, and tensors of nodes or edges in the caller's order, as .npy files.

        Raises:
            ValueError: num_src is not num_dst, or a tensor has the name of a part of the graph.
        """
        import numpy as np

        graph.num_nodes  # noqa: B018  raises unless num_src = num_dst
        taken = [name for name in arrays if name in _PARTS]
        if taken:
            raise ValueError(f"an array is named {taken[0]!r}, as a part of the graph; rename it")
        Path(folder).mkdir(parents=True, exist_ok=True)
        parts = {name: getattr(graph, name) for name in _PARTS}
        for name, tensor in (parts | arrays).items():
            path = Path(folder, f"{name}.npy")
            path.unlink(missing_ok=True)  # a file of an earlier graph
            if tensor is not None:
                np.save(path, tensor.detach().cpu().numpy())

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Maps the files of :meth:`save`, and all other .npy files of the folder, into memory.

        Memory is private to the process: modifications are not written to the files.

        Raises:
            FileNotFoundError: the folder has no graph.
            TypeError, ValueError: as the class.
        """
        import numpy as np

        missing = [name for name in _PARTS[:2] if not Path(folder, f"{name}.npy").is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder} has no {missing[0]}.npy; expected a folder that MappedGraph.save wrote"
            )
        found = {
            path.stem: torch.from_numpy(np.load(path, mmap_mode="c"))
            for path in sorted(Path(folder).glob("*.npy"))
        }
        graph = cls(found.pop("rowptr"), found.pop("col"), found.pop("edge_id", None))
        graph.arrays = found
        return graph

    def load(self) -> Graph:
        """The graph in memory, with all indices checked.

        Raises:
            ValueError: row pointers descend.
            IndexError: an index is out of range.

        Example:
            >>> MappedGraph(torch.tensor([0, 1, 1]), torch.tensor([1])).load()
            Graph(num_nodes=2, num_edges=1, index_dtype=torch.int32, device='cpu')
        """
        degrees = self.rowptr.diff()
        if bool((degrees < 0).any()):
            row = int((degrees < 0).nonzero()[0])
            raise ValueError(f"rowptr descends at row {row}; expected ascending numbers")
        rows = torch.arange(self.num_nodes).repeat_interleave(degrees)
        edge_index = torch.stack([self.col.long(), rows])
        if self.edge_id is not None:
            edge_index = torch.empty_like(edge_index).index_copy_(
                1, self.edge_id.long(), edge_index
            )
        return Graph(edge_index, self.num_nodes)
