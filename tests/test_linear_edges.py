"""Edge features of a linear map: as edge_feat, without its memory."""

from __future__ import annotations

import pytest
import torch
from torch import func
from torch.testing import assert_close

from gat_ext import Graph, functional, nn
from gat_ext.ops.registry import ops
from gat_ext.ops.scores import TRAITS
from gat_ext.testing import GRAPHS, devices, sample_graph, tolerance

F64 = torch.float64
HEADS, CHANNELS, EDGE_CHANNELS = 2, 4, 3


def draw(*shape, dtype=F64, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=F64).to(device, dtype).requires_grad_()


def inputs(graph, dtype=F64, device="cpu"):
    """Query, key, value, edge_attr, edge_map."""
    sizes = (graph.num_dst, graph.num_src, graph.num_src)
    nodes = (
        draw(size, HEADS, CHANNELS, dtype=dtype, device=device, seed=seed)
        for seed, size in enumerate(sizes)
    )
    edge_attr = draw(graph.num_edges, EDGE_CHANNELS, dtype=dtype, device=device)
    return *nodes, edge_attr, draw(HEADS, CHANNELS, EDGE_CHANNELS, dtype=dtype, device=device)


def attend(score, graph, tensors, **options):
    """additive_v2 and supergat_mx add the features to keys alone, dot and cosine to values too."""
    query, key, value = tensors
    inputs = {"query": query, "key": key} | options
    if score == "additive_v2":
        inputs["att"] = torch.linspace(-1, 1, HEADS * CHANNELS).view(HEADS, CHANNELS).to(value)
    if score in ("cosine", "supergat_mx"):
        inputs["dst_term"] = query.detach()[..., 0].cos()
        inputs["src_term"] = key.detach()[..., 0].cos()
    in_value = score in ("dot", "cosine")
    return functional.edge_attention(graph, value, score=score, edge_in_value=in_value, **inputs)


def by_map(graph, tensors, score="dot", **options):
    *nodes, edge_attr, edge_map = tensors
    return attend(score, graph, nodes, edge_attr=edge_attr, edge_map=edge_map, **options)


def by_feat(graph, tensors, score="dot", **options):
    *nodes, edge_attr, edge_map = tensors
    edge_feat = torch.einsum("ek,hdk->ehd", edge_attr, edge_map)
    return attend(score, graph, nodes, edge_feat=edge_feat, **options)


def options_of(graph, device="cpu"):
    edges = graph.num_edges
    return {
        "plain": {},
        "scale": {"scale": 0.3},
        "bias": {"bias": draw(edges, HEADS, device=device)},
        "one bias": {"bias": draw(edges, device=device)},
        "a column of biases": {"bias": draw(edges, 1, device=device)},
        "dropout": {"dropout_p": 0.5, "seed": torch.tensor([7], device=device)},
        "top_k": {"top_k": 2},
        "edge_mask": {"edge_mask": draw(edges, device=device)},
        "mask of heads, dropout": {
            **{"edge_mask": draw(edges, HEADS, device=device), "dropout_p": 0.3},
            "seed": torch.tensor([5], device=device),
        },
    }


SCORES = [name for name, traits in TRAITS.items() if traits.has_term]


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("name", GRAPHS)
def test_equals_edge_feat(name, score, device):
    graph = sample_graph(name, device)
    if score not in ("dot", "additive_v2") and name != "unsorted":
        pytest.skip("the other scores share their kernels with dot")
    tensors = inputs(graph, device=device)
    for what, options in options_of(graph, device).items():
        flags = {"return_weights": True, "return_lse": True, "score": score}
        ours = by_map(graph, tensors, **options, **flags)
        theirs = by_feat(graph, tensors, **options, **flags)
        given = [*tensors, *(t for t in options.values() if isinstance(t, torch.Tensor))]
        wanted = [t for t in given if t.requires_grad]
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b, msg=what)
        finite = [(t, t.isfinite()) for t in ours]
        upstream = [torch.where(ok, torch.randn_like(t), 0) for t, ok in finite]
        found, expected = (
            torch.autograd.grad(list(r), wanted, upstream, allow_unused=True)
            for r in (ours, theirs)
        )
        for a, b in zip(found, expected, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert_close(a, b, msg=what)


@pytest.mark.parametrize("score", ["dot", "additive_v2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype, score):
    graph = sample_graph("unsorted")
    tensors = inputs(graph, dtype)
    exact = by_feat(graph, [t.detach().double() for t in tensors], score)
    out = by_map(graph, tensors, score)
    assert out.dtype == dtype
    bounds = tolerance(dtype)
    assert_close(out.double(), exact, rtol=4 * bounds["rtol"], atol=8 * bounds["atol"])
    with torch.autocast("cpu", torch.bfloat16):
        assert by_map(graph, inputs(graph, torch.float32), score).dtype == torch.bfloat16


def test_flags():
    graph = sample_graph("unsorted")
    tensors = inputs(graph)
    out, weights, lse = by_map(graph, tensors, return_weights=True, return_lse=True)
    assert torch.equal(by_map(graph, tensors), out)
    assert torch.equal(by_map(graph, tensors, return_weights=True).weights, weights)
    assert torch.equal(by_map(graph, tensors, return_lse=True).lse, lse)


@pytest.mark.parametrize("score", ["dot", "additive_v2"])
def test_gradients(score):
    graph = sample_graph("unsorted")
    tensors = inputs(graph)
    assert torch.autograd.gradcheck(lambda *t: by_map(graph, t, score), tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *t: by_map(graph, t, score), tensors, fast_mode=True)


@pytest.mark.parametrize("score", ["dot", "additive_v2"])
def test_transforms_and_compile(score):
    """vmap over a node tensor, over the features of edges, and of gradients; jvp; compile."""
    graph = sample_graph("unsorted")
    tensors = [t.detach() for t in inputs(graph)]
    expected = by_feat(graph, tensors, score)
    for place, tensor in enumerate(tensors):

        def ours(t, attend=by_map, place=place):
            return attend(graph, [*tensors[:place], t, *tensors[place + 1 :]], score)

        def theirs(t, ours=ours):
            return ours(t, attend=by_feat)

        batch = torch.stack([tensor, 2 * tensor])
        assert_close(func.vmap(ours)(batch), torch.stack([theirs(t) for t in batch]))
        slope, of_batch = (
            func.vmap(func.grad(lambda t, f=f: f(t).sin().sum())) for f in (ours, theirs)
        )
        assert_close(slope(batch), of_batch(batch))
        assert_close(func.jvp(ours, (tensor,), (tensor,)), func.jvp(theirs, (tensor,), (tensor,)))
    compiled = torch.compile(
        lambda *t: by_map(graph, t, score), fullgraph=True, backend="aot_eager"
    )
    assert_close(compiled(*tensors), expected)


def test_gradients_are_bitwise_equal_for_any_number_of_threads(request):
    graph = Graph(torch.randint(500, (2, 30_000), generator=torch.Generator().manual_seed(0)))
    tensors = inputs(graph, torch.float32)
    # CUDA's gradients of edge_attr and edge_map are torch's products of matrices, which may
    # depend on the number of threads where a CPU runs them.
    emulated = request.config.getoption("--cuda-emulation")
    checked = tensors[:3] if emulated else tensors
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        for score in ("dot", "additive_v2"):
            out = by_map(graph, tensors, score)
            found.append([out, *torch.autograd.grad(out.sin().sum(), checked)])
    for once, again in zip(found[:2], found[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


LAYERS = [nn.TransformerConv, nn.GATv2Conv]


@pytest.mark.parametrize("kind", LAYERS)
def test_the_layer_allocates_no_features_of_edges_and_heads(kind, monkeypatch):
    """A hook on lin_edge, which reads them, gets them; the results are equal."""
    graph = sample_graph("unsorted")
    options = {} if kind is nn.TransformerConv else {"add_self_loops": False}
    layer = kind(5, CHANNELS, HEADS, edge_dim=EDGE_CHANNELS, **options).double()
    x, edge_attr = draw(graph.num_src, 5), draw(graph.num_edges, EDGE_CHANNELS)
    calls, fused = [], ops.edge_attention
    monkeypatch.setattr(ops, "edge_attention", lambda *a: (calls.append(a), fused(*a))[1])
    out = layer(x, graph, edge_attr)
    seen = []
    hook = layer.lin_edge.register_forward_hook(lambda _, args, out: seen.append(out.shape))
    hooked = layer(x, graph, edge_attr)
    hook.remove()
    assert_close(out, hooked)
    assert seen == [(graph.num_edges, HEADS * CHANNELS)]
    largest = [max(t.numel() for t in call if isinstance(t, torch.Tensor)) for call in calls]
    features = graph.num_edges * HEADS * CHANNELS
    assert largest[1] == features > largest[0]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("wants_edges", [False, True])
def test_memory_does_not_grow_with_edges_times_channels(wants_edges, kind):
    """Twice the channels allocate as much more as they do without edges."""
    edges = torch.randint(50, (2, 20_000), generator=torch.Generator().manual_seed(0))

    def allocated(channels, edge_dim):
        layer = kind(8, channels, HEADS, edge_dim=edge_dim)
        attr = [] if edge_dim is None else [torch.randn(20_000, edge_dim)]
        for t in attr:
            t.requires_grad_(wants_edges)
        x = torch.randn(50, 8)
        layer(x, edges, *attr)  # caches the graph
        with torch.profiler.profile(profile_memory=True) as profile:
            layer(x, edges, *attr).sum().backward()
        return sum(max(e.self_cpu_memory_usage, 0) for e in profile.key_averages())

    growth = allocated(64, 4) - allocated(32, 4)
    without = allocated(64, None) - allocated(32, None)
    assert growth - without < 20_000 * HEADS * 32 * 4 / 8


BAD = [
    ({"edge_map": None}, ValueError, "edge_attr and edge_map go together"),
    ({"edge_attr": None}, ValueError, "edge_attr and edge_map go together"),
    ({"edge_feat": torch.ones(17, 2, 4)}, ValueError, "in place of edge_feat"),
    ({"edge_map": torch.ones(2, 5, 3)}, ValueError, r"edge_map has shape \[2, 5, 3\]"),
    ({"edge_map": torch.ones(2, 4, 2)}, ValueError, r"edge_map has shape .* expected \[2, 4, 3\]"),
    ({"edge_attr": torch.ones(16, 3)}, ValueError, r"expected \[17, K\]"),
    ({"edge_attr": torch.ones(17)}, ValueError, r"edge_attr has shape \[17\]; expected \[17, K\]"),
    ({"edge_attr": torch.ones(17, 3, dtype=F64)}, TypeError, "cast"),
    ({"value": torch.ones(9, 2, 5)}, ValueError, "expects 5 channels"),
    ({"bias": torch.ones(17, 3)}, ValueError, "bias"),
    ({"bias": torch.ones(16)}, ValueError, r"bias has shape \[16\]"),
    ({"return_weights": 1}, TypeError, "return_weights is a int"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_refused(case):
    changed, error, words = BAD[case]
    good = {
        **{"query": torch.ones(4, 2, 4), "key": torch.ones(9, 2, 4), "value": torch.ones(9, 2, 4)},
        **{"edge_attr": torch.ones(17, 3), "edge_map": torch.ones(2, 4, 3)},
    }
    graph = sample_graph("more_sources")
    functional.dot_attention(graph, **good)
    with pytest.raises(error, match=words):
        functional.dot_attention(graph, **(good | changed))


@pytest.mark.parametrize("kind", LAYERS)
def test_hooks_of_all_modules_see_lin_edge(kind):
    layer, seen = kind(5, CHANNELS, HEADS, edge_dim=EDGE_CHANNELS), []
    hook = torch.nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(m))
    layer(torch.randn(9, 5), torch.randint(9, (2, 20)), torch.randn(20, EDGE_CHANNELS))
    hook.remove()
    assert layer.lin_edge in seen
