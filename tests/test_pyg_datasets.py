"""NodeDataset.from_pyg: what it reads of a Data, what it refuses, and training on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.datasets import FakeDataset
from torch_geometric.transforms import RandomNodeSplit, ToSparseTensor

from gat_ext import models
from gat_ext.datasets import NodeDataset, load
from gat_ext.training import Recipe, Trainer

KARATE = load("karate")
EDGES = KARATE.edge_index[:, torch.randperm(156, generator=torch.Generator().manual_seed(0))]


def karate(**changes: Any) -> Data:
    """The karate club as PyG has it, with edges in no order."""
    fields = {
        name: getattr(KARATE, name) for name in ("x", "y", "train_mask", "val_mask", "test_mask")
    }
    return Data(**{**fields, "edge_index": EDGES, **changes})


def test_all_that_it_has() -> None:
    data = NodeDataset.from_pyg(karate(), name="club")
    assert (data.name, data.num_classes, data.multilabel) == ("club", 2, False)
    assert data.graph_ids is None
    for field in ("x", "y", "edge_index", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(getattr(data, field), getattr(KARATE, field)), field
    assert NodeDataset.from_pyg(karate()).name == "pyg"


def test_trains_as_the_data_set_it_came_from() -> None:
    scores = []
    for data in (NodeDataset.from_pyg(karate()), KARATE):
        trainer = Trainer(
            lambda data=data: models.GAT(data.num_features, 4, data.num_classes, heads=2),
            data,
            Recipe(epochs=5),
            seed=0,
        )
        while trainer.step():
            pass
        scores.append(trainer.result())
    assert scores[0].history == scores[1].history and scores[0].epochs == 5


def test_a_random_split_of_pyg() -> None:
    graph = FakeDataset(num_graphs=1, avg_num_nodes=50, avg_degree=4)[0]
    graph.y = torch.randint(0, 3, (graph.num_nodes,))
    data = NodeDataset.from_pyg(RandomNodeSplit(num_val=5, num_test=7)(graph))
    assert (int(data.val_mask.sum()), int(data.test_mask.sum())) == (5, 7)
    order = data.edge_index[1] * data.num_nodes + data.edge_index[0]
    assert (order.diff() >= 0).all() and data.num_edges == graph.num_edges


def test_several_splits() -> None:
    """As in WikiCS, masks may have a column for each split, or one for all."""
    masks = torch.eye(34, dtype=torch.bool)
    graph = karate(train_mask=masks[:, 3:9], val_mask=masks[:, 9:15], test_mask=masks[:, 33])
    for split in (0, 5):
        data = NodeDataset.from_pyg(graph, split=split)
        found = [m.nonzero().item() for m in (data.train_mask, data.val_mask, data.test_mask)]
        assert found == [3 + split, 9 + split, 33]
    for split in (6, -1):
        message = rf"split is {split}; expected 0 to 5, one of the columns of train_mask"
        with pytest.raises(IndexError, match=message):
            NodeDataset.from_pyg(graph, split=split)
    with pytest.raises(IndexError, match="split is 1; expected 0, because masks have one column"):
        NodeDataset.from_pyg(karate(), split=1)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.bool, torch.uint8])
def test_several_labels(dtype: torch.dtype) -> None:
    y = torch.stack([KARATE.y, 1 - KARATE.y, KARATE.y], dim=1)
    data = NodeDataset.from_pyg(karate(y=y.to(dtype)))
    assert data.multilabel and data.num_classes == 3
    assert torch.equal(data.y, y.float())


@pytest.mark.parametrize("y", [KARATE.y.int(), KARATE.y[:, None], KARATE.y.bool()])
def test_classes_in_other_forms(y: torch.Tensor) -> None:
    """As integers [N, 1] in OGB."""
    data = NodeDataset.from_pyg(karate(y=y))
    assert torch.equal(data.y, KARATE.y) and not data.multilabel


def test_edges_and_features_in_other_forms() -> None:
    transposed = ToSparseTensor(layout=torch.sparse_csr)(karate())
    assert "edge_index" not in transposed
    data = NodeDataset.from_pyg(transposed)
    assert torch.equal(data.edge_index, KARATE.edge_index)
    for x in (KARATE.x.double(), KARATE.x.to_sparse(), KARATE.x.bool()):
        assert torch.equal(NodeDataset.from_pyg(karate(x=x)).x, KARATE.x)


def test_a_batch_of_graphs() -> None:
    data = NodeDataset.from_pyg(Batch.from_data_list([karate(), karate()]))
    assert data.graph_ids is not None and data.graph_ids.tolist() == [0] * 34 + [1] * 34
    assert torch.equal(data.edge_index[:, 156:], KARATE.edge_index + 34)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"train_mask": None}, ValueError, r"pyg: the data has no train_mask; .*\.RandomNodeSplit\(\)"),
    ({"val_mask": None, "test_mask": None}, ValueError, "the data has no val_mask, test_mask;"),
    ({"train_mask": KARATE.val_mask}, ValueError, "is in more than one mask"),
    ({"train_mask": KARATE.train_mask.long()}, TypeError, "train_mask is torch.int64, expected"),
    ({"train_mask": KARATE.train_mask[1:]}, ValueError, r"train_mask has shape \[33\]"),
    ({"x": None}, TypeError, "got a Data, whose x is a NoneType and whose y is a Tensor; expected"),
    ({"y": None}, TypeError, "whose y is a NoneType"),
    ({"x": KARATE.y}, ValueError, r"x has shape \[34\], expected \[N, C\]"),
    ({"x": KARATE.x / 0}, ValueError, "x has a NaN or an infinite value"),
    ({"y": KARATE.y.float()}, TypeError, r"y is torch.float32 \[34\]; expected classes, .*\.long"),
    ({"y": KARATE.y[:, None, None]}, TypeError, r"y is torch.int64 \[34, 1, 1\]"),
    ({"y": KARATE.y[:, None] * 0.5}, ValueError, "labels have values other than 0 and 1"),
    ({"y": torch.stack([KARATE.y, KARATE.y + 1], 1)}, ValueError, "values other than 0 and 1"),
    ({"y": KARATE.y - 1}, ValueError, "the masked labels span -1 to 0"),
    ({"y": KARATE.y[1:]}, ValueError, r"y has shape \[33\]"),
    ({"edge_index": None}, TypeError, "a Data without edge_index or adj_t"),
    ({"edge_index": EDGES + 1}, IndexError, "expected node numbers below"),
]


@pytest.mark.parametrize(("changes", "error", "message"), REFUSED)
def test_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        NodeDataset.from_pyg(karate(**changes))


@pytest.mark.parametrize("thing", [HeteroData(), KARATE.x, None])
def test_other_objects(thing: Any) -> None:
    with pytest.raises(TypeError, match=rf"mine: from_pyg got a {type(thing).__name__}, whose x"):
        NodeDataset.from_pyg(thing, name="mine")


def test_a_data_set_of_pyg() -> None:
    """Its x and edges are those of all graphs, with nodes counted from 0 in each."""
    dataset = FakeDataset(num_graphs=2)
    assert dataset.x is not None
    message = r"pyg: from_pyg got the data set FakeDataset; .* such as dataset\[0\]"
    with pytest.raises(TypeError, match=message):
        NodeDataset.from_pyg(dataset)


# ---- what a NodeDataset has besides


def test_repr_is_one_line() -> None:
    assert repr(KARATE) == (
        "NodeDataset(name='karate', x=[34, 34], y=[34], edge_index=[2, 156], train_mask=[34], "
        "val_mask=[34], test_mask=[34], num_classes=2)"
    )


def test_graph_is_built_once_and_moves_along() -> None:
    data = NodeDataset.from_pyg(karate())
    assert "graph" not in data.to("meta").__dict__
    assert data.graph is data.graph and torch.equal(data.graph.edge_index, data.edge_index)
    assert data.to("cpu").graph is data.graph and data.to("meta").graph.device.type == "meta"
    reordered, _ = data.reorder("degree")
    assert torch.equal(reordered.graph.edge_index, reordered.edge_index)
