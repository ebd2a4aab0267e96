"""The forms of edges: one graph in the form of each supported library."""

from __future__ import annotations

import networkx as nx
import scipy.sparse
import torch
from torch_geometric.edge_index import EdgeIndex

from gat_ext import Graph

NUM_NODES = 7
DENSE = (
    torch.rand(NUM_NODES, NUM_NODES, generator=torch.Generator().manual_seed(0)) < 0.4
).double()
ROWS, COLS = DENSE.nonzero().t()
EDGES = torch.stack([COLS, ROWS])  # row by row: destinations ascend


class SparseTensor:
    """The methods of torch_sparse's class that layers use."""

    def __init__(self, row, col, value=None, sparse_sizes=None):
        order = torch.argsort(row * (max(sparse_sizes) + 1) + col)
        self.row, self.col = row[order], col[order]
        self.value = None if value is None else value[order]
        self.sizes = sparse_sizes

    def coo(self):
        return self.row, self.col, self.value

    def sparse_sizes(self):
        return self.sizes


class DGLGraph:
    """The methods of DGL's graphs and blocks that layers use."""

    def __init__(self, edge_index, num_src, num_dst, is_block):
        self.edge_index, self.num_src, self.num_dst = edge_index, num_src, num_dst
        self.is_block = is_block

    def edges(self):
        return self.edge_index[0], self.edge_index[1]

    def num_src_nodes(self):
        return self.num_src

    def num_dst_nodes(self):
        return self.num_dst


def networkx_graph():
    graph = nx.DiGraph()
    graph.add_nodes_from(range(NUM_NODES))
    graph.add_edges_from(EDGES.t().tolist())
    return graph


# Name -> (edges, True if they are in the order of EDGES).
FORMS = {
    "int32": lambda: EDGES.int(),
    "Graph": lambda: Graph(EDGES, num_nodes=NUM_NODES),
    "EdgeIndex": lambda: EdgeIndex(EDGES, sparse_size=(NUM_NODES, NUM_NODES)),
    "sorted EdgeIndex": lambda: EdgeIndex(
        EDGES, sparse_size=(NUM_NODES, NUM_NODES), sort_order="col"
    ),
    "SparseTensor": lambda: SparseTensor(ROWS, COLS, sparse_sizes=(NUM_NODES, NUM_NODES)),
    "COO": lambda: DENSE.to_sparse_coo(),
    "CSR": lambda: DENSE.to_sparse_csr(),
    "CSC": lambda: DENSE.to_sparse_csc(),
    "SciPy CSR": lambda: scipy.sparse.csr_array(DENSE.numpy()),
    "SciPy COO": lambda: scipy.sparse.coo_matrix(DENSE.numpy()),
    "NetworkX": networkx_graph,
    "DGL": lambda: DGLGraph(EDGES, NUM_NODES, NUM_NODES, is_block=False),
}
