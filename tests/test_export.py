"""torch.export, AOTInductor and make_fx: programs for graphs of any size equal the eager call."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from gat_ext import models, nn

SIZES = [
    (10, 30),
    (12, 50),
    (40, 70),
    (7, 300),
    (5000, 9),
]  # nodes and edges, self-loops among them
MODELS = {
    "GAT": lambda: models.GAT(5, 8, 3),
    "GATv2": lambda: models.GATv2(5, 8, 3),
    "AGNN": lambda: models.AGNN(5, 8, 3),
    "GraphTransformer": lambda: models.GraphTransformer(5, 8, 3),
}


def edges_of(num_nodes, num_edges, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num_nodes, (2, num_edges), generator=generator)


@pytest.mark.parametrize(("name", "strict"), [*((name, False) for name in MODELS), ("GAT", True)])
def test_export(name, strict):
    model = MODELS[name]().eval()
    nodes, edges = torch.export.Dim("nodes"), torch.export.Dim("edges")
    program = torch.export.export(
        model,
        (torch.randn(10, 5), edges_of(10, 30)),
        dynamic_shapes=({0: nodes}, {1: edges}),
        strict=strict,
    )
    exported = program.module()
    for num_nodes, num_edges in SIZES:
        x, edge_index = torch.randn(num_nodes, 5), edges_of(num_nodes, num_edges)
        assert_close(exported(x, edge_index), model(x, edge_index))


@pytest.mark.slow  # CI builds and runs examples/cpp, which is compiled in the same way
def test_aot_inductor(tmp_path):
    model = models.GAT(5, 8, 3).eval()
    nodes, edges = torch.export.Dim("nodes"), torch.export.Dim("edges")
    given = torch.randn(10, 5), edges_of(10, 30)
    with torch.no_grad():
        program = torch.export.export(model, given, dynamic_shapes=({0: nodes}, {1: edges}))
        package = str(tmp_path / "gat.pt2")
        loaded = torch._inductor.aoti_load_package(
            torch._inductor.aoti_compile_and_package(
                program,
                package_path=package,
                inductor_configs={"aot_inductor.compile_wrapper_opt_level": "O0"},
            )
        )
        for num_nodes, num_edges in SIZES:
            x, edge_index = torch.randn(num_nodes, 5), edges_of(num_nodes, num_edges)
            assert_close(loaded(x, edge_index), model(x, edge_index))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(mode):
    layer = nn.GATConv(5, 4, heads=2)
    parameters = dict(layer.named_parameters())

    def run(parameters, x, edge_index):
        return torch.func.functional_call(layer, parameters, (x, edge_index))

    given = parameters, torch.randn(10, 5), edges_of(10, 30)
    traced = make_fx(run, tracing_mode=mode)(*given)
    assert any("adjacency_csr" in str(node.target) for node in traced.graph.nodes)
    x = torch.randn(10, 5)
    assert_close(traced(parameters, x, given[2]), run(parameters, x, given[2]))


@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_make_fx_of_second_derivatives(mode):
    layer = nn.GATConv(5, 4, heads=2).double()
    parameters = dict(layer.named_parameters())

    def penalty(parameters, x, edge_index):
        out = torch.func.functional_call(layer, parameters, (x, edge_index))
        (gradient,) = torch.autograd.grad(out.pow(2).sum(), x, create_graph=True)
        wanted = [x, parameters["lin.weight"], parameters["att_src"]]
        return torch.autograd.grad(gradient.pow(2).sum(), wanted)

    x = torch.randn(10, 5, dtype=torch.float64, requires_grad=True)
    given = parameters, x, edges_of(10, 30)
    assert_close(make_fx(penalty, tracing_mode=mode)(*given)(*given), penalty(*given))
