"""A small benchmark for this machine: fused attention against dense masked PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from gat_ext.functional import gat_attention
from gat_ext.graph import Graph


@dataclass(frozen=True)
class Comparison:
    """Median milliseconds of a forward and backward pass.

    Attributes:
        num_nodes: nodes.
        num_edges: edges.
        dense: of dense masked PyTorch.
        fused: of the fused operator.
    """

    num_nodes: int
    num_edges: int
    dense: float
    fused: float


def compare(
    num_nodes: int, degree: int, heads: int = 4, channels: int = 16, repeats: int = 5
) -> Comparison:
    """Compares results and gradients of GAT's attention on a random graph, then times both in turn.

    Raises:
        AssertionError: the two disagree.

    Example:
        >>> compare(50, degree=3, repeats=1).num_nodes
        50
    """
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(num_nodes, (2, num_nodes * degree), generator=generator).unique(dim=1)
    graph = Graph(edges, num_nodes=num_nodes)
    mask = torch.zeros(num_nodes, num_nodes, dtype=torch.bool)
    mask[edges[1], edges[0]] = True
    shapes = ((num_nodes, heads, channels), (num_nodes, heads), (num_nodes, heads))
    inputs = [torch.randn(s, generator=generator).requires_grad_() for s in shapes]
    upstream = torch.randn(shapes[0], generator=generator)
    value, dst_term, src_term = inputs

    def dense() -> Tensor:
        scores = leaky_relu(dst_term.t().unsqueeze(2) + src_term.t().unsqueeze(1), 0.2)
        alpha = scores.masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num()
        return (alpha @ value.transpose(0, 1)).transpose(0, 1)

    def fused() -> Tensor:
        out = gat_attention(graph, value, dst_term, src_term)
        assert isinstance(out, Tensor)
        return out

    def run(function: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        out = function()
        return out, *torch.autograd.grad(out, inputs, upstream)

    for ours, theirs in zip(run(fused), run(dense), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    times: dict[Callable[[], Tensor], list[float]] = {dense: [], fused: []}
    for _ in range(repeats):
        for function, taken in times.items():
            start = time.perf_counter()
            run(function)
            taken.append(1e3 * (time.perf_counter() - start))
    medians = [statistics.median(taken) for taken in times.values()]
    return Comparison(num_nodes, graph.num_edges, *medians)
