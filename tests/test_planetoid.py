"""cora, citeseer, pubmed: the published files, their pickles, their download."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from gat_ext.datasets import load, planetoid
from gat_ext.datasets._arrays import undirected_edges
from gat_ext.datasets._unpickle import read_adjacency

FIRST_TEST, MISSING = 510, 512


def parts() -> dict[str, Any]:
    """514 nodes, 3 words, 2 classes; test nodes 510, 511 and 513; 512 has no features."""
    generator = np.random.default_rng(0)
    words = generator.integers(0, 2, (FIRST_TEST + 3, 3)).astype(np.float32)
    words[7] = 0
    labels = np.eye(2, dtype=np.int32)[generator.integers(0, 2, FIRST_TEST + 3)]
    graph: defaultdict[int, list[int]] = defaultdict(list)
    for node in range(FIRST_TEST + 4):
        graph[node].append((node + 1) % (FIRST_TEST + 4))
    graph[0] += [1, 0, 5]  # a duplicate, a self-loop, and one direction of 0 - 5
    graph[1] += [0]
    return {
        "x": scipy.sparse.csr_matrix(words[:4]),
        "y": labels[:4],
        "tx": scipy.sparse.csr_matrix(words[FIRST_TEST:]),
        "ty": labels[FIRST_TEST:],
        "allx": scipy.sparse.csr_matrix(words[:FIRST_TEST]),
        "ally": labels[:FIRST_TEST],
        "graph": graph,
        "test.index": np.array([513, 510, 511]),
    }


@pytest.fixture
def write(python2_dumps: Any) -> Any:
    """A function that writes these parts to a folder and returns it."""

    def write_parts(folder: Path, values: dict[str, Any]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for part, value in values.items():
            lines = "".join(f"{node}\n" for node in value) if part == "test.index" else None
            content = python2_dumps(value) if lines is None else lines.encode()
            (folder / f"ind.cora.{part}").write_bytes(content)
        return folder

    return write_parts


def test_reads_the_format(tmp_path: Path, write: Any) -> None:
    values = parts()
    data = load("cora", write(tmp_path / "planetoid", values).parent, row_normalize=False)
    words = torch.from_numpy(values["allx"].toarray())
    assert (data.num_nodes, data.num_features, data.num_classes) == (514, 3, 2)
    assert torch.equal(data.x[:FIRST_TEST], words)
    tx, ty = torch.from_numpy(values["tx"].toarray()), torch.from_numpy(values["ty"])
    assert torch.equal(data.x[[513, 510, 511]], tx)
    assert torch.equal(data.y[[513, 510, 511]], ty.argmax(1))
    assert torch.equal(data.y[:FIRST_TEST], torch.from_numpy(values["ally"]).argmax(1))
    assert data.train_mask.nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert data.val_mask.nonzero().flatten().tolist() == list(range(4, 504))
    assert data.test_mask.nonzero().flatten().tolist() == [510, 511, 513]
    assert not data.x[MISSING].any() and data.y[MISSING] == -1


def test_edges_are_undirected_and_single(tmp_path: Path, write: Any) -> None:
    data = load("cora", write(tmp_path, parts()))
    pairs = {tuple(pair) for pair in data.edge_index.T.tolist()}
    assert data.num_edges == len(pairs) == 2 * (514 + 1)
    assert {(0, 5), (5, 0), (0, 1), (1, 0), (MISSING, 513)} <= pairs
    assert all((j, i) in pairs and i != j for i, j in pairs)
    assert data.edge_index[1].tolist() == sorted(data.edge_index[1].tolist())


def test_rows_are_normalized_by_default(tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path, parts())
    given, scaled = load("cora", folder, row_normalize=False).x, load("cora", folder).x
    total = given.sum(1, keepdim=True)
    assert (total == 0).any()  # all-zero rows stay zero
    torch.testing.assert_close(scaled, given / total.clamp(min=1))


def test_folder_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    monkeypatch.setenv("GAT_EXT_DATA", str(write(tmp_path / "planetoid", parts()).parent))
    assert load("cora").num_nodes == 514


def test_missing_file_is_named(tmp_path: Path, write: Any) -> None:
    write(tmp_path, parts())
    (tmp_path / "ind.cora.ally").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no ind\.cora\.ally; expected"):
        load("cora", tmp_path)


def drop_node(values: dict[str, Any]) -> None:
    del values["graph"][3]


def outside(values: dict[str, Any]) -> None:
    values["graph"][3].append(10**30)


MISFITS = {
    "graph has 513 nodes": drop_node,
    "neighbour outside its 514 nodes": outside,
    "tx has shape": lambda values: values.update(tx=values["tx"][:2]),
    "allx has shape": lambda values: values.update(allx=values["allx"][:, :2]),
    "a row of ally is not one-hot": lambda values: values["ally"].__setitem__(9, 1),
    "ty has shape": lambda values: values.update(ty=values["ty"][:, :1]),
    "y has shape": lambda values: values.update(y=values["y"][:, 0]),
    "allx has 505 rows": lambda values: values.update(
        allx=values["allx"][:505],
        ally=values["ally"][:505],
        x=values["allx"][:6],
        y=values["ally"][:6],
    ),
    "test.index has 2 different": lambda values: values.update({"test.index": [510, 510, 513]}),
    "names node 3, which allx holds": lambda values: values.update({"test.index": [3, 510, 513]}),
    "one node number in each line": lambda values: values.update({"test.index": ["five"]}),
    "infinite value": lambda values: values["allx"].data.__setitem__(0, np.nan),
}


@pytest.mark.parametrize("message", MISFITS)
def test_inconsistent_files_are_refused(tmp_path: Path, message: str, write: Any) -> None:
    values = parts()
    MISFITS[message](values)
    with pytest.raises(ValueError, match=message) as caught:
        load("cora", write(tmp_path, values))
    text = str(caught.value)
    assert str(tmp_path) in text or text.startswith("cora: ")


PUBLISHED = {
    "cora": (2708, 10556, 1433, 7, 140, 49216, 0),
    "citeseer": (3327, 9104, 3703, 6, 120, 105165, 15),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_statistics(name: str, data_dir: Path) -> None:
    data = load(name, data_dir, row_normalize=False)
    nodes, edges, features, classes, train, nonzero, unknown = PUBLISHED[name]
    assert (data.num_nodes, data.num_edges, data.num_features) == (nodes, edges, features)
    assert data.num_classes == classes and int(data.x.count_nonzero()) == nonzero
    masks = (data.train_mask, data.val_mask, data.test_mask)
    assert [int(nodes.sum()) for nodes in masks] == [train, 500, 1000]
    assert data.y[data.train_mask].bincount().tolist() == [20] * classes
    lost = data.y < 0
    assert int(lost.sum()) == unknown
    assert not data.x[lost].any() and not torch.stack(masks)[:, lost].any()


def test_published_graph_of_pubmed(data_dir: Path) -> None:
    graph = read_adjacency(data_dir / "planetoid" / "ind.pubmed.graph")
    assert undirected_edges(planetoid.edges_of(graph), len(graph)).shape == (2, 88648)


def test_digests_are_those_of_the_published_files(data_dir: Path) -> None:
    checked = 0
    for name, digests in planetoid.SHA256.items():
        for part, digest in zip(planetoid.PARTS, digests, strict=True):
            file = data_dir / "planetoid" / f"ind.{name}.{part}"
            if file.is_file():
                assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
                checked += 1
    assert checked >= 16


@pytest.fixture
def served(file_server: Any, monkeypatch: pytest.MonkeyPatch, write: Any) -> Any:
    """A server of the small files, with their digests instead of the published ones."""
    write(file_server.folder, parts())
    digests = tuple(
        hashlib.sha256((file_server.folder / f"ind.cora.{part}").read_bytes()).hexdigest()
        for part in planetoid.PARTS
    )
    monkeypatch.setitem(planetoid.SHA256, "cora", digests)
    return file_server


def cached(tmp_path: Path) -> list[str]:
    return sorted(file.name for file in (tmp_path / "cache").rglob("*") if file.is_file())


def test_download_then_cache(served: Any, tmp_path: Path) -> None:
    first = load("cora", url=served.url)
    assert served.requests == [f"/ind.cora.{part}" for part in planetoid.PARTS]
    assert cached(tmp_path) == sorted(f"ind.cora.{part}" for part in planetoid.PARTS)
    second = load("cora", url=served.url)
    assert len(served.requests) == len(planetoid.PARTS)
    assert torch.equal(first.x, second.x) and torch.equal(first.edge_index, second.edge_index)


def test_spoiled_cache_is_replaced(served: Any, tmp_path: Path) -> None:
    load("cora", url=served.url)
    (tmp_path / "cache" / "planetoid" / "ind.cora.y").write_bytes(b"spoiled")
    load("cora", url=served.url)
    assert served.requests[len(planetoid.PARTS) :] == ["/ind.cora.y"]


def test_corrupted_download(served: Any, tmp_path: Path) -> None:
    (served.folder / "ind.cora.x").write_bytes(b"corrupted")
    with pytest.raises(ValueError, match=r"ind\.cora\.x does not have the expected content"):
        load("cora", url=served.url)
    assert cached(tmp_path) == []


def test_file_missing_on_the_server(served: Any, tmp_path: Path) -> None:
    (served.folder / "ind.cora.x").unlink()
    with pytest.raises(ConnectionError, match=r"cannot download .*ind\.cora\.x.*404"):
        load("cora", url=served.url)
    assert cached(tmp_path) == []


def test_server_down(served: Any, tmp_path: Path) -> None:
    served.stop()
    with pytest.raises(ConnectionError, match=r"cannot download .*ind\.cora\.x.*pass its folder"):
        load("cora", url=served.url)
    assert cached(tmp_path) == []


@pytest.mark.parametrize("place", ["raw", "Cora/raw", "cora/raw", "CORA/raw"])
def test_files_as_pyg_arranges_them(
    place: str, tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "root" / place, parts())
    expected = load("cora", tmp_path / "root" / place)
    assert torch.equal(load("cora", tmp_path / "root").edge_index, expected.edge_index)
    monkeypatch.setenv("GAT_EXT_DATA", str(tmp_path / "root"))
    assert torch.equal(load("cora").edge_index, expected.edge_index)


def test_error_names_where_pyg_has_the_files(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "PubMed" / "raw", parts())  # of another data set
    with pytest.raises(FileNotFoundError, match=r"ind\.cora\.x.*planetoid, or in .*cora/raw"):
        load("cora", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"ind\.cora\.x"):
        load("cora", tmp_path / "file")


def test_root_is_never_completed_by_download(served: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no"):
        load("cora", tmp_path, url=served.url)
    assert served.requests == []
