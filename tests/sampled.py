"""Graphs to sample from."""

from __future__ import annotations

import torch

from gat_ext import Graph


def random_graph(num_nodes=60, num_edges=400, *, dtype=None, seed=0) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(num_nodes, (2, num_edges), generator=generator)
    return Graph(edges, num_nodes, index_dtype=dtype)


def star(degree: int) -> Graph:
    """`degree` edges into node 0."""
    return Graph(torch.stack([torch.arange(1, degree + 1), torch.zeros(degree).long()]))
