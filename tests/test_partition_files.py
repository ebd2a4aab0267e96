"""Parts of a graph in files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from gat_ext import Graph, datasets
from gat_ext.distributed import load, make_parts, partition, save, storage

EDGES = torch.randint(20, (2, 90), generator=torch.Generator().manual_seed(0))
GRAPH = Graph(EDGES, 20)


def cut(parts=3, assignment=None):
    if assignment is not None:
        return partition(GRAPH, parts, "given", assignment=assignment)
    return partition(GRAPH, parts, "range")


def same(one, other):
    for name, value in vars(one).items():
        found = getattr(other, name)
        if isinstance(value, torch.Tensor):
            assert value.dtype == found.dtype and torch.equal(value, found), name
        else:
            assert type(value) is type(found) and value == found, name


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / "parts", GRAPH, cut(), x=torch.arange(40.0).view(20, 2))


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.is_file()
    }


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn]
DTYPES += [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.complex64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_dtype_survive(dtype, tmp_path):
    x = (torch.randn(20, 3) * 4).to(dtype)
    weight = (torch.randn(90) * 4).to(dtype)
    found = cut()
    save(tmp_path / "a", GRAPH, found, x=x, edge_weight=weight)
    for rank, part in enumerate(make_parts(GRAPH, found.assignment, 3)):
        stored = load(tmp_path / "a", rank)
        same(part, stored.part)
        assert stored.part.dst_nodes is stored.part.src_nodes
        for name, expected in {"x": x[part.dst_nodes], "edge_weight": weight[part.edges]}.items():
            given = stored.tensors[name]
            assert given.dtype == dtype and given.shape == expected.shape
            assert torch.equal(given.view(torch.uint8), expected.contiguous().view(torch.uint8))


def test_two_sets_of_nodes_and_no_self_loops(tmp_path):
    edges = torch.tensor([[0, 1, 2, 3], [1, 0, 1, 1]])
    graph = Graph(edges, num_src=4, num_dst=2)
    found = partition(graph, 2, "range")
    save(tmp_path / "a", graph, found, src_x=torch.arange(4), dst_y=torch.arange(2))
    parts = make_parts(graph, found.assignment, 2)
    assert parts[0].plain_edges is None
    for rank, part in enumerate(parts):
        stored = load(tmp_path / "a", rank)
        same(part, stored.part)
        assert torch.equal(stored.tensors["src_x"], part.src_nodes)
        assert torch.equal(stored.tensors["dst_y"], part.dst_nodes)
    with pytest.raises(ValueError, match="called 'x'; expected src_…, dst_… or edge_…"):
        save(tmp_path / "b", graph, found, x=torch.arange(4))


@pytest.mark.parametrize("nodes", [0, 2])
def test_empty_parts(nodes, tmp_path):
    graph = Graph(torch.zeros((2, 0), dtype=torch.int64), nodes)
    found = partition(graph, 3, "range")
    save(tmp_path / "a", graph, found, x=torch.ones(nodes, 0), edge_attr=torch.ones(0, 2))
    for rank, part in enumerate(make_parts(graph, found.assignment, 3)):
        stored = load(tmp_path / "a", rank)
        same(part, stored.part)
        assert stored.tensors["edge_attr"].shape == (0, 2)


def test_a_data_set_is_saved_with_its_tensors_and_names(tmp_path):
    data = datasets.load("karate")
    found = partition(data.graph, 2, "range")
    save(tmp_path / "a", data, found, meta={"note": "mine"}, edge_one=torch.ones(data.num_edges))
    stored = load(tmp_path / "a", 1, parts=2)
    assert set(stored.tensors) == {"x", "y", "train_mask", "val_mask", "test_mask", "edge_one"}
    for name in ("x", "y", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(stored.tensors[name], getattr(data, name)[stored.part.dst_nodes])
    assert stored.meta == {"name": "karate", "num_classes": 2, "multilabel": False, "note": "mine"}
    assert (stored.method, stored.report) == ("range", found.report)


def test_arrays_are_mapped_and_changes_stay_here(folder, recwarn):
    before = files(folder)
    stored = load(folder, 0)
    stored.tensors["x"].zero_()
    stored.part.edges.add_(1)
    assert files(folder) == before and torch.equal(
        load(folder, 0).part.edges + 1, stored.part.edges
    )
    path = folder / "part-0000" / "x.npy"
    with path.open("r+b") as file:  # what is mapped changes with the file
        fresh = load(folder, 0).tensors["x"]
        file.seek(-4, 2)
        file.write(np.float32(77).tobytes())
    assert fresh[-1, -1] == 77
    assert not recwarn.list


def test_features_may_be_mapped_from_a_file(tmp_path, recwarn):
    np.save(tmp_path / "x.npy", np.arange(60.0).reshape(20, 3))
    array = np.load(tmp_path / "x.npy", mmap_mode="r")
    save(tmp_path / "a", GRAPH, cut(), x=array)
    stored = load(tmp_path / "a", 1)
    assert torch.equal(
        stored.tensors["x"], torch.arange(60.0).double().view(20, 3)[stored.part.src_nodes]
    )
    assert not recwarn.list


def test_a_rank_opens_its_own_folder_only(folder):
    for rank in (0, 2):
        shutil.rmtree(folder / f"part-000{rank}")
    assert load(folder, 1).part.rank == 1
    with pytest.raises(FileNotFoundError, match=r"part-0002 is missing; .* into 3 parts"):
        load(folder, 2)


# ---- writing


def test_what_is_in_a_folder_is_kept(folder, tmp_path):
    before = files(folder)
    with pytest.raises(FileExistsError, match=r"holds a partition; .* overwrite=True"):
        save(folder, GRAPH, cut(2))
    assert files(folder) == before
    save(folder, GRAPH, cut(2), overwrite=True)
    assert load(folder, 0).part.parts == 2 and not (folder / "part-0002").exists()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    save(foreign, GRAPH, cut())  # empty
    for content in ("{}", "[", '{"format": "other"}'):
        foreign = tmp_path / f"foreign {len(content)}"
        foreign.mkdir()
        (foreign / "partition.json").write_text(content)
        with pytest.raises(FileExistsError, match="not a folder of a partition; it is left"):
            save(foreign, GRAPH, cut(), overwrite=True)
        assert (foreign / "partition.json").read_text() == content
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="not a folder of a partition"):
        save(tmp_path / "file", GRAPH, cut(), overwrite=True)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_save_leaves_what_was_there(exists, tmp_path, monkeypatch):
    place = tmp_path / "a"
    if exists:
        save(place, GRAPH, cut())
    before = files(tmp_path)
    real, calls = storage.write_array, []

    def full(path, tensor):
        calls.append(path)
        if len(calls) == 9:
            raise OSError(28, "No space left on device")
        return real(path, tensor)

    monkeypatch.setattr(storage, "write_array", full)
    with pytest.raises(OSError, match="No space left"):
        save(place, GRAPH, cut(2), overwrite=True)
    assert len(calls) == 9 and files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["a"] if exists else [])


def test_one_part_is_in_memory_at_a_time(tmp_path, monkeypatch):
    import weakref

    real, alive, most = storage._write_part, [], []

    def observed(place, part, *rest):
        alive.append(weakref.ref(part))
        most.append(sum(one() is not None for one in alive))
        real(place, part, *rest)

    monkeypatch.setattr(storage, "_write_part", observed)
    save(tmp_path / "a", GRAPH, cut(6))
    assert len(most) == 6 and max(most) <= 2  # the next is built before the name is free


MISTAKES = [
    ({"x": torch.zeros(19)}, ValueError, r"x has shape \[19\]; expected \[N, …\] with N = 20"),
    ({"edge_attr": torch.zeros(20)}, ValueError, r"expected \[E, …\] with E = 90"),
    ({"x": torch.tensor(1.0)}, ValueError, r"x has shape \[\]"),
    ({"x": torch.zeros(90)}, ValueError, r"names of tensors \[E, …\] begin with edge_"),
    ({"x": [1] * 20}, TypeError, "x is a list; expected a tensor"),
    ({"x": torch.eye(20).to_sparse()}, TypeError, "pass x.to_dense()"),
    ({"halo": torch.zeros(20)}, ValueError, "called 'halo'; expected an identifier other than"),
    ({"../x": torch.zeros(20)}, ValueError, "called '../x'"),
    ({"partition": None}, TypeError, "partition is a NoneType"),
    ({"graph": [1]}, TypeError, "graph is a list; expected a Graph, an edge_index"),
    ({"graph": Graph(EDGES, 21)}, ValueError, "a part for each node"),
    ({"meta": {"x": {1}}}, TypeError, "not JSON serializable"),
]


@pytest.mark.parametrize(("changes", "kind", "words"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_write_nothing(changes, kind, words, tmp_path):
    right = {"graph": GRAPH, "partition": cut()}
    with pytest.raises(kind, match=words):
        save(tmp_path / "a", **{**right, **changes})
    assert not list(tmp_path.iterdir())


# ---- reading what is not right


def edit(path, **changes):
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **changes}))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-8])


def without(path, name):
    record = json.loads(path.read_text())
    del record[name]
    path.write_text(json.dumps(record))


DAMAGES = {
    "no whole": (
        lambda f: (f / "partition.json").unlink(),
        FileNotFoundError,
        "holds no partition",
    ),
    "no one": (lambda f: (f / "part-0001/part.json").unlink(), FileNotFoundError, "is missing"),
    "no array": (lambda f: (f / "part-0001/halo.npy").unlink(), FileNotFoundError, "halo.npy is m"),
    "no part": (
        lambda f: shutil.rmtree(f / "part-0001"),
        FileNotFoundError,
        "part-0001 is missing",
    ),
    "cut whole": (lambda f: truncate(f / "partition.json"), ValueError, "damaged"),
    "cut one": (lambda f: truncate(f / "part-0001/part.json"), ValueError, "damaged"),
    "cut edges": (lambda f: truncate(f / "part-0001/edge_index.npy"), ValueError, "damaged"),
    "cut x": (lambda f: truncate(f / "part-0001/x.npy"), ValueError, "damaged"),
    "no content": (lambda f: (f / "part-0001/x.npy").write_bytes(b""), ValueError, "damaged"),
    "noise": (lambda f: (f / "part-0001/x.npy").write_bytes(b"noise" * 99), ValueError, "damaged"),
    "pickle": (
        lambda f: np.save(f / "part-0001/x.npy", np.array([{}]), allow_pickle=True),
        ValueError,
        "damaged",
    ),
    "shape": (
        lambda f: np.save(f / "part-0001/halo.npy", np.arange(77)),
        ValueError,
        "halo.npy has shape \\[77\\]",
    ),
    "dtype": (
        lambda f: shutil.copy(f / "part-0001/x.npy", f / "part-0001/edge_index.npy"),
        ValueError,
        "edge_index.npy has shape",
    ),
    "not json": (lambda f: (f / "partition.json").write_text("[]"), ValueError, "holds a list"),
    "version": (
        lambda f: edit(f / "partition.json", version=2),
        ValueError,
        "has version 2 of the format; this gat_ext reads version 1",
    ),
    "version of one": (
        lambda f: edit(f / "part-0001/part.json", version=0),
        ValueError,
        "version 0",
    ),
    "format": (
        lambda f: edit(f / "partition.json", format="x"),
        ValueError,
        "is not the description",
    ),
    "lacking": (
        lambda f: without(f / "partition.json", "num_src"),
        ValueError,
        "has no valid num_src",
    ),
    "lacking one": (lambda f: without(f / "part-0001/part.json", "arrays"), ValueError, "damaged"),
    "sizes": (lambda f: edit(f / "part-0001/part.json", recv_sizes=[1]), ValueError, "damaged"),
    "sums": (
        lambda f: edit(f / "part-0001/part.json", recv_sizes=[90, 0, 0]),
        ValueError,
        "rows of the halo",
    ),
    "other rank": (
        lambda f: shutil.copytree(f / "part-0000", f / "part-0001", dirs_exist_ok=True),
        ValueError,
        "holds part 0; expected part 1",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damages_are_named(name, folder):
    damage, kind, words = DAMAGES[name]
    load(folder, 1)
    damage(folder)
    with pytest.raises(kind, match=words):
        load(folder, 1)


def test_parts_of_two_partitions(folder, tmp_path):
    other = save(tmp_path / "other", GRAPH, cut(3, torch.arange(20) % 3), x=torch.zeros(20, 2))
    shutil.rmtree(folder / "part-0001")
    shutil.copytree(other / "part-0001", folder / "part-0001")
    load(folder, 0)
    with pytest.raises(ValueError, match="parts of two partitions are mixed"):
        load(folder, 1)


def test_wrong_ranks_and_numbers_of_parts(folder):
    with pytest.raises(ValueError, match="holds 3 parts; expected 4: start 3 processes"):
        load(folder, 0, parts=4)
    with pytest.raises(ValueError, match="rank is 3; expected 0 to 2"):
        load(folder, 3)
    with pytest.raises(TypeError, match="rank is a str"):
        load(folder, "0")
