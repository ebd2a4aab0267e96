"""edge_attention composed of operators that are differentiable any number of times.

Used for second and higher derivatives: the function is composed of unfused operators, and the
composition is differentiated twice, with create_graph if torch may differentiate the result again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gat_ext.ops.arguments import (
    PER_EDGE,
    Constants,
    EdgeAttentionBackward,
    Inputs,
    gradients,
    is_absent,
    save,
    select,
)
from gat_ext.ops.registry import Grads, accumulate_dtype, ops
from gat_ext.ops.scatter import edge_rows, row_softmax, row_sum, to_caller_order
from gat_ext.ops.scores import DOT_PRODUCTS, SCORES, TRAITS, ScoreInputs
from gat_ext.ops.state import is_tracing

Tensors = Sequence[Tensor | None]
Attention = Callable[[Tensors], tuple[Tensor, Tensor, Tensor]]
"""A function from the inputs to (out, weights, lse)"""


class Edges(NamedTuple):
    """The graph of a composition, with edges in the caller's order.

    Attributes:
        src: [E], sources.
        dst: [E], destinations.
        attended: [E, H] or [E, 1], bool: edges in the softmax; None for all.
        kept: [E, H], bool: weights that dropout keeps; None for all.
        is_edge: [E], bool: rows of per-edge tensors that are read; None for all.
        csr: the graph arguments of sddmm and spmm, to use these operators; None uses torch's
            operators only, which gather rows into [E, H, D] and can be traced and transformed.
    """

    src: Tensor
    dst: Tensor
    attended: Tensor | None
    kept: Tensor | None
    is_edge: Tensor | None
    csr: tuple[Any, ...] | None


def edges_of_graph(a: Any) -> Edges:
    """The edges in the arguments of edge_attention_backward."""
    num_dst, num_edges, edge_id = a.rowptr.shape[0] - 1, a.col.shape[0], a.edge_id
    src, dst = to_caller_order(a.col, edge_id).long(), edge_rows(a.rowptr, edge_id, num_edges)
    attended = None if is_absent(a.selected) else to_caller_order(a.selected, edge_id) != 0
    is_edge, csr = None, None
    if _all_belong_to_rows(a):
        position = a.t_pos if a.t_edge_id is None else a.t_edge_id
        csr = a.rowptr, a.col, edge_id, a.t_rowptr, a.t_col, position
    else:
        is_edge = dst < num_dst
        dst = torch.where(is_edge, dst, 0)
        attended = is_edge.unsqueeze(-1) if attended is None else attended
    kept = dropout_mask(a.seed, num_edges, a.value.shape[1], a.dropout_p, a.edge_number)
    return Edges(src, dst, attended, kept, is_edge, csr)


def _all_belong_to_rows(a: Any) -> bool:
    """False if edges may belong to no row, as those of slots do."""
    if a.degrees is not None:
        return True
    return not is_tracing() and a.rowptr.is_cpu and int(a.rowptr[-1]) == a.col.shape[0]


def dropout_mask(
    seed: Tensor | None, num_edges: int, heads: int, p: float, edge_number: Tensor | None
) -> Tensor | None:
    """[E, H], bool: False for the weights that dropout drops; None if it drops none."""
    if p <= 0:
        return None
    kept: Tensor = ops.edge_dropout_mask(seed, num_edges, heads, p, edge_number)
    return kept


# ---- the composition


def compose(
    edges: Edges, inputs: Any, constants: Any, num_dst: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(out, weights, lse) of edge_attention.

    Gathers features into [E, H, D], unless the score is a plain dot product and ``edges.csr`` is
    given.

    Args:
        edges: the edges.
        inputs: ``Inputs``.
        constants: ``Constants``.
        num_dst: N_dst.
    """
    given, csr = inputs.value.dtype, edges.csr
    inputs = _read(edges, inputs)
    scores = _masked_scores(edges, inputs, constants)
    value, dropout_p, dst = inputs.value, constants.dropout_p, edges.dst
    alpha, lse = row_softmax(scores, dst, num_dst)
    if csr is not None:
        alpha = ops.edge_softmax(csr[0], csr[2], scores)
    if edges.kept is not None:
        alpha = (alpha / (1 - dropout_p) if dropout_p < 1 else alpha).masked_fill(~edges.kept, 0)

    def gathered(messages: Tensor) -> Tensor:
        return row_sum(alpha.unsqueeze(-1) * messages, dst, num_dst)

    out = gathered(value[edges.src]) if csr is None else ops.spmm(*csr, alpha, value)
    if constants.edge_in_value:
        out = out + gathered(inputs.edge_feat)
    return out.to(given), alpha.to(given), lse


def _read(edges: Edges, inputs: Any) -> Any:
    """Inputs in the fused operator's accumulation dtype, with 0 in entries it does not read.

    Linear edge features become edge_feat.
    """
    wide = Inputs(*(t if t is None else t.to(accumulate_dtype(t.dtype)) for t in inputs))
    if edges.is_edge is not None:
        for name in PER_EDGE:
            tensor = getattr(wide, name)
            if tensor is not None:
                unread = ~edges.is_edge.view(-1, *[1] * (tensor.dim() - 1))
                wide = wide._replace(**{name: tensor.masked_fill(unread, 0)})
    if wide.edge_attr is not None:
        edge_feat = torch.einsum("ek,hdk->ehd", wide.edge_attr, wide.edge_map)
        wide = wide._replace(edge_feat=edge_feat, edge_attr=None, edge_map=None)
    return wide


def scores_of(edges: Edges, inputs: Any, constants: Any) -> Tensor:
    """The scores of all edges and heads, [E, H], with bias; -inf for edges not attended."""
    return _masked_scores(edges, _read(edges, inputs), constants)


def _masked_scores(edges: Edges, inputs: Any, constants: Any) -> Tensor:
    scores = _scores(edges, inputs, constants)
    if inputs.bias is not None:
        scores = scores + inputs.bias
    if edges.attended is not None:
        scores = scores.masked_fill(~edges.attended, -torch.inf)
    return scores


def _scores(edges: Edges, inputs: Any, constants: Any) -> Tensor:
    value, query, key = inputs.value, inputs.query, inputs.key
    if TRAITS[constants.score].has_term:  # an absent query or key is the value
        query, key = value if query is None else query, value if key is None else key
    src, dst = edges.src, edges.dst
    dst_e = None if inputs.dst_term is None else inputs.dst_term[dst]
    src_e = None if inputs.src_term is None else inputs.src_term[src]
    if src_e is not None and inputs.edge_term is not None:
        src_e = src_e + inputs.edge_term
    read = ScoreInputs(
        None, None, inputs.att, dst_e, src_e, constants.negative_slope, constants.scale
    )
    no_edge_feat = inputs.edge_feat is None
    if edges.csr is not None and constants.score in DOT_PRODUCTS and no_edge_feat:
        return SCORES[constants.score].finish(ops.sddmm(*edges.csr, query, key), read)
    query_e = None if query is None else query[dst]
    key_e = None if key is None else key[src]
    if key_e is not None and inputs.edge_feat is not None:
        key_e = key_e + inputs.edge_feat
    return SCORES[constants.score].of_edges(read._replace(query=query_e, key=key_e))


# ---- second derivatives

Second = tuple[list[Tensor | None], list[Tensor | None]]
"""Gradients of the inputs, and of the upstream gradients of out, weights and lse."""


def save_for_double_backward(ctx: Any, inputs: tuple[Any, ...]) -> None:
    """Saves the arguments of edge_attention_backward in the context of its autograd function."""
    ctx.set_materialize_grads(False)
    a = EdgeAttentionBackward(*inputs)
    save(ctx, a._replace(out_acc=None, softmax=None, weights=None))  # they are recomputed


def double_backward(a: Any, upstream: Tensors, differentiate: Callable[..., Second]) -> Grads:
    """The gradients of the arguments of edge_attention_backward.

    The composition recomputes ``out``, ``lse`` and ``weights`` from the inputs, so the second
    derivative has parts for the inputs and the upstream gradients, and none for the saved results.

    Args:
        a: the arguments.
        upstream: the gradients of the operator's results.
        differentiate: :func:`second_by_autograd` or :func:`second_by_transform`.
    """
    edges, constants, num_dst = edges_of_graph(a), select(Constants, a), a.rowptr.shape[0] - 1
    input_grads, (grad_out, grad_weights, grad_lse) = differentiate(
        lambda inputs: compose(edges, Inputs(*inputs), constants, num_dst),
        select(Inputs, a),
        (a.grad_out, a.grad_weights, a.grad_lse),
        [u if needed else None for u, needed in zip(upstream, a.needs_grad, strict=True)],
    )
    by_name = dict(zip(Inputs._fields, input_grads, strict=True))
    by_name |= {"grad_out": grad_out, "grad_weights": grad_weights, "grad_lse": grad_lse}
    return gradients(a, by_name)


def second_by_autograd(
    attention: Attention, inputs: Tensors, grads: Tensors, upstream: Tensors
) -> Second:
    """Double backward of ``attention`` by torch.autograd.

    Args:
        attention: the composition.
        inputs: its inputs.
        grads: the upstream gradients of its three results in the first derivative, or None.
        upstream: the upstream gradient of the first derivative for each input, or None.
    """
    again = torch.is_grad_enabled()  # a third derivative may follow
    with torch.enable_grad():
        leaves, roots = [_leaf(t) for t in inputs], [_leaf(t) for t in grads]
        pairs = [(o, g) for o, g in zip(attention(leaves), roots, strict=True) if g is not None]
        present = [t for t in leaves if t is not None]
        first = iter(_gradients(pairs, present, create_graph=True))
        by_input = [None if t is None else next(first) for t in leaves]
        paired = [
            (d, u)
            for d, u in zip(by_input, upstream, strict=True)
            if d is not None and u is not None and d.requires_grad
        ]
        wrt = present + [g for g in roots if g is not None]
        second = iter(_gradients(paired, wrt, create_graph=again))
    return (
        [None if t is None else next(second) for t in leaves],
        [None if g is None else next(second) for g in roots],
    )


def _leaf(tensor: Tensor | None) -> Tensor | None:
    """An alias of a tensor, through which higher derivatives reach the tensor itself."""
    if tensor is None:
        return None
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


def _gradients(
    pairs: list[tuple[Tensor, Tensor]], wrt: list[Tensor], create_graph: bool
) -> tuple[Tensor | None, ...]:
    if not pairs:
        return (None,) * len(wrt)
    outputs, grads = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, wrt, grads, create_graph=create_graph, allow_unused=True)


def second_by_transform(
    attention: Attention, inputs: Tensors, grads: Tensors, upstream: Tensors
) -> Second:
    """As :func:`second_by_autograd`, within transformations of torch.func."""
    given = [t is not None for t in inputs]
    asked = [g is not None for g in grads]
    count = sum(given)

    def results(*present: Tensor) -> tuple[Tensor, ...]:
        rest = iter(present)
        found = attention([next(rest) if there else None for there in given])
        return tuple(t for t, there in zip(found, asked, strict=True) if there)

    def first(*tensors: Tensor) -> tuple[Tensor, ...]:
        pull = torch.func.vjp(results, *tensors[:count])[1]
        gradients: tuple[Tensor, ...] = pull(tensors[count:])
        return gradients

    tensors = [t for t in (*inputs, *grads) if t is not None]
    values, pull = torch.func.vjp(first, *tensors)[:2]
    known = [u for u, there in zip(upstream, given, strict=True) if there]
    cotangents = tuple(
        torch.zeros_like(v) if u is None else u for v, u in zip(values, known, strict=True)
    )
    second = iter(pull(cotangents))
    return (
        [next(second) if there else None for there in given],
        [next(second) if there else None for there in asked],
    )
