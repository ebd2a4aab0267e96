"""RGATConv and HEATConv, whose edges have types: what the tests of all layers do not cover."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
import torch_geometric.nn as pyg
from beside_pyg import EDGES, compare, normal, parameters
from forms import SparseTensor
from layers import LAYERS, Case, full_cases, over, plain_cases
from test_nn import LargestTensor
from torch.testing import assert_close

from gat_ext import Graph, SparseFeatures, interop, nn
from gat_ext.explain import record_attention
from gat_ext.interop import pyg as interop_pyg

F64 = torch.float64
TYPED = {"RGATConv", "HEATConv"}
PLAIN = [case for case in plain_cases(typed=True) if case.name in TYPED]
FULL = [case for case in full_cases(typed=True) if case.name in TYPED]
MODES = ("additive-self-attention", 1), ("multiplicative-self-attention", 2)


def rgat(kind, **options):
    return kind(6, 4, num_relations=3, **options).double()


def combinations():
    for (mode, dim), mechanism, mod, parts, edge_dim in itertools.product(
        MODES,
        ("across-relation", "within-relation"),
        (None, "additive", "scaled", "f-additive", "f-scaled"),
        ({}, {"num_bases": 2}, {"num_blocks": 2}),
        (None, 3),
    ):
        yield {
            **{"attention_mode": mode, "dim": dim, "attention_mechanism": mechanism, "mod": mod},
            **parts,
            **{"edge_dim": edge_dim, "heads": 2, "concat": mod is None},
        }


@pytest.mark.parametrize("options", list(combinations()), ids=str)
def test_all_combinations_of_rgat_equal_pyg(options):
    """Result and weights, with all gradients."""
    torch.manual_seed(0)
    theirs, ours = rgat(pyg.RGATConv, **options), rgat(nn.RGATConv, **options)
    torch.nn.init.normal_(theirs.l2)
    torch.nn.init.normal_(theirs.w)
    ours.load_state_dict(theirs.state_dict())
    x, edge_type = normal(9, 6), torch.randint(3, (EDGES.shape[1],))
    attr = [normal(EDGES.shape[1], 3)] if options["edge_dim"] else []
    results = []
    for layer in (ours, theirs):
        out, (edges, alpha) = layer(x, EDGES, edge_type, *attr, return_attention_weights=True)
        assert torch.equal(edges, EDGES)
        results.append(torch.cat([out.flatten(), alpha.flatten()]))
    leaves = [("x", (x, x)), *(("edge_attr", (a, a)) for a in attr), *parameters(ours, theirs)]
    compare(results, leaves, F64)


@over(FULL)
def test_the_seed_gives_the_weights_of_pyg(case):
    x, attr = torch.randn(9, 64), case.edge_attr(EDGES.shape[1])
    drawn = []
    for make in (case.make, case.make_pyg):
        torch.manual_seed(0)
        layer = make(64, 32)
        layer(x, EDGES, *attr)
        layer.reset_parameters()
        named = {name: p for name, p in layer.named_parameters() if name != "l2"}
        drawn.append({**named, "the next": torch.rand(3)})
    assert drawn[0].keys() == drawn[1].keys()
    for name, ours in drawn[0].items():
        assert torch.equal(ours, drawn[1][name]), name


def test_heat_takes_sizes_from_its_first_call():
    case = Case("HEATConv", LAYERS["HEATConv"], {"heads": 2})
    x, attr = torch.randn(9, 5), case.edge_attr(EDGES.shape[1])
    layers = []
    for make in (case.make, lambda size: case.make_pyg(size)):
        torch.manual_seed(0)
        layers.append(make(-1))
        layers[-1](x, EDGES, *attr)
    ours, theirs = layers
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert_close(ours(x, EDGES, *attr), theirs(x, EDGES, *attr))
    lazy = case.make(-1, edge_dim=-1)
    compiled = torch.compile(lazy, fullgraph=True, backend="eager")
    assert_close(compiled(x, EDGES, *attr), lazy(x, EDGES, *attr))
    assert (lazy.hetero_lin.in_channels, lazy.edge_attr_emb.in_features) == (5, 3)
    assert type(lazy.hetero_lin).__name__ == "TypedLinear"


@over(FULL)
def test_gradcheck_and_gradgradcheck(case):
    layer = case.make(3, 2).double()
    (*types, attr), x = case.edge_attr(EDGES.shape[1], F64), normal(9, 3)
    attr.requires_grad_()
    mask = torch.rand(EDGES.shape[1], dtype=F64, requires_grad=True)

    def call(x, attr, mask):
        return layer(x, EDGES, *types, attr, edge_mask=mask)

    assert torch.autograd.gradcheck(call, (x, attr, mask), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, attr, mask), fast_mode=True)


@over(FULL)
def test_edge_features_of_each_element_of_a_batch(case):
    layer = case.make().double()
    (*types, attr), x = case.edge_attr(EDGES.shape[1], F64), torch.randn(2, 3, 9, 5, dtype=F64)
    attr = attr * torch.randn(2, 3, 1, 1, dtype=F64)
    out, (_, alpha) = layer(x, EDGES, *types, attr, return_attention_weights=True)
    loop = [
        layer(element, EDGES, *types, features, return_attention_weights=True)
        for element, features in zip(x.flatten(0, 1), attr.flatten(0, 1), strict=True)
    ]
    assert_close(out.flatten(0, 1), torch.stack([o for o, _ in loop]))
    assert_close(alpha.flatten(1, 2), torch.stack([a for _, (_, a) in loop], 1))


@over(PLAIN)
def test_sparse_features(case):
    layer, attr = case.make().double(), case.edge_attr(EDGES.shape[1], F64)
    x = torch.randn(9, 5, dtype=F64).relu()
    assert_close(layer(SparseFeatures(x), EDGES, *attr), layer(x, EDGES, *attr))


def test_forms_of_edges():
    """A sparse matrix; the values of a SparseTensor are the types of RGATConv's edges."""
    torch.manual_seed(0)
    rows, cols = (torch.rand(9, 9) > 0.6).nonzero().t()
    edges, edge_type = torch.stack([cols, rows]), torch.randint(3, rows.shape)
    x, layer = torch.randn(9, 5), nn.RGATConv(5, 4, 3, heads=2)
    matrix = torch.sparse_coo_tensor(edges.flip(0), torch.ones(rows.shape), (9, 9)).coalesce()
    expected = layer(x, edges, edge_type)
    assert_close(layer(x, SparseTensor(rows, cols, edge_type, (9, 9))), expected)
    for form in (matrix, matrix.to_sparse_csr()):
        assert_close(layer(x, form, edge_type), expected)
        with pytest.raises(ValueError, match="edge_type is None"):
            layer(x, form)
    heat = Case("HEATConv", LAYERS["HEATConv"], {}).make()
    node_type, attr = torch.randint(2, (9,)), torch.randn(edges.shape[1], 3)
    expected = heat(x, edges, node_type, edge_type, attr)
    assert_close(heat(x, matrix, node_type, edge_type, attr), expected)
    given = SparseTensor(rows, cols, attr, (9, 9))
    assert_close(heat(x, given, node_type, edge_type), expected)


@over(FULL)
def test_attention_dropout(case):
    layer, x = case.make(dropout=0.5), torch.randn(9, 5)
    attr = case.edge_attr(EDGES.shape[1])
    torch.manual_seed(1)
    first, (_, alpha) = layer(x, EDGES, *attr, return_attention_weights=True)
    torch.manual_seed(1)
    assert torch.equal(first, layer(x, EDGES, *attr))
    out, (_, undropped) = layer.eval()(x, EDGES, *attr, return_attention_weights=True)
    assert not torch.allclose(first, out)
    if layer.returns_weights_before_dropout:
        assert_close(alpha, undropped)
    else:
        kept = alpha != 0
        assert 0.2 < kept.float().mean() < 0.8
        assert_close(alpha[kept], 2 * undropped[kept])


@over(FULL)
def test_recorded_and_copied(case):
    layer, x = case.make(), torch.randn(9, 5)
    attr = case.edge_attr(EDGES.shape[1])
    expected = layer(x, EDGES, *attr)
    with record_attention(layer) as records:
        assert torch.equal(layer(x, EDGES, *attr), expected)
    assert records[0].alpha.shape == (EDGES.shape[1], case.heads)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(copied(x, EDGES, *attr), expected)


@over(PLAIN)
def test_nothing_has_a_row_of_features_for_every_edge(case):
    num_nodes, num_edges, channels = 20, 1800, 32
    edges = torch.randint(num_nodes, (2, num_edges), generator=torch.Generator().manual_seed(0))
    x, attr = normal(num_nodes, 64, dtype=torch.float32), case.edge_attr(num_edges, num_nodes=20)
    largest = []
    for make in (case.make, case.make_pyg):
        layer = make(64, channels)
        with LargestTensor() as seen:
            layer(x, edges, *attr).square().sum().backward()
        largest.append(seen.elements)
    assert largest[0] < 0.2 * num_edges * 2 * channels < largest[1]


@pytest.mark.parametrize("name", sorted(TYPED))
def test_changed_types_are_noticed(name):
    """Graphs of relations and orders of types are cached until types are modified."""
    case = Case(name, LAYERS[name], {"heads": 2})
    layer, x, graph = case.make(), torch.randn(9, 5), Graph(EDGES, num_nodes=9)
    attr = case.edge_attr(EDGES.shape[1])
    first = layer(x, graph, *attr)
    for types in attr:
        if types.is_floating_point():
            continue
        types.copy_((types + 1) % 2)
        again = layer(x, graph, *attr)
        assert not torch.allclose(again, first)
        assert_close(again, layer(x, graph, *(t.clone() for t in attr)))
        first = again


def test_reordered_refuses_what_it_does_not_renumber():
    heat = nn.Reordered(FULL[0].make(), "degree")
    attr, x = FULL[0].edge_attr(EDGES.shape[1]), torch.randn(9, 5)
    with pytest.raises(ValueError, match="node_type was given to Reordered"):
        heat(x, EDGES, *attr)
    supergat = nn.Reordered(nn.SuperGATConv(5, 4), "degree")
    assert supergat(x, EDGES).shape == (9, 4)
    for given in ({"batch": torch.zeros(9).long()}, {"neg_edge_index": EDGES}):
        with pytest.raises(ValueError, match=f"{next(iter(given))} was given to Reordered"):
            supergat(x, EDGES, **given)
    rgat, edge_type = nn.RGATConv(5, 4, 3), torch.randint(3, (EDGES.shape[1],))
    expected = rgat(x, EDGES, edge_type)
    assert_close(nn.Reordered(rgat, "degree")(x, EDGES, edge_type), expected)


# ---- PyG's layers on these operators


@pytest.mark.parametrize("patched", [False, True])
@over(FULL)
def test_layers_of_pyg(case, patched, calls_of_pyg):
    theirs = case.make_pyg()
    if patched:
        ours = copy.deepcopy(theirs)
        assert interop.patch_pyg(ours).swapped == (("", case.name),)
    else:
        kind = getattr(interop_pyg, case.name)
        ours = kind(5, 4, **LAYERS[case.name].fixed, **case.options)
        ours.load_state_dict(theirs.state_dict())
    assert repr(ours) == f"{theirs!r} [gat_ext]" and isinstance(ours, type(theirs))
    x, attr = normal(9, 5, dtype=torch.float32), case.edge_attr(EDGES.shape[1])
    out = ours(x, EDGES, *attr)
    assert not calls_of_pyg
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, EDGES, *attr), out)
    leaves = [("x", (x, x)), *parameters(ours, theirs)]
    compare((out, theirs(x, EDGES, *attr)), leaves, torch.float32)
    interop.unpatch_pyg(ours)
    assert [type(m) for m in ours.modules()] == [type(m) for m in theirs.modules()]
    assert torch.equal(ours(x, EDGES, *attr), theirs(x, EDGES, *attr))


# ---- refusals

X = torch.ones(9, 6)
COUNT = EDGES.shape[1]
TYPES = torch.zeros(COUNT, dtype=torch.int64)
NODES = torch.zeros(9, dtype=torch.int64)


def heat(**options):
    return nn.HEATConv(6, 4, **LAYERS["HEATConv"].fixed | options)


BAD = {
    "mechanism": (
        lambda: nn.RGATConv(6, 4, 3, attention_mechanism="within"),
        ValueError,
        "attention_mechanism is 'within'; expected one of 'across-relation', 'within-relation'",
    ),
    "mode": (
        lambda: nn.RGATConv(6, 4, 3, attention_mode="dot"),
        ValueError,
        "attention_mode is 'dot'; expected one of",
    ),
    "dim": (lambda: nn.RGATConv(6, 4, 3, dim=2), ValueError, "dim is 2; .* expects 1: use"),
    "mod": (lambda: nn.RGATConv(6, 4, 3, mod="add"), ValueError, "mod is 'add'; expected one of"),
    "dropout of mod": (
        lambda: nn.RGATConv(6, 4, 3, mod="scaled", dropout=0.5),
        ValueError,
        "dropout is 0.5 and mod is 'scaled'; expected a dropout of 0",
    ),
    "bases and blocks": (
        lambda: nn.RGATConv(6, 4, 3, num_bases=2, num_blocks=2),
        ValueError,
        "num_bases is 2 and num_blocks is 2; expected one",
    ),
    "blocks": (
        lambda: nn.RGATConv(6, 4, 3, num_blocks=4),
        ValueError,
        "num_blocks is 4; expected a divisor of in_channels = 6",
    ),
    "relations": (lambda: nn.RGATConv(6, 4, 0), ValueError, "num_relations is 0"),
    "lazy": (lambda: nn.RGATConv(-1, 4, 3), ValueError, "in_channels is -1; expected at least 1"),
    "channels": (
        lambda: nn.RGATConv(5, 4, 3, num_bases=2)(X, EDGES, TYPES),
        ValueError,
        r"x has shape \[9, 6\]; RGATConv.* expects \[N, 5\]",
    ),
    "no types": (lambda: nn.RGATConv(6, 4, 3)(X, EDGES), ValueError, "edge_type is None; RGATConv"),
    "float types": (
        lambda: nn.RGATConv(6, 4, 3)(X, EDGES, TYPES.float()),
        TypeError,
        "edge_type has dtype torch.float32; expected int64",
    ),
    "number of types": (
        lambda: nn.RGATConv(6, 4, 3)(X, EDGES, TYPES[1:]),
        ValueError,
        rf"edge_type has shape \[{COUNT - 1}\]; expected \[{COUNT}\]",
    ),
    "unknown type": (
        lambda: nn.RGATConv(6, 4, 3)(X, EDGES, TYPES + 3),
        IndexError,
        "edge_type has the value 3; expected 0 to 2, because num_relations is 3",
    ),
    "edge features": (
        lambda: nn.RGATConv(6, 4, 3)(X, EDGES, TYPES, torch.ones(COUNT, 3)),
        ValueError,
        "edge_attr was given, but the layer has edge_dim=None",
    ),
    "pair": (
        lambda: nn.RGATConv(6, 4, 3)((X, X), EDGES, TYPES),
        TypeError,
        r"x is a tuple; RGATConv.* expects one tensor \[N, C\]",
    ),
    "sparse blocks": (
        lambda: nn.RGATConv(6, 4, 3, num_blocks=2)(SparseFeatures(X), EDGES, TYPES),
        TypeError,
        "x is sparse; RGATConv.* with num_blocks expects a dense tensor",
    ),
    "size": (
        lambda: nn.RGATConv(6, 4, 3)(X, EDGES, TYPES, size=(9, 8)),
        ValueError,
        r"size is \(9, 8\)",
    ),
    "edge_dim": (lambda: heat(edge_dim=None), TypeError, "edge_dim is None; expected an int"),
    "no edge features": (
        lambda: heat()(X, EDGES, NODES, TYPES),
        ValueError,
        r"edge_attr is None, but HEATConv.* has edge_dim=3; expected edge features",
    ),
    "types of nodes": (
        lambda: heat()(X, EDGES, NODES + 2, TYPES, torch.ones(COUNT, 3)),
        IndexError,
        "node_type has the value 2; expected 0 to 1",
    ),
    "number of types of nodes": (
        lambda: heat()(X, EDGES, NODES[1:], TYPES, torch.ones(COUNT, 3)),
        ValueError,
        r"node_type has shape \[8\]; expected \[9\], the type of each node",
    ),
    "types of edges": (
        lambda: heat()(X, EDGES, NODES, TYPES - 1, torch.ones(COUNT, 3)),
        IndexError,
        "edge_type has the value -1; expected 0 to 2",
    ),
    "emb": (lambda: heat(edge_attr_emb_dim=0), ValueError, "edge_attr_emb_dim is 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
