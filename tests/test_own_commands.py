"""``gat-ext train --data``, ``gat-ext predict`` and ``Model.load``, as a person uses them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from gat_ext import datasets, models, training
from gat_ext.datasets import GraphDataset
from gat_ext.training import own_data
from gat_ext.training.cli import app
from gat_ext.training.predict import Predictions, predict

pytest.importorskip("pyarrow")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    for name in ("plots.curves", "plots.attention"):
        monkeypatch.setattr(f"gat_ext.training.{name}", lambda *arguments: None)


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, " ".join(result.output.split())


def good(*arguments):
    code, output = run(*arguments)
    assert code == 0, output
    return output


def refused(*arguments):
    code, output = run(*arguments)
    assert code in (1, 2), output
    return output.replace("│ ", "").replace(" │", "")


def write(folder, nodes=60, first=0):
    """Three groups, whose members know each other; every fourth has no label."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(first)
    kinds = np.arange(nodes) % 3
    numbers = range(first, first + nodes)
    rows = [
        f"p{i},{10 * k + rng.normal():.3f},{1000 * (k == 1)},{'' if i % 4 == 3 else 'abc'[k]}"
        for i, k in zip(numbers, kinds, strict=True)
    ]
    (folder / "nodes.csv").write_text("\n".join(["id,size,wage,label", *rows]) + "\n")
    rows = [f"p{i},p{first + (i - first + 3) % nodes},{i % 5}" for i in numbers]
    (folder / "edges.csv").write_text("\n".join(["source,target,years", *rows]) + "\n")
    return folder


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


TRAIN = ("train", "gat", "--epochs", 60, "--hidden", 8, "--lr", 0.02)


def test_train_and_predict(tmp_path):
    people, folder, out = write(tmp_path / "people"), tmp_path / "run", tmp_path / "p.csv"
    text = good(*TRAIN, "--data", people, "--edge-attributes", "--out", folder)
    assert "gat on own:people: 60 nodes, 120 edges, 2 features, 3 classes" in text
    config = json.loads((folder / "metrics.json").read_text())["config"]
    own = config["own"]
    assert own["features"] == ["size", "wage"] and own["edges"] == ["years"]
    assert own["classes"] == ["a", "b", "c"]
    good("predict", folder, "--out", out)
    rows = table(out)
    assert list(rows[0]) == ["id", "label", "probability_a", "probability_b", "probability_c"]
    assert [row["id"] for row in rows] == [f"p{i}" for i in range(60)]
    right = [row["label"] == "abc"[i % 3] for i, row in enumerate(rows)]
    assert sum(right) >= 55, "of separable classes, also the unlabelled nodes"
    for row in rows:
        shares = [float(row[f"probability_{name}"]) for name in "abc"]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert "abc"[int(np.argmax(shares))] == row["label"]
    saved = training.load(folder)
    logits = saved.model(saved.data.x, saved.data.graph, edge_attr=saved.data.edge_attr)
    expected = logits.softmax(1)[7, 1].item()
    assert float(rows[7]["probability_b"]) == pytest.approx(expected, abs=1e-5)
    before = out.read_bytes()
    assert "--overwrite replaces it" in refused("predict", folder, "--out", out)
    assert out.read_bytes() == before
    # Other people, without labels, in other columns and another order.
    others = write(tmp_path / "others", 30, 900)
    lines = [line.split(",") for line in (others / "nodes.csv").read_text().split()]
    swapped = [f"{wage},{id},{size},{id}" for id, size, wage, _ in lines]
    (others / "nodes.csv").write_text("\n".join(["wage,id,size,name", *swapped[1:]]) + "\n")
    good("predict", folder, "--data", others, "--out", out, "--overwrite")
    rows = table(out)
    assert rows[0]["id"] == "p900" and len(rows) == 30
    assert sum(row["label"] == "abc"[i % 3] for i, row in enumerate(rows)) >= 27
    (others / "nodes.csv").write_text("id,size\np900,1\n")
    message = refused("predict", folder, "--data", others, "--out", out, "--overwrite")
    assert "nodes.csv has no column 'wage' for a feature; it has 'id', 'size'" in message
    assert len(table(out)) == 30


def test_a_run_is_not_resumed_where_only_the_test_split_changed():
    def recorded(last):
        people = {"id": [1, 2, 3, 4], "age": [31.0, 25, 47, 52], "label": ["a", "b", "a", "b"]}
        people["split"] = ["train", "val", "test", last]
        data = datasets.from_tables(people, {"source": [1], "target": [2]})
        return own_data.settings(data, datasets.Reading())["digest"]

    assert recorded("test") == recorded("test") != recorded("")


def test_a_run_is_resumed_on_the_same_data_only(tmp_path, monkeypatch):
    people, folder = write(tmp_path / "people"), tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    short = ("train", "gat", "--data", "people", "--epochs")
    good(*short, 2, "--out", folder)
    good(*short, 3, "--out", folder, "--resume")
    content = (folder / "checkpoint.pt").read_bytes()
    message = refused(*short, 3, "--out", folder, "--resume", "--features", "size")
    assert "--features is size, wage there and size here" in message
    message = refused(*short, 3, "--out", folder, "--resume", "--split", "0.5,0.2,0.3")
    assert "--split is 0.6, 0.2, 0.2 there and 0.5, 0.2, 0.3 here" in message
    text = (people / "nodes.csv").read_text()
    (people / "nodes.csv").write_text(text.replace(",a\n", ",c\n", 1))
    message = refused(*short, 4, "--out", folder, "--resume")
    assert "the digest of the data is " in message
    assert (folder / "checkpoint.pt").read_bytes() == content
    monkeypatch.chdir("/")  # the path is recorded
    assert type(models.GAT.load(folder)).__name__ == "GAT"
    people.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="files are not where they were"):
        training.load(folder)
    assert training.load(folder, root=tmp_path / "moved").data.num_nodes == 60
    text = (tmp_path / "moved" / "nodes.csv").read_text()
    (tmp_path / "moved" / "nodes.csv").write_text(text.replace(",b\n", ",new\n"))
    with pytest.raises(ValueError, match="line 3, column label: 'new' is no class of the trained"):
        training.load(folder, root=tmp_path / "moved")


@pytest.mark.parametrize("options", [("--sample", "3,3"), ("--reorder", "degree", "--bf16")])
def test_other_ways_to_train_see_the_features_of_edges(options, tmp_path):
    people, folder = write(tmp_path / "people"), tmp_path / "run"
    good(
        *(*TRAIN, "--data", people, "--edge-attributes", "--heads", 2, "--columns", "label=label"),
        *(*options, "--out", folder),
    )
    found = predict(folder)
    kinds = ["abc"[i % 3] for i in range(60)]
    assert sum(map(str.__eq__, found.labels(), kinds)) >= 54
    assert found.ids == training.load(folder).data.names.ids


def test_mistakes_of_options(tmp_path):
    people = write(tmp_path / "people")
    cases = {
        ("gat", "--data", people, "--dataset", "cora"): "leave one of them out",
        ("gat", "--data", people, "--root", tmp_path): "leave one of them out",
        ("gat", "--features", "size"): "give --data, or leave it out",
        ("gat", "--edge-attributes"): "give --data, or leave it out",
        ("gam", "--data", people): "it is for models that classify nodes",
        ("hgt", "--data", people): "it is for models that classify nodes",
        ("agnn", "--data", people, "--edge-attributes"): "sees no attributes of edges",
        ("gat", "--data", people, "--columns", "id"): "'id' is not of the form id=paper",
        ("gat", "--data", people, "--columns", "key=id"): "columns has 'key'",
        ("gat", "--data", people, "--split", "a"): "is not three numbers",
        ("gat", "--data", people, "--split", "0.9,0.2,0.1"): "whose sum is at most 1",
        ("gat", "--data", people, "--features", "wages"): "no column 'wages' for a feature",
        ("gat", "--data", tmp_path / "gone"): "there is no",
    }
    out = tmp_path / "run"
    for arguments, message in cases.items():
        assert message in refused("train", *arguments, "--epochs", 1, "--out", out), arguments
        assert not out.exists()


def test_named_data_sets_are_predicted_by_number(tmp_path):
    good("train", "gat", "--dataset", "Karate", "--epochs", 3, "--out", tmp_path / "run")
    found = predict(tmp_path / "run")
    assert found.columns == ("0", "1") and list(found.ids) == [str(i) for i in range(34)]
    with pytest.raises(ValueError, match=r"the run is on karate, .*: leave --data out"):
        predict(tmp_path / "run", write(tmp_path / "people"))
    with pytest.raises(TypeError, match=r"is a run of gat, a GAT; AGNN.load expects .*GAT.load"):
        models.AGNN.load(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
        models.GAT.load(tmp_path)


def test_pooled_graphs_are_predicted(tmp_path):
    options = ("--folds", 2, "--epochs", 1, "--subset", 40)
    good("train", "gat", "--task", "graph", *options, "--out", tmp_path / "run")
    found, saved = predict(tmp_path / "run"), training.load(tmp_path / "run")
    assert isinstance(saved.data, GraphDataset) and len(found.ids) == 40
    assert found.values.sum(dim=1).allclose(torch.ones(40), atol=1e-5)


def test_embeddings_and_walks_do_not_predict(tmp_path):
    options = ("--dataset", "karate", "--epochs", 1, "--dim", 4, "--window", 2)
    good("train", "attention-walk", *options, "--out", tmp_path / "run")
    with pytest.raises(ValueError, match="attention-walk does not predict by itself"):
        predict(tmp_path / "run")


def test_files_of_quantities_and_of_several_labels(tmp_path):
    path = tmp_path / "p.csv"
    Predictions(["1"], ("0", "1"), torch.tensor([[0.5, -2.0]]), "regression").write(path)
    assert path.read_text() == "id,value_0,value_1\n1,0.5,-2\n"
    some = torch.tensor([[0.9, 0.2, 0.8], [0.1, 0.2, 0.3]])
    Predictions(["a,b", "c"], ("x", "y", "z"), some, "labels").write(path)
    assert [row["label"] for row in table(path)] == ["x;z", ""]
    assert table(path)[0]["id"] == "a,b"


def test_notebooks_show_tables():
    data = datasets.load("karate")
    text = data._repr_html_()
    assert "<th>x</th><td>float32 [34, 34]</td>" in text
    graph = data.graph._repr_html_()
    assert "<th>edges</th><td>156</td>" in graph and "1 to 17, mean 4.6" in graph
    named = datasets.from_tables(
        {"id": [1, 2, 3], "f": [1, 2, 3], "label": list("aba"), "split": ["train", "val", "test"]},
        {"source": [1], "target": [2]},
        name="<b>",
    )
    assert "&lt;b&gt;" in named._repr_html_() and "<b>" not in named._repr_html_()


def test_numbers_from_one_are_named():
    from gat_ext import Graph, nn

    edges = torch.tensor([[1, 2, 3], [2, 3, 1]])
    layer, x = nn.GATConv(2, 2), torch.ones(3, 2)
    for call in (lambda: Graph(edges, num_nodes=3), lambda: layer(x, edges)):
        with pytest.raises(IndexError, match="pass edge_index - 1, because these seem to be"):
            call()
    edges[0, 0] = 7
    with pytest.raises(IndexError, match=r"is 7; expected .*, or the features of all nodes"):
        Graph(edges, num_nodes=3)
