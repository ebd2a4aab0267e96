"""Data sets of graphs: invariants, subsets, folds, node types, generated families."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from typing import Any

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from gat_ext import Graph, datasets
from gat_ext.datasets import GraphDataset, load_graphs

GENERATED: dict[str, dict[str, Any]] = {"digit_grids": {}, "shapes": {"num_graphs": 60}}


def small() -> GraphDataset:
    """A path of 3 nodes, a single node, an edge, and a triangle with a pendant node."""
    pairs = [(0, 1), (1, 2), (4, 5), (6, 7), (7, 8), (6, 8), (8, 9)]
    both = sorted(pairs + [(j, i) for i, j in pairs], key=lambda pair: (pair[1], pair[0]))
    return GraphDataset(
        name="small",
        edge_index=torch.tensor(both).T,
        node_ptr=torch.tensor([0, 3, 4, 6, 10]),
        node_type=torch.tensor([0, 1, 0, 2, 0, 1, 1, 1, 0, 2]),
        num_types=3,
        y=torch.tensor([0, 1, 0, 1]),
        num_classes=2,
        x=torch.arange(20.0).reshape(10, 2),
        signal_types=(2,),
        edge_attr=torch.arange(28.0).reshape(14, 2),
    )


def with_targets(y: torch.Tensor) -> GraphDataset:
    return dataclasses.replace(small(), y=y, num_classes=0)


def part(data: GraphDataset, number: int) -> tuple[Any, ...]:
    """One graph: edges counted from 0 with their attributes, types, node attributes, target."""
    first, last = data.node_ptr[number], data.node_ptr[number + 1]
    inside = (first <= data.edge_index[0]) & (data.edge_index[0] < last)
    edges = (data.edge_index[:, inside] - first).T.tolist()
    attributes = None if data.edge_attr is None else data.edge_attr[inside].tolist()
    x = None if data.x is None else data.x[first:last].tolist()
    types = data.node_type[first:last].tolist()
    return edges, attributes, types, x, data.y[number].tolist()


# ---- the data set


def test_counts_and_graph() -> None:
    data = small()
    assert (len(data), data.num_nodes, data.num_edges) == (4, 10, 14)
    assert data.graph_sizes.tolist() == [3, 1, 2, 4]
    assert data.graph_ids.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3, 3]
    assert data.graph is data.graph and data.graph.num_nodes == 10
    assert torch.equal(data.graph.edge_index, data.edge_index)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=8))
def test_subset_is_the_graphs_one_by_one(indices: list[int]) -> None:
    data = small()
    subset = data.subset(indices)
    assert len(subset) == len(indices)
    for place, number in enumerate(indices):
        assert part(subset, place) == part(data, number)
    checked = dataclasses.replace(subset)  # runs the checks that subset skips
    assert (checked.num_types, checked.signal_types) == (3, (2,))
    assert torch.equal(subset.graph.edge_index, checked.edge_index)


def test_subset_refuses() -> None:
    with pytest.raises(IndexError, match="indices span 0 to 4, expected 0 to 3"):
        small().subset([0, 4])
    with pytest.raises(IndexError, match="indices span -1 to -1"):
        small().subset(torch.tensor([-1]))
    with pytest.raises(TypeError, match="bool, expected integers"):
        small().subset(torch.ones(4, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"shape \[1, 1\]"):
        small().subset(torch.tensor([[1]]))


def test_to_device_moves_the_cached_graph() -> None:
    data = small()
    assert data.graph_ids.device.type == "cpu"
    moved = data.to("meta")
    assert {moved.y.device.type, moved.edge_index.device.type} == {"meta"}
    assert moved.x is not None and moved.x.device.type == "meta"
    assert "graph" not in moved.__dict__ and "graph_ids" not in moved.__dict__
    built = data.graph
    assert data.to("cpu").graph is built


REFUSED: list[tuple[str, Any, type[Exception], str]] = [
    ("y", torch.zeros(2, 2).long(), TypeError, "y is torch.int64, expected torch.float32"),
    ("y", torch.zeros(4, 2, 2), ValueError, r"y has shape \[4, 2, 2\], expected \[G\]"),
    ("y", torch.zeros(4, 3), ValueError, r"y has shape \[4, 3\], expected \[4, 2\]"),
    ("y", torch.full((4, 2), 0.5), ValueError, "values other than 0 and 1; .* or num_classes=0"),
    ("num_classes", 0, ValueError, r"y has shape \[4\], expected \[G, T\]"),
    ("y", torch.zeros(4), TypeError, "y is torch.float32, expected torch.int64"),
    ("y", torch.tensor([0, 1, 2, 0]), ValueError, "y spans 0 to 2, expected 0 to 1"),
    ("y", torch.tensor([0, 1]), ValueError, r"node_ptr has shape \[5\], expected \[3\]"),
    ("node_ptr", torch.tensor([0, 3, 3, 6, 10]), ValueError, "graph 1 has 0 nodes"),
    ("node_ptr", torch.tensor([0, 3, 2, 6, 10]), ValueError, "graph 1 has -1 nodes"),
    ("node_ptr", torch.tensor([1, 3, 4, 6, 10]), ValueError, "from 1 to 10, expected 0 to 10"),
    ("node_ptr", torch.tensor([0, 3, 4, 6, 9]), ValueError, "from 0 to 9, expected 0 to 10"),
    ("node_type", torch.zeros(10), TypeError, "node_type is torch.float32"),
    ("node_type", torch.zeros(2, 5), ValueError, r"node_type has shape \[2, 5\], expected \[N\]"),
    ("node_type", torch.full((10,), 3), ValueError, "node_type spans 3 to 3, expected 0 to 2"),
    ("edge_index", torch.tensor([[0], [10]]), ValueError, "edge_index spans 0 to 10"),
    ("edge_index", torch.tensor([0, 1]), ValueError, r"edge_index has shape \[2\]"),
    ("edge_index", torch.tensor([[0, 2], [1, 3]]), ValueError, r"edge 1, \[2, 3\], joins graph 0"),
    ("edge_index", torch.tensor([[4, 0], [5, 1]]), ValueError, "edge 1 of graph 0 follows"),
    ("x", torch.zeros(10), ValueError, r"x has shape \[10\], expected \[N, C\]"),
    ("x", torch.zeros(9, 2), ValueError, r"x has shape \[9, 2\], expected \[10, 2\]"),
    ("x", torch.full((10, 1), torch.inf), ValueError, "infinite value"),
    ("edge_attr", torch.zeros(14), ValueError, r"edge_attr has shape \[14\], expected \[E, D\]"),
    ("edge_attr", torch.zeros(13, 2), ValueError, r"shape \[13, 2\], expected \[14, 2\]"),
    ("edge_attr", torch.zeros(14, 2).long(), TypeError, "edge_attr is torch.int64"),
    ("edge_attr", torch.full((14, 1), torch.nan), ValueError, "edge_attr has a NaN"),
    ("signal_types", (3,), ValueError, r"signal_types is \(3,\), expected types from 0 to 2"),
]


@pytest.mark.parametrize(("field", "value", "error", "message"), REFUSED)
def test_refuses(field: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dataclasses.replace(small(), **{field: value})


def test_repr_is_one_line() -> None:
    assert repr(small()) == (
        "GraphDataset(name='small', edge_index=[2, 14], node_ptr=[5], node_type=[10], num_types=3, "
        "y=[4], num_classes=2, x=[10, 2], signal_types=(2,), edge_attr=[14, 2])"
    )


# ---- other targets than a class


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_targets_of_several_columns(task: str) -> None:
    y = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    classes = 3 if task == "multilabel" else 0
    data = dataclasses.replace(small(), y=y, num_classes=classes)
    assert (data.task, small().task, len(data)) == (task, "classification", 4)
    assert torch.equal(data.subset([3, 1]).y, y[[3, 1]])
    assert data.to("meta").task == data.with_types("degree").task == task
    with pytest.raises(ValueError, match=rf"a balanced subset needs one class .* {task}, y \[4, 3"):
        data.balanced(2)


def test_targets_are_finite() -> None:
    with pytest.raises(ValueError, match="y has a NaN or an infinite value"):
        with_targets(torch.tensor([[0.0], [torch.nan], [1.0], [2.0]]))


def test_folds_without_classes() -> None:
    data = load_graphs("shapes", num_graphs=50)
    data = dataclasses.replace(data, y=torch.linspace(0, 1, 50)[:, None], num_classes=0)
    folds = data.folds(5, seed=3, val_fraction=0.25)
    assert torch.cat([fold.test for fold in folds]).sort().values.tolist() == list(range(50))
    for train, val, test in folds:
        assert (len(train), len(val), len(test)) == (30, 10, 10)
        assert torch.cat([train, val, test]).sort().values.tolist() == list(range(50))
    again, other = data.folds(5, seed=3)[0].test, data.folds(5, seed=4)[0].test
    assert torch.equal(again, folds[0].test) and not torch.equal(other, again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 5}, "k is 5, expected 2 to 4, the number of graphs"),
        ({"k": 2, "val_fraction": 0.0}, "val_fraction is 0.0, expected more than 0"),
        ({"k": 2, "val_fraction": 0.9}, "leaves no graph for the training or validation part of 2"),
    ],
)
def test_folds_without_classes_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_targets(torch.zeros(4, 1)).folds(**options)


# ---- balanced, folds


def test_balanced() -> None:
    data = load_graphs("digit_grids", classes=(1, 7, 8))
    subset = data.balanced(300, seed=1)
    assert subset.y.bincount().tolist() == [100, 100, 100]
    assert torch.equal(subset.node_type, data.balanced(300, seed=1).node_type)
    assert not torch.equal(subset.node_type, data.balanced(300, seed=2).node_type)
    with pytest.raises(ValueError, match="num_graphs is 100, expected a positive multiple of 3"):
        data.balanced(100)
    with pytest.raises(ValueError, match="but class 2 has 174; expected at most 522"):
        data.balanced(525)


def test_folds() -> None:
    data = load_graphs("digit_grids", classes=(0, 1)).subset(range(250))
    share = data.y.float().mean()
    folds = data.folds(5, seed=3, val_fraction=0.2)
    tested = torch.cat([fold.test for fold in folds])
    assert torch.equal(tested.sort().values, torch.arange(250))
    for train, val, test in folds:
        assert (len(train), len(val), len(test)) == (160, 40, 50)
        assert torch.equal(torch.cat([train, val, test]).sort().values, torch.arange(250))
        for indices in (train, val, test):
            assert abs(data.subset(indices).y.float().mean() - share) < 0.02
    again, other = data.folds(5, seed=3, val_fraction=0.2), data.folds(5, seed=4, val_fraction=0.2)
    for fold, same in zip(folds, again, strict=True):
        assert all(torch.equal(one, two) for one, two in zip(fold, same, strict=True))
    assert not torch.equal(folds[0].test, other[0].test)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 1}, "k is 1, expected 2 to 2, the size of the smallest class"),
        ({"k": 3}, "k is 3, expected 2 to 2"),
        ({"k": 2, "val_fraction": 1.0}, "val_fraction is 1.0, expected more than 0"),
        ({"k": 2, "val_fraction": 0.5}, "leaves a class without a graph"),
    ],
)
def test_folds_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().folds(**options)


# ---- node types


def test_degree_types() -> None:
    data = small().with_types("degree")
    assert data.node_type.tolist() == [1, 2, 1, 0, 1, 1, 2, 2, 3, 1]
    assert data.num_types == 4 and data.signal_types == ()
    capped = small().with_types("degree", max_types=3)
    assert capped.node_type.tolist() == [1, 2, 1, 0, 1, 1, 2, 2, 2, 1] and capped.num_types == 3


def test_label_types_are_those_given() -> None:
    assert torch.equal(small().with_types("label").node_type, small().node_type)


def colours(graph: Graph, types: list[int], rounds: int) -> list[Any]:
    """Refinement by definition, with nested tuples as colours."""
    source, target = graph.edge_index
    now: list[Any] = list(types)
    for _ in range(rounds):
        near = [sorted(repr(now[i]) for i in source[target == node]) for node in range(len(now))]
        now = [(own, tuple(others)) for own, others in zip(now, near, strict=True)]
    return now


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 25), st.integers(1, 3), st.integers(0, 10**6))
def test_wl_types_against_the_definition(num_nodes: int, rounds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = torch.from_numpy(rng.integers(0, num_nodes, (2, 2 * num_nodes)))
    types = rng.integers(0, 2, num_nodes)
    data = GraphDataset(
        "random", edges, torch.tensor([0, num_nodes]), torch.from_numpy(types), 2,
        torch.tensor([0]), 1,
    )  # fmt: skip
    refined = data.with_types("wl", rounds=rounds)
    expected = colours(data.graph, types.tolist(), rounds)
    pairs = set(zip(refined.node_type.tolist(), expected, strict=True))
    assert len(pairs) == len(set(expected)) == refined.num_types  # a bijection
    counts = refined.node_type.bincount().tolist()
    assert counts == sorted(counts, reverse=True)


def test_wl_merges_the_rarest() -> None:
    data = load_graphs("shapes", num_graphs=40)
    full = data.with_types("wl", rounds=2, max_types=10**6)
    few = data.with_types("wl", rounds=2, max_types=9)
    assert few.num_types == 9 < full.num_types
    assert torch.equal(few.node_type, full.node_type.clamp(max=8))


def test_wl_from_degrees_distinguishes_graphs_as_networkx() -> None:
    one = networkx.path_graph(6)
    two = networkx.star_graph(5)
    edges = [(j, i) for i, j in [*one.edges, *((a + 6, b + 6) for a, b in two.edges)]]
    both = torch.tensor([*edges, *((j, i) for i, j in edges)]).T
    both = both[:, both[1].argsort(stable=True)]
    zeros = torch.zeros(12, dtype=torch.int64)
    data = GraphDataset("two", both, torch.tensor([0, 6, 12]), zeros, 1, torch.tensor([0, 1]), 2)
    types = data.with_types("degree").with_types("wl").node_type
    assert [sorted(Counter(half.tolist()).values()) for half in (types[:6], types[6:])] == [
        [2, 2, 2],
        [1, 5],
    ]


def test_types_refused() -> None:
    with pytest.raises(ValueError, match="how is 'colour', expected 'label', 'degree' or 'wl'"):
        small().with_types("colour")
    with pytest.raises(ValueError, match="rounds is 0 and max_types 1"):
        small().with_types("wl", rounds=0, max_types=1)


def test_types_and_subsets_of_many_graphs_are_fast() -> None:
    data = load_graphs("shapes", num_graphs=4110, num_nodes=14, num_entrances=4)
    assert data.num_nodes > 90_000
    steps = {
        "wl": lambda: data.with_types("wl", rounds=3),
        "degree": lambda: data.with_types("degree"),
        "subset": lambda: data.subset(torch.arange(4109, -1, -1)),
    }
    for name, step in steps.items():
        started = time.process_time()
        step()
        assert time.process_time() - started < 1.0, name


# ---- generated families


@pytest.mark.parametrize("name", GENERATED)
def test_invariants_of_generated_sets(name: str) -> None:
    data = load_graphs(name, **GENERATED[name])
    assert data.name == name
    assert data.y.unique().tolist() == list(range(data.num_classes))
    assert data.node_type.unique().tolist() == list(range(data.num_types))
    source, target = data.edge_index
    assert (source != target).all()
    keys, reverse = target * data.num_nodes + source, source * data.num_nodes + target
    assert (keys.diff() > 0).all() and torch.equal(reverse.sort().values, keys)
    linked = networkx.Graph(data.edge_index.T.tolist())
    assert networkx.number_connected_components(linked) == len(data)


def test_digit_grids() -> None:
    data = load_graphs("digit_grids", levels=17)
    assert (len(data), data.num_types, data.num_edges) == (1797, 17, 1797 * 224)
    pixels, digits = load_digits(return_X_y=True)
    assert torch.equal(data.node_type.reshape(1797, 64), torch.from_numpy(pixels).long())
    assert torch.equal(data.y, torch.from_numpy(digits))
    edges = part(data, 1000)[0]
    grid = networkx.convert_node_labels_to_integers(networkx.grid_2d_graph(8, 8))
    assert {frozenset(edge) for edge in edges} == {frozenset(edge) for edge in grid.edges}
    four = load_graphs("digit_grids")
    assert torch.equal(four.node_type, data.node_type * 4 // 17)


def test_digit_grids_of_some_classes() -> None:
    everything, some = load_graphs("digit_grids"), load_graphs("digit_grids", classes=(8, 3))
    chosen = ((everything.y == 8) | (everything.y == 3)).nonzero().flatten()
    assert torch.equal(some.node_type, everything.subset(chosen).node_type)
    assert torch.equal(some.y, (everything.y[chosen] == 3).long()) and some.num_classes == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shapes", {"num_graphs": 1}, "num_graphs is 1, expected at least 2"),
        ("shapes", {"trail_length": 0}, "trail_length is 0, expected at least 1"),
        ("shapes", {"motif_size": 3}, "motif_size is 3, expected an even number"),
        ("digit_grids", {"levels": 1}, "levels is 1, expected 2 to 17"),
        ("digit_grids", {"classes": (1,)}, r"classes is \[1\], expected two or more"),
        ("digit_grids", {"classes": (1, 1)}, r"classes is \[1, 1\]"),
        ("digit_grids", {"classes": (1, 10)}, "distinct digits from 0 to 9"),
    ],
)
def test_refused_values(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_graphs(name, **options)


# ---- the registry


def test_registry() -> None:
    assert datasets.available_graphs() == ["digit_grids", "shapes", "tu:NAME"]
    with pytest.raises(ValueError, match=r"'shape'; did you mean 'shapes'.*available: digit_grids"):
        load_graphs("shape")
    with pytest.raises(ValueError, match="unknown data set 'cora'"):
        load_graphs("cora")
    with pytest.raises(ValueError, match="unknown data set 'tu:'"):
        load_graphs("tu:")
    with pytest.raises(
        TypeError,
        match="'tu:NCI1' has no option k; expected one of its options: target, column, url",
    ):
        load_graphs("tu:NCI1", k=3)
    with pytest.raises(ValueError, match="already registered as 'shapes'"):
        datasets.register_graphs("shapes")(lambda root: small())
