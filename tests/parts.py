"""A graph, and a process's part of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gat_ext import Graph
from gat_ext.distributed import DistGraph, Part, make_part

NODES = 40


def cut(
    group: Any, rank: int, size: int, mode: str = "overlap", count: int = 200
) -> tuple[Graph, Part, DistGraph]:
    """A graph with multi-edges and self-loops, and this process's part of it."""
    generator = torch.Generator().manual_seed(5)
    edges = torch.randint(NODES, (2, count), generator=generator)
    edges = torch.cat([edges, edges[:, :30], torch.arange(20).expand(2, -1)], dim=1)
    part = make_part(edges, torch.randint(size, (NODES,), generator=generator), rank, size)
    return Graph(edges, num_nodes=NODES), part, DistGraph(part, group, mode=mode)


def both(graph: Graph, part: Part, dist_graph: DistGraph, run: Callable[..., Any]) -> Any:
    """The results of ``run(graph, rows, edges)`` of one process and of a part."""
    torch.manual_seed(3)
    whole = run(graph, slice(None), slice(None))
    torch.manual_seed(3)
    return whole, run(dist_graph, part.dst_nodes, part.edges)
