"""NodeDataset, the result of every loader for node classification."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gat_ext.datasets._checks import check_dimensions, check_tensor, html, short_repr
from gat_ext.datasets._names import Names
from gat_ext.datasets._pyg import edge_order, fields_of_pyg
from gat_ext.graph import Graph


@dataclass(frozen=True, eq=False, repr=False)
class NodeDataset:
    """A graph with node features, labels and a split into training, validation and test nodes.

    The masks are disjoint; a node may be in none. Models add self-loops themselves.

    Attributes:
        name: Name of the data set, as given to ``load``.
        x: Node features, float32 [N, C].
        y: Class of each node, int64 [N], -1 if unknown (then the node is in no mask); with
            ``multilabel``, float32 [N, K] of zeros and ones.
        edge_index: Sources and destinations, int64 [2, E], sorted by destination, then source.
        train_mask: Nodes for training, bool [N].
        val_mask: Nodes for the choice of settings and early stopping, bool [N].
        test_mask: Nodes for the final result only, bool [N].
        num_classes: K.
        multilabel: True if a node has any number of the K labels instead of one class.
        graph_ids: The graph of each node, int64 [N] counted from 0, if the data set consists of
            several graphs without edges between them. None: one graph.
        edge_attr: Features of the edges, float32 [E, D], for models with ``edge_dim``. None: none.
        names: Names of nodes, features and classes, if the data are the user's own tables.
        random_edges: Edges that were added at random, bool [E], if the data set knows them.

    Raises:
        TypeError: A tensor does not have the dtype given here.
        ValueError: Shapes do not match, an index is out of range, a feature is not finite, masks
            overlap, or a label in a mask is unknown.

    Example:
        >>> from gat_ext.datasets import load
        >>> data = load("karate")
        >>> data.num_nodes, data.num_edges, data.num_classes
        (34, 156, 2)
    """

    name: str
    x: Tensor
    y: Tensor
    edge_index: Tensor
    train_mask: Tensor
    val_mask: Tensor
    test_mask: Tensor
    num_classes: int
    multilabel: bool = False
    graph_ids: Tensor | None = None
    edge_attr: Tensor | None = None
    names: Names | None = None
    random_edges: Tensor | None = None

    def __post_init__(self) -> None:
        check_dimensions(self, "x", "[N, C]")
        num_nodes = self.num_nodes
        label_shape = (num_nodes, self.num_classes) if self.multilabel else (num_nodes,)
        check_tensor(self, "x", torch.float32, tuple(self.x.shape), finite=True)
        check_tensor(self, "y", torch.float32 if self.multilabel else torch.int64, label_shape)
        check_tensor(self, "edge_index", torch.int64, (2, *self.edge_index.shape[-1:]))
        for field in ("train_mask", "val_mask", "test_mask"):
            check_tensor(self, field, torch.bool, (num_nodes,))
        if self.graph_ids is not None:
            check_tensor(self, "graph_ids", torch.int64, (num_nodes,))
        if self.edge_attr is not None:
            check_dimensions(self, "edge_attr", "[E, D]")
            shape = (self.num_edges, self.edge_attr.shape[1])
            check_tensor(self, "edge_attr", torch.float32, shape, finite=True)
        if self.random_edges is not None:
            check_tensor(self, "random_edges", torch.bool, (self.num_edges,))
        self._check_values()

    def _check_values(self) -> None:
        edges = self.edge_index
        if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < self.num_nodes:
            from_one = int(edges.min()) >= 1 and int(edges.max()) == self.num_nodes
            raise ValueError(
                f"{self.name}: edge_index spans {int(edges.min())} to {int(edges.max())}, "
                f"expected 0 to {self.num_nodes - 1}"
                + (": pass edge_index - 1, because these seem to be counted from 1" * from_one)
            )
        times_used = self.train_mask.int() + self.val_mask.int() + self.test_mask.int()
        if bool((times_used > 1).any()):
            node = int(times_used.argmax())
            raise ValueError(
                f"{self.name}: node {node} is in more than one mask; the masks must be disjoint"
            )
        labels = self.y[times_used > 0]
        if self.multilabel:
            if not bool(((labels == 0) | (labels == 1)).all()):
                raise ValueError(
                    f"{self.name}: the masked labels have values other than 0 and 1, expected these"
                )
        elif labels.numel() and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise ValueError(
                f"{self.name}: the masked labels span {labels.min()} to {labels.max()}, "
                f"expected 0 to {self.num_classes - 1}"
            )

    @classmethod
    def from_pyg(cls, data: Any, *, name: str = "pyg", split: int = 0) -> NodeDataset:
        """The data set of a ``Data`` of PyTorch Geometric.

        It has ``x``, ``edge_index`` or ``adj_t``, ``y`` and the three masks. Integers ``y`` [N] or
        [N, 1] are classes, of which ``num_classes`` is the largest plus one; ``y`` [N, K] of
        integers, floats or booleans are any number of labels. Of a ``Batch`` of graphs, ``batch``
        becomes ``graph_ids``. Edges are sorted; edge attributes are not read.

        Args:
            data: A homogeneous ``Data`` or ``Batch``; on any device.
            name: Name of the data set, for errors and reports.
            split: Which of several splits, if masks are [N, number of splits].

        Raises:
            TypeError: ``data`` is not such an object, or ``y`` is neither classes nor labels.
            ValueError: Something is missing or does not match, such as masks that overlap.
            IndexError: A node of an edge, or the split, is out of range.

        Example:
            >>> from torch_geometric.data import Data
            >>> from torch_geometric.transforms import RandomNodeSplit
            >>> edge_index = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
            >>> data = Data(x=torch.eye(4), edge_index=edge_index, y=torch.tensor([0, 0, 1, 1]))
            >>> NodeDataset.from_pyg(RandomNodeSplit(num_val=1, num_test=1)(data), name="pairs")
            NodeDataset(name='pairs', x=[4, 4], y=[4], edge_index=[2, 4], train_mask=[4],
                        val_mask=[4], test_mask=[4], num_classes=2)
        """
        return cls(name=name, **fields_of_pyg(data, name, split))

    def __repr__(self) -> str:
        """The fields, with tensors by their shapes."""
        return short_repr(self)

    def _repr_html_(self) -> str:
        """The fields as a table, for notebooks."""
        return html(self)

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.x.shape[0]

    @property
    def num_features(self) -> int:
        """C."""
        return self.x.shape[1]

    @property
    def num_edges(self) -> int:
        """E, each undirected edge counted in both directions."""
        return self.edge_index.shape[1]

    @cached_property
    def graph(self) -> Graph:
        """The graph of all edges, built at the first access and cached."""
        return Graph(self.edge_index, num_nodes=self.num_nodes)

    def require_splits(self) -> None:
        """Raises ValueError if a split has no nodes."""
        for split in ("train", "val", "test"):
            if not getattr(self, f"{split}_mask").any():
                raise ValueError(f"{self.name}: {split}_mask is empty; every split needs a node")

    def to(self, device: torch.device | str) -> NodeDataset:
        """The same data set with its tensors, and its graph if built, on ``device``."""
        moved = copy.copy(self)  # copy() skips the checks: the values are unchanged
        if "graph" in self.__dict__:
            moved.__dict__["graph"] = self.graph.to(device)
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), Tensor):
                object.__setattr__(moved, field.name, value.to(device))
        return moved

    def reorder(self, method: str) -> tuple[NodeDataset, Tensor]:
        """Renumbers the nodes so that neighbours are closer in memory.

        Training is equivalent, and faster on a large graph with poor locality.

        Args:
            method: As for :meth:`gat_ext.Graph.reorder`.

        Returns:
            The new data set and int64 [N], the old number of each new node.

        Raises:
            ValueError: Unknown method.
            ImportError: A library is missing.

        Example:
            >>> from gat_ext.datasets import load
            >>> data = load("karate")
            >>> reordered, permutation = data.reorder("degree")
            >>> bool((reordered.y == data.y[permutation]).all())
            True
        """
        graph, permutation = self.graph.reorder(method)
        reordered = copy.copy(self)  # copy() skips the checks: the values are unchanged
        reordered.__dict__.pop("graph")
        order = edge_order(graph.edge_index, self.num_nodes)
        object.__setattr__(reordered, "edge_index", graph.edge_index[:, order])
        for field in ("edge_attr", "random_edges"):
            if (value := getattr(self, field)) is not None:
                object.__setattr__(reordered, field, value[order])
        if self.names is not None and self.names.ids:
            object.__setattr__(reordered, "names", self.names.take(permutation.tolist()))
        for field in ("x", "y", "train_mask", "val_mask", "test_mask", "graph_ids"):
            if (value := getattr(self, field)) is not None:
                object.__setattr__(reordered, field, value[permutation])
        return reordered, permutation
