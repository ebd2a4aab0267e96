"""A data set of graphs that every classifier of graphs can learn."""

from __future__ import annotations

import torch

from gat_ext.datasets import GraphDataset


def paths(num_graphs=40):
    """Paths of five nodes whose class is the type of the one in the middle."""
    y = torch.arange(num_graphs) % 2
    types = torch.zeros(num_graphs, 5, dtype=torch.int64)
    types[:, 2] = 1 + y
    one = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4], [1, 0, 2, 1, 3, 2, 4, 3]])
    edges = (one.unsqueeze(1) + 5 * torch.arange(num_graphs).view(1, -1, 1)).flatten(1)
    return GraphDataset(
        name="paths",
        edge_index=edges,
        node_ptr=torch.arange(num_graphs + 1) * 5,
        node_type=types.flatten(),
        num_types=3,
        y=y,
        num_classes=2,
        signal_types=(1, 2),
    )
