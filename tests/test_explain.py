"""Recorded attention of models and layers, matched with the caller's edges."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from explained import EDGES, F64, MODELS, features, random_edges
from layers import full_cases, over, plain_cases
from torch.testing import assert_close

from gat_ext import Graph, nn
from gat_ext.explain import (
    match_edges,
    record_attention,
)

# ---- recording


@pytest.mark.parametrize("name", MODELS)
def test_records_equal_the_attention_of_models(name):
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    expected_out, expected = model(features(), EDGES), model.attention_weights(features(), EDGES)
    with record_attention(model) as layers:
        out = model(features(), EDGES)
    assert torch.equal(out, expected_out)
    assert [layer.name for layer in layers] == ["layers.0", "layers.1", "layers.2"]
    for layer, (edge_index, alpha) in zip(layers, expected, strict=True):
        assert torch.equal(layer.edge_index, edge_index)
        assert torch.equal(layer.alpha, alpha)
        assert (layer.num_src, layer.num_dst, layer.num_given) == (9, 9, EDGES.shape[1])


class Custom(torch.nn.Module):
    """Positional arguments, weights requested by the module, a layer called twice, bipartite x."""

    def __init__(self):
        super().__init__()
        self.first = nn.GATConv(5, 5, edge_dim=2)
        self.inner = torch.nn.Sequential(torch.nn.Linear(5, 5))
        self.twice = nn.AGNNConv()
        self.last = nn.TransformerConv((5, 5), 3)

    def forward(self, x, edges, attr):
        x, (_, alpha) = self.first(x, edges, attr, None, True)
        assert alpha.shape[1] == 1
        x = self.twice(self.inner(self.twice(x, edges)), edges)
        return self.last((x, x[:4]), edges[:, edges[1] < 4])


def test_any_module_is_recorded():
    torch.manual_seed(0)
    model, attr = Custom().double(), torch.randn(EDGES.shape[1], 2, dtype=F64)
    expected = model(features(), EDGES, attr)
    with record_attention(model) as layers:
        assert torch.equal(model(features(), EDGES, attr), expected)
    assert [layer.name for layer in layers] == ["first", "twice", "twice", "last"]
    assert [(layer.num_src, layer.num_dst) for layer in layers] == [(9, 9)] * 3 + [(9, 4)]
    assert torch.equal(model(features(), EDGES, attr), expected)
    assert len(layers) == 4  # nothing is recorded outside the block


def test_other_hooks_see_unchanged_results():
    layer, seen = nn.GATConv(5, 4).double(), []
    layer.register_forward_hook(lambda _, args, out: seen.append(out))
    with record_attention(layer):
        layer(features(), EDGES)
        layer(features(), EDGES, return_attention_weights=True)
    assert isinstance(seen[0], torch.Tensor)
    assert len(seen[1]) == 2


def test_hooks_are_removed_after_an_error():
    layer = nn.GATConv(5, 4).double()
    with record_attention(layer) as records:
        layer(features(), EDGES)
    alpha = weakref.ref(records[0].alpha)
    with pytest.raises(ValueError, match="expects"), record_attention(layer):
        layer(features(width=3), EDGES)
    assert not layer._forward_hooks and not layer._forward_pre_hooks
    del records
    gc.collect()
    assert alpha() is None


def test_gradients_flow_through_records():
    layer = nn.GATConv(5, 4, heads=2).double()
    with record_attention(layer) as records:
        layer(features(), EDGES)
    records[0].of_given_edges().square().sum().backward()
    assert layer.att_src.grad.abs().sum() > 0


@over([*plain_cases("weights", typed=True), *full_cases("weights", "edge_attr", typed=True)])
def test_every_layer_is_recorded(case):
    """Records the weights it would return, and does not change its result."""
    layer, given = case.make().double(), (features(), EDGES, *case.edge_attr(EDGES.shape[1], F64))
    with record_attention(layer) as records:
        out = layer(*given)
    expected, (edges, alpha) = layer(*given, return_attention_weights=True)
    (record,) = records
    assert torch.equal(out, expected) and torch.equal(record.alpha, alpha)
    assert torch.equal(record.edge_index, edges)
    assert record.added.any() == case.replaces_loops


def test_modules_without_layers_are_refused():
    with (
        pytest.raises(ValueError, match="Linear has no attention to record"),
        record_attention(torch.nn.Linear(2, 2)),
    ):
        pass
    with pytest.raises(TypeError, match="model is a function"), record_attention(random_edges):
        pass


# ---- the caller's edges


@pytest.mark.parametrize("as_graph", [False, True])
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_weights_of_the_given_edges(add_self_loops, as_graph):
    torch.manual_seed(0)
    layer = nn.GATConv(5, 4, heads=2, add_self_loops=add_self_loops).double()
    given = Graph(EDGES, num_nodes=9) if as_graph else EDGES
    _, attention = layer(features(), given, return_attention_weights=True)
    matched = match_edges(attention, given)
    assert torch.equal(matched.added, matched.edge_id == -1)
    present = ~matched.added
    assert torch.equal(matched.edge_index[:, present], EDGES[:, matched.edge_id[present]])
    ours, loops = matched.of_given_edges(), matched.of_added_loops()
    expected, found = torch.zeros_like(ours), set()
    weight = dict(enumerate(attention[1]))
    if not add_self_loops:
        assert torch.equal(ours, attention[1]) and not loops.any()
        return
    rest = [e for e in range(EDGES.shape[1]) if EDGES[0, e] != EDGES[1, e]]
    for position, e in enumerate(rest):
        expected[e] = weight[position]
    for e in range(EDGES.shape[1]):
        node = int(EDGES[0, e])
        if EDGES[1, e] == node and node not in found:
            found.add(node)
            expected[e] = weight[len(rest) + node]
    assert torch.equal(ours, expected)
    assert 2 in found and len(found) < 9
    for node in range(9):
        own = 0 * weight[0] if node in found else weight[len(rest) + node]
        assert torch.equal(loops[node], own)
    total = loops.index_add(0, EDGES[1], ours)
    assert_close(total, torch.ones_like(total))
    assert torch.autograd.gradcheck(
        lambda a: (
            matched._replace(alpha=a).of_given_edges(),
            matched._replace(alpha=a).of_added_loops(),
        ),
        attention[1].detach().requires_grad_(),
    )


def test_loops_in_the_place_of_added_ones_are_given():
    edges = torch.tensor([[0, 1, 0, 1, 2], [1, 2, 0, 1, 2]])
    _, attention = nn.AGNNConv()(torch.randn(3, 4), edges, return_attention_weights=True)
    matched = match_edges(attention, edges)
    assert matched.edge_id.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(matched.of_given_edges(), attention[1])


@pytest.mark.parametrize("num_edges", [0, 3])
def test_graphs_of_few_edges(num_edges):
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])[:, :num_edges]
    graph = Graph(edges, num_nodes=3)
    _, attention = nn.AGNNConv()(torch.randn(3, 4), graph, return_attention_weights=True)
    matched = match_edges(attention, graph)
    assert matched.edge_id.tolist() == [*range(num_edges), -1, -1, -1]
    assert matched.of_given_edges().shape == (num_edges, 1)


def test_other_edges_are_refused():
    _, attention = nn.AGNNConv()(features().float(), EDGES, return_attention_weights=True)
    for others in (EDGES.flip(0), EDGES[:, 1:]):
        with pytest.raises(ValueError, match="neither the"):
            match_edges(attention, Graph(others, num_nodes=9))
