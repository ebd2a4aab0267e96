"""Scores of any size: masks of large negative numbers, unnormalised features, the largest floats.

Features are small integers times powers of two, so that every score is exact in each dtype, and the
reference in float64 is what the results must agree with to rounding.
"""

from __future__ import annotations

import pytest
import torch
from layers import over, plain_cases

from gat_ext import Graph, functional, reference
from gat_ext.nn import AGNNConv
from gat_ext.testing import devices

SCORES = tuple(reference.SCORES)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NODES, HEADS, CHANNELS = 12, 2, 4
OF_EDGES = ("bias", "edge_term", "edge_feat")


def make_graph(device="cpu"):
    """Rows of 1 to 10 edges, the first third of which are duplicated."""
    pairs = torch.randperm(NODES * NODES, generator=torch.Generator().manual_seed(3))
    edges = torch.stack([pairs % NODES, pairs // NODES])
    edges = edges[:, (edges[0] == 0) | (edges[1] < NODES // 2)][:, :60]
    return Graph(twice(edges, 1).to(device), num_nodes=NODES)


def twice(of_edges, dim):
    return torch.cat([of_edges, of_edges.narrow(dim, 0, of_edges.shape[dim] // 3)], dim=dim)


def make_inputs(score, graph, dtype, *, size=1.0, grain=1.0, edge_feat=False):
    """Inputs with features that are integers times ``size``; scores are multiples of ``grain``."""
    generator = torch.Generator().manual_seed(7)

    def integers(*shape):
        return torch.randint(-2, 3, shape, generator=generator).double()

    def nodes(*shape):
        """Pairs of nodes with equal features: edges with equal scores and different values."""
        return integers(NODES // 2, *shape).repeat(2, *[1] * len(shape))

    inputs = {"value": size * torch.randn(NODES, HEADS, CHANNELS, generator=generator).double()}
    reads = reference.score_inputs(score)
    if "query" in reads:
        # The gate of supergat_mx is 0, 1/2 or 1 where dot products are multiples of 1024.
        features = {"supergat_mx": 32}.get(score, size)
        inputs["query"], inputs["key"] = (features * nodes(HEADS, CHANNELS) for _ in "xy")
        if edge_feat:
            inputs["edge_feat"] = features * twice(integers(60, HEADS, CHANNELS), 0)
    if "att" in reads:
        inputs["att"] = 4 * grain * integers(HEADS, CHANNELS)
    if "dst_term" in reads:
        for name in ("dst_term", "src_term"):
            numbers = nodes(HEADS)
            terms = {
                "additive": 4 * grain * size * numbers,
                "cosine": 2.0 ** numbers.clamp(-1, 1) / size,
            }
            inputs[name] = terms.get(score, 8 * grain * size * numbers)
    scale = {"dot": grain, "cosine": 4 * grain}.get(score, 1.0)
    inputs = {k: v.to(graph.device, dtype).requires_grad_() for k, v in inputs.items()}
    return inputs | {"score": score, "negative_slope": 0.25, "scale": scale}


def mask_of(graph, masked_with, dtype):
    """A bias on all edges of two rows, and on every other edge of a third."""
    _, dst = graph.edge_index
    odd = torch.arange(graph.num_edges, device=dst.device) % 2 == 1
    masked = (dst == 0) | (dst == 1) | ((dst == 2) & odd)
    bias = masked.to(dtype).unsqueeze(-1).expand(-1, HEADS) * masked_with
    return bias.clone().requires_grad_()


def results_of(attention, graph, inputs):
    """Outputs, then the first and second derivatives of a sum of them, by name."""
    out, weights, lse = attention(graph, **inputs, return_weights=True, return_lse=True)
    lse = torch.where(lse == -torch.inf, 0, lse)  # rows without edges
    found = {"out": out, "weights": weights, "lse": lse}
    generator = torch.Generator().manual_seed(11)

    def upstream(tensor):
        numbers = torch.randint(-4, 5, tensor.shape, generator=generator)
        return (numbers / 4).to(tensor.device, tensor.dtype)

    names = [k for k, v in inputs.items() if isinstance(v, torch.Tensor)]
    leaves = [inputs[k] for k in names]
    loss = sum((t * upstream(t)).sum(dtype=torch.float64) for t in (out, weights, lse))
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    found |= {f"d {k}": g for k, g in zip(names, first, strict=True)}
    loss = sum((g * upstream(g)).sum(dtype=torch.float64) for g in first)
    second = torch.autograd.grad(loss, leaves, allow_unused=True)
    found |= {f"dd {k}": g for k, g in zip(names, second, strict=True) if g is not None}
    return {k: v.detach() for k, v in found.items()}


def as_leaf(tensor, dtype):
    largest = torch.finfo(dtype).max
    return tensor.detach().cpu().double().clamp(-largest, largest).to(dtype).requires_grad_()


def check_against_reference(graph, inputs):
    """Within a few roundings of the largest element of the float64 reference, or as its float32.

    The second bound is for exact cancellation: a theoretical 0 is a rounding error in every dtype.
    """
    found = results_of(functional.edge_attention, graph, inputs)
    on_cpu = Graph(graph.edge_index.cpu(), num_nodes=NODES)
    in_float64 = inputs["value"].dtype == torch.float64
    expected, narrow = (
        results_of(
            reference.edge_attention,
            on_cpu,
            {k: as_leaf(v, dtype) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()},
        )
        for dtype in (torch.float64, torch.float32)
    )
    for name, want in expected.items():
        got = found[name].cpu().double()
        assert got.isfinite().all(), name
        rounding = torch.finfo(found[name].dtype).eps * float(want.abs().max())
        of_reference = float((narrow[name].double() - want).abs().max())
        if in_float64:
            of_reference *= torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
        allowed = 16 * (rounding + of_reference) + torch.finfo(found[name].dtype).tiny
        assert float((got - want).abs().max()) <= allowed, name


# The grain of the scores must be representable next to the mask.
MASKS = {
    "-1e4": (-1e4, 2.0**-6),
    "-1e7": (-1e7, 1.0),
    "-1e9": (-1e9, 64.0),
    "finfo.min": (None, 1.0),
}


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("score", SCORES)
def test_masked_rows(score, mask, dtype, device):
    graph = make_graph(device)
    masked_with, grain = MASKS[mask]
    if masked_with is None:
        masked_with = torch.finfo(dtype).min
    if masked_with < torch.finfo(dtype).min:
        pytest.skip(f"{dtype} has no {mask}")
    inputs = make_inputs(score, graph, dtype, grain=grain)
    check_against_reference(graph, inputs | {"bias": mask_of(graph, masked_with, dtype)})


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_rows_at_the_largest_numbers(dtype, device):
    graph = make_graph(device)
    inputs = make_inputs("dot", graph, dtype)
    for masked_with in (torch.finfo(dtype).max, torch.finfo(dtype).min, -1e30):
        check_against_reference(graph, inputs | {"bias": mask_of(graph, masked_with, dtype)})


SIZES = {"1e3": 2.0**10, "1e4": 2.0**13, "1e6": 2.0**20, "1e8": 2.0**27}


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("edge_feat", [False, True], ids=["", "edge_feat"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("score", SCORES)
def test_large_features(score, size, dtype, edge_feat, device):
    if dtype == torch.float16 and (score != "additive" or SIZES[size] > 2.0**10):
        pytest.skip("float16 holds no gradients of such features")
    if edge_feat and "key" not in reference.score_inputs(score):
        pytest.skip("has no features")
    graph = make_graph(device)
    inputs = make_inputs(score, graph, dtype, size=SIZES[size], edge_feat=edge_feat)
    check_against_reference(graph, inputs)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype, exponent", [(torch.float64, 400), (torch.float32, 50)], ids=str)
@pytest.mark.parametrize("score", [s for s in SCORES if s != "cosine"])  # bounded
def test_results_scale_exactly(score, dtype, exponent, device):
    """With a saturated softmax, results scale with features by the same powers of two."""
    graph, powers = make_graph(device), (27, exponent)
    found = []
    for power in powers:
        inputs = make_inputs(score, graph, dtype, size=2.0**power)
        leaves = [v for v in inputs.values() if isinstance(v, torch.Tensor)]
        out, weights = functional.edge_attention(graph, **inputs, return_weights=True)
        upstream = torch.linspace(-1, 1, out.numel(), dtype=dtype, device=device).view_as(out)
        found.append((weights, out, *torch.autograd.grad(out, leaves, upstream)))
    for small, large in zip(*found, strict=True):
        quotient = large / small
        factors = quotient[small != 0].unique().log2()
        assert large.isfinite().all() and ((large == 0) == (small == 0)).all()
        assert factors.numel() <= 1 and (factors % (exponent - 27) == 0).all()


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("edges", ["", "edge_feat", "edge_in_value"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("score", SCORES)
def test_gradients_of_the_only_edge_of_a_row_are_zero(score, dtype, edges, dropout_p, device):
    """Every pass sums a score, and delta its products, in one order: equal terms cancel exactly."""
    reads = reference.score_inputs(score)
    if edges and "key" not in reads:
        pytest.skip("has no features")
    generator = torch.Generator().manual_seed(5)
    nodes = 70
    src = torch.randint(nodes, (nodes,), generator=generator)
    graph = Graph(
        torch.stack([src, torch.randperm(nodes, generator=generator)]).to(device), num_nodes=nodes
    )

    def normal(*shape, size=1e3):
        return (size * torch.randn(*shape, generator=generator)).to(device, dtype).requires_grad_()

    for channels in (1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 31, 40, 64, 100, 300, 600):
        inputs = {"value": normal(nodes, 1, channels)}
        # Dot products of order one leave the gate of supergat_mx between 0 and 1.
        gated = score == "supergat_mx"
        features, terms = (channels**-0.25, 1e3) if gated else (1e3, 1)
        for name in ("query", "key"):
            if name in reads:
                inputs[name] = normal(nodes, 1, channels, size=features)
        if "att" in reads:
            inputs["att"] = normal(1, channels, size=1)
        for name in ("dst_term", "src_term"):
            if name in reads:
                inputs[name] = normal(nodes, 1, size=terms)
        if edges:
            inputs["edge_feat"] = normal(nodes, 1, channels, size=features)
        options = {"edge_in_value": edges == "edge_in_value", "dropout_p": dropout_p}
        out, weights = functional.edge_attention(
            graph, score=score, **inputs, **options, return_weights=True
        )
        kept = torch.tensor(1 / (1 - dropout_p), dtype=dtype)
        assert ((weights == 0) | (weights == kept)).all()
        # Dropped weights are 0; the factor of the others is rounded to 16 bits in returned weights.
        results = (out, weights) if dropout_p == 0 else (out,)
        grads = torch.autograd.grad(
            results,
            [t for name, t in inputs.items() if name not in ("value", "edge_feat")],
            [normal(*t.shape, size=1) for t in results],
        )
        for grad in grads:
            assert (grad == 0).all(), (channels, grad.abs().max())


# Additive scores of W_e e are differences of large products: less exact, in PyG, too.
CASES = plain_cases("large_scores", "pyg") + [
    case._replace(options={"heads": 2, "edge_dim": 4})
    for case in plain_cases("large_scores", "pyg", "edge_attr")
    if case.layer.operator != "gat_attention"
]


def error(found, expected):
    """The largest difference, relative to the largest element."""
    return float((found.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("size", [1e3, 1e4, 1e6, 1e8])
@over(CASES)
def test_layers_are_as_exact_as_those_of_pyg(case, size):
    """Scores of 1e4 to 1e17 have rounding errors, which PyG's layer has, too."""
    pytest.importorskip("torch_geometric.nn")
    torch.manual_seed(1)
    theirs, exact, ours = case.make_pyg(8, 6), case.make_pyg(8, 6), case.make(8, 6)
    exact.load_state_dict(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    exact.double()
    x, edges = size * torch.randn(200, 8), torch.randint(200, (2, 3200))
    edge_attr = [size * t for t in case.edge_attr(3200)]
    found = []
    for layer, dtype in ((exact, torch.float64), (theirs, torch.float32), (ours, torch.float32)):
        leaf = x.to(dtype).requires_grad_()
        out = layer(leaf, edges, *(t.to(dtype) for t in edge_attr))
        upstream = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
        found.append((out.detach(), *torch.autograd.grad(out, leaf, upstream)))
    expected, of_theirs, of_ours = found
    for want, their, our in zip(expected, of_theirs, of_ours, strict=True):
        assert error(our, want) <= 8 * error(their, want) + 1e-6


# ---- norms of any size

SIZES_OF_FEATURES = {
    torch.float32: (1e-9, 1.0, 1e10, 1e15, 1e18),
    torch.bfloat16: (1e-9, 1.0, 1e10, 1e15, 1e18),
    torch.float16: (1e-3, 1.0, 100.0, 1e3),
}


def features_of(large):
    """Features of which one vector is 0, and edges; few enough for torch's operators, or not."""
    generator = torch.Generator().manual_seed(5)
    nodes, channels = (1 << 14, 16) if large else (200, 8)
    x = torch.randn(nodes, channels, generator=generator, dtype=torch.float64)
    x[2] = 0
    edges = torch.randint(nodes, (2, 8 * nodes), generator=generator)
    return x, edges, torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view_as(x)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(dtype, size) for dtype, sizes in SIZES_OF_FEATURES.items() for size in sizes],
)
@pytest.mark.parametrize("large", [False, True])
def test_gradients_of_a_cosine_do_not_depend_on_norms(large, dtype, size):
    x, edges, upstream = features_of(large)
    x, found = (x * size).to(dtype), []
    for kind in (torch.float64, dtype):
        layer, leaf = AGNNConv().to(kind), x.to(kind).requires_grad_()
        out = layer(leaf, edges)
        found.append((out, *torch.autograd.grad(out, [leaf, layer.beta], upstream.to(kind))))
    (exact, exact_grad, _), (out, grad, of_beta) = found
    bound = 40 * torch.finfo(dtype).eps
    assert error(out.detach(), exact.detach()) < bound and error(grad, exact_grad) < bound
    assert of_beta.isfinite()


@pytest.mark.parametrize("size", [1.0, 1e10, 1e17])
@pytest.mark.parametrize("large", [False, True])
def test_second_derivatives_of_a_cosine(large, size):
    x, edges, upstream = features_of(large)
    x, found = (x * size).float(), []
    for kind in (torch.float64, torch.float32):
        layer, leaf = AGNNConv().to(kind), x.to(kind).requires_grad_()
        out = layer(leaf, edges)
        (first,) = torch.autograd.grad(out, leaf, upstream.to(kind), create_graph=True)
        found += torch.autograd.grad(first, leaf, upstream.flip(0).to(kind))
    assert error(found[1], found[0]) < 1e-5


def test_a_cosine_in_float16_by_autocast():
    x, edges, upstream = features_of(False)
    leaf = (1e3 * x).float().requires_grad_()
    with torch.autocast("cpu", torch.float16):
        out = AGNNConv()(leaf, edges)
    (grad,) = torch.autograd.grad(out, leaf, upstream.float())
    exact = leaf.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(AGNNConv().double()(exact, edges), exact, upstream)
    assert error(grad, expected) < 0.02


def test_a_threshold_of_norms_in_float16():
    """eps is compared with the norm that was given."""
    x = torch.tensor([[[3.0, 4.0]], [[0.3, 0.4]], [[30.0, 40.0]]])
    graph = Graph(torch.tensor([[0, 1, 2], [2, 2, 2]]))
    for eps in (0.0, 1.0, 10.0):
        narrow, wide = (
            functional.cosine_attention(graph, x.to(kind), eps=eps, return_weights=True)[1]
            for kind in (torch.float16, torch.float64)
        )
        torch.testing.assert_close(narrow.double(), wide, rtol=2e-3, atol=0)
