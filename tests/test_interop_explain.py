"""PyG's explainers, and gat_ext's own, on models whose layers run on the kernels here."""

from __future__ import annotations

import copy
import inspect
import io

import pytest
import torch
import torch_geometric.nn as pyg
from pyg_models import (
    EDGES,
    METADATA,
    Net,
    OneLayer,
    X,
    brief_gnn_explainer,
    explain,
    needs_to_hetero,
)
from torch.testing import assert_close
from torch_geometric.explain import AttentionExplainer, GNNExplainer

from gat_ext.explain import record_attention
from gat_ext.interop import patch_pyg


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
    ours, theirs = (explain(m, GNNExplainer(epochs=20), index=3) for m in (model, original))
    assert_close(ours.edge_mask, theirs.edge_mask, rtol=1e-2, atol=1e-3)
    assert_close(ours.node_mask, theirs.node_mask, rtol=1e-2, atol=1e-3)
    assert len(ours.edge_mask.unique()) > 5
    assert_close(model(X, EDGES), original(X, EDGES))


class BothKinds(torch.nn.Module):
    """A heterogeneous model's results, added."""

    def __init__(self):
        super().__init__()
        self.net = pyg.to_hetero(OneLayer(), METADATA)

    def forward(self, x, edge_index):
        out = self.net(x, edge_index)
        return out["a"][:5] + out["b"]


@needs_to_hetero
@pytest.mark.parametrize("algorithm", [AttentionExplainer, brief_gnn_explainer])
def test_explained_heterogeneous_models(algorithm):
    x = {"a": X, "b": X[:5]}
    edges = {kind: torch.randint(5, (2, 20)) for kind in METADATA[1]}
    model = BothKinds().eval()
    original = copy.deepcopy(model)
    patch_pyg(model)
    ours, theirs = (explain(m, algorithm(), 2, x, edges) for m in (model, original))
    assert theirs[METADATA[1][0]].edge_mask.any()
    for kind in METADATA[1]:
        assert_close(ours[kind].edge_mask, theirs[kind].edge_mask, rtol=1e-2, atol=1e-3)


def test_graph_mask_explainer():
    """It gives layers an explain_message of its own, that the kernels know nothing of."""
    graph_mask = pytest.importorskip("torch_geometric.explain.algorithm.graphmask_explainer")
    model = torch.nn.Sequential(pyg.GATConv(6, 4))
    model.forward = lambda x, edge_index: model[0](x, edge_index)
    model = model.eval()
    original = copy.deepcopy(model)
    original.forward = lambda x, edge_index: original[0](x, edge_index)
    patch_pyg(model)
    copy.deepcopy(model)
    algorithm = graph_mask.GraphMaskExplainer(1, epochs=2, log=False)
    try:
        theirs = explain(original, algorithm)
    except AttributeError as error:
        pytest.skip(f"PyG's own fails: {error}")
    ours = explain(model, graph_mask.GraphMaskExplainer(1, epochs=2, log=False))
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
