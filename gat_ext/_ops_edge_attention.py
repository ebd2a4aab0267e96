"""edge_attention for torch: fake kernels, and the gradient of the gradient through the unfused operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext._ops import Grads, _edge_rows, accumulate_dtype, ops
from gat_ext.reference import SCORES

# Positions in the argument list of edge_attention.
_FIRST_INPUT, _NUM_INPUTS = 7, 9
_INPUTS = slice(_FIRST_INPUT, _FIRST_INPUT + _NUM_INPUTS)  # value … edge_feat
_NUM_SHARED = 22  # what edge_attention_backward takes over: all but top_k and return_weights


@torch.library.register_fake("gat_ext::edge_attention")
def _(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rowptr, col, t_rowptr, value = args[0], args[1], args[3], args[_FIRST_INPUT]
    top_k, return_weights = args[-2:]
    num_dst, num_edges = rowptr.shape[0] - 1, col.shape[0]
    _, heads, channels = value.shape
    accumulate = accumulate_dtype(value.dtype)
    keep_accumulated = value.dtype != accumulate and t_rowptr is not None
    return (
        value.new_empty((num_dst, heads, channels)),
        value.new_empty((num_dst, heads), dtype=accumulate),
        value.new_empty((num_dst, heads, channels) if keep_accumulated else (0,), dtype=accumulate),
        value.new_empty((num_edges, heads) if top_k > 0 else (0,), dtype=torch.uint8),
        value.new_empty((num_edges, heads) if return_weights else (0,)),
    )


@torch.library.register_fake("gat_ext::edge_attention_backward")
def _(*args: Any) -> tuple[Tensor, ...]:
    value, needs_grad = args[_FIRST_INPUT], args[-1]
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if needed and tensor is not None
        else value.new_empty(0)
        for tensor, needed in zip(args[_INPUTS], needs_grad, strict=True)
    )


# ---- second derivatives

# Scores whose sum over features is a dot product, which sddmm computes without gathering rows.
_DOT_PRODUCTS = ("dot", "cosine")


def _backward_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    shared, rest = inputs[:_NUM_SHARED], inputs[_NUM_SHARED:]
    grad_out, grad_lse, grad_weights, _, lse, selected, _, needs_grad = rest
    ctx.save_for_backward(*shared[:17], grad_out, grad_lse, grad_weights, lse, selected)
    ctx.constants = shared[17:]
    ctx.needs_grad = needs_grad


def _double_backward(ctx: Any, *upstream: Tensor | None) -> Grads:
    """Differentiates the unfused composition twice.

    ``out``, ``lse`` and ``weights`` are functions of the inputs; the composition recomputes them, so all of the second
    derivative goes to the inputs and to the upstream gradients, none to the saved results.
    """
    *saved, grad_out, grad_lse, grad_weights, lse, selected = ctx.saved_tensors
    graph, inputs, seed = saved[:_FIRST_INPUT], saved[_INPUTS], saved[16]
    with torch.enable_grad():
        leaves = [t if t is None else t.detach().requires_grad_() for t in inputs]
        grads = [
            t if t is None else t.detach().requires_grad_()
            for t in (grad_out, grad_weights, grad_lse)
        ]
        outputs = _compose(graph, leaves, seed, ctx.constants, lse, selected)
        used = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None]
        present = [t for t in leaves if t is not None]
        first = iter(
            torch.autograd.grad(
                [o for o, _ in used],
                present,
                [g for _, g in used],
                create_graph=True,
                allow_unused=True,
            )
        )
        by_input = [None if t is None else next(first) for t in leaves]
        paired = [
            (d, u)
            for d, u, needed in zip(by_input, upstream, ctx.needs_grad, strict=True)
            if needed and d is not None and u is not None and d.requires_grad
        ]
        wrt = present + [g for g in grads if g is not None]
        second: tuple[Tensor | None, ...] = (None,) * len(wrt)
        if paired:
            second = torch.autograd.grad(
                [d for d, _ in paired], wrt, [u for _, u in paired], allow_unused=True
            )
    rest = iter(second)
    input_grads = [None if t is None else next(rest) for t in leaves]
    grad_grads = [None if g is None else next(rest) for g in grads]
    g_out, g_weights, g_lse = grad_grads
    return (
        *([None] * _FIRST_INPUT),
        *input_grads,
        *([None] * 6),  # seed and the five constants
        *(g_out, g_lse, g_weights),
        *([None] * 5),  # out_acc, lse, selected, weights, needs_grad
    )


torch.library.register_autograd(
    "gat_ext::edge_attention_backward", _double_backward, setup_context=_backward_setup
)


def _compose(
    graph: list[Any],
    inputs: list[Tensor | None],
    seed: Tensor | None,
    constants: tuple[Any, ...],
    lse: Tensor,
    selected: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """(out, weights, lse) by edge_softmax, sddmm, spmm and index operators, all twice differentiable.

    Features are gathered into [E, H, D] here, and only here, unless the score is a plain dot product.
    """
    rowptr, col, edge_id, t_rowptr, t_col, t_pos, t_edge_id = graph
    value, _, _, _, _, _, _, bias, edge_feat = inputs
    _, edge_in_value, _, _, dropout_p = constants
    assert value is not None
    csr = rowptr, col, edge_id, t_rowptr, t_col, t_pos if t_edge_id is None else t_edge_id
    num_edges = col.shape[0]
    dst = _edge_rows(rowptr, edge_id, num_edges)
    scores = _scores(csr, inputs, constants, dst)
    if bias is not None:
        scores = scores + bias
    if selected.numel():
        scores = scores.masked_fill(_to_caller_order(selected, edge_id) == 0, -torch.inf)
    alpha = ops.edge_softmax(rowptr, edge_id, scores)
    if dropout_p > 0:
        kept = ops.edge_dropout_mask(seed, num_edges, scores.shape[1], dropout_p)
        alpha = (alpha / (1 - dropout_p) if dropout_p < 1 else alpha).masked_fill(~kept, 0)
    out = ops.spmm(*csr, alpha, value)
    if edge_in_value:
        assert edge_feat is not None
        zeros = torch.zeros_like(out)
        out = out + zeros.index_add(0, dst, alpha.unsqueeze(-1) * edge_feat)
    empty = lse == -torch.inf
    shift = lse.masked_fill(empty, 0)
    total = torch.zeros_like(lse).index_add(0, dst, (scores - shift[dst]).exp().to(lse.dtype))
    lse = torch.where(empty, lse, shift + total.masked_fill(empty, 1).log())
    return out, alpha, lse


def _scores(
    csr: tuple[Any, ...], inputs: list[Tensor | None], constants: tuple[Any, ...], dst: Tensor
) -> Tensor:
    value, query, key, att, dst_term, src_term, edge_term, _, edge_feat = inputs
    score, _, slope, scale, _ = constants
    if score != "additive":  # without a query or a key they are the value
        query, key = value if query is None else query, value if key is None else key
    src = _to_caller_order(csr[1], csr[2]).long()
    dst_e = None if dst_term is None else dst_term[dst]
    src_e = None if src_term is None else src_term[src]
    if src_e is not None and edge_term is not None:
        src_e = src_e + edge_term
    if score in _DOT_PRODUCTS and edge_feat is None:
        scores: Tensor = scale * ops.sddmm(*csr, query, key)
        return scores if dst_e is None or src_e is None else scores * dst_e * src_e
    query_e = None if query is None else query[dst]
    key_e = None if key is None else key[src]
    if key_e is not None and edge_feat is not None:
        key_e = key_e + edge_feat
    return SCORES[score](query_e, key_e, att, dst_e, src_e, slope, scale)


def _to_caller_order(values: Tensor, edge_id: Tensor | None) -> Tensor:
    if edge_id is None:
        return values
    return torch.empty_like(values).index_copy(0, edge_id.long(), values)
