"""Protein interactions in 24 human tissues, with training and test nodes in different graphs."""

from __future__ import annotations

import io
import json
import math
import tokenize
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gat_ext.datasets._arrays import Array, undirected_edges
from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._files import (
    Folder,
    cache_folder,
    fetch,
    find_folder,
    in_a_line,
    local_folder,
)
from gat_ext.datasets._registry import register

URL = "https://data.dgl.ai/dataset/ppi.zip"
SHA256 = "1f5b2b09ac0f897fa6aa1338c64ab75a5473674cbba89380120bede8cddb2a6a"

SPLITS = ("train", "valid", "test")
SPLIT_PARTS = ("graph.json", "feats.npy", "labels.npy", "graph_id.npy")
SPLIT_FILES = [f"{split}_{part}" for split in SPLITS for part in SPLIT_PARTS]
SINGLE_FILES = ["ppi-G.json", "ppi-feats.npy", "ppi-class_map.json", "ppi-id_map.json"]


@register("ppi")
def ppi(root: Path | None = None, *, standardize: bool = True, url: str = URL) -> NodeDataset:
    """24 graphs with 50 features and any number of 121 labels for each node.

    20 graphs are for training, 2 for validation and 2 for test: 56,944 nodes (44,906 / 6,514 /
    5,524) and 1,587,264 directed edges. Interactions are edges in both directions, without
    duplicates and self-loops.

    The data may be in one of two formats, which order the nodes differently: GraphSAGE's
    (``ppi-G.json``, ``ppi-feats.npy``, ``ppi-class_map.json``, ``ppi-id_map.json``) and DGL's
    (``graph.json``, ``feats.npy``, ``labels.npy`` and ``graph_id.npy``, each with the prefixes
    ``train_``, ``valid_`` and ``test_``). GraphSAGE's files have no graph numbers: a graph is a
    run of consecutive nodes without edges to other nodes.

    Args:
        root: Folder with the files of either format, with ``ppi.zip`` of them, or with a subfolder
            of them: ``ppi``, or ``raw`` or ``ppi/raw``, where PyG puts them. A file in a zip may
            unpack to 64 MiB, or 32 times its size in the zip.
        standardize: Shift and scale each feature to mean 0 and variance 1 over the training nodes,
            as GraphSAGE and GAT do. No effect on DGL's files, which are standardised.
        url: Zip file in DGL's format to download.

    Raises:
        FileNotFoundError: ``root`` is given and lacks a file.
        ConnectionError: The download failed.
        ValueError: A file is damaged, the files are inconsistent, or the download is not the
            published one.
        ImportError: pooch is missing and there are no local files.

    Source:
        Zitnik and Leskovec, "Predicting multicellular function through multi-layer tissue
        networks", Bioinformatics 33, 2017; Hamilton, Ying and Leskovec, "Inductive Representation
        Learning on Large Graphs", NeurIPS 2017.

    Example:
        >>> from gat_ext.datasets import load
        >>> load("ppi").num_nodes  # doctest: +SKIP
        56944
    """
    parts = _read(root, url)
    num_nodes = len(parts.x)
    train = parts.split == 0
    x = parts.x.astype(np.float64)
    if standardize:
        deviation = x[train].std(axis=0)
        x = (x - x[train].mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return NodeDataset(
        name="ppi",
        x=torch.from_numpy(x.astype(np.float32)),
        y=torch.from_numpy(parts.y.astype(np.float32)),
        edge_index=undirected_edges(parts.links, num_nodes),
        train_mask=torch.from_numpy(train),
        val_mask=torch.from_numpy(parts.split == 1),
        test_mask=torch.from_numpy(parts.split == 2),
        num_classes=parts.y.shape[1],
        multilabel=True,
        graph_ids=torch.from_numpy(parts.graph.astype(np.int64)),
    )


class _Parts(NamedTuple):
    """The contents of the files, the same for both formats."""

    x: Array  # [N, C]
    y: Array  # [N, K]
    links: Array  # [2, E']
    split: Array  # [N], 0 train, 1 validation, 2 test
    graph: Array  # [N], from 0


# Of NumPy's and Python's parsers, the last two of NumPy's for headers.
_OF_DAMAGE = (
    *(ArithmeticError, LookupError, RecursionError, TypeError, ValueError),
    *(SyntaxError, tokenize.TokenError),
)


def _read(root: Path | None, url: str) -> _Parts:
    folder = local_folder(root, "ppi", SPLIT_FILES, SINGLE_FILES)
    if folder is None:
        cache = cache_folder() / "ppi"
        fetch(url, SHA256, cache / "ppi.zip")
        folder = find_folder(cache, "ppi", SPLIT_FILES)
    read = _read_split if (folder / SPLIT_FILES[0]).is_file() else _read_single
    try:
        parts = read(folder)
        _check(parts)
    except _OF_DAMAGE as error:
        raise ValueError(
            f"the ppi files in {folder} are damaged: {in_a_line(error)}; download them again from "
            "their source"
        ) from error
    return parts


def _array(file: Folder) -> Array:
    """The numbers of a .npy file, whose header has to fit its size."""
    content = file.read_bytes()
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, fortran, dtype = headers[version](stream)
    if dtype.kind not in "biuf":
        raise ValueError(f"{file} holds {dtype}, expected numbers")
    size = len(content) - stream.tell()
    if math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{file} has {size} bytes for an array {list(shape)} of {dtype}")
    flat = np.frombuffer(content, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def _json(file: Folder) -> dict[str, Any]:
    return dict(json.loads(file.read_bytes()))


def _links(graph: dict[str, Any]) -> Array:
    """Links of a node-link graph, [2, E'], as positions in its list of nodes."""
    ends = np.array(
        [(link["source"], link["target"]) for link in graph["links"]], dtype=np.int64
    ).reshape(-1, 2)
    if ends.size and not 0 <= ends.min() <= ends.max() < len(graph["nodes"]):
        raise ValueError(
            f"links span {ends.min()} to {ends.max()}, expected 0 to {len(graph['nodes']) - 1}"
        )
    return ends.T


def _read_split(folder: Folder) -> _Parts:
    """DGL's format: a set of files for each split."""
    features, labels, links, splits, graphs = [], [], [], [], []
    first = 0
    for number, split in enumerate(SPLITS):
        graph_file, *array_files = (folder / f"{split}_{part}" for part in SPLIT_PARTS)
        graph = _json(graph_file)
        x, y, graph_id = (_array(file) for file in array_files)
        if not len(graph["nodes"]) == len(x) == len(y) == len(graph_id):
            raise ValueError(
                f"{split}: {len(graph['nodes'])} nodes, {len(x)} rows of features, "
                f"{len(y)} rows of labels, {len(graph_id)} graph ids; expected the same number"
            )
        features.append(x)
        labels.append(y)
        graphs.append(graph_id)
        links.append(_links(graph) + first)
        splits.append(np.full(len(x), number))
        first += len(x)
    graph_ids = np.unique(np.concatenate(graphs), return_inverse=True)[1]
    return _Parts(
        np.concatenate(features),
        np.concatenate(labels),
        np.concatenate(links, axis=1),
        np.concatenate(splits),
        graph_ids,
    )


def _read_single(folder: Folder) -> _Parts:
    """GraphSAGE's format: one graph, whose nodes have an attribute for their split."""
    graph, row_of, labels_of = (
        _json(folder / f"ppi-{part}.json") for part in ("G", "id_map", "class_map")
    )
    x = _array(folder / "ppi-feats.npy")
    nodes = graph["nodes"]
    rows = np.array([row_of[str(node["id"])] for node in nodes], dtype=np.int64)
    if not np.array_equal(np.sort(rows), np.arange(len(x))):
        raise ValueError(
            f"id_map does not map the {len(nodes)} nodes to 0 to {len(x) - 1}, the rows of the "
            "features"
        )
    order = np.argsort(rows)
    links = rows[_links(graph)]
    return _Parts(
        x,
        np.array([labels_of[str(nodes[position]["id"])] for position in order]),
        links,
        np.array(
            [2 if nodes[position]["test"] else int(nodes[position]["val"]) for position in order]
        ),
        _runs(links, len(x)),
    )


def _runs(links: Array, num_nodes: int) -> Array:
    """The number of each node's run of consecutive nodes without links to other nodes, [N]."""
    reach = np.arange(num_nodes)
    np.maximum.at(reach, links.min(axis=0), links.max(axis=0))
    reach = np.maximum.accumulate(reach)
    begins = np.arange(1, num_nodes) > reach[:-1]
    return np.concatenate([[0], np.cumsum(begins)])


def _check(parts: _Parts) -> None:
    """Raises for wrong shapes, empty splits, links between graphs and graphs in two splits."""
    if not parts.x.ndim == parts.y.ndim == 2 or len(parts.x) != len(parts.y):
        raise ValueError(
            f"features have shape {parts.x.shape}, labels {parts.y.shape}; "
            "expected a row for each node"
        )
    if parts.y.dtype.kind not in "biuf":
        raise ValueError(f"labels are {parts.y.dtype}, expected numbers")
    for number, split in enumerate(SPLITS):
        if not (parts.split == number).any():
            raise ValueError(f"the {split} split has no nodes; expected some in every split")
    source, target = parts.graph[parts.links]
    if (source != target).any():
        link = parts.links[:, int((source != target).argmax())].tolist()
        raise ValueError(f"link {link} joins two graphs; expected links inside a graph")
    for graph in np.unique(parts.graph):
        splits = np.unique(parts.split[parts.graph == graph])
        if len(splits) > 1:
            names = " and ".join(SPLITS[split] for split in splits)
            raise ValueError(
                f"graph {graph} has nodes of {names}; expected all its nodes in one split"
            )
