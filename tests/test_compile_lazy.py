"""Layers and models that take sizes from their first call, compiled before it."""

from __future__ import annotations

import pytest
import torch
from layers import Case, full_cases, plain_cases
from torch import nn
from torch.testing import assert_close

from gat_ext import Graph

MODES = {
    "default": {},
    "dynamic": {"dynamic": True},
    "one graph": {"fullgraph": True},
    "one dynamic graph": {"fullgraph": True, "dynamic": True},
}
LAZY = plain_cases("compile", "lazy") + full_cases("compile", "lazy")
NODES, EDGES = torch.randn(20, 5), torch.randint(20, (2, 60))
EDGE_ATTR, GRAPH = torch.randn(60, 3), Graph(EDGES, num_nodes=20)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def lazy_layer(case, in_channels=-1):
    return case.make(in_channels, 4, **({"edge_dim": -1} if case.has_edges else {}))


class Two(nn.Module):
    """A layer after another, of which it takes the size; the second with a projection per end."""

    def __init__(self, case):
        super().__init__()
        self.first, self.second = lazy_layer(case), lazy_layer(case, (-1, -1))

    def forward(self, x, edges, *edge_attr):
        x = self.first(x, edges, *edge_attr).relu()
        return self.second((x, x), edges, *edge_attr)


def modes(*quick):
    """Parametrises a test by these modes, and by the others if it runs slow tests."""
    marks = {mode: () if mode in quick else pytest.mark.slow for mode in MODES}
    return pytest.mark.parametrize("mode", [pytest.param(m, marks=s) for m, s in marks.items()])


@pytest.mark.one_in(5)
@modes("default", "one dynamic graph")
@pytest.mark.parametrize("case", LAZY, ids=str)
def test_a_lazy_layer_compiles_before_its_first_call(case, mode):
    layer, edge_attr = lazy_layer(case), [EDGE_ATTR] if case.has_edges else []
    out = torch.compile(layer, backend="eager", **MODES[mode])(NODES, EDGES, *edge_attr)
    assert not any(nn.parameter.is_lazy(p) for p in layer.parameters())
    assert_close(out, layer(NODES, EDGES, *edge_attr))


@pytest.mark.one_in(5)
@modes("one dynamic graph")
@pytest.mark.parametrize(
    ("case", "edges"),
    [(case, GRAPH if number % 2 else EDGES) for number, case in enumerate(LAZY)],
    ids=lambda value: str(value) if isinstance(value, Case) else type(value).__name__,
)
def test_lazy_layers_of_a_model_compile_before_their_first_call(case, edges, mode):
    if not case.layer.supports("pairs"):
        pytest.skip("has one projection for both ends")
    model, edge_attr = Two(case), [EDGE_ATTR] if case.has_edges else []
    out = torch.compile(model, backend="eager", **MODES[mode])(NODES, edges, *edge_attr)
    assert_close(out, model(NODES, edges, *edge_attr))


@pytest.mark.slow
def test_lazy_layers_compile_to_code():
    model = Two(next(case for case in LAZY if case.has_edges))
    out = torch.compile(model, dynamic=True)(NODES, EDGES, EDGE_ATTR)
    assert_close(out, model(NODES, EDGES, EDGE_ATTR))


@pytest.mark.parametrize("case", LAZY, ids=str)
def test_a_refused_first_call_leaves_a_lazy_layer_as_it_was(case):
    layer = lazy_layer(case)
    lazy = [nn.parameter.is_lazy(p) for p in layer.parameters()]
    with pytest.raises(ValueError, match=r"x.* has shape"):
        layer(NODES[0], EDGES)
    assert any(lazy) and lazy == [nn.parameter.is_lazy(p) for p in layer.parameters()]
