"""Tracers that cannot run the layers get one sentence that says so, and what to use instead."""

from __future__ import annotations

import pytest
import torch
from layers import over, plain_cases

from gat_ext import Graph, models, nn

X, EDGES = torch.randn(9, 5), torch.randint(9, (2, 30))
GIVEN = (X, EDGES)


class Around(torch.nn.Module):
    """A layer among others."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.lin = layer, torch.nn.LazyLinear(4)

    def forward(self, x, edge_index):
        return self.lin(self.layer(x, edge_index).relu())


SCRIPTED = {
    "trace": lambda module, tmp_path: torch.jit.trace(module, GIVEN),
    "script": lambda module, tmp_path: torch.jit.script(module),
    "onnx": lambda module, tmp_path: torch.onnx.export(
        module, GIVEN, str(tmp_path / "model.onnx"), dynamo=False
    ),
}


def built(case, around):
    layer = case.make()
    module = Around(layer).eval() if around else layer
    module(*GIVEN)
    return module


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("how", SCRIPTED)
@over(plain_cases())
def test_torchscript(case, how, around, tmp_path):
    with pytest.raises(
        NotImplementedError,
        match=rf"TorchScript .* not supported by {case.name} of (gat_ext\.nn|(called_)?layers);"
        r".*torch\.export.*ONNX",
    ):
        SCRIPTED[how](built(case, around), tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", SCRIPTED)
@pytest.mark.parametrize("kind", ["GAT", "GATv2", "AGNN", "GraphTransformer"])
def test_torchscript_of_models(kind, how, tmp_path):
    model = getattr(models, kind)(5, 8, 3).eval()
    with pytest.raises(
        NotImplementedError, match=r"TorchScript .* not supported by .*torch\.export"
    ):
        SCRIPTED[how](model, tmp_path)


@pytest.mark.parametrize("around", [False, True])
@over(plain_cases())
def test_symbolic_traces(case, around):
    with pytest.raises(TypeError, match=rf"torch\.fx cannot trace {case.name} of .*torch\.export"):
        torch.fx.symbolic_trace(built(case, around))


@over(plain_cases())
def test_a_symbolic_tracer_may_keep_a_layer_whole(case):
    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, module, name):
            return isinstance(module, nn.tracers.TracedModule) or super().is_leaf_module(
                module, name
            )

    module = built(case, True)
    traced = torch.fx.GraphModule(module, Tracer().trace(module))
    assert torch.equal(traced(*GIVEN), module(*GIVEN))


@pytest.mark.one_in(5)
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("around", [False, True])
@over(plain_cases())
def test_an_export_of_a_graph(case, around, strict):
    module = built(case, around)
    with pytest.raises(TypeError, match=r"torch\.export .* a Graph.* pass its edge_index"):
        torch.export.export(module, (X, Graph(EDGES, num_nodes=9)), strict=strict)


def test_a_graph_among_the_arguments_of_a_transform():
    """It is the same object inside, with what it has cached."""
    graph, seen = Graph(EDGES, num_nodes=9), []
    layer = nn.GATConv(5, 4)

    def run(x, given):
        seen.append(given)
        return layer(x, given).sum()

    for transformed in (
        torch.func.vmap(run, in_dims=(0, None)),
        lambda x, given: torch.func.vmap(torch.func.grad(run), in_dims=(0, None))(x, given),
    ):
        transformed(torch.randn(3, 9, 5), graph)
    assert all(given is graph for given in seen) and len(seen) == 2


def test_layers_compiled_one_by_one():
    """Each class has a limit of recompilations of its own."""
    torch._dynamo.reset()
    for _ in range(5):
        for case in plain_cases("compile"):
            layer = case.make()
            compiled = torch.compile(layer, backend="eager", fullgraph=True)
            torch.testing.assert_close(compiled(*GIVEN), layer(*GIVEN))


def test_a_call_of_a_derived_class():
    class Called(nn.GATConv):
        def __call__(self, *args, **kwargs):
            return 2 * super().__call__(*args, **kwargs)

    class Named(Called):
        pass

    layer, plain = Named(5, 4), nn.GATConv(5, 4)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(*GIVEN), 2 * plain(*GIVEN))
