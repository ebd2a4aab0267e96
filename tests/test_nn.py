"""The layers against PyG's: same parameters, same results, same gradients."""

from __future__ import annotations

import gc
import itertools

import pytest
import torch
import torch_geometric.nn as pyg
from torch.testing import assert_close

from gat_ext import Graph, nn
from gat_ext.nn import _loops

# Layer → (positional arguments, variants of keyword arguments, whether it is bipartite, its edge_dim variants).
EDGE = {"edge_dim": 3}
LAYERS = {
    "GATConv": ((5, 4), [{}, {"heads": 3}, {"heads": 2, "concat": False}, {"heads": 2, "negative_slope": 0.05, "bias": False},
                         {"heads": 2, "residual": True}, {"heads": 2, "add_self_loops": False}], True, [EDGE, EDGE | {"fill_value": 0.5},
                         *(EDGE | {"fill_value": f} for f in ("add", "min", "max", "mul"))]),
    "GATv2Conv": ((5, 4), [{}, {"heads": 3}, {"heads": 2, "concat": False}, {"heads": 2, "share_weights": True},
                           {"heads": 2, "residual": True, "bias": False}, {"add_self_loops": False}], True, [EDGE, EDGE | {"fill_value": 0.5}]),
    "AGNNConv": ((), [{}, {"requires_grad": False}, {"add_self_loops": False}], False, []),
    "TransformerConv": ((5, 4), [{}, {"heads": 3}, {"heads": 2, "concat": False}, {"heads": 2, "beta": True},
                                 {"heads": 2, "concat": False, "beta": True}, {"root_weight": False}, {"bias": False}], True, [EDGE]),
}  # fmt: skip
CASES = [
    (name, {**a, **b})
    for name, (_, plain, _, edge) in LAYERS.items()
    for a, b in itertools.product(plain, [{}, *edge])
]
SHAPES = {"homogeneous": (9, 9), "more sources": (11, 6), "more destinations": (6, 11)}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def random_graph(num_src, num_dst, seed=0):
    """Isolated nodes, multi-edges and self-loops included; not sorted."""
    generator = torch.Generator().manual_seed(seed)
    src = torch.randint(num_src, (30,), generator=generator)
    dst = torch.randint(num_dst - 2, (30,), generator=generator)
    edges = torch.stack([src, dst])
    extra = torch.tensor([[0, 1, 2, 2], [0, 1, 3, 3]])
    return torch.cat([edges, extra, edges[:, :5]], dim=1)


def both(name, options, in_channels, dtype):
    torch.manual_seed(0)
    arguments = LAYERS[name][0]
    if arguments:
        arguments = (in_channels, *arguments[1:])
    theirs = getattr(pyg, name)(*arguments, **options).to(dtype)
    ours = getattr(nn, name)(*arguments, **options).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def compare(ours, theirs, x, edge_index, edge_attr, dtype):
    tensors = [t for t in (x if isinstance(x, tuple) else (x,)) if t is not None]
    arguments = () if edge_attr is None else (edge_attr,)
    leaves = [*tensors, *arguments]
    out, expected = ours(x, edge_index, *arguments), theirs(x, edge_index, *arguments)
    bound = TOLERANCE[dtype]
    assert_close(out, expected, rtol=bound, atol=bound)
    generator = torch.Generator().manual_seed(3)
    upstream = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(dtype)
    grads = [
        torch.autograd.grad(o, [*leaves, *layer.parameters()], upstream, allow_unused=True)
        for o, layer in ((out, ours), (expected, theirs))
    ]
    names = [
        *("x" for _ in tensors),
        *("edge_attr" for _ in arguments),
        *dict(theirs.named_parameters()),
    ]
    for what, a, b in zip(names, *grads, strict=True):
        if a is None or b is None:
            assert (a is None or not a.any()) and (b is None or not b.any()), what
            continue
        scale = max(1.0, b.abs().max().item())
        assert_close(
            a / scale, b / scale, rtol=bound, atol=bound, msg=lambda m, w=what: f"{w}: {m}"
        )


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: str(v))
def test_equals_pyg(name, options, shape, dtype):
    num_src, num_dst = SHAPES[shape]
    if shape != "homogeneous" and not LAYERS[name][2]:
        pytest.skip("the layer takes one kind of node")
    if (
        shape == "more destinations"
        and "edge_dim" in options
        and name != "TransformerConv"
        and isinstance(options.get("fill_value", ""), str)
    ):
        options = options | {
            "fill_value": 1.5
        }  # PyG cannot reduce over destinations that are not sources
    edge_index = random_graph(num_src, num_dst)
    draw = torch.Generator().manual_seed(1)

    def normal(*size):
        return torch.randn(size, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()

    edge_attr = normal(edge_index.shape[1], 3) if "edge_dim" in options else None
    if shape == "homogeneous":
        ours, theirs = both(name, options, 5, dtype)
        compare(ours, theirs, normal(num_src, 5), edge_index, edge_attr, dtype)
    else:
        ours, theirs = both(
            name, options, (5, 7) if not options.get("share_weights") else (5, 5), dtype
        )
        compare(
            ours,
            theirs,
            (normal(num_src, 5), normal(num_dst, 5 if options.get("share_weights") else 7)),
            edge_index,
            edge_attr,
            dtype,
        )


def test_every_layer_has_a_row():
    assert set(nn.__all__) == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_state_dict_moves_both_ways(name):
    for options in ({}, *LAYERS[name][3][:1]):
        ours, theirs = both(name, options, 5, torch.float32)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())
        assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", LAYERS)
def test_initial_distributions(name):
    """Bounds and spread of fresh parameters equal PyG's."""
    options = {"heads": 8} if LAYERS[name][0] else {}
    arguments = (64, 32) if LAYERS[name][0] else ()
    torch.manual_seed(0)
    ours, theirs = (
        getattr(nn, name)(*arguments, **options),
        getattr(pyg, name)(*arguments, **options),
    )
    for (key, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (
            abs(a.std(correction=0) - b.std(correction=0)) <= 0.12 * b.std(correction=0) + 1e-8
        ), key
        if a.numel() > 1000:
            assert_close(a.abs().max(), b.abs().max(), rtol=0.02, atol=0)
    before = [p.clone() for p in ours.parameters()]
    ours.reset_parameters()
    changed = [
        not torch.equal(p, q)
        for p, q in zip(ours.parameters(), before, strict=True)
        if p.numel() > 1 and q.any()
    ]
    assert all(changed)


@pytest.mark.parametrize("name", LAYERS)
def test_graph_and_edge_index_agree(name):
    edge_index, x = random_graph(9, 9), torch.randn(9, 5)
    layer = getattr(nn, name)(*LAYERS[name][0])
    graph = Graph(edge_index, num_nodes=9)
    assert torch.equal(layer(x, graph), layer(x, edge_index))


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "TransformerConv"])
def test_attention_weights_equal_pyg(name):
    ours, theirs = both(name, {"heads": 2}, 5, torch.float64)
    edge_index, x = random_graph(9, 9), torch.randn(9, 5, dtype=torch.float64)
    out, (edges, alpha) = ours(x, edge_index, return_attention_weights=True)
    expected, (their_edges, their_alpha) = theirs(x, edge_index, return_attention_weights=True)
    assert torch.equal(edges, their_edges)
    assert_close(alpha, their_alpha)
    assert_close(out, expected)


def test_one_sided_features():
    ours, theirs = both("GATConv", {"heads": 2, "add_self_loops": False}, (5, 7), torch.float64)
    x = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    edge_index = random_graph(9, 6)
    assert_close(
        ours((x, None), edge_index, size=(9, 6)), theirs((x, None), edge_index, size=(9, 6))
    )


def test_edge_features_as_a_vector():
    ours, theirs = both("GATConv", {"heads": 2, "edge_dim": 1}, 5, torch.float64)
    edge_index, x = random_graph(9, 9), torch.randn(9, 5, dtype=torch.float64)
    weights = torch.rand(edge_index.shape[1], dtype=torch.float64)
    assert_close(ours(x, edge_index, weights), theirs(x, edge_index, weights))


@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "TransformerConv"])
def test_dropout_only_in_training(name):
    layer = getattr(nn, name)(5, 4, heads=2, dropout=0.5)
    edge_index, x = random_graph(9, 9), torch.randn(9, 5)
    assert not torch.equal(layer(x, edge_index), layer(x, edge_index))
    torch.manual_seed(1)
    first = layer(x, edge_index)
    torch.manual_seed(1)
    assert torch.equal(first, layer(x, edge_index))
    layer.eval()
    assert torch.equal(layer(x, edge_index), layer(x, edge_index))


def test_self_loops_are_remembered_and_forgotten():
    graph = Graph(random_graph(9, 9), num_nodes=9)
    looped = _loops.with_self_loops(graph, 9, 9)
    assert _loops.with_self_loops(graph, 9, 9) is looped
    assert (looped.graph.edge_index[:, -9:] == torch.arange(9)).all()
    before = len(_loops._looped)
    del graph, looped
    gc.collect()
    assert len(_loops._looped) == before - 1


EDGES = torch.tensor([[0, 1], [1, 2]])
BAD = [
    (lambda: nn.GATConv(5, 0), "out_channels is 0"),
    (lambda: nn.GATv2Conv(5, 4, heads=0), "heads is 0"),
    (lambda: nn.TransformerConv(5, 4, dropout=2.0), "dropout is 2.0"),
    (lambda: nn.GATConv(5, 4)(torch.ones(3, 6), EDGES), r"\[3, 6\]"),
    (lambda: nn.GATConv(5, 4)(torch.ones(2, 5), EDGES), "2"),
    (lambda: nn.GATConv(5, 4)(torch.ones(4, 5), Graph(EDGES, num_nodes=3)), "4 sources"),
    (
        lambda: nn.GATConv(5, 4, edge_dim=2)(torch.ones(3, 5), EDGES, torch.ones(2, 3)),
        "edge_attr has shape",
    ),
    (
        lambda: nn.GATConv(5, 4, edge_dim=2, fill_value="median")(
            torch.ones(3, 5), EDGES, torch.ones(2, 2)
        ),
        "'median'",
    ),
    (lambda: nn.GATv2Conv(5, 4)((torch.ones(3, 5), None), EDGES), "destinations"),
    (lambda: nn.GATv2Conv(5, 4)(torch.ones(3, 5), EDGES, torch.ones(2, 2)), "without edge_dim"),
    (lambda: nn.TransformerConv(5, 4, edge_dim=2)(torch.ones(3, 5), EDGES), "missing"),
    (
        lambda: nn.TransformerConv(5, 4)(torch.ones(3, 5), EDGES, torch.ones(2, 2)),
        "without edge_dim",
    ),
    (lambda: nn.AGNNConv()(torch.ones(3), EDGES), "matrix"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_refused(case):
    call, words = BAD[case]
    with pytest.raises((ValueError, IndexError), match=words):
        call()
