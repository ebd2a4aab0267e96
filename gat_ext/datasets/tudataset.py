"""The TUDataset collection of graph classification benchmarks: NCI1, MUTAG, PROTEINS and others."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gat_ext.datasets._arrays import Array, undirected_edges
from gat_ext.datasets._files import Folder, cache_folder, fetch, find_folder, local_folder
from gat_ext.datasets._graphs import GraphDataset
from gat_ext.datasets._registry import register_graphs

URL = "https://www.chrsmrrs.com/graphkerneldatasets/"
UNCHECKED = "unchecked"
LARGEST_MEMBER = 2**30  # unpacked bytes of a file inside a zip


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
        kinds, node_type = np.unique(rows, axis=0, return_inverse=True)
        num_types = len(kinds)
    x = None
    if attributes.is_file():
        x = torch.from_numpy(_table(attributes, rows=(num_nodes, "nodes"), number=float)).float()
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


def _text(file: Folder) -> str:
    """The content of a file; raises if a file in a zip has more than ``LARGEST_MEMBER`` bytes."""
    if isinstance(file, zipfile.Path):
        size = file.root.getinfo(file.at).file_size  # zipfile never reads more
        if size > LARGEST_MEMBER:
            raise ValueError(
                f"{file} unpacks to {size} bytes, expected at most {LARGEST_MEMBER}; "
                "if you trust it, unpack it by hand and pass the folder as root"
            )
    try:
        return file.read_text(encoding="ascii")
    except (UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{file} is damaged: {error}; download it again from its source"
        ) from error


def _table(
    file: Folder,
    *,
    columns: int | None = None,
    rows: tuple[int, str] | None = None,
    number: Callable[[str], float] = int,
) -> Array:
    """The numbers of a file of comma-separated lines, [lines, columns], int64 or float64.

    Args:
        file: The file.
        columns: Numbers in a line; None: as many as in the first.
        rows: The required number of lines, and what each line is for.
        number: ``int`` or ``float``.

    Raises:
        ValueError: A line has other content, or the number of lines is wrong.
    """
    lines = _text(file).rstrip().splitlines()
    if rows is not None and len(lines) != rows[0]:
        raise ValueError(
            f"{file} has {len(lines)} lines, expected {rows[0]}, one for each of the {rows[1]}"
        )
    if columns is None:
        columns = lines[0].count(",") + 1 if lines else 1
    try:
        if any(line.count(",") != columns - 1 for line in lines):
            raise ValueError("a line of another length")
        numbers = list(map(number, ",".join(lines).split(","))) if lines else []
        dtype = np.int64 if number is int else np.float64
        return np.array(numbers, dtype=dtype).reshape(-1, columns)
    except (ValueError, OverflowError) as error:
        raise _blame(file, lines, columns, number) from error


def _blame(
    file: Folder, lines: list[str], columns: int, number: Callable[[str], float]
) -> ValueError:
    """An error that names the first line that does not consist of ``columns`` numbers."""
    kind = "integers" if number is int else "numbers"
    for position, line in enumerate(lines, 1):
        cells = line.split(",")
        try:
            fits = len(cells) == columns and all(abs(number(cell)) < 2**63 for cell in cells)
        except ValueError:
            fits = False
        if not fits:
            return ValueError(
                f"{file}, line {position}: {line[:60]!r}; expected {columns} {kind}, "
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
