"""The classes of gat_ext.interop.pyg: built, called, transformed and copied as PyG's."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
import torch_geometric.nn as pyg
from layers import layers_that, over, plain_cases
from pyg_models import (
    CASES,
    EDGES,
    METADATA,
    Net,
    OneLayer,
    X,
    assert_same,
    brief_gnn_explainer,
    explain,
    needs_to_hetero,
)
from torch.testing import assert_close
from torch_geometric.explain import AttentionExplainer, GNNExplainer

from gat_ext import interop, nn
from gat_ext.interop import pyg as ours

NAMES = [name for name in ours.__all__ if name in layers_that("pyg")]


def make(case, library, channels=6):
    kind = getattr(library, case.name)
    return kind(*case.layer.sizes(channels, 4), **case.options)


@over(CASES)
def test_built_and_called_as_pygs(case, calls_of_pyg):
    """For a seed with the same parameters, after which the same random numbers are next."""
    layers, following = [], []
    for library in (ours, pyg):
        torch.manual_seed(0)
        layers.append(make(case, library))
        layers[-1].reset_parameters()
        following.append(torch.rand(3))
    mine, theirs = layers
    assert torch.equal(*following)
    assert [*mine.state_dict()] == [*theirs.state_dict()]
    for one, other in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert isinstance(mine, type(theirs)) and isinstance(mine, getattr(nn, case.name))
    assert repr(mine) == f"{theirs!r} [gat_ext]"
    attr = case.edge_attr(EDGES.shape[1])
    assert_same(theirs, mine, X, EDGES, *attr)
    assert calls_of_pyg == [theirs]


@over([case for case in CASES if case.layer.supports("lazy", "pairs")])
def test_channels_of_the_first_input(case, calls_of_pyg):
    x, attr = (X, torch.ones(12, 3)), case.edge_attr(EDGES.shape[1])
    x = (X, X) if case.options.get("share_weights") else x
    layers, results = [], []
    for library in (ours, pyg):
        torch.manual_seed(0)
        layers.append(make(case, library, (-1, -1)))
        results.append(layers[-1](x, EDGES, *attr))
    assert_close(*results, rtol=1e-4, atol=1e-5)
    mine = dict(layers[0].named_parameters())
    for name, other in layers[1].named_parameters():
        if "lin_skip" not in name or layers[1].root_weight:  # else PyG's has no size
            assert torch.equal(mine[name], other), name
    assert calls_of_pyg == layers[1:]


def test_a_model_moves_by_its_imports_alone():
    torch.manual_seed(0)
    mine = Net(ours)
    torch.manual_seed(0)
    theirs = Net(pyg)
    assert_same(theirs, mine, X, EDGES)
    theirs.load_state_dict(mine.state_dict())
    mine.load_state_dict(theirs.state_dict())
    assert interop.patch_pyg(mine).swapped == ()
    assert interop.unpatch_pyg(mine) == ("first", "more.0", "more.1")
    assert [type(module) for module in mine.modules()] == [type(m) for m in theirs.modules()]


def saved_and_loaded(layer):
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("channels", [6, -1])
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), saved_and_loaded]
)
@pytest.mark.parametrize("name", NAMES)
def test_copies(name, copied, channels, calls_of_pyg):
    layer = getattr(ours, name)(*(() if name == "AGNNConv" else (channels, 4)))
    assert copied(layer)(X, EDGES).shape[0] == 12
    expected = layer(X, EDGES)
    other = copied(layer)
    assert torch.equal(other(X, EDGES), expected) and repr(other) == repr(layer)
    assert not calls_of_pyg


@pytest.mark.one_in(3)
@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_compiled(name, patched, calls_of_pyg):
    layer = getattr(pyg if patched else ours, name)(*(() if name == "AGNNConv" else (6, 4)))
    if patched:
        interop.patch_pyg(layer)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for nodes, edges in ((12, 50), (9, 31)):
        x, edge_index = torch.randn(nodes, 6), torch.randint(nodes, (2, edges))
        assert_close(compiled(x, edge_index), layer(x, edge_index))
    assert not calls_of_pyg


@pytest.mark.one_in(3)
@pytest.mark.parametrize("patched", [False, True])
@over(plain_cases("lazy", "pyg"))
def test_lazy_layers_compile_before_their_first_call(case, patched):
    layer = make(case, pyg if patched else ours, -1).eval()  # PyG samples edges in training
    if patched:
        interop.patch_pyg(layer)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert_close(compiled(X, EDGES), layer(X, EDGES))
    interop.unpatch_pyg(layer)
    assert_close(layer(X, EDGES), compiled(X, EDGES), rtol=1e-4, atol=1e-5)


def test_exported():
    model = Net(ours).eval()
    program = torch.export.export(model, (X, EDGES))
    assert_close(program.module()(X, EDGES), model(X, EDGES))


def hetero_inputs():
    edges = [torch.stack([torch.randint(n, (20,)), torch.randint(m, (20,))]) for n, m in SIZES]
    return {"a": X, "b": X[:5]}, dict(zip(METADATA[1], edges, strict=True))


SIZES = (12, 5), (5, 12)


def hetero_conv(library):
    layers = {
        METADATA[1][0]: library.GATConv((-1, -1), 4, add_self_loops=False),
        METADATA[1][1]: library.TransformerConv((6, 6), 4),
    }
    return pyg.HeteroConv(layers)


MODELS = {
    "Sequential": lambda library: pyg.Sequential(
        "x, edge_index",
        [
            (library.GATConv(6, 4, heads=2), "x, edge_index -> x"),
            torch.nn.ReLU(),
            (library.AGNNConv(), "x, edge_index -> x"),
        ],
    ),
    "HeteroConv": hetero_conv,
    "to_hetero": lambda library: pyg.to_hetero(OneLayer(library, (-1, -1)), METADATA),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=needs_to_hetero if name == "to_hetero" else ()) for name in MODELS],
)
def test_models_of_pyg(name, calls_of_pyg):
    inputs = (X, EDGES) if name == "Sequential" else hetero_inputs()
    mine, theirs = MODELS[name](ours), MODELS[name](pyg)
    for model in (mine, theirs):
        model(*inputs)  # lazy maps take their sizes
    mine.load_state_dict(theirs.state_dict())
    expected = theirs(*inputs)
    calls_of_pyg.clear()
    result = mine(*inputs)
    assert type(result) is type(expected) and not calls_of_pyg
    assert_close(result, expected, rtol=1e-4, atol=1e-5)


class BothKinds(torch.nn.Module):
    """A heterogeneous model's results, added."""

    def __init__(self, library):
        super().__init__()
        self.net = pyg.to_hetero(OneLayer(library), METADATA)

    def forward(self, x, edge_index):
        out = self.net(x, edge_index)
        return out["a"][:5] + out["b"]


@pytest.mark.parametrize("algorithm", [AttentionExplainer, brief_gnn_explainer])
@pytest.mark.parametrize("model", [Net, pytest.param(BothKinds, marks=needs_to_hetero)])
def test_explained(model, algorithm):
    torch.manual_seed(0)
    given = (X, EDGES) if model is Net else hetero_inputs()
    mine, theirs = model(ours).eval(), model(pyg).eval()
    mine.load_state_dict(theirs.state_dict())
    for _ in range(2):
        explanations = [explain(each, algorithm(), 2, *given) for each in (mine, theirs)]
        if model is Net:
            masks = [each.edge_mask for each in explanations]
        else:
            masks = [each[METADATA[1][0]].edge_mask for each in explanations]
        assert masks[1].any()
        assert_close(*masks, rtol=1e-2, atol=1e-3)
        assert_close(mine(*given), theirs(*given))


SETTINGS = [{"aggr": "mean"}, {"aggr": "max"}, {"flow": "target_to_source"}]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_settings_that_only_pyg_has(name, setting):
    """PyG's code computes them, and a warning says so."""
    sizes = () if name == "AGNNConv" else (6, 4)
    with pytest.warns(UserWarning, match=f"{name} has .*, so PyG's own code computes it"):
        layer = getattr(ours, name)(*sizes, **setting)
    theirs = getattr(pyg, name)(*sizes, **setting)
    theirs.load_state_dict(layer.state_dict())
    assert torch.equal(layer(X, EDGES), theirs(X, EDGES))
    assert "[gat_ext]" not in repr(layer)


def doubled(library):
    """A layer that overrides messages, one that overrides forward, and one that is only named."""

    class Message(library.GATConv):
        def message(self, x_j, alpha):
            return 2 * super().message(x_j, alpha)

    class Forward(library.GATConv):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, x, edge_index):
            return 2 * self.scale * super().forward(x, edge_index)

    class Named(Forward):
        pass

    return Message, Forward, Named


@pytest.mark.parametrize("index", range(3), ids=["message", "forward", "named"])
def test_derived_classes(index, calls_of_pyg):
    mine, theirs = (doubled(library)[index](6, 4, heads=2) for library in (ours, pyg))
    theirs.load_state_dict(mine.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(theirs, mine, X, EDGES)
    calls = [mine, theirs] if index == 0 else [theirs]
    assert sorted(map(id, calls_of_pyg)) == sorted(map(id, calls))
    assert ("[gat_ext]" in repr(mine)) == (index > 0)
    copied = copy.deepcopy(mine)
    assert torch.equal(copied(X, EDGES), mine(X, EDGES))
    calls_of_pyg.clear()
    assert explain(mine.eval(), GNNExplainer(epochs=3), 2).edge_mask.any()
    assert bool(calls_of_pyg) == (index == 0)
    assert explain(mine.eval(), AttentionExplainer(), 2).edge_mask.any()
    assert torch.equal(copied.eval()(X, EDGES), mine(X, EDGES))
    report = interop.patch_pyg(mine)
    assert report.swapped == () and len(report.left) == 1
    assert interop.unpatch_pyg(mine) == ()


def test_arguments_are_those_of_pyg():
    with pytest.raises(TypeError, match="out_channels"):
        ours.GATConv(6)


def test_without_pyg(monkeypatch):
    import importlib
    import sys

    for name in ("torch_geometric", "torch_geometric.nn"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "gat_ext.interop.pyg")
    monkeypatch.delattr(interop, "pyg")
    for needed in (
        lambda: importlib.import_module("gat_ext.interop.pyg"),
        lambda: interop.patch_pyg(torch.nn.Linear(2, 2)),
    ):
        with pytest.raises(ImportError, match="needs PyTorch Geometric: pip install"):
            needed()
