"""Sampled mini-batches
====================

Mini-batches of sampled neighbours train a model of two layers, in one process or several::

    torchrun --standalone --nproc-per-node 2 examples/sampled_training.py

A batch of nodes needs only a sample of their neighbours, and of theirs. The loader yields a
bipartite graph for each layer, the outermost first: its destinations are its first sources. Testing
reads all neighbours, layer by layer. Without torchrun the script runs in one process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from matplotlib import pyplot
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from gat_ext import Graph
from gat_ext.datasets import load
from gat_ext.nn import GATv2Conv
from gat_ext.sampling import NeighborLoader, inference


class Model(nn.Module):
    """Two layers; ``layers`` and ``stage`` are what ``inference`` needs."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Creates the layers."""
        super().__init__()
        self.layers = nn.ModuleList(
            [
                GATv2Conv(in_channels, 16, heads=4, residual=True),
                GATv2Conv(64, out_channels, residual=True),
            ]
        )

    def stage(self, position: int, x: Tensor, block: Graph, edge_attr: None = None) -> Tensor:
        """One layer: rows of the block's destinations from those of its sources."""
        x = self.layers[position]((x, x[: block.num_dst]), block)
        return F.elu(x) if position + 1 < len(self.layers) else x

    def forward(self, x: Tensor, blocks: Sequence[Graph]) -> Tensor:
        """Logits of the last block's destinations, from features of the first block's sources."""
        for position, block in enumerate(blocks):
            x = self.stage(position, x, block)
        return x


def main() -> None:
    """Trains on mini-batches, and tests with all neighbours."""
    if "WORLD_SIZE" in os.environ:  # set by torchrun
        dist.init_process_group("gloo")
    several = dist.is_initialized()
    rank, size = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)

    data = load("sbm", num_nodes=3000, p_in=0.02, p_out=0.004, train_per_class=200)
    torch.manual_seed(0)  # the same weights in all processes
    model = Model(data.x.shape[1], data.num_classes)
    parallel = DistributedDataParallel(model) if several else model
    optimizer = torch.optim.Adam(parallel.parameters(), lr=0.01)
    loader = NeighborLoader(  # after init_process_group: each process gets batches of its own
        (data.graph, data.x, data.y),
        num_neighbors=[10, 5],  # the seeds' neighbours first
        input_nodes=data.train_mask,
        batch_size=100 // size,
        shuffle=True,
        drop_last=True,  # equally many, equally large batches in all processes
    )
    losses, reached = [], 0
    for epoch in range(5):
        for batch in loader:
            loss = F.cross_entropy(parallel(batch.x, batch.blocks), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            reached = max(reached, batch.num_nodes)
        if rank == 0:
            mean = sum(losses[-len(loader) :]) / len(loader)
            print(f"epoch {epoch + 1}: loss {mean:.3f}, at most {reached} nodes at a time")
    assert reached < data.num_nodes, "the batches reach the whole graph"

    if rank == 0:
        out = inference(model, data.x, data.graph, batch_size=500)
        with torch.no_grad():
            whole = model(data.x, [data.graph, data.graph])
        torch.testing.assert_close(out, whole, rtol=1e-4, atol=1e-4)
        right = (out.argmax(1) == data.y)[data.test_mask].float().mean().item()
        print(f"processes: {size}, test accuracy {100 * right:.1f} %, as on the whole graph")
        assert right > 0.8, "chance is 0.25"
    if several:
        # The others wait for the test. Gloo may hang if the group and its last operation are freed
        # at the same time, so this one is kept to the end.
        last = dist.barrier(async_op=True)
        last.wait()
        dist.destroy_process_group()
    if rank == 0:
        _, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
        axes.plot(losses)
        axes.set(xlabel="mini-batch", ylabel="training loss")
        pyplot.show()


if __name__ == "__main__":
    main()
