"""Exchange of rows between the processes of a group: halo rows out, their gradients back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from gat_ext.distributed.failures import naming_the_dead
from gat_ext.graph import Graph
from gat_ext.ops.registry import ops


@dataclass
class Traffic:
    """Bytes that this process sent to others.

    Attributes:
        forward: rows of sources, for the processes that read them.
        backward: gradients of rows, for the processes that own them.
    """

    forward: int = 0
    backward: int = 0


class Rows(NamedTuple):
    """A part of an exchange: rows of some peers.

    Attributes:
        send: the slice of ``Exchange.send`` that is sent.
        send_sizes: rows for each process.
        recv: the slice of the halo that is received.
        recv_sizes: rows from each process.
    """

    send: slice
    send_sizes: Sequence[int]
    recv: slice
    recv_sizes: Sequence[int]


@dataclass
class Exchange:
    """Which rows this process sends and receives.

    Attributes:
        send: int64 [S], the rows to send, by receiver.
        send_sizes: rows for each process.
        recv_sizes: rows from each process.
        num_rows: own rows.
        group: the processes; None if there is only this one.
        traffic: bytes sent so far.
    """

    send: Tensor
    send_sizes: Sequence[int]
    recv_sizes: Sequence[int]
    num_rows: int
    group: Any
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        """Prepares the sums of rows that are sent to several processes."""
        self._sums: dict[int, tuple[Tensor, Graph]] = {}

    @property
    def num_halo(self) -> int:
        """Rows that all peers send."""
        return sum(self.recv_sizes)

    def all_rows(self) -> Rows:
        """The exchange with all peers at once."""
        send, recv = slice(0, self.send.shape[0]), slice(0, self.num_halo)
        return Rows(send, self.send_sizes, recv, self.recv_sizes)

    def rows_at(self, step: int) -> Rows:
        """The exchange in which each process sends to the one ``step`` ranks above it."""
        count = len(self.send_sizes)
        rank = dist.get_rank(self.group)
        to, source = (rank + step) % count, (rank - step) % count
        first_send, first_recv = sum(self.send_sizes[:to]), sum(self.recv_sizes[:source])
        return Rows(
            slice(first_send, first_send + self.send_sizes[to]),
            [size if r == to else 0 for r, size in enumerate(self.send_sizes)],
            slice(first_recv, first_recv + self.recv_sizes[source]),
            [size if r == source else 0 for r, size in enumerate(self.recv_sizes)],
        )

    def start(self, tensors: Sequence[Tensor], rows: Rows) -> Pending:
        """Starts to send rows of tensors [num_rows, …], and to receive those of others."""
        index = self.send[rows.send]
        packed = [t.detach().index_select(0, index).flatten(1) for t in tensors]
        shapes = [(rows.recv.stop - rows.recv.start, *t.shape[1:]) for t in tensors]
        sizes = rows.recv_sizes, rows.send_sizes
        pending = _start(packed, shapes, *sizes, self.group)
        self.traffic.forward += pending.num_bytes
        return pending

    def start_back(self, gradients: Sequence[Tensor], rows: Rows) -> Pending:
        """Starts to send gradients of received rows to their owners."""
        packed = [g.detach().flatten(1) for g in gradients]
        count = rows.send.stop - rows.send.start
        shapes = [(count, *g.shape[1:]) for g in gradients]
        pending = _start(packed, shapes, rows.send_sizes, rows.recv_sizes, self.group)
        self.traffic.backward += pending.num_bytes
        return pending

    def add_back(self, into: Tensor, gradient: Tensor, rows: Rows) -> None:
        """Adds received gradients of sent rows to those of the own rows, in a fixed order."""
        if gradient.shape[0] == 0:
            return
        key = rows.send.start if rows.send.stop - rows.send.start < self.send.shape[0] else -1
        if key not in self._sums:
            nodes, place = self.send[rows.send].unique(return_inverse=True)
            each = torch.arange(place.shape[0], device=place.device)
            sizes = {"num_src": place.shape[0], "num_dst": nodes.shape[0]}
            self._sums[key] = nodes, Graph(torch.stack([each, place]), **sizes)
        nodes, graph = self._sums[key]
        csr = graph.rowptr, graph.col, graph.edge_id, None, None, None
        flat = gradient.reshape(gradient.shape[0], 1, -1)
        sums = ops.spmm(*csr, None, flat).view(-1, *gradient.shape[1:])
        into.index_copy_(0, nodes, into.index_select(0, nodes) + sums)


class Pending:
    """Rows that are on their way.

    Attributes:
        num_bytes: bytes that this process sends to others.
    """

    def __init__(
        self, buffer: Tensor, work: Any, tensors: list[tuple[Any, ...]], sent: int
    ) -> None:
        self._buffer, self._work, self._tensors = buffer, work, tensors
        self.num_bytes = sent

    def wait(self) -> list[Tensor]:
        """The received rows of each tensor."""
        if self._work is not None:
            with naming_the_dead():
                self._work.wait()
        found, first = [], 0
        for shape, dtype, width in self._tensors:
            columns = self._buffer[:, first : first + width].contiguous()
            found.append(columns.view(dtype).view(shape))
            first += width
        return found


def _start(
    packed: list[Tensor],
    shapes: list[tuple[int, ...]],
    recv_sizes: Sequence[int],
    send_sizes: Sequence[int],
    group: Any,
) -> Pending:
    """Sends the rows of all tensors in one message, as bytes, so that dtypes may differ."""
    parts = [p.contiguous().view(torch.uint8) for p in packed]
    widths = [p.shape[1] * p.element_size() for p in packed]
    data = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    buffer = data.new_empty(sum(recv_sizes), sum(widths))
    work = None
    if group is not None:
        with naming_the_dead():
            work = dist.all_to_all_single(
                buffer, data, list(recv_sizes), list(send_sizes), group=group, async_op=True
            )
    kinds = [(s, p.dtype, w) for s, p, w in zip(shapes, packed, widths, strict=True)]
    return Pending(buffer, work, kinds, data.numel())


# ---- differentiable, any number of times


def fetch(exchange: Exchange, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The halo rows of tensors [num_rows, …] of one dtype; differentiable."""
    if exchange.group is None:
        return tuple(t[:0] for t in tensors)
    flat = [t.reshape(t.shape[0], prod(t.shape[1:])) for t in tensors]
    packed = flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)
    halo: Tensor = _Fetch.apply(packed, exchange)  # type: ignore[no-untyped-call]
    parts = halo.split([t.shape[1] for t in flat], dim=1)
    return tuple(
        part.reshape(halo.shape[0], *t.shape[1:]) for part, t in zip(parts, tensors, strict=True)
    )


class _Fetch(torch.autograd.Function):
    """Rows [num_rows, C] to halo rows [num_halo, C]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        return exchange.start([x], exchange.all_rows()).wait()[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return _Return.apply(grad, ctx.exchange), None  # type: ignore[no-untyped-call]


class _Return(torch.autograd.Function):
    """Rows of the halo [num_halo, C] to the sums of their copies at the owner [num_rows, C]."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        rows = exchange.all_rows()
        received = exchange.start_back([grad], rows).wait()[0]
        total = grad.new_zeros(exchange.num_rows, grad.shape[1])
        exchange.add_back(total, received, rows)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return _Fetch.apply(grad, ctx.exchange), None  # type: ignore[no-untyped-call]
