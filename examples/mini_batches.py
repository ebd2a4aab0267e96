"""Mini-batches of sampled neighbours in plain torch: each layer runs on a bipartite block.

A batch of nodes needs only a sample of its neighbours, and of theirs. Blocks lead from the
outermost sources to the batch; the destinations of a block are its first sources, so that
self-loops and residuals work.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gat_ext import Graph
from gat_ext.datasets import load
from gat_ext.nn import GATv2Conv


class Block(NamedTuple):
    """The edges of one layer."""

    graph: Graph  # from the sources to the destinations
    sources: Tensor  # numbers in the whole graph; the first graph.num_dst are the destinations


def sample_block(graph: Graph, destinations: Tensor, fanout: int) -> Block:
    """At most ``fanout`` random in-edges of every destination."""
    start, degree = graph.rowptr[destinations], graph.rowptr.diff()[destinations]
    row = torch.arange(len(destinations)).repeat_interleave(degree)
    offset = torch.arange(len(row)) - (degree.cumsum(0) - degree)[row]
    source = graph.col.long()[start[row] + offset]
    # A random order of the in-edges of each destination; the first ones are kept.
    order = (row + torch.rand(len(row), dtype=torch.float64)).argsort()
    kept = order[offset < fanout]
    row, source = row[kept], source[kept]
    others = source[~torch.isin(source, destinations)].unique()
    sources = torch.cat([destinations, others])
    new_number = torch.empty(graph.num_src, dtype=torch.int64)
    new_number[sources] = torch.arange(len(sources))
    edges = torch.stack([new_number[source], row])
    return Block(Graph(edges, num_src=len(sources), num_dst=len(destinations)), sources)


class Model(nn.Module):
    """Two layers, each on its own block."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Creates the layers."""
        super().__init__()
        self.layers = nn.ModuleList(
            [
                GATv2Conv((in_channels, in_channels), 16, heads=4, residual=True),
                GATv2Conv((64, 64), out_channels, residual=True),
            ]
        )

    def forward(self, x: Tensor, blocks: list[Block]) -> Tensor:
        """Logits of the last block's destinations, from features x of the first block's sources."""
        for position, (layer, block) in enumerate(zip(self.layers, blocks, strict=True)):
            x = layer((x, x[: block.graph.num_dst]), block.graph)
            x = F.elu(x) if position + 1 < len(self.layers) else x
        return x


def sample_blocks(graph: Graph, nodes: Tensor, fanouts: list[int]) -> list[Block]:
    """A block for each layer, the first layer's first."""
    blocks: list[Block] = []
    for fanout in reversed(fanouts):
        blocks.insert(0, sample_block(graph, nodes, fanout))
        nodes = blocks[0].sources
    return blocks


def main() -> None:
    """Trains on mini-batches, and tests with all neighbours."""
    torch.manual_seed(0)
    data = load("sbm", num_nodes=3000, p_in=0.02, p_out=0.004, train_per_class=200)
    graph = Graph(data.edge_index, num_nodes=data.num_nodes)
    model = Model(data.x.shape[1], data.num_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train = data.train_mask.nonzero().flatten()
    for epoch in range(5):
        total, reached = 0.0, 0
        for nodes in train[torch.randperm(len(train))].split(100):
            blocks = sample_blocks(graph, nodes, [5, 10])
            out = model(data.x[blocks[0].sources], blocks)
            loss = F.cross_entropy(out, data.y[nodes])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, reached = total + loss.item() * len(nodes), max(reached, len(blocks[0].sources))
        print(
            f"epoch {epoch + 1}: loss {total / len(train):.3f}, at most {reached} nodes at a time"
        )
    assert reached < data.num_nodes, "the batches reach the whole graph"
    test = data.test_mask.nonzero().flatten()
    everything = int(graph.in_degrees().max())
    with torch.no_grad():
        blocks = sample_blocks(graph, test, [everything, everything])
        out = model(data.x[blocks[0].sources], blocks)
        whole = F.elu(model.layers[0](data.x, graph))
        whole = model.layers[1](whole, graph)[test]
    torch.testing.assert_close(out, whole, rtol=1e-4, atol=1e-4)
    accuracy = (out.argmax(1) == data.y[test]).float().mean().item()
    print(f"test accuracy {100 * accuracy:.1f} %; blocks of all neighbours equal the whole graph")
    assert accuracy > 0.8, "chance is 0.25"


if __name__ == "__main__":
    main()
