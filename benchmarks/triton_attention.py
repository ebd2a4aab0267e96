"""Graph attention in Triton, as a peer on a GPU: one program for each node, all heads in a block.

Three kernels: forward; the backward of each destination, for the gradients of its query (or node
term); and the backward of each source, over the transposed CSR, for those of its key (or node term)
and value. Both recompute scores and weights, so nothing is stored for each edge. Scores are
"additive", "additive_v2" and "dot" (the formulas of ``formulas.py``); "cosine" is "dot" of
``F.normalize``. TRITON_INTERPRET=1 runs the kernels on the CPU, slowly.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from formulas import SLOPE
from torch import Tensor

ADDITIVE, ADDITIVE_V2, DOT = 0, 1, 2
_SLOPE = tl.constexpr(SLOPE)
_REAL = {torch.float32: tl.float32, torch.float64: tl.float64}
_ADDITIVE, _ADDITIVE_V2 = tl.constexpr(ADDITIVE), tl.constexpr(ADDITIVE_V2)


class Adjacency(NamedTuple):
    """CSR of the in-edges and of the out-edges of each node."""

    rowptr: Tensor
    col: Tensor
    t_rowptr: Tensor
    t_col: Tensor

    @classmethod
    def of_edges(cls, edge_index: Tensor, num_nodes: int) -> Adjacency:
        """From sources and destinations, [2, E]."""
        src, dst = edge_index.int()
        return cls(*_csr(dst, src, num_nodes), *_csr(src, dst, num_nodes))


def _csr(row: Tensor, col: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    order = row.argsort(stable=True)
    counts = torch.bincount(row, minlength=num_nodes)
    return F.pad(counts.cumsum(0), (1, 0)).int(), col[order]


# ---- kernels. Blocks of heads, and of heads × channels, are padded to powers of two. "own" and
# "other" are the two ends of an edge. Of "additive", query and key are the node terms [N, H].


@triton.jit
def _of_node(tensor, node, h, d, heads, channels, real: tl.constexpr):
    """A row [head_block, channel_block] of a tensor [N, heads, channels]."""
    at = node.to(tl.int64) * heads * channels + h[:, None] * channels + d[None, :]
    return tl.load(tensor + at, (h[:, None] < heads) & (d[None, :] < channels), 0.0).to(real)


@triton.jit
def _of_heads(tensor, node, h, heads, real: tl.constexpr):
    """A row [head_block] of a tensor [N, heads]."""
    return tl.load(tensor + node.to(tl.int64) * heads + h, h < heads, 0.0).to(real)


@triton.jit
def _end(tensor, node, h, d, heads, channels, score: tl.constexpr, real: tl.constexpr):
    """What the score reads of an end of an edge."""
    if score == _ADDITIVE:
        return _of_heads(tensor, node, h, heads, real)
    else:
        return _of_node(tensor, node, h, d, heads, channels, real)


@triton.jit
def _store_of_node(tensor, node, values, h, d, heads, channels):
    at = node.to(tl.int64) * heads * channels + h[:, None] * channels + d[None, :]
    tl.store(tensor + at, values, (h[:, None] < heads) & (d[None, :] < channels))


@triton.jit
def _store_of_heads(tensor, node, values, h, heads):
    tl.store(tensor + node.to(tl.int64) * heads + h, values, h < heads)


@triton.jit
def _store_end(tensor, node, values, h, d, heads, channels, score: tl.constexpr):
    if score == _ADDITIVE:
        _store_of_heads(tensor, node, values, h, heads)
    else:
        _store_of_node(tensor, node, values, h, d, heads, channels)


@triton.jit
def _score(own, other, att, score: tl.constexpr):
    if score == _ADDITIVE:
        z = own + other
        return tl.where(z > 0, z, _SLOPE * z)
    elif score == _ADDITIVE_V2:
        z = own + other
        return tl.sum(att * tl.where(z > 0, z, _SLOPE * z), 1)
    else:
        return tl.sum(own * other, 1)


@triton.jit
def _score_grad(ds, own, other, att, score: tl.constexpr):
    """The gradient of one end, from that of the score [head_block] and the other end."""
    if score == _ADDITIVE:
        return tl.where(own + other > 0, ds, _SLOPE * ds)
    elif score == _ADDITIVE_V2:
        grad = ds[:, None] * att
        return tl.where(own + other > 0, grad, _SLOPE * grad)
    else:
        return ds[:, None] * other


@triton.jit
def _zeros(own, real: tl.constexpr):
    return tl.zeros(own.shape, real)


@triton.jit
def _forward(
    rowptr, col, query, key, value, att, out, lse, heads, channels,
    head_block: tl.constexpr, channel_block: tl.constexpr, score: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    h, d = tl.arange(0, head_block), tl.arange(0, channel_block)
    own = _end(query, row, h, d, heads, channels, score, real)
    weight = (
        _of_node(att, tl.zeros((), tl.int32), h, d, heads, channels, real)
        if score == _ADDITIVE_V2
        else 0.0
    )
    largest = tl.full((head_block,), float("-inf"), real)
    total = tl.zeros((head_block,), real)
    acc = tl.zeros((head_block, channel_block), real)
    for k in range(tl.load(rowptr + row), tl.load(rowptr + row + 1)):
        j = tl.load(col + k)
        s = _score(own, _end(key, j, h, d, heads, channels, score, real), weight, score)
        new = tl.maximum(largest, s)
        keep, p = tl.exp(largest - new), tl.exp(s - new)
        acc = acc * keep[:, None] + p[:, None] * _of_node(value, j, h, d, heads, channels, real)
        total = total * keep + p
        largest = new
    acc = acc / tl.where(total > 0, total, 1.0)[:, None]
    _store_of_node(out, row, acc, h, d, heads, channels)
    _store_of_heads(lse, row, largest + tl.log(total), h, heads)


@triton.jit
def _destination(
    rowptr, col, query, key, value, att, grad, lse, delta, grad_query, grad_att,
    heads, channels,
    head_block: tl.constexpr, channel_block: tl.constexpr, score: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    h, d = tl.arange(0, head_block), tl.arange(0, channel_block)
    own = _end(query, row, h, d, heads, channels, score, real)
    weight = (
        _of_node(att, tl.zeros((), tl.int32), h, d, heads, channels, real)
        if score == _ADDITIVE_V2
        else 0.0
    )
    g = _of_node(grad, row, h, d, heads, channels, real)
    of_row, sum_row = _of_heads(lse, row, h, heads, real), _of_heads(delta, row, h, heads, real)
    acc = _zeros(own, real)
    acc_att = tl.zeros((head_block, channel_block), real)
    for k in range(tl.load(rowptr + row), tl.load(rowptr + row + 1)):
        j = tl.load(col + k)
        other = _end(key, j, h, d, heads, channels, score, real)
        p = tl.exp(_score(own, other, weight, score) - of_row)
        ds = p * (tl.sum(g * _of_node(value, j, h, d, heads, channels, real), 1) - sum_row)
        acc += _score_grad(ds, own, other, weight, score)
        if score == _ADDITIVE_V2:
            z = own + other
            acc_att += ds[:, None] * tl.where(z > 0, z, _SLOPE * z)
    _store_end(grad_query, row, acc, h, d, heads, channels, score)
    if score == _ADDITIVE_V2:
        inside = (h[:, None] < heads) & (d[None, :] < channels)
        tl.atomic_add(grad_att + h[:, None] * channels + d[None, :], acc_att, inside)


@triton.jit
def _source(
    t_rowptr, t_col, query, key, value, att, grad, lse, delta, grad_key, grad_value,
    heads, channels,
    head_block: tl.constexpr, channel_block: tl.constexpr, score: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    h, d = tl.arange(0, head_block), tl.arange(0, channel_block)
    own = _end(key, row, h, d, heads, channels, score, real)
    weight = (
        _of_node(att, tl.zeros((), tl.int32), h, d, heads, channels, real)
        if score == _ADDITIVE_V2
        else 0.0
    )
    v = _of_node(value, row, h, d, heads, channels, real)
    acc, acc_value = _zeros(own, real), tl.zeros((head_block, channel_block), real)
    for k in range(tl.load(t_rowptr + row), tl.load(t_rowptr + row + 1)):
        i = tl.load(t_col + k)
        other = _end(query, i, h, d, heads, channels, score, real)
        g = _of_node(grad, i, h, d, heads, channels, real)
        p = tl.exp(_score(own, other, weight, score) - _of_heads(lse, i, h, heads, real))
        ds = p * (tl.sum(g * v, 1) - _of_heads(delta, i, h, heads, real))
        acc += _score_grad(ds, own, other, weight, score)
        acc_value += p[:, None] * g
    _store_of_node(grad_value, row, acc_value, h, d, heads, channels)
    _store_end(grad_key, row, acc, h, d, heads, channels, score)


# ---- torch


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, graph: Adjacency, score: int, query: Tensor, key: Tensor, value: Tensor,
        att: Tensor | None,
    ) -> Tensor:  # fmt: skip
        tensors = [t.contiguous() for t in (query, key, value)]
        nodes, heads, channels = value.shape
        wide = torch.promote_types(value.dtype, torch.float32)  # in which the kernels compute
        out, lse = torch.empty_like(tensors[2]), value.new_empty(nodes, heads, dtype=wide)
        sizes = heads, channels
        blocks = triton.next_power_of_2(heads), triton.next_power_of_2(channels), score, _REAL[wide]
        weight = tensors[2] if att is None else att.contiguous()  # a pointer that is not read
        _forward[(nodes,)](graph.rowptr, graph.col, *tensors, weight, out, lse, *sizes, *blocks)
        ctx.save_for_backward(*graph, *tensors, weight, out, lse)
        ctx.call = sizes, blocks, att is not None
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        rowptr, col, t_rowptr, t_col, *tensors, weight, out, lse = ctx.saved_tensors
        sizes, blocks, has_att = ctx.call
        grad = grad.contiguous()
        delta = (grad.to(lse.dtype) * out.to(lse.dtype)).sum(-1)
        query, key, value = (torch.empty_like(t) for t in tensors)
        att = torch.zeros_like(weight, dtype=lse.dtype) if has_att else value
        inputs = *tensors, weight, grad, lse, delta
        nodes = (value.shape[0],)
        _destination[nodes](rowptr, col, *inputs, query, att, *sizes, *blocks)
        _source[nodes](t_rowptr, t_col, *inputs, key, value, *sizes, *blocks)
        return None, None, query, key, value, att.to(weight.dtype) if has_att else None


def gat(graph: Adjacency, value: Tensor, dst_term: Tensor, src_term: Tensor) -> Tensor:
    """As ``formulas.gat``."""
    return _Attention.apply(graph, ADDITIVE, dst_term, src_term, value, None)


def gatv2(graph: Adjacency, query: Tensor, key: Tensor, att: Tensor) -> Tensor:
    """As ``formulas.gatv2``."""
    return _Attention.apply(graph, ADDITIVE_V2, query, key, key, att)


def dot(graph: Adjacency, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As ``formulas.dot``; the scale is applied to the queries, by torch."""
    return _Attention.apply(graph, DOT, query / math.sqrt(query.shape[-1]), key, value, None)


def cosine(graph: Adjacency, x: Tensor) -> Tensor:
    """As ``formulas.cosine``; the normalisation is torch's."""
    unit = F.normalize(x, dim=-1)
    return _Attention.apply(graph, DOT, unit, unit, x, None)


ATTENTIONS = {
    "gat_attention": gat,
    "gatv2_attention": gatv2,
    "dot_attention": dot,
    "cosine_attention": cosine,
}
