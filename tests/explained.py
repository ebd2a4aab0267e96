"""Models and their recorded attention, for tests of gat_ext.explain."""

from __future__ import annotations

import torch

from gat_ext import models
from gat_ext.explain import (
    record_attention,
)

F64 = torch.float64


def random_edges(num_nodes=9, seed=0, num_edges=30):
    """Multi-edges, self-loops (two at node 2), nodes without in-edges; not sorted."""
    generator = torch.Generator().manual_seed(seed)
    src = torch.randint(num_nodes, (num_edges,), generator=generator)
    dst = torch.randint(num_nodes - 2, (num_edges,), generator=generator)
    extra = torch.tensor([[0, 2, 2, 3], [0, 2, 2, 1]])
    return torch.cat([torch.stack([src, dst]), extra, torch.stack([src, dst])[:, :3]], dim=1)


EDGES = random_edges()


def features(num_nodes=9, width=5):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_nodes, width, generator=generator, dtype=F64)


MODELS = {
    "GAT": lambda: models.GAT(5, 4, 3, heads=2, num_layers=3),
    "GATv2": lambda: models.GATv2(5, 4, 3, heads=2, num_layers=3),
    "GraphTransformer": lambda: models.GraphTransformer(5, 4, 3, num_layers=3),
    "AGNN": lambda: models.AGNN(5, 4, 3, num_layers=3),
}


def recorded(name="GAT", edges=EDGES, num_nodes=9):
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    with record_attention(model) as layers:
        model(features(num_nodes), edges)
    return layers
