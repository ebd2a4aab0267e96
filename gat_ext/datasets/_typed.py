"""TypedDataset, the result of every loader of nodes and edges of several types."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from torch import Tensor

from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._pyg import sorted_edges

Relation = tuple[str, str, str]
"""(source type, name, destination type)"""


@dataclass(frozen=True, eq=False, repr=False)
class TypedDataset:
    """Nodes and edges of several types, with labels and a split of the nodes of one type.

    Attributes:
        name: Name of the data set, as given to ``load_typed``.
        x: Features of the nodes of each type, float32 [N_t, C_t].
        edge_index: Edges of each relation (source type, name, destination type), int64 [2, E_r],
            numbered within each type.
        target: The type whose nodes have labels.
        y: Class of each node of the target type, int64 [N], -1 if unknown (then it is in no mask).
        train_mask: Nodes of the target type for training, bool [N].
        val_mask: Nodes for the choice of settings and early stopping, bool [N].
        test_mask: Nodes for the final result only, bool [N].
        num_classes: K.
        metapaths: Chains of relations from the target type to itself, for models of meta-paths.

    Raises:
        TypeError: A tensor does not have the dtype given here.
        ValueError: Shapes do not match, an index is out of range, a feature is not finite, masks
            overlap, a label in a mask is unknown, a relation has a type without features, or the
            relations of a meta-path are not a chain from the target type to itself.

    Example:
        >>> from gat_ext.datasets import load_typed
        >>> data = load_typed("academic")
        >>> data.num_nodes, data.target, data.num_classes
        ({'author': 800, 'paper': 2000, 'venue': 800}, 'paper', 4)
    """

    name: str
    x: dict[str, Tensor]
    edge_index: dict[Relation, Tensor]
    target: str
    y: Tensor
    train_mask: Tensor
    val_mask: Tensor
    test_mask: Tensor
    num_classes: int
    metapaths: tuple[tuple[Relation, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.target not in self.x:
            raise ValueError(
                f"{self.name}: target is {self.target!r}; expected one of the types with features, "
                f"{', '.join(map(repr, self.x))}"
            )
        labels = self.y, self.train_mask, self.val_mask, self.test_mask
        none = torch.empty(2, 0, dtype=torch.int64)
        NodeDataset(self.name, self.x[self.target], labels[0], none, *labels[1:], self.num_classes)
        for kind, x in self.x.items():
            if x.dtype != torch.float32:
                raise TypeError(f"{self.name}: x[{kind!r}] is {x.dtype}, expected torch.float32")
            if x.dim() != 2 or not bool(x.isfinite().all()):
                raise ValueError(
                    f"{self.name}: x[{kind!r}] has shape {list(x.shape)}, expected [N, C] of "
                    "finite values"
                )
        for relation, edges in self.edge_index.items():
            self._check_edges(relation, edges)
        for path in self.metapaths:
            self._check_path(path)

    def _check_edges(self, relation: Relation, edges: Tensor) -> None:
        name = f"{self.name}: edge_index[{relation!r}]"
        if edges.dtype != torch.int64:
            raise TypeError(f"{name} is {edges.dtype}, expected torch.int64")
        if edges.dim() != 2 or edges.shape[0] != 2:
            raise ValueError(f"{name} has shape {list(edges.shape)}, expected [2, E]")
        for row, end in zip(edges, (relation[0], relation[2]), strict=True):
            if end not in self.x:
                raise ValueError(f"{name} has the type {end!r}, which has no features in x")
            count = len(self.x[end])
            if row.numel() and not 0 <= int(row.min()) <= int(row.max()) < count:
                raise ValueError(
                    f"{name} spans {int(row.min())} to {int(row.max())} in {end!r}, expected 0 to "
                    f"{count - 1}"
                )

    def _check_path(self, path: tuple[Relation, ...]) -> None:
        missing = [relation for relation in path if relation not in self.edge_index]
        ends = [self.target, *(kind for src, _, dst in path for kind in (src, dst)), self.target]
        if not path or missing or ends[::2] != ends[1::2]:
            raise ValueError(
                f"{self.name}: metapaths has {path!r}; expected relations of edge_index that lead "
                f"from {self.target!r} to {self.target!r}, each from where the last one ends"
            )

    def __repr__(self) -> str:
        """The counts."""
        return (
            f"TypedDataset(name={self.name!r}, num_nodes={self.num_nodes}, "
            f"num_edges={self.num_edges}, target={self.target!r}, num_classes={self.num_classes})"
        )

    @property
    def metadata(self) -> tuple[list[str], list[Relation]]:
        """(node types, relations), as PyG's layers take them."""
        return list(self.x), list(self.edge_index)

    @property
    def in_channels(self) -> dict[str, int]:
        """C_t of each type."""
        return {kind: x.shape[1] for kind, x in self.x.items()}

    @property
    def num_nodes(self) -> dict[str, int]:
        """N_t of each type."""
        return {kind: x.shape[0] for kind, x in self.x.items()}

    @property
    def num_edges(self) -> int:
        """Number of edges of all relations."""
        return sum(edges.shape[1] for edges in self.edge_index.values())

    @cached_property
    def metapath_edge_index(self) -> dict[Relation, Tensor]:
        """The edges of each meta-path, int64 [2, E], pairs of target nodes that it connects.

        A pair has one edge, however many chains connect it, and a node that reaches itself has a
        self-loop. Edges are sorted by destination, then source. The name of a relation here is that
        of the types on the way, as in ("paper", "author", "paper"). Built at the first access.

        Example:
            >>> from gat_ext.datasets import load_typed
            >>> [*load_typed("academic").metapath_edge_index]
            [('paper', 'author', 'paper'), ('paper', 'venue', 'paper')]
        """
        found = {}
        for path in self.metapaths:
            edges = _distinct(reduce(_joined, map(self.edge_index.__getitem__, path)))
            name = "_".join(dst for _, _, dst in path[:-1]) or path[0][1]
            found[self.target, name, self.target] = edges
        return found

    def flatten(self) -> NodeDataset:
        """The same nodes and edges without their types, type by type in the order of ``x``.

        Features of types with fewer of them end in zeros. Nodes of the other types have the label
        -1 and are in no mask.

        Example:
            >>> from gat_ext.datasets import load_typed
            >>> load_typed("academic").flatten().num_nodes
            3600
        """
        width, total, first = max(self.in_channels.values()), 0, {}
        for kind, count in self.num_nodes.items():
            first[kind], total = total, total + count
        padded = [torch.nn.functional.pad(x, (0, width - x.shape[1])) for x in self.x.values()]
        edges = [
            torch.stack([src + first[relation[0]], dst + first[relation[2]]])
            for relation, (src, dst) in self.edge_index.items()
        ]
        own = slice(first[self.target], first[self.target] + len(self.y))

        def of_all(values: Tensor, default: int) -> Tensor:
            spread = values.new_full((total,), default)
            spread[own] = values
            return spread

        joined = torch.cat(edges, dim=1) if edges else torch.empty(2, 0, dtype=torch.int64)
        train, val, test = self.train_mask, self.val_mask, self.test_mask
        masks = of_all(train, False), of_all(val, False), of_all(test, False)
        return NodeDataset(
            self.name,
            torch.cat(padded),
            of_all(self.y, -1),
            sorted_edges(joined, total),
            *masks,
            self.num_classes,
        )

    def require_splits(self) -> None:
        """Raises ValueError if a split has no nodes."""
        for split in ("train", "val", "test"):
            if not getattr(self, f"{split}_mask").any():
                raise ValueError(f"{self.name}: {split}_mask is empty; every split needs a node")

    def to(self, device: torch.device | str) -> TypedDataset:
        """The same data set with its tensors, and those of meta-paths if built, on ``device``."""
        moved = copy.copy(self)  # copy() skips the checks: the values are unchanged
        for field in ("x", "edge_index", "metapath_edge_index"):
            if field in self.__dict__:
                values = getattr(self, field)
                moved.__dict__[field] = {key: value.to(device) for key, value in values.items()}
        for field in ("y", "train_mask", "val_mask", "test_mask"):
            moved.__dict__[field] = getattr(self, field).to(device)
        return moved


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Distinct pairs (i, k) with an edge (i, j) of the first and (j, k) of the second."""
    if first.numel() == 0 or second.numel() == 0:
        return first[:, :0]
    order = second[0].argsort(stable=True)
    degree = torch.bincount(second[0], minlength=int(first[1].max()) + 1)
    start = degree.cumsum(0) - degree
    count = degree[first[1]]  # of edges that continue each edge
    step = torch.arange(int(count.sum()), device=count.device)
    step = step - (count.cumsum(0) - count).repeat_interleave(count)
    ends = second[1][order[start[first[1]].repeat_interleave(count) + step]]
    return _distinct(torch.stack([first[0].repeat_interleave(count), ends]))


def _distinct(edges: Tensor) -> Tensor:
    """Each edge once, by destination, then source."""
    by_destination: Tensor = edges.flip(0).unique(dim=1)  # type: ignore[no-untyped-call]
    return by_destination.flip(0)
