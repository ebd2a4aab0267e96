"""ONNX programs, run by onnxruntime on graphs of any size, equal the eager call.

An export takes seconds, whatever it is of; so each program has the results of many layers.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
from layers import LAYERS, all_cases, full_cases
from torch.testing import assert_close

from gat_ext import Graph, export, functional, models, nn

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SIZES = [(10, 30), (7, 300), (50, 9), (5, 0), (1, 3)]  # nodes and edges; isolated nodes and loops


def edges_of(num_src, num_edges, num_dst=None):
    dst = torch.randint(num_src if num_dst is None else num_dst, (num_edges,))
    return torch.stack([torch.randint(num_src, (num_edges,)), dst])


class Together(torch.nn.Module):
    """The results of several functions or modules of the same arguments, by name."""

    def __init__(self, **parts):
        super().__init__()
        self.parts = parts
        self.modules_of_parts = torch.nn.ModuleList(
            part for part in parts.values() if isinstance(part, torch.nn.Module)
        )

    def forward(self, *given):
        return {name: part(*given) for name, part in self.parts.items()}


def inputs_of(session, given):
    names = [each.name for each in session.get_inputs()]
    tensors = torch.utils._pytree.tree_leaves(given)
    return {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}


def compare(program, module, given, tolerance=1e-5):
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for each in given:
        found = iter(session.run(None, inputs_of(session, each)))
        with torch.no_grad():
            expected = module(*each)
        for name, part in expected.items():
            for wanted in torch.utils._pytree.tree_leaves(part):
                ours = torch.from_numpy(next(found))
                shapes = [list(tensor.shape) for tensor in torch.utils._pytree.tree_leaves(each)]
                assert_close(
                    *(ours, wanted),
                    atol=tolerance,
                    rtol=tolerance,
                    msg=lambda text, name=name, shapes=shapes: f"{name}, of {shapes}: {text}",
                )
        assert next(found, None) is None


def check(module, make, sizes, dynamic_shapes=None, tolerance=1e-5):
    """Exports a module at the first size, and compares its results at all sizes."""
    given = [make(*size) for size in sizes]
    program = export.to_onnx(module.eval(), given[0], dynamic_shapes=dynamic_shapes)
    operators = {node.domain for node in program.model.graph}
    assert operators == {""}, operators
    # onnxruntime adds to one row from several threads there.
    scatters = [node for node in program.model.graph if node.op_type == "ScatterND"]
    assert not any("reduction" in node.attributes for node in scatters)
    compare(program, module, given, tolerance)


# ---- layers


class Called(torch.nn.Module):
    """A layer of the table, called with those of all inputs that it takes."""

    def __init__(self, case):
        super().__init__()
        self.case, self.layer = case, case.make()

    def forward(self, x, edge_index, edge_attr, node_type, edge_type):
        types = zip((node_type, edge_type), self.case.layer.types, strict=True)
        more = [given for given, count in types if count]
        return self.layer(x, edge_index, *more, *([edge_attr] if self.case.has_edges else []))


def of_layers(num_nodes, num_edges):
    x, edges = torch.randn(num_nodes, 5), edges_of(num_nodes, num_edges)
    types = torch.randint(2, (num_nodes,)), torch.randint(3, (num_edges,))
    return x, edges, torch.randn(num_edges, 3), *types


def check_layers(cases):
    check(Together(**{str(case): Called(case) for case in cases}), of_layers, SIZES)


FULL = full_cases(typed=True)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("part", range(3))
def test_layers(part):
    """Every layer, with all its options."""
    assert [case.name for case in FULL] == list(LAYERS)
    check_layers(FULL[part::3])


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_variants_of_layers(name):
    check_layers([case for case in all_cases(typed=True) if case.name == name])


class Masked(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, edge_index, weight):
        out, (edges, alpha) = self.layer(
            x, edge_index, edge_weight=weight, return_attention_weights=True
        )
        return out, edges, alpha


@pytest.mark.slow
def test_masks_and_weights():
    module = Together(
        additive=Masked(nn.GATConv(5, 4, heads=2)),
        dot=Masked(nn.TransformerConv(5, 4)),
    )

    def make(num_nodes, num_edges):
        given = edges_of(num_nodes, num_edges).int(), torch.rand(num_edges)
        return torch.randn(num_nodes, 5), *given

    check(module, make, SIZES)


class OfPair(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x_src, x_dst, edge_index, batch):
        return self.layer((x_src, x_dst), edge_index)


class OfBatch(OfPair):
    def forward(self, x_src, x_dst, edge_index, batch):
        return self.layer(batch, edge_index)


@pytest.mark.slow
def test_pairs_and_batches():
    module = Together(
        gat=OfPair(nn.GATConv((5, 3), 4, heads=2)),
        gatv2=OfPair(nn.GATv2Conv((5, 3), 4)),
        transformer=OfPair(nn.TransformerConv((5, 3), 4)),
        batch=OfBatch(nn.GATConv(5, 4, add_self_loops=False)),
    )

    def make(num_src, num_dst, num_edges, size):
        ends = torch.randn(num_src, 5), torch.randn(num_dst, 3)
        edges = edges_of(num_src, num_edges, min(num_src, num_dst))
        return *ends, edges, torch.randn(size, num_src, 5)

    dim = torch.export.Dim.DYNAMIC
    shapes = {"given": ({0: dim}, {0: dim}, {1: dim}, {0: dim, 1: dim})}
    check(module, make, [(10, 6, 30, 2), (6, 9, 31, 3), (4, 5, 0, 2)], shapes)


# ---- models


class OfNodes(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, edge_index, edge_attr, node_ptr):
        return self.model(x, edge_index)


class OfGraphs(OfNodes):
    def forward(self, x, edge_index, edge_attr, node_ptr):
        return self.model(x, edge_index, node_ptr=node_ptr, edge_attr=edge_attr)


def of_graphs(num_nodes, num_edges, num_graphs):
    inner = torch.randint(num_nodes + 1, (num_graphs - 1,)).sort().values
    ends = torch.tensor([0]), inner, torch.tensor([num_nodes])
    given = torch.randn(num_edges, 2), torch.cat(ends)
    return torch.randn(num_nodes, 5), edges_of(num_nodes, num_edges), *given


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kinds", [("GAT", "GraphTransformer"), ("GATv2", "AGNN")])
def test_models(kinds):
    module = Together(**{kind: OfNodes(getattr(models, kind)(5, 8, 3)) for kind in kinds})
    check(module, of_graphs, [(10, 30, 3), (50, 9, 1), (5, 0, 2)])


@pytest.mark.slow
def test_pooled_models():
    """Also graphs without nodes."""
    module = Together(
        **{
            pooling: OfGraphs(
                models.PooledModel.preset(
                    *(models.GATv2, 5, 2),
                    **{"pooling": pooling, "num_layers": 2, "hidden_channels": 4, "edge_dim": 2},
                )
            )
            for pooling in models.pooled.POOLINGS
        },
        max=lambda x, edge_index, edge_attr, node_ptr: nn.Pool("max")(x, node_ptr=node_ptr),
    )
    check(module, of_graphs, [(10, 30, 3), (12, 50, 40), (50, 9, 1), (5, 0, 2)])


def test_float16():
    """Of which onnxruntime has no ScatterElements that reduces."""
    module = Together(
        gat=Called(next(case for case in FULL if case.name == "GATConv")),
        softmax=lambda x, edge_index, *_: functional.edge_softmax(
            Graph(edge_index, num_nodes=x.shape[0]), x[edge_index[0]]
        ),
    ).half()

    def make(num_nodes, num_edges):
        x, edge_index, edge_attr, *types = of_layers(num_nodes, num_edges)
        return x.half(), edge_index, edge_attr.half(), *types

    check(module, make, [(10, 30), (50, 90), (1, 0)], tolerance=5e-3)


@pytest.mark.slow
def test_float64():
    """Of which onnxruntime has no LeakyRelu and no Elu."""
    module = Together(
        gat=OfNodes(models.GAT(5, 8, 3)),
        gatv2=OfNodes(models.GATv2(5, 8, 3)),
        supergat=OfNodes(nn.SuperGATConv(5, 4, heads=2)),
    ).double()

    def make(num_nodes, num_edges):
        x, *given = of_graphs(num_nodes, num_edges, 2)
        return x.double(), *given

    check(module, make, [(10, 30), (50, 300), (1, 0)])


RELATIONS = [("a", "writes", "p"), ("p", "by", "a"), ("p", "cites", "p")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [models.HGT, models.HAN])
def test_typed_models(kind, tmp_path):
    model = kind({"a": 5, "p": 3}, 8, 3, (["a", "p"], RELATIONS), "p").eval()

    def make(authors, papers, num_edges):
        sizes = {"a": authors, "p": papers}
        edges = {r: edges_of(sizes[r[0]], num_edges, sizes[r[2]]) for r in RELATIONS}
        return {"a": torch.randn(authors, 5), "p": torch.randn(papers, 3)}, edges

    export.to_onnx(model, make(10, 12, 30), tmp_path / "typed.onnx")
    for size in [(10, 12, 30), (4, 9, 20), (5, 3, 0)]:
        assert export.largest_difference(tmp_path / "typed.onnx", model, make(*size)) < 1e-5


# ---- operators


def test_operators():
    """On a Graph that the program builds, or one that is part of it."""
    fixed = Graph(edges_of(9, 40), num_nodes=9)

    def built(function):
        return lambda x, edge_index, of_fixed: function(Graph(edge_index, num_nodes=x.shape[0]), x)

    def constant(function):
        return lambda x, edge_index, of_fixed: function(fixed, of_fixed)

    functions = {
        "top_k": lambda graph, x: functional.dot_attention(graph, x, x, x, top_k=2),
        "softmax": lambda graph, x: functional.edge_softmax(graph, functional.sddmm(graph, x, x)),
        "by_src": lambda graph, x: functional.edge_softmax(
            graph, functional.sddmm(graph, x, x), by="src"
        ),
        "mean": lambda graph, x: functional.spmm(graph, x, reduce="mean"),
        "min": lambda graph, x: functional.spmm(graph, x, reduce="min"),
        "weighted": lambda graph, x: functional.spmm(graph, x, functional.sddmm(graph, x, x)),
    }
    module = Together(
        **{name: built(function) for name, function in functions.items()},
        **{f"{name}_of_constant": constant(functions[name]) for name in ("top_k", "weighted")},
    )

    def make(num_nodes, num_edges):
        of_fixed = torch.randn(9, 2, 4)
        return torch.randn(num_nodes, 2, 4), edges_of(num_nodes, num_edges), of_fixed

    dim = torch.export.Dim.DYNAMIC
    check(module, make, SIZES, {"given": ({0: dim}, {1: dim}, None)})


# ---- other ways to export, and what is refused

GIVEN = torch.randn(10, 5), edges_of(10, 30)


def test_the_exporter_of_torch():
    """``torch.onnx.export`` itself needs no table of translations."""
    pyg = pytest.importorskip("gat_ext.interop.pyg")
    module = Together(ours=nn.GATConv(5, 4, heads=2), pyg=pyg.TransformerConv(5, 4)).eval()
    dim = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        module, GIVEN, dynamo=True, dynamic_shapes={"given": ({0: dim}, {1: dim})}, verbose=False
    )
    compare(program, module, [GIVEN, (torch.randn(6, 5), edges_of(6, 0))])


def test_programs_of_torch_have_the_native_operators():
    """Before and after an export to ONNX, even one that fails."""

    def targets():
        program = export.to_program(nn.GATConv(5, 4).eval(), GIVEN)
        return {str(node.target) for node in program.graph.nodes}

    with pytest.raises(TypeError):
        export.to_onnx(nn.GATConv(5, 4).eval(), (torch.randn(10, 5), torch.randn(2, 30)))
    assert {"gat_ext.adjacency_csr.default", "gat_ext.edge_attention.default"} <= targets()


def test_dropout_is_refused():
    layer = nn.GATConv(5, 4, dropout=0.5)
    with pytest.raises(ValueError, match=r"model is a GATConv in training mode.*model\.eval"):
        export.to_onnx(layer, GIVEN)
    attend = Together(
        x=lambda x, edge_index: functional.dot_attention(
            Graph(edge_index, num_nodes=10), *(x.unsqueeze(1) for _ in range(3)), dropout_p=0.5
        )
    )
    with pytest.raises(NotImplementedError, match=r"dropout of attention with p=0\.5 .*ONNX"):
        export.to_onnx(attend.eval(), GIVEN)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (models.GAM(3, 2), TypeError, "model is a GAM, whose agents draw"),
        (torch.nn.Sequential(models.AttentionWalk(5)), TypeError, r"model\.0 is a AttentionWalk"),
        (nn.Reordered(nn.GATConv(5, 4), "rcm"), ValueError, r"export model\.module"),
        ("gat", TypeError, "model is a str; expected a torch.nn.Module"),
    ],
)
def test_models_that_cannot_be_exported(model, error, message):
    model = model.eval() if isinstance(model, torch.nn.Module) else model
    for form in (export.to_onnx, export.to_program):
        with pytest.raises(error, match=message):
            form(model, GIVEN)


def test_arguments_that_cannot_be_exported():
    layer = nn.GATConv(5, 4).eval()
    one = GIVEN[0], edges_of(10, 1)
    with pytest.raises(ValueError, match=r"edge_index has shape \[2, 1\]; expected an example"):
        export.to_onnx(layer, one)
    with pytest.raises(ValueError, match=r"x_dict\['a'\] has shape \[1, 5\]"):
        export.to_onnx(
            models.HGT({"a": 5}, 8, 3, (["a"], [("a", "to", "a")]), "a").eval(),
            ({"a": torch.randn(1, 5)}, {("a", "to", "a"): GIVEN[1]}),
        )
    with pytest.raises(TypeError, match=r"torch\.export .* a Graph.* pass its edge_index"):
        export.to_onnx(layer, (GIVEN[0], Graph(GIVEN[1], num_nodes=10)))
    with pytest.raises(TypeError, match="missing a required argument: 'edge_index'"):
        export.to_onnx(layer, GIVEN[:1])


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package(missing, monkeypatch, tmp_path):
    real, layer = importlib.util.find_spec, nn.GATConv(5, 4).eval()

    def find(name, *more):
        return None if name == missing else real(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(ImportError, match=rf"{missing}, .*pip install 'gat_ext\[onnx\]'"):
        if missing == "onnxruntime":
            export.largest_difference(tmp_path / "layer.onnx", layer, GIVEN)
        else:
            export.to_onnx(layer, GIVEN)


def test_largest_difference(tmp_path):
    path, layer, other = tmp_path / "layer.pt2", nn.GATConv(5, 4).eval(), nn.GATConv(5, 4).eval()
    export.to_program(layer, GIVEN, path)
    given = torch.randn(40, 5), edges_of(40, 90)
    assert export.largest_difference(path, layer, given) < 1e-6
    x, edge_index = given
    call = {"edge_index": edge_index, "x": x}  # not in the order of the signature
    assert export.largest_difference(path, layer, (), call) < 1e-6
    expected = (layer(*given) - other(*given)).abs().max().item()
    assert export.largest_difference(path, other, given) == pytest.approx(expected, rel=1e-4)
    with torch.no_grad():
        other.bias[0] = torch.nan
    assert export.largest_difference(path, other, given) == float("inf")
    with pytest.raises(ValueError, match=r"shapes \[\[40, 4\]\]; expected .* \[\[40, 6\]\]"):
        export.largest_difference(path, nn.GATConv(5, 6).eval(), given)
