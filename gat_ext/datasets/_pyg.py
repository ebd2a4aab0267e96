"""The fields of a NodeDataset from an object of PyTorch Geometric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gat_ext.graph import Graph

_MASKS = ("train_mask", "val_mask", "test_mask")


def edge_order(edge_index: Tensor, num_nodes: int) -> Tensor:
    """The positions [E] of the edges by destination, then source."""
    return torch.argsort(edge_index[1] * num_nodes + edge_index[0], stable=True)


def sorted_edges(edge_index: Tensor, num_nodes: int) -> Tensor:
    """The edges [2, E] by destination, then source."""
    return edge_index[:, edge_order(edge_index, num_nodes)]


def fields_of_pyg(data: Any, name: str, split: int) -> dict[str, Any]:
    """The arguments of NodeDataset but its name; raises as ``NodeDataset.from_pyg``."""
    if isinstance(data, Dataset):  # whose x, if any, is that of all its graphs
        raise TypeError(
            f"{name}: from_pyg got the data set {type(data).__name__}; expected a homogeneous "
            "Data: pass an element of it, such as dataset[0]"
        )
    found: dict[str, Any] = {field: getattr(data, field, None) for field in ("x", "y", *_MASKS)}
    if not isinstance(found["x"], Tensor) or not isinstance(found["y"], Tensor):
        raise TypeError(
            f"{name}: from_pyg got a {type(data).__name__}, whose x is a "
            f"{type(found['x']).__name__} and whose y is a {type(found['y']).__name__}; expected "
            "a homogeneous Data with tensors x and y, as HeteroData.to_homogeneous() makes them"
        )
    missing = [mask for mask in _MASKS if not isinstance(found[mask], Tensor)]
    if missing:
        raise ValueError(
            f"{name}: the data has no {', '.join(missing)}; expected a mask for training, "
            "validation and test: torch_geometric.transforms.RandomNodeSplit()(data) makes them"
        )
    if split != 0 and all(found[mask].dim() == 1 for mask in _MASKS):
        raise IndexError(f"{name}: split is {split}; expected 0, because masks have one column")
    x = found["x"].to_dense().float()
    graph = Graph.from_pyg(data)
    y, num_classes = _labels(found["y"], name)
    return {
        "x": x,
        "y": y,
        "edge_index": sorted_edges(graph.edge_index, graph.num_nodes),
        **{mask: _column(found[mask], mask, name, split) for mask in _MASKS},
        "num_classes": num_classes,
        "multilabel": y.dim() == 2,
        "graph_ids": getattr(data, "batch", None),
    }


def _labels(y: Tensor, name: str) -> tuple[Tensor, int]:
    """(y, num_classes) as NodeDataset has them; y has two dimensions for multilabel."""
    is_float = y.is_floating_point()
    if y.dim() == 2 and (is_float or y.dtype == torch.bool or y.shape[1] > 1):
        return y.float(), y.shape[1]
    if is_float or y.is_complex() or y.dim() not in (1, 2):
        raise TypeError(
            f"{name}: y is {y.dtype} {list(y.shape)}; expected classes, integers [N], or labels "
            "[N, K] of zeros and ones: for whole numbers, pass data.y.long()"
        )
    y = y.reshape(-1).long()
    return y, max(int(y.max()) + 1, 0) if y.numel() else 0


def _column(mask: Tensor, field: str, name: str, split: int) -> Tensor:
    """A mask [N], or the column ``split`` of a mask [N, K]."""
    if mask.dim() != 2:
        return mask
    if not 0 <= split < mask.shape[1]:
        raise IndexError(
            f"{name}: split is {split}; expected 0 to {mask.shape[1] - 1}, one of the columns of "
            f"{field}"
        )
    return mask[:, split]
