"""Edge masks: operators against the reference, layers against PyG's explain mechanism, models."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as pyg
from layers import all_cases, over, random_edges
from torch.testing import assert_close
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks

from gat_ext import Graph, functional, models, nn, reference
from gat_ext.ops.arguments import EdgeAttention
from gat_ext.ops.registry import ops
from gat_ext.testing import (
    SMALL_GRAPHS,
    devices,
    reference_inputs,
    sample_graph,
    sample_inputs,
    tolerance,
)

SCORES = tuple(reference.SCORES)
F64 = torch.float64


def random_mask(graph, heads, dtype=F64):
    """[E] or [E, heads], with negative numbers and zeros."""
    shape = (graph.num_edges,) if heads is None else (graph.num_edges, heads)
    mask = torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=F64)
    mask[::4] = 0
    return mask.to(graph.device, dtype).requires_grad_()


def leaves(inputs):
    return [v for v in inputs.values() if isinstance(v, torch.Tensor) and v.requires_grad]


# ---- the operator


@pytest.mark.one_in(7)
@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize(
    ("dtype", "heads"),
    [(F64, None), (F64, 1), (F64, 3), (torch.float32, 3), (torch.bfloat16, None)],
    ids=str,
)
@pytest.mark.parametrize("name", SMALL_GRAPHS)
@pytest.mark.parametrize("score", SCORES)
def test_equals_reference(score, name, heads, dtype, device):
    graph = sample_graph(name, device)
    variants = sample_inputs(score, graph, heads=3, channels=5, dtype=dtype, requires_grad=True)
    for variant, inputs in variants.items():
        if dtype == torch.bfloat16 and "top_k" in inputs:
            continue  # top_k may choose differently among scores that rounding makes equal
        given = inputs | {"edge_mask": random_mask(graph, heads, dtype)}
        truth = reference_inputs(graph, given, dtype=F64)
        results = functional.edge_attention(graph, **given, return_weights=True, return_lse=True)
        expected = reference.edge_attention(graph, **truth, return_weights=True, return_lse=True)
        assert torch.equal(results[0], functional.edge_attention(graph, **given)), variant
        # Weights and their gradients are rounded before the sum, relative to the largest.
        bounds = tolerance(dtype)
        bounds |= {"atol": 5 * bounds["atol"]} if dtype != F64 else {}
        generator = torch.Generator(device).manual_seed(2)
        upstream = [
            torch.randn(r.shape, generator=generator, dtype=F64, device=device)
            for r in expected[:2]
        ]
        sides = []
        for outs, arguments in ((results, given), (expected, truth)):
            u = [g.to(o.dtype) for g, o in zip(upstream, outs, strict=False)]
            sides.append(torch.autograd.grad(outs[:2], leaves(arguments), u))
        for ours, theirs in zip((*results, *sides[0]), (*expected, *sides[1]), strict=True):
            scale = max(1.0, theirs.abs().max().item() if theirs.numel() else 1.0)
            scale = scale if scale != torch.inf else 1.0
            assert_close(
                ours.to(F64) / scale,
                theirs.to(F64) / scale,
                **bounds,
                msg=lambda m, v=variant: f"{v}: {m}",
            )


@pytest.mark.one_in(5)
@pytest.mark.parametrize("heads", [None, 2])
@pytest.mark.parametrize("name", ["unsorted", "isolated", "more_sources"])
@pytest.mark.parametrize("score", SCORES)
def test_gradcheck_and_gradgradcheck(score, name, heads):
    graph = sample_graph(name)
    variants = sample_inputs(score, graph, heads=2, channels=2, requires_grad=True)
    for variant in ("plain", "dropout", "everything", "edge_in_value"):
        if variant not in variants:
            continue
        inputs = variants[variant] | {"edge_mask": random_mask(graph, heads)}
        tensors = {k: v for k, v in inputs.items() if isinstance(v, torch.Tensor) and k != "seed"}
        fixed = {k: v for k, v in inputs.items() if k not in tensors}

        def call(*values, tensors=tensors, fixed=fixed):
            given = dict(zip(tensors, values, strict=True))
            return functional.edge_attention(graph, **given, **fixed, return_weights=True)

        assert torch.autograd.gradcheck(call, tuple(tensors.values()), fast_mode=True), variant
        assert torch.autograd.gradgradcheck(call, tuple(tensors.values()), fast_mode=True), variant


@pytest.mark.parametrize("score", SCORES)
def test_ones_change_nothing_and_zeros_remove_a_message(score):
    graph = sample_graph("unsorted")
    inputs = sample_inputs(score, graph)["everything"]
    ones = torch.ones(graph.num_edges, dtype=F64)
    plain, plain_weights = functional.edge_attention(graph, **inputs, return_weights=True)
    assert_close(functional.edge_attention(graph, **inputs, edge_mask=ones), plain)
    without = ones.clone()
    without[5] = 0
    out, weights = functional.edge_attention(
        graph, **inputs, edge_mask=without, return_weights=True
    )
    assert torch.equal(weights[5], torch.zeros_like(weights[5]))
    assert torch.equal(weights[:5], plain_weights[:5])
    others = torch.arange(graph.num_dst) != graph.edge_index[1, 5]
    assert_close(out[others], plain[others])


def test_named_functions_take_the_mask():
    graph = sample_graph("unsorted")
    x, mask = torch.randn(8, 2, 3, dtype=F64), random_mask(graph, 2)
    term, att = torch.randn(8, 2, dtype=F64), torch.randn(2, 3, dtype=F64)
    for name, inputs in (
        ("gat_attention", (x, term, term)),
        ("gatv2_attention", (x, x, att)),
        ("dot_attention", (x, x, x)),
        ("cosine_attention", (x,)),
    ):
        ours, theirs = (
            getattr(module, name)(graph, *inputs, edge_mask=mask)
            for module in (functional, reference)
        )
        assert_close(ours, theirs)


@pytest.mark.parametrize("with_edges", [False, True])
def test_no_tensor_of_messages_is_kept(with_edges):
    """Backward keeps no tensor of E·H·F elements, except the given edge features."""
    graph = Graph(torch.randint(50, (2, 4000)), num_nodes=50)
    x = torch.randn(50, 4, 16, requires_grad=True)
    edge_feat = torch.randn(4000, 4, 16) if with_edges else None
    mask = torch.rand(4000, 4, requires_grad=True)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t
    ):
        out = functional.dot_attention(graph, x, x, x, edge_feat=edge_feat, edge_mask=mask)
    out.sum().backward()
    assert mask.grad is not None and x.grad is not None
    if with_edges:
        del kept[edge_feat.data_ptr()]
    assert max(t.numel() for t in kept.values()) == 4000 * 4


def test_bitwise_identical_for_any_number_of_threads():
    graph = sample_graph("long_row")
    inputs = sample_inputs("dot", graph, 2, 6, torch.float32, requires_grad=True)["everything"]
    inputs["edge_mask"] = random_mask(graph, 2, torch.float32)
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = functional.edge_attention(graph, **inputs)
            runs.append((out, *torch.autograd.grad(out.square().sum(), leaves(inputs))))
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_without_a_mask_the_fused_operator_runs_alone(monkeypatch):
    graph, x = sample_graph("unsorted"), torch.randn(8, 2, 3)
    monkeypatch.setattr("gat_ext.functional.fused.masked_sum", None)
    calls = []
    fused = ops.edge_attention
    monkeypatch.setattr(ops, "edge_attention", lambda *a: (calls.append(a), fused(*a))[1])
    functional.dot_attention(graph, x, x, x)
    (arguments,) = calls
    assert not EdgeAttention(*arguments).return_weights


def test_autocast():
    graph, x = sample_graph("unsorted"), torch.randn(8, 2, 3)
    mask = random_mask(graph, None, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = functional.dot_attention(graph, x, x, x, edge_mask=mask)
    assert out.dtype == torch.bfloat16
    expected = functional.dot_attention(graph, x, x, x, edge_mask=mask)
    assert_close(out.float(), expected, rtol=3e-2, atol=3e-2)


def compare_gradients(out, expected, inputs):
    assert_close(out, expected)
    upstream = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(out, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        assert_close(a, b)


@pytest.mark.parametrize("edge_in_value", [False, True])
def test_compiles_without_graph_breaks(edge_in_value):
    graph, x = sample_graph("unsorted"), torch.randn(8, 2, 3, requires_grad=True)
    mask = random_mask(graph, None, torch.float32)
    edge_feat = torch.randn(24, 2, 3) if edge_in_value else None

    def call(x, mask):
        return functional.dot_attention(graph, x, x, x, edge_feat=edge_feat, edge_mask=mask)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    compare_gradients(compiled(x, mask), call(x, mask), (x, mask))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("as_graph", [False, True])
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_layers_compile_without_graph_breaks(add_self_loops, as_graph):
    edges = random_edges(9, 9)
    layer = nn.GATConv(5, 4, heads=2, add_self_loops=add_self_loops)
    x = torch.randn(9, 5, requires_grad=True)
    mask = torch.randn(edges.shape[1], 2, requires_grad=True)
    given = Graph(edges, num_nodes=9) if as_graph else edges

    def call(x, mask):
        out, (_, alpha) = layer(x, given, return_attention_weights=True, edge_mask=mask)
        return torch.cat([out.flatten(), alpha.flatten()])

    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
        compare_gradients(compiled(x, mask), call(x, mask), (x, mask))


def test_gradient_of_torch_func():
    edges = random_edges(9, 9)
    layer, x = nn.GATConv(5, 4, heads=2).double(), torch.randn(9, 5, dtype=F64)
    mask = torch.randn(edges.shape[1], dtype=F64, requires_grad=True)

    def loss(mask):
        return layer(x, edges, edge_mask=mask).square().sum()

    (expected,) = torch.autograd.grad(loss(mask), mask)
    assert_close(torch.func.grad(loss)(mask.detach()), expected)
    several = torch.stack([mask, 2 * mask, mask - 1]).detach()
    losses = torch.stack([loss(m) for m in several]).detach()
    assert_close(torch.func.vmap(loss)(several).detach(), losses)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(23), ValueError, r"edge_mask has shape \[23\]; expected \[24, H\] or \[24\]"),
        (torch.ones(24, 3), ValueError, "edge_mask has 3 heads and value has 2"),
        (torch.ones(24, dtype=torch.complex64), TypeError, "edge_mask has dtype torch.complex64"),
        (torch.ones(24, dtype=F64), TypeError, "edge_mask has dtype torch.float64"),
        ([1.0] * 24, TypeError, "edge_mask is a list"),
    ],
    ids=str,
)
def test_faulty_masks_are_refused(mask, error, message):
    graph, x = sample_graph("unsorted"), torch.randn(8, 2, 3)
    with pytest.raises(error, match=message):
        functional.dot_attention(graph, x, x, x, edge_mask=mask)


# ---- the layers


@pytest.mark.parametrize("as_graph", [False, True])
@over(all_cases("edge_mask", "pyg", typed=True))
def test_layers_equal_pyg_explain(case, as_graph):
    torch.manual_seed(0)
    edges = random_edges(9, 9)
    ours, theirs = case.make().double(), case.make_pyg().double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(9, 5, dtype=F64, requires_grad=True)
    mask = torch.randn(edges.shape[1], dtype=F64, requires_grad=True)
    attr = case.edge_attr(edges.shape[1], F64)
    set_masks(theirs, mask, edges, apply_sigmoid=False)
    expected = theirs(x, edges, *attr)
    out = ours(x, Graph(edges, num_nodes=9) if as_graph else edges, *attr, edge_mask=mask)
    assert_close(out, expected)
    inputs = [mask, x]
    upstream = torch.randn_like(out)
    for a, b in zip(
        torch.autograd.grad(out, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        assert_close(a, b)
    clear_masks(theirs)
    assert not torch.allclose(theirs(x, edges, *attr), out)


@over(all_cases("edge_mask", "weights", typed=True))
def test_mask_heads_and_returned_weights(case):
    """The mask multiplies alpha in the caller's edge order; added self-loops keep their alpha."""
    torch.manual_seed(0)
    edges = random_edges(9, 9)
    layer = case.make().double()
    x, heads = torch.randn(9, 5, dtype=F64), case.heads
    mask = torch.randn(edges.shape[1], heads, dtype=F64)
    attr = case.edge_attr(edges.shape[1], F64)
    _, (index, alpha) = layer(x, edges, *attr, return_attention_weights=True)
    _, (same, masked) = layer(x, edges, *attr, return_attention_weights=True, edge_mask=mask)
    assert torch.equal(index, same)
    if case.replaces_loops:
        mask = torch.cat([mask[edges[0] != edges[1]], torch.ones(9, heads, dtype=F64)])
    assert_close(masked, alpha * mask.view(alpha.shape))


def test_bipartite_layers():
    edges = random_edges(11, 6)
    layer = nn.GATConv((5, 7), 4, heads=2).double()
    x = torch.randn(11, 5, dtype=F64), torch.randn(6, 7, dtype=F64)
    theirs = pyg.GATConv((5, 7), 4, heads=2, add_self_loops=False).double()
    layer.add_self_loops = False
    theirs.load_state_dict(layer.state_dict())
    mask = torch.randn(edges.shape[1], dtype=F64)
    set_masks(theirs, mask, edges, apply_sigmoid=False)
    assert_close(layer(x, edges, edge_mask=mask), theirs(x, edges))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(9), ValueError, r"edge_mask has shape \[9\]; GATConv.* expects \[33\]"),
        (torch.ones(42), ValueError, r"added self-loops are not masked"),
        (torch.ones(33, 3), ValueError, "edge_mask has 3 heads and value has 2"),
        (torch.ones(33, dtype=F64), TypeError, "edge_mask has dtype torch.float64"),
        ([1.0] * 33, TypeError, "edge_mask is a list"),
    ],
    ids=str,
)
def test_layers_refuse_faulty_masks(mask, error, message):
    layer, edges = nn.GATConv(5, 4, heads=2), random_edges(9, 9)
    with pytest.raises(error, match=message):
        layer(torch.randn(9, 5), edges, edge_mask=mask)


# ---- the models


MODELS = {
    "GAT": lambda: models.GAT(5, 4, 3, heads=2, num_layers=3),
    "GATv2": lambda: models.GATv2(5, 4, 3, heads=2, num_layers=3),
    "GraphTransformer": lambda: models.GraphTransformer(5, 4, 3, num_layers=3),
    "AGNN": lambda: models.AGNN(5, 4, 3, num_layers=3),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_pass_masks_on(name):
    torch.manual_seed(0)
    edges, x = random_edges(9, 9), torch.randn(9, 5)
    model = MODELS[name]().eval()
    plain, ones = model(x, edges), torch.ones(edges.shape[1])
    assert_close(model(x, edges, edge_mask=ones), plain)
    mask = torch.rand(edges.shape[1], requires_grad=True)
    everywhere = model(x, edges, edge_mask=mask)
    assert not torch.allclose(everywhere, plain)
    assert_close(model(x, edges, edge_mask=[mask] * 3), everywhere)
    (grad,) = torch.autograd.grad(everywhere.square().sum(), mask)
    assert grad.abs().sum() > 0
    seen = []
    for layer in model.layers:
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs.get("edge_mask")), with_kwargs=True
        )
    first, last = (torch.rand(edges.shape[1]) for _ in range(2))
    model(x, Graph(edges, num_nodes=9), edge_mask=(first, None, last))
    assert [s is m for s, m in zip(seen, (first, None, last), strict=True)] == [True] * 3


def test_reordered_models_take_masks_in_the_callers_order():
    torch.manual_seed(0)
    edges, x = random_edges(9, 9), torch.randn(9, 5)
    model, mask = MODELS["GAT"]().eval(), torch.rand(edges.shape[1])
    reordered = nn.Reordered(model, "degree")
    assert_close(reordered(x, edges, edge_mask=mask), model(x, edges, edge_mask=mask))


def test_models_require_a_mask_for_each_layer():
    edges = random_edges(9, 9)
    with pytest.raises(ValueError, match="edge_mask has 2 masks; expected one for each of the 3"):
        MODELS["GAT"]()(torch.randn(9, 5), edges, edge_mask=[None, None])
