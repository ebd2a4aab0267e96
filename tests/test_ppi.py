"""ppi: both formats, zip files, the download, damaged files."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gat_ext.datasets import NodeDataset, load, ppi


def same(one: NodeDataset, two: NodeDataset) -> bool:
    return torch.equal(one.x, two.x) and torch.equal(one.edge_index, two.edge_index)


SIZES = {"train": [5, 4], "valid": [3], "test": [4]}
SPLIT_OF = [split for split, sizes in SIZES.items() for size in sizes for _ in range(size)]


def ppi_arrays() -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]], list[int]]:
    """Features, labels, links and graph ids of four small graphs, three with a self-loop."""
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
    """DGL's format: both directions and a self-loop at every node."""
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
    for mask, split in zip((data.train_mask, data.val_mask, data.test_mask), splits, strict=True):
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
        ("objects", "damaged.*train_feats.npy holds object, expected numbers"),
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
    with pytest.raises(ValueError, match=r"damaged: KeyError: 'p2'"):
        load("ppi", tmp_path)


def test_ppi_missing_file_and_bad_zip(tmp_path: Path) -> None:
    write_single(tmp_path)
    (tmp_path / "ppi-feats.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no ppi-feats\.npy; expected"):
        load("ppi", tmp_path)
    (tmp_path / "ppi.zip").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"ppi\.zip is not a valid zip file"):
        load("ppi", tmp_path)
