"""patch_pyg: PyG's models on the kernels here, with PyG's explainers."""

from __future__ import annotations

import copy
import inspect
import io
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch_geometric.nn as pyg
from layers import all_cases
from torch.testing import assert_close
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer
from torch_geometric.explain.algorithm import GraphMaskExplainer
from torch_geometric.nn.models import GAT

import gat_ext
from gat_ext import nn
from gat_ext.explain import record_attention
from gat_ext.interop import patch_pyg

EDGES = torch.randint(12, (2, 50), generator=torch.Generator().manual_seed(0))
X = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))
THEIRS = {
    str(case): partial(case.make_pyg, 6) for case in all_cases("pyg") if not case.has_edges
} | {
    "GATConv pair": lambda: pyg.GATConv((6, 6), 4, heads=2),
    "GATConv lazy": lambda: pyg.GATConv(-1, 4, heads=2),
}


class Net(torch.nn.Module):
    """Three layers, the last two in a list, one of them used twice."""

    def __init__(self):
        super().__init__()
        self.first = pyg.GATConv(6, 4, heads=2)
        self.more = torch.nn.ModuleList([pyg.GATv2Conv(8, 8), pyg.TransformerConv(8, 3)])

    def forward(self, x, edge_index):
        x = self.first(x, edge_index).relu()
        x = self.more[0](self.more[0](x, edge_index), edge_index)
        return self.more[1](x, edge_index)


class OneLayer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = pyg.GATv2Conv((6, 6), 4, add_self_loops=False)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


def loss_and_gradients(model, *inputs):
    x = inputs[0].clone().requires_grad_()
    out = model(x, *inputs[1:])
    wanted = [x, *model.parameters()]
    return out, torch.autograd.grad(out.square().sum(), wanted, allow_unused=True)


def assert_same(model, patched, *inputs):
    ours, our_gradients = loss_and_gradients(patched, *inputs)
    theirs, their_gradients = loss_and_gradients(model, *inputs)
    assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for mine, other in zip(our_gradients, their_gradients, strict=True):
        if other is not None:
            assert_close(mine, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", THEIRS)
def test_a_layer_in_place(name):
    layer = THEIRS[name]()
    if name == "GATConv lazy":
        layer(X, EDGES)
    original, state = copy.deepcopy(layer), layer.state_dict()
    parameters = list(map(id, layer.parameters()))
    report = patch_pyg(layer)
    assert report.swapped == (("", name.split()[0]),) and report.left == ()
    assert str(report) == f"swapped (the model): {name.split()[0]}"
    assert list(map(id, layer.parameters())) == parameters
    assert list(layer.state_dict()) == list(state)
    assert isinstance(layer, type(original)) and isinstance(layer, getattr(nn, name.split()[0]))
    assert repr(layer) == repr(original)
    assert_same(original, layer, X, EDGES)
    original.load_state_dict(layer.state_dict())
    layer.load_state_dict(original.state_dict())


def test_lazy_layers_are_patched_before_their_first_call():
    layer = THEIRS["GATConv lazy"]()
    patch_pyg(layer)
    assert layer(X, EDGES).shape == (12, 8)
    assert layer.lin.weight.shape == (8, 6)


def test_a_model_in_place():
    model = Net()
    original = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    calls = []
    model.first.register_forward_hook(lambda *call: calls.append("hook"))
    model.more[1].eval()
    report = patch_pyg(model)
    assert report.swapped == (
        ("first", "GATConv"),
        ("more.0", "GATv2Conv"),
        ("more.1", "TransformerConv"),
    )
    assert_same(original, model, X, EDGES)
    assert calls == ["hook"] and model.first.training and not model.more[1].training
    before = model.first.lin.weight.clone()
    model(X, EDGES).sum().backward()
    optimizer.step()
    assert not torch.equal(model.first.lin.weight, before)
    assert patch_pyg(model).swapped == ()


def test_copies_and_pickles():
    model = Net()
    patch_pyg(model)
    expected = model(X, EDGES)
    assert_close(copy.deepcopy(model)(X, EDGES), expected)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert_close(torch.load(buffer, weights_only=False)(X, EDGES), expected)
    assert_close(model.double()(X.double(), EDGES).float(), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def calls_of_pyg(monkeypatch):
    """Grows by one with every call that PyG's own code computes."""
    calls = []
    for kind in (pyg.GATConv, pyg.GATv2Conv, pyg.TransformerConv, pyg.AGNNConv):

        def counted(self, *inputs, forward=kind.forward, **options):
            calls.append(self)
            return forward(self, *inputs, **options)

        monkeypatch.setattr(kind, "forward", counted)
    return calls


def saved_and_loaded(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, saved_and_loaded], ids=lambda f: f.__name__)
def test_copies_compute_with_the_kernels(calls_of_pyg, copied):
    """Also after they were explained, and so do the model that was copied and its other copies."""
    model = Net().eval()
    patch_pyg(model)
    models = [model, copied(model), copied(copied(model))]
    masks = []
    for each in models * 2:
        each(X, EDGES)
        masks.append(explain(each, GNNExplainer(epochs=3), index=3).edge_mask)
        each(X, EDGES)
    assert not calls_of_pyg
    for mask in masks[1:]:
        assert_close(mask, masks[0])


def test_a_model_that_was_explained_before(calls_of_pyg):
    model = Net().eval()
    expected = explain(model, GNNExplainer(epochs=3), index=3).edge_mask
    patch_pyg(model)
    calls_of_pyg.clear()
    assert_close(explain(model, GNNExplainer(epochs=3), index=3).edge_mask, expected)
    assert not calls_of_pyg


def test_a_layer_that_is_turned_round_afterwards():
    layer, turned = pyg.GATv2Conv(6, 4), pyg.GATv2Conv(6, 4, flow="target_to_source")
    turned.load_state_dict(layer.state_dict())
    patch_pyg(layer)
    layer.flow = "target_to_source"
    assert_close(layer(X, EDGES), turned(X, EDGES))


def test_parameters_are_redrawn_as_by_pyg():
    """From the distributions of PyG's layers: their standard deviations agree."""
    makes = (
        lambda: pyg.GATConv(64, 64, heads=4, edge_dim=32),
        lambda: pyg.GATv2Conv(64, 64, heads=4, residual=True),
        lambda: pyg.TransformerConv(64, 64, heads=4, edge_dim=32),
    )
    for make in makes:
        layer, other = make(), make()
        patch_pyg(layer)
        before = [p.detach().clone() for p in layer.parameters()]
        layer.reset_parameters()
        named = zip(before, layer.named_parameters(), other.parameters(), strict=True)
        for old, (name, mine), theirs in named:
            if theirs.numel() > 1000:
                assert not torch.equal(mine, old), name
                assert_close(mine.std(), theirs.std(), rtol=0.05, atol=0, msg=name)


def test_a_map_in_two_places_stays_one():
    shared = pyg.GATv2Conv(6, 4, share_weights=True)
    first, second = pyg.GATConv(6, 4), pyg.GATConv(6, 4)
    second.lin = first.lin
    patch_pyg(torch.nn.ModuleList([shared, first, second]))
    assert shared.lin_l is shared.lin_r and first.lin is second.lin


def test_ready_made_models():
    for make in (
        lambda: GAT(6, 8, num_layers=3, out_channels=4, heads=2),
        lambda: GAT(6, 8, num_layers=2, v2=True, edge_dim=2, jk="cat"),
        lambda: pyg.Sequential(
            "x, edge_index",
            [(pyg.GATConv(6, 4), "x, edge_index -> x"), (pyg.AGNNConv(), "x, edge_index -> x")],
        ),
    ):
        model = make().eval()
        original = copy.deepcopy(model)
        assert len(patch_pyg(model).swapped) >= 2
        assert_same(original, model, X, EDGES)


def test_heterogeneous_models():
    metadata = (["a", "b"], [("a", "to", "b"), ("b", "back", "a")])
    x = {"a": X, "b": X[:5]}
    edges = {
        metadata[1][0]: torch.stack([torch.randint(12, (20,)), torch.randint(5, (20,))]),
        metadata[1][1]: torch.stack([torch.randint(5, (20,)), torch.randint(12, (20,))]),
    }
    hetero = pyg.HeteroConv(
        {kind: pyg.GATConv((6, 6), 4, add_self_loops=False) for kind in metadata[1]}
    )
    transformed = pyg.to_hetero(OneLayer(), metadata)
    for model in (hetero, transformed):
        original = copy.deepcopy(model)
        assert len(patch_pyg(model).swapped) == 2
        ours, theirs = model(x, edges), original(x, edges)
        for node_type in theirs:
            assert_close(ours[node_type], theirs[node_type])


def test_a_patched_model_made_heterogeneous():
    metadata = (["a", "b"], [("a", "to", "b"), ("b", "back", "a")])
    x = {"a": X, "b": X[:5]}
    edges = {kind: torch.randint(5, (2, 20)) for kind in metadata[1]}
    patched = OneLayer()
    patch_pyg(patched)
    ours, theirs = pyg.to_hetero(patched, metadata), pyg.to_hetero(OneLayer(), metadata)
    ours.load_state_dict(theirs.state_dict())
    assert all(isinstance(layer, nn.GATv2Conv) for layer in ours.conv.values())
    out, expected = ours(x, edges), theirs(x, edges)
    for node_type in expected:
        assert_close(out[node_type], expected[node_type])


def test_what_is_left_and_why():
    class Mine(pyg.GATConv):
        def message(self, x_j, alpha):
            return 2 * super().message(x_j, alpha)

    model = torch.nn.ModuleDict(
        {
            "derived": Mine(6, 4),
            "mean": pyg.GATConv(6, 4, aggr="mean"),
            "reversed": pyg.GATv2Conv(6, 4, flow="target_to_source"),
            "other": pyg.GCNConv(6, 4),
            "good": pyg.GATConv(6, 4),
        }
    )
    report = patch_pyg(model)
    assert report.swapped == (("good", "GATConv"),)
    reasons = dict(report.left)
    assert reasons["derived"].startswith("GATConv is of the derived class Mine")
    assert reasons["mean"] == "GATConv has aggr='mean'"
    assert reasons["reversed"] == "GATv2Conv has flow='target_to_source'"
    assert "other" not in reasons
    assert str(patch_pyg(torch.nn.Linear(2, 2))) == "no attention layers of PyG"


def test_nothing_large_is_imported_unless_needed(tmp_path):
    code = (
        "import sys, gat_ext.interop, gat_ext.nn, gat_ext.models;"
        "large = {'torch._dynamo', 'torch_geometric', 'dgl', 'scipy', 'networkx'} & set(sys.modules);"
        "assert not large, large"
    )
    env = os.environ | {"PYTHONPATH": str(Path(gat_ext.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=env)


# ---- explainers


def explain(model, algorithm, index=None, x=X, edges=EDGES):
    torch.manual_seed(0)
    explainer = Explainer(
        model,
        algorithm,
        explanation_type="model",
        edge_mask_type="object",
        node_mask_type=None if isinstance(algorithm, AttentionExplainer) else "attributes",
        model_config={"mode": "regression", "task_level": "node"},
    )
    return explainer(x, edges, index=index)


@pytest.mark.parametrize("index", [None, 3])
def test_attention_explainer(index):
    model = Net().eval()
    original = copy.deepcopy(model)
    patch_pyg(model)
    ours, theirs = (explain(m, AttentionExplainer(), index) for m in (model, original))
    assert_close(ours.edge_mask, theirs.edge_mask)
    assert ours.edge_mask.abs().sum() > 0
    assert_close(model(X, EDGES), original(X, EDGES))  # the hooks are gone


def test_gnn_explainer():
    model = Net().eval()
    original = copy.deepcopy(model)
    patch_pyg(model)
    ours, theirs = (explain(m, GNNExplainer(epochs=40), index=3) for m in (model, original))
    assert_close(ours.edge_mask, theirs.edge_mask, rtol=1e-2, atol=1e-3)
    assert_close(ours.node_mask, theirs.node_mask, rtol=1e-2, atol=1e-3)
    assert len(ours.edge_mask.unique()) > 5
    assert_close(model(X, EDGES), original(X, EDGES))


class BothKinds(torch.nn.Module):
    """A heterogeneous model's results, added."""

    def __init__(self, metadata):
        super().__init__()
        self.net = pyg.to_hetero(OneLayer(), metadata)

    def forward(self, x, edge_index):
        out = self.net(x, edge_index)
        return out["a"][:5] + out["b"]


@pytest.mark.parametrize("algorithm", [AttentionExplainer, GNNExplainer])
def test_explained_heterogeneous_models(algorithm):
    metadata = (["a", "b"], [("a", "to", "b"), ("b", "back", "a")])
    x = {"a": X, "b": X[:5]}
    edges = {kind: torch.randint(5, (2, 20)) for kind in metadata[1]}
    model = BothKinds(metadata).eval()
    original = copy.deepcopy(model)
    patch_pyg(model)
    ours, theirs = (explain(m, algorithm(), 2, x, edges) for m in (model, original))
    assert theirs[metadata[1][0]].edge_mask.any()
    for kind in metadata[1]:
        assert_close(ours[kind].edge_mask, theirs[kind].edge_mask, rtol=1e-2, atol=1e-3)


def test_graph_mask_explainer():
    """It gives layers an explain_message of its own, that the kernels know nothing of."""
    model = torch.nn.Sequential(pyg.GATConv(6, 4))
    model.forward = lambda x, edge_index: model[0](x, edge_index)
    model = model.eval()
    original = copy.deepcopy(model)
    original.forward = lambda x, edge_index: original[0](x, edge_index)
    patch_pyg(model)
    copy.deepcopy(model)
    ours, theirs = (
        explain(m, GraphMaskExplainer(1, epochs=2, log=False)) for m in (model, original)
    )
    assert_close(ours.edge_mask, theirs.edge_mask)


def test_a_method_of_the_layer_that_somebody_replaced():
    layer = pyg.GATConv(6, 4)
    patch_pyg(layer)
    plain = layer(X, EDGES)
    layer.message = lambda x_j, alpha: 2 * alpha.unsqueeze(-1) * x_j
    assert_close(layer(X, EDGES) - layer.bias, 2 * (plain - layer.bias))


def test_recorded_attention_of_patched_models():
    """gat_ext.explain knows the swapped layers, whose arguments can be looked up."""
    model = Net().eval()
    patch_pyg(model)
    expected = model(X, EDGES)
    with record_attention(model) as records:
        assert torch.equal(model(X, EDGES), expected)
    assert [record.name for record in records] == ["first", "more.0", "more.0", "more.1"]
    for record in records:
        assert record.of_given_edges().shape[0] == EDGES.shape[1]
        arguments = list(inspect.signature(model.get_submodule(record.name).forward).parameters)
        assert arguments[:3] == ["x", "edge_index", "edge_attr"]


def test_what_is_attached_to_linear_maps_stays():
    """Attributes, a forward of the object's own, hooks of checkpoints; and they stay instances of PyG's class."""
    model = Net()
    linear = model.first.lin
    linear.tag, forward, loaded = "mine", linear.forward, []
    linear.forward = lambda x: 2 * forward(x)
    linear.register_load_state_dict_pre_hook(lambda *args: loaded.append(args[2]))
    original = copy.deepcopy(model)
    original.first.lin.forward = lambda x: (
        2 * type(original.first.lin).forward(original.first.lin, x)
    )
    patch_pyg(model)
    assert model.first.lin is linear and linear.tag == "mine"
    assert (
        isinstance(linear, pyg.Linear) and linear.in_channels == 6 and "Linear(6, 8" in repr(linear)
    )
    assert_same(original, model, X, EDGES)
    model.load_state_dict(model.state_dict())
    assert loaded == ["first.lin."]


def test_replaced_projections_and_edge_features_of_any_size():
    for before in (True, False):
        layer = pyg.GATConv(6, 4, edge_dim=-1)
        attr = torch.randn(EDGES.shape[1], 3)
        if before:
            layer(X, EDGES, attr)
        original = copy.deepcopy(layer)
        for each in (layer, original):
            each.lin = torch.nn.Sequential(each.lin, torch.nn.Tanh())
        patch_pyg(layer)
        torch.manual_seed(0)
        ours = layer(X, EDGES, attr)
        torch.manual_seed(0)
        assert_close(ours, original(X, EDGES, attr))
