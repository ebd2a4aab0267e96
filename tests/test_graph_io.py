"""Graphs of other libraries: SciPy, torch sparse, NetworkX, PyTorch Geometric, DGL."""

from __future__ import annotations

import sys

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.edge_index import EdgeIndex

from gat_ext import Graph, reference
from gat_ext.testing import GRAPHS, sample_graph

X = torch.arange(12, dtype=torch.float64).reshape(4, 3)
# A [3, 4]: 4 sources, 3 destinations, destination 1 without edges.
DENSE = np.array([[0.0, 2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 4.0, 5.0]])


def assert_multiplies_like(graph: Graph, weight, dense: np.ndarray) -> None:
    """spmm with the stored values as weights is the product with the matrix."""
    weight = torch.as_tensor(weight)
    assert (graph.num_dst, graph.num_src) == dense.shape
    torch.testing.assert_close(
        reference.spmm(graph, X, weight), torch.from_numpy(dense) @ X, rtol=0, atol=0
    )


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "lil", "dok"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_scipy(layout, kind):
    make = getattr(scipy.sparse, f"{layout}_{kind}")
    matrix = make(DENSE)
    assert_multiplies_like(Graph.from_scipy(matrix), matrix.tocoo().data, DENSE)


def test_scipy_csr_is_in_csr_order():
    assert Graph.from_scipy(scipy.sparse.csr_array(DENSE)).edge_id is None


def test_scipy_keeps_stored_zeros_and_repeated_entries():
    entries = ([0.0, 1.0, 2.0], ([0, 2, 2], [1, 3, 3]))
    matrix = scipy.sparse.coo_array(entries, shape=(3, 4))
    graph = Graph.from_scipy(matrix)
    assert graph.edge_index.tolist() == [[1, 3, 3], [0, 2, 2]]
    assert_multiplies_like(graph, matrix.data, matrix.toarray())


def test_scipy_errors():
    with pytest.raises(TypeError, match="ndarray"):
        Graph.from_scipy(DENSE)
    with pytest.raises(ValueError, match=r"\(4,\)"):
        Graph.from_scipy(scipy.sparse.coo_array(DENSE[0]))


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo])
def test_torch_sparse(layout):
    matrix = torch.from_numpy(DENSE).to_sparse(layout=layout)
    graph = Graph.from_torch_sparse(matrix)
    assert_multiplies_like(graph, matrix.values(), DENSE)
    assert graph.edge_id is None


def test_torch_csc():
    """Entries are by column, so edges are by source."""
    matrix = torch.from_numpy(DENSE).to_sparse_csc()
    graph = Graph.from_torch_sparse(matrix)
    assert_multiplies_like(graph, matrix.values(), DENSE)
    assert graph.edge_index[0].tolist() == sorted(graph.edge_index[0].tolist())


def test_torch_uncoalesced():
    indices = torch.tensor([[2, 0, 2], [3, 1, 3]])
    values = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    matrix = torch.sparse_coo_tensor(indices, values, (3, 4))
    graph = Graph.from_torch_sparse(matrix)
    assert graph.num_edges == 3
    assert_multiplies_like(graph, values, matrix.to_dense().numpy())


def test_torch_sparse_errors():
    with pytest.raises(TypeError, match="sparse_bsr"):
        Graph.from_torch_sparse(torch.eye(4).to_sparse_bsr((2, 2)))
    with pytest.raises(TypeError, match="strided"):
        Graph.from_torch_sparse(torch.eye(3))
    with pytest.raises(TypeError, match="list"):
        Graph.from_torch_sparse([[1.0]])
    with pytest.raises(ValueError, match=r"\[2, 2, 2\].*two sparse dimensions"):
        Graph.from_torch_sparse(torch.ones(2, 2, 2).to_sparse())


def test_torch_sparse_with_a_vector_for_each_edge():
    matrix = torch.eye(3)[:, :, None].expand(3, 3, 2).to_sparse(2)
    assert Graph.from_torch_sparse(matrix).edge_index.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_networkx_directed_with_named_nodes():
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(["c", "a", "b"])
    graph.add_edges_from([("a", "b"), ("c", "c"), ("a", "b"), ("b", "c")])
    ours = Graph.from_networkx(graph)
    number = {"c": 0, "a": 1, "b": 2}
    expected = [[number[u], number[v]] for u, v in graph.edges()]
    assert ours.edge_index.t().tolist() == expected
    assert ours.num_nodes == 3


def test_networkx_undirected_goes_both_ways():
    graph = nx.Graph([(0, 1), (1, 1), (1, 2)])
    graph.add_node(3)
    ours = Graph.from_networkx(graph)
    assert ours.edge_index.t().tolist() == [[0, 1], [1, 1], [1, 2], [1, 0], [2, 1]]
    assert ours.num_nodes == 4
    karate = nx.karate_club_graph()
    degrees = torch.tensor([degree for _, degree in karate.degree()])
    assert torch.equal(Graph.from_networkx(karate).in_degrees(), degrees)


def test_networkx_without_edges_or_nodes():
    assert Graph.from_networkx(nx.empty_graph(3)).num_nodes == 3
    assert Graph.from_networkx(nx.DiGraph()).num_nodes == 0
    with pytest.raises(TypeError, match="dict"):
        Graph.from_networkx({})


EDGE_INDEX = torch.tensor([[0, 3, 2, 0], [1, 2, 2, 1]])


def test_pyg_edge_index_and_data():
    assert torch.equal(Graph.from_pyg(EDGE_INDEX).edge_index, EDGE_INDEX)
    graph = Graph.from_pyg(Data(edge_index=EDGE_INDEX, num_nodes=6))
    assert graph.num_nodes == 6 and torch.equal(graph.edge_index, EDGE_INDEX)
    assert Graph.from_pyg(Data(x=torch.zeros(5, 1), edge_index=EDGE_INDEX)).num_nodes == 5


@pytest.mark.parametrize("make", [Graph.from_pyg, Graph])
def test_pyg_edge_index_class(make):
    graph = make(EdgeIndex(EDGE_INDEX, sparse_size=(4, 4)))
    assert graph.num_nodes == 4 and torch.equal(graph.edge_index, EDGE_INDEX)
    for tensor in (graph.rowptr, graph.col, graph.edge_id, *graph.transpose()):
        assert type(tensor) is torch.Tensor


def test_pyg_edge_index_class_knows_its_sizes():
    graph = Graph.from_pyg(EdgeIndex(EDGE_INDEX, sparse_size=(5, 3)))
    assert (graph.num_src, graph.num_dst) == (5, 3)
    assert Graph.from_pyg(EdgeIndex(EDGE_INDEX)).num_nodes == 4


def test_pyg_transposed_adjacency():
    adj_t = torch.from_numpy(DENSE).to_sparse_csr()
    assert_multiplies_like(Graph.from_pyg(adj_t), adj_t.values(), DENSE)
    square = torch.sparse_coo_tensor(EDGE_INDEX.flip(0), torch.ones(4), (5, 5))
    graph = Graph.from_pyg(Data(adj_t=square, num_nodes=5))
    assert graph.num_nodes == 5 and torch.equal(graph.edge_index, EDGE_INDEX)


class SparseTensor:
    """The methods of torch_sparse.SparseTensor that a conversion needs."""

    def __init__(self, row, col, value, sizes):
        self._coo, self._sizes = (row, col, value), sizes

    def coo(self):
        return self._coo

    def sparse_sizes(self):
        return self._sizes


def test_pyg_sparse_tensor():
    row, col = torch.from_numpy(DENSE).nonzero().t()
    value = torch.from_numpy(DENSE)[row, col]
    adj_t = SparseTensor(row, col, value, (3, 4))
    assert_multiplies_like(Graph.from_pyg(adj_t), value, DENSE)


@pytest.mark.parametrize("thing", [HeteroData(), Data(), "cora"])
def test_pyg_errors(thing):
    with pytest.raises(TypeError, match=type(thing).__name__):
        Graph.from_pyg(thing)


class DGLGraph:
    """The methods of dgl.DGLGraph that a conversion needs."""

    def __init__(self, src, dst, num_src, num_dst):
        self._edges, self._num_src, self._num_dst = (src, dst), num_src, num_dst

    def edges(self):
        return self._edges

    def num_src_nodes(self):
        return self._num_src

    def num_dst_nodes(self):
        return self._num_dst


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_dgl(dtype):
    src, dst = EDGE_INDEX.to(dtype)
    graph = Graph.from_dgl(DGLGraph(src, dst, 6, 4))
    assert (graph.num_src, graph.num_dst) == (6, 4)
    assert torch.equal(graph.edge_index, EDGE_INDEX)
    with pytest.raises(TypeError, match="Tensor"):
        Graph.from_dgl(EDGE_INDEX)


def test_dgl_itself():
    dgl = pytest.importorskip("dgl")
    graph = Graph.from_dgl(dgl.graph(tuple(EDGE_INDEX), num_nodes=6))
    assert graph.num_nodes == 6 and torch.equal(graph.edge_index, EDGE_INDEX)


# ---- to other libraries and back

SQUARE = [name for name in GRAPHS if GRAPHS[name]().num_src == GRAPHS[name]().num_dst]


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_to_scipy_and_back(name, dtype):
    given = sample_graph(name)
    sizes = {"num_src": given.num_src, "num_dst": given.num_dst}
    graph = Graph(given.edge_index, **sizes, index_dtype=dtype)
    weights = torch.randn(graph.num_edges, dtype=torch.float64)
    matrix = graph.to_scipy(weights)
    assert matrix.format == "csr" and matrix.shape == (graph.num_dst, graph.num_src)
    order = torch.arange(graph.num_edges) if graph.edge_id is None else graph.edge_id
    again = Graph.from_scipy(matrix)
    assert (again.num_src, again.num_dst) == (graph.num_src, graph.num_dst)
    assert torch.equal(again.edge_index, graph.edge_index[:, order])
    assert torch.equal(torch.from_numpy(matrix.data), weights[order])
    x = torch.randn(graph.num_src, 3, dtype=torch.float64)
    torch.testing.assert_close(
        reference.spmm(graph, x, weights), torch.from_numpy(matrix @ x.numpy())
    )


def test_to_scipy_of_weights():
    graph = Graph(torch.tensor([[0, 1, 1], [1, 0, 0]]))
    assert graph.to_scipy().toarray().tolist() == [[0, 2], [1, 0]]
    assert graph.to_scipy().dtype == np.float32
    weights = torch.tensor([True, False, True])
    assert graph.to_scipy(weights).data.tolist() == [False, True, True]
    learned = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    assert graph.to_scipy(learned).data.tolist() == [2, 3, 1]


@pytest.mark.parametrize("edge_index", [[[0, 1, 2], [0, 1, 2]], [[0, 1, 2], [2, 1, 0]]])
def test_a_scipy_matrix_shares_no_memory(edge_index):
    graph, weights = Graph(torch.tensor(edge_index)), torch.tensor([1.0, 2.0, 3.0])
    matrix = graph.to_scipy(weights)
    for array in (matrix.data, matrix.indices, matrix.indptr):
        array[:] = 7
    assert graph.edge_index.tolist() == edge_index and weights.tolist() == [1, 2, 3]
    assert graph.rowptr.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0, 2.0], TypeError, r"weights is a list; expected a tensor \[2\]: .*torch.as_tensor"),
        (torch.ones(3), ValueError, r"weights has shape \[3\]; expected \[2\], one for each edge"),
        (torch.ones(2, 1), ValueError, r"weights has shape \[2, 1\]; expected \[2\]"),
        (torch.ones(2).bfloat16(), TypeError, r"dtype torch.bfloat16, .*weights\.float\(\)"),
        (torch.ones(2).half(), TypeError, r"dtype torch.float16, which SciPy lacks"),
    ],
)
def test_to_scipy_refuses(weights, error, message):
    with pytest.raises(error, match=message):
        Graph(torch.tensor([[0, 1], [1, 0]])).to_scipy(weights)


@pytest.mark.parametrize("name", SQUARE)
def test_to_networkx_and_back(name):
    graph = sample_graph(name)
    found = graph.to_networkx()
    pairs = list(map(tuple, graph.edge_index.t().tolist()))
    assert found.is_directed() and list(found.nodes) == list(range(graph.num_nodes))
    assert found.is_multigraph() == (len(set(pairs)) < len(pairs))
    assert found.number_of_edges() == graph.num_edges
    again = Graph.from_networkx(found)
    assert again.num_nodes == graph.num_nodes
    assert torch.equal(again.edge_index, graph.edge_index[:, graph.transpose().edge_id.long()])


@pytest.mark.parametrize("name", SQUARE)
def test_to_pyg_and_back(name):
    graph = sample_graph(name)
    data = graph.to_pyg()
    assert type(data) is Data and data.num_nodes == graph.num_nodes and data.validate()
    again = Graph.from_pyg(data)
    assert again.num_nodes == graph.num_nodes
    assert torch.equal(again.edge_index, graph.edge_index)


@pytest.mark.parametrize("method", ["to_networkx", "to_pyg"])
def test_bipartite_graphs_have_no_such_form(method):
    with pytest.raises(
        ValueError, match=rf"{method} got .* num_src=9 and num_dst=4; expected equal"
    ):
        getattr(sample_graph("more_sources"), method)()


def test_what_to_do_with_bipartite_graphs_instead():
    """As the errors say."""
    graph = sample_graph("more_sources")
    edges = EdgeIndex(graph.edge_index, sparse_size=(graph.num_src, graph.num_dst))
    again = Graph.from_pyg(edges)
    assert (again.num_src, again.num_dst) == (graph.num_src, graph.num_dst)
    src, dst = graph.edge_index
    joint = Graph(torch.stack([src, dst + graph.num_src]), num_nodes=13).to_networkx()
    assert nx.is_bipartite(joint) and joint.number_of_nodes() == 13


@pytest.mark.parametrize(
    ("method", "module", "package"),
    [
        ("to_scipy", "scipy.sparse", "scipy"),
        ("to_networkx", "networkx", "networkx"),
        ("to_pyg", "torch_geometric.data", "torch_geometric"),
    ],
)
def test_missing_library(method, module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ImportError, match=rf"Graph\.{method} needs {package}: pip install {package}"
    ):
        getattr(sample_graph("path"), method)()
