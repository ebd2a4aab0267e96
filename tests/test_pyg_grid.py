"""PyG's layers as oracles: values and all gradients, over every combination of arguments."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch_geometric.nn as pyg
from layers import all_cases, over
from torch.testing import assert_close

from gat_ext import nn

TENSOR = torch.tensor([1.0, -2.0, 0.5])
INTEGERS = torch.tensor([1, -2, 3])
FILLS = ("mean", "add", "min", "max", "mul", 0.5, 2, TENSOR, INTEGERS)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


class Form(NamedTuple):
    """The form of a layer's inputs."""

    in_channels: Any
    x: Any  # rows of x, or of (x_src, x_dst); None: no features
    size: tuple[int, int] | None = None
    index_dtype: torch.dtype = torch.int64


FORMS = {
    "one": Form(5, 9),
    "one, twice": Form(5, (9, 9)),
    "int32": Form(5, 9, index_dtype=torch.int32),
    "lazy": Form(-1, 9),
    "pair of one": Form((5, 5), 9),
    "more sources": Form((5, 4), (11, 6)),
    "more destinations": Form((5, 4), (6, 11)),
    "lazy pair": Form((-1, -1), (11, 6)),
    "lazy pair, more destinations": Form((-1, -1), (6, 11)),
}
SIZED = {
    "size": Form(5, 9, size=(9, 9)),
    "size of a pair": Form((5, 4), (11, 6), size=(11, 6)),
    "sources": Form((5, 4), (9, None)),
    "sources, fewer destinations": Form((5, 4), (11, None), size=(11, 6)),
    "sources, more destinations": Form((5, 4), (6, None), size=(6, 11)),
    "sources, shared projection": Form(5, (9, None)),
}


class Case(NamedTuple):
    """A layer, its arguments after the sizes, and the form of its inputs."""

    name: str
    options: dict[str, Any]
    form: str = "one"
    edge: int = 0  # edge features; 1: as a vector

    def __str__(self) -> str:
        options = ", ".join(
            f"{k}={v.tolist() if isinstance(v, torch.Tensor) else v}"
            for k, v in self.options.items()
        )
        return f"{self.name}({options}), {self.form}, {self.edge}"


def combinations(**axes):
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


BOTH = (True, False)


def gat_cases():
    shared = combinations(
        heads=(1, 3), concat=BOTH, bias=BOTH, residual=BOTH, negative_slope=(0.2, 0.0)
    )
    for slope in (1.0, 1.5, -0.3):
        yield Case("GATConv", {"negative_slope": slope})
    yield Case("GATConv", {"heads": np.int64(2)})
    for options in shared:
        yield Case("GATConv", options)
        yield Case("GATConv", options | {"add_self_loops": False})
        for edge in (1, 3):
            yield Case("GATConv", options | {"edge_dim": edge, "add_self_loops": False}, edge=edge)
            yield Case("GATConv", options | {"edge_dim": edge}, edge=edge)
    for options in combinations(heads=(1, 2), fill_value=FILLS, concat=BOTH):
        yield Case("GATConv", options | {"edge_dim": 3}, edge=3)
    for form, options in itertools.product(
        FORMS | SIZED, combinations(heads=(1, 2), residual=BOTH, add_self_loops=BOTH)
    ):
        yield Case("GATConv", options, form)
        # PyG reduces only over edges into nodes with a self-loop, and fails for others.
        fill = 0.5 if "destinations" in form else "max"
        yield Case("GATConv", options | {"edge_dim": 3, "fill_value": fill}, form, edge=3)


def gatv2_cases():
    for options in combinations(
        heads=(1, 3), concat=BOTH, bias=BOTH, residual=BOTH, share_weights=BOTH
    ):
        yield Case("GATv2Conv", options)
        yield Case("GATv2Conv", options | {"edge_dim": 3}, edge=3)
        yield Case("GATv2Conv", options | {"edge_dim": 1, "add_self_loops": False}, edge=1)
    for options in combinations(fill_value=FILLS, negative_slope=(0.2, 0.0, 1.5, -0.3)):
        yield Case("GATv2Conv", options | {"edge_dim": 3}, edge=3)
    for form, options in itertools.product(
        FORMS, combinations(heads=(1, 2), residual=BOTH, add_self_loops=BOTH)
    ):
        yield Case("GATv2Conv", options, form)


def transformer_cases():
    for options in combinations(heads=(1, 3), concat=BOTH, beta=BOTH, bias=BOTH, root_weight=BOTH):
        yield Case("TransformerConv", options)
        yield Case("TransformerConv", options | {"edge_dim": 3}, edge=3)
        yield Case("TransformerConv", options | {"edge_dim": 1}, edge=1)
    for form, options in itertools.product(FORMS, combinations(heads=(1, 2), beta=BOTH)):
        yield Case("TransformerConv", options, form)
        yield Case("TransformerConv", options | {"edge_dim": 3}, form, edge=3)


def agnn_cases():
    for form, options in itertools.product(
        ("one", "int32"), combinations(requires_grad=BOTH, add_self_loops=BOTH)
    ):
        yield Case("AGNNConv", options, form)


CASES = [*gat_cases(), *gatv2_cases(), *transformer_cases(), *agnn_cases()]


def test_the_grid_is_large():
    assert len(CASES) >= 500 and len(set(map(str, CASES))) == len(CASES)


def make(library, case, form):
    if case.name == "AGNNConv":
        return library.AGNNConv(**case.options)
    return getattr(library, case.name)(form.in_channels, 4, **case.options)


def features(form, dtype):
    """The tensors of x, and x as the layer's argument."""
    if isinstance(form.x, int):
        x = torch.randn(form.x, 5, dtype=dtype, requires_grad=True)
        return [x], x
    src = torch.randn(form.x[0], 5, dtype=dtype, requires_grad=True)
    if form.x[1] is None:
        return [src], (src, None)
    channels = 5 if isinstance(form.in_channels, int) else 4
    dst = torch.randn(form.x[1], channels, dtype=dtype, requires_grad=True)
    return [src, dst], (src, dst)


def edges(form):
    """Edges with self-loops, one duplicated, and a node without in-edges."""
    if form.size is not None:
        num_src, num_dst = form.size
    elif isinstance(form.x, int) or form.x[1] is None:
        num_src = num_dst = form.x if isinstance(form.x, int) else form.x[0]
    else:
        num_src, num_dst = form.x
    src, dst = torch.randint(num_src, (24,)), torch.randint(num_dst - 1, (24,))
    src[:3], dst[:3] = torch.tensor([2, 2, 4]), torch.tensor([2, 2, 4])
    return torch.stack([src, dst]).to(form.index_dtype)


def shape_of_edges(case):
    """Of edge_attr; PyG's TransformerConv takes no vector."""
    return (24,) if case.edge == 1 and case.name != "TransformerConv" else (24, case.edge)


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("case", "dtype"),
    [*((case, torch.float64) for case in CASES), *((case, torch.float32) for case in CASES[::5])],
    ids=str,
)
def test_equals_pyg(case, dtype):
    torch.manual_seed(0)
    form = (FORMS | SIZED)[case.form]
    theirs, ours = make(pyg, case, form).to(dtype), make(nn, case, form).to(dtype)
    inputs, x = features(form, dtype)
    edge_index = edges(form)
    options = {} if form.size is None else {"size": form.size}
    if case.edge:
        attr = torch.randn(shape_of_edges(case), dtype=dtype, requires_grad=True)
        inputs, options = [*inputs, attr], options | {"edge_attr": attr}
    their_edges = edge_index.long()  # PyG 2.8.1 has wrong gradients for int32 edges
    theirs(x, their_edges, **options)  # initialises lazy layers
    with torch.no_grad():  # initial biases and beta would hide mistakes
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) / 2)
    expected = theirs(x, their_edges, **options)
    ours.load_state_dict(theirs.state_dict())
    out = ours(x, edge_index, **options)
    assert_same(out, expected)
    assert repr(ours) == repr(theirs)
    parameters = [dict(layer.named_parameters()) for layer in (ours, theirs)]
    assert [*parameters[0]] == [*parameters[1]]
    weights = torch.randn_like(expected)
    found, wanted = (
        torch.autograd.grad((result * weights).sum(), [*inputs, *named.values()], allow_unused=True)
        for result, named in zip((out, expected), parameters, strict=True)
    )
    for tensor, mine, other in zip([*inputs, *parameters[0].values()], found, wanted, strict=True):
        mine, other = (torch.zeros_like(tensor) if g is None else g for g in (mine, other))
        assert_same(mine, other, slack=3)  # gradients of scores are small differences
    if case.name != "AGNNConv":
        assert_same_attention(ours, theirs, (x, their_edges), options)


def assert_same(ours, theirs, slack=1):
    """Equal up to rounding, relative to the largest element if that is above 1."""
    scale = max(1.0, theirs.detach().abs().max().item())
    bound = slack * TOLERANCE[theirs.dtype]
    assert_close(ours / scale, theirs / scale, rtol=bound, atol=bound)


def assert_same_attention(ours, theirs, given, options):
    """In the same order, with added self-loops last."""
    _, (edge_index, alpha) = ours(*given, **options, return_attention_weights=True)
    _, (their_edges, their_alpha) = theirs(*given, **options, return_attention_weights=True)
    assert torch.equal(edge_index, their_edges)
    assert_same(alpha, their_alpha)
    for asked in (None, False):
        assert isinstance(ours(*given, **options, return_attention_weights=asked), torch.Tensor)


WITHOUT_EDGES = [case for case in all_cases() if not case.has_edges]
# After the first call every parameter has a size.
COPIED = [
    case
    for case in WITHOUT_EDGES
    if case.layer.supports("copies") and {"root_weight", "requires_grad"}.isdisjoint(case.options)
]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("channels", [5, -1])
@over(COPIED)
def test_copies(case, channels, copied):
    """A copy has its own parameters, before the first call of a lazy layer and after."""
    layer, x, edge_index = case.make(channels), torch.randn(9, 5), edges(Form(5, 9))
    assert copied(layer)(x, edge_index).shape[0] == 9
    expected = layer(x, edge_index)
    other = copied(layer)
    assert torch.equal(other(x, edge_index), expected) and repr(other) == repr(layer)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    assert torch.equal(layer(x, edge_index), expected)
    assert not torch.equal(other(x, edge_index), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@over([case for case in WITHOUT_EDGES if case.layer.supports("half")])
def test_half_precision(case, dtype):
    layer, x, edge_index = case.make().to(dtype), torch.randn(9, 5).to(dtype), edges(Form(5, 9))
    out = layer(x, edge_index)
    assert out.dtype == dtype
    bound = 8 * torch.finfo(dtype).eps
    assert_close(out.float(), layer.float()(x.float(), edge_index), rtol=bound, atol=bound)
