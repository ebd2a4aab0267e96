"""Several processes
=================

Several processes train a GAT together, each on a part of the graph::

    torchrun --standalone --nproc-per-node 2 examples/several_processes.py

The graph, made up here, has three groups of people with few links between them. Each process builds
it, as each would load it, and keeps its part; ``gat-ext partition`` and ``distributed.load`` save
that for graphs that do not fit. Without torchrun the script runs in one process.
"""

from __future__ import annotations

import os
import tempfile

import torch
import torch.distributed as dist
from matplotlib import pyplot
from torch.nn.parallel import DistributedDataParallel

from gat_ext import Graph, distributed
from gat_ext.models import GAT

NUM_NODES, NUM_CLASSES, NUM_PAIRS, EPOCHS = 300, 3, 1500, 60


def whole_graph() -> tuple[Graph, torch.Tensor, torch.Tensor]:
    """The graph, features [N, C] and classes [N]; the same in all processes."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(NUM_NODES) * NUM_CLASSES // NUM_NODES
    noise = torch.randn(NUM_NODES, NUM_CLASSES, generator=generator)
    features = torch.eye(NUM_CLASSES)[classes] + noise
    pairs = torch.randint(NUM_NODES, (2, 10 * NUM_PAIRS), generator=generator)
    alike = classes[pairs[0]] == classes[pairs[1]]
    kept = alike | (torch.rand(pairs.shape[1], generator=generator) < 0.05)
    pairs = pairs[:, kept][:, :NUM_PAIRS]
    return Graph(pairs, num_nodes=NUM_NODES).to_undirected(), features, classes


def main() -> None:
    """Cuts the graph, trains, writes a checkpoint, tests."""
    if "WORLD_SIZE" in os.environ:  # set by torchrun
        dist.init_process_group("gloo")
    several = dist.is_initialized()
    rank, size = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)

    whole, features, classes = whole_graph()
    found = distributed.partition(whole, size, "range")  # or "metis", for most graphs
    graph = distributed.DistGraph(found.part(whole, rank))
    own = graph.part.dst_nodes  # this process has the rows of these nodes
    x, y = features[own], classes[own]
    trained = own % 5 == 0

    torch.manual_seed(0)  # the same weights and dropout in all processes
    model = GAT(NUM_CLASSES, 8, NUM_CLASSES, heads=4, dropout=0.3)
    parallel = DistributedDataParallel(model) if several else model
    optimizer = torch.optim.Adam(parallel.parameters(), lr=0.01)
    losses = []
    with tempfile.TemporaryDirectory() as mine:
        places = [mine]
        if several:
            dist.broadcast_object_list(places)  # one folder for all
        for epoch in range(1, EPOCHS + 1):
            parallel.train()
            loss = distributed.cross_entropy(parallel(x, graph), y, trained)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if epoch % 30 == 0:
                distributed.save_checkpoint(places[0], parallel, optimizer, epoch=epoch)
        assert distributed.load_checkpoint(places[0], parallel, optimizer) == (EPOCHS, {})
        if several:
            dist.barrier()  # before the folder is removed

    parallel.eval()
    with torch.no_grad():
        right = distributed.accuracy(parallel(x, graph), y, ~trained)
    if rank == 0:
        print(f"processes: {size}, edges between them: {found.report.cut_edges}")
        print(f"loss {losses[-1]:.3f}, test accuracy {100 * right:.1f} %")
    assert right > 0.8, "the graph was of no use"
    if several:
        # Gloo may hang if the group and its last operation are freed at the same time, so this one
        # is kept to the end.
        last = dist.barrier(async_op=True)
        last.wait()
        dist.destroy_process_group()
    if rank == 0:
        _, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
        axes.plot(losses)
        axes.set(xlabel="epoch", ylabel="training loss")
        pyplot.show()


if __name__ == "__main__":
    main()
