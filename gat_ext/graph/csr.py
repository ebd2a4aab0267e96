"""Builds the CSR of an edge list: checks, sorting, the transpose, and block-diagonal unions."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gat_ext import _C  # noqa: F401  registers torch.ops.gat_ext
from gat_ext.graph.formats import constructors
from gat_ext.ops.scatter import row_sum, stable_sort
from gat_ext.ops.slots import num_slots
from gat_ext.ops.state import are_at_most, is_exporting_to_onnx

ops = torch.ops.gat_ext

# One less than the largest int32, so that a number of rows plus one fits into int32, too.
INT32_LIMIT = 2**31 - 2

_MOST_NODES = 2**48  # no machine has memory for more row pointers

Csr = tuple[Tensor, Tensor, Tensor | None]  # rowptr, col, edge_id


def device_of(device: torch.device | str | int) -> torch.device:
    """The device of a name or a number; raises TypeError or ValueError where it is none."""
    try:
        return torch.device(device)
    except (TypeError, RuntimeError) as error:
        kind = ValueError if isinstance(device, (str, int)) else TypeError
        raise kind(
            f"device is {device!r}; expected a torch.device, or its name such as 'cpu' or 'cuda:0'"
        ) from error


class Transpose(NamedTuple):
    """The CSR by source of a graph.

    Attributes:
        rowptr: int64 ``[num_src + 1]``; source j owns the positions from ``rowptr[j]`` up to
            ``rowptr[j + 1]``.
        col: ``[E]``, the destination of each edge.
        pos: ``[E]``, the position of each edge in the CSR by destination; ascends within a source.
        edge_id: ``[E]``, the position of each edge in the caller's order; the same tensor as
            ``pos`` if the CSR by destination is in the caller's order.
    """

    rowptr: Tensor
    col: Tensor
    pos: Tensor
    edge_id: Tensor


def build_csr(edge_index: Tensor, num_dst: int, is_sorted: bool, dtype: torch.dtype) -> Csr:
    """CSR by destination of checked edges; stable, and shares no memory with ``edge_index``."""
    src, dst = edge_index[0].to(dtype, copy=True), edge_index[1].to(dtype)
    if is_sorted:
        return row_pointers(dst.contiguous(), num_dst), src.contiguous(), None
    return ops.csr_of_edges(src, dst.contiguous(), num_dst)  # type: ignore[no-any-return]


def adjacency_csr(
    parts: tuple[Tensor, Tensor | None, Tensor | None],
    counts: tuple[int, int],
    dtype: torch.dtype | None = None,
    *,
    self_loops: bool = False,
    transpose: bool = False,
) -> tuple[Csr, Transpose | None]:
    """The CSR by destination and its transpose, of edges in a trace; the program checks the values.

    Args:
        parts: an edge_index [2, E], None, None; or a rowptr with its col and edge_id.
        counts: (num_src, num_dst).
        dtype: dtype of the indices; None for the narrowest.
        self_loops: sort slots, see :mod:`gat_ext.ops.slots`; those that are not edges follow the
            last row.
        transpose: compute the transpose, too.
    """
    if is_exporting_to_onnx() and not (self_loops or transpose):
        return _csr_by_torch(parts[0], counts[1]), None
    slots = num_slots(parts[0], parts[1], *counts, self_loops)
    fits = are_at_most((*counts, slots), INT32_LIMIT)
    narrow = index_dtype_for(0 if fits else INT32_LIMIT + 1, dtype) == torch.int32
    found = ops.adjacency_csr(*parts, *counts, self_loops, narrow, transpose)
    return found[:3], Transpose(*found[3:]) if transpose else None


def _csr_by_torch(edge_index: Tensor, num_dst: int) -> Csr:
    src, dst = edge_index.long()
    order = stable_sort(dst, descending=False)[1]
    degree = row_sum(torch.ones_like(dst), dst, num_dst)
    return torch.cat([degree.new_zeros(1), degree.cumsum(0)]), src[order], order


def build_transpose(rowptr: Tensor, col: Tensor, edge_id: Tensor | None, num_src: int) -> Transpose:
    """The CSR by source of a CSR by destination; stable."""
    t_rowptr, t_col, pos = ops.csr_transpose(rowptr, col, num_src)
    return Transpose(t_rowptr, t_col, pos, pos if edge_id is None else edge_id[pos])


def row_pointers(ascending: Tensor, num_rows: int) -> Tensor:
    """int64 ``[num_rows + 1]``: the start of each row in an ascending list of rows."""
    bounds = torch.arange(num_rows + 1, dtype=ascending.dtype, device=ascending.device)
    return torch.searchsorted(ascending, bounds)


def block_diagonal(blocks: Sequence[Csr], num_src: Sequence[int], dtype: torch.dtype) -> Csr:
    """The CSR of the disjoint union of graphs; ``num_src`` counts the sources of each."""
    src_offsets = [0, *accumulate(num_src)]
    edge_offsets = [0, *accumulate(col.shape[0] for _, col, _ in blocks)]
    rowptrs, cols, edge_ids = [], [], []
    for (rowptr, col, edge_id), first_src, first_edge in zip(
        blocks, src_offsets, edge_offsets, strict=False
    ):
        rowptrs.append(rowptr[:-1] + first_edge)
        cols.append(col.to(dtype) + first_src)
        order = torch.arange(col.shape[0], device=col.device) if edge_id is None else edge_id
        edge_ids.append(order.to(dtype) + first_edge)
    rowptrs.append(torch.tensor([edge_offsets[-1]], device=blocks[0][0].device))
    in_order = all(edge_id is None for _, _, edge_id in blocks)
    return torch.cat(rowptrs), torch.cat(cols), None if in_order else torch.cat(edge_ids)


# ---- checks


def check_edge_index(edge_index: Tensor) -> None:
    """Raises unless ``edge_index`` is a dense int32 or int64 tensor ``[2, E]``."""
    if not isinstance(edge_index, Tensor):
        raise TypeError(
            f"edge_index is a {type(edge_index).__name__}; expected an int32 or int64 tensor "
            f"[2, E]: convert it with torch.as_tensor, or use one of {constructors()}"
        )
    if edge_index.layout != torch.strided:
        raise TypeError(
            f"edge_index has layout {edge_index.layout}; expected a dense tensor [2, E]: "
            "use Graph.from_torch_sparse for a sparse matrix"
        )
    if edge_index.dtype not in (torch.int32, torch.int64):
        raise TypeError(
            f"edge_index has dtype {edge_index.dtype}; expected node numbers of torch.int32 or "
            "torch.int64: convert whole numbers with edge_index.long(), a mask or adjacency matrix "
            "[N_dst, N_src] with mask.nonzero().t().flip(0)"
        )
    if edge_index.is_meta:
        raise ValueError(
            "edge_index is on the meta device, where tensors have no values; expected one on a CPU "
            "or GPU"
        )
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        pairs = edge_index.dim() == 2 and edge_index.shape[1] == 2
        raise ValueError(
            f"edge_index has shape {list(edge_index.shape)}; expected [2, E] with sources in row 0 "
            "and destinations in row 1: pass edge_index.t() for a list of pairs [E, 2]"
            + ("" if pairs else ", matrix.nonzero().t().flip(0) for an adjacency matrix")
        )


def scan(edge_index: Tensor) -> tuple[tuple[int, int], bool]:
    """((largest source, largest destination), destinations ascend); -1 without edges.

    Raises:
        IndexError: an index is negative.
    """
    if edge_index.shape[1] == 0:
        return (-1, -1), True
    # Row by row: aminmax with a dim starts all threads, even for a few edges.
    bounds = [bound for row in edge_index for bound in torch.aminmax(row)]
    ascending = (edge_index[1, 1:] >= edge_index[1, :-1]).all()
    # One transfer from the device for all numbers.
    numbers = torch.stack([*bounds, ascending.to(edge_index.dtype)]).tolist()
    for row, low in enumerate(numbers[:4:2]):
        if low < 0:
            raise IndexError(
                f"edge_index[{row}, {_find(edge_index[row], low)}] is {low}; "
                "expected node numbers of at least 0: remove edges that are padding"
            )
    return (numbers[1], numbers[3]), bool(numbers[4])


def node_counts(
    edge_index: Tensor,
    largest: tuple[int, int],
    num_nodes: int | None,
    num_src: int | None,
    num_dst: int | None,
) -> tuple[int, int]:
    """(num_src, num_dst) from the caller's arguments, else from the largest indices.

    Raises:
        TypeError: a count is not an integer.
        ValueError: a count is negative, or the combination of counts is invalid.
        IndexError: an index is not below its count.
    """
    num_nodes = _checked_count("num_nodes", num_nodes)
    num_src, num_dst = _checked_count("num_src", num_src), _checked_count("num_dst", num_dst)
    if (num_src is None) != (num_dst is None) or (num_nodes is not None and num_src is not None):
        raise ValueError(
            f"got num_nodes={num_nodes}, num_src={num_src}, num_dst={num_dst}; expected num_nodes "
            "only, num_src and num_dst, or none of the three"
        )
    names = ("num_src", "num_dst")
    if num_src is None or num_dst is None:
        if max(largest) >= _MOST_NODES:
            raise IndexError(
                f"edge_index has the node number {max(largest)}; expected numbers below "
                f"{_MOST_NODES}"
            )
        num_src = num_dst = max(largest) + 1 if num_nodes is None else num_nodes
        names = ("num_nodes", "num_nodes")
    for row, (name, bound, high) in enumerate(zip(names, (num_src, num_dst), largest, strict=True)):
        if high >= bound:
            from_one = high == bound and int(edge_index.min()) >= 1
            what = "pass edge_index - 1, because these seem to be counted from 1"
            if not from_one:
                what = f"pass a larger {name}, or the features of all nodes of this graph"
            raise IndexError(
                f"edge_index[{row}, {_find(edge_index[row], high)}] is {high}; "
                f"expected node numbers below {name}={bound}, counted from 0: {what}"
            )
    return num_src, num_dst


def traced_counts(
    num_nodes: int | None, num_src: int | None, num_dst: int | None
) -> tuple[int, int]:
    """(num_src, num_dst) in a trace, where the values of edges are not known.

    Raises:
        ValueError: the combination of counts is invalid, or counts are missing.
    """
    if num_nodes is not None and num_src is None and num_dst is None:
        return num_nodes, num_nodes
    if num_nodes is None and num_src is not None and num_dst is not None:
        return num_src, num_dst
    raise ValueError(
        f"got num_nodes={num_nodes}, num_src={num_src}, num_dst={num_dst} in a compiled function; "
        "expected num_nodes only, or num_src and num_dst: there they cannot depend on the indices"
    )


def index_dtype_for(largest: int, wanted: torch.dtype | None) -> torch.dtype:
    """The dtype of indices up to ``largest``: ``wanted``, or the narrower one that holds them.

    Raises:
        ValueError: ``wanted`` is not int32 or int64, or too narrow.
    """
    if wanted is None:
        return torch.int32 if largest <= INT32_LIMIT else torch.int64
    if wanted not in (torch.int32, torch.int64):
        raise ValueError(f"index_dtype is {wanted}; expected torch.int32, torch.int64 or None")
    if wanted == torch.int32 and largest > INT32_LIMIT:
        raise ValueError(
            f"index_dtype is torch.int32, but the graph has {largest} nodes or edges; expected at "
            f"most {INT32_LIMIT}: pass torch.int64 or None"
        )
    return wanted


def check_batch(graphs: Sequence[Any], kind: type) -> None:
    """Raises unless there is at least one graph, and all are of ``kind`` and on one device."""
    if len(graphs) == 0:
        raise ValueError("batch got an empty sequence; expected at least one graph")
    for position, graph in enumerate(graphs):
        if not isinstance(graph, kind):
            raise TypeError(
                f"batch got a {type(graph).__name__} at position {position}; expected a Graph"
            )
    devices = sorted({str(graph.device) for graph in graphs})
    if len(devices) > 1:
        raise ValueError(
            f"batch got graphs on {', '.join(devices)}; expected one device: move them with .to()"
        )


def new_numbers(nodes: Tensor | Sequence[int], num_nodes: int, device: torch.device) -> Tensor:
    """int64 ``[num_nodes]``: the place of each node among ``nodes``, or -1.

    Args:
        nodes: integers ``[M]``, or a bool mask ``[num_nodes]``.
        num_nodes: number of nodes.
        device: device of the result.

    Raises:
        TypeError: another dtype.
        ValueError: a wrong shape, or a node that occurs twice.
        IndexError: a node is out of range.
    """
    chosen = torch.as_tensor(nodes, device=device)
    if chosen.dtype == torch.bool:
        if chosen.shape != (num_nodes,):
            raise ValueError(
                f"nodes is a mask of shape {list(chosen.shape)}; expected [{num_nodes}], a boolean "
                "for each node"
            )
        chosen = chosen.nonzero().flatten()
    if chosen.dim() != 1:
        raise ValueError(f"nodes has shape {list(chosen.shape)}; expected node numbers [M]")
    if chosen.numel() == 0:
        chosen = chosen.long()  # an empty list has no integer dtype
    if chosen.dtype not in (torch.int32, torch.int64):
        raise TypeError(
            f"nodes has dtype {chosen.dtype}; expected torch.int64, torch.int32 or, for a mask, "
            "torch.bool"
        )
    outside = (chosen < 0) | (chosen >= num_nodes)
    if bool(outside.any()):
        place = _find(outside, True)
        raise IndexError(
            f"nodes[{place}] is {int(chosen[place])}; expected node numbers from 0 to "
            f"{num_nodes - 1}"
        )
    number = torch.full((num_nodes,), -1, device=device)
    places = torch.arange(chosen.shape[0], device=device)
    number[chosen] = places
    repeated = number[chosen] != places
    if bool(repeated.any()):
        node = int(chosen[_find(repeated, True)])
        raise ValueError(f"nodes has node {node} more than once; expected distinct nodes")
    return number


def _checked_count(name: str, count: int | None) -> int | None:
    if count is None:
        return None
    if isinstance(count, (bool, Tensor)) or not hasattr(count, "__index__"):
        raise TypeError(f"{name} is {count!r} of type {type(count).__name__}; expected an int")
    whole = operator.index(count)
    if whole < 0:
        raise ValueError(f"{name} is {whole}; expected at least 0")
    if whole > _MOST_NODES:
        raise ValueError(f"{name} is {whole}; expected at most {_MOST_NODES}")
    return whole


def _find(values: Tensor, value: int) -> int:
    """The first position of a value that occurs."""
    return int((values == value).nonzero()[0])
