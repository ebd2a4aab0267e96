"""The citation graphs of Planetoid: cora, citeseer, pubmed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from gat_ext.datasets._arrays import Array, mask, undirected_edges
from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._files import Folder, cache_folder, fetch, in_a_line, local_folder
from gat_ext.datasets._registry import register
from gat_ext.datasets._unpickle import read_adjacency, read_array, read_csr

URL = "https://raw.githubusercontent.com/kimiyoung/planetoid/master/data/"
NUM_VAL = 500
MOST_FEATURES = 2**26  # nodes times features, which are stored dense; 12 million of citeseer
PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")

# Digests of the published files, in the order of PARTS.
SHA256 = {
    "cora": (
        "23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab",
        "94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1",
        "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
        "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
        "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
        "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
        "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
        "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
    ),
    "citeseer": (
        "d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6",
        "8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924",
        "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21",
        "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce",
        "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668",
        "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95",
        "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7",
        "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4",
    ),
    "pubmed": (
        "fbe9cb5c47200d1b7769a26e579be3b7130b556831f9d850e77c4c74f2599b33",
        "e6c807633307a07ed659249006536a147c7999c797f11a2560752990181b41b3",
        "4eb5f5d0f30f26497eb0ac6ac9719d09c67e284f1ed0385c93f3ef27a671da3d",
        "ee2e0d4819d9fbcc403689c3bf2e49face401b605932f093bc58ab6461130fdd",
        "508e538e2abdccdd54c4d3e9f49d638b4af7107d85845f66ddea5a5152658b7e",
        "0c37bbe3b5014ec365e9d393cf4791925e5ed94fb194305d74f064a8d7b50f0e",
        "5b89f0036ca22909471f1e6558eb42fa06e0c730a577bde5b058b40638f81dc9",
        "b101d421688bbaecbd82e8a18f1e282378d6830f3a37666f28ebc47f844341b5",
    ),
}


def planetoid(
    name: str, root: Path | None = None, *, row_normalize: bool = True, url: str = URL
) -> NodeDataset:
    """Citation graphs of papers; features are the words of a paper, the class is its field.

    | name | nodes | directed edges | features | classes | train / val / test |
    |---|---|---|---|---|---|
    | cora | 2,708 | 10,556 | 1,433 | 7 | 140 / 500 / 1,000 |
    | citeseer | 3,327 | 9,104 | 3,703 | 6 | 120 / 500 / 1,000 |
    | pubmed | 19,717 | 88,648 | 500 | 3 | 60 / 500 / 1,000 |

    The split is the published one: 20 nodes of each class, the next 500, and the 1,000 of the test
    index. Citations are edges in both directions, without duplicates and self-citations. 15 nodes
    of citeseer, numbered among the test nodes, have edges but neither features nor a label in the
    files: their features are zero, their label is -1, and they are in no mask.

    Args:
        name: ``cora``, ``citeseer`` or ``pubmed``.
        root: Folder with the files ``ind.<name>.x`` and so on, or with a subfolder of them:
            ``planetoid``, or ``raw`` or ``<name>/raw``, in any case, where PyG puts them.
        row_normalize: Scale each node's features to sum to 1, as the GAT and AGNN papers do;
            all-zero rows stay zero.
        url: Folder from which the files are downloaded.

    Raises:
        FileNotFoundError: ``root`` is given and lacks a file.
        ConnectionError: A download failed.
        pickle.UnpicklingError: A file is damaged, or holds anything but arrays, matrices, dicts and
            lists.
        ValueError: The files are inconsistent, or a downloaded one is not the published one.
        ImportError: scipy, or pooch for a download, is missing.

    Source:
        Sen et al., "Collective Classification in Network Data", AI Magazine 29, 2008; split of
        Yang, Cohen and Salakhutdinov, "Revisiting Semi-Supervised Learning with Graph Embeddings",
        ICML 2016.

    Example:
        >>> from gat_ext.datasets import load
        >>> load("cora").num_edges  # doctest: +SKIP
        10556
    """
    folder = _folder(name, root, url)
    files = _read(folder, name)
    _check(folder, name, files)
    num_train, first_test, num_nodes = len(files.y), len(files.allx), len(files.graph)
    x = np.zeros((num_nodes, files.allx.shape[1]), dtype=np.float32)
    x[:first_test], x[files.test_index] = files.allx, files.tx
    y = np.full(num_nodes, -1, dtype=np.int64)
    y[:first_test], y[files.test_index] = files.ally.argmax(1), files.ty.argmax(1)
    if row_normalize:
        total = x.sum(axis=1, keepdims=True)
        np.divide(x, total, out=x, where=total != 0)
    return NodeDataset(
        name=name,
        x=torch.from_numpy(x),
        y=torch.from_numpy(y),
        edge_index=undirected_edges(edges_of(files.graph), num_nodes),
        train_mask=mask(np.arange(num_train), num_nodes),
        val_mask=mask(np.arange(num_train, num_train + NUM_VAL), num_nodes),
        test_mask=mask(files.test_index, num_nodes),
        num_classes=files.y.shape[1],
    )


class _Files(NamedTuple):
    """The eight files, features dense."""

    x: Array  # [num_train, C]
    y: Array  # [num_train, K], one-hot
    tx: Array  # [num_test, C], in the order of test_index
    ty: Array  # [num_test, K]
    allx: Array  # [first_test, C], every node before the first test node
    ally: Array  # [first_test, K]
    graph: dict[int, list[int]]  # every node to its neighbours
    test_index: Array  # [num_test]


def _folder(name: str, root: Path | None, url: str) -> Folder:
    """The folder of the files; downloads those that are missing."""
    filenames = [f"ind.{name}.{part}" for part in PARTS]
    folder = local_folder(root, "planetoid", filenames, pyg_name=name)
    if folder is None:
        folder = cache_folder() / "planetoid"
        for filename, digest in zip(filenames, SHA256[name], strict=True):
            fetch(f"{url.rstrip('/')}/{filename}", digest, folder / filename)
    return folder


def edges_of(graph: dict[int, list[int]]) -> Array:
    """The citations of an ``ind.*.graph`` file as given, int64 [2, E']."""
    pairs = [(node, other) for node, near in graph.items() for other in near]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


def _read(folder: Folder, name: str) -> _Files:
    index_file = folder / f"ind.{name}.test.index"
    try:
        words = index_file.read_bytes().decode("ascii").split()
        test_index = np.array(words, dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{index_file} must have one node number in each line: {in_a_line(error)}"
        ) from error
    features = {part: _dense(folder / f"ind.{name}.{part}") for part in ("x", "tx", "allx")}
    labels = {part: read_array(folder / f"ind.{name}.{part}") for part in ("y", "ty", "ally")}
    graph = read_adjacency(folder / f"ind.{name}.graph")
    return _Files(**features, **labels, graph=graph, test_index=test_index)


def _dense(file: Folder) -> Array:
    matrix = read_csr(file)
    if matrix.shape[0] * matrix.shape[1] > MOST_FEATURES:
        raise ValueError(
            f"{file} holds a matrix {list(matrix.shape)}, expected at most {MOST_FEATURES} "
            "elements; download it again from its source"
        )
    return np.asarray(matrix.toarray())


def _check(folder: Folder, name: str, files: _Files) -> None:
    """Raises ValueError if the files are inconsistent."""

    def expect(holds: bool, message: str) -> None:
        if not holds:
            raise ValueError(f"the files {folder}/ind.{name}.* are inconsistent: {message}")

    for part, other in (("x", "y"), ("tx", "ty"), ("allx", "ally")):
        features, labels = getattr(files, part), getattr(files, other)
        expect(
            labels.ndim == 2 and labels.shape[1:] == files.y.shape[1:],
            f"{other} has shape {labels.shape}, y {files.y.shape}",
        )
        expect(
            features.shape == (len(labels), files.x.shape[1]),
            f"{part} has shape {features.shape}, x {files.x.shape}, {other} {labels.shape}",
        )
        one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
        expect(bool(one_hot), f"a row of {other} is not one-hot")
    first_test, test_index = len(files.allx), files.test_index
    expect(
        first_test >= len(files.y) + NUM_VAL,
        f"allx has {first_test} rows, expected {len(files.y)} for training "
        f"and {NUM_VAL} for validation",
    )
    expect(
        len(np.unique(test_index)) == len(test_index) == len(files.tx) > 0,
        f"test.index has {len(np.unique(test_index))} different nodes, tx {len(files.tx)} rows",
    )
    expect(
        int(test_index.min()) >= first_test,
        f"test.index names node {test_index.min()}, which allx holds",
    )
    num_nodes = len(files.graph)
    expect(
        num_nodes * files.x.shape[1] <= MOST_FEATURES,
        f"graph has {num_nodes} nodes and x {files.x.shape[1]} features, expected at most "
        f"{MOST_FEATURES} in all",
    )
    expect(
        sorted(files.graph) == list(range(num_nodes)) and int(test_index.max()) == num_nodes - 1,
        f"graph has {num_nodes} nodes, test.index ends with node {test_index.max()}",
    )
    expect(
        all(0 <= other < num_nodes for near in files.graph.values() for other in near),
        f"graph has a neighbour outside its {num_nodes} nodes",
    )


for _name in SHA256:
    register(_name)(partial(planetoid, _name))
