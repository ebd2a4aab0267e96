"""A graph of several types of nodes and edges to sample from."""

from __future__ import annotations

import torch

from gat_ext.sampling import NeighborLoader, TypedNeighborSampler

WRITES, BY = ("author", "writes", "paper"), ("paper", "written_by", "author")
CITES, IN = ("paper", "cites", "paper"), ("paper", "in", "venue")
KNOWS = ("author", "knows", "robot")
SIZES = {"author": 90, "paper": 60, "venue": 7, "robot": 0}
COUNTS = {WRITES: 300, BY: 250, CITES: 400, IN: 60, KNOWS: 0}


def random_edges(seed=0):
    """The last ten papers have no in-edges, and relations lead to the empty type "robot"."""
    generator = torch.Generator().manual_seed(seed)
    edges = {}
    for (src, name, dst), count in COUNTS.items():
        last = max(1, SIZES[dst] - 10 * (dst == "paper"))
        ends = [torch.randint(max(1, n), (count,), generator=generator) for n in (SIZES[src], last)]
        edges[src, name, dst] = torch.stack(ends)
    return edges


EDGES = random_edges()
X = {kind: torch.randn(size, 4, generator=torch.Generator().manual_seed(size))
     for kind, size in SIZES.items()}  # fmt: skip
Y = torch.arange(60) * 3
DATA = EDGES, X, Y
TWO = {relation: [2] for relation in EDGES}


def sampler(num_neighbors, **options):
    return TypedNeighborSampler(EDGES, num_neighbors, num_nodes=SIZES, **options)


def loader(num_neighbors=(3, 2), **options):
    defaults = {"data": DATA, "input_nodes": "paper", "batch_size": 16}
    return NeighborLoader(num_neighbors=num_neighbors, **{**defaults, **options})


def hetero_data():
    from torch_geometric.data import HeteroData

    data = HeteroData()
    for kind, size in SIZES.items():
        data[kind].x, data[kind].number = X[kind], torch.arange(size)
    for relation, edges in EDGES.items():
        data[relation].edge_index = edges
        data[relation].edge_attr = torch.arange(float(edges.shape[1])).view(-1, 1)
    data["paper"].y, data.title = Y, "all"
    return data
