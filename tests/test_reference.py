"""The edge-list oracle: against slow loops, PyTorch Geometric and finite differences."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
import torch_geometric.nn as pyg
from torch_geometric.utils import softmax as pyg_softmax

from gat_ext import Graph, reference, testing
from gat_ext.reference import edges
from gat_ext.testing import (
    GRAPHS,
    SMALL_GRAPHS,
    devices,
    reference_inputs,
    sample_graph,
    sample_inputs,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SCORES = list(reference.SCORES)


def leaves(inputs: dict) -> list[torch.Tensor]:
    return [t for t in inputs.values() if isinstance(t, torch.Tensor) and t.requires_grad]


def all_outputs(graph: Graph, inputs: dict) -> tuple[torch.Tensor, ...]:
    inputs = reference_inputs(graph, inputs)
    return reference.edge_attention(graph, **inputs, return_weights=True, return_lse=True)


# ---- against loops over edges in plain Python


def slow_score(inputs: dict, edge: int, i: int, j: int, h: int) -> float:
    def leaky(z: float) -> float:
        return z if z > 0 else z * inputs.get("negative_slope", 0.2)

    def at(name: str, *index: int) -> float:
        return inputs[name][index].item() if name in inputs else 0.0

    scale, channels = inputs.get("scale", 1.0), range(inputs["value"].shape[2])
    if "query" in inputs:
        channels = range(inputs["query"].shape[2])
        query = [at("query", i, h, d) for d in channels]
        key = [at("key", j, h, d) + at("edge_feat", edge, h, d) for d in channels]
        product = sum(q * k for q, k in zip(query, key, strict=True))
    a, b = at("dst_term", i, h), at("src_term", j, h) + at("edge_term", edge, h)
    formulas = {
        "additive": lambda: leaky(a + b),
        "additive_v2": lambda: sum(at("att", h, d) * leaky(query[d] + key[d]) for d in channels),
        "dot": lambda: scale * product,
        "cosine": lambda: scale * product * a * b,
        "supergat_mx": lambda: leaky((a + b) / (1 + math.exp(-product))),
    }
    return formulas[inputs["score"]]() + at("bias", edge, h)


def with_edge_feat(inputs: dict) -> dict:
    """W e_ij of linear edge features as edge_feat, element by element."""
    if "edge_map" not in inputs:
        return inputs
    edge_attr, edge_map = inputs["edge_attr"].tolist(), inputs["edge_map"].tolist()
    rows = [
        [[math.fsum(map(math.prod, zip(e, w, strict=True))) for w in head] for head in edge_map]
        for e in edge_attr
    ]
    return inputs | {"edge_feat": torch.tensor(rows, dtype=torch.float64)}


def slow_attention(graph: Graph, inputs: dict, mask: torch.Tensor | None):
    """(out, weights, lse) by definition, edge by edge in floats."""
    inputs = with_edge_feat(inputs)
    _, num_heads, channels = inputs["value"].shape
    out = torch.zeros(graph.num_dst, num_heads, channels, dtype=torch.float64)
    weights = torch.zeros(graph.num_edges, num_heads, dtype=torch.float64)
    lse = torch.full((graph.num_dst, num_heads), -math.inf, dtype=torch.float64)
    src, dst = graph.edge_index.tolist()
    for i in range(graph.num_dst):
        for h in range(num_heads):
            row = [e for e in range(graph.num_edges) if dst[e] == i]
            score = {e: slow_score(inputs, e, i, src[e], h) for e in row}
            kept = sorted(row, key=lambda e: -score[e])[: inputs.get("top_k", len(row))]
            total = math.fsum(math.exp(score[e]) for e in kept)
            if total > 0:
                lse[i, h] = math.log(total)
            for e in kept if total > 0 else []:
                weights[e, h] = math.exp(score[e]) / total * (1 if mask is None else mask[e, h])
                value = inputs["value"][src[e], h]
                if inputs.get("edge_in_value"):
                    value = value + inputs["edge_feat"][e, h]
                out[i, h] += weights[e, h] * value
    return out, weights, lse


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("name", ["isolated", "multi_edges", "more_sources", "unsorted"])
def test_edge_attention_by_definition(name, score):
    graph = sample_graph(name)
    for variant, inputs in sample_inputs(score, graph, heads=2, channels=3).items():
        mask = reference_inputs(graph, inputs).get("dropout_mask")
        for ours, slow in zip(
            all_outputs(graph, inputs), slow_attention(graph, inputs, mask), strict=True
        ):
            torch.testing.assert_close(ours, slow, **EXACT, msg=lambda m, v=variant: f"{v}: {m}")


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("weighted", [None, "edge", "head"])
@pytest.mark.parametrize("name", ["isolated", "multi_edges", "more_destinations", "no_edges"])
def test_spmm_by_definition(name, weighted, reduce):
    graph = sample_graph(name)
    x = torch.randn(graph.num_src, 2, 3, dtype=torch.float64)
    shape = {None: None, "edge": (graph.num_edges,), "head": (graph.num_edges, 2)}[weighted]
    weight = None if shape is None else torch.randn(shape, dtype=torch.float64)
    expected = torch.zeros(graph.num_dst, 2, 3, dtype=torch.float64)
    src, dst = graph.edge_index
    for i in range(graph.num_dst):
        row = (dst == i).nonzero().flatten()
        if len(row) == 0:
            continue
        messages = x[src[row]]
        if weight is not None:
            messages = messages * weight[row].reshape(len(row), -1, 1)
        result = getattr(
            messages, f"a{reduce}" if reduce[0] == "m" and reduce != "mean" else reduce
        )
        expected[i] = result(0)
    torch.testing.assert_close(reference.spmm(graph, x, weight, reduce=reduce), expected, **EXACT)
    flat = None if weight is None else weight[:, 0] if weighted == "head" else weight
    torch.testing.assert_close(
        reference.spmm(graph, x[:, 0], flat, reduce=reduce), expected[:, 0], **EXACT
    )


def test_gradient_of_an_extremum_goes_to_the_first_of_equal_edges():
    graph = Graph(torch.tensor([[2, 1, 0], [0, 0, 0]]), num_nodes=3)
    x = torch.tensor([[4.0], [4.0], [1.0]], requires_grad=True)
    reference.spmm(graph, x, reduce="max").sum().backward()
    assert x.grad.flatten().tolist() == [0, 1, 0]


def test_sddmm_by_definition():
    graph = sample_graph("more_sources")
    x = torch.randn(graph.num_dst, 2, 3, dtype=torch.float64)
    y = torch.randn(graph.num_src, 2, 3, dtype=torch.float64)
    pairs = torch.einsum("ihf,jhf->ijh", x, y)
    src, dst = graph.edge_index
    torch.testing.assert_close(reference.sddmm(graph, x, y), pairs[dst, src], **EXACT)
    torch.testing.assert_close(
        reference.sddmm(graph, x[:, 0], y[:, 0]), pairs[dst, src, 0], **EXACT
    )


@pytest.mark.parametrize("by", ["dst", "src"])
@pytest.mark.parametrize("name", GRAPHS)
def test_edge_softmax_equals_pyg(name, by):
    graph = sample_graph(name)
    scores = torch.randn(graph.num_edges, 3, dtype=torch.float64)
    group = graph.edge_index[1 if by == "dst" else 0]
    num_groups = graph.num_dst if by == "dst" else graph.num_src
    ours = reference.edge_softmax(graph, scores, by=by)
    torch.testing.assert_close(ours, pyg_softmax(scores, group, num_nodes=num_groups), **EXACT)
    torch.testing.assert_close(reference.edge_softmax(graph, scores[:, 0], by=by), ours[:, 0])


# ---- against the layers of PyTorch Geometric


def pyg_gat(graph: Graph, x: torch.Tensor):
    layer = pyg.GATConv(5, 3, heads=2, edge_dim=4, add_self_loops=False, bias=False).double()
    edge_attr = torch.randn(graph.num_edges, 4, dtype=torch.float64)
    h = layer.lin(x).reshape(-1, 2, 3)
    edge = layer.lin_edge(edge_attr).reshape(-1, 2, 3)
    out = reference.gat_attention(
        graph,
        h,
        dst_term=(h * layer.att_dst).sum(-1),
        src_term=(h * layer.att_src).sum(-1),
        edge_term=(edge * layer.att_edge).sum(-1),
    )
    return layer(x, graph.edge_index, edge_attr), out.flatten(1)


def pyg_gatv2(graph: Graph, x: torch.Tensor):
    layer = pyg.GATv2Conv(5, 3, heads=2, edge_dim=4, add_self_loops=False, bias=False).double()
    edge_attr = torch.randn(graph.num_edges, 4, dtype=torch.float64)
    out = reference.gatv2_attention(
        graph,
        query=layer.lin_r(x).reshape(-1, 2, 3),
        key=layer.lin_l(x).reshape(-1, 2, 3),
        att=layer.att[0],
        edge_feat=layer.lin_edge(edge_attr).reshape(-1, 2, 3),
    )
    return layer(x, graph.edge_index, edge_attr), out.flatten(1)


def pyg_transformer(graph: Graph, x: torch.Tensor):
    layer = pyg.TransformerConv(5, 3, heads=2, edge_dim=4, root_weight=False, bias=False).double()
    edge_attr = torch.randn(graph.num_edges, 4, dtype=torch.float64)
    out = reference.dot_attention(
        graph,
        query=layer.lin_query(x).reshape(-1, 2, 3),
        key=layer.lin_key(x).reshape(-1, 2, 3),
        value=layer.lin_value(x).reshape(-1, 2, 3),
        edge_feat=layer.lin_edge(edge_attr).reshape(-1, 2, 3),
    )
    return layer(x, graph.edge_index, edge_attr), out.flatten(1)


def pyg_agnn(graph: Graph, x: torch.Tensor):
    layer = pyg.AGNNConv(add_self_loops=False).double()
    with torch.no_grad():
        layer.beta.fill_(1.7)
    out = reference.cosine_attention(graph, x.unsqueeze(1), beta=layer.beta)
    return layer(x, graph.edge_index), out.squeeze(1)


@pytest.mark.parametrize("layer", [pyg_gat, pyg_gatv2, pyg_transformer, pyg_agnn])
@pytest.mark.parametrize("name", ["isolated", "multi_edges", "self_loops", "unsorted"])
def test_layers_of_pyg(name, layer):
    torch.manual_seed(0)
    graph = sample_graph(name)
    x = torch.randn(graph.num_nodes, 5, dtype=torch.float64, requires_grad=True)
    theirs, ours = layer(graph, x)
    torch.testing.assert_close(ours, theirs, **EXACT)
    upstream = torch.randn_like(ours)
    (grad_ours,) = torch.autograd.grad(ours, x, upstream, retain_graph=True)
    (grad_theirs,) = torch.autograd.grad(theirs, x, upstream)
    torch.testing.assert_close(grad_ours, grad_theirs, **EXACT)


# ---- gradients


@pytest.mark.parametrize("score", SCORES)
def test_gradients_by_finite_differences(score):
    graph = sample_graph("isolated")
    variants = sample_inputs(score, graph, heads=1, channels=2, requires_grad=True)
    edges = [variant for variant in ("edge_feat", "edge_term") if variant in variants]
    for variant in ("everything", "hard", *edges):
        inputs = variants[variant]
        names = [
            name for name, t in inputs.items() if isinstance(t, torch.Tensor) and t.requires_grad
        ]

        def outputs(*tensors, names=names, inputs=inputs):
            out, weights, lse = all_outputs(graph, inputs | dict(zip(names, tensors, strict=True)))
            return out, weights, lse[graph.in_degrees() > 0]

        tensors = tuple(inputs[name] for name in names)
        assert torch.autograd.gradcheck(outputs, tensors)
        assert torch.autograd.gradgradcheck(outputs, tensors)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_spmm_gradients_by_finite_differences(reduce):
    graph = sample_graph("more_sources")
    x = torch.randn(graph.num_src, 2, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(graph.num_edges, 2, dtype=torch.float64, requires_grad=True)

    def product(x, weight):
        return reference.spmm(graph, x, weight, reduce=reduce)

    assert torch.autograd.gradcheck(product, (x, weight))
    assert torch.autograd.gradgradcheck(product, (x, weight))


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("name", SMALL_GRAPHS)
def test_gradients_are_finite_whatever_the_graph(name, score, device):
    graph = sample_graph(name, device)
    for inputs in sample_inputs(score, graph, requires_grad=True).values():
        out, weights, lse = all_outputs(graph, inputs)
        empty = graph.in_degrees() == 0
        assert (out[empty] == 0).all() and (lse[empty] == -torch.inf).all()
        assert out.isfinite().all() and weights.isfinite().all()
        grads = torch.autograd.grad(
            (out * out).sum() + weights.sum() + lse[lse.isfinite()].sum(),
            leaves(inputs),
            create_graph=True,
            allow_unused=True,
        )
        assert all(g is None or g.isfinite().all() for g in grads)
        second = sum((g * g).sum() for g in grads if g is not None)
        for g in torch.autograd.grad(second, leaves(inputs), allow_unused=True):
            assert g is None or g.isfinite().all()


# ---- registry, errors, examples


def test_a_new_score_is_one_formula(monkeypatch):
    def distance(query, key, att, dst, src, slope, scale):
        return -scale * (query - key).square().sum(-1) + src

    monkeypatch.setitem(reference.SCORES, "distance", distance)
    assert reference.score_inputs("distance") == ("query", "key", "src_term")
    graph = sample_graph("complete")
    inputs = sample_inputs("distance", graph)["edge_feat"]
    assert set(inputs) == {"score", "value", "query", "key", "src_term", "edge_feat"}
    assert reference.edge_attention(graph, **inputs).shape == (5, 2, 4)


def test_what_each_score_reads():
    assert {score: reference.score_inputs(score) for score in SCORES} == {
        "additive": ("dst_term", "src_term"),
        "additive_v2": ("query", "key", "att"),
        "dot": ("query", "key"),
        "cosine": ("query", "key", "dst_term", "src_term"),
        "supergat_mx": ("query", "key", "dst_term", "src_term"),
    }


def test_errors():
    graph = sample_graph("complete")
    x = torch.ones(5, 1, 2)
    with pytest.raises(ValueError, match=r"'mean_field'.*'additive'"):
        reference.edge_attention(graph, x, score="mean_field")
    with pytest.raises(ValueError, match=r"missing: \['key'\]"):
        reference.edge_attention(graph, x, score="dot", query=x)
    with pytest.raises(ValueError, match=r"not used: \['att'\]"):
        reference.edge_attention(graph, x, score="dot", query=x, key=x, att=x[0])
    with pytest.raises(ValueError, match=r"not used: \['edge_term'\]"):
        reference.edge_attention(graph, x, score="dot", query=x, key=x, edge_term=x[..., 0])
    with pytest.raises(ValueError, match="'row'"):
        reference.edge_softmax(graph, torch.ones(25), by="row")
    with pytest.raises(ValueError, match="'prod'"):
        reference.spmm(graph, x, reduce="prod")
    with pytest.raises(ValueError, match="'triangle'"):
        sample_graph("triangle")
    with pytest.raises(ValueError, match=r"torch\.int32"):
        testing.tolerance(torch.int32)


@pytest.mark.parametrize("module", [edges, reference.attention, reference.dense, testing])
def test_examples_in_the_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted >= 6 and result.failed == 0


def test_samples_repeat_and_need_no_grad_unless_asked():
    graph = sample_graph("unsorted")
    first, second = sample_inputs("dot", graph, seed=4), sample_inputs("dot", graph, seed=4)
    assert torch.equal(first["everything"]["query"], second["everything"]["query"])
    assert not torch.equal(first["plain"]["query"], sample_inputs("dot", graph)["plain"]["query"])
    assert not leaves(first["everything"])
    assert len(leaves(sample_inputs("dot", graph, requires_grad=True)["everything"])) == 5
