"""The arguments of edge_attention are listed once; docs/architecture.md names the places."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch

from gat_ext import _C, Graph, functional
from gat_ext.functional.options import WithLse, WithWeights, WithWeightsAndLse
from gat_ext.graph.traced import TracedGraph
from gat_ext.ops import arguments
from gat_ext.ops.registry import ops
from gat_ext.testing import sample_inputs

ROOT = Path(__file__).parents[1]

# The files of the binding and of ops that may name an input, and why.
NAMED_IN = {
    "csrc/torch/schema.h",  # the list
    "csrc/torch/edge_attention.h",  # validates the inputs and passes them to the kernels
    "csrc/torch/cpu/edge_attention.cpp",  # scratch memory and passes of the gradients
    "csrc/torch/cuda/edge_attention.cpp",  # the same
    "gat_ext/ops/composed.py",  # the formula in torch's operators
    "gat_ext/ops/scores.py",  # the formulas of the scores
}
# Words that other operators use, too, are not inputs of edge_attention alone.
COMMON = {"value", "query", "key", "bias", "edge_attr"}


def schema(name):
    return getattr(ops, name).default._schema


def names(of):
    return tuple(each.name for each in of)


def test_input_list_schemas_and_records_agree():
    inputs = tuple(_C.input_dims())
    assert inputs == arguments.Inputs._fields
    for name, record in (
        ("edge_attention", arguments.EdgeAttention),
        ("edge_attention_backward", arguments.EdgeAttentionBackward),
    ):
        fields = names(schema(name).arguments)
        assert fields == record._fields
        first = fields.index("value")
        assert fields[first : first + len(inputs) + 1] == (*inputs, "seed")
        assert names(schema(name).returns) == (
            inputs if name.endswith("backward") else arguments.Results._fields
        )


def test_enumerators_are_in_the_order_of_the_names():
    text = (ROOT / "csrc" / "torch" / "schema.h").read_text()
    (enum,) = re.findall(r"enum Input[^{]*{([^}]*)}", text)
    *members, last = re.findall(r"k(\w+)", enum)
    snake = [re.sub(r"(?<!^)([A-Z])", r"_\1", member).lower() for member in members]
    assert (*snake, last) == (*arguments.Inputs._fields, "NumInputs")


def test_constants_are_what_gradients_share():
    assert set(arguments.Constants._fields) < set(arguments.EdgeAttentionBackward._fields)
    assert arguments.Constants._fields[0] == "score"
    assert not set(arguments.Constants._fields) & {"seed", *arguments.Inputs._fields}


def test_dimensions_of_inputs_and_results():
    for name, dims in _C.input_dims().items():
        assert set(dims) <= set("nmEHDFK"), name
        assert dims.count("H") <= 1, name
        assert (name in arguments.SHARED) == ("H" not in dims)
        if "H" in dims:
            assert arguments.HEADS[name] == dims.index("H")
        assert (name in arguments.PER_EDGE) == dims.startswith("E")


def test_public_operator_takes_every_input():
    parameters = inspect.signature(functional.edge_attention).parameters
    assert {*arguments.Inputs._fields, *arguments.Constants._fields} <= set(parameters)


@pytest.mark.parametrize("folder", ["csrc/torch", "gat_ext/ops"])
def test_no_other_file_names_an_input(folder):
    inputs = set(arguments.Inputs._fields) - COMMON
    camel = {"k" + name.title().replace("_", "") for name in inputs}
    pattern = re.compile(rf"\b(grad_)?({'|'.join(sorted(inputs | camel))})\b")
    suffixes = {".h", ".cpp", ".py"}
    files = [p for p in (ROOT / folder).rglob("*") if p.suffix in suffixes]
    assert files
    naming = {str(p.relative_to(ROOT)) for p in files if pattern.search(p.read_text())}
    assert naming == {path for path in NAMED_IN if path.startswith(folder)}


@pytest.mark.parametrize("traced", [False, True])
def test_public_operator_passes_every_argument_in_its_place(traced, monkeypatch):
    """The fast path concatenates groups of arguments; here each is found under its name."""
    edges = torch.tensor([[1, 0, 1], [1, 1, 0]])
    graph = Graph(edges, num_nodes=2)
    given = sample_inputs("additive_v2", graph)["everything"]
    name, record = "edge_attention", arguments.EdgeAttention
    if traced:
        graph = TracedGraph(edges, 2, 2, self_loops=False)
        parts = graph.sorted(for_backward=False)
        monkeypatch.setattr(graph, "sorted", lambda _: parts)
    else:
        parts = graph.rowptr, graph.col, graph.edge_id
    expected = dict(zip(("rowptr", "col", "edge_id"), parts, strict=False))
    calls = []
    original = getattr(ops, name)
    monkeypatch.setattr(ops, name, lambda *a: (calls.append(record(*a)), original(*a))[1])
    results = functional.edge_attention(graph, return_weights=True, return_lse=True, **given)
    monkeypatch.undo()
    (call,) = calls
    defaults = {"negative_slope": 0.2, "scale": 1.0, "return_weights": True, "return_lse": True}
    for field, value in (defaults | given | expected).items():
        found = getattr(call, field)
        assert found is value if isinstance(value, torch.Tensor) else found == value, field
    named = arguments.Results(*original(*call))
    assert all(torch.equal(t, getattr(named, n)) for n, t in results._asdict().items())


def test_no_argument_is_read_by_position():
    """Nothing of ops or functional slices or indexes an argument list."""
    pattern = re.compile(r"\b(args|arguments|inputs|constants|saved|in_dims)\[")
    for room in ("ops", "functional"):
        for path in (ROOT / "gat_ext" / room).glob("*.py"):
            if path.stem in {"edge_attention", "composed", "fallback"} | {
                "func_transforms",
                "arguments",
            }:
                assert not pattern.search(path.read_text()), path


def test_architecture_lists_the_places():
    text = (ROOT / "docs" / "architecture.md").read_text()
    (_, section) = text.split("## One more input of edge_attention\n")
    section = section.split("\n## ")[0]
    for path in NAMED_IN:
        assert f"`{path}`" in section, path


def test_absent_results():
    graph = Graph(torch.tensor([[0, 1], [1, 1]]), num_nodes=2)
    x = torch.ones(2, 1, 3)
    given = arguments.EdgeAttention(
        *(graph.rowptr, graph.col),
        **dict(edge_id=graph.edge_id, value=x, score="dot", edge_in_value=False),
        **dict(negative_slope=0.2, scale=1.0, dropout_p=0.0, top_k=0),
        **dict(return_weights=False, return_lse=False),
    )
    results = arguments.Results(*ops.edge_attention(*given))
    absent = {n for n, t in results._asdict().items() if arguments.is_absent(t)}
    assert absent == {"lse", "out_acc", "selected", "weights"}
    assert arguments.is_absent(arguments.absent(x))
    everything = given._replace(top_k=1, return_weights=True, return_lse=True)
    results = arguments.Results(*ops.edge_attention(*everything))
    assert [n for n, t in results._asdict().items() if arguments.is_absent(t)] == ["out_acc"]


def test_results_have_names():
    graph = Graph(torch.tensor([[0, 1], [1, 1]]), num_nodes=2)
    x = torch.randn(2, 1, 3)

    def attend(**options):
        return functional.edge_attention(graph, x, score="dot", query=x, key=x, **options)

    assert type(attend()) is torch.Tensor
    out, weights = both = attend(return_weights=True)
    assert isinstance(both, WithWeights) and both.out is out and both.weights is weights
    out, lse = both = attend(return_lse=True)
    assert isinstance(both, WithLse) and both.out is out and both.lse is lse
    out, weights, lse = all_of_them = attend(return_weights=True, return_lse=True)
    assert isinstance(all_of_them, WithWeightsAndLse)
    assert all_of_them.out is out
    assert all_of_them.weights is weights and all_of_them.lse is lse
