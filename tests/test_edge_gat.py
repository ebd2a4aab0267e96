"""EdgeGATConv: DGL's formula, with a row for every edge, is the oracle."""

from __future__ import annotations

import itertools

import pytest
import torch
from beside_pyg import TOLERANCE, compare, normal
from layers import random_edges
from test_nn import LargestTensor
from torch.nn import functional as F
from torch.testing import assert_close

from gat_ext import Graph, nn
from gat_ext.interop import from_dgl

EDGES = random_edges(9, 9)
COUNT = EDGES.shape[1]
BOTH = (True, False)
F64 = torch.float64


class OfDGL(torch.nn.Module):
    """Parameters under DGL's names; returns [N_dst, H, C], as written in DGL's documentation."""

    def __init__(self, in_feats, edge_feats, out_feats, num_heads, residual=True, bias=True):
        super().__init__()
        width, is_pair = out_feats * num_heads, isinstance(in_feats, tuple)
        src, dst = in_feats if is_pair else (in_feats, in_feats)
        if is_pair:
            self.fc_src = torch.nn.Linear(src, width, bias=False)
            self.fc_dst = torch.nn.Linear(dst, width, bias=False)
        else:
            self.fc = torch.nn.Linear(src, width, bias=False)
        self.fc_edge = torch.nn.Linear(edge_feats, width, bias=False)
        for name in ("attn_l", "attn_r", "attn_edge"):
            setattr(self, name, torch.nn.Parameter(torch.randn(1, num_heads, out_feats)))
        self.res_fc = torch.nn.Linear(dst, width, bias=False) if residual else None
        self.bias = torch.nn.Parameter(torch.randn(width)) if bias else None
        self.heads, self.slope = num_heads, 0.2

    def forward(self, x, edge_index, edge_attr, mask=None):
        x_src, x_dst = x if isinstance(x, tuple) else (x, x)
        fc_src, fc_dst = (self.fc, self.fc) if hasattr(self, "fc") else (self.fc_src, self.fc_dst)
        rows = (fc_src(x_src), fc_dst(x_dst), self.fc_edge(edge_attr))
        src, dst, edge = (t.unflatten(-1, (self.heads, -1)) for t in rows)
        j, i = edge_index
        scores = (src * self.attn_l).sum(-1)[j] + (dst * self.attn_r).sum(-1)[i]
        scores = F.leaky_relu(scores + (edge * self.attn_edge).sum(-1), self.slope)
        alpha = torch.zeros_like(scores)
        for node in range(x_dst.shape[0]):
            near = i == node
            alpha = alpha.masked_scatter(near.unsqueeze(1), scores[near].softmax(0))
        applied = alpha if mask is None else alpha * mask
        messages = applied.unsqueeze(-1) * (src[j] + edge)
        out = torch.zeros_like(dst).index_add(0, i, messages)
        if self.res_fc is not None:
            out = out + self.res_fc(x_dst).view(out.shape)
        return out if self.bias is None else out + self.bias.view(out.shape[1:]), applied


def both(in_channels, heads, dtype=F64, **options):
    torch.manual_seed(1)
    theirs = OfDGL(in_channels, 3, 4, heads, **options).to(dtype)
    ours = nn.EdgeGATConv(in_channels, 4, heads, edge_dim=3, **options).to(dtype)
    ours.load_state_dict(from_dgl(theirs.state_dict()))
    return ours, theirs


def parameters(ours, theirs):
    """(name, ours, DGL's), paired by from_dgl."""
    named = dict(theirs.named_parameters())
    named = from_dgl(named) if isinstance(theirs, OfDGL) else named
    return [(name, (p, named[name])) for name, p in ours.named_parameters()]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", [(9, 9), (11, 6), (6, 11)])
@pytest.mark.parametrize("masked", BOTH)
@pytest.mark.parametrize(("residual", "bias"), [*itertools.product(BOTH, BOTH)])
@pytest.mark.parametrize("heads", [1, 3])
def test_the_formula(heads, residual, bias, masked, sizes, dtype):
    """Values, weights, and all gradients."""
    is_pair, edges = sizes != (9, 9), random_edges(*sizes)
    ours, theirs = both((5, 7) if is_pair else 5, heads, dtype, residual=residual, bias=bias)
    x_src, x_dst = normal(sizes[0], 5, dtype=dtype), normal(sizes[1], 7, dtype=dtype, seed=2)
    attr = normal(edges.shape[1], 3, dtype=dtype, seed=4)
    mask = normal(edges.shape[1], heads, dtype=dtype, seed=5) if masked else None
    x = (x_src, x_dst) if is_pair else x_src
    out, (index, alpha) = ours(x, edges, attr, edge_mask=mask, return_attention_weights=True)
    expected, weights = theirs(x, edges, attr, mask)
    assert torch.equal(index, edges)
    leaves = [("x_src", (x_src, x_src)), ("edge_attr", (attr, attr)), *parameters(ours, theirs)]
    leaves += [("x_dst", (x_dst, x_dst))] if is_pair else []
    leaves += [("mask", (mask, mask))] if masked else []
    sides = (out, alpha), (expected, weights)
    compare(tuple(torch.cat([t.flatten() for t in side]) for side in sides), leaves, dtype)
    assert out.shape == (sizes[1], heads * 4) and alpha.shape == weights.shape


@pytest.mark.parametrize("fill", ["mean", 0.5])
def test_added_self_loops_have_features(fill):
    layer, x = (
        nn.EdgeGATConv(5, 4, 2, edge_dim=3, add_self_loops=True, fill_value=fill),
        normal(9, 5),
    )
    layer, attr = layer.double(), normal(COUNT, 3, seed=4)
    out, (looped, _) = layer(x, EDGES, attr, return_attention_weights=True)
    kept = EDGES[0] != EDGES[1]
    loops = torch.full((9, 3), 0.5, dtype=F64)
    if fill == "mean":
        zeros = torch.zeros(9, 3, dtype=F64)
        loops = zeros.index_reduce(0, EDGES[1, kept], attr[kept], "mean", include_self=False)
    plain = nn.EdgeGATConv(5, 4, 2, edge_dim=3).double()
    plain.load_state_dict(layer.state_dict())
    compare((out, plain(x, looped, torch.cat([attr[kept], loops]))), [("x", (x, x))], F64)


def test_heads_are_averaged():
    ours, theirs = both(5, 3, residual=False, bias=False)
    averaged = nn.EdgeGATConv(
        5, 4, 3, concat=False, edge_dim=3, residual=False, bias=False
    ).double()
    averaged.load_state_dict(ours.state_dict())
    x, attr = normal(9, 5), normal(COUNT, 3, seed=4)
    assert_close(averaged(x, EDGES, attr), theirs(x, EDGES, attr)[0].mean(1))


def test_dropout_drops_the_same_edges_of_both_sums():
    layer = nn.EdgeGATConv(5, 4, 2, edge_dim=3, dropout=0.5, residual=False, bias=False).double()
    x, attr = normal(9, 5), normal(COUNT, 3, seed=4)
    out, (_, alpha) = layer(x, EDGES, attr, return_attention_weights=True)
    assert (alpha == 0).any()
    values = (layer.lin(x)[EDGES[0]] + layer.lin_edge(attr)).view(-1, 2, 4)
    expected = torch.zeros(9, 2, 4, dtype=F64).index_add(0, EDGES[1], alpha.unsqueeze(-1) * values)
    assert_close(out, expected.flatten(1))


def test_a_hook_of_the_edges_map_runs_once():
    layer, (x, attr) = (
        nn.EdgeGATConv(5, 4, 2, edge_dim=3).double(),
        (normal(9, 5), normal(COUNT, 3)),
    )
    expected = layer(x, EDGES, attr)
    calls = []
    layer.lin_edge.register_forward_hook(lambda module, given, out: calls.append(out.shape))
    leaves = [
        ("x", (x, x)),
        ("attr", (attr, attr)),
        *((n, (p, p)) for n, p in layer.named_parameters()),
    ]
    compare((layer(x, EDGES, attr), expected), leaves, F64)
    assert calls == [(COUNT, 8)]


def test_derivatives():
    layer, edges = nn.EdgeGATConv(3, 2, 2, edge_dim=2).double(), random_edges(4, 4)
    names = [name for name, _ in layer.named_parameters()]

    def call(x, attr, weight, *values):
        named, given = dict(zip(names, values, strict=True)), {"edge_weight": weight}
        return torch.func.functional_call(layer, named, (x, edges, attr), given)

    leaves = [normal(4, 3), normal(edges.shape[1], 2, seed=2), normal(edges.shape[1], seed=3)]
    leaves += [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("loops", BOTH)
def test_compiles_for_all_sizes(loops):
    torch._dynamo.reset()
    layer = nn.EdgeGATConv(5, 4, 2, edge_dim=3, add_self_loops=loops).double()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for num_nodes, num_edges in [(10, 30), (12, 50), (7, 300)]:
        edges, x = torch.randint(num_nodes, (2, num_edges)), normal(num_nodes, 5)
        attr, weight = normal(num_edges, 3, seed=2), normal(num_edges, 2, seed=3)
        leaves = [(str(i), (t, t)) for i, t in enumerate([x, attr, weight, *layer.parameters()])]
        outs = (side(x, edges, attr, edge_weight=weight) for side in (compiled, layer))
        compare(tuple(outs), leaves, F64)


@pytest.mark.parametrize("compiled", BOTH)
def test_nothing_has_a_row_of_channels_for_every_edge(compiled):
    torch._dynamo.reset()
    num_edges, heads, channels = 900, 2, 32
    edges, x = torch.randint(20, (2, num_edges)), normal(20, 64, dtype=torch.float32)
    attr = normal(num_edges, 3, dtype=torch.float32)
    layer = nn.EdgeGATConv(64, channels, heads, edge_dim=3)
    if compiled:
        layer = torch.compile(layer, backend="aot_eager")
        layer(x, edges, attr).sum().backward()
    with LargestTensor() as seen:
        layer(x, edges, attr).square().sum().backward()
    assert seen.elements < 0.2 * num_edges * heads * channels


X, ATTR = torch.randn(3, 5), torch.randn(2, 3)
PAIR = torch.tensor([[0, 1], [1, 2]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda layer: layer(X, PAIR), ValueError, r"edge_attr is None, but EdgeGATConv\(5, 4"),
        (lambda layer: layer(X, PAIR, ATTR[:1]), ValueError, r"edge_attr has shape \[1, 3\]"),
        (lambda layer: layer(X, PAIR, ATTR.double()), TypeError, "edge_attr has dtype"),
        (lambda layer: layer(X, PAIR + 2, ATTR), IndexError, "edge_index"),
        (lambda layer: nn.EdgeGATConv(5, 4)(X, PAIR, ATTR), ValueError, "edge_attr was given, but"),
        (lambda layer: nn.EdgeGATConv(5, 4, feat_dropout=0.5), TypeError, "unknown argument 'feat"),
        (lambda layer: nn.EdgeGATConv(5, 4, edge_dim=0), ValueError, "edge_dim is 0"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(nn.EdgeGATConv(5, 4, edge_dim=3))


def test_a_graph_and_its_edge_index_are_the_same():
    layer = nn.EdgeGATConv(5, 4, edge_dim=3)
    expected = layer(X, PAIR, ATTR)
    assert torch.equal(layer(X, Graph(PAIR, num_nodes=3), ATTR), expected)
