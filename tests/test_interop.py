"""patch_pyg: layers of PyG's models swapped in place; whatever version of PyG is installed."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch_geometric
import torch_geometric.nn as pyg
from layers import over
from pyg_models import (
    CASES,
    EDGES,
    METADATA,
    THEIRS,
    Net,
    OneLayer,
    X,
    assert_same,
    explain,
    needs_to_hetero,
    projection_of,
)
from torch.testing import assert_close
from torch_geometric.data import Data
from torch_geometric.explain import GNNExplainer
from torch_geometric.nn.models import GAT

import gat_ext.interop.pyg
from gat_ext import nn
from gat_ext.interop import patch_pyg, unpatch_pyg


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
    assert repr(layer) == f"{original!r} [gat_ext]"
    assert_same(original, layer, X, EDGES)
    original.load_state_dict(layer.state_dict())
    layer.load_state_dict(original.state_dict())


def test_lazy_layers_are_patched_before_their_first_call():
    layer = THEIRS["GATConv lazy"]()
    patch_pyg(layer)
    assert layer(X, EDGES).shape == (12, 8)
    assert projection_of(layer).weight.shape == (8, 6)


CALLS = {  # what a layer is called with
    "one": ((6, 4), X, {}),
    "pair": (((6, 3), 4), (X, torch.ones(12, 3)), {}),
    "fewer destinations": (((6, 3), 4), (X, torch.randn(7, 3)), {}),
    "sources": (((6, 3), 4), (X, None), {"size": (12, 7)}),
}


CALLED = [
    (case, call)
    for case in CASES
    if case.layer.supports("projections", "pairs", "pyg_weights")
    for call in CALLS
    if call != "sources" or case.layer.supports("sources alone")
]


@pytest.mark.parametrize(("case", "call"), CALLED, ids=str)
def test_attention_weights_and_pairs_as_unpatched(case, call):
    """For True, False and None, which versions of PyG take in different ways."""
    sizes, x, size = CALLS[call]
    kind = getattr(pyg, case.name)
    options = case.options | ({"share_weights": False} if "share_weights" in case.options else {})
    # PyG reduces over edges into nodes that get a loop only, and fails at others.
    options |= {"add_self_loops": False} if call != "one" and "fill_value" in options else {}
    layer = kind(*sizes, **options)
    edges = EDGES % (7 if call in ("fewer destinations", "sources") else 12)
    given = {"edge_attr": torch.randn(50, options["edge_dim"])} if case.has_edges else {}
    original = copy.deepcopy(layer)
    patch_pyg(layer)
    for asked in (None, False, True):
        ours, theirs = (
            each(x, edges, **given, **size, return_attention_weights=asked)
            for each in (layer, original)
        )
        assert type(ours) is type(theirs)
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    positional = [given.get("edge_attr"), *([size.get("size")] if case.name == "GATConv" else [])]
    ours, theirs = (each(x, edges, *positional, False) for each in (layer, original))
    assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@over([case for case in CASES if case.has_edges])
def test_edge_features_as_unpatched(case):
    layer, attr = case.make_pyg(6), torch.randn(50, case.options["edge_dim"])
    original = copy.deepcopy(layer)
    patch_pyg(layer)
    assert_same(original, layer, X, EDGES, attr)


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
    weight = projection_of(model.first).weight
    before = weight.clone()
    model(X, EDGES).sum().backward()
    optimizer.step()
    assert not torch.equal(weight, before)


def test_patched_twice():
    model = Net()
    patch_pyg(model)
    again = patch_pyg(model)
    assert again.swapped == ()
    assert str(again).splitlines() == [
        "left first: GATConv is already patched",
        "left more.0: GATv2Conv is already patched",
        "left more.1: TransformerConv is already patched",
    ]


@pytest.mark.parametrize("explained", [False, True])
def test_unpatched(calls_of_pyg, explained):
    """The classes, attributes and results are those of a model that was never patched."""
    model = Net().eval()
    original = copy.deepcopy(model)
    patch_pyg(model)
    if explained:
        for each in (model, original):
            explain(each, GNNExplainer(epochs=1), index=3)
    assert unpatch_pyg(model) == ("first", "more.0", "more.1")
    for ours, theirs in zip(model.modules(), original.modules(), strict=True):
        assert type(ours) is type(theirs) and set(vars(ours)) == set(vars(theirs))
        assert repr(ours) == repr(theirs) and list(ours._modules) == list(theirs._modules)
    calls_of_pyg.clear()
    assert torch.equal(model(X, EDGES), original(X, EDGES))
    assert calls_of_pyg == [
        *(model.first, model.more[0], model.more[0], model.more[1]),
        *(original.first, original.more[0], original.more[0], original.more[1]),
    ]
    assert unpatch_pyg(model) == ()
    assert len(patch_pyg(model).swapped) == 3
    calls_of_pyg.clear()
    assert_same(original, model, X, EDGES)
    assert len(calls_of_pyg) == 4


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
        lambda: pyg.GATv2Conv(64, 64, heads=4, edge_dim=32),
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
    first, second = pyg.TransformerConv(6, 4), pyg.TransformerConv(6, 4)
    second.lin_key = first.lin_key
    patch_pyg(torch.nn.ModuleList([shared, first, second]))
    assert shared.lin_l is shared.lin_r and first.lin_key is second.lin_key


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


HETERO = {
    "HeteroConv": lambda: pyg.HeteroConv(
        {kind: pyg.GATConv((6, 6), 4, add_self_loops=False) for kind in METADATA[1]}
    ),
    "to_hetero": lambda: pyg.to_hetero(OneLayer(), METADATA),
}


@pytest.mark.parametrize("make", ["HeteroConv", pytest.param("to_hetero", marks=needs_to_hetero)])
def test_heterogeneous_models(make):
    model = HETERO[make]()
    x = {"a": X, "b": X[:5]}
    edges = {
        METADATA[1][0]: torch.stack([torch.randint(12, (20,)), torch.randint(5, (20,))]),
        METADATA[1][1]: torch.stack([torch.randint(5, (20,)), torch.randint(12, (20,))]),
    }
    original = copy.deepcopy(model)
    assert len(patch_pyg(model).swapped) == 2
    ours, theirs = model(x, edges), original(x, edges)
    for node_type in theirs:
        assert_close(ours[node_type], theirs[node_type])


@needs_to_hetero
def test_a_patched_model_made_heterogeneous():
    x = {"a": X, "b": X[:5]}
    edges = {kind: torch.randint(5, (2, 20)) for kind in METADATA[1]}
    patched = OneLayer()
    patch_pyg(patched)
    ours, theirs = pyg.to_hetero(patched, METADATA), pyg.to_hetero(OneLayer(), METADATA)
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
            "gcn": pyg.GCNConv(6, 4),
            "sage": pyg.SAGEConv(6, 4),
            "good": pyg.GATConv(6, 4),
        }
    )
    report = patch_pyg(model)
    assert report.swapped == (("good", "GATConv"),)
    reasons = dict(report.left)
    assert set(reasons) == set(model) - {"good"}
    assert reasons["derived"].startswith("GATConv is of the derived class Mine")
    assert reasons["mean"] == "GATConv has aggr='mean'"
    assert reasons["reversed"] == "GATv2Conv has flow='target_to_source'"
    assert reasons["gcn"] == "GCNConv has no counterpart in gat_ext"
    assert "left gcn: GCNConv has no counterpart in gat_ext" in str(report).splitlines()
    assert str(patch_pyg(torch.nn.Linear(2, 2))) == "no attention layers of PyG"


@pytest.mark.parametrize("function", [patch_pyg, unpatch_pyg], ids=lambda f: f.__name__)
def test_what_is_no_model(function):
    data = Data(x=X, edge_index=EDGES)
    for given, what in (
        ("model", "a str"),
        (data, "a Data"),
        (Net, "the class Net"),
        (None, "a NoneType"),
    ):
        with pytest.raises(TypeError, match=f"model is {what}.*{function.__name__} expects a"):
            function(given)


def test_versions_of_pyg():
    check = gat_ext.interop.pyg.check_version
    for supported in ("2.3.0", "2.5.3", "2.8.1", "2.8.0.dev20260101", torch_geometric.__version__):
        check(supported)
    with pytest.raises(ImportError, match=r"PyG 2\.2\.0 is installed; .* needs PyG 2\.3 to 2\.8"):
        check("2.2.0")
    for newer in ("2.9.0", "2.10.1", "3.0.0a1"):
        with pytest.warns(
            UserWarning, match=rf"PyG {newer} is newer than .* tested .*2\.3 to 2\.8"
        ):
            check(newer)


def test_nothing_large_is_imported_unless_needed(tmp_path):
    code = (
        "import sys, gat_ext.interop, gat_ext.nn, gat_ext.models;"
        "known = {'torch._dynamo', 'torch_geometric', 'dgl', 'scipy', 'networkx'};"
        "large = known & set(sys.modules);"
        "assert not large, large"
    )
    env = os.environ | {"PYTHONPATH": str(Path(gat_ext.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=env)


def test_what_is_attached_to_linear_maps_stays():
    """Attributes, an own forward, hooks of checkpoints; maps remain instances of PyG's class."""
    model = Net()
    linear = projection_of(model.first)
    linear.tag, forward, loaded = "mine", linear.forward, []
    linear.forward = lambda x: 2 * forward(x)
    linear.register_load_state_dict_pre_hook(lambda *args: loaded.append(args[2]))
    original = copy.deepcopy(model)
    other = projection_of(original.first)
    other.forward = lambda x: 2 * type(other).forward(other, x)
    patch_pyg(model)
    assert projection_of(model.first) is linear and linear.tag == "mine"
    assert (
        isinstance(linear, pyg.Linear) and linear.in_channels == 6 and "Linear(6, 8" in repr(linear)
    )
    assert_same(original, model, X, EDGES)
    model.load_state_dict(model.state_dict())
    assert set(loaded) <= {"first.lin.", "first.lin_src.", "first.lin_dst."} and loaded


def test_replaced_projections_and_edge_features_of_any_size():
    for before in (True, False):
        layer = pyg.GATConv(6, 4, edge_dim=-1)
        attr = torch.randn(EDGES.shape[1], 3)
        if before:
            layer(X, EDGES, attr)
        original = copy.deepcopy(layer)
        for each in (layer, original):
            each.lin_edge = torch.nn.Sequential(each.lin_edge, torch.nn.Tanh())
        patch_pyg(layer)
        torch.manual_seed(0)
        ours = layer(X, EDGES, attr)
        torch.manual_seed(0)
        assert_close(ours, original(X, EDGES, attr))
