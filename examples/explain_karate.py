"""Explaining a prediction
=======================

Four explanations of a model's prediction for one member of Zachary's karate club.

Attention rollout, entropy, the edges that the member attends to most, drawn, and a learned edge
mask, as in GNNExplainer. Drawing needs matplotlib; the data need networkx, a dependency of torch.
"""

from __future__ import annotations

import torch
from matplotlib import pyplot
from torch import Tensor
from torch.nn import functional as F

from gat_ext import Graph, explain
from gat_ext.datasets import NodeDataset, load
from gat_ext.models import GATv2

NODE = 8  # a friend of both leaders, 0 and 33


def train(data: NodeDataset, graph: Graph) -> GATv2:
    """Trains a model of two layers on the clubs of half of the members."""
    torch.manual_seed(0)
    model = GATv2(data.x.shape[1], 8, 2, heads=4, dropout=0.3, attn_dropout=0.0)
    known = data.train_mask | data.val_mask
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        loss = F.cross_entropy(model(data.x, graph)[known], data.y[known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def learn_mask(model: GATv2, x: Tensor, graph: Graph, node: int) -> Tensor:
    """The importance of every edge [E] for the class of a node: few edges that keep the prediction.

    Ying et al., "GNNExplainer: Generating Explanations for Graph Neural Networks", NeurIPS 2019.
    """
    torch.manual_seed(0)
    target = model(x, graph)[node].argmax()
    logits = (0.1 * torch.randn(graph.num_edges)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(100):
        mask = logits.sigmoid()
        out = model(x, graph, edge_mask=mask)
        loss = F.cross_entropy(out[node], target) + 0.01 * mask.sum()
        optimizer.zero_grad()
        loss.backward(inputs=[logits])
        optimizer.step()
    return logits.sigmoid().detach()


def main() -> None:
    """Trains, and explains one prediction."""
    data = load("karate")
    graph = Graph(data.edge_index, num_nodes=data.num_nodes)
    model = train(data, graph)
    with explain.record_attention(model) as attention, torch.no_grad():
        prediction = model(data.x, graph).softmax(1)
    accuracy = (prediction.argmax(1) == data.y)[data.test_mask].float().mean().item()
    print(f"test accuracy {100 * accuracy:.0f} %, node {NODE}: {prediction[NODE].tolist()}")
    assert accuracy > 0.8

    relevance = explain.attention_rollout(attention, NODE)
    top = relevance.topk(4)
    print(f"rollout: nodes {top.indices.tolist()}, {[round(v, 3) for v in top.values.tolist()]}")
    assert abs(relevance.sum().item() - 1) < 1e-5

    for layer in attention:
        entropy = explain.attention_entropy(layer, normalize=True)
        print(f"entropy in {layer.name}, of 1 for uniform: {entropy.mean().item():.3f}")
        assert 0 < entropy.mean() < 1

    strongest = explain.top_edges(attention, NODE, k=4, hops=2)
    for (source, destination), alpha, hop in zip(
        strongest.edge_index.t().tolist(),
        strongest.alpha.tolist(),
        strongest.hop.tolist(),
        strict=True,
    ):
        print(f"  hop {hop}: {source} -> {destination}, {alpha:.3f}")

    mask = learn_mask(model, data.x, graph, NODE)
    important = mask > 0.5
    out = model(data.x, graph, edge_mask=important.float())
    print(f"learned mask: {int(important.sum())} of {graph.num_edges} edges keep the prediction:")
    print(f"  {graph.edge_index[:, important].t().tolist()}")
    assert out[NODE].argmax() == prediction[NODE].argmax()
    assert important.sum() < graph.num_edges / 4

    explain.draw_edges(strongest, axes=pyplot.subplots(layout="constrained")[1])
    pyplot.show()


if __name__ == "__main__":
    main()
