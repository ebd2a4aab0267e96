"""Batches of features on one graph equal a loop over their elements."""

from __future__ import annotations

import pytest
import torch
from layers import all_cases, over, plain_cases, random_edges
from torch import Tensor
from torch.testing import assert_close

from gat_ext import Graph, models, nn
from gat_ext.explain import attention_rollout, match_edges, record_attention
from gat_ext.ops.registry import ops

F64 = torch.float64
# Bipartite inputs, without edge features, which both ends would share.
PAIRS = [
    case
    for case in all_cases("batch", "pairs")
    if not case.has_edges and not case.options.get("share_weights")
]


EDGES = random_edges()


def make(case, in_channels=5):
    torch.manual_seed(0)
    return case.make(in_channels).double(), case.edge_attr(EDGES.shape[1], F64)


def compare(batch, loop, inputs):
    """Equal values, and equal gradients of the inputs."""
    assert_close(batch, loop)
    upstream = torch.randn_like(loop)
    for a, b in zip(
        *(
            torch.autograd.grad(side, inputs, upstream, allow_unused=True, retain_graph=True)
            for side in (batch, loop)
        ),
        strict=True,
    ):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(a, b)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("masked", [None, 1, "heads"])
@over(all_cases("batch", typed=True))
def test_layers_equal_a_loop(case, masked, batch):
    layer, attr = make(case)
    x = torch.randn(batch, 9, 5, dtype=F64, requires_grad=True)
    shape = {None: (), 1: (), "heads": (case.heads,)}[masked]
    mask = torch.randn(EDGES.shape[1], *shape, dtype=F64, requires_grad=True)
    options = {"edge_mask": mask if masked else None, "return_attention_weights": True}
    out, (edge_index, alpha) = layer(x, EDGES, *attr, **options)
    loop = [layer(element, Graph(EDGES, num_nodes=9), *attr, **options) for element in x]
    inputs = [x, mask, *(p for p in layer.parameters())]
    compare(out, torch.stack([o for o, _ in loop]), inputs)
    compare(alpha, torch.stack([a for _, (_, a) in loop], 1), inputs)
    assert torch.equal(edge_index, loop[0][1][0])
    assert torch.equal(layer(x, EDGES, *attr, edge_mask=options["edge_mask"]), out)


@over(all_cases("batch", typed=True))
def test_several_axes_equal_one(case):
    layer, attr = make(case)
    x = torch.randn(2, 3, 9, 5, dtype=F64, requires_grad=True)
    out, (edge_index, alpha) = layer(x, EDGES, *attr, return_attention_weights=True)
    one_axis, (edges, weights) = layer(x.flatten(0, 1), EDGES, *attr, return_attention_weights=True)
    assert out.shape[:3] == (2, 3, 9) and alpha.shape[1:3] == (2, 3)
    assert torch.equal(edge_index, edges)
    compare(out.flatten(0, 1), one_axis, [x, *layer.parameters()])
    assert_close(alpha.flatten(1, 2), weights)


@pytest.mark.parametrize("shape", [(1,), (4,), (2, 3)])
@over([case for case in all_cases("batch") if case.has_edges])
def test_edge_features_of_each_element(case, shape):
    layer, (attr,) = make(case)
    x = torch.randn(*shape, 9, 5, dtype=F64, requires_grad=True)
    attr = attr if attr.dim() == 2 else attr[:, None]
    attr = (attr * torch.randn(*shape, 1, 1, dtype=F64)).requires_grad_()
    mask = torch.rand(EDGES.shape[1], dtype=F64)
    options = {"edge_mask": mask, "return_attention_weights": True}
    out, (_, alpha) = layer(x, EDGES, attr, **options)
    elements = zip(x.flatten(0, -3), attr.flatten(0, -3), strict=True)
    loop = [layer(element, EDGES, features, **options) for element, features in elements]
    inputs = [x, attr, *layer.parameters()]
    compare(out.flatten(0, -3), torch.stack([o for o, _ in loop]), inputs)
    compare(alpha.flatten(1, -2), torch.stack([a for _, (_, a) in loop], 1), inputs)


@over([case for case in all_cases("batch") if case.has_edges])
def test_edge_features_of_each_element_are_one_call(case, monkeypatch):
    layer, (attr,) = make(case)
    attr = (attr if attr.dim() == 2 else attr[:, None]).expand(3, -1, -1)
    calls, fused = [], ops.edge_attention
    monkeypatch.setattr(ops, "edge_attention", lambda *a: (calls.append(a), fused(*a))[1])
    layer(torch.randn(3, 9, 5, dtype=F64, requires_grad=True), EDGES, attr)
    assert len(calls) == 1


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "TransformerConv"])
def test_edge_features_of_each_element_compile_and_start_lazy(name):
    x, attr = torch.randn(2, 3, 9, 5), torch.randn(2, 3, EDGES.shape[1], 4)
    layer = getattr(nn, name)(-1, 4, heads=2, edge_dim=-1)
    expected = layer(x, EDGES, attr)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, EDGES, attr), expected)


@pytest.mark.parametrize(
    ("x", "shape", "message"),
    [
        ((9, 5), (2, -1, 4), "x is no batch; expected"),
        ((2, 9, 5), (3, -1, 4), r"x is a batch of shape \[2\]"),
        ((2, 3, 9, 5), (3, -1, 4), r"x is a batch of shape \[2, 3\]"),
        ((2, 9, 5), (2, -1, 3), r"edge_attr has shape \[2, 20, 3\]; expected \[B, 20, 4\]"),
        ((2, 9, 5), (2, 7, 4), r"edge_attr has shape \[2, 7, 4\]; expected \[B, 20, 4\]"),
    ],
)
@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "TransformerConv"])
def test_faulty_edge_features_of_elements(name, x, shape, message):
    count = EDGES.shape[1]
    attr = torch.randn([count if size == -1 else size for size in shape])
    with pytest.raises(ValueError, match=message.replace("20", str(count))):
        getattr(nn, name)(5, 4, edge_dim=4)(torch.randn(x), EDGES, attr)


@over(PAIRS)
@pytest.mark.parametrize("sizes", [(11, 6), (6, 11)])
def test_pairs_equal_a_loop(case, sizes):
    layer, _ = make(case, (5, 7))
    edges = random_edges(*sizes)
    x_src = torch.randn(3, sizes[0], 5, dtype=F64, requires_grad=True)
    channels = case.layer.ends(5, 7)[1]
    x_dst = torch.randn(3, sizes[1], channels, dtype=F64, requires_grad=True)
    loop = [layer(pair, edges) for pair in zip(x_src, x_dst, strict=True)]
    compare(layer((x_src, x_dst), edges), torch.stack(loop), [x_src, x_dst, *layer.parameters()])


def test_sources_alone():
    layer, edges = nn.GATConv((5, 7), 4, heads=2).double(), random_edges(9, 6)
    x = torch.randn(3, 9, 5, dtype=F64)
    out = layer((x, None), edges, size=(9, 6))
    loop = [layer((element, None), edges, size=(9, 6)) for element in x]
    assert_close(out, torch.stack(loop))


def test_gradgradcheck():
    layer, x = nn.GATConv(2, 2, heads=2).double(), torch.randn(2, 9, 2, dtype=F64)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda t: layer(t, EDGES), x, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda t: layer(t, EDGES), x, fast_mode=True)


@over([case for case in all_cases("batch") if not case.has_edges])
def test_the_batch_is_one_call_and_edges_are_not_copied(case, monkeypatch):
    layer, _ = make(case)
    calls = []
    for name in ("edge_attention", "spmm"):
        sums = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *a, sums=sums: (calls.append(a), sums(*a))[1])
    layer(torch.randn(50, 9, 5, dtype=F64, requires_grad=True), Graph(EDGES, num_nodes=9))
    (arguments,) = calls
    integers = [t for t in arguments if isinstance(t, torch.Tensor) and not t.is_floating_point()]
    assert len(integers) >= 5 and max(t.numel() for t in integers) <= EDGES.shape[1] + 9


def test_dropout_differs_between_elements():
    layer = nn.GATConv(5, 4, heads=2, dropout=0.5)
    x = torch.randn(9, 5).expand(6, 9, 5)
    _, (_, alpha) = layer(x, EDGES, return_attention_weights=True)
    dropped = (alpha == 0).flatten(2).transpose(0, 1)
    assert len({tuple(d.flatten().tolist()) for d in dropped}) == 6
    assert 0.4 < (alpha == 0).float().mean() < 0.6


MODELS = {
    "GAT": lambda: models.GAT(5, 4, 3, heads=2, residual=True, num_layers=3),
    "GAT of batch norm": lambda: models.GAT(5, 4, 3, heads=2, norm="batch"),
    "GATv2": lambda: models.GATv2(5, 4, 3, heads=2, norm="layer"),
    "GraphTransformer": lambda: models.GraphTransformer(5, 4, 3, norm="layer"),
    "AGNN": lambda: models.AGNN(5, 4, 3),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_equal_a_loop(name):
    torch.manual_seed(0)
    model, x = MODELS[name]().double(), torch.randn(4, 9, 5, dtype=F64)
    model(x, EDGES)  # in training mode, to update the running mean of the batch norm
    model.eval()
    assert_close(model(x, EDGES), torch.stack([model(element, EDGES) for element in x]))
    assert_close(model(x.view(2, 2, 9, 5), EDGES), model(x, EDGES).view(2, 2, 9, 3))
    mask = torch.rand(EDGES.shape[1], dtype=F64)
    masked = torch.stack([model(element, EDGES, edge_mask=mask) for element in x])
    assert_close(model(x, EDGES, edge_mask=mask), masked)
    for (_, alpha), *elements in zip(
        model.attention_weights(x, EDGES),
        *(model.attention_weights(element, EDGES) for element in x),
        strict=True,
    ):
        assert_close(alpha, torch.stack([a for _, a in elements], 1))


def test_batch_norm_sees_all_nodes_of_the_batch():
    model = models.GAT(5, 4, 3, heads=2, norm="batch", dropout=0, attn_dropout=0).double()
    x, seen = torch.randn(4, 9, 5, dtype=F64), []
    model.norms[0].register_forward_hook(lambda _, args, out: seen.append(out))
    model(x, EDGES)
    assert seen[0].shape == (36, 8)
    assert_close(seen[0].mean(0), torch.zeros(8, dtype=F64), atol=1e-9, rtol=0)


def test_compiles_without_graph_breaks():
    layer, graph = nn.GATConv(5, 4, heads=2), Graph(EDGES, num_nodes=9)
    x = torch.randn(3, 9, 5)
    expected = layer(x, graph)
    compiled = torch.compile(lambda x: layer(x, graph), fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), expected)


def test_explanations_of_a_batch():
    layer, x = nn.GATConv(5, 4, heads=2), torch.randn(3, 9, 5)
    with record_attention(layer) as records:
        layer(x, EDGES)
    (record,) = records
    assert (record.num_src, record.num_dst) == (9, 9)
    one = match_edges(layer(x[1], EDGES, return_attention_weights=True)[1], EDGES)
    assert_close(record.of_given_edges()[:, 1], one.of_given_edges())
    element = record._replace(alpha=record.alpha[:, 1])
    assert_close(attention_rollout([element], 0), attention_rollout([one._replace(num_src=9)], 0))
    with pytest.raises(ValueError, match="select one element of the batch"):
        attention_rollout(records, 0)


def test_reordered_refuses_a_batch():
    """Its rows are nodes; a batch of as many elements would be mistaken for them."""
    reordered = nn.Reordered(nn.GATConv(5, 4), "degree")
    with pytest.raises(ValueError, match=r"x has shape \[9, 9, 5\]; expected \[N, C\]"):
        reordered(torch.randn(9, 9, 5), EDGES)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.randn(0, 9, 5), "a batch of at least one element"),
        (torch.randn(2, 9, 4), r"x has shape \[2, 9, 4\]; .* expects \[N, 5\], or \[B, N, 5\]"),
        (torch.randn(2, 0, 9, 5), "a batch of at least one element"),
        ((torch.randn(2, 9, 5), torch.randn(9, 5)), "with the same B"),
        ((torch.randn(9, 5), torch.randn(2, 9, 5)), "with the same B"),
        ((torch.randn(2, 9, 5), torch.randn(3, 9, 5)), "with the same B"),
        ((torch.randn(2, 3, 9, 5), torch.randn(3, 2, 9, 5)), "with the same B"),
    ],
    ids=["empty", "channels", "no columns", "src", "dst", "differ", "transposed"],
)
@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "TransformerConv"])
def test_faulty_batches_are_refused(name, x, message):
    with pytest.raises(ValueError, match=message):
        getattr(nn, name)((5, 5), 4)(x, EDGES)


@over(plain_cases("batch"))
@pytest.mark.parametrize("form", [Tensor.to_sparse, Tensor.to_mkldnn])
def test_batches_in_other_layouts_are_refused(case, form):
    with pytest.raises(TypeError, match=r"is sparse|layout torch\.\S+; expected a dense batch"):
        case.make()(form(torch.randn(2, 9, 5)), EDGES)
