"""Random edges: uniform attention, the weights of edges, what train says, and gat-ext compare."""

from __future__ import annotations

import json
import statistics

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from gat_ext import datasets, training
from gat_ext.models import available, build
from gat_ext.nn import GATConv, SuperGATConv, TransformerConv
from gat_ext.training import Recipe, edge_weights, metrics, noise_study, plots
from gat_ext.training.cli import app
from gat_ext.training.edge_weights import EdgeWeights
from gat_ext.training.noise_study import Case, Study
from gat_ext.training.run import RunConfig

EDGES = torch.tensor([[0, 1, 2, 3, 3, 1], [1, 2, 1, 0, 1, 3]])


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "300"})


# ---- uniform attention


@pytest.mark.parametrize("edge_dim", [None, 3])
@pytest.mark.parametrize("name", available())
def test_uniform_attention_is_the_same_network_without_scores(name, edge_dim):
    if name == "agnn" and edge_dim is not None:
        pytest.skip("agnn sees no edge features")
    torch.manual_seed(0)
    options = {} if edge_dim is None else {"edge_dim": edge_dim}
    model = build(name)(5, 8, 2, **options)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert model.fix_uniform_attention() is model
    assert {key: value.shape for key, value in model.state_dict().items()} == shapes
    x, attr = torch.randn(4, 5), None if edge_dim is None else torch.randn(6, edge_dim)
    for edges, alpha in model.attention_weights(x, EDGES, edge_attr=attr):
        degree = edges[1].bincount()[edges[1]]
        torch.testing.assert_close(alpha * degree[:, None], torch.ones_like(alpha))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(x, EDGES, edge_attr=attr).square().sum().backward()
    optimizer.step()
    fixed = {key for key, value in model.state_dict().items() if value.equal(before[key])}
    ends = tuple(factor for layer in model.layers for factor in layer.score_factors)
    assert fixed and all(any(end in key for end in ends) for key in fixed)
    assert all((before[key] == 0).all() for key in fixed)


def test_uniform_attention_of_other_layers_is_refused():
    with pytest.raises(NotImplementedError, match="SuperGATConv names no score_factors; expected"):
        SuperGATConv(4, 2).fix_uniform_attention()
    lazy = TransformerConv(-1, 4)
    with pytest.raises(ValueError, match="has no sizes yet; expected a layer with sizes: call it"):
        lazy.fix_uniform_attention()
    assert all(p.requires_grad for p in lazy.parameters())
    GATConv(-1, 4).fix_uniform_attention()  # whose factors have their sizes


# ---- weights, entropies and pictures


def test_weights_of_edges():
    data = datasets.load("karate")
    random = torch.arange(data.num_edges) % 3 == 0
    object.__setattr__(data, "random_edges", random)
    alpha = torch.rand(data.num_edges, 2)
    loops = torch.arange(data.num_nodes).expand(2, -1)
    both = torch.cat([data.edge_index, loops], 1), torch.cat([alpha, torch.ones(34, 2)])
    layers = [both, (data.edge_index, 3 * alpha)]
    found = edge_weights.edge_weights(layers, data)
    mean = 2 * alpha.mean(1)
    alike = data.y[data.edge_index[0]] == data.y[data.edge_index[1]]
    chosen = (~random, random, random & alike)
    expected = EdgeWeights(*(mean[edges].mean().item() for edges in chosen))
    for name in ("true", "random", "random_alike", "ratio"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))
    degree = data.edge_index[1].bincount()[data.edge_index[1]]
    relative = edge_weights.relative_weights(layers, data.edge_index)
    torch.testing.assert_close(relative, alpha.mean(1) * ((degree + 1) + 3 * degree) / 2)
    assert edge_weights.mean_of([found, EdgeWeights(0.0, 0.0, 0.0)]).true == found.true / 2
    with pytest.raises(ValueError, match="attend over other edges"):
        edge_weights.relative_weights([(data.edge_index.flip(0), alpha)], data.edge_index)
    object.__setattr__(data, "random_edges", None)
    with pytest.raises(ValueError, match="karate has no random_edges"):
        edge_weights.edge_weights(layers, data)


@pytest.mark.parametrize(("tilt", "panels"), [(0.0, 1), (0.05, 1), (0.6, 6)])
def test_uniform_attention_is_one_panel_and_one_line(tilt, panels, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    edges = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
    side = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]
    alpha = 0.5 + torch.tensor([[tilt, 0.0, 0.0]]) * side / 2
    layers = [(edges, torch.full_like(alpha, 0.5)), (edges, alpha)]
    plots.attention(layers, 2, "title", tmp_path / "attention.png")
    assert sum(axes.has_data() for axes in drawn[0].axes) == panels
    assert len(metrics.remarks(layers, 2)) == (panels == 1)
    assert metrics.remarks([], 2) == []


# ---- gat-ext train


def test_train_by_default_compares_itself(tmp_path):
    first = run("train", "--epochs", 2, "--seeds", 2, "--noise", 0.5, "--out", tmp_path)
    assert first.exit_code == 0, first.output
    text = first.output
    assert "agnn on noisy_digits: 1797 nodes, 11652 edges" in text.replace("\n", " ")
    assert "The same network with uniform attention: " in text and "without the graph" in text
    names = {path.name for path in tmp_path.iterdir()}
    pictures = {"curves.png", "attention.png", "edges.png"}
    assert names == pictures | {"checkpoint.pt", "uniform.pt", "metrics.json"}
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["config"]["noise"] == 0.5 and report["config"]["options"] == {}
    twin = report["uniform_attention"]
    assert twin["config"]["options"] == {"attention": "uniform"} and len(twin["seeds"]) == 2
    assert [set(one) for one in report["edge_weights"]] == [{"true", "random", "random_alike"}] * 2
    saved = training.load(tmp_path)
    assert saved.data.num_edges == 11652 and saved.data.random_edges.sum() == 3884
    other = run("train", "--epochs", 2, "--seeds", 2, "--resume", "--out", tmp_path)
    assert other.exit_code == 1 and "--noise is 0.5 there and not set here" in other.output
    longer = run(
        *("train", "--epochs", 3, "--seeds", 2, "--noise", 0.5, "--resume", "--out", tmp_path)
    )
    assert longer.exit_code == 0, longer.output
    report = json.loads((tmp_path / "metrics.json").read_text())
    for one in (report, report["uniform_attention"]):
        assert [seed["epochs"] for seed in one["seeds"]] == [3, 3]


def test_train_uniform_attention_says_so(tmp_path):
    options = ("--dataset", "karate", "--epochs", 2, "--out", tmp_path)
    result = run("train", "gatv2", *options, "--attention", "uniform")
    assert result.exit_code == 0 and "Attention is uniform: the entropy" in result.output
    model = training.load(tmp_path).model
    assert isinstance(model, nn.Module) and all((layer.att == 0).all() for layer in model.layers)
    result = run("train", "gatv2", *options, "--epochs", 3, "--resume")
    assert result.exit_code == 1 and "--attention is uniform there and not set" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "--noise", "-1"), "not 0 or a positive number"),
        (("train", "--noise", "nan"), "not 0 or a positive number"),
        (
            ("train", "gat", "--dataset", "karate", "--noise", "1"),
            "it is of noisy_digits, not of k",
        ),
        (("train", "gam", "--noise", "1"), "it is for models that classify nodes"),
        (("train", "--attention", "sharp"), "choose one of learned, uniform"),
        (("train", "hgt", "--attention", "uniform"), "it is for models that classify nodes"),
        (("compare", "--noise", "0,-1"), "'0,-1' is not a list of numbers from 0"),
        (("compare", "--noise", "0,,1"), "'0,,1' is not a list of numbers from 0"),
        (("compare", "--noise", "inf"), "'inf' is not a list of numbers from 0"),
        (("compare", "--models", "gat,hgt"), "no model of nodes is called 'hgt'"),
        (("compare", "--models", ""), "no model of nodes is called ''"),
        (("compare", "--chart", "a.jpg"), "a.jpg is neither of .svg nor .png"),
        (("compare", "--out", "a.svg"), "--out and the chart are one file, a.svg"),
        (("compare", "--seeds", "0"), "seeds"),
    ],
    ids=lambda value: str(value),
)
def test_refused_options(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


# ---- gat-ext compare


@pytest.fixture
def measured(monkeypatch):
    """The cases that are measured, at once."""
    cases = []

    def measure(case, data, recipes):
        cases.append(case)
        if case.seed == 13:
            raise KeyboardInterrupt
        weights = [0.3, 0.1, 0.2] if case.noise and case.attention == "learned" else []
        return noise_study.Outcome(0.9 + case.seed / 100, 0.8, weights)

    monkeypatch.setattr(noise_study, "_measure", measure)
    monkeypatch.setattr(datasets, "load", lambda name, **options: None)
    return cases


def compare(folder, *more):
    arguments = ("--models", "agnn,gat", "--noise", "0,1", "--out", folder / "found.json")
    return run("compare", *arguments, *more)


def test_compare_continues_its_file(measured, tmp_path):
    first = compare(tmp_path, "--seeds", 1)
    assert first.exit_code == 0, first.output
    assert len(measured) == len(set(measured)) == 9  # 2 models, 2 noises, twice; and no graph
    assert "learned 90.0 90.0 (3.0×)" in " ".join(first.output.split())
    assert {path.name for path in tmp_path.iterdir()} == {"found.json", "found.svg"}
    again = compare(tmp_path, "--seeds", 1)
    assert again.exit_code == 0 and len(measured) == 9 and "has 9 of 9 results" in again.output
    chart = tmp_path / "charts" / "a.png"
    more = compare(tmp_path, "--seeds", 2, "--chart", chart)
    assert more.exit_code == 0 and len(measured) == 18 and chart.read_bytes()[1:4] == b"PNG"
    assert measured[9:] == [case._replace(seed=1) for case in measured[:9]]
    assert "learned 90.5 ± 0.7" in " ".join(more.output.split())
    other = compare(tmp_path, "--seeds", 2, "--models", "gatv2")
    assert other.exit_code == 0 and {case.model for case in measured[18:]} == {"gatv2"}
    study = Study(tmp_path / "found.json", ["agnn"], [0.0], seeds=1)
    assert len(study.results) == 18 + 8  # of all models
    svg = (tmp_path / "found.svg").read_text()
    assert "GATv2" in svg and len(svg) < 60_000
    study.draw(tmp_path / "found.svg")
    one = (tmp_path / "found.svg").read_bytes()
    study.draw(tmp_path / "found.svg")
    assert (tmp_path / "found.svg").read_bytes() == one


def test_compare_keeps_what_was_measured(measured, tmp_path):
    result = compare(tmp_path, "--seeds", 14)
    assert result.exit_code == 130
    state = json.loads((tmp_path / "found.json").read_text())
    assert len(state["results"]) == 13 * 9 == len(measured) - 1


def test_compare_refuses_another_files(measured, tmp_path):
    compare(tmp_path, "--seeds", 1)
    path = tmp_path / "found.json"
    before = path.read_bytes()
    other = compare(tmp_path, "--seeds", 1, "--epochs", 7)
    assert other.exit_code == 1 and "--epochs is 150 there and 7 here" in other.output
    assert "another --out" in other.output and path.read_bytes() == before
    for damage in (b"", b"[]", b"{}", before[:-9], before.replace(b'"test"', b'"tost"', 1)):
        path.write_bytes(damage)
        refused = compare(tmp_path, "--seeds", 1)
        assert refused.exit_code == 1 and "cannot use" in refused.output, damage
        assert "Traceback" not in refused.output and path.read_bytes() == damage
    assert len(measured) == 9


def test_a_measurement(tmp_path):
    study = Study(tmp_path / "a.json", ["agnn"], [1.0], seeds=1, epochs=30)
    study.run(lambda line: None)
    learned, uniform = (study.results[Case("agnn", kind, 1.0, 0)] for kind in noise_study.ATTENTION)
    assert 0.7 < learned.test < 1 and learned.test != uniform.test
    assert learned.weights[0] > 1.3 * learned.weights[1] > 0
    assert uniform.weights[0] == pytest.approx(uniform.weights[1], rel=0.1)
    config = RunConfig("agnn", "noisy_digits", 0, 1, Recipe(), {"attention": "uniform"})
    assert config.is_uniform and not RunConfig("agnn", "a", 0, 1, Recipe(), {}).is_uniform


@pytest.mark.slow
def test_attention_is_worth_five_points_among_random_edges(tmp_path):
    """10 graphs, splits and seeds: accuracy over the uniform twin's, and the weights of edges."""
    study = Study(tmp_path / "a.json", ["agnn"], [1.0], seeds=10)
    study.run(lambda line: None)
    learned, uniform = (study.of("agnn", kind, 1.0) for kind in noise_study.ATTENTION)
    plain = study.of(noise_study.NO_GRAPH, "", 0.0)
    tests = [100 * statistics.fmean(one.test for one in kind) for kind in (learned, uniform, plain)]
    assert tests[0] - tests[1] >= 5 and tests[0] - tests[2] >= 2
    assert min(one.weights[0] / one.weights[1] for one in learned) >= 2
