"""The TUDataset collection of graph classification benchmarks: NCI1, MUTAG, PROTEINS and others."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from gat_ext.datasets._arrays import Array, undirected_edges
from gat_ext.datasets._files import Folder, cache_folder, fetch, find_folder, local_folder
from gat_ext.datasets._graphs import GraphDataset
from gat_ext.datasets._registry import register_graphs

URL = "https://www.chrsmrrs.com/graphkerneldatasets/"
UNCHECKED = "unchecked"


@register_graphs("tu:NAME")
def tudataset(
    name: str, root: Path | None = None, *, url: str = URL, sha256: str | None = None
) -> GraphDataset:
    """Any data set in the text format of TUDataset, by its name in the collection.

    | name | graphs | nodes | directed edges | node types | classes |
    |---|---|---|---|---|---|
    | tu:NCI1 | 4,110 | 122,747 | 265,506 | 37 | 2 |
    | tu:MUTAG | 188 | 3,371 | 7,442 | 7 | 2 |
    | tu:PROTEINS | 1,113 | 43,471 | 162,088 | 3 | 2 |
    | tu:PTC | 344 | 8,792 | 17,862 | 19 | 2 |
    | tu:IMDB-BINARY | 1,000 | 19,773 | 193,062 | 64 | 2 |

    Edges are in both directions, without duplicates, self-loops and edge labels. Classes are the
    graph labels, renumbered from 0 in increasing order; node types are the node labels, renumbered
    likewise (for rows of several labels, each distinct row is a type). Without node labels, as in
    IMDB-BINARY, types are degrees, as with ``with_types("degree")``. Node attributes become ``x``.

    Args:
        name: Name of the data set, such as ``NCI1``.
        root: Folder with the files ``<name>_A.txt`` and so on, with a subfolder ``<name>`` or
            ``tudataset/<name>`` of them, or with ``<name>.zip``, which is read without unpacking.
            A file in the zip may unpack to 64 MiB, or 32 times its size in the zip.
        url: Folder from which ``<name>.zip`` is downloaded.
        sha256: Digest of the zip, 64 hexadecimal digits. The publisher gives none, so a download
            requires one from you, or ``"unchecked"`` to accept any content. Ignored if the files
            are on this machine.

    Raises:
        FileNotFoundError: ``root`` is given and lacks a file.
        ConnectionError: The download failed.
        ValueError: The files are inconsistent or damaged, the download has another digest, or a
            download is required and ``sha256`` is None.
        ImportError: A download is required and pooch is missing.

    Source:
        Morris et al., "TUDataset: A collection of benchmark datasets for learning with graphs",
        ICML 2020 workshop GRL+.

    Example:
        >>> from gat_ext.datasets import load_graphs
        >>> len(load_graphs("tu:NCI1"))  # doctest: +SKIP
        4110
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"name is {name!r}; expected letters, digits, - and _, as in 'NCI1'")
    folder = _folder(name, root, url, sha256)

    def file(part: str) -> Folder:
        return folder / f"{name}_{part}.txt"

    graph_of = _graphs_of_nodes(file("graph_indicator"))
    num_nodes, num_graphs = len(graph_of), int(graph_of[-1]) + 1
    labels = _table(file("graph_labels"), columns=1, rows=(num_graphs, "graphs"))
    links = _links(file("A"), graph_of)
    classes, y = np.unique(labels, return_inverse=True)
    has_types, attributes = file("node_labels").is_file(), file("node_attributes")
    node_type, num_types = np.zeros(num_nodes, np.int64), 1
    if has_types:
        rows = _table(file("node_labels"), rows=(num_nodes, "nodes"))
        if rows.shape[1] == 1:
            rows = rows[:, 0]  # which sorts faster
        kinds, node_type = np.unique(rows, axis=0, return_inverse=True)
        num_types = len(kinds)
    x = None
    if attributes.is_file():
        x = torch.from_numpy(
            _table(attributes, rows=(num_nodes, "nodes"), dtype=np.float64)
        ).float()
    data = GraphDataset(
        name=f"tu:{name}",
        edge_index=undirected_edges(links, num_nodes),
        node_ptr=torch.from_numpy(np.searchsorted(graph_of, np.arange(num_graphs + 1))),
        node_type=torch.from_numpy(node_type.reshape(-1)),
        num_types=num_types,
        y=torch.from_numpy(y.reshape(-1)),
        num_classes=len(classes),
        x=x,
    )
    return data if has_types else data.with_types("degree")


def _folder(name: str, root: Path | None, url: str, sha256: str | None) -> Folder:
    """The folder of the files; downloads the zip if they are missing."""
    files = [f"{name}_{part}.txt" for part in ("A", "graph_indicator", "graph_labels")]
    folder = local_folder(root, f"tudataset/{name}", files)
    if folder is not None:
        return folder
    cache = cache_folder() / "tudataset"
    archive, source = cache / f"{name}.zip", f"{url.rstrip('/')}/{name}.zip"
    if sha256 is None and not archive.is_file():
        raise ValueError(
            f"tu:{name} is not on this machine, and {source} has no published checksum. Download "
            "it by hand and pass its folder as root, or pass its digest as sha256, or "
            f"sha256={UNCHECKED!r} to accept any content"
        )
    if sha256 is not None:
        fetch(source, None if sha256 == UNCHECKED else sha256, archive)
    if not zipfile.is_zipfile(archive):
        archive.unlink()
        raise ValueError(f"{source} did not return a zip file; check the name {name!r}")
    return find_folder(cache, name, files)


def _content(file: Folder) -> bytes:
    """The content of a file of ASCII text, with newlines between lines and none at the end."""
    content = file.read_bytes()
    if not content.isascii():
        byte = next(position for position, byte in enumerate(content) if byte > 127)
        raise ValueError(
            f"{file} is damaged: byte {byte} is not ASCII; download it again from its source"
        )
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return content.rstrip()


def _table(
    file: Folder,
    *,
    columns: int | None = None,
    rows: tuple[int, str] | None = None,
    dtype: type = np.int64,
) -> Array:
    """The numbers of a file of comma-separated lines, [lines, columns].

    Args:
        file: The file.
        columns: Numbers in a line; None: as many as in the first.
        rows: The required number of lines, and what each line is for.
        dtype: int64 or float64.

    Raises:
        ValueError: A line has other content, or the number of lines is wrong.
    """
    content = _content(file)
    lines = content.count(b"\n") + 1 if content else 0
    if rows is not None and lines != rows[0]:
        raise ValueError(
            f"{file} has {lines} lines, expected {rows[0]}, one for each of the {rows[1]}"
        )
    if columns is None:
        columns = io.BytesIO(content).readline().count(b",") + 1
    if not content:
        return np.empty((0, columns), dtype)
    table = _parsed(content, dtype) if _is_table(content, lines, columns) else None
    if table is None or len(table) != lines * columns:
        raise _blame(file, content, columns, dtype)
    return table.reshape(lines, columns)


def _is_table(content: bytes, lines: int, columns: int) -> bool:
    """True if each line has as many commas as columns need."""
    separators = np.frombuffer(content, np.uint8)
    separators = separators[(separators == ord(",")) | (separators == ord("\n"))]
    if len(separators) != lines * columns - 1:
        return False
    return bool((separators[columns - 1 :: columns] == ord("\n")).all())


def _parsed(content: bytes, dtype: type) -> Array | None:
    """The numbers between commas and newlines; None if there is other text."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of text that is not read to its end
        try:
            numbers: Array = np.fromstring(content.replace(b"\n", b","), dtype, sep=",")
        except (ValueError, Warning):
            return None
    # An integer beyond 64 bits becomes the largest one.
    limits = np.iinfo(np.int64)
    beyond = (
        dtype is np.int64
        and len(numbers)
        and (numbers.max() == limits.max or numbers.min() == limits.min)
    )
    return None if beyond else numbers


def _blame(file: Folder, content: bytes, columns: int, dtype: type) -> ValueError:
    """An error that names the first line that does not consist of ``columns`` numbers."""
    kind, number = ("integers", int) if dtype is np.int64 else ("numbers", float)
    for position, line in enumerate(io.BytesIO(content), 1):
        cells = line.split(b",")
        try:
            fits = len(cells) == columns and all(abs(number(cell)) < 2**63 for cell in cells)
        except ValueError:
            fits = False
        if not fits:
            given = line[:60].decode().rstrip("\n")
            return ValueError(
                f"{file}, line {position}: {given!r}; expected {columns} {kind}, "
                "separated by commas"
            )
    return ValueError(f"{file} is damaged; download it again from its source")


def _graphs_of_nodes(file: Folder) -> Array:
    """The number of each node's graph, int64 [N], from 0, increasing by 0 or 1."""
    indicator = _table(file, columns=1)[:, 0]
    if not len(indicator):
        raise ValueError(f"{file} is empty, expected the number of a graph for each node")
    jumps = np.flatnonzero(~np.isin(np.diff(indicator, prepend=1), (0, 1)))
    if indicator[0] != 1 or len(jumps):
        line = int(jumps[0]) if len(jumps) and indicator[0] == 1 else 0
        before = "the first" if line == 0 else f"one after graph {indicator[line - 1]}"
        raise ValueError(
            f"{file}, line {line + 1}: graph {indicator[line]} is {before}; expected the nodes of "
            "graph 1, then those of graph 2, and so on"
        )
    return indicator - 1


def _links(file: Folder, graph_of: Array) -> Array:
    """The lines of an ``_A.txt`` file with nodes counted from 0, int64 [2, E']."""
    links = _table(file, columns=2).T - 1
    outside = ((links < 0) | (links >= len(graph_of))).any(axis=0)
    if outside.any():
        line = int(outside.argmax())
        raise ValueError(
            f"{file}, line {line + 1}: edge {(links[:, line] + 1).tolist()} has an unknown node; "
            f"expected nodes from 1 to {len(graph_of)}"
        )
    source, target = graph_of[links]
    if (source != target).any():
        line = int((source != target).argmax())
        raise ValueError(
            f"{file}, line {line + 1}: edge {(links[:, line] + 1).tolist()} joins graph "
            f"{source[line] + 1} and graph {target[line] + 1}; expected edges inside a graph"
        )
    return links
