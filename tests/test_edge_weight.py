"""edge_weight of layers and models, masks of any number type, and biases that heads share."""

from __future__ import annotations

import pytest
import torch
from layers import all_cases, full_cases, over, plain_cases
from torch.testing import assert_close

from gat_ext import Graph, functional, models, nn, reference
from gat_ext.testing import devices, sample_graph, tolerance

F64 = torch.float64
NODES = 9


def random_edges():
    """Isolated nodes, multi-edges and self-loops included; not sorted."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(NODES - 2, (2, 25), generator=generator)
    return torch.cat([edges, torch.tensor([[0, 2, 2], [0, 3, 3]]), edges[:, :4]], dim=1)


# ---- edge_weight is edge_mask


@over(all_cases("edge_mask", typed=True))
def test_edge_weight_of_a_layer_is_its_edge_mask(case):
    torch.manual_seed(0)
    edges = random_edges()
    layer, x = case.make().double(), torch.randn(NODES, 5, dtype=F64)
    attr, weight = case.edge_attr(edges.shape[1], F64), torch.rand(edges.shape[1], dtype=F64)
    out = layer(x, edges, *attr, edge_weight=weight)
    assert torch.equal(out, layer(x, edges, *attr, edge_mask=weight))
    assert not torch.allclose(out, layer(x, edges, *attr))


def test_the_formula():
    """out_i is the sum of w_ij alpha_ij W x_j, alpha as without weights."""
    torch.manual_seed(0)
    edges = random_edges()
    layer = nn.GATConv(5, 4, heads=2, bias=False, add_self_loops=False).double()
    x = torch.randn(NODES, 5, dtype=F64)
    weight = torch.rand(edges.shape[1], dtype=F64, requires_grad=True)
    _, (_, alpha) = layer(x, edges, return_attention_weights=True)
    messages = (weight[:, None] * alpha).unsqueeze(-1) * layer.lin(x).view(-1, 2, 4)[edges[0]]
    expected = torch.zeros(NODES, 2, 4, dtype=F64).index_add(0, edges[1], messages).flatten(1)
    out = layer(x, edges, edge_weight=weight)
    assert_close(out, expected)
    upstream = torch.randn_like(out)
    assert_close(
        torch.autograd.grad(out, weight, upstream), torch.autograd.grad(expected, weight, upstream)
    )


@pytest.mark.parametrize("name", ["GAT", "GATv2", "GraphTransformer", "AGNN"])
def test_models_take_edge_weight(name):
    torch.manual_seed(0)
    edges, x = random_edges(), torch.randn(NODES, 5)
    model = getattr(models, name)(5, 4, 3).eval()
    weight = torch.rand(edges.shape[1])
    for given in (weight, [weight, None]):
        out = model(x, edges, edge_weight=given)
        assert torch.equal(out, model(x, edges, edge_mask=given))
    with pytest.raises(ValueError, match="edge_mask and edge_weight are two names"):
        model(x, edges, edge_mask=weight, edge_weight=weight)
    with pytest.raises(ValueError, match="edge_weight has 1 masks; expected one for each of the 2"):
        model(x, edges, edge_weight=[weight])
    with pytest.raises(TypeError, match="edge_weight is a float; expected a tensor"):
        model(x, edges, edge_weight=0.5)


def test_edge_weight_reaches_the_module_of_reordered():
    torch.manual_seed(0)
    edges, x = random_edges(), torch.randn(NODES, 5)
    layer, weight = nn.GATConv(5, 4), torch.rand(edges.shape[1])
    reordered = nn.Reordered(layer, "degree")
    assert_close(reordered(x, edges, edge_weight=weight), layer(x, edges, edge_weight=weight))


@over(plain_cases("edge_mask"))
def test_faulty_weights_are_refused_by_their_name(case):
    layer, edges, x = case.make(), random_edges(), torch.randn(NODES, 5)
    count = edges.shape[1]
    ones = torch.ones(count)
    with pytest.raises(ValueError, match="edge_mask and edge_weight are two names"):
        layer(x, edges, edge_mask=ones, edge_weight=ones)
    for weight, error, message in (
        (torch.ones(count + 1), ValueError, rf"edge_weight has shape \[{count + 1}\]"),
        (torch.ones(count, 7), ValueError, "edge_weight has 7 heads and value has"),
        (ones.double(), TypeError, "edge_weight has dtype torch.float64"),
        (ones.to(torch.complex64), TypeError, "edge_weight has dtype torch.complex64"),
        (ones.tolist(), TypeError, "edge_weight is a list"),
        (
            torch.ones(count, 2).to_sparse_csr(),
            TypeError,
            "edge_weight has layout torch.sparse_csr",
        ),
        (ones.to_sparse(), TypeError, "edge_weight has layout torch.sparse_coo"),
    ):
        with pytest.raises(error, match=message):
            layer(x, edges, edge_weight=weight)


def test_edge_weight_compiles():
    torch._dynamo.reset()
    layer, edges, x = nn.GATConv(5, 4, heads=2), random_edges(), torch.randn(NODES, 5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for weight in (torch.rand(edges.shape[1]), torch.rand(edges.shape[1]) > 0.5):
        assert_close(compiled(x, edges, edge_weight=weight), layer(x, edges, edge_weight=weight))


# ---- hard masks

NUMBERS = (torch.bool, torch.uint8, torch.int32, torch.int64)


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("heads", [None, 1, 2])
@over(full_cases("edge_mask"))
def test_layers_take_hard_masks(case, heads, dtype):
    torch.manual_seed(0)
    edges = random_edges()
    layer, x = case.make(), torch.randn(NODES, 5)
    count = edges.shape[1]
    attr = case.edge_attr(count)
    shape = (count,) if heads is None else (count, min(heads, case.heads))
    hard = torch.rand(shape) > 0.5
    for given in (edges, Graph(edges, num_nodes=NODES)):
        out = layer(x, given, *attr, edge_mask=hard.to(dtype))
        assert torch.equal(out, layer(x, given, *attr, edge_mask=hard.float()))
    batch = torch.stack([x, 2 * x])
    assert_close(
        layer(batch, edges, *attr, edge_mask=hard.to(dtype)),
        layer(batch, edges, *attr, edge_mask=hard.float()),
    )


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", NUMBERS, ids=str)
def test_operators_take_hard_masks(kind, dtype, device):
    graph = sample_graph("unsorted", device)
    x = torch.randn(8, 2, 3, dtype=dtype, device=device)
    hard = torch.arange(graph.num_edges, device=device) % 3 > 0
    out = functional.dot_attention(graph, x, x, x, edge_mask=hard.to(kind))
    assert out.dtype == dtype
    assert torch.equal(out, functional.dot_attention(graph, x, x, x, edge_mask=hard.to(dtype)))
    expected = reference.dot_attention(graph, x, x, x, edge_mask=hard.to(kind))
    assert_close(out, expected, **tolerance(dtype))


# ---- biases that heads share


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("column", [False, True], ids=["[E]", "[E, 1]"])
@pytest.mark.parametrize("name", ["gat", "gatv2", "dot", "cosine"])
def test_a_bias_for_all_heads(name, column, device):
    torch.manual_seed(0)
    graph = sample_graph("unsorted", device)
    x = torch.randn(8, 3, 4, dtype=F64, device=device, requires_grad=True)
    term = torch.randn(8, 3, dtype=F64, device=device)
    inputs = {"gat": (x, term, term), "gatv2": (x, x, x[0]), "dot": (x, x, x), "cosine": (x,)}
    shape = (graph.num_edges, 1) if column else (graph.num_edges,)
    bias = torch.randn(shape, dtype=F64, device=device, requires_grad=True)
    per_head = bias.view(-1, 1).expand(-1, 3)

    def call(module, bias):
        return getattr(module, f"{name}_attention")(
            graph, *inputs[name], bias=bias, return_weights=True
        )

    upstream = torch.randn(8, 3, 4, dtype=F64, device=device)

    def gradients(out):
        return torch.autograd.grad(out, (x, bias), upstream, create_graph=True)

    out, weights = call(functional, bias)
    grads = gradients(out)
    for module, given in ((functional, per_head), (reference, bias), (reference, per_head)):
        expected, expected_weights = call(module, given)
        assert_close((out, weights), (expected, expected_weights))
        assert_close(grads, gradients(expected))
    second = torch.autograd.grad(grads[0].square().sum(), bias)
    (expected,) = torch.autograd.grad(gradients(call(reference, bias)[0])[0].square().sum(), bias)
    assert_close(second[0], expected)
    assert bias.shape == grads[1].shape


def test_logarithms_of_weights_as_a_bias():
    """Weights inside the softmax: alpha_ij proportional to w_ij exp s_ij."""
    torch.manual_seed(0)
    graph, x = sample_graph("unsorted"), torch.randn(8, 2, 3, dtype=F64)
    weight = torch.rand(graph.num_edges, dtype=F64)
    _, plain = functional.dot_attention(graph, x, x, x, return_weights=True)
    _, biased = functional.dot_attention(graph, x, x, x, bias=weight.log(), return_weights=True)
    numerators, dst = weight[:, None] * plain, graph.edge_index[1]
    sums = torch.zeros(8, 2, dtype=F64).index_add(0, dst, numerators)
    assert_close(biased, numerators / sums[dst])


def test_a_shared_bias_under_compile_vmap_and_autocast():
    graph, x = sample_graph("unsorted"), torch.randn(8, 2, 3)
    bias = torch.randn(graph.num_edges)

    def call(bias):
        return functional.dot_attention(graph, x, x, x, bias=bias)

    expected = call(bias[:, None].expand(-1, 2))
    torch._dynamo.reset()
    assert_close(torch.compile(call, fullgraph=True, backend="aot_eager")(bias), expected)
    assert_close(torch.func.vmap(call)(bias[None])[0], expected)
    wide = bias[:, None].expand(-1, 2)
    grad_of_wide = torch.func.grad(lambda b: call(b).square().sum())(wide)
    grad = torch.func.grad(lambda b: call(b).square().sum())(bias)
    assert_close(grad, grad_of_wide.sum(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(call(bias).float(), expected, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("shape", [(23,), (24, 3), (23, 1), (1, 2), (24, 1, 1), ()], ids=str)
def test_faulty_biases_are_refused(shape):
    graph, x = sample_graph("unsorted"), torch.randn(8, 2, 3)
    with pytest.raises(
        ValueError, match=r"bias has shape \[.*expected \[24, 2\], \[24, 1\] or \[24\]"
    ):
        functional.dot_attention(graph, x, x, x, bias=torch.zeros(shape))
    with pytest.raises(TypeError, match=r"bias has dtype torch\.bool"):
        functional.dot_attention(graph, x, x, x, bias=torch.ones(24, dtype=torch.bool))
