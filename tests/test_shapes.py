"""The data set shapes: its graphs, and that only attention finds the class."""

from __future__ import annotations

from typing import Any

import networkx
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gat_ext.datasets import GraphDataset, load_graphs


def histogram(data: GraphDataset) -> np.ndarray:
    """The number of nodes of each type in each graph, [G, R]."""
    counts = torch.bincount(
        data.graph_ids * data.num_types + data.node_type, minlength=len(data) * data.num_types
    )
    return counts.reshape(len(data), -1).numpy()


def accuracy(data: GraphDataset) -> float:
    """Cross-validated accuracy of logistic regression on type histograms."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(cross_val_score(model, histogram(data), data.y.numpy(), cv=5).mean())


def test_shapes_are_made_of_the_parts_named() -> None:
    data = load_graphs("shapes", num_graphs=40, num_noise_types=5, trail_length=3, motif_size=6)
    assert data.num_types == 10 and data.signal_types == (8, 9)
    counts = histogram(data)
    assert (counts[:, 5:] == [10, 1, 1, 3, 3]).all()
    noise = counts[:, :5].sum(1)
    assert 80 <= noise.min() < noise.max() <= 120
    source, target = data.edge_index
    first, second = data.node_type[source], data.node_type[target]
    joined = torch.zeros(10, 10, dtype=torch.int64).index_put(
        (first, second), torch.tensor(1), accumulate=True
    )
    assert joined[5, 6] == 40 * 10 and joined[6, 7] == 40  # entrances to trail, along the trail
    assert joined[8, 9] == 40 and joined[8, 8] == joined[9, 9] == 40 * 2 * 2  # along the motif
    assert joined[6:, :5].sum() == joined[5, 5] == joined[5, 7:].sum() == joined[6, 8:].sum() == 0
    led_to = first[second == 7]
    led_to = led_to[led_to >= 8] - 8
    assert torch.equal(led_to, data.y)


def test_shapes_hide_the_class_from_counts() -> None:
    data = load_graphs("shapes")
    assert data.y.bincount().tolist() == [500, 500]
    assert abs(accuracy(data) - 0.5) < 0.06
    assert abs(accuracy(data.with_types("degree")) - 0.5) < 0.06
    one, two = (data.subset((data.y == label).nonzero().flatten()) for label in (0, 1))
    means = [(part.num_nodes / 500, part.num_edges / part.num_nodes) for part in (one, two)]
    assert means[0] == pytest.approx(means[1], rel=0.02)
    assert (histogram(one)[:, 4:].mean(0) == histogram(two)[:, 4:].mean(0)).all()


def test_shapes_class_is_in_the_graph() -> None:
    data = load_graphs("shapes", num_graphs=400).with_types("wl", max_types=4096)
    assert accuracy(data) > 0.95


def crossed(data: GraphDataset, odds: float, *, num_agents: int = 20, length: int = 12) -> float:
    """Share of graphs in which a walk crosses the edge between trail and motif.

    A node of the trail is ``odds`` times as attractive as one of the step before it, noise being
    the step before the entrances.
    """
    generator = torch.Generator().manual_seed(0)
    motif = data.signal_types[0]
    level = (data.node_type.clamp(max=motif) - 3).clamp(min=0)
    weight = float(odds) ** level.double()
    graph = data.graph
    running = torch.cat([torch.zeros(1).double(), weight[graph.col.long()].cumsum(0)])
    start = torch.rand(len(data), num_agents, generator=generator) * data.graph_sizes[:, None]
    current = (data.node_ptr[:-1, None] + start.long()).flatten()
    reached = torch.zeros(len(data), num_agents, dtype=torch.bool)
    for _ in range(length):
        low, high = running[graph.rowptr[current]], running[graph.rowptr[current + 1]]
        mark = low + torch.rand(len(current), generator=generator).double() * (high - low)
        after = graph.col[torch.searchsorted(running, mark, right=True) - 1].long()
        steps = torch.stack([data.node_type[current], data.node_type[after]])
        low_type, high_type = steps.aminmax(dim=0)
        reached |= ((low_type == motif - 1) & (high_type >= motif)).reshape(reached.shape)
        current = after
    return float(reached.any(1).float().mean())


def test_shapes_need_attention() -> None:
    data = load_graphs("shapes", num_graphs=300)
    assert crossed(data, odds=1) < 0.6 and crossed(data, odds=2) > 0.95


@pytest.mark.parametrize("options", [{"trail_length": 1}, {"num_noise_types": 1, "num_nodes": 2}])
def test_shapes_smallest(options: dict[str, Any]) -> None:
    data = load_graphs("shapes", num_graphs=8, **options)
    linked = networkx.Graph(data.edge_index.T.tolist())
    assert networkx.number_connected_components(linked) == 8


def test_shapes_seed_decides() -> None:
    one, again, other = (load_graphs("shapes", num_graphs=30, seed=seed) for seed in (3, 3, 4))
    for field in ("edge_index", "node_type", "node_ptr", "y"):
        assert torch.equal(getattr(one, field), getattr(again, field))
        assert not torch.equal(getattr(one, field), getattr(other, field))
