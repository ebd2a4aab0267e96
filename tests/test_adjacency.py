"""Layers and models take the edges of other libraries, and cache the graphs built from them."""

from __future__ import annotations

import networkx as nx
import pytest
import scipy.sparse
import torch
import torch_geometric.nn as pyg
from layers import over, plain_cases
from torch.testing import assert_close
from torch_geometric.data import Data
from torch_geometric.edge_index import EdgeIndex

from gat_ext import Graph, models, nn
from gat_ext.explain import record_attention
from gat_ext.graph import formats
from gat_ext.graph.cache import _cache
from gat_ext.interop import patch_pyg
from gat_ext.nn import adjacency

NUM_NODES = 7
DENSE = (
    torch.rand(NUM_NODES, NUM_NODES, generator=torch.Generator().manual_seed(0)) < 0.4
).double()
ROWS, COLS = DENSE.nonzero().t()
EDGES = torch.stack([COLS, ROWS])  # row by row: destinations ascend


class SparseTensor:
    """What layers use of torch_sparse's class."""

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
    """What layers use of DGL's graphs and blocks."""

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


# By name: the edges, and whether their order is that of EDGES.
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
CALLED = {case.name: case.make for case in plain_cases("forms")} | {
    "GAT": lambda: models.GAT(5, 4, 3).eval(),
    "AGNN": lambda: models.AGNN(5, 4, 3).eval(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CALLED)
def test_every_form_of_edges(name, form):
    module, x = CALLED[name](), torch.randn(NUM_NODES, 5)
    edges = FORMS[form]()
    expected = module(x, EDGES)
    for _ in range(2):  # the second time from the cache
        assert_close(module(x, edges), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CALLED)
def test_reordered_takes_every_form(name, form):
    module, x = CALLED[name](), torch.randn(NUM_NODES, 5)
    reordered, edges = nn.Reordered(module, "degree"), FORMS[form]()
    for _ in range(2):
        assert_close(reordered(x, edges), module(x, EDGES))


@pytest.mark.parametrize("form", FORMS)
def test_reordered_returns_attention_in_every_form(form):
    layer, x, edges = nn.GATConv(5, 4, heads=2), torch.randn(NUM_NODES, 5), FORMS[form]()
    expected = layer(x, edges, return_attention_weights=True)
    found = nn.Reordered(layer, "rcm")(x, edges, return_attention_weights=True)
    assert type(found[1]) is type(expected[1])
    # The module is given a Graph, whose edge_index is of int64.
    assert_close(_dense_parts(found), _dense_parts(expected), check_dtype=form != "int32")


@pytest.mark.parametrize("form", ["COO", "SparseTensor"])
def test_reordered_takes_values_for_edge_features(form):
    layer, x = nn.TransformerConv(5, 4, edge_dim=2), torch.randn(NUM_NODES, 5)
    values, other = torch.randn(2, EDGES.shape[1], 2)
    edges = matrix_of(form, values)
    reordered = nn.Reordered(layer, "degree")
    assert_close(reordered(x, edges), layer(x, EDGES, values))
    assert_close(reordered(x, edges, other), layer(x, EDGES, other))
    assert_close(reordered(x, edges, edge_attr=other), layer(x, EDGES, other))


def test_reordered_needs_a_square_form():
    block = DGLGraph(EDGES[:, :2], NUM_NODES, 3, is_block=True)
    with pytest.raises(ValueError, match="call the module itself on a bipartite graph"):
        nn.Reordered(nn.GATConv(5, 4), "degree")(torch.randn(NUM_NODES, 5), block)


class Pairs(list):
    """A form of edges that gat_ext does not know: pairs (source, destination)."""


def test_a_new_form_is_one_file_and_one_row(monkeypatch):
    """What CONTRIBUTING says: everything else reads the rows."""
    form = formats.Form(
        "a list of pairs",
        lambda value: isinstance(value, Pairs),
        lambda pairs: (torch.tensor(pairs).reshape(-1, 2).t(), (NUM_NODES, NUM_NODES)),
        constructor="from_pairs",
    )
    pairs, x = Pairs(EDGES.t().tolist()), torch.randn(NUM_NODES, 5)
    with pytest.raises(TypeError, match="edge_index is a Pairs; expected"):
        nn.GATConv(5, 4)(x, pairs)
    monkeypatch.setattr(formats, "FORMS", (*formats.FORMS, form))
    for make in CALLED.values():
        module = make()
        expected = module(x, EDGES)
        assert_close(module(x, pairs), expected)
        assert_close(nn.Reordered(module, "degree")(x, pairs), expected)
    with record_attention(module) as records:
        module(x, pairs)
    assert records[0].edge_id.max() == len(pairs) - 1
    for known in formats.FORMS:
        with pytest.raises(TypeError, match=known.name):
            module(x, object())
        with pytest.raises(TypeError, match=f"Graph.{known.constructor}"):
            Graph(object())


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_recorded_attention(form, asked):
    """Recording needs the edges as a list and changes no result, with and without weights."""
    layer, x = nn.GATConv(5, 4, heads=2), torch.randn(NUM_NODES, 5)
    edges = FORMS[form]()
    expected = layer(x, edges, return_attention_weights=asked)
    with record_attention(layer) as records:
        found = layer(x, edges, return_attention_weights=asked)
    assert_close(_dense_parts(found), _dense_parts(expected))
    weights = torch.zeros(NUM_NODES, NUM_NODES, 2)
    weights[records[0].edge_index[1], records[0].edge_index[0]] = records[0].alpha
    _, (edge_index, alpha) = layer(x, EDGES, return_attention_weights=True)
    assert_close(weights[edge_index[1], edge_index[0]], alpha)


def matrix_of(form, values):
    """The edges as a matrix of a form, with values [E, 2]."""
    sizes = (NUM_NODES, NUM_NODES)
    if form == "SparseTensor":
        return SparseTensor(ROWS, COLS, values, sizes)
    return torch.sparse_coo_tensor(torch.stack([ROWS, COLS]), values, (*sizes, 2))


def _dense_parts(result):
    """The tensors of a layer's result."""
    if isinstance(result, SparseTensor):
        return list(result.coo())
    if isinstance(result, tuple):
        return [tensor for part in result for tensor in _dense_parts(part)]
    return [result if result.layout == torch.strided else result.to_sparse_coo()._values()]


@pytest.mark.parametrize("form", ["COO", "SparseTensor"])
def test_recorded_attention_to_values(form):
    """The values of a matrix are edge features while attention is recorded, too."""
    layer, x = nn.TransformerConv(5, 4, edge_dim=2), torch.randn(NUM_NODES, 5)
    values = torch.randn(EDGES.shape[1], 2)
    edges = matrix_of(form, values)
    with record_attention(layer) as records:
        assert_close(layer(x, edges), layer(x, EDGES, values))
    _, (_, alpha) = layer(x, EDGES, values, return_attention_weights=True)
    assert_close(records[0].alpha, alpha)


@pytest.mark.parametrize("form", FORMS)
def test_edge_features_in_the_order_of_the_form(form):
    layer, x = nn.GATConv(5, 4, edge_dim=2), torch.randn(NUM_NODES, 5)
    attr = torch.randn(EDGES.shape[1], 2)
    edges = FORMS[form]()
    by_column = torch.argsort(EDGES[0], stable=True)
    order = {"CSC": by_column}.get(form, torch.arange(EDGES.shape[1]))
    if form == "NetworkX":
        position = {tuple(edge): i for i, edge in enumerate(EDGES.t().tolist())}
        order = torch.tensor([position[edge] for edge in edges.edges()])
    assert_close(layer(x, edges, attr[order]), layer(x, EDGES, attr))


@pytest.mark.parametrize("form", ["COO", "CSR", "CSC", "SparseTensor"])
@over(plain_cases("forms", "weights"))
def test_attention_in_the_form_of_the_matrix(case, form):
    layer, x = case.make(), torch.randn(NUM_NODES, 5)
    out, attention = layer(x, FORMS[form](), return_attention_weights=True)
    expected, (edge_index, alpha) = layer(x, EDGES, return_attention_weights=True)
    assert_close(out, expected)
    dense = torch.zeros(NUM_NODES, NUM_NODES, alpha.shape[1])
    dense[edge_index[1], edge_index[0]] = alpha
    if form == "SparseTensor":
        assert isinstance(attention, SparseTensor)
        row, col, value = attention.coo()
        found = torch.zeros_like(dense)
        found[row, col] = value
    else:
        matrix, values = attention
        assert matrix.layout == FORMS[form]().layout and values.shape == alpha.shape
        stored = matrix._values() if form == "COO" else matrix.values()
        assert torch.equal(stored, values)
        if form == "COO":
            found = matrix.to_dense()
        else:
            graph = Graph.from_torch_sparse(matrix)
            found = torch.zeros_like(dense)
            found[graph.edge_index[1], graph.edge_index[0]] = values
    assert_close(found, dense)


def test_values_of_a_matrix_are_edge_features():
    layer, x = nn.TransformerConv(5, 4, edge_dim=2), torch.randn(NUM_NODES, 5)
    attr = torch.randn(EDGES.shape[1], 2)
    expected = layer(x, EDGES, attr)
    sizes = (NUM_NODES, NUM_NODES)
    assert_close(layer(x, SparseTensor(ROWS, COLS, attr, sizes)), expected)
    matrix = torch.sparse_coo_tensor(torch.stack([ROWS, COLS]), attr, (*sizes, 2))
    assert_close(layer(x, matrix), expected)
    other = torch.randn_like(attr)  # what is given by name is what counts
    assert_close(layer(x, matrix, other), layer(x, EDGES, other))
    with pytest.raises(ValueError, match="edge_attr is None"):
        layer(x, DENSE.to_sparse_csr())


def matrix_with_values(form, values):
    sizes = (NUM_NODES, NUM_NODES, *values.shape[1:])
    if form == "COO":
        return torch.sparse_coo_tensor(torch.stack([ROWS, COLS]), values, sizes).coalesce()
    compressed = DENSE.to_sparse_csr()
    pointers, cols = compressed.crow_indices(), compressed.col_indices()
    return torch.sparse_csr_tensor(pointers, cols, values, sizes)


@pytest.mark.parametrize("form", ["COO", "CSR"])
@pytest.mark.parametrize("options", [{}, {"edge_dim": 2}], ids=str)
@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "TransformerConv", "AGNNConv"])
def test_matrices_mean_what_they_mean_to_pyg(name, options, form):
    """Includes values used as edge features, their gradients, and the attention on each entry."""
    if name == "AGNNConv" and options:
        return
    sizes = () if name == "AGNNConv" else (5, 4, 1)
    theirs, ours = (getattr(library, name)(*sizes, **options).double() for library in (pyg, nn))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(NUM_NODES, 5, dtype=torch.float64)
    values = torch.randn(EDGES.shape[1], *options.values(), dtype=torch.float64)
    leaf = values.requires_grad_(bool(options))
    out = ours(x, matrix_with_values(form, leaf))
    assert_close(out, theirs(x, matrix_with_values(form, values.detach())))
    if (
        options
    ):  # PyG's self-loops lose the gradient to a COO matrix: compared with that to edge_attr
        expected = theirs(x, EDGES, leaf)
        grads = [torch.autograd.grad(each.square().sum(), leaf)[0] for each in (out, expected)]
        assert_close(*grads)
    if name == "AGNNConv" or (options and form == "COO"):  # which PyG cannot give values of alpha
        return
    matrix = matrix_with_values(form, values.detach())
    (mine, alpha), (other, expected) = (
        layer(x, matrix, return_attention_weights=True)[1] for layer in (ours, theirs)
    )
    assert_close(alpha, expected)
    assert mine.layout == other.layout


def test_gradients_that_would_be_lost():
    values = torch.randn(EDGES.shape[1], 2, requires_grad=True)
    indices, sizes = torch.stack([ROWS, COLS]), (NUM_NODES, NUM_NODES, 2)
    layer, x = nn.GATConv(5, 4, edge_dim=2), torch.randn(NUM_NODES, 5)
    with pytest.raises(ValueError, match=r"not coalesced .* give the result of its coalesce\(\)"):
        layer(x, torch.sparse_coo_tensor(indices, values, sizes))
    fixed = torch.sparse_coo_tensor(indices, values.detach(), sizes)
    assert_close(layer(x, fixed), layer(x, fixed.coalesce()))


@over(plain_cases("forms", "pairs"))
def test_blocks(case):
    """A block's destinations are its first sources; features are of all sources or of both ends."""
    src, dst = torch.randint(9, (20,)), torch.randint(4, (20,))
    block = DGLGraph(torch.stack([src, dst]), 9, 4, is_block=True)
    layer, x = case.make(), torch.randn(9, 5)
    expected = layer((x, x[:4]), torch.stack([src, dst]))
    assert expected.shape[0] == 4
    assert_close(layer(x, block), expected)
    assert_close(layer((x, x[:4]), block), expected)


def test_what_holds_no_edges():
    layer, x = nn.GATConv(5, 4), torch.randn(NUM_NODES, 5)
    for wrong in ([[0, 1], [1, 0]], None, "edges", EDGES.numpy()):
        with pytest.raises(TypeError, match=f"edge_index is a {type(wrong).__name__}; expected"):
            layer(x, wrong)
    with pytest.raises(ValueError, match="x has 7 rows for the sources"):
        layer(x, scipy.sparse.eye_array(3))
    with pytest.raises(ValueError, match="x has 5 rows for the sources"):
        models.GAT(5, 4, 3)(x[:5], DENSE.to_sparse_csr())


def test_data_of_pyg_belongs_to_graph():
    data = Data(x=torch.randn(NUM_NODES, 5), edge_index=EDGES)
    layer = nn.GATConv(5, 4)
    assert_close(layer(data.x, Graph.from_pyg(data)), layer(data.x, data.edge_index))


# ---- caching


@pytest.mark.parametrize("form", ["COO", "CSR", "CSC", "SparseTensor"])
def test_graph_of_a_matrix_is_cached(form):
    matrix = FORMS[form]()
    assert adjacency.unwrap(matrix) is adjacency.unwrap(matrix)
    assert adjacency.unwrap(FORMS[form]()) is not adjacency.unwrap(matrix)


def test_matrices_that_share_one_of_their_index_tensors():
    rows, sizes = ROWS.clone(), (NUM_NODES, NUM_NODES)
    one = SparseTensor(ROWS, COLS, sparse_sizes=sizes)
    other = SparseTensor(rows, COLS, sparse_sizes=sizes)
    third = SparseTensor(ROWS, COLS, sparse_sizes=sizes)
    other.col, third.row = one.col, one.row
    other.row = one.row.flip(0)
    third.col = one.col.flip(0)
    for matrix in (one, other, third, one):
        expected = torch.stack([matrix.col, matrix.row])
        assert torch.equal(adjacency.unwrap(matrix).edge_index, expected)
    same = SparseTensor(ROWS, COLS, sparse_sizes=sizes)
    same.row, same.col = one.row, one.col
    assert adjacency.unwrap(same) is adjacency.unwrap(one)


INDICES = {
    "COO": lambda matrix: matrix._indices()[0],
    "CSR": lambda matrix: matrix.col_indices(),
    "CSC": lambda matrix: matrix.row_indices(),
    "SparseTensor": lambda matrix: matrix.row,
    "SparseTensor's columns": lambda matrix: matrix.col,
}


@pytest.mark.parametrize("form", INDICES)
def test_writes_to_the_indices_of_a_matrix_are_noticed(form):
    matrix = FORMS[form.removesuffix("'s columns")]()
    before = adjacency.unwrap(matrix).edge_index
    INDICES[form](matrix).fill_(3)
    after = adjacency.unwrap(matrix).edge_index
    assert not torch.equal(before, after)
    assert torch.equal(after, Graph.from_pyg(matrix).edge_index)


def test_edge_index_objects_share_what_their_tensor_has():
    edges = FORMS["EdgeIndex"]()
    assert type(adjacency.unwrap(edges)) is torch.Tensor
    assert adjacency.unwrap(edges) is adjacency.unwrap(edges)


def test_what_can_change_is_read_again():
    layer, x = nn.GATConv(5, 4), torch.randn(NUM_NODES, 5)
    graph = networkx_graph()
    layer(x, graph)
    graph.remove_edge(*EDGES.t().tolist()[0])
    assert_close(layer(x, graph), layer(x, EDGES[:, 1:]))
    matrix = scipy.sparse.lil_array(DENSE.numpy())
    layer(x, matrix)
    matrix[0, :] = 0
    assert_close(layer(x, matrix), layer(x, EDGES[:, EDGES[1] != 0]))


def test_forgotten_with_the_matrix():
    matrix = FORMS["CSR"]()
    adjacency.unwrap(matrix)
    count = len(_cache)
    del matrix
    assert len(_cache) == count - 1


WRITES = {
    "copy": lambda edges, other: edges.copy_(other),
    "rows": lambda edges, other: edges.__setitem__(slice(None), other),
    "inner tensor": lambda edges, other: edges.as_tensor().copy_(other),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("patched", [False, True])
def test_writes_to_an_edge_index_of_pyg(write, patched):
    """The tensor within it does not count them."""
    layer, x = (pyg if patched else nn).GATConv(5, 4), torch.randn(NUM_NODES, 5)
    if patched:
        patch_pyg(layer)
    other = EDGES.roll(1, dims=1).flip(0)
    edges = EdgeIndex(EDGES.clone(), sparse_size=(NUM_NODES, NUM_NODES))
    assert_close(layer(x, edges), layer(x, EDGES))
    for new in (other, EDGES, other):
        WRITES[write](edges, new)
        for _ in range(2):
            assert_close(layer(x, edges), layer(x, new))


@pytest.mark.parametrize("form", [form for form in FORMS if form != "Graph"])
def test_edges_made_in_inference_mode(form):
    layer, x = nn.GATConv(5, 4), torch.randn(NUM_NODES, 5)
    expected = layer(x, EDGES)
    with torch.inference_mode():
        edges = FORMS[form]()
        if isinstance(edges, torch.Tensor) and edges.layout == torch.strided:
            edges = edges.clone()
        for _ in range(2):
            assert_close(layer(x, edges), expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_edges_come_back_as_they_were(add_self_loops, dtype):
    """As with PyG's layers: of the same dtype, and the same object where no loops were added."""
    layer, edges = nn.GATConv(5, 4, add_self_loops=add_self_loops), EDGES.to(dtype)
    x = torch.randn(NUM_NODES, 5)
    _, (found, _) = layer(x, edges, return_attention_weights=True)
    assert found.dtype == dtype and (found is edges) == (not add_self_loops)
    _, (found, _) = nn.TransformerConv(5, 4)(x, edges, return_attention_weights=True)
    assert found is edges
