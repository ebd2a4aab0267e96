"""A user's own data in a folder of tables, or in a file of SciPy, PyG or NetworkX."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gat_ext.datasets._arrays import Array
from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._files import in_a_line
from gat_ext.datasets._names import Names
from gat_ext.datasets._optional import require
from gat_ext.datasets._own import parts_of_tables
from gat_ext.datasets._own_parts import Labels, Parts, Reading, assemble
from gat_ext.datasets._own_tables import SUFFIXES, Table, read

_MASKS = ("train_mask", "val_mask", "test_mask")
_SPLITS = np.array(["train", "val", "test", ""], dtype=object)


def name_of(path: str | os.PathLike[str]) -> str:
    """The name of the data set of a file or folder.

    Example:
        >>> name_of("data/people.v2/"), name_of("data/cora_ml.npz")
        ('own:people.v2', 'own:cora_ml')
    """
    place = Path(os.path.abspath(path))
    return f"own:{place.stem if place.suffix.lower() in _READERS else place.name}"


def from_path(
    path: str | os.PathLike[str],
    reading: Reading | None = None,
    *,
    known: Names | None = None,
    labels: bool = True,
) -> NodeDataset:
    r"""The data set in a folder or a file.

    - a folder with ``nodes`` and ``edges``, each ending in .csv, .tsv or .parquet, as
      :func:`from_tables` describes them;
    - ``.npz``: a SciPy adjacency (``adj_data``, ``adj_indices``, ``adj_indptr``, ``adj_shape``), or
      ``edge_index`` [2, E]; features ``attr_matrix``, ``x`` or ``features``, or the four arrays
      ``attr_*`` of a sparse matrix; ``labels`` or ``y``, -1 where unknown; optionally
      ``class_names``, ``attr_names``, ``node_names`` and the three masks;
    - ``.pt``: a ``Data`` of PyG with x, edge_index, y, and optionally masks and edge_attr, or what
      PyG's own data sets write of a single one; read with ``weights_only=True``;
    - ``.graphml``: node and edge attributes as the columns of the tables, read by NetworkX.

    Edges of .pt, and of .graphml that says so, stay directed unless ``reading`` says otherwise;
    only columns of tables and of .graphml are scaled.

    Args:
        path: The folder or file.
        reading: Names of columns and other settings; None: the defaults.
        known: Names of a trained model: its feature columns, classes and scales hold.
        labels: False: labels and splits are not read, and the masks are empty.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As :func:`from_tables`.
        ImportError: A package is missing.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "nodes.csv").write_text(
        ...     "id,age,label,split\nann,31,a,train\nbob,25,b,val\ncyd,47,a,test\n")
        >>> _ = (folder / "edges.csv").write_text("source,target\nann,bob\n")
        >>> from_path(folder).names.features
        ('age',)
    """
    path, how = Path(path), Reading() if reading is None else reading
    if path.is_dir():
        nodes, edges = (read(_table_in(path, kind), kind) for kind in ("nodes", "edges"))
        parts = parts_of_tables(nodes, edges, how, known, labels)
    elif not path.exists():
        raise FileNotFoundError(
            f"there is no {path}; expected a folder with nodes.csv and edges.csv, or a file: "
            f"{', '.join(_READERS)}"
        )
    else:
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            hint = "pass its folder" if path.suffix.lower() in SUFFIXES else "convert it"
            raise ValueError(
                f"{path} ends in {path.suffix!r}; expected {', '.join(_READERS)}, or a folder with "
                f"nodes.csv and edges.csv: {hint}"
            )
        parts = reader(path, how, known, labels)
    return assemble(parts, how, name_of(path), known, labels)


def _table_in(folder: Path, kind: str) -> Path:
    wanted = [f"{kind}{suffix}" for suffix in SUFFIXES]
    found = sorted(path for path in folder.iterdir() if path.name.lower() in wanted)
    found = [path for path in found if path.is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(path.name for path in found)
        raise ValueError(f"{folder} has {names}; expected one of them: move the other away")
    raise FileNotFoundError(
        f"{folder} has no table of {kind}; expected one of {', '.join(wanted)} in it"
    )


# ---- .npz


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of any library become a ValueError with the file's name."""
    try:
        yield
    except (ImportError, MemoryError, OSError):
        raise
    except Exception as error:
        raise ValueError(f"cannot read {path}: {in_a_line(error)}") from error


def _of_npz(path: Path, how: Reading, known: Names | None, labels: bool) -> Parts:
    arrays: dict[str, Array] = {}
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz file; expected what numpy.savez writes")
    with _named(path), np.load(path, allow_pickle=False) as file:
        for key in file.files:
            try:
                arrays[key] = file[key]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise  # it is damaged; pickled objects are not read
    adjacency, features = _matrix(path, arrays, "adj"), _matrix(path, arrays, "attr")
    if adjacency is not None:
        coo = adjacency.tocoo()
        pairs, weights = np.stack([coo.row, coo.col]), coo.data
    else:
        pairs = _either(path, arrays, "the adjacency", "edge_index")
        weights = arrays.get("edge_weight")
    if features is None:
        x = _either(path, arrays, "the features", "attr_matrix", "x", "features")
    else:
        x = features.toarray()
    if x.ndim != 2 or not x.shape[1] or x.dtype.kind not in "biuf":
        raise ValueError(f"{path}: features are {x.dtype} {list(x.shape)}; expected numbers [N, C]")
    y = _either(path, arrays, "the labels", "labels", "y") if labels else None
    masks = [arrays.get(mask) for mask in _MASKS]
    names = [arrays.get(f"{kind}_names") for kind in ("class", "attr", "node")]
    return _of_arrays(path, how, x, pairs, weights, y, masks, names)


def _matrix(path: Path, arrays: dict[str, Array], name: str) -> Any:
    """A sparse matrix of four arrays; None if the file does not have it."""
    keys = [f"{name}_{part}" for part in ("data", "indices", "indptr", "shape")]
    given = [key for key in keys if key in arrays]
    if not given:
        return None
    if len(given) < 4:
        lacks = ", ".join(sorted(set(keys) - set(given)))
        raise ValueError(f"{path} has {', '.join(given)}, but no {lacks}; expected all four")
    data, indices, indptr, shape = (arrays[key] for key in keys)
    with _named(path):
        matrix = require("scipy.sparse").csr_matrix(
            (data, indices, indptr), shape=tuple(map(int, shape))
        )
        matrix.check_format(full_check=True)
    return matrix


def _either(path: Path, arrays: dict[str, Array], what: str, *keys: str) -> Array:
    for key in keys:
        if key in arrays:
            return arrays[key]
    raise ValueError(
        f"{path} has no {' or '.join(keys)} for {what}; it has {', '.join(sorted(arrays))}"
    )


def _of_arrays(
    path: Path,
    how: Reading,
    x: Array,
    pairs: Array,
    weights: Array | None,
    y: Array | None,
    masks: list[Any],
    names: Sequence[Array | None],
    directed: bool = False,
) -> Parts:
    """The parts of arrays, with their shapes and values checked."""
    num_nodes = len(x)
    classes, features, ids = map(_texts_of, names)
    if features is None or len(features) != x.shape[1]:
        features = [str(column) for column in range(x.shape[1])]
    if ids is None or len(ids) != num_nodes:
        ids = [str(node) for node in range(num_nodes)]
    if pairs.ndim != 2 or pairs.shape[0] != 2 or pairs.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: the edges are {pairs.dtype} {list(pairs.shape)}; expected integers [2, E], "
            "sources and targets: transpose pairs [E, 2]"
        )
    num_edges = pairs.shape[1]
    if num_edges and not 0 <= int(pairs.min()) <= int(pairs.max()) < num_nodes:
        hint = ": subtract 1" if int(pairs.min()) >= 1 and int(pairs.max()) == num_nodes else ""
        raise ValueError(
            f"{path}: the edges span nodes {pairs.min()} to {pairs.max()}; expected 0 to "
            f"{num_nodes - 1}, because there are {num_nodes} rows of features{hint}"
        )
    bad = np.argwhere(~np.isfinite(x.astype(np.float64)))
    if len(bad):
        row, column = map(int, bad[0])
        raise ValueError(
            f"{path}, row {row}, column {features[column]}: {x[row, column]} is not a finite "
            "number; expected one in every row: fill it in"
        )
    rows = np.empty((num_edges, 0))
    if how.edge_features:
        if weights is None:
            raise ValueError(f"{path} has no features of edges; read it without them")
        rows = _rows(path, weights, num_edges)
    edges = [str(column) for column in range(rows.shape[1])]
    found = Labels(
        None if y is None else _texts(path, y, num_nodes, classes),
        None if y is None else _words(path, masks, num_nodes),
        lambda row, what: f"{path}, node {row}",
    )
    unread = () if rows.shape[1] or weights is None else (f"{path}: features of edges",)
    return Parts(
        *(ids, x.astype(np.float64), features, pairs.astype(np.int64), rows, edges, found, unread),
        directed=directed,
        standardize=False,
    )


def _rows(path: Path, weights: Array, num_edges: int) -> Array:
    """The features of edges, float64 [E, D]."""
    fits = weights.ndim in (1, 2) and len(weights) == num_edges and weights.dtype.kind in "biuf"
    if not fits:
        raise ValueError(
            f"{path}: features of edges are {weights.dtype} {list(weights.shape)}; expected "
            f"numbers [{num_edges}] or [{num_edges}, D], in the order of the edges"
        )
    rows = weights.astype(np.float64).reshape(num_edges, -1 if weights.ndim == 2 else 1)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        edge, column = map(int, bad[0])
        raise ValueError(
            f"{path}, edge {edge}: its feature {column} is {rows[edge, column]}; expected finite "
            "numbers: fill it in, or read the file without features of edges"
        )
    return rows


def _texts_of(names: Array | None) -> list[str] | None:
    if names is None:
        return None
    flat = names.ravel()
    return list(
        map(str, np.char.decode(flat, "utf-8", "replace") if flat.dtype.kind == "S" else flat)
    )


def _texts(path: Path, y: Array, num_nodes: int, classes: list[str] | None) -> Array:
    """Labels as texts, "" for negative numbers."""
    y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (num_nodes,) or y.dtype.kind not in "iuUb":
        raise ValueError(
            f"{path}: labels are {y.dtype} {list(y.shape)}; expected integers [{num_nodes}], one "
            "class for each node, -1 where it is unknown"
        )
    if y.dtype.kind == "U":
        return y.astype(object)
    numbers = y.astype(np.int64)
    if classes is not None and len(classes) > numbers.max(initial=0):
        if len({*classes, ""}) <= len(classes):
            raise ValueError(
                f"{path}: class_names has a name twice, or an empty one; expected another name for "
                "each class"
            )
        names = np.array([*classes, ""], dtype=object)
        return names[np.where(numbers < 0, len(classes), numbers)]
    texts = numbers.astype(str).astype(object)
    texts[numbers < 0] = ""
    return texts


def _words(path: Path, masks: list[Any], num_nodes: int) -> Array | None:
    """The split of each node by masks; None if there are none."""
    if all(mask is None for mask in masks):
        return None
    if any(mask is None or mask.shape != (num_nodes,) or mask.dtype != bool for mask in masks):
        kinds = [None if mask is None else f"{mask.dtype} {list(mask.shape)}" for mask in masks]
        raise ValueError(
            f"{path}: {', '.join(_MASKS)} are {kinds}; expected all three, bool [{num_nodes}]"
        )
    stacked = np.stack(masks)
    twice = np.flatnonzero(stacked.sum(axis=0) > 1)
    if len(twice):
        raise ValueError(f"{path}, node {twice[0]} is in two masks; expected one of them")
    return _SPLITS[np.where(stacked.any(axis=0), stacked.argmax(axis=0), 3)]


# ---- .pt and .graphml


def _of_pyg(path: Path, how: Reading, known: Names | None, labels: bool) -> Parts:
    try:
        data_module = require("torch_geometric.data.data")
        classes = [
            *(data_module.Data, data_module.DataEdgeAttr, data_module.DataTensorAttr),
            require("torch_geometric.data.storage").GlobalStorage,
        ]
    except ImportError as error:
        raise ImportError(
            f"{path} is read with PyG, which is not installed: pip install torch_geometric"
        ) from error
    try:
        with torch.serialization.safe_globals(classes):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is not a Data of PyG as torch.save writes it: {in_a_line(error)}"
        ) from error
    if isinstance(found, tuple) and len(found) == 3 and found[1] is not None:
        raise ValueError(f"{path} holds several graphs; expected one: save dataset[0]")
    found = found[0] if isinstance(found, tuple) and found else found
    data = found if isinstance(found, dict) else getattr(found, "to_dict", dict)()
    fields = ("x", "edge_index", "y", "edge_attr", "edge_weight", *_MASKS)
    tensors = {name: data[name] for name in fields if isinstance(data.get(name), Tensor)}
    lacking = {"x", "edge_index", *(["y"] if labels else [])} - tensors.keys()
    if lacking:
        raise ValueError(
            f"{path} is a {type(found).__name__} without {', '.join(sorted(lacking))}; expected a "
            "homogeneous Data of PyG with x, edge_index and y"
        )
    arrays = {name: _array(tensor) for name, tensor in tensors.items()}
    if arrays["x"].ndim != 2:
        raise ValueError(f"{path}: x has shape {list(arrays['x'].shape)}; expected [N, C]")
    weights = arrays.get("edge_attr", arrays.get("edge_weight"))
    y = arrays["y"] if labels else None
    masks = [arrays.get(mask) for mask in _MASKS]
    pairs, names = arrays["edge_index"], [None] * 3
    return _of_arrays(path, how, arrays["x"], pairs, weights, y, masks, names, directed=True)


def _array(tensor: Tensor) -> Array:
    dense = tensor.detach().to_dense()
    array: Array = (dense.float() if dense.dtype == torch.bfloat16 else dense).numpy()
    return array


def _of_graphml(path: Path, how: Reading, known: Names | None, labels: bool) -> Parts:
    with _named(path):
        graph = require("networkx").read_graphml(path)
    if not graph.number_of_nodes() or not graph.number_of_edges():
        raise ValueError(f"{path} has no nodes, or no edges; expected some")

    def table(kind: str, columns: dict[str, list[Any]], rows: list[dict[str, Any]]) -> Table:
        # As text, in which a missing value is "".
        keys = dict.fromkeys(key for row in rows for key in row)
        found = {key: [str(row.get(key, "")) for row in rows] for key in keys}
        return read(found | columns, f"{path}, {kind}")

    of_nodes = dict(graph.nodes.data())
    id = how.column("id")
    if any(id in row for row in of_nodes.values()):  # an attribute has the ids
        names = {node: str(row.get(id, "")) for node, row in of_nodes.items()}
    else:
        names = dict(zip(of_nodes, map(str, of_nodes), strict=True))
    nodes = table("nodes", {id: list(names.values())}, list(of_nodes.values()))
    ends = [[names[node] for node in each] for each in zip(*graph.edges(), strict=True)]
    named = {how.column("source"): ends[0], how.column("target"): ends[1]}
    edges = table("edges", named, [row for *_, row in graph.edges.data()])
    return parts_of_tables(nodes, edges, how, known, labels, graph.is_directed())


_READERS: dict[str, Callable[[Path, Reading, Names | None, bool], Parts]] = {
    ".npz": _of_npz,
    ".pt": _of_pyg,
    ".graphml": _of_graphml,
}
