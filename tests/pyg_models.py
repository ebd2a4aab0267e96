"""Models of PyG's layers for tests of gat_ext.interop on every supported version of PyG."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import torch
import torch_geometric
import torch_geometric.nn as pyg
from layers import all_cases
from torch.testing import assert_close
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer

VERSION = tuple(map(int, torch_geometric.__version__.split(".")[:2]))
EDGES = torch.randint(12, (2, 50), generator=torch.Generator().manual_seed(0))
X = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))
METADATA = (["a", "b"], [("a", "to", "b"), ("b", "back", "a")])


def has_options(case):
    """True if the installed PyG's layer has all options of a case; residual came with 2.6."""
    return set(case.options) <= set(inspect.signature(getattr(pyg, case.name)).parameters)


CASES = [case for case in all_cases("pyg") if has_options(case)]
THEIRS = {str(case): partial(case.make_pyg, 6) for case in CASES if not case.has_edges} | {
    "GATConv pair": lambda: pyg.GATConv((6, 6), 4, heads=2),
    "GATConv lazy": lambda: pyg.GATConv(-1, 4, heads=2),
}


class Net(torch.nn.Module):
    """Three layers, the last two in a list, one of them used twice."""

    def __init__(self, library=pyg):
        super().__init__()
        self.first = library.GATConv(6, 4, heads=2)
        self.more = torch.nn.ModuleList([library.GATv2Conv(8, 8), library.TransformerConv(8, 3)])

    def forward(self, x, edge_index):
        x = self.first(x, edge_index).relu()
        x = self.more[0](self.more[0](x, edge_index), edge_index)
        return self.more[1](x, edge_index)


class OneLayer(torch.nn.Module):
    def __init__(self, library=pyg, channels=(6, 6)):
        super().__init__()
        self.conv = library.GATv2Conv(channels, 4, add_self_loops=False)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


def projection_of(layer):
    """GATConv's map of both ends of an edge, whose name changed in PyG 2.5."""
    return layer.lin_src if VERSION < (2, 5) else layer.lin


def _to_hetero_runs():
    try:
        pyg.to_hetero(OneLayer(), METADATA)
    except AttributeError:
        return False
    return True


needs_to_hetero = pytest.mark.skipif(
    not _to_hetero_runs(),
    reason=f"to_hetero of PyG {torch_geometric.__version__} fails under torch {torch.__version__}",
)


def loss_and_gradients(model, *inputs):
    x = inputs[0].clone().requires_grad_()
    out = model(x, *inputs[1:])
    wanted = [x, *model.parameters()]
    return out, torch.autograd.grad(out.square().sum(), wanted, allow_unused=True)


def assert_same(model, patched, *inputs):
    """Values and gradients agree."""
    ours, our_gradients = loss_and_gradients(patched, *inputs)
    theirs, their_gradients = loss_and_gradients(model, *inputs)
    assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for mine, other in zip(our_gradients, their_gradients, strict=True):
        if other is not None:
            assert_close(mine, other, rtol=1e-3, atol=1e-4)


def brief_gnn_explainer():
    return GNNExplainer(epochs=5)


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
