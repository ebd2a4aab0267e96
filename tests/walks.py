"""Agents, and tests of their distribution, for tests of the walk operators."""

from __future__ import annotations

import torch
from scipy.stats import chisquare

from gat_ext import Graph

F64 = torch.float64
SEED = 2**40 + 12345


def seed_tensor(device="cpu", seed=SEED):
    return torch.tensor([seed], device=device)


def agents_on(graph, *, count=60, types=4, dtype=F64, device="cpu"):
    """current [B], rank [B, R], node_type [N], with some ranks of 0."""
    generator = torch.Generator().manual_seed(3)
    current = torch.arange(count) % graph.num_nodes
    rank = torch.randn(count, types, generator=generator, dtype=F64).softmax(1)
    rank[::5, 1] = 0
    node_type = torch.randint(types, (graph.num_nodes,), generator=generator)
    return current.to(device), rank.to(device, dtype), node_type.to(device)


def p_value(moved, places, probabilities):
    """The p-value of the hypothesis that places were drawn with these probabilities."""
    counts = torch.stack([(moved == place).sum() for place in places]).double()
    assert counts.sum() == len(moved)
    return chisquare(counts.numpy(), (probabilities * len(moved)).numpy()).pvalue


def fan():
    """Node 0 with neighbours 1 … 6 of types 0, 1, 2, 0, 1, 2; the last has two edges."""
    graph = Graph(torch.tensor([[3, 1, 6, 2, 5, 4, 6], [0] * 7]), num_nodes=7)
    return graph, torch.tensor([0, 0, 1, 2, 0, 1, 2])
