"""PointTransformerConv beside PyG's, with and without networks of its own."""

from __future__ import annotations

import copy

import pytest
import torch
import torch_geometric.nn as pyg
from beside_pyg import EDGES, TOLERANCE, compare, normal, parameters
from forms import COLS as FORM_COLS
from forms import EDGES as FORM_EDGES
from forms import NUM_NODES, ROWS, SparseTensor
from layers import random_edges
from test_nn import LargestTensor
from torch import nn as torch_nn
from torch.testing import assert_close
from torch_geometric.explain.algorithm.utils import set_masks

from gat_ext import Graph, interop, nn
from gat_ext.interop import pyg as interop_pyg

F64 = torch.float64
BOTH = (True, False)


def mlp(inputs, size=4):
    return torch_nn.Sequential(
        torch_nn.Linear(inputs, 6), torch_nn.Tanh(), torch_nn.Linear(6, size)
    )


# Whether there is a network of positions, and one of attention.
NETWORKS = [(False, False), (True, False), (False, True), (True, True)]


def layers(networks=(False, False), dtype=F64, in_channels=5, library=nn, size=4, **options):
    torch.manual_seed(0)
    options |= {"pos_nn": mlp(3, size)} if networks[0] else {}
    options |= {"attn_nn": mlp(size, size)} if networks[1] else {}
    theirs = pyg.PointTransformerConv(in_channels, size, **copy.deepcopy(options)).to(dtype)
    ours = library.PointTransformerConv(in_channels, size, **options).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours).removesuffix(" [gat_ext]") == repr(theirs)
    return ours, theirs


def inputs(dtype=F64, num_nodes=9):
    return normal(num_nodes, 5, dtype=dtype), normal(num_nodes, 3, dtype=dtype, seed=2)


@pytest.mark.parametrize("library", [nn, interop_pyg], ids=["nn", "interop"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("networks", NETWORKS, ids=str)
def test_equals_pyg(networks, dtype, library):
    """Results and all gradients, with and without self-loops, of one and of two sets of points."""
    for loops in BOTH:
        options = {"library": library, "add_self_loops": loops}
        ours, theirs = layers(networks, dtype, **options)
        x, pos = inputs(dtype)
        leaves = [("x", (x, x)), ("pos", (pos, pos)), *parameters(ours, theirs)]
        compare([layer(x, pos, EDGES) for layer in (ours, theirs)], leaves, dtype)
        for num_src, num_dst in ((11, 6), (6, 11)):
            ours, theirs = layers(networks, dtype, (5, 7), **options)
            x, y = normal(num_src, 5, dtype=dtype), normal(num_dst, 7, dtype=dtype, seed=2)
            pos = [normal(n, 3, dtype=dtype, seed=n) for n in (num_src, num_dst)]
            edges = random_edges(num_src, num_dst)
            leaves = [(str(i), (t, t)) for i, t in enumerate((x, y, *pos))]
            leaves += parameters(ours, theirs)
            outs = [layer((x, y), tuple(pos), edges) for layer in (ours, theirs)]
            compare(outs, leaves, dtype)


def test_forms_of_edges_weights_and_masks():
    ours, theirs = layers()
    x, pos = inputs()
    expected = ours(x, pos, EDGES)
    for edges in (EDGES.int(), Graph(EDGES, num_nodes=9)):
        assert torch.equal(ours(x, pos, edges), expected)
    x, pos = inputs(num_nodes=NUM_NODES)
    given = SparseTensor(ROWS, FORM_COLS, None, (NUM_NODES, NUM_NODES))
    assert_close(ours(x, pos, given), ours(x, pos, FORM_EDGES))
    x, pos = inputs()
    mask = normal(EDGES.shape[1], seed=7)
    for networks in NETWORKS:
        for loops in BOTH:
            ours, theirs = layers(networks, add_self_loops=loops)
            _, (edges, alpha) = ours(x, pos, EDGES, return_attention_weights=True)
            sums = torch.zeros(9, 4, dtype=F64).index_add(0, edges[1], alpha)
            assert_close(sums, (sums > 0.5).to(F64))
            set_masks(theirs, mask, EDGES, apply_sigmoid=False)
            leaves = [("x", (x, x)), ("pos", (pos, pos)), ("mask", (mask, mask))]
            out = ours(x, pos, EDGES, edge_mask=mask)
            compare([out, theirs(x, pos, EDGES)], leaves + parameters(ours, theirs), F64)
            out, (_, masked) = ours(
                x, pos, EDGES, edge_weight=mask > 0, return_attention_weights=True
            )
            kept = (edges[0] == edges[1]) if loops else mask > 0
            assert_close(masked[kept], alpha[kept])


def test_parameters_of_the_seed_and_of_the_first_call():
    for channels in (5, -1, (-1, -1)):
        drawn = []
        for library in (nn, pyg):
            torch.manual_seed(0)
            layer = library.PointTransformerConv(channels, 4, attn_nn=mlp(4))
            x, pos = inputs(torch.float32)
            layer(x if channels != (-1, -1) else (x, x), pos, EDGES)
            drawn.append(dict(layer.named_parameters()) | {"the next": torch.rand(3)})
        assert_close(drawn[0], drawn[1], rtol=0, atol=0)


@pytest.mark.parametrize("networks", NETWORKS, ids=str)
def test_gradcheck_and_gradgradcheck(networks):
    layer, _ = layers(networks, size=2)
    x, pos = inputs(num_nodes=5)
    edges = torch.tensor([[0, 1, 1, 3, 4], [1, 1, 2, 2, 0]])
    mask = normal(5, seed=3)

    def call(x, pos, mask):
        return layer(x, pos, edges), layer(x, pos, edges, edge_mask=mask)

    assert torch.autograd.gradcheck(call, (x, pos, mask), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, pos, mask), fast_mode=True)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("networks", "form"), [((False, False), "Graph"), ((True, True), "edge_index")]
)
def test_compiles_once_for_all_sizes(networks, form):
    torch._dynamo.reset()
    layer, _ = layers(networks)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for number, (num_nodes, num_edges) in enumerate([(10, 30), (12, 50), (7, 300)]):
        x, pos = inputs(num_nodes=num_nodes)
        edges = torch.randint(num_nodes, (2, num_edges))
        given = Graph(edges, num_nodes=num_nodes) if form == "Graph" else edges
        leaves = [(str(i), (t, t)) for i, t in enumerate([x, pos, *layer.parameters()])]
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            compare((compiled(x, pos, given), layer(x, pos, given)), leaves, F64)


def test_statistics_of_a_compiled_batch_normalisation():
    """Only of the edges that are attended over."""
    torch._dynamo.reset()
    norm = torch_nn.BatchNorm1d(4)
    layer, other = (nn.PointTransformerConv(5, 4, attn_nn=copy.deepcopy(norm)) for _ in range(2))
    other.load_state_dict(layer.state_dict())
    x, pos = inputs(torch.float32)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        out = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, pos, EDGES)
    assert_close(out, other(x, pos, EDGES))
    assert_close(layer.attn_nn.running_var, other.attn_nn.running_var)


def test_points_far_from_zero():
    """The cloud's own place does not cost precision, nor the result of points without edges."""
    ours, theirs = layers(dtype=torch.float32)
    x, pos = inputs(torch.float32)
    far = pos.detach() + torch.tensor([4096.0, -8192.0, 4096.0])
    near = far - far[:1]
    assert_close(ours(x, far, EDGES), ours(x, near, EDGES), rtol=1e-6, atol=1e-6)
    assert_close(ours(x, far, EDGES), theirs(x, far, EDGES))
    layer, none = layers(add_self_loops=False)[0], torch.empty(2, 0, dtype=torch.int64)
    assert not layer(*inputs(), none).any()
    assert layer(*inputs(num_nodes=0), none).shape == (0, 4)


def test_patched_layers_of_pyg(calls_of_pyg):
    model = torch_nn.ModuleDict({"conv": pyg.PointTransformerConv(5, 4, attn_nn=mlp(4))})
    x, pos = inputs(torch.float32)
    expected = model["conv"](x, pos, EDGES)
    calls_of_pyg.clear()
    assert interop.patch_pyg(model).swapped == (("conv", "PointTransformerConv"),)
    assert_close(model["conv"](x, pos, EDGES), expected)
    set_masks(model, torch.zeros(EDGES.shape[1]), EDGES, apply_sigmoid=False)
    masked = model["conv"](x, pos, EDGES)
    assert not torch.allclose(masked, expected) and not calls_of_pyg
    interop.unpatch_pyg(model)
    assert_close(model["conv"](x, pos, EDGES), masked)


def test_nothing_has_a_row_of_features_for_every_edge():
    largest, edges = [], torch.randint(20, (2, 900))
    x, pos = inputs(torch.float32, 20)
    for library in (nn, pyg):
        layer = library.PointTransformerConv(5, 64)
        with LargestTensor() as seen:
            layer(x, pos, edges).square().sum().backward()
        largest.append(seen.elements)
    assert largest[0] < 0.2 * 900 * 64 <= largest[1]


X, POS = inputs(torch.float32)
LAYER = nn.PointTransformerConv(5, 4)
BAD = {
    "network": (
        lambda: nn.PointTransformerConv(5, 4, attn_nn=3),
        TypeError,
        "attn_nn is 3; expected a torch.nn.Module",
    ),
    "channels": (lambda: nn.PointTransformerConv(0, 4), ValueError, "in_channels is 0"),
    "aggr": (lambda: nn.PointTransformerConv(5, 4, aggr="max"), ValueError, "aggr is 'max'"),
    "batch": (
        lambda: LAYER(X.expand(2, -1, -1), POS, EDGES),
        ValueError,
        r"x has a batch .* \[2\]",
    ),
    "no positions": (lambda: LAYER(X, None, EDGES), TypeError, "pos is a NoneType; PointTrans"),
    "rows": (lambda: LAYER(X, POS[1:], EDGES), ValueError, r"pos has shape \[8, 3\]; .* \[9, D\]"),
    "columns": (lambda: LAYER(X, POS[:, :2], EDGES), ValueError, "pos has 2 columns; .* expects 3"),
    "one for two sets": (
        lambda: LAYER((X, X[:6]), POS, random_edges(9, 6)),
        ValueError,
        r"pos has shape \[9, 3\]; .* \[6, D\], the position of each destination",
    ),
    "dtype": (lambda: LAYER(X, POS.double(), EDGES), TypeError, "pos has dtype torch.float64"),
    "shape of a network": (
        lambda: nn.PointTransformerConv(5, 4, attn_nn=torch_nn.Linear(4, 3))(X, POS, EDGES),
        ValueError,
        r"attn_nn returned \[\d+, 3\]; expected \[\d+, 4\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_an_unused_first_point_may_be_anywhere():
    torch.manual_seed(0)
    layer = nn.PointTransformerConv(5, 8, add_self_loops=False)
    x, pos, edges = torch.randn(4, 5), torch.randn(4, 3), torch.tensor([[1, 2], [2, 3]])
    expected = layer(x, pos, edges)
    for first in (torch.nan, torch.inf):
        pos[0] = first
        assert_close(layer(x, pos, edges)[1:], expected[1:])
