"""A user's own tables and files: what is read of them, and what each mistake is answered with."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from gat_ext import datasets
from gat_ext.datasets import Reading, from_path, from_tables

pytest.importorskip("pyarrow")

NODES = """id,name,age,smokes,label,split
ann,"Ann, A.",31,true,x,train
bob,Bob,25,false,y,val
cyd,Cyd,47,true,x,test
dan,Dan,52,false,,
eve,Eve,40,false,y,train
"""
EDGES = """source,target,years
ann,bob,1.5
cyd,dan,2
cyd,dan,2
bob,eve,3
eve,eve,1
"""


def write(folder, nodes=NODES, edges=EDGES, suffix=".csv"):
    (folder / f"nodes{suffix}").write_text(nodes)
    (folder / f"edges{suffix}").write_text(edges)
    return folder


def columns(text, separator=","):
    header, *rows = (line.split(separator) for line in text.replace(", A", " A").split("\n")[:-1])
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def pairs(data):
    return sorted(map(tuple, data.edge_index.t().tolist()))


def values(data):
    """The feature of each edge."""
    ends = map(tuple, data.edge_index.t().tolist())
    return dict(zip(ends, data.edge_attr.flatten().tolist(), strict=True))


def same(one, other):
    for field in ("x", "y", "edge_index", "train_mask", "val_mask", "test_mask", "edge_attr"):
        left, right = getattr(one, field), getattr(other, field)
        assert (left is None and right is None) or torch.equal(left, right), field
    assert one.names.ids == other.names.ids and one.names.classes == other.names.classes


def test_two_csv_files(tmp_path):
    data = from_path(write(tmp_path))
    assert data.names.ids == ("ann", "bob", "cyd", "dan", "eve")
    assert data.names.classes == ("x", "y") and data.y.tolist() == [0, 1, 0, -1, 1]
    assert data.names.features == ("age", "smokes")
    assert [each.split(": ")[1] for each in data.names.unread] == [
        "name (text)",
        "years (of edges)",
    ]
    assert pairs(data) == [(0, 1), (1, 0), (1, 4), (2, 3), (3, 2), (4, 1)]
    masks = data.train_mask, data.val_mask, data.test_mask
    assert [mask.nonzero().flatten().tolist() for mask in masks] == [[0, 4], [1], [2]]
    age = np.array([31, 25, 47, 52, 40.0])
    np.testing.assert_allclose(data.x[:, 0], (age - age.mean()) / age.std(), rtol=1e-6)
    assert data.x[:, 1].tolist() == [1, 0, 1, 0, 0]  # zeros and ones are not scaled
    assert data.edge_attr is None


def test_every_kind_of_table_is_the_same_data(tmp_path):
    pandas, parquet = pytest.importorskip("pandas"), pytest.importorskip("pyarrow.parquet")
    expected = from_path(write(tmp_path), Reading(edge_features=True))
    read = [pandas.read_csv(tmp_path / f"{kind}.csv") for kind in ("nodes", "edges")]
    same(from_tables(*read, edge_features=True), expected)
    same(from_tables(columns(NODES), columns(EDGES), edge_features=True), expected)
    arrow = pytest.importorskip("pyarrow")
    folder = tmp_path / "parquet"
    folder.mkdir()
    for kind, frame in zip(("nodes", "edges"), read, strict=True):
        parquet.write_table(arrow.Table.from_pandas(frame), folder / f"{kind}.parquet")
    same(from_path(folder, Reading(edge_features=True)), expected)
    tabs = tmp_path / "tabs"
    tabs.mkdir()
    write(
        tabs, NODES.replace("Ann, A.", "Ann").replace(",", "\t"), EDGES.replace(",", "\t"), ".tsv"
    )
    same(from_path(tabs, Reading(edge_features=True)), expected)
    marked = tmp_path / "marked"  # as a spreadsheet writes: a byte-order mark, semicolons, CRLF
    marked.mkdir()
    for kind, text in (("nodes", NODES.replace("Ann, A.", "Ann")), ("edges", EDGES)):
        content = "\ufeff" + text.replace(",", ";").replace("\n", "\r\n")
        (marked / f"{kind}.csv").write_text(content, newline="")
    same(from_path(marked, Reading(edge_features=True)), expected)


def test_directed_edges_and_their_features(tmp_path):
    data = from_tables(
        columns(NODES), columns(EDGES), directed=True, edge_features=["years"], standardize=False
    )
    assert pairs(data) == [(0, 1), (1, 4), (2, 3), (2, 3), (4, 4)]
    years = values(data)
    assert years == {(0, 1): 1.5, (1, 4): 3.0, (2, 3): 2.0, (4, 4): 1.0}
    both = from_tables(columns(NODES), columns(EDGES), edge_features=True, standardize=False)
    rows = values(both)
    assert rows[0, 1] == rows[1, 0] == 1.5 and rows[4, 1] == 3.0 and len(rows) == both.num_edges


def test_split_by_fractions_is_stratified_and_repeatable():
    label = ["a"] * 50 + ["b"] * 20 + [""] * 7
    nodes = {"id": range(77), "f": np.arange(77.0), "label": label}
    edges = {"source": [0], "target": [1]}
    one, again, other = (from_tables(nodes, edges, seed=seed) for seed in (3, 3, 4))
    same(one, again)
    assert not torch.equal(one.train_mask, other.train_mask)
    for mask, counts in ((one.train_mask, [30, 12]), (one.val_mask, [10, 4])):
        assert one.y[mask].bincount().tolist() == counts
    assert not (one.train_mask | one.val_mask | one.test_mask)[70:].any()
    small = from_tables(nodes, edges, fractions=(0.1, 0.1, 0.1))
    assert small.train_mask.sum() == 7 and small.test_mask.sum() == 7


def test_classes_of_integers_are_in_their_order():
    nodes = {"id": list("abcd"), "f": [1.0, 2, 3, 4], "label": [10, 9, 9, 2]}
    nodes["split"] = ["train", "val", "test", "train"]
    data = from_tables(nodes, {"source": ["a"], "target": ["b"]})
    assert data.names.classes == ("2", "9", "10") and data.y.tolist() == [2, 1, 1, 0]


def test_reorder_moves_ids_and_edge_features_too():
    data = from_tables(columns(NODES), columns(EDGES), edge_features=True)
    moved, permutation = data.reorder("degree")
    assert moved.names.ids == tuple(data.names.ids[i] for i in permutation)

    def edges(one):
        ids = one.names.ids
        ends = [(ids[s], ids[t]) for s, t in one.edge_index.t().tolist()]
        return dict(zip(ends, one.edge_attr.flatten().tolist(), strict=True))

    assert edges(moved) == edges(data)


# ---- mistakes

HEADER = "id,f,label,split\n"
GOOD = "a,1,x,train\nb,2,y,val\nc,3,x,test\n"
LINK = "source,target\na,b\n"
MISTAKES = {
    "unknown id": (
        HEADER + GOOD,
        "source,target\na,b\nb,zed\n",
        r"edges.csv, line 3, column target: no node has the id 'zed'.*nodes.csv: add",
    ),
    "duplicate id": (
        HEADER + GOOD + "\na,4,x,\n",
        LINK,
        r"nodes.csv, line 6, column id: the id 'a' is that of line 2.*remove one",
    ),
    "no id": (HEADER + GOOD + ",4,x,\n", LINK, r"line 5, column id: there is no id"),
    "text in numbers": (
        HEADER + GOOD + "d,four,x,\n",
        LINK,
        r"line 5, column f: 'four' is not a finite number.*--features",
    ),
    "nan": (HEADER + GOOD + "d,nan,x,\n", LINK, r"line 5, column f: 'nan' is not a finite number"),
    "infinite": (HEADER + "a,inf,x,train\nb,2,y,val\n", LINK, r"line 2, column f: 'inf' is not"),
    "no number": (HEADER + GOOD + "d,,x,\n", LINK, r"line 5, column f: there is no value"),
    "no label column": (
        "id,f\na,1\n",
        LINK,
        r"no column 'label' for the classes; it has 'id', 'f': .* --columns label=NAME",
    ),
    "no source column": (
        HEADER + GOOD,
        "from,to\na,b\n",
        r"edges.csv has no column 'source'.*'from', 'to'",
    ),
    "empty file": ("", LINK, r"nodes.csv is empty; expected a line with the names of columns"),
    "no rows": (HEADER + GOOD, "source,target\n", r"edges.csv has no rows"),
    "fractions as labels": (
        HEADER + "a,1,0.5,train\nb,2,1.5,val\n",
        LINK,
        r"line 2, column label: the label 0.5 is a number with a fraction",
    ),
    "unknown split": (
        HEADER + GOOD + "d,4,x,tset\n",
        LINK,
        r"line 5, column split: 'tset'; expected train, val or test",
    ),
    "split without label": (
        HEADER + GOOD + "d,4,,test\n",
        LINK,
        r"line 5, column split: the node has a split, but no label",
    ),
    "no test": (HEADER + "a,1,x,train\nb,2,y,val\n", LINK, r"no node has the split test"),
    "one class": (
        HEADER + "a,1,x,train\nb,2,x,val\n",
        LINK,
        r"has one class, 'x'; expected labels of at least two",
    ),
    "no labels": (
        "id,f,label\na,1,\nb,2,\n",
        LINK,
        r"has no label; expected labels of at least two",
    ),
    "few labels": (
        "id,f,label\na,1,x\nb,2,y\n",
        LINK,
        r"2 labelled nodes in 2 classes, too few to split",
    ),
    "no features": (
        "id,name,label\na,Ann,x\nb,Bob,y\n",
        LINK,
        r"has no column of numbers for features",
    ),
    "short row": (HEADER + GOOD + "d,4\n", LINK, r"nodes.csv, line 5: 2 values; expected 4"),
    "two columns": ("id,f,f,label\na,1,2,x\n", LINK, r"two columns 'f'"),
    "quoted newline": ('id,n,f,label\na,"A\nB",1,x\nb,B,two,y\n', LINK, r"line 4, column f: 'two'"),
    "too large": (
        "id,f,label\na,1e300,x\nb,2,y\nc,2,y\nd,4,y\n",
        LINK,
        r"line 2, column f: '1e.300' is not a finite number of float32",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_placed(name, tmp_path):
    nodes, edges, message = MISTAKES[name]
    write(tmp_path, nodes, edges)
    with pytest.raises(ValueError) as caught:
        from_path(tmp_path, Reading(command=True))
    assert re.search(message, str(caught.value)), caught.value


def test_more_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no table of nodes; expected one of"):
        from_path(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no .*gone"):
        from_path(tmp_path / "gone")
    write(tmp_path)
    with pytest.raises(ValueError, match=r"ends in '.csv'; .*: pass its folder"):
        from_path(tmp_path / "nodes.csv")
    (tmp_path / "nodes.tsv").write_text("id\n")
    with pytest.raises(ValueError, match=r"has nodes.csv and nodes.tsv; expected one"):
        from_path(tmp_path)
    with pytest.raises(TypeError, match="nodes is a list; expected the path"):
        from_tables([1], [2])
    with pytest.raises(ValueError, match=r"fractions is .*whose sum is at most 1"):
        from_tables({}, {}, fractions=(0.6, 0.6, 0.1))
    with pytest.raises(ValueError, match="columns has 'key'; expected some of 'id'"):
        from_tables({}, {}, columns={"key": "id"})
    with pytest.raises(ValueError, match="no column 'wage' for a feature"):
        from_tables(columns(NODES), columns(EDGES), features=["wage"])
    frame = {"id": [1, 2], "f": [1.0, np.nan], "label": ["x", "y"]}
    with pytest.raises(ValueError, match=r"nodes, row 1 \(counted from 0\), column f"):
        from_tables(frame, {"source": [1], "target": [2]})


def test_ids_of_floats_are_whole(tmp_path):
    """As pandas reads a column of integers of which some are missing."""
    nodes = {"id": [1, 2, 3], "f": [1, 2, 3], "label": [0.0, 1.0, np.nan]}
    nodes["split"] = ["train", "val", ""]
    with pytest.raises(ValueError, match="no node has the split test"):
        from_tables(nodes, {"source": [1.0], "target": [2.0]})
    nodes["label"], nodes["split"] = [0.0, 1.0, 1.0], ["train", "val", "test"]
    data = from_tables(nodes, {"source": [1.0], "target": [2.0]})
    assert data.names.classes == ("0", "1") and pairs(data) == [(0, 1), (1, 0)]


# ---- files of other libraries


def arrays():
    """Cora's kind: a directed adjacency, sparse features, integer labels."""
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    adjacency = csr_matrix((rng.random((30, 30)) < 0.1).astype(np.float32))
    features = csr_matrix((rng.random((30, 8)) < 0.3).astype(np.float32))
    return adjacency, features, rng.integers(0, 3, 30)


def test_npz(tmp_path):
    adjacency, features, labels = arrays()
    parts = {
        f"{name}_{part}": getattr(matrix, part)
        for name, matrix in (("adj", adjacency), ("attr", features))
        for part in ("data", "indices", "indptr", "shape")
    }
    names = np.array(["one", "two", "three"])
    np.savez(tmp_path / "a.npz", labels=labels, class_names=names, **parts)
    data = from_path(tmp_path / "a.npz")
    assert data.name == "own:a" and data.names.classes == ("one", "three", "two")
    assert [data.names.classes[i] for i in data.y] == names[labels].tolist()
    np.testing.assert_array_equal(data.x, features.toarray())
    dense = (adjacency + adjacency.T).toarray() > 0
    np.fill_diagonal(dense, False)
    assert pairs(data) == sorted(zip(*map(np.ndarray.tolist, dense.nonzero()), strict=True))
    masks = {f"{m}_mask": np.arange(30) % 3 == i for i, m in enumerate(("train", "val", "test"))}
    edge_index = np.stack(adjacency.nonzero())
    np.savez(tmp_path / "b.npz", x=features.toarray(), y=labels, edge_index=edge_index, **masks)
    plain = from_path(tmp_path / "b.npz", Reading(directed=True))
    assert plain.num_edges == adjacency.nnz
    assert torch.equal(plain.val_mask, torch.arange(30) % 3 == 1)
    bad = {
        "no .* for the labels": {"x": np.eye(3), "edge_index": np.array([[0], [1]])},
        "span nodes 1 to 3; .*: subtract 1": {
            "x": np.eye(3),
            "y": np.arange(3),
            "edge_index": np.array([[1, 2], [2, 3]]),
        },
        r"edges are int64 \[3, 2\]": {
            "x": np.eye(3),
            "y": np.arange(3),
            "edge_index": np.zeros((3, 2), int),
        },
        "row 1, column 0: nan": {
            "x": np.array([[1.0], [np.nan]]),
            "y": np.arange(2),
            "edge_index": np.array([[0], [1]]),
        },
        "labels are float64": {"x": np.eye(2), "y": np.ones(2), "edge_index": np.array([[0], [1]])},
        "no adj_shape": {
            "adj_data": np.ones(1),
            "adj_indices": np.ones(1),
            "adj_indptr": np.ones(1),
        },
    }
    for message, given in bad.items():
        np.savez(tmp_path / "c.npz", **given)
        with pytest.raises(ValueError, match=message):
            from_path(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"is not an \.npz file"):
        from_path(tmp_path / "d.npz")


def test_pyg(tmp_path):
    pyg = pytest.importorskip("torch_geometric.data")
    adjacency, features, labels = arrays()
    edge_index = torch.from_numpy(np.stack(adjacency.nonzero())).long()
    data = pyg.Data(
        x=torch.from_numpy(features.toarray()),
        edge_index=edge_index,
        y=torch.from_numpy(labels),
        edge_attr=torch.rand(edge_index.shape[1], 2),
    )
    torch.save(data, tmp_path / "a.pt")
    read = from_path(tmp_path / "a.pt", Reading(edge_features=True))
    assert pairs(read) == sorted(map(tuple, edge_index.t().tolist()))
    by_pair = dict(zip(map(tuple, edge_index.t().tolist()), data.edge_attr.tolist(), strict=True))
    for pair, row in zip(read.edge_index.t().tolist(), read.edge_attr.tolist(), strict=True):
        assert by_pair[tuple(pair)] == pytest.approx(row)
    torch.save((data.to_dict(), None, pyg.Data), tmp_path / "processed.pt")
    assert torch.equal(from_path(tmp_path / "processed.pt").x, data.x)
    torch.save({"a": 1}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match="is a dict without edge_index, x, y"):
        from_path(tmp_path / "b.pt")
    torch.save(Evil(), tmp_path / "c.pt")
    with pytest.raises(ValueError, match="is not a Data of PyG"):
        from_path(tmp_path / "c.pt")
    assert not Evil.ran


class Evil:
    """Runs code when unpickled without weights_only."""

    ran = False

    def __reduce__(self):
        return setattr, (Evil, "ran", True)


def test_graphml(tmp_path):
    networkx = pytest.importorskip("networkx")
    for kind, edges in ((networkx.Graph, 4), (networkx.DiGraph, 2)):
        graph = kind()
        for name, age, label in (("a", 1.5, "x"), ("b", 2.5, "y"), ("c", 4.0, "x")):
            graph.add_node(name, age=age, label=label)
        graph.add_edge("a", "b", weight=2.0)
        graph.add_edge("b", "c", weight=3.0)
        for split, node in zip(("train", "val", "test"), "abc", strict=True):
            graph.nodes[node]["split"] = split
        networkx.write_graphml(graph, tmp_path / "g.graphml")
        data = from_path(tmp_path / "g.graphml", Reading(edge_features=True))
        assert data.num_edges == edges and data.names.features == ("age",)
        assert data.names.classes == ("x", "y") and data.names.edges == ("weight",)
    del graph.nodes["b"]["age"]
    networkx.write_graphml(graph, tmp_path / "g.graphml")
    with pytest.raises(ValueError, match=r"nodes, row 1 .*, column age: there is no value"):
        from_path(tmp_path / "g.graphml")


def test_known_names_hold_for_other_tables():
    known = from_tables(columns(NODES), columns(EDGES)).names
    nodes = {"id": [1, 2], "extra": [9, 9], "smokes": [1, 0], "age": [31, 52]}
    from gat_ext.datasets._own import parts_of_tables
    from gat_ext.datasets._own_parts import assemble
    from gat_ext.datasets._own_tables import read

    edges = read({"source": [1], "target": [2]}, "edges")
    parts = parts_of_tables(read(nodes, "nodes"), edges, Reading(), known, labels=False)
    data = assemble(parts, Reading(), "new", known, labels=False)
    expected = from_tables(columns(NODES), columns(EDGES)).x[[0, 3]]
    assert torch.equal(data.x, expected) and data.num_classes == 2
    del nodes["age"]
    with pytest.raises(ValueError, match="nodes has no column 'age' for a feature"):
        parts_of_tables(read(nodes, "nodes"), edges, Reading(), known, labels=False)
    restored = datasets.Names.from_settings(known.settings())
    assert restored.settings() == known.settings()
    for name, value in (("mean", [1.0]), ("classes", [1]), ("deviation", [0.0, 1.0])):
        with pytest.raises(ValueError):
            datasets.Names.from_settings({**known.settings(), name: value})


def test_names_of_pyg_are_found(tmp_path):
    assert datasets.load("Karate").name == "karate"
