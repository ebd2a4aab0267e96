"""The attentions of other libraries: each formula once, over four primitives.

A library has, for its graph, ``add`` (``dst_i + src_j`` for each edge), ``sddmm`` (``<x_i, y_j>``),
``softmax`` over the in-edges of a node, and ``spmm`` (``sum_j weight_ij x_j``). Node tensors are
``[N, H, ...]``; scores have one entry per edge and head, or in dense torch per pair of nodes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2


class Edges(NamedTuple):
    """The graph for PyG's functions."""

    src: Tensor
    dst: Tensor
    num_nodes: int


class PyG:
    """Gathers to the edges, PyG's softmax, and a scatter to the destinations."""

    def add(self, graph: Edges, dst: Tensor, src: Tensor) -> Tensor:
        return dst[graph.dst] + src[graph.src]

    def sddmm(self, graph: Edges, x: Tensor, y: Tensor) -> Tensor:
        return (x[graph.dst] * y[graph.src]).sum(-1)

    def softmax(self, graph: Edges, scores: Tensor) -> Tensor:
        from torch_geometric.utils import softmax

        return softmax(scores, graph.dst, num_nodes=graph.num_nodes)

    def spmm(self, graph: Edges, x: Tensor, weight: Tensor) -> Tensor:
        from torch_geometric.utils import scatter

        messages = x[graph.src] * weight.unsqueeze(-1)
        return scatter(messages, graph.dst, dim=0, dim_size=graph.num_nodes)


class DGL:
    """DGL's SpMM, SDDMM and edge softmax."""

    def add(self, graph: Any, dst: Tensor, src: Tensor) -> Tensor:
        from dgl import ops

        return ops.u_add_v(graph, src, dst)

    def sddmm(self, graph: Any, x: Tensor, y: Tensor) -> Tensor:
        from dgl import ops

        return ops.u_dot_v(graph, y, x).squeeze(-1)

    def softmax(self, graph: Any, scores: Tensor) -> Tensor:
        from dgl.nn.functional import edge_softmax

        return edge_softmax(graph, scores)

    def spmm(self, graph: Any, x: Tensor, weight: Tensor) -> Tensor:
        from dgl import ops

        return ops.u_mul_e_sum(graph, x, weight.unsqueeze(-1))


class Dense:
    """Scores of all pairs ``[N, N, H]`` with a mask, weights ``[H, N, N]``, in torch only.

    The mask ``[N, N]`` is the logarithm of the number of edges, -inf without edges.
    """

    def add(self, mask: Tensor, dst: Tensor, src: Tensor) -> Tensor:
        return dst.unsqueeze(1) + src.unsqueeze(0)

    def sddmm(self, mask: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("ihd,jhd->hij", x, y).permute(1, 2, 0)

    def softmax(self, mask: Tensor, scores: Tensor) -> Tensor:
        return torch.softmax(scores.permute(2, 0, 1) + mask, dim=-1)

    def spmm(self, mask: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("hij,jhf->ihf", weight, x)


LIBRARIES: dict[str, Any] = {"pyg": PyG(), "dgl": DGL(), "dense": Dense()}


def _attend(lib: Any, graph: Any, scores: Tensor, value: Tensor, dropout: float) -> Tensor:
    return lib.spmm(graph, value, F.dropout(lib.softmax(graph, scores), dropout))


def gat(
    lib: Any, graph: Any, value: Tensor, dst_term: Tensor, src_term: Tensor, p: float = 0.0
) -> Tensor:
    """``leaky_relu(a_i + b_j)``: Veličković et al. 2018, eq. 3."""
    scores = F.leaky_relu(lib.add(graph, dst_term, src_term), SLOPE)
    return _attend(lib, graph, scores, value, p)


def gatv2(lib: Any, graph: Any, query: Tensor, key: Tensor, att: Tensor, p: float = 0.0) -> Tensor:
    """``att · leaky_relu(query_i + key_j)``: Brody et al. 2022, eq. 7."""
    scores = (F.leaky_relu(lib.add(graph, query, key), SLOPE) * att).sum(-1)
    return _attend(lib, graph, scores, key, p)


def dot(lib: Any, graph: Any, query: Tensor, key: Tensor, value: Tensor, p: float = 0.0) -> Tensor:
    """``<query_i, key_j> / sqrt(D)``: Vaswani et al. 2017, eq. 1."""
    scores = lib.sddmm(graph, query, key) / math.sqrt(query.shape[-1])
    return _attend(lib, graph, scores, value, p)


def cosine(lib: Any, graph: Any, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """``scale · cos(x_i, x_j)``: Thekumparampil et al. 2018, eq. 5."""
    unit = F.normalize(x, dim=-1)
    return _attend(lib, graph, scale * lib.sddmm(graph, unit, unit), x, 0.0)


# ---- layers of dense torch, with the parameter names of PyG's


class DenseLayer(nn.Module):
    """A dense attention with named projections, each with or without a bias."""

    def __init__(
        self, in_channels: int, channels: int, heads: int, p: float, names: str, bias: bool
    ) -> None:
        super().__init__()
        self.heads, self.p = heads, p
        for name in names.split():
            self.add_module(name, nn.Linear(in_channels, heads * channels, bias=bias))

    def rows(self, name: str, x: Tensor) -> Tensor:
        """``[N, H, F]``."""
        return self.get_submodule(name)(x).unflatten(1, (self.heads, -1))


class DenseGAT(DenseLayer):
    def __init__(self, in_channels: int, channels: int, heads: int, p: float) -> None:
        super().__init__(in_channels, channels, heads, p, "lin", bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, channels))
        self.att_dst = nn.Parameter(torch.empty(1, heads, channels))
        self.bias = nn.Parameter(torch.empty(heads * channels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        value = self.rows("lin", x)
        terms = ((value * att).sum(-1) for att in (self.att_dst, self.att_src))
        return gat(LIBRARIES["dense"], mask, value, *terms, self.p).flatten(1) + self.bias


class DenseGATv2(DenseLayer):
    def __init__(self, in_channels: int, channels: int, heads: int, p: float) -> None:
        super().__init__(in_channels, channels, heads, p, "lin_l lin_r", bias=True)
        self.att = nn.Parameter(torch.empty(1, heads, channels))
        self.bias = nn.Parameter(torch.empty(heads * channels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key = self.rows("lin_r", x), self.rows("lin_l", x)
        out = gatv2(LIBRARIES["dense"], mask, query, key, self.att[0], self.p)
        return out.flatten(1) + self.bias


class DenseAGNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return cosine(LIBRARIES["dense"], mask, x.unsqueeze(1), self.beta).flatten(1)


class DenseTransformer(DenseLayer):
    def __init__(self, in_channels: int, channels: int, heads: int, p: float) -> None:
        names = "lin_query lin_key lin_value"
        super().__init__(in_channels, channels, heads, p, names, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        rows = (self.rows(f"lin_{name}", x) for name in ("query", "key", "value"))
        return dot(LIBRARIES["dense"], mask, *rows, self.p).flatten(1)


def score_bytes(heads: int, nodes: int, itemsize: int, width: int = 0) -> int:
    """Peak bytes of a dense step: about eight ``H × N × N`` arrays, four of ``N × N × width``."""
    return nodes * nodes * itemsize * (8 * heads + 4 * width)
