"""The backward of attention in pieces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.distributed.exchange import Pending, Rows
from gat_ext.distributed.pieces import (
    DESTINATIONS,
    SOURCES,
    Piece,
    RowResults,
    backward_piece,
    piece_inputs,
    sources_of,
)
from gat_ext.ops.arguments import PER_EDGE, Inputs, is_absent


class Backward:
    """The gradients of all inputs, with those of received rows sent back to their owners."""

    def __init__(self, ctx: Any, inputs: Any, needed: Any, row: RowResults) -> None:
        self.graph, self.options = ctx.graph, ctx.options
        self.inputs, self.needed, self.row = inputs, needed, row
        self.total = Gradients(inputs, needed)
        self.sources = sources_of(inputs)
        self.wanted = [t for t in self.sources if _is_needed(inputs, needed, t)]
        # The query that stands for an absent one; its gradient is part of that of the value.
        self.shares_query = needed.value and inputs.query is inputs.value

    def run(self, kept: list[Tensor]) -> list[Tensor | None]:
        """The gradients; ``kept`` are the received rows of mode "overlap"."""
        graph, exchange = self.graph, self.graph.exchange
        if exchange.group is None:
            self._own()
        elif graph.mode == "overlap":
            rows, piece = exchange.all_rows(), graph.halo_piece()
            found = self._piece(piece, kept)
            back = exchange.start_back(self._of_sources(found, kept), rows) if self.wanted else None
            self._own()
            self._add(piece, found)
            self._add_back(back, rows)
        else:
            self._own()
            for step in range(1, graph.part.parts):
                self._step(step)
        return [self.total.of.get(name) for name in Inputs._fields]

    def _step(self, step: int) -> None:
        """The piece of one process, whose rows are received again."""
        graph, exchange = self.graph, self.graph.exchange
        rows = exchange.rows_at(step)
        received = exchange.start(self.sources, rows).wait()
        piece = graph.piece_of((graph.part.rank - step) % graph.part.parts)
        found = self._piece(piece, received)
        self._add(piece, found)
        if self.wanted:
            of_sources = self._of_sources(found, received)
            del found, received  # they are as large as what is received now
            self._add_back(exchange.start_back(of_sources, rows), rows)

    def _own(self) -> None:
        piece = self.graph.own_piece()
        given = piece_inputs(piece, self.inputs, {})
        found = backward_piece(piece, given, self.options, self.needed, self.row)
        self.total.set(piece, found)

    def _piece(self, piece: Piece, received: list[Tensor]) -> Any:
        """The gradients of the inputs of a piece of the halo; None if it has no edges."""
        if piece.graph.num_edges == 0:
            return None
        halo = dict(zip(map(id, self.sources), received, strict=True))
        given = piece_inputs(piece, self.inputs, halo)
        needed = self.needed._replace(query=self.needed.query or self.shares_query)
        return backward_piece(piece, given, self.options, needed, self.row)

    def _add(self, piece: Piece, found: Any) -> None:
        if found is None:
            return
        if self.shares_query:
            self.total.add_rows("value", piece, found.query)
        self.total.add(piece, found)

    def _of_sources(self, found: Any, received: list[Tensor]) -> list[Tensor]:
        """The gradients of the received rows that their owners need."""
        return [
            torch.zeros_like(rows) if found is None else _of_source(self.inputs, found, tensor)
            for tensor, rows in zip(self.sources, received, strict=True)
            if any(tensor is each for each in self.wanted)
        ]

    def _add_back(self, back: Pending | None, rows: Rows) -> None:
        """Adds the gradients of rows that this process sent."""
        for tensor, gradient in zip(self.wanted, back.wait() if back else [], strict=True):
            name = next(
                name
                for name in SOURCES
                if getattr(self.inputs, name) is tensor and getattr(self.needed, name)
            )
            self.graph.exchange.add_back(self.total.of[name], gradient, rows)


def _is_needed(inputs: Any, needed: Any, tensor: Tensor) -> bool:
    return any(getattr(needed, name) for name in SOURCES if getattr(inputs, name) is tensor)


def _of_source(inputs: Any, found: Any, tensor: Tensor) -> Tensor:
    """The gradient of received rows, summed over the inputs that read them."""
    grads = [getattr(found, name) for name in SOURCES if getattr(inputs, name) is tensor]
    grads = [grad for grad in grads if not is_absent(grad)]
    total: Tensor = grads[0] if len(grads) == 1 else torch.stack(grads).sum(0)
    return total


class Gradients:
    """Sums of the gradients of all pieces, by input."""

    def __init__(self, inputs: Any, needed: Any) -> None:
        self.of: dict[str, Tensor] = {}
        self._inputs, self._needed = inputs, needed

    def set(self, piece: Piece, found: Any) -> None:
        """Stores the gradients of the piece among own nodes, which comes first."""
        for name, needed in zip(Inputs._fields, self._needed, strict=True):
            if not needed:
                continue
            grad, like = getattr(found, name), getattr(self._inputs, name)
            if name in PER_EDGE and like.shape[0] > piece.graph.num_edges:
                total = like.new_zeros(like.shape)
                total[piece.edges] = grad
                self.of[name] = total
            else:
                self.of[name] = torch.zeros_like(like) if is_absent(grad) else grad

    def add(self, piece: Piece, found: Any) -> None:
        """Adds the gradients of another piece, except those of its sources."""
        for name, total in self.of.items():
            grad = getattr(found, name)
            if name in SOURCES or is_absent(grad):
                continue
            if name in PER_EDGE:
                total[piece.edges] = grad
            elif name in DESTINATIONS:
                self.add_rows(name, piece, grad)
            else:
                total += grad

    def add_rows(self, name: str, piece: Piece, grad: Tensor) -> None:
        """Adds the gradients of the rows of a piece."""
        total, rows = self.of[name], piece.rows
        if rows is None:
            total += grad
        else:
            total.index_copy_(0, rows, total.index_select(0, rows).add_(grad))
