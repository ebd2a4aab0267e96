"""A compiled model
================

torch.compile of a whole model on a Graph, without graph breaks.

The attention remains one operator in the compiled program; the compiler fuses norms, activations
and biases. The backend "aot_eager" traces forward and backward, and needs no compiler of C++ or
Triton; "inductor" is torch's default.
"""

from __future__ import annotations

import torch
from matplotlib import pyplot
from torch.nn import functional as F

from gat_ext import Graph
from gat_ext.datasets import load
from gat_ext.models import GATv2

BACKEND = "aot_eager"  # or "inductor"


def main(backend: str) -> None:
    """Trains a compiled and a plain copy of a model side by side."""
    data = load("sbm", num_nodes=600)
    graph = Graph(data.edge_index, num_nodes=data.num_nodes)
    losses: dict[bool, list[float]] = {}
    for compiled in (False, True):
        torch.manual_seed(0)
        model = GATv2(
            data.x.shape[1], 8, data.num_classes, norm="layer", dropout=0.0, attn_dropout=0.0
        )
        forward = torch.compile(model, backend=backend, fullgraph=True) if compiled else model
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        losses[compiled] = []
        for _ in range(20):
            out = forward(data.x, graph)
            loss = F.cross_entropy(out[data.train_mask], data.y[data.train_mask])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[compiled].append(loss.item())
    print(f"backend {backend}, no graph break; loss of the plain and of the compiled model:")
    for epoch in (0, 9, 19):
        print(f"  epoch {epoch + 1:2}: {losses[False][epoch]:.5f}  {losses[True][epoch]:.5f}")
    torch.testing.assert_close(losses[True], losses[False], rtol=1e-3, atol=1e-3)
    assert losses[True][-1] < 0.5 * losses[True][0], "the compiled model did not learn"

    _, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
    axes.plot(losses[False], label="plain", linewidth=4, color="lightgray")
    axes.plot(losses[True], label=f"compiled, {backend}")
    axes.set(xlabel="epoch", ylabel="training loss")
    axes.legend()
    pyplot.show()


if __name__ == "__main__":
    main(BACKEND)
