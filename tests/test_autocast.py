"""Under autocast, dtypes are those of PyG's layers, for every graph size, mode and feature form."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
import torch_geometric.nn as pyg
from torch.nn import functional as F
from torch.testing import assert_close

from gat_ext import nn
from gat_ext.nn.features import SparseFeatures
from gat_ext.ops import linear_maps

HALVES = [torch.bfloat16, torch.float16]
WIDTH, EDGE_DIM = 256, 3
# Results with at least 1 << 18 elements come from the package's own dense operators.
BELOW, ABOVE = (1 << 18) // WIDTH - 1, (1 << 18) // WIDTH


def _options() -> Iterator[tuple[str, dict[str, object]]]:
    yes_no = (True, False)
    for name, bias, concat, residual in itertools.product(
        ("GATConv", "GATv2Conv"), yes_no, yes_no, yes_no
    ):
        yield name, {"bias": bias, "concat": concat, "residual": residual}
    for bias, concat, beta, root in itertools.product(yes_no, yes_no, yes_no, yes_no):
        options = {"bias": bias, "concat": concat, "beta": beta, "root_weight": root}
        yield "TransformerConv", options
    for name in ("GATConv", "GATv2Conv", "TransformerConv"):
        yield name, {"edge_dim": EDGE_DIM}
    yield "AGNNConv", {}
    yield "AGNNConv", {"requires_grad": False}


SOME = [
    ("GATConv", {}),
    ("GATConv", {"bias": False}),
    ("GATv2Conv", {}),
    ("GATv2Conv", {"bias": False, "residual": True}),
    ("TransformerConv", {}),
    ("TransformerConv", {"beta": True}),
    ("AGNNConv", {}),
]
FEW = 9
CASES = [*((FEW, *case) for case in _options())]
CASES += [(num_nodes, *case) for num_nodes in (BELOW, ABOVE) for case in SOME]


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


@pytest.fixture
def determinism():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def layers(name, options):
    """Our layer and PyG's, with the same parameters and WIDTH output channels."""
    heads = 2 if options.get("concat", True) else 1
    sizes = {} if name == "AGNNConv" else {"out_channels": WIDTH // heads, "heads": heads}
    sizes |= {} if name == "AGNNConv" else {"in_channels": 8}
    theirs = getattr(pyg, name)(**sizes, **options)
    ours = getattr(nn, name)(**sizes, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def inputs(name, options, num_nodes):
    """x, edge_index and the layer's other inputs."""
    x = torch.randn(num_nodes, WIDTH if name == "AGNNConv" else 8)
    edge_index = torch.randint(num_nodes, (2, 2 * num_nodes))
    more = {"edge_attr": torch.randn(2 * num_nodes, EDGE_DIM)} if "edge_dim" in options else {}
    return x, edge_index, more


def dtypes_of_pyg(layer, dtype, x, edge_index, more):
    """Dtypes of the result and of the weights: the result's if PyG's layer returns no weights."""
    with torch.autocast("cpu", dtype):
        if isinstance(layer, pyg.AGNNConv):
            return (layer(x, edge_index).dtype,) * 2
        out, (_, weights) = layer(x, edge_index, **more, return_attention_weights=True)
    return out.dtype, weights.dtype


def assert_as_pyg(ours, theirs, dtype, call, x, edge_index, more):
    expected = dtypes_of_pyg(theirs, dtype, x, edge_index, more)
    with torch.autocast("cpu", dtype):
        alone = call(ours)
        out, (_, weights) = call(ours, return_attention_weights=True)
    assert (alone.dtype, out.dtype, weights.dtype) == (expected[0], *expected)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("num_nodes", "name", "options"), CASES, ids=str)
def test_dtypes_and_values_are_those_of_pyg(num_nodes, name, options, dtype):
    ours, theirs = layers(name, options)
    x, edge_index, more = inputs(name, options, num_nodes)
    x.requires_grad_()
    with torch.autocast("cpu", dtype):
        out, expected = ours(x, edge_index, **more), theirs(x, edge_index, **more)
    assert out.dtype == expected.dtype
    assert (out - expected).norm() < 2e-2 * expected.norm()
    out.float().square().sum().backward()
    expected.float().square().sum().backward()
    assert x.grad.norm() > 0  # float32, as x
    for ours_p, theirs_p in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (ours_p.grad is None) == (theirs_p.grad is None)
    assert_as_pyg(
        ours, theirs, dtype, lambda f, **k: f(x, edge_index, **more, **k), x, edge_index, more
    )


@pytest.mark.one_in(5)
@pytest.mark.parametrize("num_nodes", [BELOW, ABOVE])
@pytest.mark.parametrize(("name", "options"), SOME, ids=str)
def test_modes_have_the_dtypes_of_eager(name, options, num_nodes):
    ours, theirs = layers(name, options)
    x, edge_index, more = inputs(name, options, num_nodes)
    batch = torch.stack([x, x])
    compiled = torch.compile(copy.deepcopy(ours), fullgraph=True, backend="aot_eager")
    calls = [
        lambda f, **k: f(batch, edge_index, **more, **k),
        lambda f, **k: compiled(x, edge_index, **more, **k),
    ]
    if name != "AGNNConv":
        calls.append(lambda f, **k: f(SparseFeatures(x), edge_index, **more, **k))
        calls.append(lambda f, **k: f(x.to_sparse_csr(), edge_index, **more, **k))
    for call in calls:
        assert_as_pyg(ours, theirs, torch.bfloat16, call, x, edge_index, more)


@pytest.mark.parametrize("num_nodes", [BELOW, ABOVE])
@pytest.mark.parametrize(("name", "options"), SOME, ids=str)
def test_deterministic_mode_has_the_dtypes_of_eager(name, options, num_nodes, determinism):
    ours, theirs = layers(name, options)
    x, edge_index, more = inputs(name, options, num_nodes)
    assert_as_pyg(
        ours, theirs, torch.bfloat16, lambda f, **k: f(x, edge_index, **k), x, edge_index, more
    )


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("parameters", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "options"), SOME, ids=str)
def test_features_and_parameters_of_sixteen_bits(name, options, parameters, given):
    ours, theirs = layers(name, options)
    ours, theirs = ours.to(parameters), theirs.to(parameters)
    x, edge_index, more = inputs(name, options, FEW)
    x = x.to(given)
    for dtype in HALVES:
        assert_as_pyg(
            ours, theirs, dtype, lambda f, **k: f(x, edge_index, **k), x, edge_index, more
        )


# ---- the dense steps

DTYPES = [torch.float32, torch.float64, *HALVES]


def outcome(function, *tensors):
    """The dtype of a result, or None if the call raises."""
    try:
        return function(*tensors).dtype
    except RuntimeError:
        return None


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("num_nodes", [BELOW, ABOVE])
def test_dense_steps_have_the_dtypes_of_torch(num_nodes, deterministic, enabled):
    torch.use_deterministic_algorithms(deterministic)
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            for dtype, other in itertools.product(DTYPES, DTYPES):
                x, row = torch.ones(num_nodes, WIDTH, dtype=dtype), torch.ones(WIDTH, dtype=other)
                assert outcome(linear_maps.add, x, row) == (x[:1] + row).dtype
                for bias in (None, *(torch.ones(2, dtype=kind) for kind in DTYPES)):
                    weight = row.expand(2, -1)
                    expected = outcome(F.linear, x[:1], weight, bias)
                    assert outcome(linear_maps.linear, x, weight, bias) == expected, (
                        dtype,
                        other,
                        bias,
                    )
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("bias", [None, torch.ones(4)])
def test_product_of_sparse_features_has_the_dtype_of_linear(bias):
    x, weight = torch.eye(6), torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        ours, expected = SparseFeatures(x).linear(weight, bias), F.linear(x, weight, bias)
    assert_close(ours, expected, rtol=2e-2, atol=2e-2)
