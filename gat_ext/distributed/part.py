"""Part: the nodes, edges and rows to exchange of one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gat_ext.distributed.cut import (
    Assignment,
    HaloRows,
    Whole,
    check_rank,
    check_whole,
    stable_order,
    starts,
)
from gat_ext.graph import Graph


@dataclass(frozen=True, eq=False, repr=False)
class Part:
    """What one process holds of the edges of a graph that is cut into parts.

    A node belongs to one part, an edge to the part of its destination. The sources of a part's
    edges that other parts own are its halo; before an operator runs, their rows are received into a
    tensor that follows the part's own rows. Sources and destinations may be the same nodes, or two
    sets (a bipartite graph).

    Attributes:
        rank: number of this part.
        parts: number of parts.
        src_nodes: int64 [n_src], the numbers in the whole graph of the sources that this part owns,
            ascending.
        dst_nodes: int64 [n_dst], those of the destinations; the same object as ``src_nodes`` if
            sources and destinations are the same nodes.
        halo: int64 [h], the numbers of the sources of other parts that the edges read, by owner,
            then ascending.
        recv_sizes: for each part, the number of rows of the halo that it owns; 0 for this one.
        send: int64 [s], positions in ``src_nodes`` of the rows that other parts need, by receiver,
            in the order of the receiver's halo.
        send_sizes: for each part, the number of rows that it receives; 0 for this one.
        edge_index: int64 [2, e], the edges into ``dst_nodes`` in numbers of this part. Sources
            below n_src are positions in ``src_nodes``, n_src + k is ``halo[k]``; destinations are
            positions in ``dst_nodes``. Edges from the halo come first, by owner, then those among
            own nodes; each group is in the order of the whole graph.
        halo_edges: for each part, the number of edges from its rows of the halo; 0 for this one.
        edges: int64 [e], the position of each edge in the whole graph.
        num_edges: number of edges of the whole graph.
        num_src: number of its sources.
        num_dst: number of its destinations.
        plain_edges: int64 [e], the position of each edge among the edges of the whole graph that
            are not self-loops, and no meaning for self-loops; None if there are no self-loops, and
            ``edges`` has these positions.
        num_plain: number of edges of the whole graph that are not self-loops.
        identity: a hash of the sizes of the whole graph, of ``parts`` and of the part of each node;
            parts with different ones do not belong together.

    Example:
        >>> from gat_ext.distributed import make_part
        >>> ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        >>> part = make_part(ring, torch.tensor([0, 0, 1, 1]), rank=0, parts=2)
        >>> part
        Part(rank=0, parts=2, n_src=2, n_dst=2, edges=2, halo=1, send=1)
        >>> part.halo.tolist(), part.send.tolist(), part.edges.tolist()
        ([3], [1], [3, 0])
        >>> part.edge_index.tolist()  # the row of node 3 follows those of nodes 0 and 1
        [[2, 0], [0, 1]]
    """

    rank: int
    parts: int
    src_nodes: Tensor
    dst_nodes: Tensor
    halo: Tensor
    recv_sizes: tuple[int, ...]
    send: Tensor
    send_sizes: tuple[int, ...]
    edge_index: Tensor
    halo_edges: tuple[int, ...]
    edges: Tensor
    num_edges: int
    num_src: int
    num_dst: int
    plain_edges: Tensor | None
    num_plain: int
    identity: str

    @property
    def is_bipartite(self) -> bool:
        """True if sources and destinations are two sets of nodes."""
        return self.src_nodes is not self.dst_nodes

    @property
    def num_own_src(self) -> int:
        """Number of sources that this part owns."""
        return self.src_nodes.shape[0]

    @property
    def num_own_dst(self) -> int:
        """Number of destinations that this part owns."""
        return self.dst_nodes.shape[0]

    @property
    def num_own_edges(self) -> int:
        """Number of edges into own destinations."""
        return self.edge_index.shape[1]

    @property
    def num_halo_edges(self) -> int:
        """Number of edges whose source another part owns; they come first in ``edge_index``."""
        return sum(self.halo_edges)

    @property
    def num_halo(self) -> int:
        """Number of rows that this part receives."""
        return self.halo.shape[0]

    @property
    def num_sent(self) -> int:
        """Number of rows that this part sends; a row counts once for each receiver."""
        return self.send.shape[0]

    @property
    def peers(self) -> tuple[int, ...]:
        """The parts that this one receives rows from or sends rows to, ascending."""
        both = zip(self.recv_sizes, self.send_sizes, strict=True)
        return tuple(rank for rank, sizes in enumerate(both) if any(sizes))

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors; those of nodes count once if both sets are the same."""
        tensors = {id(tensor): tensor.nbytes for tensor in self._tensors().values()}
        return sum(tensors.values())

    def to(self, device: torch.device | str | int) -> Part:
        """This part with its tensors on ``device``; itself if they are there already."""
        moved: dict[str, Any] = {n: tensor.to(device) for n, tensor in self._tensors().items()}
        if all(moved[name] is tensor for name, tensor in self._tensors().items()):
            return self
        if not self.is_bipartite:
            moved["dst_nodes"] = moved["src_nodes"]
        return dataclasses.replace(self, **moved)

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def __repr__(self) -> str:
        """The counts of this part."""
        return (
            f"Part(rank={self.rank}, parts={self.parts}, n_src={self.num_own_src}, "
            f"n_dst={self.num_own_dst}, edges={self.num_own_edges}, halo={self.num_halo}, "
            f"send={self.num_sent})"
        )


def make_part(graph: Graph | Tensor, assignment: Assignment, rank: int, parts: int) -> Part:
    """One part of a graph, from the whole of it.

    Takes O(E) memory and a sort of the edges at the border of this part; each process may call it
    for its own rank.

    Args:
        graph: a Graph, or an edge_index [2, E], int32 or int64; multi-edges and self-loops are
            kept.
        assignment: int64 [N], the part of each node; a pair ([N_src], [N_dst]) if sources and
            destinations are two sets of nodes.
        rank: number of the part, from 0.
        parts: number of parts; parts without nodes are valid.

    Returns:
        The part, on the CPU.

    Raises:
        TypeError: an argument is not of these types.
        ValueError: a shape, ``rank`` or ``parts`` is invalid, or the assignment does not match the
            graph.
        IndexError: an edge, or the part of a node, is out of range.

    Example:
        >>> from gat_ext.distributed import make_part
        >>> edges = torch.tensor([[0, 1, 1], [0, 0, 1]])  # from 2 sources to 2 destinations
        >>> assignment = torch.tensor([0, 1]), torch.tensor([0, 0])
        >>> make_part(edges, assignment, rank=0, parts=2)
        Part(rank=0, parts=2, n_src=1, n_dst=2, edges=3, halo=1, send=0)
    """
    whole = check_whole(graph, assignment, parts)
    check_rank(rank, parts)
    rows = whole.halo_rows(rank)
    edges = (whole.dst.part[whole.edge_index[1]] == rank).nonzero().flatten()
    received, sent = rows.receiver == rank, rows.owner == rank
    halo = HaloRows(*(column[received] for column in rows))
    send = HaloRows(*(column[sent] for column in rows))
    return _build(whole, int(rank), edges, halo, send, _common(whole))


def make_parts(graph: Graph | Tensor, assignment: Assignment, parts: int) -> list[Part]:
    """All parts of a graph, by rank; the edges are sorted once for all of them.

    Args:
        graph: as for :func:`make_part`.
        assignment: as for :func:`make_part`.
        parts: number of parts.

    Raises:
        TypeError, ValueError, IndexError: as :func:`make_part`.

    Example:
        >>> from gat_ext.distributed import make_parts
        >>> ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        >>> [part.halo.tolist() for part in make_parts(ring, torch.tensor([0, 0, 1, 1]), 2)]
        [[3], [1]]
    """
    return list(iterate_parts(check_whole(graph, assignment, parts)))


def iterate_parts(whole: Whole) -> Iterator[Part]:
    """The parts of a checked graph by rank, each built when it is requested."""
    rows = whole.halo_rows()
    by_owner = stable_order(rows.owner, whole.parts)
    owner_of_edge = whole.dst.part[whole.edge_index[1]]
    by_part = stable_order(owner_of_edge, whole.parts)
    first_edge, first_halo, first_send = (
        starts(torch.bincount(owner, minlength=whole.parts)).tolist()
        for owner in (owner_of_edge, rows.receiver, rows.owner)
    )
    del owner_of_edge
    common = _common(whole)
    for rank in range(whole.parts):
        edges = by_part[first_edge[rank] : first_edge[rank + 1]]
        received = slice(first_halo[rank], first_halo[rank + 1])
        sent = by_owner[first_send[rank] : first_send[rank + 1]]
        halo = HaloRows(*(column[received] for column in rows))
        send = HaloRows(*(column[sent] for column in rows))
        yield _build(whole, rank, edges, halo, send, common)


def _common(whole: Whole) -> tuple[str, Tensor | None, int]:
    """What all parts share: the identity, and the positions and number of plain edges."""
    return whole.identity(), *whole.plain_positions()


def _build(
    whole: Whole,
    rank: int,
    edges: Tensor,
    halo: HaloRows,
    send: HaloRows,
    common: tuple[str, Tensor | None, int],
) -> Part:
    """A part of these edges, in the order of the whole graph, and rows by owner or receiver."""
    parts, width = whole.parts, max(whole.num_src, 1)
    owner = whole.src.part[whole.edge_index[0, edges]]
    group = torch.where(owner == rank, parts, owner)  # own edges follow those from the halo
    order = stable_order(group, parts + 1)
    halo_edges = torch.bincount(group, minlength=parts + 1)[:parts]
    edges, owner = edges[order], owner[order]
    src, dst = whole.edge_index[:, edges]

    src_nodes = whole.src.nodes(rank)
    dst_nodes = src_nodes if whole.src is whole.dst else whole.dst.nodes(rank)
    count = int(halo_edges.sum())
    local = torch.empty((2, edges.shape[0]), dtype=torch.int64)
    place = torch.searchsorted(halo.owner * width + halo.node, owner[:count] * width + src[:count])
    local[0, :count] = place + src_nodes.shape[0]
    local[0, count:] = whole.src.local[src[count:]]
    local[1] = whole.dst.local[dst]
    identity, plain, num_plain = common
    return Part(
        rank=rank,
        parts=parts,
        src_nodes=src_nodes,
        dst_nodes=dst_nodes,
        halo=halo.node.clone(),
        recv_sizes=_sizes(halo.owner, parts),
        send=whole.src.local[send.node],
        send_sizes=_sizes(send.receiver, parts),
        edge_index=local,
        halo_edges=tuple(halo_edges.tolist()),
        edges=edges,
        num_edges=whole.num_edges,
        num_src=whole.num_src,
        num_dst=whole.num_dst,
        plain_edges=None if plain is None else plain[edges],
        num_plain=num_plain,
        identity=identity,
    )


def _sizes(rank: Tensor, parts: int) -> tuple[int, ...]:
    return tuple(torch.bincount(rank, minlength=parts).tolist())
