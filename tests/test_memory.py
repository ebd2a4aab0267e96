"""No operator, layer or model leaks memory in any mode: live bytes stay constant over calls."""

from __future__ import annotations

import gc

import pytest
import torch
from layers import full_cases, plain_cases
from live_memory import live_bytes
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from gat_ext import Graph, functional, models, nn
from gat_ext.ops.arguments import EdgeAttention
from gat_ext.ops.registry import ops
from gat_ext.reference import SCORES
from gat_ext.testing import sample_inputs

NODES, EDGES, HEADS, CHANNELS = 1_000, 4_000, 4, 8
CALLS = 6
ALLOWED = NODES * 4 // 2  # bytes per call: half of the smallest tensor with a number for each node


@pytest.fixture(scope="module", autouse=True)
def frozen():
    yield
    gc.unfreeze()


def growth(call):
    """Bytes that each call leaks, once caches are full."""
    torch.set_num_threads(1)
    for _ in range(2):
        call()
    for _ in range(3):
        before = live_bytes()
        for _ in range(CALLS):
            call()
        left = (live_bytes() - before) / CALLS
        if left < ALLOWED:
            break
    return left


def test_a_leak_is_seen():
    kept = []
    assert growth(lambda: kept.append(torch.zeros(NODES))) > ALLOWED
    assert growth(lambda: torch.zeros(NODES)) < ALLOWED


# ---- calls: name -> (function, its tensors)

RANDOM = torch.Generator().manual_seed(0)
EDGE_INDEX = torch.randint(NODES, (2, EDGES), generator=RANDOM)
GRAPH = Graph(EDGE_INDEX, num_nodes=NODES)
TYPES, STARTS = torch.arange(NODES) % 8, torch.arange(NODES)
SEED = torch.tensor([5])


def draw(*shape):
    return torch.randn(shape, generator=RANDOM).requires_grad_()


def attention(score, option, **results):
    inputs = sample_inputs(score, GRAPH, HEADS, CHANNELS, torch.float32, requires_grad=True)[option]
    leaves = {n: t for n, t in inputs.items() if isinstance(t, torch.Tensor) and t.requires_grad}
    fixed = {n: t for n, t in inputs.items() if n not in leaves}

    def call(*tensors):
        given = dict(zip(leaves, tensors, strict=True))
        out = functional.edge_attention(GRAPH, **fixed, **given, **results)
        return torch.cat([part.clamp(min=-9).flatten() for part in out]) if results else out

    return call, tuple(leaves.values())


def traced_attention(value, term, edges):
    csr = ops.adjacency_csr(edges, None, None, NODES, NODES, True, True, True)
    given = EdgeAttention(
        **dict(zip(EdgeAttention._fields, csr, strict=False)),
        **dict(value=value, dst_term=term, src_term=term, score="additive", edge_in_value=False),
        **dict(negative_slope=0.2, scale=1.0, dropout_p=0.0, top_k=2),
        **dict(return_weights=True, return_lse=True),
    )
    return ops.edge_attention(*given)[0]


def layer(module, *more):
    return lambda x: module(x, GRAPH, *more), (draw(NODES, HEADS * CHANNELS),)


X, SCORES_OF_EDGES = draw(NODES, HEADS, CHANNELS), draw(EDGES, HEADS)
WIDTH = HEADS * CHANNELS
torch.manual_seed(0)


def layer_case(case):
    heads = {"heads": HEADS} if "heads" in case.options else {}
    module = case.make(WIDTH, CHANNELS, **case.layer.random, **heads)
    return layer(module, *case.edge_attr(EDGES, num_nodes=NODES))


CALLED_LAYERS = (
    {case.name: layer_case(case) for case in plain_cases("memory", typed=True)}
    | {f"{case.name} of edges": layer_case(case) for case in full_cases("memory", "edge_attr")}
    | {
        "GAT": layer(models.GAT(WIDTH, CHANNELS, WIDTH)),
        "GraphTransformer": layer(models.GraphTransformer(WIDTH, CHANNELS, WIDTH)),
    }
)
OPERATORS = {
    f"edge_attention, {score}, {option}": attention(score, option)
    for score in SCORES
    for option in ("plain", "everything")
} | {
    "edge_attention with all results": attention(
        "dot", "top_k", return_weights=True, return_lse=True
    ),
    "traced attention": (
        lambda value, term: traced_attention(value, term, EDGE_INDEX),
        (X, draw(NODES, HEADS)),
    ),
    "edge_softmax": (lambda s: functional.edge_softmax(GRAPH, s), (SCORES_OF_EDGES,)),
    "sddmm": (lambda x, y: functional.sddmm(GRAPH, x, y), (X, draw(*X.shape))),
    "spmm": (lambda x, w: functional.spmm(GRAPH, x, w), (X, SCORES_OF_EDGES)),
    "spmm, mean": (lambda x: functional.spmm(GRAPH, x, reduce="mean"), (X,)),
    "spmm, max": (lambda x, w: functional.spmm(GRAPH, x, w, reduce="max"), (X, SCORES_OF_EDGES)),
    "walk_step": (
        lambda rank: functional.walk_step(GRAPH, STARTS, rank.exp(), TYPES, seed=SEED)[1],
        (draw(NODES, 8),),
    ),
    "linear": (ops.linear, (draw(NODES, WIDTH), draw(WIDTH, WIDTH), draw(WIDTH))),
    "add": (ops.add, (draw(NODES, WIDTH), draw(WIDTH))),
    "scale": (ops.scale, (X, draw(NODES, HEADS, 1))),
    "relu": (ops.relu, (X,)),
    "inverse_norm": (lambda x: ops.inverse_norm(x, 1e-6), (X,)),
    "dropout": (lambda x: ops.dropout(x, SEED, 0.3), (X,)),
}
CALLED = OPERATORS | CALLED_LAYERS


# ---- modes: functions of the call and its tensors


class Stop(Exception):
    """Interrupts a running pass."""


def loss(out):
    return (out * out).sum()


def backward(call, tensors):
    loss(call(*tensors)).backward()
    for tensor in tensors:
        tensor.grad = None


def forward(call, tensors):
    call(*tensors)


def without_gradients(call, tensors):
    with torch.no_grad():
        call(*tensors)
    with torch.inference_mode():
        call(*tensors)


def backward_twice(call, tensors):
    out = loss(call(*tensors))
    for _ in range(2):
        torch.autograd.grad(out, tensors, retain_graph=True)


def double_backward(call, tensors):
    grads = torch.autograd.grad(loss(call(*tensors)), tensors, create_graph=True)
    for retain in (True, False):
        torch.autograd.grad(sum(map(loss, grads)), tensors, allow_unused=True, retain_graph=retain)


def checkpointed(call, tensors):
    backward(lambda *t: checkpoint(call, *t, use_reentrant=False), tensors)
    checkpoint(call, *tensors, use_reentrant=False)  # without a backward pass


def checkpointed_to_the_end(call, tensors):
    def run(*t):
        with torch.utils.checkpoint.set_checkpoint_early_stop(False):
            return checkpoint(call, *t, use_reentrant=False)

    backward(run, tensors)


def checkpointed_reentrant(call, tensors):
    backward(lambda *t: checkpoint(call, *t, use_reentrant=True), tensors)


def checkpointed_block(call, tensors):
    """A layer before and one after, as in a network of such blocks."""

    def block(first, *rest):
        out = call(torch.nn.functional.layer_norm(first, first.shape[-1:]), *rest)
        return first + out if first.shape == out.shape else out.relu()

    backward(lambda *t: checkpoint(block, *t, use_reentrant=False), tensors)
    backward(
        lambda *t: checkpoint(block, *t, use_reentrant=False, preserve_rng_state=False), tensors
    )


def saved_on_cpu(call, tensors):
    with save_on_cpu():
        backward(call, tensors)


def saved_by_hooks(call, tensors):
    for pack in (lambda t: t, lambda t: t.detach().clone()):
        with saved_tensors_hooks(pack, lambda t: t):
            backward(call, tensors)


def stopped_while_saving(call, tensors):
    """A hook that raises at the first tensor, then at the second, and so on."""
    for last in range(100):
        seen = iter(range(last))

        def pack(tensor, seen=seen):
            if next(seen, None) is None:
                raise Stop
            return tensor.detach()

        try:
            with saved_tensors_hooks(pack, lambda t: t):
                call(*tensors)
        except Stop:
            continue
        return


def stopped_while_loading(call, tensors):
    def unpack(_):
        raise Stop

    with saved_tensors_hooks(lambda t: t.detach(), unpack):
        out = loss(call(*tensors))
    with pytest.raises(Stop):
        out.backward()


def stopped_in_backward(call, tensors):
    def stop(_):
        raise Stop

    out = call(*tensors)
    out.register_hook(stop)
    with pytest.raises(Stop):
        loss(out).backward()
    hook = tensors[0].register_hook(stop)
    with pytest.raises(Stop):
        loss(call(*tensors)).backward()
    hook.remove()


UNDER = [
    forward,
    without_gradients,
    backward,
    backward_twice,
    double_backward,
    checkpointed,
    checkpointed_to_the_end,
    checkpointed_reentrant,
    checkpointed_block,
    saved_on_cpu,
    saved_by_hooks,
    stopped_while_saving,
    stopped_while_loading,
    stopped_in_backward,
]


# A few layers, because layers consist of operators.
OF_LAYERS = [backward, double_backward, checkpointed_block, stopped_while_saving]
PAIRS = [
    pytest.param(
        name,
        under,
        id=f"{name}-{under.__name__}",
        marks=[] if name in OPERATORS or under in OF_LAYERS else [pytest.mark.slow],
    )
    for name in CALLED
    for under in UNDER
]


@pytest.mark.one_in(5)
@pytest.mark.parametrize(("name", "under"), PAIRS)
def test_no_memory_is_leaked(name, under):
    assert growth(lambda: under(*CALLED[name])) < ALLOWED


# ---- traced and transformed

COMPILED = ["GATConv", pytest.param("TransformerConv", marks=pytest.mark.slow), "spmm, max"]


@pytest.mark.parametrize("name", COMPILED)
def test_compiled(name):
    call, tensors = CALLED[name]
    compiled = torch.compile(call, backend="aot_eager", dynamic=True)
    assert growth(lambda: forward(compiled, tensors)) < ALLOWED
    assert growth(lambda: backward(compiled, tensors)) < ALLOWED


def transformed(call, tensors):
    """Gradients, tangents and vmap."""

    def first(x):
        return loss(call(x, *tensors[1:]))

    x = tensors[0].detach()
    torch.func.grad(first)(x)
    torch.func.grad(lambda t: loss(torch.func.grad(first)(t)))(x)
    torch.func.vmap(torch.func.grad(first))(x.expand(2, *x.shape))
    torch.func.jvp(first, (x,), (x,))


@pytest.mark.parametrize(
    "name", ["edge_attention, dot, plain", "edge_softmax", "sddmm", "spmm", "GATConv", "AGNNConv"]
)
def test_transformed(name):
    if name == "GATConv":  # without dropout, which needs vmap(randomness=…)
        call, tensors = layer(nn.GATConv(WIDTH, CHANNELS, heads=HEADS))
    else:
        call, tensors = CALLED[name]
    assert growth(lambda: transformed(call, tensors)) < ALLOWED


# ---- graphs and the cache


def new_graph():
    graph = Graph(EDGE_INDEX.clone(), num_nodes=NODES)
    for other in (graph, graph.reverse(), graph.add_self_loops()):
        other.transpose()
        other.in_degrees()


def new_edge_index():
    """Layers cache the graph of an edge_index as long as it lives."""
    conv = nn.GATConv(WIDTH, CHANNELS, heads=HEADS)
    (x,) = CALLED["GATConv"][1]
    for edges in (EDGE_INDEX.clone(), Graph(EDGE_INDEX, num_nodes=NODES)):
        backward(lambda x, edges=edges: conv(x, edges), (x,))


def new_edges_of_a_trace():
    traced_attention(X, draw(NODES, HEADS), EDGE_INDEX.clone())


def walks():
    functional.random_walk(GRAPH, STARTS, 5)
    functional.random_walk(GRAPH, STARTS, 5, weight=torch.rand(EDGES))


def walking_model():
    sizes = torch.arange(0, NODES + 1, NODES // 4)
    out = models.GAM(8, 3, num_steps=3)(GRAPH, TYPES, sizes)
    loss(out.logits).backward()


def reordered():
    (x,) = CALLED["GATConv"][1]
    conv = nn.Reordered(nn.GATConv(WIDTH, CHANNELS, heads=HEADS), method="degree")
    backward(lambda x: conv(x, EDGE_INDEX), (x,))


@pytest.mark.parametrize(
    "call",
    [new_graph, new_edge_index, new_edges_of_a_trace, walks, walking_model, reordered],
    ids=lambda f: f.__name__,
)
def test_no_graph_is_leaked(call):
    assert growth(call) < ALLOWED
