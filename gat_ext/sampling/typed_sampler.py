"""TypedNeighborSampler: sampled neighbourhoods in graphs of several types of nodes and edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gat_ext.graph import Graph
from gat_ext.ops.registry import ops
from gat_ext.sampling import checks
from gat_ext.sampling.epochs import number_of
from gat_ext.sampling.storage import MappedGraph
from gat_ext.sampling.typed_checks import (
    Relation,
    check_relations,
    fanouts_of_relations,
    graph_of,
    node_counts,
    of_relations,
)

_neighbor_sample = ops.neighbor_sample.default
_NONE = torch.iinfo(torch.int32).max  # in tables: a node without a number
Tables = dict[str, Tensor]


@dataclass(frozen=True)
class TypedSample:
    """The neighbourhood of seeds of one type, as one graph for each relation.

    Attributes:
        input_type: type of the seeds.
        batch_size: number of seeds.
        n_id_dict: for each type, int64 [N'_t], its nodes, those of earlier hops first;
            ``n_id_dict[input_type][:batch_size]`` are the seeds.
        edge_index_dict: for each relation, int64 [2, E'_r], positions in ``n_id_dict`` of the
            source type and of the destination type, by hop.
        e_id_dict: for each relation, int64 [E'_r], its edges among those of the graph.
        num_sampled_nodes_dict: for each type, the number of seeds, then of the nodes that each hop
            added.
        num_sampled_edges_dict: for each relation, the number of edges of each hop.
    """

    input_type: str
    batch_size: int
    n_id_dict: dict[str, Tensor]
    edge_index_dict: dict[Relation, Tensor]
    e_id_dict: dict[Relation, Tensor]
    num_sampled_nodes_dict: dict[str, list[int]]
    num_sampled_edges_dict: dict[Relation, list[int]]


class _Sampled(NamedTuple):
    """What the sampler reads of a relation.

    Attributes:
        csr: (rowptr, col, edge_id), whose rows are as many as the larger of its two types has.
        num_src: number of nodes of the source type.
        weight: [E] in the order of the CSR, or None.
        fanouts: of each hop.
        seeds: of the random numbers of each hop.
    """

    csr: tuple[Tensor, Tensor, Tensor | None]
    num_src: int
    weight: Tensor | None
    fanouts: list[int]
    seeds: list[int]


class TypedNeighborSampler:
    """Samples in-neighbourhoods: in each hop, up to ``num_neighbors`` in-edges of each relation.

    A hop expands the nodes that the one before it added, of all types, each of which is therefore
    expanded once: in every relation that leads to its type. Draws are those of
    :class:`NeighborSampler`. The random numbers of a node depend on the seed, the epoch, the
    relation, the hop and the node only. So the sample does not depend on the number of threads or
    the process, and neighbours not on the order of the relations.

    Args:
        graphs: for each relation (source type, name, destination type), its edges: a Graph with
            the nodes of both types, an edge_index [2, E], or a MappedGraph, whose rows are the
            destinations; on the CPU.
        num_neighbors: for each hop, the seeds' first, the number of in-edges of a node in each
            relation; -1: all. Or a dictionary of such lists, of equal length, for every relation.
        num_nodes: number of nodes of types; default: those of the Graphs.
        replace: draw with replacement.
        edge_weight: for some relations, [E], finite and at least 0; an edge of weight 0 is never
            drawn.
        seed: determines the random numbers.

    Raises:
        TypeError: an argument has another type or dtype.
        ValueError: a graph does not have the numbers of nodes of its types, the number of nodes of
            a type is unknown, a shape or the keys of a dictionary do not match.
        IndexError: an edge is out of range.

    Cost: that of :class:`NeighborSampler`, and some 0.1 ms for each relation and hop.
    Memory: the result, 8 bytes for each row pointer of a relation with more sources than
    destinations, and 4 bytes for each node for every thread that samples.

    Example:
        >>> writes, by = ("author", "writes", "paper"), ("paper", "written_by", "author")
        >>> edges = torch.tensor([[0, 1, 1], [2, 0, 2]])
        >>> graphs, sizes = {writes: edges, by: edges.flip(0)}, {"author": 2, "paper": 3}
        >>> found = TypedNeighborSampler(graphs, [-1, 1], num_nodes=sizes).sample(
        ...     "paper", torch.tensor([2])
        ... )
        >>> found.n_id_dict["author"].tolist(), found.edge_index_dict[writes].tolist()
        ([0, 1], [[0, 1], [0, 0]])
    """

    def __init__(
        self,
        graphs: Mapping[Relation, Graph | MappedGraph | Tensor],
        num_neighbors: Sequence[int] | Mapping[Relation, Sequence[int]],
        *,
        num_nodes: Mapping[str, int] | None = None,
        replace: bool = False,
        edge_weight: Mapping[Relation, Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        """Checks the arguments; see the class."""
        relations = check_relations(graphs)
        self.num_nodes = node_counts(graphs, num_nodes)
        fanouts = fanouts_of_relations(num_neighbors, relations)
        self.num_neighbors = num_neighbors
        self.num_hops = len(next(iter(fanouts.values())))
        checks.flag(replace, "replace")
        self.replace, self.seed = replace, checks.integer(seed, "seed")
        weights = of_relations(edge_weight, relations, "edge_weight")
        self.graphs: dict[Relation, Graph | MappedGraph] = {}
        self._relations: dict[Relation, _Sampled] = {}
        for relation in relations:
            sizes = self.num_nodes[relation[0]], self.num_nodes[relation[2]]
            graph = self.graphs[relation] = graph_of(graphs[relation], relation, *sizes)
            weight = checks.weights(
                weights.get(relation), graph.col.shape[0], f"edge_weight[{relation!r}]"
            )
            if weight is not None and graph.edge_id is not None:
                weight = weight.index_select(0, graph.edge_id)
            self._relations[relation] = _Sampled(
                _square(graph, *sizes),
                sizes[0],
                weight,
                fanouts[relation],
                [number_of(self.seed, relation, hop) for hop in range(self.num_hops)],
            )
        self._tables: list[Tables] = []

    def __getstate__(self) -> dict[str, Any]:
        """All but the tables."""
        return {**self.__dict__, "_tables": []}

    def sample(self, input_type: str, seeds: Tensor, *, epoch: int = 0) -> TypedSample:
        """The neighbourhood of seeds.

        Args:
            input_type: their type.
            seeds: int64 or int32 [S], nodes, which may repeat.
            epoch: further number that determines the random numbers.

        Raises:
            TypeError: seeds are not integers.
            ValueError: the type is unknown, seeds is not a vector, or row pointers or weights are
                invalid.
            IndexError: a seed, or a node of a MappedGraph, is out of range.
        """
        checks.choice(input_type, list(self.num_nodes), "input_type")
        seeds = checks.nodes(seeds, "seeds")
        checks.in_range(seeds, self.num_nodes[input_type], "seeds")
        epoch = checks.integer(epoch, "epoch")
        try:  # each thread that samples has tables of its own
            tables = self._tables.pop()
        except IndexError:
            tables = {}
        growing = _Growing(self.num_nodes, tables)
        # Inference tensors could not be saved for a later backward.
        with torch.inference_mode(False):
            try:
                growing.start(input_type, seeds)
                edges = _Edges(self._relations)
                for hop in range(self.num_hops):
                    self._expand(growing, edges, hop, epoch)
            finally:
                growing.clear()
                self._tables.append(tables)
            return TypedSample(
                input_type,
                seeds.shape[0],
                {kind: torch.cat(parts) for kind, parts in growing.parts.items()},
                *edges.joined(),
                {kind: [len(part) for part in parts] for kind, parts in growing.parts.items()},
                {name: [len(part) for part in parts] for name, parts in edges.e_id.items()},
            )

    def _expand(self, growing: _Growing, edges: _Edges, hop: int, epoch: int) -> None:
        """Samples a hop, and makes the nodes that it adds the next to be expanded."""
        frontier = {kind: parts[-1] for kind, parts in growing.parts.items()}
        first = {kind: growing.count[kind] - len(nodes) for kind, nodes in frontier.items()}
        reached: dict[str, list[Tensor]] = {kind: [] for kind in growing.parts}
        for name, relation in self._relations.items():
            nodes, fanout = frontier[name[2]], relation.fanouts[hop]
            if nodes.shape[0] == 0 or fanout == 0:
                edges.add(name, *torch.empty(3, 0, dtype=torch.int64))
                continue
            n_id, _, (rowptr,), (col,), (e_id,), _ = _neighbor_sample(
                *relation.csr,
                nodes,
                [fanout],
                relation.weight,
                *(None, None, None),  # times
                self.replace,
                *(False, False, False),  # of latest edges, disjoint trees, and further hops
                relation.seeds[hop],
                epoch,
            )
            src, added = growing.number(name, n_id, col.long(), relation.num_src)
            reached[name[0]].append(added)
            rows = torch.arange(first[name[2]], first[name[2]] + nodes.shape[0])
            dst = rows.repeat_interleave(rowptr.diff(), output_size=col.shape[0])
            edges.add(name, src, dst, e_id)
        growing.advance(reached)


class _Edges:
    """The sampled edges of each relation, by hop."""

    def __init__(self, relations: Iterable[Relation]) -> None:
        self.e_id: dict[Relation, list[Tensor]] = {name: [] for name in relations}
        self._src: dict[Relation, list[Tensor]] = {name: [] for name in self.e_id}
        self._dst: dict[Relation, list[Tensor]] = {name: [] for name in self.e_id}

    def add(self, name: Relation, src: Tensor, dst: Tensor, e_id: Tensor) -> None:
        self._src[name].append(src)
        self._dst[name].append(dst)
        self.e_id[name].append(e_id)

    def joined(self) -> tuple[dict[Relation, Tensor], dict[Relation, Tensor]]:
        """(edge_index_dict, e_id_dict)."""
        e_id = {name: torch.cat(parts) for name, parts in self.e_id.items()}
        edges = {name: torch.empty(2, ids.shape[0], dtype=ids.dtype) for name, ids in e_id.items()}
        for name, ends in edges.items():
            torch.cat(self._src[name], out=ends[0])
            torch.cat(self._dst[name], out=ends[1])
        return edges, e_id


class _Growing:
    """The nodes of a batch, numbered in each type in the order of their first occurrence.

    Attributes:
        parts: of each type, the seeds, then the nodes that each hop added.
        count: number of numbered nodes of each type.
    """

    def __init__(self, num_nodes: Mapping[str, int], tables: Tables) -> None:
        """Keeps the tables of numbers, int32 [N_t] for the types that were reached before."""
        self.num_nodes, self.tables = num_nodes, tables
        self.parts: dict[str, list[Tensor]] = {kind: [] for kind in num_nodes}
        self.count = dict.fromkeys(num_nodes, 0)
        self._numbered: list[tuple[str, Tensor]] = []

    def start(self, input_type: str, seeds: Tensor) -> None:
        """Numbers the seeds; one that repeats has its first number."""
        numbers = torch.arange(seeds.shape[0], dtype=torch.int32)
        self._numbered.append((input_type, seeds))
        self._table(input_type).scatter_reduce_(0, seeds, numbers, "amin")
        self.count[input_type] = seeds.shape[0]
        self.advance({input_type: [seeds]})

    def advance(self, reached: Mapping[str, list[Tensor]]) -> None:
        """Adds the nodes of a hop, which are numbered, to the parts."""
        none = torch.empty(0, dtype=torch.int64)
        for kind, parts in self.parts.items():
            found = reached.get(kind) or [none]
            parts.append(found[0] if len(found) == 1 else torch.cat(found))

    def number(
        self, name: Relation, n_id: Tensor, col: Tensor, num_src: int
    ) -> tuple[Tensor, Tensor]:
        """(numbers of the sources of the edges, the nodes that had none before).

        Args:
            name: of the relation.
            n_id: int64 [M], the destinations, which may be no sources, then further sources.
            col: int64 [E'], positions in ``n_id`` of the sources of the edges.
            num_src: number of nodes of the source type.
        """
        kind = name[0]
        used, sources = None, n_id
        if kind != name[2]:
            mark = torch.zeros(n_id.shape[0], dtype=torch.bool)
            used = mark.index_fill_(0, col, True).nonzero().flatten()
            sources = n_id.index_select(0, used)
        if sources.numel() and int(sources.max()) >= num_src:
            raise IndexError(
                f"the graph of {name!r} has the source {int(sources.max())}; expected 0 to "
                f"{num_src - 1}, because there are {num_src} nodes of the type {kind!r}"
            )
        table, first = self._table(kind), self.count[kind]
        added = sources.masked_select(table.index_select(0, sources) == _NONE)
        self.count[kind] = first + added.shape[0]
        self._numbered.append((kind, added))
        table.index_copy_(0, added, torch.arange(first, self.count[kind], dtype=torch.int32))
        numbers = table.index_select(0, sources).long()
        if used is not None:
            numbers = torch.empty_like(n_id).index_copy_(0, used, numbers)
        return numbers.index_select(0, col), added

    def clear(self) -> None:
        """Empties the tables."""
        for kind, nodes in self._numbered:
            self.tables[kind].index_fill_(0, nodes, _NONE)

    def _table(self, kind: str) -> Tensor:
        if kind not in self.tables:
            self.tables[kind] = torch.full((self.num_nodes[kind],), _NONE, dtype=torch.int32)
        return self.tables[kind]


def _square(
    graph: Graph | MappedGraph, num_src: int, num_dst: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The CSR with a row for each source too; those after the destinations are empty."""
    rowptr = graph.rowptr
    if num_src > num_dst:
        rowptr = torch.cat([rowptr, rowptr[-1:].expand(num_src - num_dst)])
    return rowptr, graph.col, graph.edge_id
