"""Attention over a DistGraph by heads: each process has all nodes and edges for some heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from gat_ext.distributed.exchange import Traffic
from gat_ext.distributed.failures import naming_the_dead
from gat_ext.functional import fused
from gat_ext.graph import Graph
from gat_ext.ops.arguments import DIMS, is_absent
from gat_ext.ops.registry import ops

if TYPE_CHECKING:
    from gat_ext.distributed.graph import DistGraph

_KINDS = {"m": "src", "n": "dst", "E": "edge"}


@dataclass
class _Whole:
    """The whole graph, with nodes and edges by process.

    Attributes:
        graph: the graph; its edges have their numbers in the draws of dropout.
        counts: by kind, "src", "dst" or "edge", the rows of each process.
    """

    graph: Graph
    counts: dict[str, list[int]]


@dataclass
class _Layout:
    """How a tensor's rows and heads are divided.

    Attributes:
        rows: of each process.
        heads: of each process.
        rank: of this process.
        group: the processes.
        traffic: bytes sent.
    """

    rows: list[int]
    heads: list[int]
    rank: int
    group: Any
    traffic: Traffic


def attend(graph: DistGraph, inputs: Any, options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(out, weights, lse) of edge_attention, with the heads divided among the processes."""
    if graph.group is None:
        return fused.attend(graph.local, inputs, options)
    whole, num_heads = _whole(graph), inputs.value.shape[1]
    rank, parts = graph.part.rank, graph.part.parts
    heads = [num_heads // parts + (r < num_heads % parts) for r in range(parts)]
    mine = slice(sum(heads[:rank]), sum(heads[: rank + 1]))

    def layout(kind: str) -> _Layout:
        return _Layout(whole.counts[kind], heads, rank, graph.group, graph.traffic)

    found = _of_heads(inputs, layout, mine)
    mask = _mask(options, layout("edge"), whole.graph, num_heads, mine, inputs.value)
    constants = options.constants._replace(dropout_p=0.0)
    changed = options._replace(constants=constants, seed=None, edge_mask=mask)
    if min(heads) == 0:  # every process records the same operators, so that backwards match
        extra = int(heads[rank] == 0)
        found, changed = _padded(found, extra), changed._replace(edge_mask=_with_head(mask, extra))
    out, weights, lse = fused.attend(whole.graph, found, changed)
    out, weights, lse = (t if is_absent(t) else t[:, : heads[rank]] for t in (out, weights, lse))
    out = _to_rows(out, layout("dst"))
    if options.return_weights:
        weights = _to_rows(weights, layout("edge"))
    return out, weights, _to_rows(lse, layout("dst")) if options.return_lse else lse


def _of_heads(inputs: Any, layout: Any, mine: slice) -> Any:
    """The inputs of all nodes and edges, for the own heads."""
    shared = {name: getattr(inputs, name) is inputs.value for name in ("query", "key")}
    changed: dict[str, Any] = {}
    for name, dims in DIMS.items():
        tensor = getattr(inputs, name)
        if tensor is None or shared.get(name):
            continue
        if dims[0] == "H":
            changed[name] = tensor[mine].contiguous()
        elif "H" in dims:
            changed[name] = _to_heads(tensor, layout(_KINDS[dims[0]]))
        else:
            changed[name] = _Gathered.apply(tensor, layout(_KINDS[dims[0]]))
    for name, is_shared in shared.items():
        if is_shared:
            changed[name] = changed["value"]
    return inputs._replace(**changed)


def _mask(
    options: Any, layout: _Layout, graph: Graph, num_heads: int, mine: slice, like: Tensor
) -> Tensor | None:
    """The edge mask times that of dropout, [E, own heads], or None."""
    mask: Tensor | None = options.edge_mask
    if mask is not None:
        mask = mask.unsqueeze(-1) if mask.dim() == 1 else mask
        mask = _to_heads(mask.expand(-1, num_heads), layout)
    p = options.constants.dropout_p
    if p == 0:
        return mask
    sizes = graph.num_edges, num_heads
    kept = ops.edge_dropout_mask(options.seed, *sizes, p, graph.edge_number)[:, mine]
    factor: Tensor = kept.to(like.dtype) * (1 / (1 - p) if p < 1 else 0.0)
    return factor if mask is None else mask * factor


def _padded(inputs: Any, extra: int) -> Any:
    """Inputs with ``extra`` heads of zeros."""
    value, padded = inputs.value, {}
    for name, dims in DIMS.items():
        tensor = getattr(inputs, name)
        if tensor is None or "H" not in dims or (name != "value" and tensor is value):
            continue
        padded[name] = _with_head(tensor, extra, dims.index("H"))
    shared = [name for name in ("query", "key") if getattr(inputs, name) is value]
    return inputs._replace(**padded, **dict.fromkeys(shared, padded["value"]))


def _with_head(tensor: Tensor | None, extra: int, dim: int = 1) -> Tensor | None:
    if tensor is None:
        return None
    shape = list(tensor.shape)
    shape[dim] = extra
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)


def _whole(graph: DistGraph) -> _Whole:
    """The whole graph; every process sends its part once."""
    if "whole" not in graph._pieces:
        part = graph.part
        mine = (part.src_nodes, part.dst_nodes, graph.global_edge_index, part.edges)
        every: list[Any] = [None] * part.parts
        with naming_the_dead(graph.group):
            dist.all_gather_object(every, tuple(t.cpu() for t in mine), group=graph.group)
        src, dst, edges, numbers = zip(*every, strict=True)
        index = torch.cat(edges, dim=1)
        ends = torch.stack(
            [_position(src, part.num_src)[index[0]], _position(dst, part.num_dst)[index[1]]]
        )
        counts = {"src": _lengths(src), "dst": _lengths(dst), "edge": _lengths(numbers)}
        num_src, num_dst = sum(counts["src"]), sum(counts["dst"])
        whole = (
            Graph(ends, num_src=num_src, num_dst=num_dst)
            ._numbered(torch.cat(numbers))
            .to(graph.device)
        )
        graph._pieces["whole"] = _Whole(whole, counts)
    found: _Whole = graph._pieces["whole"]
    return found


def _lengths(tensors: Sequence[Tensor]) -> list[int]:
    return [t.shape[0] for t in tensors]


def _position(nodes: Sequence[Tensor], count: int) -> Tensor:
    """The place of each node of the whole graph among those of all processes, by process."""
    position = torch.full((count,), -1, dtype=torch.int64)
    joined = torch.cat(list(nodes))
    position[joined] = torch.arange(joined.shape[0])
    return position


# ---- rows of all heads <-> all rows of some heads


def _to_heads(x: Tensor, layout: _Layout) -> Tensor:
    """[own rows, H, …] to [all rows, own heads, …]."""
    found: Tensor = _ToHeads.apply(x, layout)  # type: ignore[no-untyped-call]
    return found


def _to_rows(x: Tensor, layout: _Layout) -> Tensor:
    """[all rows, own heads, …] to [own rows, H, …]."""
    found: Tensor = _ToRows.apply(x, layout)  # type: ignore[no-untyped-call]
    return found


def _all_to_all(
    data: Tensor, send: list[int], recv: list[int], layout: _Layout, backward: bool
) -> Tensor:
    """Elements for each process, and from each process."""
    buffer = data.new_empty(sum(recv))
    own = send[layout.rank]
    sent = (data.numel() - own) * data.element_size()
    if backward:
        layout.traffic.backward += sent
    else:
        layout.traffic.forward += sent
    size = data.element_size()
    with naming_the_dead(layout.group):
        dist.all_to_all_single(
            buffer.view(torch.uint8),
            data.contiguous().view(torch.uint8),
            [count * size for count in recv],
            [count * size for count in send],
            group=layout.group,
        )
    return buffer


def _heads_of_rows(x: Tensor, layout: _Layout, backward: bool = False) -> Tensor:
    tail, rows, heads = x.shape[2:], layout.rows, layout.heads
    width, mine = prod(tail), layout.heads[layout.rank]
    parts = [part.reshape(-1) for part in x.detach().split(heads, dim=1)]
    send = [part.numel() for part in parts]
    recv = [count * mine * width for count in rows]
    found = _all_to_all(torch.cat(parts), send, recv, layout, backward)
    return found.view(sum(rows), mine, *tail)


def _rows_of_heads(x: Tensor, layout: _Layout, backward: bool = False) -> Tensor:
    tail, rows, heads = x.shape[2:], layout.rows, layout.heads
    width, mine, own = prod(tail), layout.heads[layout.rank], layout.rows[layout.rank]
    send = [count * mine * width for count in rows]
    recv = [own * count * width for count in heads]
    found = _all_to_all(x.detach().reshape(-1), send, recv, layout, backward)
    parts = [
        part.view(own, count, *tail) for part, count in zip(found.split(recv), heads, strict=True)
    ]
    return torch.cat(parts, dim=1)


class _ToHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: _Layout, backward: bool = False) -> Tensor:
        ctx.layout, ctx.backward_of = layout, backward
        return _heads_of_rows(x, layout, backward)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        back = not ctx.backward_of
        return _ToRows.apply(grad, ctx.layout, back), None, None  # type: ignore[no-untyped-call]


class _ToRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: _Layout, backward: bool = False) -> Tensor:
        ctx.layout, ctx.backward_of = layout, backward
        return _rows_of_heads(x, layout, backward)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        back = not ctx.backward_of
        return _ToHeads.apply(grad, ctx.layout, back), None, None  # type: ignore[no-untyped-call]


# ---- rows without heads, which every process needs


class _Gathered(torch.autograd.Function):
    """[own rows, …] to [all rows, …]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: _Layout) -> Tensor:
        ctx.layout = layout
        width, parts = prod(x.shape[1:]), len(layout.rows)
        send = [x.numel()] * parts
        recv = [count * width for count in layout.rows]
        flat = x.detach().reshape(-1).repeat(parts)
        return _all_to_all(flat, send, recv, layout, False).view(-1, *x.shape[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return _SummedRows.apply(grad, ctx.layout), None  # type: ignore[no-untyped-call]


class _SummedRows(torch.autograd.Function):
    """[all rows, …] of every process to the sums over the processes, [own rows, …]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: _Layout) -> Tensor:
        ctx.layout = layout
        width, own = prod(x.shape[1:]), layout.rows[layout.rank]
        send = [count * width for count in layout.rows]
        recv = [own * width] * len(layout.rows)
        found = _all_to_all(x.detach().reshape(-1), send, recv, layout, True)
        return found.view(len(layout.rows), own, *x.shape[1:]).sum(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return _Gathered.apply(grad, ctx.layout), None  # type: ignore[no-untyped-call]
