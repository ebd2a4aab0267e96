"""Sparse attention in plain PyTorch
=================================

A text model in which each word attends to some others.

The pattern, a window of preceding words and a few global ones, is a graph; attention is one
operator over its edges. It equals torch's dense attention with a mask, for a fraction of the work,
which decreases with the length of the text.
"""

from __future__ import annotations

import time

import torch
from matplotlib import pyplot
from torch import Tensor, nn
from torch.nn import functional as F

from gat_ext import Graph
from gat_ext.functional import dot_attention


def window_graph(length: int, window: int, num_global: int) -> Graph:
    """Edges from each word to itself and the ``window`` words after it.

    The first ``num_global`` words also have edges to all words after them.
    """
    position = torch.arange(length)
    back = position[:, None] - torch.arange(window + 1)
    first = torch.arange(num_global).expand(length, -1)
    seen = torch.cat([back, first], dim=1)  # [length, window + 1 + num_global]
    outside_window = first < back[:, -1:]
    allowed = torch.cat([back >= 0, outside_window], dim=1)
    destination = position[:, None].expand_as(seen)
    return Graph(torch.stack([seen[allowed], destination[allowed]]), num_nodes=length)


class SparseSelfAttention(nn.Module):
    """Multi-head self-attention over the edges of a graph."""

    def __init__(self, channels: int, heads: int) -> None:
        """Creates the projections."""
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value, [N, H, C] each."""
        return self.qkv(x).view(x.shape[0], 3, self.heads, -1).unbind(1)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """Maps [N, channels] to [N, channels]."""
        return self.out(dot_attention(graph, *self.split(x)).flatten(1))

    def dense(self, x: Tensor, mask: Tensor) -> Tensor:
        """The same with an N x N mask."""
        query, key, value = (t.transpose(0, 1) for t in self.split(x))
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(out.transpose(0, 1).flatten(1))


def main() -> None:
    """Compares the two, with gradients."""
    torch.manual_seed(0)
    length, channels = 2048, 128
    graph = window_graph(length, window=32, num_global=4)
    mask = torch.zeros(length, length, dtype=torch.bool)
    mask[graph.edge_index[1], graph.edge_index[0]] = True
    assert int(mask.sum()) == graph.num_edges, "the graph has duplicate edges"
    layer, x = SparseSelfAttention(channels, heads=4), torch.randn(length, channels)
    results, seconds = [], []
    for call in (lambda: layer(x, graph), lambda: layer.dense(x, mask)):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            out = call()
            gradients = torch.autograd.grad(out.square().mean(), list(layer.parameters()))
            times.append(time.perf_counter() - start)
        results.append((out, *gradients))
        seconds.append(min(times))
    for sparse, dense in zip(*results, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-3, atol=1e-5)
    share = graph.num_edges / length**2
    print(f"{length} words, {graph.num_edges} pairs of them: {100 * share:.1f} % of the dense mask")
    print(f"forward and backward: {1e3 * seconds[0]:.1f} ms, dense {1e3 * seconds[1]:.1f} ms")
    print("outputs and gradients are equal")

    _, axes = pyplot.subplots(figsize=(4, 4), layout="constrained")
    axes.imshow(mask[:160, :160], cmap="Purples")
    axes.set(title="who attends to whom", xlabel="word attended to", ylabel="word")
    pyplot.show()


if __name__ == "__main__":
    main()
