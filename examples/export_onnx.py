"""A model as an ONNX file
=======================

A trained model as an ONNX file, which onnxruntime runs without PyTorch on graphs of any size.

Trains a GAT on Zachary's karate club, writes it to a file, and compares the file's logits with the
model's, on the club and on a larger random graph.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnxruntime
import onnxscript  # noqa: F401  which the exporter of torch needs
import torch
from matplotlib import pyplot
from torch.nn import functional as F

from gat_ext.datasets import load
from gat_ext.export import to_onnx
from gat_ext.models import GAT


def main() -> None:
    """Trains, exports and compares."""
    torch.manual_seed(0)
    data = load("karate")
    model = GAT(data.x.shape[1], 8, data.num_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(50):
        out = model(data.x, data.edge_index)
        loss = F.cross_entropy(out[data.train_mask], data.y[data.train_mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.eval()
    names = {"input_names": ["x", "edge_index"], "output_names": ["logits"]}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "gat.onnx")
        to_onnx(model, (data.x, data.edge_index), file, **names)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    _, axes = pyplot.subplots(figsize=(4, 4), layout="constrained")
    larger = torch.randn(500, data.x.shape[1]), torch.randint(500, (2, 3000))
    for x, edge_index in ((data.x, data.edge_index), larger):
        (logits,) = session.run(None, {"x": x.numpy(), "edge_index": edge_index.numpy()})
        with torch.no_grad():
            expected = model(x, edge_index)
        difference = (torch.from_numpy(logits) - expected).abs().max().item()
        size = f"{x.shape[0]} nodes, {edge_index.shape[1]} edges"
        print(f"{size}: onnxruntime and the model differ by at most {difference:.1e}")
        assert difference < 1e-4
        axes.scatter(expected.flatten(), logits.flatten(), s=8, label=size, zorder=-x.shape[0])
    axes.set(xlabel="logits of the model", ylabel="logits of onnxruntime")
    axes.legend()
    pyplot.show()


if __name__ == "__main__":
    main()
