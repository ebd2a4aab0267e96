"""The TUDataset collection of graph classification benchmarks: NCI1, MUTAG, PROTEINS and others."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gat_ext.datasets._arrays import Array, attributed_edges, undirected_edges
from gat_ext.datasets._files import Folder, cache_folder, fetch, find_folder, local_folder
from gat_ext.datasets._graphs import GraphDataset
from gat_ext.datasets._registry import register_graphs
from gat_ext.datasets._tables import are_whole, as_float32, read_labels, read_table
from gat_ext.datasets._types import most_frequent

URL = "https://www.chrsmrrs.com/graphkerneldatasets/"
UNCHECKED = "unchecked"
TARGETS = ("labels", "attributes")
MOST_EDGE_KINDS = 64


@register_graphs("tu:NAME")
def tudataset(
    name: str,
    root: Path | None = None,
    *,
    target: str | None = None,
    column: int | None = None,
    url: str = URL,
    sha256: str | None = None,
) -> GraphDataset:
    """Any data set in the text format of TUDataset, by its name in the collection.

    | name | graphs | nodes | directed edges | node types | classes |
    |---|---|---|---|---|---|
    | tu:NCI1 | 4,110 | 122,747 | 265,506 | 37 | 2 |
    | tu:MUTAG | 188 | 3,371 | 7,442 | 7 | 2 |
    | tu:PROTEINS | 1,113 | 43,471 | 162,088 | 3 | 2 |
    | tu:PTC | 344 | 8,792 | 17,862 | 19 | 2 |
    | tu:IMDB-BINARY | 1,000 | 19,773 | 193,062 | 64 | 2 |

    **Targets.** Graph labels in one column are classes, renumbered from 0 in increasing order. In
    several columns of 0 and 1, or of -1 and 1, they are any number of labels for each graph. Graph
    labels that are not integers, and graph attributes, as in QM9 or ZINC_full, are real targets for
    regression.

    **Nodes.** Node types are the node labels, renumbered in increasing order; for rows of several
    labels, each distinct row is a type. Without node labels, as in IMDB-BINARY, types are degrees,
    as with ``with_types("degree")``. Node attributes become ``x``. In temporal data sets, such as
    infectious_ct1, a line has the labels of a node over time, "time, label, time, label, …": each
    distinct sequence of labels is a type, and the time of the last label is one more column of
    ``x``. Such lines are recognised by their different lengths.

    **Edges** are in both directions, without duplicates and self-loops. Edge attributes, such as
    the times of temporal data sets, become ``edge_attr``, followed by one column of zeros and ones
    for each edge label, in increasing order; if there are more than 64 labels, for the 63 most
    frequent ones, and one for the others. If the files list every edge in both directions, as the
    format requires, each direction has its own attributes; else reverses get those of the listed
    edge. Edges between the same nodes with different attributes, such as contacts at several times,
    are all kept, with increasing attributes.

    Args:
        name: Name of the data set, such as ``NCI1``.
        root: Folder with the files ``<name>_A.txt`` and so on, with a subfolder ``<name>`` or
            ``tudataset/<name>`` of them, or ``raw`` or ``<name>/raw``, where PyG puts them, or
            with ``<name>.zip``, which is read without unpacking. A file in the zip may unpack to
            64 MiB, or 32 times its size in the zip.
        target: ``"labels"``, what to predict is in ``<name>_graph_labels.txt``;
            ``"attributes"``, in ``<name>_graph_attributes.txt``. None: the labels if there is such
            a file, else the attributes.
        column: The only column of the target to read, counted from 0. None: all.
        url: Folder from which ``<name>.zip`` is downloaded.
        sha256: Digest of the zip, 64 hexadecimal digits. The publisher gives none, so a download
            requires one from you, or ``"unchecked"`` to accept any content. Ignored if the files
            are on this machine.

    Raises:
        FileNotFoundError: ``root`` is given and lacks a file.
        ConnectionError: The download failed.
        ValueError: The files are inconsistent or damaged, there is no such target, the download
            has another digest, ``sha256`` is not a digest, or a download is required and it is
            None.
        ImportError: A download is required and pooch is missing.

    Source:
        Morris et al., "TUDataset: A collection of benchmark datasets for learning with graphs",
        ICML 2020 workshop GRL+; for temporal data sets Oettershagen et al., "Temporal Graph Kernels
        for Classifying Dissemination Processes", SDM 2020.

    Example:
        >>> from gat_ext.datasets import load_graphs
        >>> len(load_graphs("tu:NCI1"))  # doctest: +SKIP
        4110
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"name is {name!r}; expected letters, digits, - and _, as in 'NCI1'")
    if target is not None and target not in TARGETS:
        raise ValueError(f"target is {target!r}; expected 'labels', 'attributes' or None")
    if sha256 not in (None, UNCHECKED) and not re.fullmatch("[0-9a-fA-F]{64}", str(sha256)):
        raise ValueError(
            f"sha256 is {sha256!r}; expected 64 hexadecimal digits, or {UNCHECKED!r} to accept any "
            "content"
        )
    folder = _folder(name, root, target, url, sha256)

    def file(part: str) -> Folder:
        return folder / f"{name}_{part}.txt"

    graph_of = _graphs_of_nodes(file("graph_indicator"))
    num_nodes, num_graphs = len(graph_of), int(graph_of[-1]) + 1
    y, num_classes = _targets(file, num_graphs, target, column)
    edge_index, edge_attr = _edges(file, graph_of)
    nodes = (num_nodes, "nodes")
    node_type, num_types, x = np.zeros(num_nodes, np.int64), 1, np.empty((num_nodes, 0))
    if file("node_attributes").is_file():
        x = read_table(file("node_attributes"), rows=nodes, dtype=np.float64)
    if has_types := file("node_labels").is_file():
        node_type, num_types, since = read_labels(file("node_labels"), nodes)
        x = np.concatenate([x, since], axis=1)
    data = GraphDataset(
        name=f"tu:{name}",
        edge_index=edge_index,
        node_ptr=torch.from_numpy(np.searchsorted(graph_of, np.arange(num_graphs + 1))),
        node_type=torch.from_numpy(node_type),
        num_types=num_types,
        y=y,
        num_classes=num_classes,
        x=as_float32(x, f"tu:{name}: x") if x.shape[1] else None,
        edge_attr=edge_attr,
    )
    return data if has_types else data.with_types("degree")


def _folder(
    name: str, root: Path | None, target: str | None, url: str, sha256: str | None
) -> Folder:
    """The folder of the files; downloads the zip if they are missing."""
    targets = TARGETS if target is None else (target,)
    formats = [
        [f"{name}_{part}.txt" for part in ("A", "graph_indicator", f"graph_{kind}")]
        for kind in targets
    ]
    folder = local_folder(root, f"tudataset/{name}", *formats)
    if folder is not None:
        return folder
    cache = cache_folder() / "tudataset"
    archive, source = cache / f"{name}.zip", f"{url.rstrip('/')}/{name}.zip"
    if sha256 is None and not archive.is_file():
        raise ValueError(
            f"tu:{name} is not on this machine, and {source} has no published checksum. Check the "
            "name, whose case counts; then download it by hand and pass its folder as root "
            "(--root), or pass its digest as sha256 (--sha256), or accept any content with "
            f"sha256={UNCHECKED!r} (--sha256 {UNCHECKED})"
        )
    if sha256 is not None:
        fetch(source, None if sha256 == UNCHECKED else sha256, archive)
    if not zipfile.is_zipfile(archive):
        archive.unlink()
        raise ValueError(f"{source} did not return a zip file; check the name {name!r}")
    return find_folder(cache, name, *formats)


def _graphs_of_nodes(file: Folder) -> Array:
    """The number of each node's graph, int64 [N], from 0, increasing by 0 or 1."""
    indicator = read_table(file, columns=1)[:, 0]
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
    links = read_table(file, columns=2).T - 1
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


def _targets(
    file: Callable[[str], Folder], num_graphs: int, target: str | None, column: int | None
) -> tuple[Tensor, int]:
    """The fields ``y`` and ``num_classes`` of a GraphDataset."""
    source, dtype = file("graph_labels"), None
    if target == "attributes" or (target is None and not source.is_file()):
        source, dtype = file("graph_attributes"), np.float64
    table = read_table(source, rows=(num_graphs, "graphs"), dtype=dtype)
    columns = table.shape[1]
    if column is not None:
        if not (isinstance(column, int) and 0 <= column < columns):
            raise ValueError(
                f"column is {column!r}; expected 0 to {columns - 1}, one of the columns of {source}"
            )
        table = table[:, [column]]
    if dtype is np.float64 or not are_whole(table):
        return as_float32(table, str(source)), 0
    if table.shape[1] == 1:
        classes, y = np.unique(table, return_inverse=True)
        return torch.from_numpy(y.reshape(-1)), len(classes)
    if not any(np.isin(table, pair).all() for pair in ((0, 1), (-1, 1))):
        raise ValueError(
            f"{source} has {columns} columns of integers; expected one of classes, or several of 0 "
            "and 1 (or of -1 and 1): pass column=0 for the classes in the first, and so on"
        )
    return torch.from_numpy((table > 0).astype(np.float32)), columns


def _edges(file: Callable[[str], Folder], graph_of: Array) -> tuple[Tensor, Tensor | None]:
    """The fields ``edge_index`` and ``edge_attr`` of a GraphDataset."""
    links, num_nodes = _links(file("A"), graph_of), len(graph_of)
    attributes, labels = file("edge_attributes"), file("edge_labels")
    if not attributes.is_file() and not labels.is_file():
        return undirected_edges(links, num_nodes), None
    lines = (links.shape[1], "edges")
    rows, count = np.empty((links.shape[1], 0)), 0
    if attributes.is_file():
        rows = read_table(attributes, rows=lines, dtype=np.float64)
    if labels.is_file():
        kinds, count, since = read_labels(labels, lines)
        if count > MOST_EDGE_KINDS:
            kinds, count = most_frequent(kinds, MOST_EDGE_KINDS), MOST_EDGE_KINDS
        rows = np.concatenate([rows, since, kinds[:, None]], axis=1)
    edge_index, rows = attributed_edges(links, rows, num_nodes)
    if not labels.is_file():
        return edge_index, as_float32(rows, str(attributes))
    one_hot = torch.eye(count)[torch.from_numpy(rows[:, -1]).long()]
    return edge_index, torch.cat([as_float32(rows[:, :-1], str(attributes)), one_hot], dim=1)
