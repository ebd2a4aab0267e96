"""The layers against PyG's: same parameters, same results, same gradients."""

from __future__ import annotations

import gc

import pytest
import torch
import torch_geometric.nn as pyg
from beside_pyg import EDGES, PROJECTING, TOLERANCE, both, compare, make, normal, parameters
from layers import full_cases, grid_cases, layers_that, over, plain_cases, random_edges
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gat_ext import Graph, nn
from gat_ext.graph.cache import _cache
from gat_ext.graph.self_loops import with_self_loops
from gat_ext.nn import self_loops
from gat_ext.nn.features import dropout

SHAPES = {"homogeneous": (9, 9), "more sources": (11, 6), "more destinations": (6, 11)}


def cases():
    for case in grid_cases("pyg", typed=True):
        for shape in SHAPES if case.layer.supports("pairs", "pyg_pairs") else ["homogeneous"]:
            reduces = isinstance(case.options.get("fill_value", "mean"), str)
            if shape == "more destinations" and case.has_edges and reduces and case.replaces_loops:
                continue  # PyG raises: see test_features_of_loops
            yield pytest.param(case, shape, id=f"{case}-{shape}")


# ---- equal to PyG's


@pytest.mark.one_in(5)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("case", "shape"), list(cases()))
def test_equals_pyg(case, shape, dtype):
    name, options = case.name, case.options
    torch.manual_seed(0)
    num_src, num_dst = SHAPES[shape]
    edge_index = random_edges(num_src, num_dst)
    edge_attr = normal(edge_index.shape[1], 3, dtype=dtype) if case.has_edges else None
    if shape == "homogeneous":
        ours, theirs = both(name, options, 5, dtype)
        x = normal(num_src, 5, dtype=dtype)
        inputs = [("x", x)]
    else:
        width = 5 if options.get("share_weights") else 7
        ours, theirs = both(name, options, (5, width), dtype)
        x = normal(num_src, 5, dtype=dtype), normal(num_dst, width, dtype=dtype, seed=2)
        inputs = [("x of sources", x[0]), ("x of destinations", x[1])]
    arguments = x, edge_index, *case.types(num_src, edge_index.shape[1])
    arguments += () if edge_attr is None else (edge_attr,)
    inputs += [] if edge_attr is None else [("edge_attr", edge_attr)]
    leaves = [(what, (t, t)) for what, t in inputs] + parameters(ours, theirs)
    compare((ours(*arguments), theirs(*arguments)), leaves, dtype)


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("name", layers_that("projections", "pyg_weights", "edge_attr"))
def test_attention_weights_equal_pyg(name, edge):
    """Edges, with self-loops last, weights, and gradients through the weights."""
    torch.manual_seed(0)
    ours, theirs = both(name, {"heads": 2, **({"edge_dim": 3} if edge else {})})
    x = normal(9, 5)
    arguments = (x, EDGES, normal(EDGES.shape[1], 3)) if edge else (x, EDGES)
    out, (edges, alpha) = ours(*arguments, return_attention_weights=True)
    expected, (their_edges, their_alpha) = theirs(*arguments, return_attention_weights=True)
    assert torch.equal(edges, their_edges)
    assert_close(out, expected)
    leaves = [("x", (x, x)), *parameters(ours, theirs)]
    compare((alpha, their_alpha), leaves, torch.float64)


@pytest.mark.parametrize("add_self_loops", [False, True])
def test_sources_alone(add_self_loops):
    """x_dst is None: the number of destinations comes from size, the graph, or the sources."""
    options = {"heads": 2, "add_self_loops": add_self_loops, "residual": True}
    ours, theirs = both("GATConv", options, (5, 7))
    x = normal(9, 5)
    edge_index = random_edges(9, 6)
    expected = theirs((x, None), edge_index, size=(9, 6))
    assert_close(ours((x, None), edge_index, size=(9, 6)), expected)
    assert_close(ours((x, None), Graph(edge_index, num_src=9, num_dst=6)), expected)
    assert_close(ours((x, None), edge_index), theirs((x, None), edge_index))


@pytest.mark.parametrize("name", layers_that("pyg", "edge_attr", "self_loops"))
def test_edge_features_as_a_vector(name):
    ours, theirs = both(name, {"heads": 2, "edge_dim": 1})
    weights = normal(EDGES.shape[1])
    assert_close(ours(normal(9, 5), EDGES, weights), theirs(normal(9, 5), EDGES, weights))


@pytest.mark.filterwarnings("ignore:.*ignores edge_attr")
def test_edge_features_are_ignored_without_edge_dim():
    ours, theirs = both("GATConv", {})
    assert_close(ours(normal(9, 5), EDGES, normal(3)), theirs(normal(9, 5), EDGES))


def test_zero_rows_of_agnn():
    """cos with a zero vector is 0, and its gradient is finite."""
    ours, theirs = both("AGNNConv", {})
    x = normal(9, 5).detach()
    x[2:4] = 0
    x.requires_grad_()
    out = ours(x, EDGES)
    assert_close(out, theirs(x, EDGES))
    (grad,) = torch.autograd.grad(out.square().sum(), x)
    assert grad.abs().max() < 1e3


# ---- graphs


@pytest.mark.parametrize("name", layers_that())
def test_graph_and_edge_index_agree(name):
    layer, x = make(name), normal(9, 5, dtype=torch.float32)
    out = layer(x, EDGES)
    for index_dtype in (torch.int32, torch.int64):
        graph = Graph(EDGES, num_nodes=9, index_dtype=index_dtype)
        assert torch.equal(layer(x, graph), out)
        assert torch.equal(layer(x, EDGES.to(index_dtype)), out)
        assert with_self_loops(graph, 9, 9).graph.index_dtype == index_dtype


@over(plain_cases(typed=True))
@pytest.mark.parametrize("num_nodes", [0, 3])
def test_graph_without_edges(case, num_nodes):
    layer = case.make()
    x = normal(num_nodes, 5, dtype=torch.float32)
    attr = case.edge_attr(0, num_nodes=num_nodes)
    out = layer(x, torch.empty(2, 0, dtype=torch.int64), *attr)
    assert out.shape == (num_nodes, 8 if case.layer.supports("projections") else 5)
    out.sum().backward()
    assert x.grad.isfinite().all()


def count_graphs(monkeypatch):
    """A list that grows by one for each sorted graph."""
    made = []
    build = Graph.__init__

    def counted(self, *args, **kwargs):
        made.append(args)
        build(self, *args, **kwargs)

    monkeypatch.setattr(Graph, "__init__", counted)
    return made


def test_graphs_with_self_loops_are_cached(monkeypatch):
    graph = Graph(EDGES, num_nodes=9)
    made = count_graphs(monkeypatch)
    layers = nn.GATConv(5, 5), nn.GATv2Conv(5, 5), nn.AGNNConv()
    x = normal(9, 5, dtype=torch.float32)
    for layer in layers * 2:
        x = layer(x, graph)
    assert len(made) == 0  # nothing is sorted again
    assert with_self_loops(graph, 9, 9) is with_self_loops(graph, 9, 9)
    nn.GATConv(5, 5)(x, EDGES.clone())
    assert len(made) == 1  # one sort for an edge_index too
    gc.collect()
    before = len(_cache)
    del graph, x
    gc.collect()
    assert len(_cache) == before - 1


def test_graph_seen_in_inference_mode_can_be_trained_on():
    graph = Graph(EDGES, num_nodes=9)
    layer = nn.GATConv(5, 4, edge_dim=3)
    x, edge_attr = (normal(n, c, dtype=torch.float32) for n, c in ((9, 5), (EDGES.shape[1], 3)))
    with torch.inference_mode():
        expected = layer(x, graph, edge_attr).clone()
    out = layer(x, graph, edge_attr)
    assert_close(out, expected)
    out.sum().backward()
    assert edge_attr.grad.any()


REDUCE = {
    "add": lambda v: v.sum(0),
    "sum": lambda v: v.sum(0),
    "mean": lambda v: v.mean(0),
    "min": lambda v: v.amin(0),
    "max": lambda v: v.amax(0),
    "mul": lambda v: v.prod(0),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", REDUCE)
def test_features_of_loops(how, shape):
    num_src, num_dst = SHAPES[shape]
    edge_index = random_edges(num_src, num_dst)
    edge_attr = normal(edge_index.shape[1], 3)
    sizes = num_src, num_dst
    _, features = self_loops.graph_and_edges(
        edge_index, sizes, edge_attr, 3, how, add_self_loops=True
    )
    src, dst = edge_index
    num_loops = min(sizes)
    assert torch.equal(features[:-num_loops], edge_attr[src != dst])
    for node in range(num_loops):
        mine = edge_attr[(dst == node) & (src != node)]
        expected = REDUCE[how](mine) if len(mine) else torch.full((3,), float(how == "mul"))
        assert_close(features[node - num_loops], expected.to(features.dtype))


# ---- dropout, dtypes, memory


@pytest.mark.parametrize("name", PROJECTING)
def test_attention_dropout(name):
    """In training the seed decides if a weight is dropped or doubled; evaluation has no dropout.

    TransformerConv returns its weights before dropout, PyG's other layers after it.
    """
    torch.manual_seed(0)
    layer = make(name, heads=2, dropout=0.5)
    x = normal(9, 5, dtype=torch.float32)
    torch.manual_seed(1)
    first, (_, alpha) = layer(x, EDGES, return_attention_weights=True)
    torch.manual_seed(1)
    assert torch.equal(first, layer(x, EDGES))
    assert not torch.equal(first, layer(x, EDGES))
    out, (_, undropped) = layer.eval()(x, EDGES, return_attention_weights=True)
    assert torch.equal(out, layer(x, EDGES))
    assert not torch.allclose(out, first)
    if name == "TransformerConv":
        assert_close(alpha, undropped)
        return
    dropped = alpha == 0
    assert 0.2 < dropped.float().mean() < 0.8
    assert_close(alpha[~dropped], 2 * undropped[~dropped])


def test_feature_dropout_comes_after_the_attention():
    layer = nn.GATConv(5, 4, heads=2, feat_dropout=0.5)
    x = normal(9, 5, dtype=torch.float32)
    torch.manual_seed(1)
    out, ((src, dst), alpha) = layer(x, EDGES, return_attention_weights=True)
    torch.manual_seed(1)
    value = dropout(layer.lin(x).view(9, 2, 4), 0.5, training=True)
    expected = torch.zeros(9, 2, 4).index_add(0, dst, alpha.unsqueeze(-1) * value[src])
    assert_close(out, expected.flatten(1))
    _, (_, undropped) = layer.eval()(x, EDGES, return_attention_weights=True)
    assert torch.equal(alpha, undropped)


@over(full_cases(typed=True))
def test_sixteen_bits_and_autocast(case):
    torch.manual_seed(0)
    layer, x = case.make(), normal(9, 5, dtype=torch.float32)
    attr = case.edge_attr(EDGES.shape[1])
    expected = layer(x, EDGES, *attr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x, EDGES, *attr)
    assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    out.float().sum().backward()
    assert x.grad.isfinite().all()
    attr = [t.bfloat16() if t.is_floating_point() else t for t in attr]
    half = layer.bfloat16()(x.bfloat16(), EDGES, *attr)
    assert half.dtype == torch.bfloat16
    assert_close(half.float(), expected, rtol=0.05, atol=0.05)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that an operator returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return out


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in layers_that("pyg")), ("GATConv", {"edge_dim": 3})],
    ids=str,
)
def test_nothing_has_a_row_of_features_for_every_edge(name, options):
    num_nodes, num_edges, heads, channels = 20, 900, 2, 32
    edge_index = torch.randint(
        num_nodes, (2, num_edges), generator=torch.Generator().manual_seed(0)
    )
    x = normal(num_nodes, 64, dtype=torch.float32)
    edge = [normal(num_edges, 3, dtype=torch.float32)] if options else []
    arguments = (64, channels, heads) if name in PROJECTING else ()
    heads, channels = (heads, channels) if arguments else (1, 64)
    largest = {}
    for package in (nn, pyg):
        layer = getattr(package, name)(*arguments, **options)
        with LargestTensor() as seen:
            layer(x, edge_index, *edge).square().sum().backward()
        largest[package] = seen.elements
    assert largest[nn] < 0.2 * num_edges * heads * channels < largest[pyg]


@over(full_cases("projections", "dropout"))
def test_bitwise_identical_over_repeated_runs(case):
    def run():
        torch.manual_seed(0)
        layer = case.make(dropout=0.3)
        edge_index = torch.randint(50, (2, 3000))
        x = normal(50, 5, dtype=torch.float32)
        edge_attr = [attr.requires_grad_() for attr in case.edge_attr(3000)]
        out = layer(x, edge_index, *edge_attr)
        grads = torch.autograd.grad(out.square().sum(), [x, *edge_attr, *layer.parameters()])
        return [out, *grads]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))
