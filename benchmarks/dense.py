"""The four layers as dense attention under an ``N × N`` mask: PyTorch without a graph library.

Parameters have the names of PyG's layers. A mask ``[N_dst, N_src]`` holds the logarithm of the
number of edges, -inf for none.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2


def attend(scores: Tensor, mask: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """``softmax(scores + mask) @ value``: ``[H, N, N]`` and ``[N, H, F]`` give ``[N, H, F]``."""
    alpha = F.dropout(torch.softmax(scores + mask, dim=-1), dropout)
    return torch.einsum("hij,jhf->ihf", alpha, value)


def additive(dst_term: Tensor, src_term: Tensor) -> Tensor:
    """``leaky_relu(a_i + b_j)`` of terms ``[N, H]``: Veličković et al. 2018, eq. 3."""
    return F.leaky_relu(dst_term.t().unsqueeze(2) + src_term.t().unsqueeze(1), SLOPE)


def additive_v2(query: Tensor, key: Tensor, att: Tensor) -> Tensor:
    """``att · leaky_relu(query_i + key_j)`` of ``[N, H, D]``: Brody et al. 2022, eq. 7."""
    hidden = F.leaky_relu(query.unsqueeze(1) + key.unsqueeze(0), SLOPE)
    return torch.einsum("ijhd,hd->hij", hidden, att)


def dot(query: Tensor, key: Tensor) -> Tensor:
    """``<query_i, key_j> / sqrt(D)``: Vaswani et al. 2017, eq. 1."""
    return torch.einsum("ihd,jhd->hij", query, key) / math.sqrt(query.shape[-1])


def cosine(x: Tensor) -> Tensor:
    """``cos(x_i, x_j)``: Thekumparampil et al. 2018, eq. 5."""
    unit = F.normalize(x, dim=-1)
    return torch.einsum("ihd,jhd->hij", unit, unit)


def score_bytes(heads: int, nodes: int, itemsize: int, width: int = 0) -> int:
    """Peak bytes of a step: about eight ``H × N × N`` arrays, and four of ``N × N × width``."""
    return nodes * nodes * itemsize * (8 * heads + 4 * width)


class DenseGAT(nn.Module):
    def __init__(self, in_channels: int, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.lin = nn.Linear(in_channels, heads * channels, bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, channels))
        self.att_dst = nn.Parameter(torch.empty(1, heads, channels))
        self.bias = nn.Parameter(torch.empty(heads * channels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        value = self.lin(x).unflatten(1, (self.heads, -1))
        scores = additive((value * self.att_dst).sum(-1), (value * self.att_src).sum(-1))
        return attend(scores, mask, value, self.dropout).flatten(1) + self.bias


class DenseGATv2(nn.Module):
    def __init__(self, in_channels: int, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.lin_l = nn.Linear(in_channels, heads * channels)
        self.lin_r = nn.Linear(in_channels, heads * channels)
        self.att = nn.Parameter(torch.empty(1, heads, channels))
        self.bias = nn.Parameter(torch.empty(heads * channels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        key = self.lin_l(x).unflatten(1, (self.heads, -1))
        query = self.lin_r(x).unflatten(1, (self.heads, -1))
        scores = additive_v2(query, key, self.att[0])
        return attend(scores, mask, key, self.dropout).flatten(1) + self.bias


class DenseAGNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        rows = x.unsqueeze(1)
        return attend(self.beta * cosine(rows), mask, rows).flatten(1)


class DenseTransformer(nn.Module):
    def __init__(self, in_channels: int, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.lin_query = nn.Linear(in_channels, heads * channels, bias=False)
        self.lin_key = nn.Linear(in_channels, heads * channels, bias=False)
        self.lin_value = nn.Linear(in_channels, heads * channels, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        rows = [
            lin(x).unflatten(1, (self.heads, -1))
            for lin in (self.lin_query, self.lin_key, self.lin_value)
        ]
        return attend(dot(rows[0], rows[1]), mask, rows[2], self.dropout).flatten(1)
