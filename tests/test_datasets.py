"""The registry, invariants of all data sets, the generated families, and ppi."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gat_ext import datasets
from gat_ext.datasets import NodeDataset, load, load_graphs
from gat_ext.datasets._optional import require

GENERATED = {
    "digits": {},
    "karate": {},
    "noisy_digits": {},
    "sbm": {"num_nodes": 90, "num_classes": 3, "train_per_class": 5, "num_val": 20},
}


def masks(data: NodeDataset) -> torch.Tensor:
    return torch.stack([data.train_mask, data.val_mask, data.test_mask])


def same(one: NodeDataset, two: NodeDataset) -> bool:
    return torch.equal(one.x, two.x) and torch.equal(one.edge_index, two.edge_index)


@pytest.mark.parametrize("name", GENERATED)
def test_invariants_of_generated_sets(name: str) -> None:
    data = load(name, **GENERATED[name])
    assert data.name == name and data.graph_ids is None
    assert masks(data).sum(0).tolist() == [1] * data.num_nodes
    assert masks(data).any(1).all()
    assert data.y.unique().tolist() == list(range(data.num_classes))
    source, target = data.edge_index
    assert (source != target).all()
    pairs = set(zip(source.tolist(), target.tolist(), strict=True))
    assert len(pairs) == data.num_edges and {(j, i) for i, j in pairs} == pairs
    keys = target * data.num_nodes + source
    assert torch.equal(keys, keys.sort().values)


@pytest.mark.parametrize("name", GENERATED)
def test_seed_decides(name: str) -> None:
    options = GENERATED[name]
    one, again, other = (load(name, **options, seed=seed) for seed in (3, 3, 4))
    assert same(one, again) and torch.equal(masks(one), masks(again))
    assert not torch.equal(masks(one), masks(other))
    assert same(one, other) == (name not in ("sbm", "noisy_digits"))


def test_digits() -> None:
    data = load("digits")
    assert (data.num_nodes, data.num_features, data.num_classes) == (1797, 64, 10)
    assert float(data.x.min()) == 0 and float(data.x.max()) == 1
    assert masks(data).sum(1).tolist() == [200, 500, 1097]
    assert data.y[data.train_mask].bincount().tolist() == [20] * 10


def test_digits_neighbours_against_a_full_search() -> None:
    data = load("digits", n_neighbors=3)
    distance = torch.cdist(data.x.double(), data.x.double()).fill_diagonal_(float("inf"))
    linked = torch.zeros_like(distance, dtype=torch.bool)
    linked[data.edge_index[0], data.edge_index[1]] = True
    third = distance.sort(1).values[:, 2]
    nearest = distance <= torch.maximum(third[:, None], third[None, :]) + 1e-9
    assert not (linked & ~nearest).any()
    closer = distance < torch.maximum(third[:, None], third[None, :]) - 1e-9
    assert not (closer & ~linked).any()


def test_digits_metric() -> None:
    assert not same(load("digits", metric="cosine"), load("digits"))


@pytest.mark.parametrize("noise", [0, 0.25, 1.0, 3.0])
def test_noisy_digits_are_digits_and_random_edges(noise: float) -> None:
    clean, data = load("digits", n_neighbors=3), load("noisy_digits", noise=noise)
    assert data.random_edges is not None
    assert torch.equal(data.edge_index[:, ~data.random_edges], clean.edge_index)
    assert int(data.random_edges.sum()) == 2 * round(noise * clean.num_edges / 2)
    for field in ("x", "y", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(getattr(data, field), getattr(clean, field))
    source, target = data.edge_index[:, data.random_edges]
    if noise == 3:  # a tenth join nodes of one class, and no node is preferred
        assert (data.y[source] == data.y[target]).float().mean() == pytest.approx(0.1, abs=0.01)
        degree = target.bincount(minlength=data.num_nodes).double()
        assert degree.var() / degree.mean() == pytest.approx(1, abs=0.15)  # as of Poisson


@pytest.mark.slow
def test_noisy_digits_up_to_the_complete_graph() -> None:
    pairs, edges = 1797 * 1796 // 2, load("digits", n_neighbors=3).num_edges // 2
    data = load("noisy_digits", noise=(pairs - edges) / edges)
    assert data.num_edges == 2 * pairs


def test_random_edges_follow_the_edges() -> None:
    data = load("noisy_digits", noise=0.5)
    moved, permutation = data.reorder("degree")
    assert data.random_edges is not None and moved.random_edges is not None
    keys = [
        set(zip(*one.edge_index[:, one.random_edges].tolist(), strict=True))
        for one in (data, dataclasses.replace(moved, edge_index=permutation[moved.edge_index]))
    ]
    assert keys[0] == keys[1]
    assert data.to("meta").random_edges.is_meta  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"random_edges has shape \[3\], expected \[11652\]"):
        dataclasses.replace(data, random_edges=data.random_edges[:3])
    with pytest.raises(TypeError, match=r"random_edges is torch.int64, expected torch.bool"):
        dataclasses.replace(data, random_edges=data.random_edges.long())


def test_karate() -> None:
    data = load("karate")
    assert (data.num_nodes, data.num_edges) == (34, 156)
    assert torch.equal(data.x, torch.eye(34))
    degree = data.edge_index[1].bincount()
    assert (int(degree[0]), int(degree[33]), int(degree.min())) == (16, 17, 1)
    assert data.y[[0, 33]].tolist() == [0, 1] and data.y.bincount().tolist() == [17, 17]
    assert masks(data).sum(1).tolist() == [2, 8, 24]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(3, 9))
def test_sbm_extremes(num_classes: int, per_class: int) -> None:
    num_nodes = num_classes * per_class
    options = {
        "num_nodes": num_nodes,
        "num_classes": num_classes,
        "train_per_class": 1,
        "num_val": 1,
    }
    inside = load("sbm", p_in=1.0, p_out=0.0, **options)
    assert inside.num_edges == num_classes * per_class * (per_class - 1)
    assert (inside.y[inside.edge_index[0]] == inside.y[inside.edge_index[1]]).all()
    outside = load("sbm", p_in=0.0, p_out=1.0, **options)
    assert outside.num_edges == num_nodes * (num_nodes - per_class)
    assert (outside.y[outside.edge_index[0]] != outside.y[outside.edge_index[1]]).all()


def test_sbm_chances_and_blocks() -> None:
    data = load("sbm", num_nodes=2001, num_classes=2, p_in=0.02, p_out=0.005, signal=3.0)
    assert data.y.bincount().tolist() == [1001, 1000]
    alike = data.y[data.edge_index[0]] == data.y[data.edge_index[1]]
    pairs_inside, pairs_across = 1001 * 1000 + 1000 * 999, 2 * 1001 * 1000
    assert int(alike.sum()) / pairs_inside == pytest.approx(0.02, rel=0.05)
    assert int((~alike).sum()) / pairs_across == pytest.approx(0.005, rel=0.05)
    assert int(data.edge_index[1].bincount(minlength=2001).max()) < 80
    centres = torch.stack([data.x[data.y == label].mean(0) for label in (0, 1)])
    assert (torch.cdist(data.x, centres).argmin(1) == data.y).float().mean() > 0.95


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("noisy_digits", {"noise": -0.5}, "noise is -0.5, expected 0 or a positive number"),
        ("noisy_digits", {"noise": float("nan")}, "noise is nan, expected 0"),
        ("noisy_digits", {"noise": float("inf")}, "noise is inf, expected 0"),
        ("noisy_digits", {"noise": 1e3}, "expected at most 414.5, because 1609822 pairs"),
        ("noisy_digits", {"n_neighbors": 0}, "n_neighbors is 0, expected 1 to 1796"),
        ("digits", {"n_neighbors": 0}, "n_neighbors is 0, expected 1 to 1796"),
        ("digits", {"n_neighbors": 1797}, "n_neighbors is 1797, expected 1 to 1796"),
        ("digits", {"metric": "crow"}, "crow"),
        ("digits", {"train_per_class": 175}, "class 8 has 174 nodes"),
        ("digits", {"num_val": 1597}, "num_val is 1597, but 1597 nodes are left"),
        ("digits", {"train_per_class": 0}, "expected at least 1"),
        ("karate", {"num_val": 32}, "num_val is 32, expected 1 to 31"),
        ("sbm", {"p_in": 1.5}, "p_in is 1.5, expected a probability"),
        ("sbm", {"num_classes": 2000}, "num_classes 2000"),
        ("sbm", {"num_features": 0}, "num_features 0"),
    ],
)
def test_refused_values(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(name, **options)


def test_available() -> None:
    names = ["academic_flat", "citeseer", "cora", "digits", "karate", "noisy_digits", "ppi"]
    names += ["pubmed", "sbm"]
    assert datasets.available() == names


@pytest.mark.parametrize(
    ("given_name", "meant"),
    [("Coar", "cora"), ("digit", "digits"), ("noisy-digit", "noisy_digits")],
)
def test_unknown_name(given_name: str, meant: str) -> None:
    message = f"did you mean '{meant}'.*available: academic_flat, citeseer, cora"
    with pytest.raises(ValueError, match=message):
        load(given_name)


@pytest.mark.parametrize(
    "value", [torch.zeros(2), torch.ones(2, device="meta"), np.ones(2), "3", None, True, [1]]
)
def test_options_of_another_type(value: Any) -> None:
    def refused(option: str) -> Any:
        return pytest.raises(
            TypeError, match=rf"{option} is .*of type \w+; expected (int|float|bool)"
        )

    for option in ("num_nodes", "p_in", "train_per_class", "seed"):
        with refused(option):
            load("sbm", **{option: value})
    with refused("motif_size"):
        load_graphs("shapes", motif_size=value)
    if value is not True:
        with refused("standardize"):
            load("ppi", standardize=value)


def test_options_that_are_numbers() -> None:
    ours = load("sbm", num_nodes=np.int64(300), p_in=0, seed=np.uint8(1))
    assert torch.equal(ours.edge_index, load("sbm", num_nodes=300, p_in=0.0, seed=1).edge_index)


def test_unknown_option() -> None:
    with pytest.raises(
        TypeError, match="'cora' has no option k; expected one of its options: row_normalize, url"
    ):
        load("cora", k=3)


def test_taken_name() -> None:
    with pytest.raises(ValueError, match="already registered as 'karate'"):
        datasets.register("karate")(lambda root: load("karate"))


def test_missing_package() -> None:
    with pytest.raises(ImportError, match=r"needs absent, .*pip install 'gat_ext\[train\]'"):
        require("absent.module")


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("x", torch.zeros(34), ValueError, r"x has shape \[34\], expected \[N, C\]"),
        ("x", torch.zeros(34, 2).double(), TypeError, "x is torch.float64, expected torch.float32"),
        ("x", torch.full((34, 2), torch.nan), ValueError, "infinite value"),
        ("y", torch.zeros(33, dtype=torch.int64), ValueError, r"y has shape \[33\]"),
        ("y", torch.full((34,), 2), ValueError, "span 2 to 2, expected 0 to 1"),
        ("y", torch.full((34,), -1), ValueError, "span -1 to -1, expected 0 to 1"),
        ("edge_index", torch.tensor([[0], [34]]), ValueError, "spans 0 to 34, expected 0 to 33"),
        ("edge_index", torch.tensor([[-1], [0]]), ValueError, "spans -1 to 0, expected 0 to 33"),
        ("train_mask", torch.ones(34, dtype=torch.bool), ValueError, "node .* more than one mask"),
        ("test_mask", torch.ones(34), TypeError, "test_mask is torch.float32"),
        ("graph_ids", torch.zeros(3, dtype=torch.int64), ValueError, r"graph_ids has shape \[3\]"),
        ("multilabel", True, TypeError, "y is torch.int64, expected torch.float32"),
    ],
)
def test_dataset_refuses(field: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dataclasses.replace(load("karate"), **{field: value})


def test_to_device() -> None:
    data = load("karate").to("meta")
    assert {data.x.device.type, data.y.device.type, data.test_mask.device.type} == {"meta"}


@pytest.fixture
def new_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new module of the package: one file with its registration."""
    (tmp_path / "mine.py").write_text(
        "from gat_ext.datasets._registry import load, register\n\n\n"
        '@register("mine")\n'
        "def mine(root=None, *, seed: int = 0):\n"
        '    """The karate club under another name."""\n'
        '    return load("karate")\n'
    )
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield "mine"
    sys.modules.pop("gat_ext.datasets.mine", None)
    datasets._registry._NODES._loaders.pop("mine", None)


def test_a_new_data_set_is_one_file(new_family: str) -> None:
    datasets.discover()
    assert new_family in datasets.available()
    data = load(new_family, seed=3)
    assert isinstance(data, NodeDataset) and data.num_nodes == 34
    with pytest.raises(ValueError, match="did you mean 'mine'"):
        load("mime")
