"""Orders of nodes, and layers and models wrapped in Reordered.

Training on renumbered nodes is in test_training_run.py.
"""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from layers import over, plain_cases
from torch.testing import assert_close

from gat_ext import Graph, SparseFeatures, datasets, models, nn, reference
from gat_ext.graph import ORDERS
from gat_ext.nn.reordered import Reordered
from gat_ext.testing import GRAPHS, devices, sample_graph

SQUARE = [name for name in GRAPHS if GRAPHS[name]().num_src == GRAPHS[name]().num_dst]
BIPARTITE = [name for name in GRAPHS if name not in SQUARE]


def shuffled(edge_index: torch.Tensor, num_nodes: int) -> Graph:
    new = torch.randperm(num_nodes, generator=torch.Generator().manual_seed(0))
    return Graph(new[edge_index], num_nodes)


def grid(width: int) -> torch.Tensor:
    """Edges of a square grid, in both directions."""
    node = torch.arange(width * width).reshape(width, width)
    right = torch.stack([node[:, :-1].flatten(), node[:, 1:].flatten()])
    down = torch.stack([node[:-1].flatten(), node[1:].flatten()])
    edges = torch.cat([right, down], dim=1)
    return torch.cat([edges, edges.flip(0)], dim=1)


def distances(graph: Graph) -> torch.Tensor:
    src, dst = graph.edge_index
    return (src - dst).abs()


# ---- Graph.reorder


def assert_renumbers_nodes_only(graph: Graph, method: str) -> None:
    reordered, permutation = graph.reorder(method)
    assert permutation.dtype == torch.int64 and permutation.device == graph.device
    assert sorted(permutation.tolist()) == list(range(graph.num_nodes))
    assert torch.equal(permutation[reordered.edge_index], graph.edge_index)
    assert torch.equal(graph.reorder(method)[1], permutation)  # the same at every call


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("method", ORDERS)
@pytest.mark.parametrize("name", SQUARE)
def test_reorder_only_renumbers_nodes(name, method, device):
    graph = sample_graph(name, device)
    assert_renumbers_nodes_only(graph, method)
    reordered, permutation = graph.reorder(method)
    x = torch.arange(float(graph.num_nodes), device=device).reshape(-1, 1)
    out = reference.spmm(reordered, x[permutation])
    assert torch.equal(out, reference.spmm(graph, x)[permutation])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_graph_is_renumbered(data):
    num_nodes = data.draw(st.integers(1, 12))
    node = st.integers(0, num_nodes - 1)
    pairs = data.draw(st.lists(st.tuples(node, node), max_size=40))
    edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t()
    assert_renumbers_nodes_only(Graph(edge_index, num_nodes), data.draw(st.sampled_from(ORDERS)))


def test_degrees_fall():
    reordered, permutation = sample_graph("star").reorder("degree")
    assert permutation.tolist() == list(range(9))
    reordered, _ = sample_graph("unsorted").reorder("degree")
    assert (reordered.in_degrees().diff() <= 0).all()


def test_rcm_narrows_the_band():
    path = shuffled(torch.stack([torch.arange(199), torch.arange(1, 200)]), 200)
    assert distances(path.reorder("rcm")[0]).max() == 1
    # A square grid's band cannot be narrower than its side (Chvatalova 1975).
    mesh = shuffled(grid(30), 900)
    assert distances(mesh).max() > 800
    assert 30 <= distances(mesh.reorder("rcm")[0]).max() <= 31


def test_communities_bring_a_mesh_together():
    mesh = shuffled(grid(60), 3600)
    before, after = distances(mesh), distances(mesh.reorder("community")[0])
    assert before.double().mean() > 1000
    assert after.double().median() <= 30 and after.double().mean() < 150


def test_communities_bring_blocks_together():
    data = datasets.load("sbm", num_nodes=2000, num_classes=20, p_in=0.2, p_out=0.001)
    src, dst = data.edge_index
    inside = (data.y[src] == data.y[dst]).double().mean()
    assert 0.8 < inside < 0.95
    blocks = shuffled(data.edge_index, 2000)

    def near(graph):
        return (distances(graph) < 100).double().mean()  # the size of a block

    assert near(blocks) < 0.12
    assert near(blocks.reorder("rcm")[0]) < 0.3
    assert near(blocks.reorder("community")[0]) >= 0.99 * inside


def test_joined_communities_are_neighbours():
    """A ring of cliques, each connected to the next by one edge."""
    size, count = 8, 24
    members = torch.arange(size * count).reshape(count, size)
    pairs = torch.combinations(torch.arange(size)).t()
    cliques = members[:, pairs].transpose(0, 1).flatten(1)
    links = torch.stack([members[:, 0], members.roll(-1, 0)[:, 1]])
    ring = shuffled(torch.cat([cliques, links], dim=1), size * count)
    far = distances(ring.reorder("community")[0])
    assert far[: cliques.shape[1]].max() < 2 * size  # Louvain merges pairs of cliques
    # Cuthill and McKee go round a ring in both directions at once: a link passes over one
    # community.
    assert far[cliques.shape[1] :].max() < 6 * size


@pytest.mark.parametrize("name", BIPARTITE)
@pytest.mark.parametrize("method", ORDERS)
def test_reorder_needs_equal_sides(name, method):
    with pytest.raises(ValueError, match="expects them to be equal"):
        sample_graph(name).reorder(method)


@pytest.mark.parametrize(
    ("method", "module"),
    [("rcm", "scipy.sparse"), ("community", "scipy.sparse"), ("community", "sknetwork.clustering")],
)
def test_missing_libraries_are_named(method, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'gat_ext\[reorder\]'"):
        sample_graph("path").reorder(method)


def test_unknown_order():
    with pytest.raises(ValueError, match=r"'metis'.*'degree', 'rcm', 'community'"):
        sample_graph("path").reorder("metis")


# ---- Reordered


def inputs(graph: Graph, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(graph.num_nodes, 5, generator=generator, requires_grad=True)


def results(module, x, adjacency, **options):
    """(result of a module, gradients of x and of the parameters)."""
    out = module(x, adjacency, **options)
    tensor = out[0] if isinstance(out, tuple) else out
    weight = torch.linspace(-1, 1, tensor.numel()).reshape(tensor.shape)
    needed = [x, *(p for p in module.parameters() if p.requires_grad)]
    return out, torch.autograd.grad((tensor * weight).sum(), needed, allow_unused=True)


@pytest.mark.parametrize("as_graph", [True, False], ids=["Graph", "edge_index"])
@pytest.mark.parametrize("method", ORDERS)
@over(plain_cases("reorder", "weights"))
@pytest.mark.parametrize("name", ["no_edges", "isolated", "multi_edges", "self_loops", "unsorted"])
def test_layers_return_the_callers_order(name, case, method, as_graph):
    graph = sample_graph(name)
    adjacency, x, module = graph if as_graph else graph.edge_index, inputs(graph), case.make()
    options = {"return_attention_weights": True}
    (out, weights), gradients = results(module, x, adjacency, **options)
    found, found_gradients = results(Reordered(module, method), x, adjacency, **options)
    assert_close(found[0], out)
    assert torch.equal(found[1][0], weights[0])
    assert_close(found[1][1], weights[1])
    assert_close(found_gradients, gradients)


@pytest.mark.parametrize("method", ORDERS)
def test_edge_features_and_given_loops_stay_with_their_edges(method):
    """The last edges are a self-loop at every node, in an order of no numbering."""
    start, loops = sample_graph("unsorted").edge_index, torch.randperm(8).expand(2, -1)
    graph = Graph(torch.cat([start, loops], dim=1), 8)
    x, edge_attr = inputs(graph), torch.randn(graph.num_edges, 3)
    for add_self_loops in (True, False):
        layer = nn.GATConv(5, 4, edge_dim=3, add_self_loops=add_self_loops)
        out, (edges, alpha) = layer(x, graph, edge_attr, return_attention_weights=True)
        reordered = Reordered(layer, method)
        found = reordered(x, graph, edge_attr=edge_attr, return_attention_weights=True)
        assert_close(found[0], out)
        assert torch.equal(found[1][0], edges)
        assert_close(found[1][1], alpha)


def test_given_loops_that_look_added_keep_their_place():
    """In the new numbering they ascend, as a layer's own would."""
    start = sample_graph("unsorted")
    loops = start.reorder("degree")[1].expand(2, -1)
    graph = Graph(torch.cat([start.edge_index, loops], dim=1), 8)
    layer, x = nn.GATConv(5, 4, add_self_loops=False), inputs(start)
    _, (edges, alpha) = layer(x, graph, return_attention_weights=True)
    _, found = Reordered(layer, "degree")(x, graph, return_attention_weights=True)
    assert torch.equal(found[0], edges)
    assert_close(found[1], alpha)


def test_transformer_and_other_results():
    graph = sample_graph("unsorted")
    x, layer = inputs(graph), nn.TransformerConv(5, 4, heads=2, beta=True)
    out, gradients = results(layer, x, graph)
    found, found_gradients = results(Reordered(layer, "community"), x, graph)
    assert_close(found, out)
    assert_close(found_gradients, gradients)

    class Several(torch.nn.Module):
        def forward(self, x, graph):
            return x, x.sum(), (x.mean(0, keepdim=True), x[:, 0])

    class Other(torch.nn.Module):
        def forward(self, x, graph):
            return {"x": x}

    rows, total, (mean, column) = Reordered(Several(), "degree")(x, graph)
    assert torch.equal(rows, x) and torch.equal(column, x[:, 0])
    assert_close((total, mean), (x.sum(), x.mean(0, keepdim=True)))
    with pytest.raises(TypeError, match="returned a dict"):
        Reordered(Other(), "degree")(x, graph)


@pytest.mark.parametrize("method", ORDERS)
@pytest.mark.parametrize("name", models.available())
def test_models_return_the_callers_order(name, method):
    data = datasets.load("karate")
    model = models.build(name).preset("karate", data.num_features, data.num_classes).eval()
    graph = Graph(data.edge_index, data.num_nodes)
    for x in (data.x, data.x.to_sparse_csr(), SparseFeatures(data.x), data.x + 1):
        assert_close(Reordered(model, method)(x, graph), model(x, graph))


def test_gradients_reach_sparse_values():
    data = datasets.load("karate")
    model = models.GAT(data.num_features, 4, 2).eval()
    x = SparseFeatures(data.x)
    x.values.requires_grad_()
    for module in (model, Reordered(model, "rcm")):
        module(x, data.edge_index)[:, 0].square().sum().backward()
    half = x.values.grad / 2
    x.values.grad = None
    model(x, data.edge_index)[:, 0].square().sum().backward()
    assert x.values.grad.abs().sum() > 0
    assert_close(x.values.grad, half)


def counting(monkeypatch):
    calls = []
    right = Graph.reorder
    monkeypatch.setattr(Graph, "reorder", lambda g, m: calls.append(m) or right(g, m))
    return calls


def test_a_graph_is_renumbered_once_and_dropped_with_it(monkeypatch):
    calls = counting(monkeypatch)
    graph, layer = sample_graph("unsorted"), Reordered(nn.GATConv(5, 4), "rcm")
    x = inputs(graph)
    for module in (layer, layer, Reordered(nn.GATConv(5, 4), "rcm")):
        module(x, graph)
    assert calls == ["rcm"]
    Reordered(nn.GATConv(5, 4), "degree")(x, graph)
    layer(x, graph)
    assert calls == ["rcm", "degree"]
    gone = weakref.ref(graph)
    del graph
    gc.collect()
    assert gone() is None


def test_a_modified_edge_index_is_renumbered_again(monkeypatch):
    calls = counting(monkeypatch)
    edge_index, layer = sample_graph("unsorted").edge_index, nn.GATConv(5, 4)
    reordered, x = Reordered(layer, "rcm"), torch.randn(8, 5)
    reordered(x, edge_index)
    reordered(x, edge_index)
    assert len(calls) == 1
    edge_index[0, :4] = 0
    assert_close(reordered(x, edge_index), layer(x, edge_index))
    assert len(calls) == 2
    more = torch.randn(9, 5)
    assert_close(reordered(more, edge_index), layer(more, edge_index))


def test_constant_features_are_reordered_once_until_modified(monkeypatch):
    graph, layer = sample_graph("unsorted"), nn.GATConv(5, 4)
    reordered, seen, x = Reordered(layer, "rcm"), [], torch.randn(8, 5)
    layer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    with torch.inference_mode():  # cached results must work in later training
        reordered(x, graph)
    reordered(x, graph).sum().backward()
    assert seen[0] is seen[1]
    x.mul_(2)
    assert_close(reordered(x, graph), layer(x, graph))
    assert seen[2] is not seen[1]
    gone = weakref.ref(seen[2])
    seen.clear()
    del x
    gc.collect()
    assert gone() is None


def test_inference_tensors():
    layer = nn.GATConv(5, 4)
    with torch.inference_mode():
        x, edge_index = torch.randn(8, 5), sample_graph("unsorted").edge_index
        for _ in range(2):
            assert_close(Reordered(layer, "rcm")(x, edge_index), layer(x, edge_index))
            edge_index[0, :4] = 0
            x.mul_(2)


def test_state_dict_fits_with_and_without():
    model = models.GAT(5, 4, 3, norm="batch")
    reordered = Reordered(copy.deepcopy(model), "rcm")
    for other in (Reordered(models.GAT(5, 4, 3, norm="batch"), "degree"), copy.deepcopy(model)):
        other.load_state_dict(reordered.state_dict())
        reordered.load_state_dict(other.state_dict())
        assert list(other.state_dict()) == list(model.state_dict())
    outer, plain = torch.nn.Sequential(reordered, model), torch.nn.Sequential(model, model)
    assert list(outer.state_dict()) == list(plain.state_dict())
    outer.load_state_dict(plain.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        reordered.load_state_dict({})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        reordered.load_state_dict({**model.state_dict(), "other": torch.ones(1)})


def test_copies_and_pickles_work():
    graph = sample_graph("unsorted")
    module, x = Reordered(nn.GATConv(5, 4), "rcm"), inputs(graph)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x, graph), module(x, graph))
        assert list(other.state_dict()) == list(module.state_dict())
    assert "'rcm'" in repr(module) and "GATConv" in repr(module)


def test_reordered_compiles():
    graph, module = sample_graph("unsorted"), Reordered(nn.GATConv(5, 4), "rcm")
    x = inputs(graph)
    assert_close(torch.compile(module, backend="eager")(x, graph), module.module(x, graph))


def test_reordered_mistakes():
    layer, graph = nn.GATConv(5, 4), sample_graph("unsorted")
    reordered, x = Reordered(layer, "rcm"), torch.randn(8, 5)
    with pytest.raises(TypeError, match="module is a function"):
        Reordered(lambda x, graph: x, "rcm")
    with pytest.raises(ValueError, match=r"'metis'.*'degree', 'rcm', 'community'"):
        Reordered(layer, "metis")
    with pytest.raises(ValueError, match="x is a pair"):
        reordered((x, x), graph)
    with pytest.raises(ValueError, match="is bipartite"):
        reordered(torch.randn(9, 5), sample_graph("more_sources"))
    with pytest.raises(ValueError, match=r"x has 7 rows, but the graph is Graph\(num_nodes=8"):
        reordered(x[:7], graph)
    with pytest.raises(IndexError, match="num_nodes=7"):
        reordered(x[:7], graph.edge_index)
    with pytest.raises(TypeError, match="x is a dict"):
        reordered({}, graph)
    with pytest.raises(ValueError, match=r"shape \[\]"):
        reordered(torch.tensor(1.0), graph)
    with pytest.raises(ValueError, match="x is on meta, the graph on cpu"):
        reordered(x.to("meta"), graph)
    with pytest.raises(TypeError, match="edge_index is a str"):
        reordered(x, "edges")
