"""Your own tables
===============

Two tables become a data set; a GAT trains on it and predicts all nodes.

The tables are made up here, of people with a group each and of who knows whom, most of one group.
Paths of CSV files or pandas DataFrames would do as well; the guide "Your own data" does the same by
commands.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib import pyplot

from gat_ext.datasets import from_tables
from gat_ext.models import GAT
from gat_ext.training import Recipe, Trainer

NUM_NODES, NUM_PAIRS, GROUPS = 300, 1500, np.array(["artist", "baker", "coder"])


def tables(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns of people, of whom every fourth has no label, and of pairs."""
    group = rng.integers(0, 3, NUM_NODES)
    names = np.array([f"p{i}" for i in range(NUM_NODES)])
    pairs = rng.integers(0, NUM_NODES, (10 * NUM_PAIRS, 2))
    alike = group[pairs[:, 0]] == group[pairs[:, 1]]
    source, target = names[pairs[alike | (rng.random(len(pairs)) < 0.1)][:NUM_PAIRS]].T
    people = {
        "id": names,
        "age": rng.normal(30 + 6 * group, 6),
        "income": rng.normal(30_000 + 5_000 * group, 9_000),
        "label": np.where(np.arange(NUM_NODES) % 4 == 0, "", GROUPS[group]),
        "truth": GROUPS[group],  # text, which is not read
    }
    return people, {"source": source, "target": target}


def main() -> None:
    """Trains, tests, predicts."""
    people, pairs = tables(np.random.default_rng(0))
    data = from_tables(people, pairs, fractions=(0.3, 0.3, 0.4), name="people")
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
    assert data.names is not None
    named = np.array(data.names.classes)[predicted.numpy()]
    unlabelled = people["label"] == ""
    share = (named == people["truth"])[unlabelled].mean()
    print(f"of the people without a label, {100 * share:.1f} % are right")
    assert share > 0.8, "the graph was of no use"

    _, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
    axes.plot(result.history["val_score"])
    axes.axvline(result.best_epoch, color="gray", linestyle=":", label="best epoch")
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    axes.legend()
    pyplot.show()


if __name__ == "__main__":
    main()
