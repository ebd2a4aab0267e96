"""Data sets of several types of nodes: academic, flattening, meta-paths, checks."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gat_ext import datasets
from gat_ext.datasets import TypedDataset, load_typed

WRITES, WRITTEN_BY = ("author", "writes", "paper"), ("paper", "written_by", "author")
HOLDS, HELD_BY = ("venue", "holds", "paper"), ("paper", "held_by", "venue")
CITES = ("paper", "cites", "paper")


@pytest.fixture(scope="module")
def data():
    return load_typed("academic")


def test_academic_is_as_documented(data):
    assert data.metadata == (
        ["author", "paper", "venue"],
        [WRITES, WRITTEN_BY, HOLDS, HELD_BY, CITES],
    )
    for there, back in ((WRITES, WRITTEN_BY), (HOLDS, HELD_BY)):
        edges = data.edge_index[there]
        assert torch.equal(edges, data.edge_index[back].flip(0))
        assert edges.unique(dim=1).shape == edges.shape
        links = edges[1].bincount(minlength=2000)
        assert links.min() == 1 and links.max() == 3
    masks = torch.stack([data.train_mask, data.val_mask, data.test_mask])
    assert masks.sum(1).tolist() == [160, 400, 1440] and (masks.sum(0) == 1).all()
    assert data.y.bincount().tolist() == [500] * 4
    # Features of one topic agree between authors and venues, and the topics of a paper are a pair.
    means = {}
    for relation, x in ((WRITES, data.x["author"]), (HOLDS, data.x["venue"])):
        other, paper = data.edge_index[relation]
        sums = torch.zeros(4, 32).index_add(0, data.y[paper], x[other])
        means[relation] = sums / data.y[paper].bincount().unsqueeze(1)
    nearest = torch.cdist(means[WRITES], means[HOLDS]).argmin(1)
    assert nearest.tolist() == [1, 0, 3, 2]


def test_seed_determines_the_data(data):
    for seed in (0, 1):
        other = load_typed("academic", seed=seed)
        for name in ("x", "edge_index"):
            pairs = zip(getattr(data, name).values(), getattr(other, name).values(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs) == (seed == 0)
        assert torch.equal(data.train_mask, other.train_mask) == (seed == 0)


def test_flatten(data):
    flat, own = data.flatten(), slice(800, 2800)
    assert (flat.num_nodes, flat.num_edges, flat.num_classes) == (3600, data.num_edges, 4)
    assert torch.equal(flat.y[own], data.y) and int((flat.y >= 0).sum()) == 2000
    assert torch.equal(flat.test_mask[own], data.test_mask)
    source, target = data.edge_index[WRITES]
    edges = set(map(tuple, flat.edge_index.t().tolist()))
    assert {(i, j + 800) for i, j in zip(source.tolist(), target.tolist(), strict=True)} <= edges
    narrow = dataclasses.replace(data, x={**data.x, "venue": data.x["venue"][:, :5]}).flatten()
    assert torch.equal(narrow.x[:2800], flat.x[:2800]) and not narrow.x[2800:, 5:].any()
    assert datasets.load("academic_flat").name == "academic_flat"
    assert torch.equal(datasets.load("academic_flat").edge_index, flat.edge_index)


def test_meta_paths_are_the_pairs_that_chains_connect(data):
    longer = (WRITTEN_BY, WRITES, CITES)
    found = dataclasses.replace(data, metapaths=(*data.metapaths, longer)).metapath_edge_index
    assert [*found] == [
        ("paper", "author", "paper"),
        ("paper", "venue", "paper"),
        ("paper", "author_paper", "paper"),
    ]
    for edges, path in zip(found.values(), (*data.metapaths, longer), strict=True):
        product = torch.eye(2000)
        for relation in path:
            shape = data.num_nodes[relation[0]], data.num_nodes[relation[2]]
            step = torch.zeros(shape)
            step[tuple(data.edge_index[relation])] = 1
            product = product @ step
        assert torch.equal(edges.flip(0), product.t().nonzero().t())
    nothing = {**data.edge_index, WRITES: data.edge_index[WRITES][:, :0]}
    empty = dataclasses.replace(data, edge_index=nothing).metapath_edge_index
    assert empty["paper", "author", "paper"].shape == (2, 0)
    moved = data.to("meta")
    assert moved.x["paper"].is_meta and moved.edge_index[CITES].is_meta and moved.y.is_meta


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 3}, "num_classes is 3, expected an even number"),
        ({"num_venues": 3}, "num_venues is 3, expected at least num_classes = 4"),
        ({"most_links": 0}, "most_links is 0, expected at least 1"),
        ({"purity": 1.1}, "purity is 1.1, expected a probability"),
        ({"num_val": 1840}, "num_val is 1840, but 1840 nodes are left"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        load_typed("academic", **options)


def small(**changes):
    masks = torch.eye(3, dtype=torch.bool)
    fields = {
        "name": "small",
        "x": {"a": torch.ones(3, 2), "b": torch.ones(2, 1)},
        "edge_index": {("b", "to", "a"): torch.tensor([[0, 1], [0, 2]])},
        "target": "a",
        "y": torch.tensor([0, 1, 0]),
        **dict(zip(("train_mask", "val_mask", "test_mask"), masks, strict=True)),
        "num_classes": 2,
    }
    return TypedDataset(**fields | changes)


TO_A = ("b", "to", "a")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"target": "c"}, ValueError, "small: target is 'c'; expected one of the types"),
        ({"y": torch.ones(3)}, TypeError, "y is torch.float32"),
        ({"y": torch.tensor([0, 5, 0])}, ValueError, "the masked labels span 0 to 5"),
        ({"train_mask": torch.ones(3).bool()}, ValueError, "more than one mask"),
        ({"x": {"a": torch.ones(3, 2), "b": torch.ones(2)}}, ValueError, r"x\['b'\] has shape"),
        ({"edge_index": {TO_A: torch.ones(2, 1)}}, TypeError, "is torch.float32, expected"),
        ({"edge_index": {TO_A: torch.tensor([[0], [3]])}}, ValueError, "spans 3 to 3 in 'a'"),
        (
            {"edge_index": {("c", "to", "a"): torch.zeros(2, 1).long()}},
            ValueError,
            "has the type 'c', which has no features",
        ),
        ({"metapaths": ((TO_A,),)}, ValueError, "lead from 'a' to 'a'"),
    ],
)
def test_refused_fields(changes, error, message):
    assert small().num_edges == 2
    with pytest.raises(error, match=message):
        small(**changes)
