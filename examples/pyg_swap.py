"""A PyG model, with its layers replaced
=====================================

One line replaces the attention layers of a PyG model by gat_ext's, with the same results.

Needs torch_geometric.
"""

from __future__ import annotations

import time

import torch
from matplotlib import pyplot
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GATv2Conv

from gat_ext.interop import patch_pyg


class Model(nn.Module):
    """A model of PyG."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Two attention layers."""
        super().__init__()
        self.first = GATConv(in_channels, 32, heads=8, edge_dim=4)
        self.second = GATv2Conv(256, out_channels, heads=1)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Scores [N, out_channels]."""
        return self.second(torch.relu(self.first(x, edge_index, edge_attr)), edge_index)


def step(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor], float]:
    """(scores, gradients, seconds) of a forward and backward pass."""
    start = time.perf_counter()
    out = model(*inputs)
    gradients = torch.autograd.grad(out.square().mean(), list(model.parameters()))
    return out, list(gradients), time.perf_counter() - start


def main() -> None:
    """Runs the model before and after."""
    torch.manual_seed(0)
    inputs = torch.randn(2000, 64), torch.randint(2000, (2, 20_000)), torch.randn(20_000, 4)
    model = Model(64, 10)
    before = min((step(model, inputs) for _ in range(3)), key=lambda result: result[2])

    patch_pyg(model)

    after = min((step(model, inputs) for _ in range(3)), key=lambda result: result[2])
    print(model)
    print(f"forward and backward: {1e3 * before[2]:.1f} ms before, {1e3 * after[2]:.1f} ms after")
    assert "gat_ext" in type(model.first).__module__, "the layer was not replaced"
    torch.testing.assert_close(after[0], before[0], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(after[1], before[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    print("scores and gradients are equal")

    _, axes = pyplot.subplots(figsize=(6, 2), layout="constrained")
    axes.barh(["gat_ext", "PyG"], [1e3 * after[2], 1e3 * before[2]], color=["C3", "lightgray"])
    axes.set(xlabel="forward and backward, ms")
    pyplot.show()


if __name__ == "__main__":
    main()
