"""Attention over a piece of the edges of a DistGraph, and the merge of several pieces.

Note [attention in pieces]. The edges of a destination are in pieces: those from own sources, and
those from the sources of other processes. Each piece yields its state (M, Z, out): the maximum of
its scores, the sum of its exponentials, and its weighted mean. Two states merge exactly:

    M = max(M_1, M_2),  Z = Σ_p exp(M_p - M) Z_p,  out = Σ_p exp(M_p - M) Z_p / Z · out_p.

M and Z are kept apart: their one-number form log Σ exp loses log Z to rounding where |M| is large.
The backward of a piece is that of the operator with the merged (M, Z) and δ_i = <g_i, out_i> of the
whole row, because ds_ij = α_ij (dα_ij - δ_i) needs nothing else of the other pieces. So a piece can
be computed from rows that are received again, and no rows of other processes have to be kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gat_ext.functional.dispatch import sorted_arguments
from gat_ext.functional.fused import without_shared
from gat_ext.graph import Graph
from gat_ext.ops.arguments import (
    PER_EDGE,
    EdgeAttention,
    EdgeAttentionBackward,
    Inputs,
    Results,
    is_absent,
)
from gat_ext.ops.registry import ops

SOURCES = ("value", "key", "src_term")
DESTINATIONS = ("query", "dst_term")


class Piece(NamedTuple):
    """Some of the edges of a part, with rows and columns of their own.

    Attributes:
        graph: the edges; its sources are the own ones, or those of ``halo``.
        rows: int64 [n], the destinations of the graph among the own ones; None: all.
        edges: the slice of the part's edges.
        halo: the slice of the halo that holds the sources; None: own sources.
    """

    graph: Graph
    rows: Tensor | None
    edges: slice
    halo: slice | None


def piece_inputs(piece: Piece, inputs: Any, halo: dict[int, Tensor]) -> Any:
    """The inputs of one piece; ``halo`` has the received rows of tensors, by their id."""
    changed: dict[str, Any] = {}
    rows = piece.rows
    for name in PER_EDGE:
        tensor = getattr(inputs, name)
        if tensor is not None:
            changed[name] = tensor[piece.edges]
    if piece.halo is not None:
        for name in SOURCES:
            tensor = getattr(inputs, name)
            if tensor is not None:
                changed[name] = halo[id(tensor)]
        for name in DESTINATIONS:
            tensor = getattr(inputs, name)
            if tensor is not None:
                changed[name] = tensor if rows is None else tensor.index_select(0, rows)
    return without_shared(inputs._replace(**changed))


def sources_of(inputs: Any) -> list[Tensor]:
    """The tensors whose rows other processes need, each once."""
    present = [getattr(inputs, name) for name in SOURCES]
    return list({id(t): t for t in present if t is not None}.values())


def forward_piece(piece: Piece, inputs: Any, options: Any, for_backward: bool) -> Any:
    """The operator's results over one piece."""
    number = None if options.seed is None else piece.graph.edge_number
    arguments = EdgeAttention(
        *sorted_arguments(piece.graph, for_backward),
        *inputs,
        options.seed,
        number,
        *options.constants,
        0,
        False,
        False,
    )
    return Results(*ops.edge_attention(*arguments))


def _blocks(acc: Tensor, channels: int) -> list[Tensor]:
    """The blocks of out_acc, [N, H, F] and, with linear edge features, [N, H, K] after it."""
    rows, heads, width = acc.shape
    if width == channels:
        return [acc]
    flat, count = acc.view(-1), rows * heads * channels
    return [
        flat[:count].view(rows, heads, channels),
        flat[count:].view(rows, heads, width - channels),
    ]


def _rows_of_acc(acc: Tensor, rows: Tensor, channels: int) -> Tensor:
    """The rows of out_acc, in the same layout."""
    blocks = [block.index_select(0, rows) for block in _blocks(acc, channels)]
    if len(blocks) == 1:
        return blocks[0]
    return torch.cat([block.view(-1) for block in blocks]).view(rows.shape[0], *acc.shape[1:])


def _set_rows(total: Tensor, rows: Tensor | None, part: Tensor) -> None:
    """Stores rows, or all of them."""
    if rows is not None:
        total.index_copy_(0, rows, part)
    elif part is not total:
        total.copy_(part)


class State:
    """The merged results of the pieces so far.

    Attributes:
        out: [N_dst, H, F].
        acc: out before rounding, or with further columns; None if it is out.
        softmax: [N_dst, H, 2], M and 1 / Z; (inf, 0) for rows without edges.
    """

    def __init__(self, results: Any) -> None:
        self.out, self.softmax = results.out, results.softmax
        self.acc = None if is_absent(results.out_acc) else results.out_acc

    def merge(self, rows: Tensor | None, results: Any) -> None:
        """Merges the results over a piece into those of its rows, in place."""
        own = self.softmax if rows is None else self.softmax.index_select(0, rows)
        both = own, results.softmax
        tops = [torch.where(s[..., 1] == 0, -torch.inf, s[..., 0]) for s in both]
        top = torch.maximum(*tops)
        shift = torch.where(top == -torch.inf, 0, top)
        sums = [
            torch.where(s[..., 1] == 0, 0, (t - shift).exp() / s[..., 1])
            for s, t in zip(both, tops, strict=True)
        ]
        total = sums[0] + sums[1]
        empty = total == 0
        scale = torch.where(empty, 0, 1 / total)
        merged = torch.stack([torch.where(empty, torch.inf, shift), scale], -1)
        _set_rows(self.softmax, rows, merged)
        weights = [(s * scale).unsqueeze(-1) for s in sums]
        pairs = [(self.out, results.out)]
        if self.acc is not None:
            channels = self.out.shape[-1]
            blocks = _blocks(self.acc, channels), _blocks(results.out_acc, channels)
            pairs += list(zip(*blocks, strict=True))
        for mine, other in pairs:
            part = mine if rows is None else mine.index_select(0, rows)
            part.mul_(weights[0]).add_(other.mul_(weights[1]))
            _set_rows(mine, rows, part)

    def lse(self) -> Tensor:
        """Log Σ exp s, [N_dst, H]."""
        shift, scale = self.softmax[..., 0], self.softmax[..., 1]
        return torch.where(scale == 0, -torch.inf, shift - scale.log())


class RowResults:
    """Upstream gradients and results of all destinations."""

    def __init__(
        self, grad_out: Tensor, grad_lse: Tensor | None, acc: Tensor, softmax: Tensor
    ) -> None:
        self.tensors = (grad_out, grad_lse, acc, softmax)

    def of(self, rows: Tensor | None) -> tuple[Tensor | None, ...]:
        """Those of some rows, or of all."""
        if rows is None:
            return self.tensors
        grad_out, grad_lse, acc, softmax = self.tensors
        return (
            grad_out.index_select(0, rows),
            None if grad_lse is None else grad_lse.index_select(0, rows),
            _rows_of_acc(acc, rows, grad_out.shape[-1]),
            softmax.index_select(0, rows),
        )


def backward_piece(piece: Piece, inputs: Any, options: Any, needed: Any, row: RowResults) -> Any:
    """The gradients of the inputs of one piece."""
    grad_out, grad_lse, acc, softmax = row.of(piece.rows)
    assert acc is not None
    absent = acc.new_empty(0)
    number = None if options.seed is None else piece.graph.edge_number
    wanted = [n and t is not None for n, t in zip(needed, inputs, strict=True)]
    arguments = EdgeAttentionBackward(
        *sorted_arguments(piece.graph, True),
        *inputs,
        options.seed,
        number,
        *options.constants,
        grad_out,
        grad_lse,
        None,
        acc,
        softmax,
        absent.to(torch.uint8),
        absent,
        wanted,
    )
    return Inputs(*ops.edge_attention_backward(*arguments))
