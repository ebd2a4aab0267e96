"""The registry, what every data set promises, and the families that are generated or ppi's."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gat_ext import datasets
from gat_ext.datasets import NodeDataset, load, ppi
from gat_ext.datasets._optional import require

GENERATED = {
    "digits": {},
    "karate": {},
    "sbm": {"num_nodes": 90, "num_classes": 3, "train_per_class": 5, "num_val": 20},
}


def masks(data: NodeDataset) -> torch.Tensor:
    return torch.stack([data.train_mask, data.val_mask, data.test_mask])


def same(one: NodeDataset, two: NodeDataset) -> bool:
    return torch.equal(one.x, two.x) and torch.equal(one.edge_index, two.edge_index)


@pytest.mark.parametrize("name", GENERATED)
def test_generated_sets_keep_the_promises(name: str) -> None:
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
    assert same(one, other) == (name != "sbm")


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
    names = ["citeseer", "cora", "digits", "karate", "ppi", "pubmed", "sbm"]
    assert datasets.available() == names


@pytest.mark.parametrize(("given_name", "meant"), [("Cora", "cora"), ("digit", "digits")])
def test_unknown_name(given_name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean '{meant}'.*available: citeseer, cora"):
        load(given_name)


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


SIZES = {"train": [5, 4], "valid": [3], "test": [4]}
SPLIT_OF = [split for split, sizes in SIZES.items() for size in sizes for _ in range(size)]


def ppi_arrays() -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]], list[int]]:
    """Features, labels, links and graph ids of four small graphs, three of them with a loop."""
    generator = np.random.default_rng(0)
    features = generator.normal(3, 2, (len(SPLIT_OF), 3))
    features[:, 2] = 1.0
    labels = generator.integers(0, 2, (len(SPLIT_OF), 4))
    sizes = [size for group in SIZES.values() for size in group]
    graph_ids = np.repeat(np.arange(len(sizes)), sizes).tolist()
    links, first = [(0, 0), (6, 6), (9, 9)], 0
    for size in sizes:
        links += [(first, first + size - 1), *((first + i, first + i + 1) for i in range(size - 1))]
        first += size
    return features, labels, links, graph_ids


def write_single(folder: Path) -> Path:
    """GraphSAGE's format; the list of nodes is in the reverse order of the rows."""
    features, labels, links, _ = ppi_arrays()
    last = len(features) - 1
    nodes = [
        {"id": f"p{row}", "val": SPLIT_OF[row] == "valid", "test": SPLIT_OF[row] == "test"}
        for row in range(last, -1, -1)
    ]
    graph = {
        "directed": False,
        "nodes": nodes,
        "links": [{"source": last - i, "target": last - j} for i, j in links],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ppi-G.json").write_text(json.dumps(graph))
    rows = {f"p{row}": row for row in range(len(features))}
    (folder / "ppi-id_map.json").write_text(json.dumps(rows))
    classes = {f"p{row}": labels[row].tolist() for row in range(len(features))}
    (folder / "ppi-class_map.json").write_text(json.dumps(classes))
    np.save(folder / "ppi-feats.npy", features)
    return folder


def write_split(folder: Path) -> Path:
    """DGL's format: both directions and a loop on every node."""
    features, labels, links, graph_ids = ppi_arrays()
    folder.mkdir(parents=True, exist_ok=True)
    for split in SIZES:
        rows = [row for row, of in enumerate(SPLIT_OF) if of == split]
        inside = [(i - rows[0], j - rows[0]) for i, j in links if i in rows and i != j]
        both = inside + [(j, i) for i, j in inside] + [(i, i) for i in range(len(rows))]
        graph = {
            "directed": True,
            "nodes": [{"id": i} for i in range(len(rows))],
            "links": [{"source": i, "target": j} for i, j in both],
        }
        (folder / f"{split}_graph.json").write_text(json.dumps(graph))
        np.save(folder / f"{split}_feats.npy", features[rows])
        np.save(folder / f"{split}_labels.npy", labels[rows])
        np.save(folder / f"{split}_graph_id.npy", np.array(graph_ids)[rows] + 1)
    return folder


def zipped(folder: Path, archive: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../outside.txt", "never unpacked")
        for path in folder.iterdir():
            file.write(path, inside + path.name)
    return archive


@pytest.mark.parametrize("write", [write_single, write_split])
def test_ppi_formats(tmp_path: Path, write: Any) -> None:
    features, labels, links, graph_ids = ppi_arrays()
    data = load("ppi", write(tmp_path / "ppi").parent)
    assert data.multilabel and data.num_classes == 4
    splits = ("train", "valid", "test")
    for mask, split in zip(masks(data), splits, strict=True):
        assert mask.tolist() == [of == split for of in SPLIT_OF]
    assert data.graph_ids is not None and data.graph_ids.tolist() == graph_ids
    both = {(j, i) for i, j in links if i != j} | {(i, j) for i, j in links if i != j}
    assert sorted(map(tuple, data.edge_index.T.tolist())) == sorted(both)
    assert torch.equal(data.y, torch.from_numpy(labels).float())
    training = data.x[data.train_mask]
    torch.testing.assert_close(training.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(training.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]))
    raw = load("ppi", tmp_path, standardize=False)
    assert torch.equal(raw.x, torch.from_numpy(features).float())


@pytest.mark.parametrize(
    ("write", "inside"), [(write_single, "ppi/"), (write_split, ""), (write_split, "ppi/")]
)
def test_ppi_in_a_zip_file(tmp_path: Path, write: Any, inside: str) -> None:
    folder = write(tmp_path / "files")
    root = tmp_path / "a" / "b"
    root.mkdir(parents=True)
    zipped(folder, root / "ppi.zip", inside)
    assert same(load("ppi", root), load("ppi", folder))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        ["ppi.zip", *(path.name for path in folder.iterdir())]
    )


def test_ppi_download(file_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(write_split(tmp_path / "files"), file_server.folder / "ppi.zip")
    with pytest.raises(ValueError, match=r"ppi\.zip does not have the expected content"):
        load("ppi", url=f"{file_server.url}/ppi.zip")
    monkeypatch.setattr(ppi, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    for _ in range(2):
        assert same(load("ppi", url=f"{file_server.url}/ppi.zip"), load("ppi", tmp_path / "files"))
    assert file_server.requests == ["/ppi.zip"] * 2


def edit_json(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def join_graphs(graph: dict[str, Any]) -> None:
    graph["links"].append({"source": 4, "target": 5})


def damage(name: str, folder: Path) -> None:
    if name == "objects":
        np.save(folder / "train_feats.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    elif name == "rows":
        np.save(folder / "test_labels.npy", np.zeros((1, 4)))
    elif name == "flat":
        for split in SIZES:
            np.save(folder / f"{split}_labels.npy", np.zeros(SPLIT_OF.count(split)))
    elif name == "two splits":
        np.save(folder / "valid_graph_id.npy", np.full(3, 1))
    elif name == "joined":
        edit_json(folder / "train_graph.json", join_graphs)
    elif name == "range":
        edit_json(folder / "train_graph.json", lambda graph: graph["nodes"].pop())
    elif name == "text":
        (folder / "train_graph.json").write_text("<html>")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("objects", "damaged.*allow_pickle"),
        ("rows", "test: 4 nodes, 4 rows of features, 1 rows of labels"),
        ("flat", r"labels \(16,\); expected a row for each node"),
        ("two splits", "graph 0 has nodes of train and valid"),
        ("joined", r"link \[4, 5\] joins two graphs"),
        ("range", "damaged.*train: 8 nodes"),
        ("text", "damaged.*JSONDecodeError"),
    ],
)
def test_ppi_refuses(tmp_path: Path, name: str, message: str) -> None:
    damage(name, write_split(tmp_path))
    with pytest.raises(ValueError, match=message):
        load("ppi", tmp_path)


def test_ppi_refuses_single_format(tmp_path: Path) -> None:
    write_single(tmp_path)
    edit_json(tmp_path / "ppi-id_map.json", lambda rows: rows.update(p3=4))
    with pytest.raises(ValueError, match="id_map does not map the 16 nodes to 0 to 15"):
        load("ppi", tmp_path)
    write_single(tmp_path)
    edit_json(tmp_path / "ppi-G.json", lambda graph: graph["links"][0].update(source=99))
    with pytest.raises(ValueError, match="links span 0 to 99, expected 0 to 15"):
        load("ppi", tmp_path)
    write_single(tmp_path)
    edit_json(tmp_path / "ppi-class_map.json", lambda classes: classes.pop("p2"))
    with pytest.raises(ValueError, match=r"damaged: KeyError\('p2'\)"):
        load("ppi", tmp_path)


def test_ppi_missing_file_and_bad_zip(tmp_path: Path) -> None:
    write_single(tmp_path)
    (tmp_path / "ppi-feats.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no ppi-feats\.npy; expected"):
        load("ppi", tmp_path)
    (tmp_path / "ppi.zip").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"ppi\.zip is not a valid zip file"):
        load("ppi", tmp_path)


@pytest.fixture
def new_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the package, as somebody would add it: one file with its registration."""
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
