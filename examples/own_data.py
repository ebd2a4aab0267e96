"""Your own data: arrays of NumPy become a data set, a GAT trains on it and predicts all nodes.

The data are made up here, as a table of people with a group each and a table of who knows whom
would be: numbers instead of names, counted from 0, an edge as a pair. Most pairs are of one group.
"""

from __future__ import annotations

import numpy as np
import torch

from gat_ext import Graph
from gat_ext.datasets import NodeDataset
from gat_ext.models import GAT
from gat_ext.training import Recipe, Trainer

NUM_NODES, NUM_CLASSES, NUM_PAIRS = 300, 3, 1500


def tables(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [N, C], classes [N] and pairs [E, 2]."""
    classes = rng.integers(0, NUM_CLASSES, NUM_NODES)
    features = np.eye(NUM_CLASSES)[classes] + rng.normal(size=(NUM_NODES, NUM_CLASSES))
    pairs = rng.integers(0, NUM_NODES, (10 * NUM_PAIRS, 2))
    alike = classes[pairs[:, 0]] == classes[pairs[:, 1]]
    kept = (pairs[:, 0] != pairs[:, 1]) & (alike | (rng.random(len(pairs)) < 0.1))
    return features, classes, pairs[kept][:NUM_PAIRS]


def main() -> None:
    """Trains, tests, predicts."""
    rng = np.random.default_rng(0)
    features, classes, pairs = tables(rng)
    graph = Graph(torch.from_numpy(pairs).t(), num_nodes=NUM_NODES).to_undirected()
    share = torch.from_numpy(rng.random(NUM_NODES))
    data = NodeDataset(
        "groups",
        x=torch.from_numpy(features).float(),
        y=torch.from_numpy(classes),
        edge_index=graph.edge_index,
        train_mask=share < 0.2,
        val_mask=(share >= 0.2) & (share < 0.5),
        test_mask=share >= 0.5,
        num_classes=NUM_CLASSES,
    )
    trainer = Trainer(
        lambda: GAT(data.num_features, 8, data.num_classes, heads=4),
        data,
        Recipe(lr=0.01, epochs=300),
        seed=0,
    )
    while trainer.step():
        pass
    result = trainer.result()  # the model has the weights of the best epoch now
    print(f"{data}\ntest accuracy {100 * result.test_score:.1f} %, epoch {result.best_epoch}")
    with torch.no_grad():
        predicted = trainer.model(data.x, data.graph).argmax(dim=1)
    right = (predicted == data.y)[data.test_mask].double().mean().item()
    assert abs(right - result.test_score) < 1e-6, "the model is not the one that was tested"
    assert right > 0.8, "the graph was of no use"


if __name__ == "__main__":
    main()
