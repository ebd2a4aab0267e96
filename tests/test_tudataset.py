"""The text format of TUDataset: folders, zips, hostile zips, downloads, the published files."""

from __future__ import annotations

import hashlib
import stat
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from gat_ext.datasets import _files, load_graphs

# Graphs of 3, 1 and 2 nodes; an edge in one direction, an edge in both, and a self-loop.
FILES = {
    "A": "1, 2\n2, 1\n2, 3\n5, 6\n6,5\n6, 5\n4, 4\n",
    "graph_indicator": "1\n1\n1\n2\n3\n3\n",
    "graph_labels": "1\n-1\n1\n",
    "node_labels": "7\n3\n7\n3\n9\n7\n",
    "node_attributes": "0.5, 1\n-1e-3, 2\n0, 3\n0, 4\n0, 5\n0, 6\n",
    "edge_labels": "not read",
}


def write(folder: Path, **changes: str | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in {**FILES, **changes}.items():
        if content is not None:
            (folder / f"TINY_{part}.txt").write_text(content)
    return folder


def zipped(folder: Path, archive: Path, inside: str = "TINY/") -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in folder.iterdir():
            file.write(path, inside + path.name)
    return archive


def test_reads_the_format(tmp_path: Path) -> None:
    data = load_graphs("tu:TINY", write(tmp_path))
    assert data.name == "tu:TINY" and data.node_ptr.tolist() == [0, 3, 4, 6]
    assert data.edge_index.tolist() == [[1, 0, 2, 1, 5, 4], [0, 1, 1, 2, 4, 5]]
    assert data.y.tolist() == [1, 0, 1] and data.num_classes == 2
    assert data.node_type.tolist() == [1, 0, 1, 0, 2, 1] and data.num_types == 3
    assert data.x is not None
    expected = torch.tensor([[0.5, 1], [-1e-3, 2], [0, 3], [0, 4], [0, 5], [0, 6]])
    assert torch.equal(data.x, expected)


def test_optional_files(tmp_path: Path) -> None:
    data = load_graphs("tu:TINY", write(tmp_path, node_labels=None, node_attributes=None))
    assert data.x is None
    assert data.node_type.tolist() == [1, 2, 1, 0, 1, 1]  # degrees


def test_rows_of_labels(tmp_path: Path) -> None:
    data = load_graphs("tu:TINY", write(tmp_path, node_labels="1,2\n1,3\n1,2\n0,9\n1,3\n1,2\n"))
    assert data.node_type.tolist() == [1, 2, 1, 0, 2, 1]


def test_no_edges_windows_lines_and_blank_end(tmp_path: Path) -> None:
    write(tmp_path, A="", graph_labels="1\r\n0\r\n1\r\n\r\n")
    data = load_graphs("tu:TINY", tmp_path)
    assert data.num_edges == 0 and data.y.tolist() == [1, 0, 1]


PLACES = {
    "the folder": "",
    "named after it": "TINY",
    "of the collection": "tudataset/TINY",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("from_environment", [False, True])
def test_places(
    tmp_path: Path, place: str, from_environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / place)
    monkeypatch.setenv("GAT_EXT_DATA", str(tmp_path) if from_environment else "")
    assert len(load_graphs("tu:TINY", None if from_environment else tmp_path)) == 3


@pytest.mark.parametrize("inside", ["", "TINY/"])
@pytest.mark.parametrize("place", [".", "TINY", "tudataset", "tudataset/TINY"])
def test_zip_is_read_in_place(tmp_path: Path, place: str, inside: str) -> None:
    root = tmp_path / "root"
    zipped(write(tmp_path / "files"), root / place / "TINY.zip", inside)
    data = load_graphs("tu:TINY", root)
    assert torch.equal(data.edge_index, load_graphs("tu:TINY", tmp_path / "files").edge_index)
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["TINY.zip"]


MISFITS: list[tuple[str, str, str]] = [
    ("A", "1, 2\n2, 7\n", r"TINY_A.txt, line 2: edge \[2, 7\] has an unknown node.*1 to 6"),
    ("A", "0, 1\n", r"TINY_A.txt, line 1: edge \[0, 1\] has an unknown node"),
    ("A", "1, 2\n3, 4\n", r"line 2: edge \[3, 4\] joins graph 1 and graph 2"),
    ("A", "1, 2\n1 2\n", "TINY_A.txt, line 2: '1 2'; expected 2 integers"),
    ("A", "1, 2, 3\n1\n", "TINY_A.txt, line 1: '1, 2, 3'; expected 2 integers"),
    ("A", "1, 2\n\n2, 1\n", "TINY_A.txt, line 2: ''; expected 2 integers"),
    ("A", "1, 2\n1, 99999999999999999999\n", "TINY_A.txt, line 2: '1, 99999"),
    ("graph_indicator", "1\n1\n1\n3\n3\n3\n", "line 4: graph 3 is one after graph 1; expected"),
    ("graph_indicator", "1\n2\n1\n2\n3\n3\n", "line 3: graph 1 is one after graph 2"),
    ("graph_indicator", "2\n2\n2\n3\n3\n3\n", "line 1: graph 2 is the first"),
    ("graph_indicator", "", "TINY_graph_indicator.txt is empty"),
    ("graph_labels", "1\n0\n", "graph_labels.txt has 2 lines, expected 3, .* of the graphs"),
    ("graph_labels", "1\n0.5\n1\n", "graph_labels.txt, line 2: '0.5'; expected 1 integers"),
    ("node_labels", "1\n" * 5, "node_labels.txt has 5 lines, expected 6, .* of the nodes"),
    ("node_labels", "1\nC\n" * 3, "node_labels.txt, line 2: 'C'"),
    ("node_attributes", "1,2\n" * 5 + "1\n", "node_attributes.txt, line 6: '1'; expected 2 numb"),
    ("node_attributes", "nan\n" * 6, "x has a NaN or an infinite value"),
    ("graph_labels", "é\n0\n1\n", "graph_labels.txt is damaged: byte 0 is not ASCII"),
]


@pytest.mark.parametrize(("part", "content", "message"), MISFITS)
def test_inconsistent_files_are_refused(
    tmp_path: Path, part: str, content: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_graphs("tu:TINY", write(tmp_path, **{part: content}))


@pytest.mark.parametrize("part", ["A", "graph_indicator", "graph_labels"])
def test_missing_file_is_named(tmp_path: Path, part: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"has no TINY_{part}\.txt; expected"):
        load_graphs("tu:TINY", write(tmp_path, **{part: None}))


@pytest.mark.parametrize("name", ["../TINY", "TINY/..", "a b", "x.zip", "é"])
def test_names_are_not_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="expected letters, digits"):
        load_graphs(f"tu:{name}", tmp_path)


# ---- hostile zips


def test_members_outside_are_never_written_or_read(tmp_path: Path) -> None:
    root = tmp_path / "a" / "root"
    archive = zipped(write(tmp_path / "files"), root / "TINY.zip")
    with zipfile.ZipFile(archive, "a") as file:
        for name in ("../outside.txt", "/absolute.txt", "TINY/../../outside.txt"):
            file.writestr(name, "hostile")
        file.writestr("../TINY_A.txt", "hostile")
    before = sorted(tmp_path.rglob("*"))
    assert len(load_graphs("tu:TINY", root)) == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_link_in_a_zip_is_not_followed(tmp_path: Path) -> None:
    files = write(tmp_path / "files", graph_labels=None)
    archive = zipped(files, tmp_path / "root" / "TINY.zip")
    secret = tmp_path / "secret.txt"
    secret.write_text("1\n0\n1\n")  # would be valid
    member = zipfile.ZipInfo("TINY/TINY_graph_labels.txt")
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(member, str(secret))
    with pytest.raises(ValueError, match=r"graph_labels\.txt has 1 lines, expected 3"):
        load_graphs("tu:TINY", archive.parent)


def test_bomb_in_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(tmp_path / "files", A="1, 2\n" * 200_000)
    archive = zipped(files, tmp_path / "root" / "TINY.zip")
    assert archive.stat().st_size < 10_000
    monkeypatch.setattr(_files, "LARGEST_MEMBER", 100_000)
    with pytest.raises(ValueError, match="unpacks to 1000000 bytes, expected at most 100000"):
        load_graphs("tu:TINY", archive.parent)


def test_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    files = write(tmp_path / "files", A="1, 2\n" * 200_000)
    archive = zipped(files, tmp_path / "root" / "TINY.zip")
    true, told = (1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(true, told))
    with pytest.raises(ValueError, match=r"TINY_A\.txt is damaged: Bad CRC-32"):
        load_graphs("tu:TINY", archive.parent)


def test_damaged_zip(tmp_path: Path) -> None:
    (tmp_path / "TINY.zip").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"TINY\.zip is not a valid zip file"):
        load_graphs("tu:TINY", tmp_path)


# ---- download


@pytest.fixture
def served(file_server: Any, tmp_path: Path) -> Any:
    zipped(write(tmp_path / "files"), file_server.folder / "TINY.zip")
    return file_server


def cached(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_download_needs_a_digest(served: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no published checksum.*sha256='unchecked'"):
        load_graphs("tu:TINY", url=served.url)
    assert served.requests == [] == cached(tmp_path)


def test_download_with_digest_then_cache(served: Any, tmp_path: Path) -> None:
    digest = hashlib.sha256((served.folder / "TINY.zip").read_bytes()).hexdigest()
    assert len(load_graphs("tu:TINY", url=served.url, sha256=digest)) == 3
    assert len(load_graphs("tu:TINY", url=served.url)) == 3
    assert served.requests == ["/TINY.zip"] and cached(tmp_path) == ["TINY.zip"]


def test_download_with_another_digest(served: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"TINY\.zip does not have the expected content"):
        load_graphs("tu:TINY", url=served.url, sha256="0" * 64)
    assert cached(tmp_path) == []


def test_unchecked_download(served: Any, tmp_path: Path) -> None:
    for _ in range(2):
        assert len(load_graphs("tu:TINY", url=served.url, sha256="unchecked")) == 3
    assert served.requests == ["/TINY.zip"]


def test_unchecked_download_of_something_else(served: Any, tmp_path: Path) -> None:
    (served.folder / "TINY.zip").write_text("<html>moved</html>")
    with pytest.raises(ValueError, match="did not return a zip file"):
        load_graphs("tu:TINY", url=served.url, sha256="unchecked")
    assert cached(tmp_path) == []


def test_file_missing_on_the_server(served: Any, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"cannot download .*OTHER\.zip.*404"):
        load_graphs("tu:OTHER", url=served.url, sha256="unchecked")
    assert cached(tmp_path) == []


def test_root_is_never_completed_by_download(served: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no"):
        load_graphs("tu:TINY", tmp_path / "empty", url=served.url, sha256="unchecked")
    assert served.requests == []


# ---- the published files

PUBLISHED = {
    "NCI1": (4110, 122747, 265506, 37),
    "MUTAG": (188, 3371, 7442, 7),
    "PROTEINS": (1113, 43471, 162088, 3),
    "PTC": (344, 8792, 17862, 19),
    "IMDB-BINARY": (1000, 19773, 193062, 64),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_statistics(name: str, data_dir: Path) -> None:
    if not (data_dir / "tudataset" / name).is_dir():
        pytest.skip(f"needs the published files of {name} in {data_dir / 'tudataset'}")
    started = time.process_time()
    data = load_graphs(f"tu:{name}", data_dir)
    assert time.process_time() - started < 1.0
    assert (len(data), data.num_nodes, data.num_edges, data.num_types) == PUBLISHED[name]
    assert data.num_classes == 2 and data.x is None
    assert data.node_type.bincount().min() > 0
