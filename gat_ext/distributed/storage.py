"""Parts of a graph in files: a folder for each part, of which a process opens its own."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gat_ext.distributed.arrays import read_array, tensor_of, write_array
from gat_ext.distributed.cut import Whole, check_rank, check_whole
from gat_ext.distributed.part import Part, iterate_parts
from gat_ext.distributed.partition import Partition
from gat_ext.distributed.report import PartitionReport
from gat_ext.graph import Graph

FORMAT, VERSION = "gat_ext partition", 1
WHOLE, ONE = "partition.json", "part.json"
_ARRAYS = ("src_nodes", "dst_nodes", "halo", "send", "edge_index", "edges", "plain_edges")
_OF_ONE = ("rank", "recv_sizes", "send_sizes", "halo_edges")
_OF_ALL = ("parts", "num_edges", "num_src", "num_dst", "num_plain", "identity")
_TYPES = {
    **dict.fromkeys(("parts", "num_edges", "num_src", "num_dst", "num_plain"), int),
    **{"identity": str, "method": str, "bipartite": bool},
    **dict.fromkeys(("tensors", "meta", "report"), dict),
}
_OF_DATA = ("x", "y", "train_mask", "val_mask", "test_mask", "graph_ids", "edge_attr")
_META_OF_DATA = ("name", "num_classes", "multilabel")


@dataclass(frozen=True, eq=False)
class StoredPart:
    """A part that was read from files.

    Attributes:
        part: its nodes, edges and rows to exchange.
        tensors: by name, rows for ``part.dst_nodes`` (of a tensor ``src_…`` of a bipartite graph,
            for ``part.src_nodes``) or, of a tensor ``edge_…``, for the edges of the part.
        meta: what ``save`` was given as ``meta``, and of a data set ``name``, ``num_classes`` and
            ``multilabel``.
        method: the method of the partition.
        report: its report.
    """

    part: Part
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    method: str
    report: PartitionReport


def save(
    folder: str | os.PathLike[str],
    graph: Graph | Tensor | Any,
    partition: Partition,
    *,
    meta: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    **tensors: Any,
) -> Path:
    """Writes all parts of a graph, with the rows that each owns of tensors of nodes and edges.

    The parts are written one after the other, and never are all in memory. The folder appears when
    it is complete; a process that is killed leaves a folder ``.NAME.….part`` next to it.

    Args:
        folder: to write; if it exists, it is empty, or with ``overwrite`` one that ``save`` wrote.
        graph: a Graph, an edge_index [2, E], or a data set: an object with ``edge_index``,
            ``num_nodes`` and any of x, y, train_mask, val_mask, test_mask, graph_ids, edge_attr,
            which are saved, too.
        partition: of this graph.
        meta: anything else that JSON can express.
        overwrite: replace a partition that is in the folder.
        **tensors: dense tensors or NumPy arrays, also mapped from files, of any dtype. Names that
            begin with ``edge_`` are for [E, …], the others for [N, …]; if sources and destinations
            are two sets of nodes, names that begin with ``src_`` are for [N_src, …] and with
            ``dst_`` for [N_dst, …].

    Returns:
        The folder.

    Raises:
        TypeError: an argument is not of these types.
        ValueError: the partition or a tensor does not match the graph, or a name is taken.
        FileExistsError: something is in the folder.

    Example:
        >>> import tempfile
        >>> from gat_ext.distributed import load, partition, save
        >>> ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        >>> with tempfile.TemporaryDirectory() as place:
        ...     folder = save(f"{place}/ring", ring, partition(ring, 2, "range"), x=torch.eye(4))
        ...     stored = load(folder, rank=1)
        >>> stored.part, stored.tensors["x"].shape
        (Part(rank=1, parts=2, n_src=2, n_dst=2, edges=2, halo=1, send=1), torch.Size([2, 4]))
    """
    if not isinstance(partition, Partition):
        raise TypeError(
            f"partition is a {type(partition).__name__}; expected the result of "
            "gat_ext.distributed.partition"
        )
    edges, found, described = _contents(graph)
    whole = check_whole(edges, partition.assignment, partition.parts)
    given = {name: tensor_of(name, value) for name, value in {**found, **tensors}.items()}
    rows = {name: _rows_of(name, tensor, whole) for name, tensor in given.items()}
    record = {
        "format": FORMAT,
        "version": VERSION,
        "method": partition.method,
        "bipartite": whole.src is not whole.dst,
        "tensors": {
            name: {"rows": rows[name], "dtype": str(tensor.dtype).removeprefix("torch.")}
            for name, tensor in given.items()
        },
        "meta": {**described, **(meta or {})},
        "report": partition.report.to_dict(),
    }
    json.dumps(record)  # before anything is written
    with _written(Path(folder), overwrite) as place:
        for part in iterate_parts(whole):
            _write_part(place / _name(part.rank), part, given, rows)
        record |= {name: getattr(part, name) for name in _OF_ALL}
        _write_json(place / WHOLE, record)
    return Path(folder)


def load(folder: str | os.PathLike[str], rank: int, parts: int | None = None) -> StoredPart:
    """One part of a partition that :func:`save` wrote.

    Reads the folder of the part and the description of the whole, and nothing else. The tensors are
    mapped from the files: memory is taken by what is read of them, and a modification in place
    stays in this process.

    Args:
        folder: that was saved.
        rank: of the part.
        parts: number of parts that are expected, such as the number of processes; None: any.

    Raises:
        TypeError: ``rank`` is not an int.
        FileNotFoundError: the folder holds no partition, or lacks the part or a file of it.
        ValueError: there are another number of parts; the part is of another partition; a file is
            damaged, or of another version of the format.

    Example:
        >>> import tempfile
        >>> from gat_ext.distributed import load, partition, save
        >>> ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        >>> with tempfile.TemporaryDirectory() as place:
        ...     folder = save(f"{place}/ring", ring, partition(ring, 2, "range"))
        ...     load(folder, rank=0, parts=2).part.halo
        tensor([3])
    """
    folder = Path(folder)
    whole = _read_whole(folder)
    count = whole["parts"]
    if parts is not None and parts != count:
        raise ValueError(
            f"{folder} holds {count} parts; expected {parts}: start {count} processes, or save a "
            f"partition into {parts}"
        )
    check_rank(rank, count)
    place = folder / _name(rank)
    if not place.is_dir():
        raise FileNotFoundError(
            f"{place} is missing; {folder} is a partition into {count} parts: copy the folder of "
            f"part {rank}"
        )
    one = _read_json(place / ONE)
    _check_same(place, one, rank, whole)
    try:
        if not all(name.isidentifier() for name in whole["tensors"]):
            raise TypeError("a tensor has no valid name")
        arrays, sizes = one["arrays"], {n: _sizes(one[n], count) for n in _OF_ONE[1:]}
        fields: dict[str, Any] = {
            name: read_array(place / f"{name}.npy", arrays[name])
            for name in _ARRAYS
            if name in arrays
        }
        if not whole["bipartite"]:
            fields["dst_nodes"] = fields["src_nodes"]
        fields = {"plain_edges": None, "rank": int(rank)} | fields | sizes
        part = Part(**fields, **{name: whole[name] for name in _OF_ALL})
        tensors = {n: read_array(place / f"{n}.npy", arrays[n]) for n in whole["tensors"]}
        report = PartitionReport.from_dict(whole["report"])
        found = StoredPart(part, tensors, whole["meta"], whole["method"], report)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{place / ONE} or {folder / WHOLE} is damaged ({error}); expected what save wrote: "
            "copy the folder again, or save the partition again"
        ) from error
    _check_part(place, part)
    return found


# ---- what is saved


def _contents(graph: Any) -> tuple[Graph | Tensor, dict[str, Any], dict[str, Any]]:
    """The edges, tensors and description of a graph or a data set."""
    if isinstance(graph, (Graph, Tensor)):
        return graph, {}, {}
    edges = getattr(graph, "edge_index", None)
    if not isinstance(edges, Tensor):
        raise TypeError(
            f"graph is a {type(graph).__name__}; expected a Graph, an edge_index [2, E], or a data "
            "set that has an edge_index"
        )
    found = {name: getattr(graph, name, None) for name in _OF_DATA}
    described = {name: getattr(graph, name, None) for name in _META_OF_DATA}
    return (
        edges,
        {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)},
        {n: value for n, value in described.items() if isinstance(value, (str, int, bool))},
    )


def _rows_of(name: str, tensor: Tensor, whole: Whole) -> str:
    """What the rows of a tensor are for: "edges", "src_nodes" or "dst_nodes"."""
    if not name.isidentifier() or name in _ARRAYS:
        raise ValueError(
            f"a tensor is called {name!r}; expected an identifier other than {', '.join(_ARRAYS)}"
        )
    two = whole.src is not whole.dst
    if name.startswith("edge_"):
        rows, count, letter = "edges", whole.num_edges, "E"
    elif two and name.startswith("src_"):
        rows, count, letter = "src_nodes", whole.num_src, "N_src"
    elif two and not name.startswith("dst_"):
        raise ValueError(
            f"a tensor is called {name!r}; expected src_…, dst_… or edge_…, because sources and "
            "destinations are two sets of nodes"
        )
    else:
        rows, count, letter = "dst_nodes", whole.num_dst, "N_dst" if two else "N"
    if tensor.dim() == 0 or tensor.shape[0] != count:
        hint = ": names of tensors [E, …] begin with edge_" if rows != "edges" else ""
        raise ValueError(
            f"{name} has shape {list(tensor.shape)}; expected [{letter}, …] with {letter} = {count}"
            + hint
        )
    return rows


def _write_part(place: Path, part: Part, given: dict[str, Tensor], rows: dict[str, str]) -> None:
    place.mkdir()
    record: dict[str, Any] = {"format": FORMAT, "version": VERSION, "identity": part.identity}
    record |= {name: getattr(part, name) for name in _OF_ONE}
    own = {name: getattr(part, name) for name in _ARRAYS}
    if not part.is_bipartite:
        del own["dst_nodes"]
    arrays = {n: write_array(place / f"{n}.npy", t) for n, t in own.items() if t is not None}
    for name, tensor in given.items():
        which = getattr(part, rows[name]).to(tensor.device)
        arrays[name] = write_array(place / f"{name}.npy", tensor.detach()[which])
    _write_json(place / ONE, record | {"arrays": arrays})


def _name(rank: int) -> str:
    return f"part-{rank:04d}"


@contextmanager
def _written(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder that replaces ``folder`` at the end; it is removed after an error."""
    check_free(folder, overwrite)
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    unique = uuid.uuid4().hex[:8]
    place, old = (folder.with_name(f".{folder.name}.{unique}.{end}") for end in ("part", "old"))
    place.mkdir()
    try:
        yield place
        check_free(folder, overwrite)  # another process may have written it
        if folder.exists():
            os.rename(folder, old)
        os.rename(place, folder)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        shutil.rmtree(place, ignore_errors=True)
        raise


def check_free(folder: Path, overwrite: bool) -> None:
    """Raises FileExistsError if something is in the folder that may not be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        mine = folder.is_dir() and _read_json(folder / WHOLE).get("format") == FORMAT
    except (OSError, ValueError):
        mine = False
    if not mine:
        raise FileExistsError(
            f"{folder} exists and is not a folder of a partition; it is left as it is: choose "
            "another folder"
        )
    if not overwrite:
        raise FileExistsError(
            f"{folder} holds a partition; choose another folder, or pass overwrite=True "
            "(--overwrite)"
        )


# ---- descriptions


def _write_json(path: Path, record: dict[str, Any]) -> None:
    with path.open("x", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing; expected the files that save wrote: copy the folder again"
        ) from None
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); expected JSON: copy the folder again, or save the "
            "partition again"
        ) from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds a {type(record).__name__}; expected an object of JSON")
    if record.get("format") == FORMAT and record.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {record.get('version')} of the format; this gat_ext reads version "
            f"{VERSION}: save the partition again with it, or use the gat_ext that wrote it"
        )
    return record


def _read_whole(folder: Path) -> dict[str, Any]:
    if not (folder / WHOLE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no partition; expected a folder with {WHOLE}, which "
            "gat_ext.distributed.save or gat-ext partition writes"
        )
    whole = _read_json(folder / WHOLE)
    wrong = [name for name, kind in _TYPES.items() if type(whole.get(name)) is not kind]
    if whole.get("format") != FORMAT or wrong or whole["parts"] < 1:
        found = f"has no valid {', '.join(wrong)}" if wrong else "is not the description of parts"
        raise ValueError(
            f"{folder / WHOLE} {found}; expected what save wrote: copy the folder again, or save "
            "the partition again"
        )
    return whole


def _check_same(place: Path, one: dict[str, Any], rank: int, whole: dict[str, Any]) -> None:
    if one.get("identity") != whole["identity"]:
        raise ValueError(
            f"{place} is of the partition {one.get('identity')}; expected {whole['identity']}: "
            "parts of two partitions are mixed, so copy all of them from one"
        )
    if one.get("rank") != rank:
        raise ValueError(f"{place} holds part {one.get('rank')}; expected part {rank}: rename it")


def _sizes(values: Any, count: int) -> tuple[int, ...]:
    if len(values) != count or not all(type(value) is int and value >= 0 for value in values):
        raise TypeError(f"{values} are not {count} sizes")
    return tuple(values)


def _check_part(place: Path, part: Part) -> None:
    """Raises unless the sizes of a part agree."""
    found = (part.num_halo, part.num_sent, part.edges.shape[0])
    expected = (sum(part.recv_sizes), sum(part.send_sizes), part.num_own_edges)
    if found != expected or part.num_halo_edges > part.num_own_edges:
        raise ValueError(
            f"{place} has {found} rows of the halo, rows to send and edges; expected {expected}: "
            "it is damaged, so copy the folder again, or save the partition again"
        )
