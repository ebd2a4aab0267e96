"""GraphDataset, the result of every loader of data sets of graphs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gat_ext.datasets._checks import check_dimensions, check_tensor, short_repr
from gat_ext.datasets._folds import Fold, make_folds
from gat_ext.datasets._types import degree_types, refined_types
from gat_ext.graph import Graph

__all__ = ["Fold", "GraphDataset"]


@dataclass(frozen=True, eq=False, repr=False)
class GraphDataset:
    """Labelled graphs, stored as one block-diagonal graph with consecutive node numbers.

    Attributes:
        name: Name of the data set, as given to ``load_graphs``.
        edge_index: Sources and destinations, int64 [2, E], numbered over all nodes; the edges of a
            graph are consecutive, in the order of the graphs, and join nodes of that graph.
        node_ptr: Graph g has the nodes ``node_ptr[g]:node_ptr[g + 1]``, at least one; int64
            [G + 1].
        node_type: Type of each node, int64 [N] in [0, num_types).
        num_types: R; some types may not occur.
        y: What to predict of each graph: its class, int64 [G] in [0, num_classes); or any number
            of labels, float32 [G, num_classes] of zeros and ones; or, with ``num_classes=0``, real
            targets, float32 [G, T]. ``task`` says which.
        num_classes: K; 0 for regression.
        x: Node attributes, float32 [N, C]; None: nodes have types only.
        signal_types: The types that decide the class, if known.
        edge_attr: Edge attributes, float32 [E, D], a row for each column of ``edge_index``; None:
            edges have none.

    Raises:
        TypeError: A tensor does not have the dtype given here.
        ValueError: Shapes do not match, a value is out of range or not finite, a graph has no
            nodes, or an edge joins two graphs or is among another graph's edges.

    Example:
        >>> two = GraphDataset(
        ...     name="two",
        ...     edge_index=torch.tensor([[0, 1, 3, 2], [1, 0, 2, 3]]),
        ...     node_ptr=torch.tensor([0, 2, 4]),
        ...     node_type=torch.tensor([0, 1, 1, 1]),
        ...     num_types=2,
        ...     y=torch.tensor([0, 1]),
        ...     num_classes=2,
        ... )
        >>> len(two), two.num_nodes, two.graph_sizes.tolist(), two.graph.num_edges
        (2, 4, [2, 2], 4)
        >>> two.subset([1]).edge_index.tolist()
        [[1, 0], [0, 1]]
    """

    name: str
    edge_index: Tensor
    node_ptr: Tensor
    node_type: Tensor
    num_types: int
    y: Tensor
    num_classes: int
    x: Tensor | None = None
    signal_types: tuple[int, ...] = ()
    edge_attr: Tensor | None = None

    def __post_init__(self) -> None:
        classes = self.task == "classification"
        targets = "[G]" if classes else "[G, T]"
        for field, dimensions in (("y", targets), ("node_type", "[N]"), ("edge_index", "[2, E]")):
            check_dimensions(self, field, dimensions)
        columns = () if classes else (self.num_classes or self.y.shape[1],)
        label_dtype = torch.int64 if classes else torch.float32
        check_tensor(self, "y", label_dtype, (len(self), *columns), finite=True)
        check_tensor(self, "node_ptr", torch.int64, (len(self) + 1,))
        check_tensor(self, "node_type", torch.int64, (self.num_nodes,))
        check_tensor(self, "edge_index", torch.int64, (2, self.num_edges))
        self._check_attributes("x", "[N, C]", self.num_nodes)
        self._check_graphs()
        self._check_range("node_type", self.num_types)
        if classes:
            self._check_range("y", self.num_classes)
        elif self.num_classes and not bool(((self.y == 0) | (self.y == 1)).all()):
            raise ValueError(
                f"{self.name}: y has values other than 0 and 1; expected these in float32 [G, "
                "num_classes], or num_classes=0 for real targets"
            )
        self._check_edges()
        self._check_attributes("edge_attr", "[E, D]", self.num_edges)
        if any(not 0 <= kind < self.num_types for kind in self.signal_types):
            raise ValueError(
                f"{self.name}: signal_types is {self.signal_types}, expected types from 0 to "
                f"{self.num_types - 1}"
            )

    def _check_attributes(self, field: str, dimensions: str, rows: int) -> None:
        if (value := getattr(self, field)) is not None:
            check_dimensions(self, field, dimensions)
            check_tensor(self, field, torch.float32, (rows, value.shape[1]), finite=True)

    def _check_range(self, field: str, bound: int) -> None:
        value: Tensor = getattr(self, field)
        if value.numel() and not 0 <= int(value.min()) <= int(value.max()) < bound:
            raise ValueError(
                f"{self.name}: {field} spans {int(value.min())} to {int(value.max())}, "
                f"expected 0 to {bound - 1}"
            )

    def _check_graphs(self) -> None:
        first, last = int(self.node_ptr[0]), int(self.node_ptr[-1])
        if first != 0 or last != self.num_nodes:
            raise ValueError(
                f"{self.name}: node_ptr goes from {first} to {last}, expected 0 to "
                f"{self.num_nodes}, the number of node types"
            )
        empty = self.graph_sizes < 1
        if bool(empty.any()):
            number = int(empty.int().argmax())
            raise ValueError(
                f"{self.name}: graph {number} has {int(self.graph_sizes[number])} nodes, expected "
                "at least 1; leave the graph out"
            )

    def _check_edges(self) -> None:
        self._check_range("edge_index", self.num_nodes)
        source, target = self.graph_ids[self.edge_index]
        if bool((source != target).any()):
            edge = int((source != target).int().argmax())
            raise ValueError(
                f"{self.name}: edge {edge}, {self.edge_index[:, edge].tolist()}, joins graph "
                f"{int(source[edge])} and graph {int(target[edge])}; expected edges inside a graph"
            )
        if bool((target.diff() < 0).any()):
            edge = int((target.diff() < 0).int().argmax()) + 1
            raise ValueError(
                f"{self.name}: edge {edge} of graph {int(target[edge])} follows an edge of graph "
                f"{int(target[edge - 1])}; expected edges sorted by graph"
            )

    def __len__(self) -> int:
        """G."""
        return self.y.shape[0]

    def __repr__(self) -> str:
        """The fields, with tensors by their shapes."""
        return short_repr(self)

    @property
    def task(self) -> str:
        """``"classification"``, ``"multilabel"`` or ``"regression"``: the meaning of ``y``."""
        if self.num_classes == 0:
            return "regression"
        return "multilabel" if self.y.dim() == 2 else "classification"

    def require_classes(self, purpose: str) -> None:
        """Raises ValueError unless each graph has one class; ``purpose`` begins the message."""
        if self.task != "classification":
            raise ValueError(
                f"{purpose} needs one class for each graph, and {self.name} has targets for "
                f"{self.task}, y {list(self.y.shape)}: choose a data set for classification"
            )

    @property
    def num_nodes(self) -> int:
        """N, the nodes of all graphs."""
        return self.node_type.shape[0]

    @property
    def num_edges(self) -> int:
        """E, the edges of all graphs, each undirected edge counted in both directions."""
        return self.edge_index.shape[1]

    @property
    def graph_sizes(self) -> Tensor:
        """Number of nodes of each graph, int64 [G]."""
        return self.node_ptr.diff()

    @cached_property
    def graph_ids(self) -> Tensor:
        """The graph of each node, int64 [N]."""
        numbers = torch.arange(len(self), device=self.node_ptr.device)
        return numbers.repeat_interleave(self.graph_sizes, output_size=self.num_nodes)

    @cached_property
    def graph(self) -> Graph:
        """All graphs as one block-diagonal graph, built at the first access and cached."""
        return Graph(self.edge_index, num_nodes=self.num_nodes)

    @cached_property
    def _edge_ptr(self) -> Tensor:
        """Graph g has the edges ``_edge_ptr[g]:_edge_ptr[g + 1]``, int64 [G + 1]."""
        counts = torch.bincount(self.graph_ids[self.edge_index[1]], minlength=len(self))
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def _derive(self, **fields: object) -> GraphDataset:
        """The same with other fields, known to be right: nothing is checked, nothing cached."""
        derived = copy.copy(self)
        for cached in ("graph_ids", "graph", "_edge_ptr"):
            derived.__dict__.pop(cached, None)
        derived.__dict__.update(fields)
        return derived

    def to(self, device: torch.device | str) -> GraphDataset:
        """The same data set with its tensors, and its graph if built, on ``device``."""
        names = [field.name for field in dataclasses.fields(self)]
        values = {name: getattr(self, name) for name in names}
        moved = self._derive(
            **{name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)}
        )
        if "graph" in self.__dict__:
            moved.__dict__["graph"] = self.graph.to(device)
        return moved

    def subset(self, indices: Tensor | Sequence[int]) -> GraphDataset:
        """The data set of some of the graphs, in the order given.

        Cost: linear in the size of the result; no loop over graphs or nodes.

        Args:
            indices: Numbers of graphs, int64 [K] or a sequence; may repeat.

        Raises:
            TypeError: ``indices`` are not integers.
            IndexError: No graph has such a number.

        Example:
            >>> from gat_ext.datasets import load_graphs
            >>> data = load_graphs("digit_grids")
            >>> data.subset([2, 0]).y.tolist()
            [2, 0]
        """
        chosen = torch.as_tensor(indices, device=self.y.device)
        if chosen.numel() == 0:
            chosen = chosen.long()
        if chosen.dim() != 1 or chosen.dtype not in (torch.int64, torch.int32):
            raise TypeError(
                f"indices have shape {list(chosen.shape)} and dtype {chosen.dtype}, expected "
                "integers [K]; for a mask, pass mask.nonzero().flatten()"
            )
        chosen = chosen.long()
        if chosen.numel() and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(self):
            raise IndexError(
                f"indices span {int(chosen.min())} to {int(chosen.max())}, expected 0 to "
                f"{len(self) - 1}"
            )
        nodes, node_ptr = _ranges(self.node_ptr, chosen)
        edges, edge_ptr = _ranges(self._edge_ptr, chosen)
        moved_by = node_ptr[:-1] - self.node_ptr[chosen]
        shift = moved_by.repeat_interleave(edge_ptr.diff(), output_size=edges.shape[0])
        return self._derive(
            edge_index=self.edge_index[:, edges] + shift,
            node_ptr=node_ptr,
            node_type=self.node_type[nodes],
            y=self.y[chosen],
            x=None if self.x is None else self.x[nodes],
            edge_attr=None if self.edge_attr is None else self.edge_attr[edges],
        )

    def balanced(self, num_graphs: int, seed: int = 0) -> GraphDataset:
        """A random subset with the same number of graphs of each class, in this data set's order.

        Args:
            num_graphs: Size of the subset, a multiple of ``num_classes``.
            seed: Seed of the random subset.

        Raises:
            ValueError: ``num_graphs`` is not such a multiple, a class has too few graphs, or graphs
                have other targets than a class.

        Example:
            >>> from gat_ext.datasets import load_graphs
            >>> load_graphs("digit_grids").balanced(50).y.bincount().tolist()
            [5, 5, 5, 5, 5, 5, 5, 5, 5, 5]
        """
        self.require_classes("a balanced subset")
        each, rest = divmod(num_graphs, self.num_classes)
        if each < 1 or rest:
            raise ValueError(
                f"num_graphs is {num_graphs}, expected a positive multiple of {self.num_classes}, "
                "the number of classes"
            )
        y = self.y.cpu().numpy()
        counts = np.bincount(y, minlength=self.num_classes)
        if counts.min() < each:
            raise ValueError(
                f"num_graphs is {num_graphs}, {each} of each class, but class {counts.argmin()} "
                f"has {counts.min()}; expected at most {counts.min() * self.num_classes}"
            )
        order = np.random.default_rng(seed).permutation(len(y))
        classes = range(self.num_classes)
        chosen = np.concatenate([order[y[order] == label][:each] for label in classes])
        return self.subset(torch.from_numpy(np.sort(chosen)))

    def folds(self, k: int = 5, seed: int = 0, val_fraction: float = 0.1) -> list[Fold]:
        """Cross-validation: k splits, in which each graph is tested once.

        For classification they are stratified: every part has the class proportions of all graphs.

        Args:
            k: Number of folds.
            seed: Seed of the random folds.
            val_fraction: Share of validation graphs among those that are not in the test part.

        Returns:
            k triples ``(train, val, test)`` of graph numbers, int64, sorted, for ``subset``.

        Raises:
            ValueError: ``k`` is below 2 or above the size of the smallest class (the number of
                graphs, unless for classification), ``val_fraction`` is not in (0, 1), or there are
                too few graphs for it.
            ImportError: scikit-learn is missing.

        Example:
            >>> from gat_ext.datasets import load_graphs
            >>> data = load_graphs("shapes", num_graphs=100)
            >>> [len(part) for part in data.folds(5)[0]]
            [72, 8, 20]
        """
        classes = self.y.cpu().numpy() if self.task == "classification" else None
        return make_folds(len(self), classes, k, seed=seed, val_fraction=val_fraction)

    def with_types(self, how: str, *, rounds: int = 1, max_types: int = 64) -> GraphDataset:
        """Replaces the node types.

        The new types do not depend on labels, but on all graphs: call this before splitting.

        Args:
            how: ``"label"``: the present types. ``"degree"``: a type for each in-degree that
                occurs, by increasing degree; if there are more than ``max_types``, the highest
                degrees share the last type. ``"wl"``: colours of Weisfeiler-Lehman refinement of
                the present types: two nodes have the same new type if their types, and the counts
                of each type among their in-neighbours, are equal. Types are numbered from the most
                frequent; if there are more than ``max_types``, the rarest share the last type. Use
                ``with_types("degree").with_types("wl")`` to refine degrees.
            rounds: Rounds of ``"wl"``; a colour depends on nodes up to this many steps away.
            max_types: Largest number of types.

        Raises:
            ValueError: Unknown ``how``, ``rounds`` below 1, or ``max_types`` below 2.

        Source:
            Shervashidze et al., "Weisfeiler-Lehman Graph Kernels", JMLR 12, 2011, algorithm 1.

        Example:
            >>> from gat_ext.datasets import load_graphs
            >>> load_graphs("digit_grids").with_types("degree").node_type[:9].tolist()
            [0, 1, 1, 1, 1, 1, 1, 0, 1]
        """
        if rounds < 1 or max_types < 2:
            raise ValueError(
                f"rounds is {rounds} and max_types {max_types}; expected at least 1 and 2"
            )
        if how == "label":
            return self
        if how == "degree":
            types = degree_types(self.graph.in_degrees().cpu().numpy(), max_types)
        elif how == "wl":
            types = refined_types(
                self.graph.rowptr.cpu().numpy(),
                self.graph.col.cpu().numpy(),
                self.node_type.cpu().numpy(),
                rounds=rounds,
                max_types=max_types,
            )
        else:
            raise ValueError(f"how is {how!r}, expected 'label', 'degree' or 'wl'")
        typed = self._derive(
            node_type=torch.from_numpy(types).to(self.node_type.device),
            num_types=int(types.max(initial=0)) + 1,
            signal_types=(),
        )
        typed.__dict__["graph"] = self.graph
        return typed


def _ranges(ptr: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Positions ``ptr[g]:ptr[g + 1]`` of all chosen g, concatenated, and their row pointers."""
    counts = ptr.diff()[chosen]
    new_ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    total = int(new_ptr[-1])
    shift = (ptr[chosen] - new_ptr[:-1]).repeat_interleave(counts, output_size=total)
    return torch.arange(total, device=ptr.device) + shift, new_ptr
