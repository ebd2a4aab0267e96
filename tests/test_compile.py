"""torch.compile: one program for graphs of any size, with the results of the eager call."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from layers import all_cases, full_cases, over, plain_cases
from torch.testing import assert_close

from gat_ext import Graph, functional, models, nn
from gat_ext.reference import SCORES, score_inputs

SIZES = [
    (10, 30),
    (12, 50),
    (40, 70),
    (7, 300),
    (5000, 9),
]  # nodes and edges, self-loops among them
FULL = full_cases("compile", typed=True)
WEIGHED = full_cases("compile", "weights", typed=True)
FORMS = ("graph", "edge_index", "int32")
# Other numbers, a missing bias or a constant beta do not change the trace.
SAME = {"negative_slope", "bias", "requires_grad"}
TRACED = [
    case
    for case in all_cases("compile", typed=True)
    if SAME.isdisjoint(case.options) and case.options != {"heads": 3}
]
MODELS = {
    "GAT": lambda: models.GAT(5, 8, 3),
    "GATv2": lambda: models.GATv2(5, 8, 3),
    "AGNN": lambda: models.AGNN(5, 8, 3),
    "GraphTransformer": lambda: models.GraphTransformer(5, 8, 3),
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def edges_of(num_nodes, num_edges, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num_nodes, (2, num_edges), generator=generator)


def adjacency(form, num_nodes, num_edges):
    edge_index = edges_of(num_nodes, num_edges)
    if form == "int32":
        return edge_index.int()
    return Graph(edge_index, num_nodes=num_nodes) if form == "graph" else edge_index


def gradients(loss, x, module):
    wanted = [x, *module.parameters()]
    return [g for g in torch.autograd.grad(loss, wanted, allow_unused=True) if g is not None]


def unless_slow(cases, each=1):
    """The cases, those after the first of each layer marked slow."""
    seen = Counter()
    for case in cases:
        seen[case.name.split()[0]] += 1
        marks = pytest.mark.slow if seen[case.name.split()[0]] > each else ()
        yield pytest.param(case, "edge_index", marks=marks)


@pytest.mark.one_in(5)
@torch._dynamo.config.patch(error_on_recompile=True, specialize_float=True)
@pytest.mark.parametrize(
    ("case", "form"),
    [
        *unless_slow(TRACED),
        *((case, "graph") for case in FULL),
    ],
    ids=str,
)
def test_layers_compile_once_for_all_sizes(case, form):
    """Values and gradients, for varying numbers of nodes and edges.

    Floats are constants from the start. Otherwise the compiler treats them as variable, finds that
    they cannot be and begins anew, which takes twice as long and is seen to work with the models.
    """
    layer = case.make().double()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for num_nodes, num_edges in SIZES:
        x = torch.randn(num_nodes, 5, dtype=torch.float64, requires_grad=True)
        edge_attr = case.edge_attr(num_edges, torch.float64, num_nodes)
        given = (x, adjacency(form, num_nodes, num_edges), *edge_attr)
        ours, plain = compiled(*given), layer(*given)
        assert_close(ours, plain)
        weights = torch.randn_like(plain)
        for mine, theirs in zip(
            gradients((ours * weights).sum(), x, layer),
            gradients((plain * weights).sum(), x, layer),
            strict=True,
        ):
            assert_close(mine, theirs)


@pytest.mark.one_in(4)
@torch._dynamo.config.patch(specialize_float=True)
@pytest.mark.parametrize(
    ("case", "form"),
    [(case, FORMS[number % 3]) for number, case in enumerate(WEIGHED)],
    ids=str,
)
def test_layers_compile_with_attention_weights(case, form):
    layer = case.make()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for num_nodes, num_edges in SIZES[:3]:
        given = torch.randn(num_nodes, 5), adjacency(form, num_nodes, num_edges)
        given += case.edge_attr(num_edges, num_nodes=num_nodes)
        out, (edge_index, alpha) = compiled(*given, return_attention_weights=True)
        plain_out, (plain_edges, plain_alpha) = layer(*given, return_attention_weights=True)
        assert_close(out, plain_out)
        assert torch.equal(edge_index, plain_edges) and edge_index.dtype == plain_edges.dtype
        assert_close(alpha, plain_alpha)


@pytest.mark.one_in(4)
@over(plain_cases("compile", "pairs"))
def test_bipartite_layers_compile(case):
    layer = case.make((5, 3))
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for num_src, num_dst, num_edges in [(9, 6, 20), (6, 9, 31), (30, 2, 40)]:
        x = torch.randn(num_src, 5), torch.randn(num_dst, case.layer.ends(5, 3)[1])
        edge_index = torch.stack(
            [torch.randint(num_src, (num_edges,)), torch.randint(num_dst, (num_edges,))]
        )
        assert_close(compiled(x, edge_index), layer(x, edge_index))


@pytest.mark.one_in(2)
@torch._dynamo.config.patch(error_on_recompile=True)
@pytest.mark.parametrize(
    ("name", "form"), [*((name, "edge_index") for name in MODELS), ("GAT", "graph")]
)
def test_models_compile_and_train(name, form):
    """With dropout: the compiled model draws seeds in the order of the eager one."""
    model = MODELS[name]()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for num_nodes, num_edges in SIZES:
        x = torch.randn(num_nodes, 5, requires_grad=True)
        edges = adjacency(form, num_nodes, num_edges)
        torch.manual_seed(3)
        ours = compiled(x, edges)
        torch.manual_seed(3)
        plain = model(x, edges)
        assert_close(ours, plain)
        mine, theirs = gradients(ours.sum(), x, model), gradients(plain.sum(), x, model)
        for a, b in zip(mine, theirs, strict=True):
            assert_close(a, b)


def test_automatic_dynamic_shapes_compile_twice():
    """By default torch compiles for the first size and, at the second one, for all sizes."""
    layer = nn.GATConv(5, 4)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for position, (num_nodes, num_edges) in enumerate(SIZES):
        with torch._dynamo.config.patch(error_on_recompile=position > 1):
            compiled(torch.randn(num_nodes, 5), edges_of(num_nodes, num_edges))


@over([case for case in FULL if case.name in ("GATConv", "AGNNConv")])
def test_inductor(case):
    layer = case.make()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for num_nodes, num_edges in SIZES[:3]:
        x = torch.randn(num_nodes, 5, requires_grad=True)
        given = x, edges_of(num_nodes, num_edges), *case.edge_attr(num_edges)
        ours, plain = compiled(*given), layer(*given)
        assert_close(ours, plain)
        for a, b in zip(
            gradients(ours.square().sum(), x, layer),
            gradients(plain.square().sum(), x, layer),
            strict=True,
        ):
            assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("score", SCORES)
def test_functional_compiles(score):
    names = score_inputs(score)

    def attend(x, edge_index):
        graph = Graph(edge_index, num_nodes=x.shape[0])
        if score == "dot":
            out, lse = functional.dot_attention(graph, x, x, x, return_lse=True)
            return out, lse
        if score == "cosine":
            return functional.cosine_attention(graph, x, top_k=2), x
        if score == "additive":
            term = x.sum(-1)
            bias = torch.linspace(0, 1, edge_index.shape[1]).unsqueeze(-1).expand(-1, 2)
            return functional.gat_attention(
                graph, x, term, term, bias=bias, edge_term=bias, return_weights=True
            )
        if score == "additive_v2":
            return functional.gatv2_attention(graph, x, x, torch.ones(2, 4)), x
        inputs = {"query": x, "key": x, "att": torch.ones(2, 4)}
        inputs |= {"dst_term": x.sum(-1), "src_term": x.mean(-1)}
        reads = {name: inputs[name] for name in names}
        return functional.edge_attention(graph, x, score=score, **reads), x

    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend="aot_eager")
    for num_nodes, num_edges in SIZES[:3]:
        x = torch.randn(num_nodes, 2, 4, requires_grad=True)
        edge_index = edges_of(num_nodes, num_edges)
        ours, plain = compiled(x, edge_index), attend(x, edge_index)
        assert_close(ours, plain)
        (mine,) = torch.autograd.grad(sum(t.sin().sum() for t in ours), x)
        (theirs,) = torch.autograd.grad(sum(t.sin().sum() for t in plain), x)
        assert_close(mine, theirs)


@pytest.mark.parametrize(("reduce", "heads"), [("sum", (2,)), ("mean", ()), ("max", (2,))])
def test_sparse_operators_compile(reduce, heads):
    def run(x, edge_index):
        graph = Graph(edge_index, num_nodes=x.shape[0])
        alpha = functional.edge_softmax(graph, functional.sddmm(graph, x, x))
        return functional.spmm(graph, x, alpha, reduce=reduce)

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    for num_nodes, num_edges in SIZES[:3]:
        x = torch.randn(num_nodes, *heads, 4, requires_grad=True)
        edge_index = edges_of(num_nodes, num_edges)
        ours, plain = compiled(x, edge_index), run(x, edge_index)
        assert_close(ours, plain)
        for a, b in zip(
            torch.autograd.grad(ours.sum(), x), torch.autograd.grad(plain.sum(), x), strict=True
        ):
            assert_close(a, b)


def test_compiled_edges_are_checked_at_each_call():
    layer = nn.GATConv(5, 4)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    x = torch.randn(6, 5)
    compiled(x, torch.tensor([[0, 1, 5], [1, 2, 3]]))
    with pytest.raises(IndexError, match=r"edge_index\[0\] contains 6; expected .* num_src=6"):
        compiled(x, torch.tensor([[0, 1, 6], [1, 2, 3]]))
    with pytest.raises(IndexError, match=r"edge_index\[1\] contains -1; expected .* at least 0"):
        compiled(x, torch.tensor([[0, 1, 2], [1, 2, -1]]))


def test_large_node_numbers_are_not_truncated():
    """A number above 32 bits whose low bits are a valid node."""
    edge_index = torch.tensor([[0, 2**32 + 1], [1, 0]])

    def gather(edge_index, x):
        return functional.spmm(Graph(edge_index, num_nodes=4), x)

    for run in (gather, torch.compile(gather, fullgraph=True, backend="aot_eager")):
        with pytest.raises(IndexError, match="4294967297"):
            run(edge_index, torch.ones(4, 3))


def test_a_compiled_graph_needs_its_number_of_nodes():
    with pytest.raises(Exception, match="in a compiled function; expected num_nodes"):
        torch.compile(lambda e: Graph(e).rowptr, fullgraph=True, backend="eager")(edges_of(4, 9))


@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_compiled_gradients_have_gradients():
    """As in learned force fields: the loss uses a gradient taken inside the compiled function."""
    layer = nn.GATv2Conv(5, 4, heads=2).double()

    def penalty(x, edge_index):
        energy = layer(x, edge_index).pow(2).sum()
        (force,) = torch.autograd.grad(energy, x, create_graph=True)
        return force.pow(2).sum()

    compiled = torch.compile(penalty, fullgraph=True, dynamic=True, backend="aot_eager")
    for num_nodes, num_edges in SIZES[:2]:
        x = torch.randn(num_nodes, 5, dtype=torch.float64, requires_grad=True)
        edge_index = edges_of(num_nodes, num_edges)
        ours, plain = compiled(x, edge_index), penalty(x, edge_index)
        assert_close(ours, plain)
        assert_close(gradients(ours, x, layer), gradients(plain, x, layer))


class Rewiring(torch.nn.Module):
    """Computes new edges for its second layer, as many as the first layer had."""

    def __init__(self):
        super().__init__()
        self.layer = nn.GATConv(5, 5)

    def forward(self, x, edge_index):
        nodes = x.shape[0]
        y = self.layer(x, (edge_index * 3 + 1) % nodes)
        return self.layer(y, (edge_index * 5 + (y.sum() > 1e9).long() + 2) % nodes)


def test_edges_computed_in_a_compiled_function():
    """Inductor writes the second edges into the memory of the first, which torch does not see."""
    model = Rewiring()
    x, edge_index = torch.randn(11, 5), torch.randint(11, (2, 40))
    with torch.no_grad():
        assert_close(torch.compile(model, fullgraph=True)(x, edge_index), model(x, edge_index))


def test_compiled_autocast():
    layer = nn.GATConv(5, 4, heads=2)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    x, edge_index = torch.randn(10, 5), edges_of(10, 30)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(compiled(x, edge_index), layer(x, edge_index))


def test_compiled_results_are_bitwise_those_of_eager():
    layer = nn.GATv2Conv(5, 4, heads=2, dropout=0.5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x, edge_index = torch.randn(30, 5), edges_of(30, 200)
    torch.manual_seed(1)
    ours = compiled(x, edge_index)
    torch.manual_seed(1)
    assert torch.equal(ours, layer(x, edge_index))
