"""Attention over a DistGraph: how rows of other processes reach the edges that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gat_ext.distributed import heads
from gat_ext.distributed.backward import Backward
from gat_ext.distributed.pieces import (
    SOURCES,
    Piece,
    RowResults,
    State,
    forward_piece,
    piece_inputs,
    sources_of,
)
from gat_ext.functional import fused
from gat_ext.functional.checks import autocast_is_on
from gat_ext.functional.fused import without_shared
from gat_ext.ops.arguments import Inputs
from gat_ext.ops.scores import TRAITS
from gat_ext.ops.state import is_tracing, is_transformed

if TYPE_CHECKING:
    from gat_ext.distributed.graph import DistGraph

MODES = ("overlap", "sequential", "heads", "gather")


def attend(graph: DistGraph, inputs: Any, options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(out, weights, lse) of edge_attention over a DistGraph.

    Args:
        graph: the graph.
        inputs: checked ``Inputs``.
        options: ``AttentionOptions``.
    """
    if is_tracing() or is_transformed():
        raise NotImplementedError(
            "attention over a DistGraph runs eagerly and in reverse mode; call it outside "
            "torch.compile, torch.export, torch.func and forward-mode differentiation"
        )
    if autocast_is_on(inputs.value.device):
        device = inputs.value.device.type
        dtype = torch.get_autocast_dtype(device)
        cast = (t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in inputs)
        with torch.autocast(device, enabled=False):
            return attend(graph, Inputs(*cast), options)
    if graph.mode == "heads":
        return heads.attend(graph, inputs, options)
    special = options.top_k > 0 or options.edge_mask is not None or options.return_weights
    if graph.mode == "gather" or special:
        return gather(graph, inputs, options)
    given = without_shared(inputs)
    out, lse = _Pieces.apply(graph, options, *given)  # type: ignore[no-untyped-call]
    return out, out.new_empty(0), lse


def gather(graph: DistGraph, inputs: Any, options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(out, weights, lse), with the rows of all sources in one tensor; differentiable twice."""
    inputs = _explicit_query(inputs, options.constants)
    sources = sources_of(inputs)
    extended = dict(zip(map(id, sources), graph.extend(*sources), strict=True))
    given = {name: getattr(inputs, name) for name in SOURCES}
    changed = {name: extended[id(t)] for name, t in given.items() if t is not None}
    return fused.attend(graph.local, inputs._replace(**changed), options)


def _explicit_query(inputs: Any, constants: Any) -> Any:
    """Inputs with the query of a score that reads the value in place of an absent one."""
    if inputs.query is None and TRAITS[constants.score].has_term:
        return inputs._replace(query=inputs.value)
    return inputs


class _Pieces(torch.autograd.Function):
    """Attention in pieces; see Note [attention in pieces] in pieces.py."""

    @staticmethod
    def forward(ctx: Any, graph: DistGraph, options: Any, *given: Tensor | None) -> Any:
        inputs = _explicit_query(Inputs(*given), options.constants)
        for_backward = any(ctx.needs_input_grad)
        exchange, sources = graph.exchange, sources_of(inputs)
        kept: list[Tensor] = []
        if graph.mode == "overlap" or graph.group is None:
            pending = _start(exchange, sources, exchange.all_rows())
            state = State(_forward_own(graph, inputs, options, for_backward))
            if pending is not None:
                kept = pending.wait()
                _merge(state, graph.halo_piece(), inputs, sources, kept, options, for_backward)
        else:
            state = State(_forward_own(graph, inputs, options, for_backward))
            for step in range(1, graph.part.parts):
                piece = graph.piece_of((graph.part.rank - step) % graph.part.parts)
                received = exchange.start(sources, exchange.rows_at(step)).wait()
                _merge(state, piece, inputs, sources, received, options, for_backward)
                del received
        acc = state.out if state.acc is None else state.acc
        ctx.graph, ctx.options, ctx.num_given = graph, options, len(given)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, acc, state.softmax, *kept)
        return state.out, state.lse() if options.return_lse else state.out.new_empty(0)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> Any:
        saved = ctx.saved_tensors
        given, (acc, softmax, *kept) = saved[: ctx.num_given], saved[ctx.num_given :]
        needed = Inputs(*ctx.needs_input_grad[2:])
        if torch.is_grad_enabled():
            return None, None, *_differentiable(ctx, given, needed, grad_out, grad_lse)
        inputs = _explicit_query(Inputs(*given), ctx.options.constants)
        if grad_out is None:
            heads, channels = given[0].shape[1:]
            grad_out = given[0].new_zeros(acc.shape[0], heads, channels)
        row = RowResults(grad_out, None if not ctx.options.return_lse else grad_lse, acc, softmax)
        return None, None, *Backward(ctx, inputs, needed, row).run(kept)


def _start(exchange: Any, sources: list[Tensor], rows: Any) -> Any:
    return None if exchange.group is None else exchange.start(sources, rows)


def _forward_own(graph: DistGraph, inputs: Any, options: Any, for_backward: bool) -> Any:
    piece = graph.own_piece()
    return forward_piece(piece, piece_inputs(piece, inputs, {}), options, for_backward)


def _merge(
    state: State,
    piece: Piece,
    inputs: Any,
    sources: list[Tensor],
    received: list[Tensor],
    options: Any,
    for_backward: bool,
) -> None:
    if piece.graph.num_edges == 0:
        return
    halo = dict(zip(map(id, sources), received, strict=True))
    given = piece_inputs(piece, inputs, halo)
    state.merge(piece.rows, forward_piece(piece, given, options, for_backward))


def _differentiable(
    ctx: Any, given: Any, needed: Any, grad_out: Tensor | None, grad_lse: Tensor | None
) -> list[Tensor | None]:
    """The gradients in differentiable operators, for derivatives after the first."""
    leaves = [t if t is None or not n else t.view_as(t) for t, n in zip(given, needed, strict=True)]
    options = ctx.options._replace(return_lse=grad_lse is not None)
    out, _, lse = gather(ctx.graph, Inputs(*leaves), options)
    results = [(out, grad_out), (lse, grad_lse)]
    present = [(r, g) for r, g in results if g is not None]
    wanted = [t for t, n in zip(leaves, needed, strict=True) if n]
    found = iter(
        torch.autograd.grad(
            [r for r, _ in present],
            wanted,
            [g for _, g in present],
            create_graph=True,
            allow_unused=True,
        )
    )
    return [next(found) if n else None for n in needed]
