"""Own data as spreadsheets, pandas, NetworkX and others write them, with what goes wrong there."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from gat_ext.datasets import Reading, from_path, from_tables
from gat_ext.datasets._names import Scale
from gat_ext.datasets._own_files import name_of
from gat_ext.datasets._own_parts import split_by_fractions

pyarrow = pytest.importorskip("pyarrow")

LABELS, SPLITS = list("abab"), ["train", "val", "test", ""]
NODES = "id,age,label,split\n1,3.5,a,train\n2,4.5,b,val\n3,5.5,a,test\n4,7,b,\n"
EDGES = "source,target,years\n1,2,1\n2,3,2\n"
LINK = {"source": [1], "target": [2]}


def write(folder, nodes=NODES, edges=EDGES, names=("nodes.csv", "edges.csv")):
    folder.mkdir(exist_ok=True)
    for name, content in zip(names, (nodes, edges), strict=True):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def people(**columns):
    return {"id": [1, 2, 3, 4], "age": [3.5, 4.5, 5.5, 7], "split": SPLITS, **columns}


def read(folder, **options):
    return from_path(folder, Reading(command=True, **options))


# ---- tables


@pytest.mark.parametrize(
    ("nodes", "edges", "options", "message"),
    [
        (NODES.encode("utf-16"), EDGES, {}, "nodes.csv is UTF-16; expected UTF-8: save it as"),
        (NODES.replace(",b,", ",é,").encode("latin-1"), EDGES, {}, "nodes.csv, line 3: b.* UTF-8"),
        (NODES.replace("age", "âge").encode("latin-1"), EDGES, {}, "nodes.csv, line 1: b.* UTF-8"),
        (NODES, EDGES.replace("2,3", "02,3"), {}, "'02'; .*: write '2' alike in both"),
        (NODES.replace("\n1,", "\nAnn,"), EDGES.replace("1,2", "ann,2"), {}, "write 'Ann' alike"),
        (
            NODES.replace(",", ";").replace(".", ","),
            EDGES,
            {},
            "'3,5' is not a finite number.*write decimals with a point, or leave the column out",
        ),
        (NODES, EDGES.replace("years", "since").replace(",2\n", ",x\n"), {}, ""),
        (
            NODES,
            EDGES.replace(",2\n", ",x\n"),
            {"edge_features": True},
            "'x' is not .*: fill it in, or leave the column out of the file, or --edge-attributes",
        ),
        (
            NODES,
            "source,target\n1,2\n",
            {"edge_features": True},
            "edges.csv has no column of numbers for features of edges.*leave --edge-attributes out",
        ),
        (NODES, EDGES, {"features": ["age", "age"]}, "--features has 'age' 2 times"),
        (
            "id,name,label\n1,x,a\n",
            EDGES,
            {},
            r"no column of numbers .*\(not read: .*nodes.csv: name \(text\)\)",
        ),
    ],
    ids=range(11),
)
def test_tables_that_are_refused(nodes, edges, options, message, tmp_path):
    write(tmp_path, nodes, edges)
    if not message:
        assert read(tmp_path, **options).num_edges == 4
        return
    with pytest.raises(ValueError) as caught:
        read(tmp_path, **options)
    assert re.search(message, str(caught.value)), caught.value


def test_names_of_files_in_capitals(tmp_path):
    assert read(write(tmp_path, names=("Nodes.CSV", "EDGES.csv"))).num_nodes == 4
    write(tmp_path)
    with pytest.raises(ValueError, match=r"has Nodes.CSV and nodes.csv; expected one of them"):
        read(tmp_path)


def test_columns_without_names_and_headers_of_several_lines(tmp_path):
    nodes = NODES.replace("\n", ",,\n").replace("age", '"age\n[years]"')
    data = read(write(tmp_path, nodes))
    assert data.names.features == ("age\n[years]",) and data.names.ids == ("1", "2", "3", "4")
    assert "a column (without a name)" in data.names.unread[0]
    write(tmp_path, nodes.replace("4,7,", "4,seven,"))
    with pytest.raises(ValueError, match="line 6, column age"):
        read(tmp_path)


def test_whole_floats_of_text_are_integers(tmp_path):
    """As pandas writes a column of integers of which some are missing."""
    nodes = NODES.replace(",a,", ",10.0,").replace(",b,", ",9.0,").replace("9.0,\n", ",\n")
    data = read(write(tmp_path, nodes, "source,target\n1.0,2.0\n3.0,2.0\n"))
    assert data.names.classes == ("9", "10") and data.y.tolist() == [1, 0, 1, -1]
    assert data.names.ids == ("1", "2", "3", "4") and data.num_edges == 4
    versions = NODES.replace("\n1,", "\n1.0,").replace("\n2,", "\n1.5,")
    data = read(write(tmp_path, versions, "source,target\n1.0,4\n1.0,1.5\n"))
    assert data.names.ids[:2] == ("1.0", "1.5") and data.num_edges == 4


@pytest.mark.parametrize("form", ["dictionary", "arrow"])
def test_nan_is_no_class_and_no_id(form):
    make = pyarrow.table if form == "arrow" else dict
    data = from_tables(make(people(label=np.array([1.0, 0.0, 1.0, np.nan]))), make(LINK))
    assert data.names.classes == ("0", "1") and data.y.tolist() == [1, 0, 1, -1]
    ends = make({"source": np.array([1.0, np.nan]), "target": np.array([2.0, 3.0])})
    with pytest.raises(ValueError, match=r"row 1 .*, column source: there is no id"):
        from_tables(make(people(label=LABELS)), ends)


def test_types_of_arrow():
    from datetime import date
    from decimal import Decimal

    columns = people(label=LABELS, pay=[Decimal("1.5"), Decimal(2), Decimal(3), Decimal(4)])
    data = from_tables(
        pyarrow.table({**columns, "born": [date(2000, 1, 1)] * 4}), LINK, standardize=False
    )
    assert data.names.features == ("age", "pay") and data.x[:, 1].tolist() == [1.5, 2, 3, 4]
    assert data.names.unread == ("nodes: born (date32[day])",)
    ids = {**people(label=LABELS), "id": [b"\xff", b"b", b"c", b"d"]}
    with pytest.raises(ValueError, match="cannot read nodes: id: ArrowInvalid"):
        from_tables(pyarrow.table(ids), LINK)


def test_labels_with_two_signs_are_texts():
    assert from_tables(people(label=["+-1", "2", "2", ""]), LINK).names.classes == ("+-1", "2")


def test_a_constant_column_stays_constant_for_other_nodes():
    """Its deviation, 3e-17, is rounding."""
    table = np.stack([np.full(300, 0.1), np.arange(300.0), np.arange(300) % 2], axis=1)
    assert table[:, 0].std() > 0
    scale = Scale.of(table)
    assert scale.deviation[0] == 1 and scale.deviation[2] == 1 and scale.mean[2] == 0
    assert (scale.applied(table)[:, 0] == 0).all()
    assert np.abs(scale.applied(table + 0.1)[:, 0] - 0.1).max() < 1e-12


def test_a_table_of_many_columns_and_long_lines(tmp_path):
    names = [f"f{i}" for i in range(3000)]
    values = ",".join(["0." + "125" * 150] * len(names))
    rows = [f"{i},{'ab'[i % 2]},{values}" for i in range(8)]
    assert len(rows[0]) > 2**20
    write(
        tmp_path,
        "\n".join([",".join(["id", "label", *names]), *rows]) + "\n",
        "source,target\n1,2\n",
    )
    assert read(tmp_path).num_features == len(names)


def test_folders_with_a_dot_have_their_whole_name():
    assert name_of("data/people.v2") == "own:people.v2" and name_of("a/b.NPZ") == "own:b"


@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (0.1, 0.1, 0.8)])
def test_classes_of_three_nodes_are_in_all_splits(fractions):
    y = np.repeat(np.arange(4), [3, 4, 5, 40])
    parts = split_by_fractions("a", y, fractions, 0)
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts)) == len(y)
    assert all(set(y[part]) == {0, 1, 2, 3} for part in parts)
    counts = [int((y[part] == 3).sum()) for part in parts]
    assert counts == [round(40 * share) for share in fractions]


# ---- files of other libraries


ARRAYS = {"x": np.eye(6), "y": np.arange(6) % 2, "edge_index": np.array([[0, 1], [1, 2]])}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"edge_index": np.array(3)}, r"the edges are int64 \[\]; expected integers \[2, E\]"),
        ({"edge_weight": np.ones(5)}, r"features of edges are float64 \[5\]; expected numbers"),
        ({"edge_weight": np.array(["a", "b"])}, r"features of edges are <U1 \[2\]"),
        ({"edge_weight": np.ones((2, 1, 1))}, r"features of edges are float64 \[2, 1, 1\]"),
        ({"edge_weight": np.array([1, np.nan])}, r"edge 1: its feature 0 is nan; expected finite"),
        ({"x": np.ones((6, 0))}, r"features are float64 \[6, 0\]"),
        (
            {"y": np.arange(6) % 3, "class_names": np.array(["p", "q", "p"])},
            "class_names has a name twice, or an empty one",
        ),
        ({"class_names": np.array(["p", ""])}, "class_names has a name twice, or an empty one"),
    ],
    ids=range(8),
)
def test_arrays_that_are_refused(arrays, message, tmp_path):
    given = {"edge_weight": np.ones(2), **ARRAYS, **arrays}
    np.savez(tmp_path / "a.npz", **given)
    with pytest.raises(ValueError, match=rf"a\.npz.*{message}"):
        read(tmp_path / "a.npz", edge_features=True)


def test_names_of_bytes_and_without_a_dimension(tmp_path):
    names = {"class_names": np.array([b"p", b"q"]), "node_names": np.array("alone")}
    np.savez(tmp_path / "a.npz", **ARRAYS, **names)
    data = read(tmp_path / "a.npz")
    assert data.names.classes == ("p", "q") and data.names.ids[0] == "0"


def test_pyg_tensors_of_other_kinds(tmp_path):
    data = pytest.importorskip("torch_geometric.data").Data
    given = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    for x in (given["x"].requires_grad_(), torch.eye(6).bfloat16(), torch.eye(6).to_sparse()):
        torch.save(data(**{**given, "x": x}), tmp_path / "a.pt")
        assert read(tmp_path / "a.pt").x.equal(torch.eye(6))


def test_attributes_of_graphml_do_not_replace_the_edges(tmp_path):
    networkx = pytest.importorskip("networkx")
    graph = networkx.path_graph(6)
    for node in graph:
        graph.nodes[node].update(label="ab"[node % 2], age=float(node), name=f"n{node}")
    for *_, row in graph.edges(data=True):
        row.update(source="0", target="1", weight=2.0)
    networkx.write_graphml(graph, tmp_path / "g.graphml")
    data = read(tmp_path / "g.graphml", edge_features=True)
    ends = data.edge_index.t().tolist()
    assert sorted(ends) == sorted(pair for i in range(5) for pair in ([i, i + 1], [i + 1, i]))
    assert data.names.ids == tuple("012345") and data.names.edges == ("weight",)
    named = read(tmp_path / "g.graphml", columns={"id": "name"})
    assert (
        named.names.ids == tuple(f"n{i}" for i in range(6))
        and named.edge_index.t().tolist() == ends
    )
