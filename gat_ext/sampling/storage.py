"""MappedGraph: a graph in files, of which only what is read takes memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    def save(folder: str | Path, graph: Graph | MappedGraph, **arrays: Tensor) -> None:
        """Writes a graph, and tensors of nodes or edges in the caller's order, as .npy files.

        Files of other names remain in the folder, and :meth:`open` reads them: use a new folder for
        another graph.

        Raises:
            TypeError: graph is not a Graph, or an array is not a dense tensor of a dtype of NumPy.
            ValueError: num_src is not num_dst, or the name of a tensor is that of a part of the
                graph or of no file.
        """
        import numpy as np

        if not isinstance(graph, (Graph, MappedGraph)):
            raise TypeError(
                f"graph is a {type(graph).__name__}; expected a gat_ext.Graph: build one with "
                "Graph(edge_index, num_nodes)"
            )
        graph.num_nodes  # noqa: B018  raises unless num_src = num_dst
        for name, array in arrays.items():
            _check_array(name, array)
        parts = {name: getattr(graph, name) for name in _PARTS}
        Path(folder).mkdir(parents=True, exist_ok=True)
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
            TypeError: as the class.
            ValueError: as the class, or a file has no array, or no numbers.
        """
        missing = [name for name in _PARTS[:2] if not Path(folder, f"{name}.npy").is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder} has no {missing[0]}.npy; expected a folder that MappedGraph.save wrote"
            )
        found = {
            path.stem: _mapped(path)
            for path in sorted(Path(folder).glob("*.npy"))
            if path.is_file()
        }
        graph = cls(found.pop("rowptr"), found.pop("col"), found.pop("edge_id", None))
        graph.arrays = found
        return graph

    def load(self) -> Graph:
        """The graph in memory, with all indices checked.

        Raises:
            ValueError: row pointers descend, or edge_id is not a permutation.
            IndexError: a node is out of range.

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
            _check_permutation(self.edge_id)
            edge_index = torch.empty_like(edge_index).index_copy_(
                1, self.edge_id.long(), edge_index
            )
        return Graph(edge_index, self.num_nodes)


def _check_array(name: str, array: Any) -> None:
    """Raises unless it can be written to a file of this name."""
    if name in _PARTS:
        raise ValueError(f"an array is named {name!r}, as a part of the graph; rename it")
    if not name or "/" in name or "\0" in name:
        raise ValueError(f"an array is named {name!r}; expected the name of a file, without '/'")
    if not isinstance(array, Tensor) or array.layout != torch.strided:
        kind = array.layout if isinstance(array, Tensor) else type(array).__name__
        raise TypeError(f"array {name!r} is {kind}; expected a dense torch.Tensor")
    if array.dtype == torch.bfloat16 or array.is_quantized:
        raise TypeError(
            f"array {name!r} has dtype {array.dtype}, which NumPy's files lack; expected another "
            "floating-point dtype: use .half() or .float()"
        )


def _mapped(path: Path) -> Tensor:
    """The array of a .npy file, mapped into memory that is private to the process."""
    import numpy as np

    try:
        return torch.from_numpy(np.load(path, mmap_mode="c"))
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be mapped ({error}); expected an array of numbers that "
            "MappedGraph.save or numpy.save wrote: write it again, or move other files elsewhere"
        ) from error


def _check_permutation(edge_id: Tensor) -> None:
    num_edges = edge_id.shape[0]
    outside = (edge_id < 0) | (edge_id >= num_edges)
    seen = torch.zeros(num_edges, dtype=torch.bool)
    seen[edge_id[~outside].long()] = True
    if not bool(seen.all()):
        raise ValueError(
            f"edge_id lacks edge {int((~seen).nonzero()[0])}; expected each number from 0 to "
            f"{num_edges - 1} once"
        )
