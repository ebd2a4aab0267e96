"""The whole graph with the part of each node: checks, numbers within a part, rows to exchange."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gat_ext.graph import Graph
from gat_ext.graph.csr import check_edge_index, node_counts, scan
from gat_ext.graph.formats.edge_index import plain_tensor

Assignment = Tensor | Sequence[Tensor]

_LARGEST_KEY = 2**63 - 1


class Owners(NamedTuple):
    """The nodes of each part.

    Attributes:
        part: int64 [N], the part of each node.
        order: int64 [N], the nodes by part, then by number.
        start: int64 [parts + 1], where the nodes of each part begin in ``order``.
        local: int64 [N], the position of each node among those of its part.
    """

    part: Tensor
    order: Tensor
    start: Tensor
    local: Tensor

    def nodes(self, rank: int) -> Tensor:
        """int64, the nodes of a part, ascending."""
        return self.order[int(self.start[rank]) : int(self.start[rank + 1])].clone()


class HaloRows(NamedTuple):
    """Rows of sources that parts need from other parts, by receiver, owner and node.

    Attributes:
        receiver: int64 [R], the part that needs the row.
        owner: int64 [R], the part that owns it.
        node: int64 [R], the number of the source.
    """

    receiver: Tensor
    owner: Tensor
    node: Tensor


@dataclass(frozen=True, eq=False)
class Whole:
    """A checked graph and the owners of its nodes, on the CPU.

    Attributes:
        edge_index: int64 [2, E].
        src: owners of the sources.
        dst: owners of the destinations; the same object if sources are the destinations.
        parts: number of parts.
    """

    edge_index: Tensor
    src: Owners
    dst: Owners
    parts: int

    @property
    def num_edges(self) -> int:
        """E."""
        return self.edge_index.shape[1]

    @property
    def num_src(self) -> int:
        """Number of sources."""
        return self.src.part.shape[0]

    @property
    def num_dst(self) -> int:
        """Number of destinations."""
        return self.dst.part.shape[0]

    def identity(self) -> str:
        """A hash of the sizes, of ``parts`` and of the part of each node."""
        both = self.src is self.dst
        header = f"{self.num_src} {self.num_dst} {self.num_edges} {self.parts} {both}"
        digest = hashlib.blake2b(header.encode(), digest_size=16)
        for owners in (self.src,) if both else (self.src, self.dst):
            digest.update(owners.part.numpy().astype("<i8", copy=False).data)
        return digest.hexdigest()

    def plain_positions(self) -> tuple[Tensor | None, int]:
        """Position of each edge among those that are not self-loops, and the number of these.

        The positions int64 [E] are None without self-loops.
        """
        plain = self.edge_index[0] != self.edge_index[1]
        count = int(plain.sum())
        if count == self.num_edges:
            return None, count
        return plain.cumsum(0).sub_(1), count

    def halo_rows(self, rank: int | None = None) -> HaloRows:
        """The rows that parts need from others; with ``rank``, those it receives or sends."""
        owner, receiver = self.src.part[self.edge_index[0]], self.dst.part[self.edge_index[1]]
        wanted = owner != receiver
        if rank is not None:
            wanted &= (owner == rank) | (receiver == rank)
        cut = wanted.nonzero().flatten()
        width = max(self.num_src, 1)
        key = (receiver[cut] * self.parts + owner[cut]) * width + self.edge_index[0, cut]
        key = torch.unique(key)
        pair = key // width
        return HaloRows(pair // self.parts, pair % self.parts, key % width)


def check_whole(graph: Graph | Tensor, assignment: Assignment, parts: int) -> Whole:
    """Checks a graph and the part of each node.

    Raises:
        TypeError: the edges, the assignment or ``parts`` are not of the documented types.
        ValueError: a shape or the number of parts is invalid.
        IndexError: an edge or a part is out of range.
    """
    check_parts(parts)
    given = graph.edge_index if isinstance(graph, Graph) else graph
    check_edge_index(given)
    edge_index = plain_tensor(given).detach().cpu()
    if isinstance(assignment, Tensor):
        src = dst = _checked_owners("assignment", assignment, parts)
    elif isinstance(assignment, Sequence) and len(assignment) == 2:
        src = _checked_owners("assignment[0]", assignment[0], parts)
        dst = _checked_owners("assignment[1]", assignment[1], parts)
    else:
        raise TypeError(
            f"assignment is a {type(assignment).__name__}; expected an int64 tensor [N], the part "
            "of each node, or a pair of them for sources and destinations: convert it with "
            "torch.as_tensor"
        )
    num_src, num_dst = src.shape[0], dst.shape[0]
    if isinstance(graph, Graph) and (graph.num_src, graph.num_dst) != (num_src, num_dst):
        raise ValueError(
            f"assignment has {num_src} sources and {num_dst} destinations, the graph "
            f"{graph.num_src} and {graph.num_dst}; expected a part for each node of the graph"
        )
    if src is dst:
        node_counts(edge_index, scan(edge_index)[0], num_src, None, None)
    else:
        node_counts(edge_index, scan(edge_index)[0], None, num_src, num_dst)
    if parts * parts * max(num_src, 1) > _LARGEST_KEY:
        raise ValueError(
            f"parts is {parts} for {num_src} sources; expected parts² × sources below 2⁶³: use "
            "fewer parts"
        )
    owners = _owners(src, parts)
    return Whole(
        edge_index.long(), owners, owners if src is dst else _owners(dst, parts), int(parts)
    )


def check_parts(parts: int) -> None:
    """Raises unless ``parts`` is an integer of at least 1."""
    if isinstance(parts, bool) or not isinstance(parts, (int, np.integer)):
        raise TypeError(f"parts is a {type(parts).__name__}; expected an int of at least 1")
    if parts < 1:
        raise ValueError(f"parts is {parts}; expected at least 1")


def check_rank(rank: int, parts: int) -> None:
    """Raises unless ``rank`` is an integer of at least 0 and below ``parts``."""
    if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)):
        raise TypeError(f"rank is a {type(rank).__name__}; expected an int from 0 to {parts - 1}")
    if not 0 <= rank < parts:
        raise ValueError(f"rank is {rank}; expected 0 to {parts - 1}, because parts is {parts}")


def stable_order(keys: Tensor, count: int) -> Tensor:
    """int64, the positions of ``keys`` (from 0, below ``count``) in stable ascending order."""
    # NumPy sorts 16 bits by radix, in a time that is linear.
    narrow = keys.numpy().astype(np.uint16 if count <= 2**16 else np.int64)
    return torch.from_numpy(narrow.argsort(kind="stable"))


def starts(counts: Tensor) -> Tensor:
    """int64 [K + 1], where groups of these sizes begin."""
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


def _checked_owners(name: str, part: Tensor, parts: int) -> Tensor:
    if not isinstance(part, Tensor):
        raise TypeError(
            f"{name} is a {type(part).__name__}; expected an int64 tensor [N], the part of each "
            "node: convert it with torch.as_tensor"
        )
    if part.dtype not in (torch.int32, torch.int64):
        raise TypeError(
            f"{name} has dtype {part.dtype}; expected torch.int64, the part of each node: convert "
            "whole numbers with .long()"
        )
    if part.dim() != 1:
        raise ValueError(f"{name} has shape {list(part.shape)}; expected [N], a part of each node")
    part = part.detach().cpu().long().contiguous()
    wrong = ((part < 0) | (part >= parts)).nonzero().flatten()
    if wrong.numel():
        node = int(wrong[0])
        raise IndexError(
            f"{name}[{node}] is {int(part[node])}; expected parts from 0 to {parts - 1}, because "
            f"parts is {parts}"
        )
    return part


def _owners(part: Tensor, parts: int) -> Owners:
    order = stable_order(part, parts)
    start = starts(torch.bincount(part, minlength=parts))
    local = torch.empty_like(part)
    local[order] = torch.arange(part.shape[0]) - start[part[order]]
    return Owners(part, order, start, local)
