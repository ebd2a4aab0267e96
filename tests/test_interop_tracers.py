"""PyG's to_hetero with the layers of gat_ext.nn; TorchScript of patched models."""

from __future__ import annotations

import copy

import pytest
import torch
import torch_geometric.nn as pyg
from layers import over, plain_cases
from pyg_models import EDGES, METADATA, Net, X, needs_to_hetero

from gat_ext import models, nn
from gat_ext.interop import patch_pyg, unpatch_pyg
from gat_ext.interop import pyg as interop_pyg


class Around(torch.nn.Module):
    def __init__(self, layer, by_name=False):
        super().__init__()
        self.layers, self.lin = torch.nn.ModuleList([layer]), torch.nn.LazyLinear(4)
        self.by_name = by_name

    def forward(self, x, edge_index):
        if self.by_name:
            return self.layers[0](x=x, edge_index=edge_index)
        return self.lin(x) + self.layers[0](x, edge_index)


@needs_to_hetero
@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize(
    "transform",
    [pyg.to_hetero, lambda module, metadata: pyg.to_hetero_with_bases(module, metadata, 2)],
    ids=["to_hetero", "to_hetero_with_bases"],
)
@over(plain_cases("pyg"))
def test_layers_that_to_hetero_does_not_know(case, transform, by_name):
    message = rf"{case.name} of gat_ext\.nn.* import {case.name} from gat_ext\.interop\.pyg"
    layer = case.make(6)
    with pytest.raises(TypeError, match=message):
        transform(Around(layer, by_name), METADATA)
    layer(X, EDGES)


@needs_to_hetero
@pytest.mark.parametrize("make", [lambda: nn.GATConv(6, 4), lambda: models.GAT(6, 4, 3)])
def test_to_hetero_of_a_layer_or_a_model(make):
    with pytest.raises(TypeError, match=r"gat_ext\.interop\.pyg"):
        pyg.to_hetero(make(), METADATA)


SCRIPTED = {
    "trace": lambda module, tmp_path: torch.jit.trace(module, (X, EDGES)),
    "script": lambda module, tmp_path: torch.jit.script(module),
    "onnx": lambda module, tmp_path: torch.onnx.export(
        module, (X, EDGES), str(tmp_path / "model.onnx"), dynamo=False
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", SCRIPTED)
@pytest.mark.parametrize("patched", [False, True])
def test_torchscript(patched, how, tmp_path):
    model = (Net() if patched else Net(interop_pyg)).eval()
    if patched:
        patch_pyg(model)
    for module in (model, model.first):
        with pytest.raises(NotImplementedError, match=r"TorchScript .*GATConv.* unpatch_pyg"):
            SCRIPTED[how](module, tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_once_unpatched():
    model = Net().eval()
    original = copy.deepcopy(model)
    patch_pyg(model)
    unpatch_pyg(model)
    traced = torch.jit.trace(model, (X, EDGES))
    assert torch.equal(traced(X, EDGES), original(X, EDGES))
