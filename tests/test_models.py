"""The models: shapes, presets, depth, attention, reproducibility."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from gat_ext import Graph, models
from gat_ext.graph import self_loops
from gat_ext.testing import sample_graph

GRAPH = sample_graph("isolated")
X = torch.randn(GRAPH.num_nodes, 10, generator=torch.Generator().manual_seed(0))
NAMES = models.available()


def make(name, **options):
    torch.manual_seed(0)
    return models.build(name)(10, 4, 3, **options)


@pytest.mark.parametrize("num_layers", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_any_depth(name, num_layers):
    model = make(name, num_layers=num_layers)
    out = model(X, GRAPH)
    assert out.shape == (GRAPH.num_nodes, 3)
    out.square().sum().backward()
    missing = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert len(model.attention_weights(X, GRAPH)) == num_layers


@pytest.mark.parametrize("norm", [None, "layer", "batch"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", ["gat", "gatv2", "transformer"])
def test_residual_and_norm(name, residual, norm):
    model = make(name, num_layers=3, heads=2, out_heads=3, residual=residual, norm=norm)
    assert model(X, GRAPH).shape == (GRAPH.num_nodes, 3)
    for kind, asked in (
        (torch.nn.LayerNorm, norm == "layer"),
        (torch.nn.BatchNorm1d, norm == "batch"),
    ):
        assert any(isinstance(m, kind) for m in model.modules()) == asked


@pytest.mark.parametrize("name", NAMES)
def test_attention_is_a_distribution(name):
    model = make(name)
    assert model.training
    for edges, alpha in model.attention_weights(X, GRAPH):
        total = torch.zeros(GRAPH.num_nodes, alpha.shape[1]).index_add(0, edges[1], alpha)
        reached = torch.zeros(GRAPH.num_nodes, dtype=torch.bool)
        reached[edges[1]] = True
        assert_close(total[reached], torch.ones_like(total[reached]))
        assert not alpha.requires_grad
    assert model.training


@pytest.mark.parametrize("name", NAMES)
def test_reproducible_and_restorable(name):
    model, again = make(name), make(name)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    torch.manual_seed(1)
    first = model(X, GRAPH)
    torch.manual_seed(1)
    assert torch.equal(first, again(X, GRAPH))
    fresh = models.build(name)(10, 4, 3)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(X, GRAPH), model.eval()(X, GRAPH.edge_index))


@pytest.mark.parametrize("name", [*NAMES, "gam", "gam-mem"])
def test_reset_parameters(name):
    """Every parameter is drawn again, as by the constructor."""

    def new():
        torch.manual_seed(0)
        if name in NAMES:
            return make(name, **({} if name == "agnn" else {"norm": "layer"}))
        return models.build_graphs(name)(3, 2)

    model, expected = new(), new().state_dict()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(7.0)
    model.reset_parameters()
    for key, value in model.state_dict().items():
        assert not (value == 7).any(), key
        assert_close(value.std(correction=0), expected[key].std(correction=0), rtol=0.5, atol=0.2)


@pytest.mark.parametrize("dataset", ["cora", "citeseer", "pubmed", "ppi", "digits"])
@pytest.mark.parametrize("name", NAMES)
def test_presets_run(name, dataset):
    model = models.build(name).preset(dataset, 10, 3)
    assert model(X, GRAPH).shape == (GRAPH.num_nodes, 3)


def test_presets_have_the_papers_shapes():
    def parameters(model):
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    # GAT on cora: 8 heads of 8 on 1433 features, 2 attention vectors, a bias; then 64 features to 7
    # classes.
    assert parameters(models.GAT.preset("cora", 1433, 7)) == 1433 * 64 + 3 * 64 + 64 * 7 + 3 * 7
    ppi = models.GAT.preset("ppi", 50, 121)
    assert [(c.heads, c.out_channels, c.concat, c.residual) for c in ppi.layers] == [
        (4, 256, True, False), (4, 256, True, True), (6, 121, False, False),
    ]  # fmt: skip
    assert [c.heads for c in models.GAT.preset("pubmed", 500, 3).layers] == [8, 8]
    # AGNN: two linear layers and a temperature for each learned propagation layer.
    linear = 1433 * 16 + 16 + 16 * 7 + 7
    assert parameters(models.AGNN.preset("cora", 1433, 7)) == linear + 1
    assert parameters(models.AGNN.preset("citeseer", 1433, 7)) == linear + 2


@pytest.mark.parametrize("name", NAMES)
def test_attention_weights_restore_training_mode(name):
    model = make(name)
    model.layers[0].eval()
    model.attention_weights(X, GRAPH)
    assert [m.training for m in (model, *model.layers)] == [True, False, True]


@pytest.mark.parametrize("name", ["gat", "gatv2", "agnn"])
def test_self_loops_are_added_once(name, monkeypatch):
    graph = Graph(GRAPH.edge_index, num_nodes=GRAPH.num_nodes)
    made, replaced = [], self_loops._replaced

    def counted(*args):
        made.append(args)
        return replaced(*args)

    monkeypatch.setattr(self_loops, "_replaced", counted)
    model = make(name, num_layers=3)
    for _ in range(2):
        model(X, graph)
    assert len(made) == 1


def test_dropout_of_inputs_attention_and_features():
    """Each of GAT's three dropouts changes training by itself, and none is active in evaluation."""
    off = {"dropout": 0.0, "attn_dropout": 0.0, "feat_dropout": 0.0}
    model = make("gat", **off)
    assert torch.equal(model(X, GRAPH), model(X, GRAPH))
    for which in off:
        model = make("gat", **off | {which: 0.5})
        assert not torch.equal(model(X, GRAPH), model(X, GRAPH))
        assert torch.equal(model.eval()(X, GRAPH), make("gat", **off)(X, GRAPH))


@pytest.mark.parametrize("name", NAMES)
def test_dropout_in_inference_mode(name):
    model = make(name)
    with torch.inference_mode():
        bags = (X > 1.5).float()
        assert not torch.equal(model(bags, GRAPH), model(bags, GRAPH))
    model(X, GRAPH).sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_learns(name):
    """A few steps fit the labels of a small graph."""
    model = make(name, dropout=0.0)
    labels = torch.arange(GRAPH.num_nodes) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(X, GRAPH), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.5 * losses[0]


def test_first_beta_of_zero_averages():
    model = models.AGNN(10, 4, 3, learn_first_beta=False)
    (edges, alpha), _ = model.attention_weights(X, GRAPH)
    degree = torch.bincount(edges[1])
    assert_close(alpha.flatten(), 1 / degree[edges[1]].float())


@pytest.mark.parametrize("name", NAMES)
def test_a_model_equals_itself_on_a_permuted_graph(name):
    model = make(name).eval()
    permutation = torch.randperm(GRAPH.num_nodes, generator=torch.Generator().manual_seed(4))
    inverse = permutation.argsort()
    moved = Graph(inverse[GRAPH.edge_index], num_nodes=GRAPH.num_nodes)
    assert_close(model(X[permutation], moved), model(X, GRAPH)[permutation])


BAD = [
    (lambda: models.build("gta"), "gat"),
    (lambda: models.GAT(10, 4, 3, num_layers=0), "num_layers is 0"),
    (lambda: models.GAT(10, 4, 3, dropout=1.5), "dropout is 1.5"),
    (lambda: models.GATv2(10, 4, 3, norm="bach"), "'batch'"),
    (lambda: models.AGNN(10, 4, 3, dropout=-1), "dropout is -1"),
    (lambda: models.AGNN(10, 0, 3), "hidden_channels is 0"),
    (lambda: models.AGNN(10, 4, 3)(X[:, :4], GRAPH), r"\[N, 10\]"),
    (lambda: models.GAT(10, 4, 3, attn_dropout=7), "dropout is 7"),
    (lambda: models.GAT(10, 4, 3)(X[:, :4], GRAPH), r"\[N, 10\]"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        call()
