"""The text format of TUDataset: folders, zips, hostile zips, downloads, the published files."""

from __future__ import annotations

import hashlib
import stat
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gat_ext.datasets import GraphDataset, _files, load_graphs

# Graphs of 3, 1 and 2 nodes; an edge in one direction, an edge in both, and a self-loop.
FILES = {
    "A": "1, 2\n2, 1\n2, 3\n5, 6\n6,5\n6, 5\n4, 4\n",
    "graph_indicator": "1\n1\n1\n2\n3\n3\n",
    "graph_labels": "1\n-1\n1\n",
    "node_labels": "7\n3\n7\n3\n9\n7\n",
    "node_attributes": "0.5, 1\n-1e-3, 2\n0, 3\n0, 4\n0, 5\n0, 6\n",
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


# ---- targets


def test_real_graph_labels_are_targets(tmp_path: Path) -> None:
    data = load_graphs("tu:TINY", write(tmp_path, graph_labels="1\n-0.7\n2e-1\n"))
    assert (data.task, data.num_classes) == ("regression", 0)
    assert torch.equal(data.y, torch.tensor([[1.0], [-0.7], [0.2]]))


def test_whole_graph_labels_are_classes(tmp_path: Path) -> None:
    """However they are written."""
    data = load_graphs("tu:TINY", write(tmp_path, graph_labels="1.0\n-1.000e+00\n1\n"))
    assert (data.task, data.y.tolist(), data.num_classes) == ("classification", [1, 0, 1], 2)


@pytest.mark.parametrize("low", ["0", "-1"])
def test_several_graph_labels(tmp_path: Path, low: str) -> None:
    labels = f"1, {low}, 1\n{low}, {low}, 1\n1, 1, 1\n"
    data = load_graphs("tu:TINY", write(tmp_path, graph_labels=labels))
    assert (data.task, data.num_classes) == ("multilabel", 3)
    assert data.y.tolist() == [[1, 0, 1], [0, 0, 1], [1, 1, 1]]


def test_one_of_several_graph_labels(tmp_path: Path) -> None:
    write(tmp_path, graph_labels="5, 1.5\n3, 0\n9, 2\n")
    assert load_graphs("tu:TINY", tmp_path).y.tolist() == [[5, 1.5], [3, 0], [9, 2]]
    first = load_graphs("tu:TINY", tmp_path, column=0)
    assert (first.y.tolist(), first.num_classes) == ([1, 0, 2], 3)
    assert load_graphs("tu:TINY", tmp_path, column=1).y.tolist() == [[1.5], [0], [2]]
    for column in (2, -1, "0"):
        with pytest.raises(
            ValueError, match=rf"column is {column!r}; expected 0 to 1, .*labels\.txt"
        ):
            load_graphs("tu:TINY", tmp_path, column=column)


def test_graph_attributes_are_targets(tmp_path: Path) -> None:
    """Integers, too; as in QM9, there may be no graph labels."""
    write(tmp_path, graph_attributes="1, 2\n3, -4.5\n5, 6\n", graph_labels=None)
    data = load_graphs("tu:TINY", tmp_path)
    assert data.task == "regression" and data.y.tolist() == [[1, 2], [3, -4.5], [5, 6]]
    assert data.y.dtype == torch.float32
    assert load_graphs("tu:TINY", tmp_path, column=0).y.tolist() == [[1], [3], [5]]
    with pytest.raises(FileNotFoundError, match=r"has no TINY_graph_labels\.txt"):
        load_graphs("tu:TINY", tmp_path, target="labels")


def test_labels_or_attributes(tmp_path: Path) -> None:
    write(tmp_path, graph_attributes="1\n3\n5\n")
    assert load_graphs("tu:TINY", tmp_path).y.tolist() == [1, 0, 1]
    assert load_graphs("tu:TINY", tmp_path, target="labels").y.tolist() == [1, 0, 1]
    assert load_graphs("tu:TINY", tmp_path, target="attributes").y.tolist() == [[1], [3], [5]]
    with pytest.raises(ValueError, match="target is 'y'; expected 'labels', 'attributes' or None"):
        load_graphs("tu:TINY", tmp_path, target="y")


def test_precision_that_float32_lacks_is_reported(tmp_path: Path) -> None:
    write(tmp_path, graph_attributes="1, -406000.01\n2, -406000.02\n3, -406000.03\n")
    with pytest.warns(
        UserWarning, match=r"attributes\.txt, column 1: float32 rounds .* subtract a"
    ):
        load_graphs("tu:TINY", tmp_path, target="attributes")


# ---- edge attributes


def rows(data: GraphDataset) -> list[tuple[Any, ...]]:
    assert data.edge_attr is not None
    return [tuple(row) for row in torch.cat([data.edge_index.T, data.edge_attr], dim=1).tolist()]


BOTH_WAYS = "1, 2\n2, 1\n2, 3\n3, 2\n5, 6\n6,5\n"


def test_each_direction_has_its_edge_attributes(tmp_path: Path) -> None:
    attributes = "0.5, 1\n0.25, 2\n3, 3\n3, 3\n4, 4\n5, 5\n"
    data = load_graphs("tu:TINY", write(tmp_path, A=BOTH_WAYS, edge_attributes=attributes))
    assert rows(data) == [
        (1, 0, 0.25, 2),
        (0, 1, 0.5, 1),
        (2, 1, 3, 3),
        (1, 2, 3, 3),
        (5, 4, 5, 5),
        (4, 5, 4, 4),
    ]
    assert rows(data.subset([2, 0])) == [
        (1, 0, 5, 5),
        (0, 1, 4, 4),
        (3, 2, 0.25, 2),
        (2, 3, 0.5, 1),
        (4, 3, 3, 3),
        (3, 4, 3, 3),
    ]
    assert data.with_types("wl").edge_attr is data.edge_attr


@pytest.mark.parametrize("target", ["labels", "attributes"])
def test_against_the_reader_of_pyg(tmp_path: Path, target: str) -> None:
    """Of files that list every edge in both directions, once."""
    io = pytest.importorskip("torch_geometric.io")
    random, sizes = np.random.default_rng(0), [5, 1, 9, 7]
    starts = np.cumsum([0, *sizes[:-1]])
    pairs = [
        (start + i, start + j)
        for start, size in zip(starts, sizes, strict=True)
        for i in range(1, size + 1)
        for j in range(1, size + 1)
        if i != j and (i + j) % 3
    ]
    labels = [0, 1, 2, *random.integers(0, 3, len(pairs) - 3)]
    lines = {
        "A": pairs,
        "graph_indicator": [(g,) for g, size in enumerate(sizes, 1) for _ in range(size)],
        "node_labels": [(kind,) for kind in range(sum(sizes))],
        "node_attributes": random.normal(size=(sum(sizes), 3)).tolist(),
        "edge_labels": [(kind,) for kind in labels],
        "edge_attributes": random.normal(size=(len(pairs), 2)).tolist(),
        f"graph_{target}": [(3,), (-1,), (3,), (7,)],
    }
    for part, content in lines.items():
        text = "".join(", ".join(map(str, line)) + "\n" for line in content)
        (tmp_path / f"TINY_{part}.txt").write_text(text)
    theirs, slices, _ = io.read_tu_data(str(tmp_path), "TINY")
    ours = load_graphs("tu:TINY", tmp_path)
    shift = slices["x"][:-1].repeat_interleave(slices["edge_index"].diff())
    edges = theirs.edge_index + shift
    order = torch.argsort(edges[1] * sum(sizes) + edges[0])
    assert ours.edge_attr is not None and ours.x is not None
    assert torch.equal(ours.edge_index, edges[:, order])
    assert torch.equal(ours.edge_attr, theirs.edge_attr[order])
    one_hot = torch.nn.functional.one_hot(ours.node_type, ours.num_types)
    assert torch.equal(torch.cat([ours.x, one_hot], dim=1), theirs.x)
    assert torch.equal(ours.y.reshape(-1), theirs.y)


def test_reverses_have_the_attributes_of_the_listed_edge(tmp_path: Path) -> None:
    """Without self-loops; repeated only if the attributes differ, even across directions."""
    attributes = "1\n1\n2\n3\n4\n3\n9\n"  # of edges 1-2, 2-1, 2-3, 5-6, 6-5, 6-5, 4-4
    data = load_graphs("tu:TINY", write(tmp_path, edge_attributes=attributes))
    assert rows(data) == [
        (1, 0, 1),
        (0, 1, 1),
        (2, 1, 2),
        (1, 2, 2),
        (5, 4, 3),
        (5, 4, 4),
        (4, 5, 3),
        (4, 5, 4),
    ]


def test_edge_labels_are_columns_after_the_attributes(tmp_path: Path) -> None:
    write(tmp_path, A=BOTH_WAYS, edge_labels="7\n7\n-1\n-1\n4\n4\n")
    data = load_graphs("tu:TINY", tmp_path)
    assert data.edge_attr is not None
    assert data.edge_attr.tolist() == [[0, 0, 1]] * 2 + [[1, 0, 0]] * 2 + [[0, 1, 0]] * 2
    (tmp_path / "TINY_edge_attributes.txt").write_text("1.5\n1.5\n2\n2\n3\n3\n")
    data = load_graphs("tu:TINY", tmp_path)
    assert data.edge_attr is not None
    assert data.edge_attr[::2].tolist() == [[1.5, 0, 0, 1], [2, 1, 0, 0], [3, 0, 1, 0]]


def test_the_rarest_of_many_edge_labels_share_a_column(tmp_path: Path) -> None:
    nodes = 71  # in a path; labels 0, 0, 1, 2, …
    edges = "".join(f"{i}, {i + 1}\n" for i in range(1, nodes))
    write(
        tmp_path,
        A=edges,
        graph_indicator="1\n" * nodes,
        graph_labels="1\n",
        node_labels=None,
        node_attributes=None,
        edge_labels="0\n" + "".join(f"{i}\n" for i in range(nodes - 2)),
    )
    attr = load_graphs("tu:TINY", tmp_path).edge_attr
    assert (
        attr is not None and attr.shape == (140, 64) and torch.equal(attr.sum(1), torch.ones(140))
    )
    assert attr.sum(0).tolist() == [4] + [2] * 62 + [12]


def test_edge_files_without_edges(tmp_path: Path) -> None:
    data = load_graphs("tu:TINY", write(tmp_path, A="", edge_labels="", edge_attributes="\n"))
    assert data.num_edges == 0 and data.edge_attr is not None and data.edge_attr.shape == (0, 1)


# ---- temporal data sets


def test_temporal_data(tmp_path: Path) -> None:
    """As in infectious_ct1: contacts at several times, and labels from a time on."""
    write(
        tmp_path,
        A="1, 2\n1, 2\n2, 1\n2, 1\n2, 3\n3, 2\n5, 6\n6, 5\n5, 6\n6, 5\n",
        edge_attributes="4\n2\n2\n4\n3\n3\n1\n1\n1\n1\n",
        node_labels="0, 0, 4, 1\n0, 0\n0, 0, 17, 1\n0, 0\n0, 1\n9, 2, 0, 0, 4, 1\n",
        node_attributes=None,
    )
    data = load_graphs("tu:TINY", tmp_path)
    assert rows(data) == [
        (1, 0, 2),
        (1, 0, 4),
        (0, 1, 2),
        (0, 1, 4),
        (2, 1, 3),
        (1, 2, 3),
        (5, 4, 1),
        (4, 5, 1),
    ]
    # The sequences 0; 0, 1; 0, 1, 2; 1.
    assert data.num_types == 4 and data.node_type.tolist() == [1, 0, 1, 0, 3, 2]
    assert data.x is not None and data.x.T.tolist() == [[4, 0, 17, 0, 0, 9]]


def test_temporal_labels_next_to_attributes(tmp_path: Path) -> None:
    data = load_graphs("tu:TINY", write(tmp_path, node_labels="0, 5\n" * 5 + "0, 5, 2.5, 6\n"))
    assert data.x is not None and data.x.shape == (6, 3)
    assert data.x[:, 2].tolist() == [0, 0, 0, 0, 0, 2.5]


def test_temporal_edge_labels(tmp_path: Path) -> None:
    labels = "1, 5\n1, 5\n2, 5, 3, 6\n2, 5, 3, 6\n1, 6\n1, 6\n"
    data = load_graphs("tu:TINY", write(tmp_path, A=BOTH_WAYS, edge_labels=labels))
    assert data.edge_attr is not None  # the time, then the sequences 5; 5, 6; 6
    assert data.edge_attr[::2].tolist() == [[1, 1, 0, 0], [3, 0, 1, 0], [1, 0, 0, 1]]


# ---- folders


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
    ("graph_labels", "1\nA\n1\n", "graph_labels.txt, line 2: 'A'; expected 1 numbers"),
    ("graph_labels", "1\nnan\n1\n", "y has a NaN or an infinite value"),
    ("graph_labels", "1,2\n0,1\n1,0\n", "2 columns of integers; expected .* pass column=0"),
    ("graph_labels", "1,2\n0\n1,0\n", "graph_labels.txt, line 2: '0'; expected 2 numbers"),
    ("edge_labels", "1\n" * 6, "edge_labels.txt has 6 lines, expected 7, .* of the edges"),
    ("edge_labels", "1\n1\nC\n" + "1\n" * 4, "edge_labels.txt, line 3: 'C'; expected 1 integers"),
    ("edge_attributes", "1\n" * 8, "edge_attributes.txt has 8 lines, expected 7"),
    ("edge_attributes", "1\n" * 6 + "1,2\n", "edge_attributes.txt, line 7: '1,2'; expected 1 num"),
    ("edge_attributes", "inf\n" * 7, "edge_attr has a NaN or an infinite value"),
    ("node_labels", "0,1\n" * 5 + "0,1,2\n", "node_labels.txt, line 6: '0,1,2'; expected pairs of"),
    ("node_labels", "0,1\n" * 5 + "0,1,2,.5\n", "line 6: '0,1,2,.5'; expected pairs of a time"),
    ("node_labels", "0,1\n" * 5 + "0,1,x,1\n", "line 6: '0,1,x,1'; expected pairs of a time and"),
    ("node_labels", "0,1\n" * 5 + "0,1,nan,1\n", "line 6: '0,1,nan,1'; expected pairs"),
    ("node_labels", "0,1\n\n" + "0,1\n" * 4, "line 2: ''; expected pairs"),
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
    with pytest.raises(ValueError, match=r"TINY_A\.txt is damaged: BadZipFile: Bad CRC-32"):
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
    with pytest.raises(ValueError, match=r"case counts.*\(--root\).*--sha256 unchecked"):
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


@pytest.mark.parametrize("digest", ["abc", "", "0" * 63 + "g", "Unchecked"])
def test_digest_is_checked_before_the_download(digest: str, served: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 64 hexadecimal digits, or 'unchecked'"):
        load_graphs("tu:TINY", url=served.url, sha256=digest)
    assert served.requests == [] == cached(tmp_path)


@pytest.mark.parametrize("place", ["raw", "TINY/raw"])
def test_files_as_pyg_arranges_them(place: str, tmp_path: Path) -> None:
    write(tmp_path / place)
    assert len(load_graphs("tu:TINY", tmp_path)) == 3


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
    assert data.num_classes == 2 and data.x is None and data.edge_attr is None
    assert data.node_type.bincount().min() > 0
