"""Recorded attention matches the caller's edges; measures of it match dense formulas."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from layers import full_cases, over, plain_cases
from torch.testing import assert_close

from gat_ext import Graph, models, nn
from gat_ext.explain import (
    LayerAttention,
    attention_entropy,
    attention_rollout,
    draw_edges,
    match_edges,
    record_attention,
    top_edges,
)

F64 = torch.float64


def random_edges(num_nodes=9, seed=0, num_edges=30):
    """Multi-edges, self-loops (two at node 2), nodes without in-edges; not sorted."""
    generator = torch.Generator().manual_seed(seed)
    src = torch.randint(num_nodes, (num_edges,), generator=generator)
    dst = torch.randint(num_nodes - 2, (num_edges,), generator=generator)
    extra = torch.tensor([[0, 2, 2, 3], [0, 2, 2, 1]])
    return torch.cat([torch.stack([src, dst]), extra, torch.stack([src, dst])[:, :3]], dim=1)


EDGES = random_edges()


def features(num_nodes=9, width=5):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_nodes, width, generator=generator, dtype=F64)


MODELS = {
    "GAT": lambda: models.GAT(5, 4, 3, heads=2, num_layers=3),
    "GATv2": lambda: models.GATv2(5, 4, 3, heads=2, num_layers=3),
    "GraphTransformer": lambda: models.GraphTransformer(5, 4, 3, num_layers=3),
    "AGNN": lambda: models.AGNN(5, 4, 3, num_layers=3),
}


def recorded(name="GAT", edges=EDGES, num_nodes=9):
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    with record_attention(model) as layers:
        model(features(num_nodes), edges)
    return layers


# ---- recording


@pytest.mark.parametrize("name", MODELS)
def test_records_equal_the_attention_of_models(name):
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    expected_out, expected = model(features(), EDGES), model.attention_weights(features(), EDGES)
    with record_attention(model) as layers:
        out = model(features(), EDGES)
    assert torch.equal(out, expected_out)
    assert [layer.name for layer in layers] == ["layers.0", "layers.1", "layers.2"]
    for layer, (edge_index, alpha) in zip(layers, expected, strict=True):
        assert torch.equal(layer.edge_index, edge_index)
        assert torch.equal(layer.alpha, alpha)
        assert (layer.num_src, layer.num_dst, layer.num_given) == (9, 9, EDGES.shape[1])


class Custom(torch.nn.Module):
    """Positional arguments, weights requested by the module, a layer called twice, bipartite x."""

    def __init__(self):
        super().__init__()
        self.first = nn.GATConv(5, 5, edge_dim=2)
        self.inner = torch.nn.Sequential(torch.nn.Linear(5, 5))
        self.twice = nn.AGNNConv()
        self.last = nn.TransformerConv((5, 5), 3)

    def forward(self, x, edges, attr):
        x, (_, alpha) = self.first(x, edges, attr, None, True)
        assert alpha.shape[1] == 1
        x = self.twice(self.inner(self.twice(x, edges)), edges)
        return self.last((x, x[:4]), edges[:, edges[1] < 4])


def test_any_module_is_recorded():
    torch.manual_seed(0)
    model, attr = Custom().double(), torch.randn(EDGES.shape[1], 2, dtype=F64)
    expected = model(features(), EDGES, attr)
    with record_attention(model) as layers:
        assert torch.equal(model(features(), EDGES, attr), expected)
    assert [layer.name for layer in layers] == ["first", "twice", "twice", "last"]
    assert [(layer.num_src, layer.num_dst) for layer in layers] == [(9, 9)] * 3 + [(9, 4)]
    assert torch.equal(model(features(), EDGES, attr), expected)
    assert len(layers) == 4  # nothing is recorded outside of the block


def test_other_hooks_see_what_they_would_without():
    layer, seen = nn.GATConv(5, 4).double(), []
    layer.register_forward_hook(lambda _, args, out: seen.append(out))
    with record_attention(layer):
        layer(features(), EDGES)
        layer(features(), EDGES, return_attention_weights=True)
    assert isinstance(seen[0], torch.Tensor)
    assert len(seen[1]) == 2


def test_layers_keep_nothing_also_after_an_error():
    layer = nn.GATConv(5, 4).double()
    with record_attention(layer) as records:
        layer(features(), EDGES)
    alpha = weakref.ref(records[0].alpha)
    with pytest.raises(ValueError, match="expects"), record_attention(layer):
        layer(features(width=3), EDGES)
    assert not layer._forward_hooks and not layer._forward_pre_hooks
    del records
    gc.collect()
    assert alpha() is None


def test_gradients_flow_through_records():
    layer = nn.GATConv(5, 4, heads=2).double()
    with record_attention(layer) as records:
        layer(features(), EDGES)
    records[0].of_given_edges().square().sum().backward()
    assert layer.att_src.grad.abs().sum() > 0


@over([*plain_cases("weights"), *full_cases("weights", "edge_attr")])
def test_every_layer_is_recorded(case):
    """With what it returns when asked; and it returns what it would without."""
    layer, given = case.make().double(), (features(), EDGES, *case.edge_attr(EDGES.shape[1], F64))
    with record_attention(layer) as records:
        out = layer(*given)
    expected, (edges, alpha) = layer(*given, return_attention_weights=True)
    (record,) = records
    assert torch.equal(out, expected) and torch.equal(record.alpha, alpha)
    assert torch.equal(record.edge_index, edges)
    assert record.added.any() == case.replaces_loops


def test_modules_without_layers_are_refused():
    with (
        pytest.raises(ValueError, match="Linear has none of the layers"),
        record_attention(torch.nn.Linear(2, 2)),
    ):
        pass
    with pytest.raises(TypeError, match="model is a function"), record_attention(random_edges):
        pass


# ---- the caller's edges


@pytest.mark.parametrize("as_graph", [False, True])
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_weights_of_the_given_edges(add_self_loops, as_graph):
    torch.manual_seed(0)
    layer = nn.GATConv(5, 4, heads=2, add_self_loops=add_self_loops).double()
    given = Graph(EDGES, num_nodes=9) if as_graph else EDGES
    _, attention = layer(features(), given, return_attention_weights=True)
    matched = match_edges(attention, given)
    assert torch.equal(matched.added, matched.edge_id == -1)
    present = ~matched.added
    assert torch.equal(matched.edge_index[:, present], EDGES[:, matched.edge_id[present]])
    ours, loops = matched.of_given_edges(), matched.of_added_loops()
    expected, found = torch.zeros_like(ours), set()
    weight = dict(enumerate(attention[1]))
    if not add_self_loops:
        assert torch.equal(ours, attention[1]) and not loops.any()
        return
    rest = [e for e in range(EDGES.shape[1]) if EDGES[0, e] != EDGES[1, e]]
    for position, e in enumerate(rest):
        expected[e] = weight[position]
    for e in range(EDGES.shape[1]):
        node = int(EDGES[0, e])
        if EDGES[1, e] == node and node not in found:
            found.add(node)
            expected[e] = weight[len(rest) + node]
    assert torch.equal(ours, expected)
    assert 2 in found and len(found) < 9
    for node in range(9):
        own = 0 * weight[0] if node in found else weight[len(rest) + node]
        assert torch.equal(loops[node], own)
    total = loops.index_add(0, EDGES[1], ours)
    assert_close(total, torch.ones_like(total))
    assert torch.autograd.gradcheck(
        lambda a: (
            matched._replace(alpha=a).of_given_edges(),
            matched._replace(alpha=a).of_added_loops(),
        ),
        attention[1].detach().requires_grad_(),
    )


def test_given_loops_in_the_layers_place_are_the_callers():
    edges = torch.tensor([[0, 1, 0, 1, 2], [1, 2, 0, 1, 2]])
    _, attention = nn.AGNNConv()(torch.randn(3, 4), edges, return_attention_weights=True)
    matched = match_edges(attention, edges)
    assert matched.edge_id.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(matched.of_given_edges(), attention[1])


@pytest.mark.parametrize("num_edges", [0, 3])
def test_graphs_of_few_edges(num_edges):
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])[:, :num_edges]
    graph = Graph(edges, num_nodes=3)
    _, attention = nn.AGNNConv()(torch.randn(3, 4), graph, return_attention_weights=True)
    matched = match_edges(attention, graph)
    assert matched.edge_id.tolist() == [*range(num_edges), -1, -1, -1]
    assert matched.of_given_edges().shape == (num_edges, 1)


def test_other_edges_are_refused():
    _, attention = nn.AGNNConv()(features().float(), EDGES, return_attention_weights=True)
    for others in (EDGES.flip(0), EDGES[:, 1:]):
        with pytest.raises(ValueError, match="neither these"):
            match_edges(attention, Graph(others, num_nodes=9))


# ---- rollout


def dense(layer: LayerAttention, residual):
    """A of a layer, [N_dst, N_src]."""
    matrix = torch.zeros(layer.num_dst, layer.num_src, dtype=F64)
    src, dst = layer.edge_index
    matrix.index_put_((dst, src), layer.alpha.mean(1), accumulate=True)
    matrix = (1 - residual) * matrix + residual * torch.eye(layer.num_dst, layer.num_src, dtype=F64)
    total = matrix.sum(1, keepdim=True)
    return matrix / torch.where(total == 0, 1, total)


@pytest.mark.parametrize("residual", [0.5, 0.2, 0.0])
@pytest.mark.parametrize("name", MODELS)
def test_rollout_equals_the_dense_product(name, residual):
    layers = recorded(name)
    product = dense(layers[2], residual) @ dense(layers[1], residual) @ dense(layers[0], residual)
    everything = attention_rollout(layers, torch.arange(9), residual=residual)
    assert_close(everything, product)
    assert_close(attention_rollout(layers, [4, 0], residual=residual), product[[4, 0]])
    assert_close(attention_rollout(layers, 3, residual=residual), product[3])
    assert attention_rollout(layers, [], residual=residual).shape == (0, 9)
    if residual:
        assert_close(everything.sum(1), torch.ones(9, dtype=F64))


def test_rollout_through_blocks_of_a_mini_batch():
    """Destinations are the first of the sources."""
    torch.manual_seed(0)
    first, second = nn.GATConv((5, 5), 5).double(), nn.TransformerConv((5, 5), 3).double()
    x, near, far = features(9), random_edges(6, 1), random_edges(9, 2)
    near, far = near[:, near[1] < 4], far[:, far[1] < 6]
    with record_attention(torch.nn.ModuleList([first, second])) as layers:
        hidden = first((x, x[:6]), far)
        second((hidden, hidden[:4]), near)
    product = dense(layers[1], 0.5) @ dense(layers[0], 0.5)
    assert_close(attention_rollout(layers, torch.arange(4)), product)


def test_rollout_is_differentiable():
    layers = [layer._replace(alpha=layer.alpha.detach()) for layer in recorded()]

    def call(*alphas):
        given = [layer._replace(alpha=a) for layer, a in zip(layers, alphas, strict=True)]
        return attention_rollout(given, [1, 4])

    alphas = tuple(layer.alpha.clone().requires_grad_() for layer in layers)
    assert torch.autograd.gradcheck(call, alphas, fast_mode=True)


def test_rollout_makes_no_square_matrix():
    """N x N elements would take 320 GB."""
    num_nodes = 200_000
    edges = torch.randint(num_nodes, (2, 3 * num_nodes))
    alpha = nn.AGNNConv()(torch.randn(num_nodes, 2), edges, return_attention_weights=True)[1]
    layer = match_edges(alpha, Graph(edges, num_nodes=num_nodes))
    relevance = attention_rollout([layer] * 3, [1, 2])
    assert relevance.shape == (2, num_nodes)
    assert_close(relevance.sum(1), torch.ones(2))


@pytest.mark.parametrize(
    ("nodes", "error", "message"),
    [
        (9, IndexError, "node 9 does not exist; the last layer has 9"),
        ([0, -1], IndexError, "node -1 does not exist"),
        (torch.tensor([0.5]), TypeError, "dtype torch.float32; expected integers"),
        (torch.ones(9, dtype=torch.bool), TypeError, "dtype torch.bool"),
        (torch.tensor([[0]]), ValueError, "expected a node or a list"),
    ],
    ids=str,
)
def test_rollout_refuses_faulty_nodes(nodes, error, message):
    with pytest.raises(error, match=message):
        attention_rollout(recorded(), nodes)


def test_rollout_refuses_layers_that_do_not_follow_each_other():
    layers = recorded()
    with pytest.raises(ValueError, match="attention is empty"):
        attention_rollout([], 0)
    with pytest.raises(ValueError, match="order in which they run"):
        attention_rollout([layers[0], layers[1]._replace(num_src=10)], 0)
    with pytest.raises(ValueError, match="residual is 2"):
        attention_rollout(layers, 0, residual=2)


# ---- entropy


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_entropy_equals_the_dense_formula(name, normalize):
    for layer in recorded(name):
        expected = torch.zeros(9, layer.alpha.shape[1], dtype=F64)
        for node in range(9):
            into = layer.alpha[layer.edge_index[1] == node]
            value = -(into * into.log()).sum(0)
            if normalize:
                value = value / torch.tensor(len(into)).log() if len(into) > 1 else 0 * value
            expected[node] = value
        assert_close(attention_entropy(layer, normalize=normalize), expected)


def test_entropy_of_zeros_and_of_uniform_attention():
    edges = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0]])
    alpha = torch.tensor([[0.25, 1.0]] * 1 + [[0.25, 0.0]] * 3, dtype=F64, requires_grad=True)
    entropy = attention_entropy(
        match_edges((edges, alpha), Graph(edges, num_nodes=4)), normalize=True
    )
    assert_close(entropy[0], torch.tensor([1.0, 0.0], dtype=F64))
    assert not entropy[1:].any()
    (grad,) = torch.autograd.grad(entropy.sum(), alpha)
    assert grad.isfinite().all() and not grad[1:, 1].any() and grad[:, 0].all()


# ---- the strongest edges


def test_top_edges_of_one_layer():
    layer = recorded("GATv2")[0]
    for node in range(9):
        found = top_edges(layer, node, k=3)
        weights = layer.alpha.mean(1)
        into = [e for e in range(weights.numel()) if layer.edge_index[1, e] == node]
        best = sorted(into, key=lambda e: -weights[e])[:3]
        assert torch.equal(found.edge_index, layer.edge_index[:, best])
        assert torch.equal(found.alpha, weights[best])
        assert torch.equal(found.edge_id, layer.edge_id[best])
        assert found.hop.tolist() == [1] * len(best)


def test_top_edges_follow_their_sources_through_the_layers():
    layers = recorded("GraphTransformer")
    found = top_edges(layers, 5, k=2, hops=3)
    frontier, seen, expected = {5}, {5}, []
    for hop, layer in enumerate(reversed(layers), start=1):
        weights, chosen = layer.alpha.mean(1), []
        for node in frontier:
            into = [e for e in range(weights.numel()) if layer.edge_index[1, e] == node]
            chosen += sorted(into, key=lambda e: -weights[e])[:2]
        chosen.sort(key=lambda e: -weights[e])
        expected += [(*layer.edge_index[:, e].tolist(), hop, weights[e].item()) for e in chosen]
        frontier = {int(layer.edge_index[0, e]) for e in chosen} - seen
        seen |= frontier
    ours = [*zip(*found.edge_index.tolist(), found.hop.tolist(), found.alpha.tolist(), strict=True)]
    assert ours == expected
    assert {row[2] for row in ours} == {1, 2, 3}


def test_top_edges_of_nodes_without_any():
    layer = recorded("GraphTransformer")[0]
    found = top_edges(layer, 8, hops=2)
    assert found.edge_index.shape == (2, 0) and found.alpha.shape == (0,)


def test_top_edges_refuses_what_does_not_exist():
    layers = recorded()
    with pytest.raises(IndexError, match="node 9 does not exist"):
        top_edges(layers, 9)
    with pytest.raises(ValueError, match="hops is 4, but attention has 3 layers"):
        top_edges(layers, 0, hops=4)
    with pytest.raises(ValueError, match="k is 0"):
        top_edges(layers, 0, k=0)


# ---- the picture


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_picture_has_every_edge_and_node(tmp_path, suffix):
    from matplotlib.patches import Circle, FancyArrowPatch

    found = top_edges(recorded(), 2, k=4, hops=2)
    path = tmp_path / f"edges{suffix}"
    axes = draw_edges(found, path, labels=[f"n{i}" for i in range(9)])
    assert path.stat().st_size > 1000
    loops = int((found.edge_index[0] == found.edge_index[1]).sum())
    assert loops > 0 and len(axes.patches) == found.alpha.numel()
    kinds = [type(patch) for patch in axes.patches]
    assert kinds.count(Circle) == loops
    assert kinds.count(FancyArrowPatch) == found.alpha.numel() - loops
    nodes = {2, *found.edge_index.flatten().tolist()}
    assert {text.get_text() for text in axes.texts} == {f"n{i}" for i in nodes}
    widths = torch.tensor([patch.get_linewidth() for patch in axes.patches])
    assert torch.equal(widths.argsort(stable=True), found.alpha.detach().argsort(stable=True))
    places = {tuple(line.get_xydata()[0].round(6)) for line in axes.lines}
    assert len(places) == len(nodes)  # no node on top of another


def test_picture_in_given_axes():
    from matplotlib.figure import Figure

    left, _ = Figure().subplots(1, 2)
    assert draw_edges(top_edges(recorded(), 2), axes=left) is left
    empty = recorded("GraphTransformer")[0]
    assert not draw_edges(top_edges(empty, 8)).patches
