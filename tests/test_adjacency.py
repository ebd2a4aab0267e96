"""Layers and models take the edges of other libraries, and cache the graphs built from them."""

from __future__ import annotations

import pytest
import scipy.sparse
import torch
import torch_geometric.nn as pyg
from forms import COLS, DENSE, EDGES, FORMS, NUM_NODES, ROWS, DGLGraph, SparseTensor
from layers import over, plain_cases
from torch.testing import assert_close
from torch_geometric.data import Data

from gat_ext import Graph, models, nn
from gat_ext.explain import record_attention
from gat_ext.graph import formats

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
    for _ in range(2):  # then from the cache
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
    """A new form of edges: a list of pairs (source, destination)."""


def test_a_new_form_is_one_file_and_one_row(monkeypatch):
    """The recipe of CONTRIBUTING for a form of edges is complete."""
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
    """Flattens the result of a layer to its tensors."""
    if isinstance(result, SparseTensor):
        return list(result.coo())
    if isinstance(result, tuple):
        return [tensor for part in result for tensor in _dense_parts(part)]
    return [result if result.layout == torch.strided else result.to_sparse_coo()._values()]


@pytest.mark.parametrize("form", ["COO", "SparseTensor"])
def test_recorded_attention_to_values(form):
    """The values of a matrix are edge features also while attention is recorded."""
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
    dense = torch.zeros(NUM_NODES, NUM_NODES, *alpha.shape[1:])
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
    other = torch.randn_like(attr)  # edge_attr has priority over values
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
def test_matrices_equal_pyg(name, options, form):
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
    if options:  # with self-loops, PyG drops the gradient of a COO matrix: compare with edge_attr's
        expected = theirs(x, EDGES, leaf)
        grads = [torch.autograd.grad(each.square().sum(), leaf)[0] for each in (out, expected)]
        assert_close(*grads)
    if name == "AGNNConv" or (options and form == "COO"):  # PyG cannot return alpha as its values
        return
    matrix = matrix_with_values(form, values.detach())
    (mine, alpha), (other, expected) = (
        layer(x, matrix, return_attention_weights=True)[1] for layer in (ours, theirs)
    )
    assert_close(alpha, expected)
    assert mine.layout == other.layout


def test_values_of_uncoalesced_matrices_with_gradients_are_refused():
    values = torch.randn(EDGES.shape[1], 2, requires_grad=True)
    indices, sizes = torch.stack([ROWS, COLS]), (NUM_NODES, NUM_NODES, 2)
    layer, x = nn.GATConv(5, 4, edge_dim=2), torch.randn(NUM_NODES, 5)
    with pytest.raises(ValueError, match=r"not coalesced .* pass edge_index\.coalesce\(\)"):
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


def test_objects_without_edges_are_refused():
    layer, x = nn.GATConv(5, 4), torch.randn(NUM_NODES, 5)
    for wrong in ([[0, 1], [1, 0]], None, "edges", EDGES.numpy()):
        with pytest.raises(TypeError, match=f"edge_index is a {type(wrong).__name__}; expected"):
            layer(x, wrong)
    with pytest.raises(ValueError, match="x has 7 rows for the sources"):
        layer(x, scipy.sparse.eye_array(3))
    with pytest.raises(ValueError, match="x has 5 rows for the sources"):
        models.GAT(5, 4, 3)(x[:5], DENSE.to_sparse_csr())


def test_pyg_data_is_refused_by_layers():
    data = Data(x=torch.randn(NUM_NODES, 5), edge_index=EDGES)
    layer = nn.GATConv(5, 4)
    assert_close(layer(data.x, Graph.from_pyg(data)), layer(data.x, data.edge_index))
