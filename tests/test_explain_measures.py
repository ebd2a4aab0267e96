"""Rollout, entropy and top edges of recorded attention against dense formulas; drawing."""

from __future__ import annotations

import pytest
import torch
from explained import F64, MODELS, features, random_edges, recorded
from torch.testing import assert_close

from gat_ext import Graph, nn
from gat_ext.explain import (
    LayerAttention,
    attention_entropy,
    attention_rollout,
    draw_edges,
    match_edges,
    record_attention,
    top_edges,
)

# ---- rollout


def dense(layer: LayerAttention, residual):
    """The matrix A of a layer, [N_dst, N_src]."""
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
    """Destinations are the first sources."""
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
    """An N x N matrix would take 320 GB."""
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
        (9, IndexError, "the number 9; expected 0 to 8"),
        ([0, -1], IndexError, "the number -1; expected 0 to 8"),
        (torch.tensor([0.5]), TypeError, "dtype torch.float32; expected integers"),
        (torch.ones(9, dtype=torch.bool), TypeError, "dtype torch.bool"),
        (torch.tensor([[0]]), ValueError, "expected a node or a list"),
    ],
    ids=str,
)
def test_rollout_refuses_faulty_nodes(nodes, error, message):
    with pytest.raises(error, match=message):
        attention_rollout(recorded(), nodes)


def test_rollout_refuses_layers_out_of_order():
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


def test_top_edges_continue_in_earlier_layers():
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


def test_top_edges_of_nodes_without_in_edges():
    layer = recorded("GraphTransformer")[0]
    found = top_edges(layer, 8, hops=2)
    assert found.edge_index.shape == (2, 0) and found.alpha.shape == (0,)


def test_top_edges_refuses_invalid_arguments():
    layers = recorded()
    with pytest.raises(IndexError, match="node is 9; expected 0 to 8"):
        top_edges(layers, 9)
    with pytest.raises(ValueError, match="hops is 4; expected at most 3"):
        top_edges(layers, 0, hops=4)
    with pytest.raises(ValueError, match="k is 0"):
        top_edges(layers, 0, k=0)


# ---- drawing


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_drawing_has_every_edge_and_node(tmp_path, suffix):
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


def test_drawing_into_given_axes():
    from matplotlib.figure import Figure

    left, _ = Figure().subplots(1, 2)
    assert draw_edges(top_edges(recorded(), 2), axes=left) is left
    empty = recorded("GraphTransformer")[0]
    assert not draw_edges(top_edges(empty, 8)).patches


def test_gradients_by_transforms():
    """torch.func.grad of the measures equals autograd."""
    layer = recorded()[0]
    for measure in (
        lambda alpha: attention_entropy(layer._replace(alpha=alpha)).sum(),
        lambda alpha: attention_rollout([layer._replace(alpha=alpha)], 2).square().sum(),
    ):
        alpha = layer.alpha.detach().requires_grad_()
        (expected,) = torch.autograd.grad(measure(alpha), alpha)
        assert expected.abs().max() > 0
        assert_close(torch.func.grad(measure)(alpha.detach()), expected)
