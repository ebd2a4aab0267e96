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
        count, sizes = rows.recv.stop - rows.recv.start, (rows.recv_sizes, rows.send_sizes)
        sent = [t.detach().index_select(0, index) for t in tensors]
        self.traffic.forward += sum(t.nbytes for t in sent)
        return _start(sent, count, *sizes, self.group)

    def start_back(self, gradients: Sequence[Tensor], rows: Rows) -> Pending:
        """Starts to send gradients of received rows to their owners."""
        count, sizes = rows.send.stop - rows.send.start, (rows.send_sizes, rows.recv_sizes)
        self.traffic.backward += sum(g.nbytes for g in gradients)
        return _start([g.detach() for g in gradients], count, *sizes, self.group)

    def add_back(self, into: Tensor, gradient: Tensor, rows: Rows) -> None:
        """Adds received gradients of sent rows to those of the own rows, in a fixed order."""
        if gradient.numel() == 0:
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
    """Rows that are on their way."""

    def __init__(self, received: list[Tensor], works: list[Any], group: Any) -> None:
        self._received, self._works, self._group = received, works, group

    def wait(self) -> list[Tensor]:
        """The received rows of each tensor."""
        with naming_the_dead(self._group):
            for work in self._works:
                work.wait()
        return self._received


def _start(
    tensors: list[Tensor],
    count: int,
    recv_sizes: Sequence[int],
    send_sizes: Sequence[int],
    group: Any,
) -> Pending:
    """Starts a message for each tensor, to receive ``count`` rows.

    Rows travel as bytes, because not all transports know all dtypes. Several tensors are not
    packed into one message: it would cost two copies of all rows.
    """
    received, works = [], []
    for tensor in tensors:
        buffer = tensor.new_empty(count, *tensor.shape[1:])
        received.append(buffer)
        if group is None:
            continue
        data, into = (_bytes(t) for t in (tensor.contiguous(), buffer))
        sizes = list(recv_sizes), list(send_sizes)
        with naming_the_dead(group):
            work = dist.all_to_all_single(into, data, *sizes, group=group, async_op=True)
        works.append(work)
    return Pending(received, works, group)


def _bytes(tensor: Tensor) -> Tensor:
    """uint8 [N, B], the bytes of the rows."""
    width = prod(tensor.shape[1:]) * tensor.element_size()
    # Flat first, because rows of no elements cannot be viewed as bytes.
    return tensor.view(-1).view(torch.uint8).view(tensor.shape[0], width)


# ---- differentiable, any number of times


def fetch(exchange: Exchange, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The halo rows of tensors [num_rows, …]; differentiable."""
    if exchange.group is None:
        return tuple(t[:0] for t in tensors)
    halo: tuple[Tensor, ...] = _Fetch.apply(exchange, *tensors)  # type: ignore[no-untyped-call]
    return halo


class _Fetch(torch.autograd.Function):
    """Rows [num_rows, …] to halo rows [num_halo, …], of several tensors."""

    @staticmethod
    def forward(ctx: Any, exchange: Exchange, *tensors: Tensor) -> Any:
        ctx.exchange = exchange
        return tuple(exchange.start(tensors, exchange.all_rows()).wait())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, *_Return.apply(ctx.exchange, *grads)  # type: ignore[no-untyped-call]


class _Return(torch.autograd.Function):
    """Rows of the halo [num_halo, …] to the sums of their copies at the owner [num_rows, …]."""

    @staticmethod
    def forward(ctx: Any, exchange: Exchange, *grads: Tensor) -> Any:
        ctx.exchange = exchange
        rows = exchange.all_rows()
        totals = [g.new_zeros(exchange.num_rows, *g.shape[1:]) for g in grads]
        for total, received in zip(totals, exchange.start_back(grads, rows).wait(), strict=True):
            exchange.add_back(total, received, rows)
        return tuple(totals)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, *_Fetch.apply(ctx.exchange, *grads)  # type: ignore[no-untyped-call]
