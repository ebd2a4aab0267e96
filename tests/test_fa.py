"""FAConv beside PyG's, whose calls have the features of the first layer, too."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as pyg
from beside_pyg import TOLERANCE, compare, normal, parameters
from forms import COLS as FORM_COLS
from forms import EDGES as FORM_EDGES
from forms import NUM_NODES, ROWS, SparseTensor
from layers import random_edges
from test_nn import LargestTensor
from torch.testing import assert_close
from torch_geometric import EdgeIndex
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks

from gat_ext import Graph, interop, nn
from gat_ext.interop import pyg as ours_of_pyg

EDGES = random_edges(9, 9)
COUNT = EDGES.shape[1]
BOTH = (True, False)
F64 = torch.float64


def pair_of_layers(dtype=F64, channels=5, library=nn, **options):
    theirs = pyg.FAConv(channels, **options).to(dtype)
    ours = library.FAConv(channels, **options).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    assert repr(ours).removesuffix(" [gat_ext]") == repr(theirs)
    return ours, theirs


def inputs(dtype=F64, channels=5):
    return normal(9, channels, dtype=dtype), normal(9, channels, dtype=dtype, seed=2)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("form", ["int64", "int32", "Graph"])
@pytest.mark.parametrize("loops", BOTH)
@pytest.mark.parametrize("normalize", BOTH)
@pytest.mark.parametrize("eps", [0.1, 0.0, -0.7])
def test_equals_pyg(eps, normalize, loops, form, dtype):
    ours, theirs = pair_of_layers(dtype, eps=eps, add_self_loops=loops, normalize=normalize)
    x, x_0 = inputs(dtype)
    weight = [] if normalize else [normal(COUNT, dtype=dtype, seed=5)]
    edges = {"int64": EDGES, "int32": EDGES.int(), "Graph": Graph(EDGES, num_nodes=9)}[form]
    leaves = [("x", (x, x)), ("x_0", (x_0, x_0)), *parameters(ours, theirs)]
    leaves += [("edge_weight", (w, w)) for w in weight]
    compare((ours(x, x_0, edges, *weight), theirs(x, x_0, EDGES, *weight)), leaves, dtype)


@pytest.mark.parametrize("options", [{}, {"normalize": False}, {"add_self_loops": False}], ids=str)
@pytest.mark.parametrize("asked", BOTH)
@pytest.mark.parametrize("library", [nn, ours_of_pyg], ids=["nn", "interop"])
def test_weights_equal_pyg(options, asked, library):
    """Edges, with self-loops last, alpha [E'], and the gradients through it."""
    ours, theirs = pair_of_layers(library=library, **options)
    x, x_0 = inputs()
    weight = [] if options.get("normalize", True) else [normal(COUNT, seed=5)]
    given = (x, x_0, EDGES, *weight)
    expected = theirs(*given, return_attention_weights=asked)
    found = ours(*given, return_attention_weights=asked)
    if library is nn and not asked:  # PyG's returns weights for False, too
        assert_close(found, expected[0])
        return
    assert_close(found[0], expected[0])
    assert torch.equal(found[1][0], expected[1][0])
    compare((found[1][1], expected[1][1]), [("x", (x, x)), *parameters(ours, theirs)], F64)


def test_dropout_draws_the_random_numbers_of_pyg():
    ours, theirs = pair_of_layers(dropout=0.4)
    outs = []
    for layer in (ours, theirs):
        torch.manual_seed(4)
        outs.append(layer(*inputs(), EDGES))
    assert_close(*outs)
    assert not torch.allclose(outs[0], ours.eval()(*inputs(), EDGES))


@pytest.mark.parametrize("channels", [64, -1])
def test_the_seed_gives_the_weights_of_pyg(channels):
    x, drawn = torch.randn(9, 64), []
    for library in (nn, pyg):
        torch.manual_seed(0)
        layer = library.FAConv(channels)
        layer(x, x, EDGES)
        layer.reset_parameters()
        drawn.append([*layer.parameters(), torch.rand(3)])
    for mine, other in zip(*drawn, strict=True):
        assert torch.equal(mine, other)


def test_checkpoints_go_both_ways():
    ours, theirs = nn.FAConv(5), pyg.FAConv(5)
    theirs.load_state_dict(ours.state_dict())
    x, x_0 = inputs(torch.float32)
    assert_close(ours(x, x_0, EDGES), theirs(x, x_0, EDGES))


def test_nodes_without_edges_and_no_edges():
    ours, theirs = pair_of_layers(add_self_loops=False)
    for edges in (torch.tensor([[8], [0]]), torch.empty(2, 0, dtype=torch.int64)):
        assert_close(ours(*inputs(), edges), theirs(*inputs(), edges))


@pytest.mark.parametrize("normalize", BOTH)
def test_derivatives(normalize):
    layer, edges = nn.FAConv(3, normalize=normalize).double(), random_edges(5, 5)

    def call(x, x_0, weight, att_l, att_r):
        named = {"att_l.weight": att_l, "att_r.weight": att_r}
        return torch.func.functional_call(layer, named, (x, x_0, edges, weight))

    leaves = (normal(5, 3), normal(5, 3, seed=2), normal(edges.shape[1], seed=3))
    leaves += (normal(1, 3, seed=4), normal(1, 3, seed=5))
    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("loops", "normalize", "form"),
    [
        (True, True, "edge_index"),
        (False, False, "Graph"),
        *(
            pytest.param(*rest, marks=pytest.mark.slow)
            for rest in [(True, True, "Graph"), (True, False, "edge_index"), (False, True, "Graph")]
        ),
    ],
)
def test_compiles_once_for_all_sizes(loops, normalize, form):
    """With self-loops among the edges, and weights that are not finite on those replaced."""
    torch._dynamo.reset()
    layer = nn.FAConv(5, add_self_loops=loops, normalize=normalize).double()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for num_nodes, num_edges in [(10, 30), (12, 50), (7, 300)]:
        x, x_0 = normal(num_nodes, 5), normal(num_nodes, 5, seed=2)
        edges = torch.randint(num_nodes, (2, num_edges))
        weight = normal(num_edges, seed=3).detach()
        if loops and normalize:
            weight[edges[0] == edges[1]] = torch.inf
        weight.requires_grad_()
        given = Graph(edges, num_nodes=num_nodes) if form == "Graph" else edges
        leaves = [(str(i), (t, t)) for i, t in enumerate([x, x_0, weight, *layer.parameters()])]
        compare((compiled(x, x_0, given, weight), layer(x, x_0, given, weight)), leaves, F64)


@pytest.mark.slow
def test_inductor():
    torch._dynamo.reset()
    layer, (x, x_0) = nn.FAConv(5), inputs(torch.float32)
    assert_close(torch.compile(layer, fullgraph=True)(x, x_0, EDGES), layer(x, x_0, EDGES))


@pytest.mark.parametrize("compiled", BOTH)
def test_nothing_has_a_row_of_features_for_every_edge(compiled):
    torch._dynamo.reset()
    num_edges, channels, largest = 900, 64, {}
    edges = torch.randint(20, (2, num_edges))
    x = torch.randn(20, channels, requires_grad=True)
    for library in (nn, pyg):
        layer = library.FAConv(channels)
        if compiled and library is nn:
            layer = torch.compile(layer, backend="aot_eager")
            layer(x, x, edges).sum().backward()
        with LargestTensor() as seen:
            layer(x, x, edges).square().sum().backward()
        largest[library] = seen.elements
    assert largest[nn] < 0.2 * num_edges * channels < largest[pyg]


# ---- edge_weight and edge_mask


def test_weights_multiply_after_the_normalisation():
    layer, (x, x_0) = nn.FAConv(5, add_self_loops=False).double(), inputs()
    weight = torch.rand(COUNT, dtype=F64)
    src, dst = EDGES
    degree = torch.zeros(9, dtype=F64).index_add(0, dst, torch.ones(COUNT, dtype=F64))
    alpha = (layer.att_l(x)[src] + layer.att_r(x)[dst]).tanh().squeeze(1)
    root = degree.pow(-0.5).nan_to_num(posinf=0)
    messages = (weight * alpha * root[src] * root[dst]).unsqueeze(1) * x[src]
    expected = 0.1 * x_0 + torch.zeros_like(x).index_add(0, dst, messages)
    assert_close(layer(x, x_0, EDGES, weight), expected)
    assert_close(layer(x, x_0, EDGES, edge_mask=weight), expected)


@pytest.mark.parametrize("options", [{}, {"normalize": False}, {"add_self_loops": False}], ids=str)
@pytest.mark.parametrize("patched", BOTH)
def test_masks_equal_explanations_of_pyg(options, patched, calls_of_pyg):
    ours, theirs = pair_of_layers(**options)
    (x, x_0), mask = inputs(), normal(COUNT, seed=7)
    weight = [] if options.get("normalize", True) else [normal(COUNT, seed=5)]
    set_masks(theirs, mask, EDGES, apply_sigmoid=False)
    expected = theirs(x, x_0, EDGES, *weight)
    if patched:
        clear_masks(theirs)
        assert interop.patch_pyg(theirs).swapped == (("", "FAConv"),)
        set_masks(theirs, mask, EDGES, apply_sigmoid=False)
        out = theirs(x, x_0, EDGES, *weight)
    else:
        out = ours(x, x_0, EDGES, *weight, edge_mask=mask)
    leaves = [("x", (x, x)), ("mask", (mask, mask))]
    compare((out, expected), leaves, F64)
    assert len(calls_of_pyg) == 1


def test_values_of_a_matrix_are_the_coefficients():
    layer, values = nn.FAConv(5, normalize=False), torch.rand(ROWS.shape[0])
    x = torch.randn(NUM_NODES, 5)
    expected = layer(x, x, FORM_EDGES, values)
    given = SparseTensor(ROWS, FORM_COLS, values, (NUM_NODES, NUM_NODES))
    assert_close(layer(x, x, given), expected)
    matrix = torch.sparse_coo_tensor(torch.stack([ROWS, FORM_COLS]), values).coalesce()
    for form in (matrix, matrix.to_sparse_csr(), matrix.to_sparse_csc()):
        order = Graph.from_torch_sparse(form).edge_index
        weight = matrix.to_dense()[order[1], order[0]]
        assert_close(layer(x, x, form), layer(x, x, order, weight))
    assert_close(layer(x, x, matrix), expected)
    theirs = pyg.FAConv(5, normalize=False)
    theirs.load_state_dict(layer.state_dict())
    assert_close(theirs(x, x, matrix), expected)
    with pytest.raises(ValueError, match="edge_weight is None"):
        layer(x, x, EdgeIndex(FORM_EDGES, sparse_size=(NUM_NODES, NUM_NODES)))


# ---- in PyG's models


def test_patched_models(calls_of_pyg):
    model = pyg.Sequential(
        "x, edge_index",
        [
            (pyg.FAConv(5, eps=0.3), "x, x, edge_index -> h"),
            (pyg.FAConv(5), "h, x, edge_index -> h"),
        ],
    )
    x = torch.randn(9, 5)
    expected = model(x, EDGES)
    calls_of_pyg.clear()
    report = interop.patch_pyg(model)
    assert [kind for _, kind in report.swapped] == ["FAConv", "FAConv"]
    assert_close(model(x, EDGES), expected)
    assert calls_of_pyg == []
    assert interop.unpatch_pyg(model) == ("module_0", "module_1")
    assert_close(model(x, EDGES), expected)


# ---- bad input

X = torch.randn(3, 4)
PAIR = torch.tensor([[0, 1], [1, 2]])
ONES = torch.ones(2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.FAConv(0), ValueError, "channels is 0; expected at least 1, or -1"),
        (lambda: nn.FAConv(4.0), TypeError, "channels is 4.0 of type float; expected an int"),
        (lambda: nn.FAConv((4, 4)), TypeError, r"channels is \(4, 4\) .*; expected an int"),
        (lambda: nn.FAConv(4, eps="0.1"), TypeError, "eps is a str; expected a number"),
        (lambda: nn.FAConv(4, dropout=2), ValueError, "dropout is 2; expected a probability"),
        (lambda: nn.FAConv(4, normalize=1), TypeError, "normalize is a int"),
        (lambda: nn.FAConv(4, aggr="max"), ValueError, "aggr is 'max'"),
        (lambda: nn.FAConv(4)(X, None, PAIR), TypeError, "x_0 is a NoneType; .* only with eps=0"),
        (lambda: nn.FAConv(4)(X, PAIR, PAIR), TypeError, "x_0 has dtype torch.int64"),
        (lambda: nn.FAConv(4)(X, X[:2], PAIR), ValueError, r"x_0 has shape \[2, 4\]; .*\[3, 4\]"),
        (lambda: nn.FAConv(4)(X, X.double(), PAIR), TypeError, "x_0 has dtype torch.float64"),
        (lambda: nn.FAConv(5)(X, X, PAIR), ValueError, r"x has shape \[3, 4\]; .*\[N, 5\]"),
        (lambda: nn.FAConv(4)((X, X), X, PAIR), TypeError, "x is a tuple; .* one tensor"),
        (lambda: nn.FAConv(4)(X.to_sparse(), X, PAIR), TypeError, "x is sparse"),
        (lambda: nn.FAConv(4)(X.double(), X.double(), PAIR), TypeError, "x has dtype"),
        (lambda: nn.FAConv(4)(X, X, PAIR + 2), IndexError, "edge_index"),
        (lambda: nn.FAConv(4)(X, X, PAIR, ONES, edge_mask=ONES), ValueError, "two names"),
        (
            lambda: nn.FAConv(4, normalize=False)(X, X, PAIR),
            ValueError,
            r"edge_weight is None, but FAConv\(4, eps=0.1\) has normalize=False; expected",
        ),
        (
            lambda: nn.FAConv(4, normalize=False)(X, X, PAIR, torch.ones(3)),
            ValueError,
            r"edge_weight has shape \[3\]; expected \[2, H\] or \[2\]",
        ),
        (
            lambda: nn.FAConv(4, normalize=False)(X, X, PAIR, [1.0, 1.0]),
            TypeError,
            "edge_weight is a list",
        ),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_without_eps_x_0_may_be_left_out():
    layer = nn.FAConv(4, eps=0.0)
    assert torch.equal(layer(X, None, PAIR), layer(X, X, PAIR))
