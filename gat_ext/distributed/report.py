"""PartitionReport: what a partition costs each part, as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gat_ext.distributed.cut import Whole


@dataclass(frozen=True)
class PartitionReport:
    """The sizes of the parts of a partition; printed, a table.

    Attributes:
        nodes: of each part; destinations and sources if these are two sets.
        edges: of each part, those into its destinations.
        halo: of each part, the rows that it receives.
        sent: of each part, the rows that it sends; a row counts once for each receiver.
        peers: of each part, the number of parts that it exchanges rows with.
        num_src: number of sources of the graph.
        cut_edges: number of edges between nodes of different parts.

    Example:
        >>> from gat_ext.distributed import partition
        >>> ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        >>> print(partition(ring, 2, "range").report)
        part  nodes  edges  halo  sent  peers
           0      2      2     1     1      1
           1      2      2     1     1      1
        cut edges 2 of 4 (50.0 %), halo 2 rows (50.0 % of the sources),
        largest part over the mean: 1.00 of edges, 1.00 of nodes
    """

    nodes: tuple[int, ...]
    edges: tuple[int, ...]
    halo: tuple[int, ...]
    sent: tuple[int, ...]
    peers: tuple[int, ...]
    num_src: int
    cut_edges: int

    @property
    def parts(self) -> int:
        """Number of parts."""
        return len(self.nodes)

    @property
    def cut_fraction(self) -> float:
        """Edges between parts over all edges; 0 without edges."""
        return self.cut_edges / max(sum(self.edges), 1)

    @property
    def halo_fraction(self) -> float:
        """Rows of all halos over the number of sources; it may exceed 1."""
        return sum(self.halo) / max(self.num_src, 1)

    @property
    def edge_balance(self) -> float:
        """The largest number of edges of a part over the mean; 1 is ideal."""
        return _balance(self.edges)

    @property
    def node_balance(self) -> float:
        """The largest number of nodes of a part over the mean; 1 is ideal."""
        return _balance(self.nodes)

    def to_dict(self) -> dict[str, Any]:
        """The fields, of which JSON makes what :meth:`from_dict` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> PartitionReport:
        """The report of these fields.

        Raises:
            TypeError: a field is missing, or is none of a report.
        """
        given: dict[str, Any] = {}
        for name, value in fields.items():
            given[name] = tuple(value) if isinstance(value, list) else value
        return cls(**given)

    def __str__(self) -> str:
        """A row for each part, then the figures of all."""
        names = ("part", "nodes", "edges", "halo", "sent", "peers")
        columns = (range(self.parts), self.nodes, self.edges, self.halo, self.sent, self.peers)
        rows = [names, *(tuple(f"{v:,}" for v in row) for row in zip(*columns, strict=True))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True))
            for row in rows
        ]
        lines.append(
            f"cut edges {self.cut_edges:,} of {sum(self.edges):,} ({self.cut_fraction:.1%}), halo "
            f"{sum(self.halo):,} rows ({self.halo_fraction:.1%} of the sources),".replace("%", " %")
        )
        lines.append(
            f"largest part over the mean: {self.edge_balance:.2f} of edges, "
            f"{self.node_balance:.2f} of nodes"
        )
        return "\n".join(lines)


def report_of(whole: Whole) -> PartitionReport:
    """The report of a checked graph with the part of each node."""
    parts, rows = whole.parts, whole.halo_rows()
    owner = whole.src.part[whole.edge_index[0]]
    receiver = whole.dst.part[whole.edge_index[1]]
    nodes = torch.bincount(whole.dst.part, minlength=parts)
    if whole.src is not whole.dst:
        nodes += torch.bincount(whole.src.part, minlength=parts)
    pairs = [rows.receiver * parts + rows.owner, rows.owner * parts + rows.receiver]
    peers = torch.unique(torch.cat(pairs)) // parts
    return PartitionReport(
        nodes=tuple(nodes.tolist()),
        edges=_counts(receiver, parts),
        halo=_counts(rows.receiver, parts),
        sent=_counts(rows.owner, parts),
        peers=_counts(peers, parts),
        num_src=whole.num_src,
        cut_edges=int((owner != receiver).sum()),
    )


def _counts(ranks: Tensor, parts: int) -> tuple[int, ...]:
    return tuple(torch.bincount(ranks, minlength=parts).tolist())


def _balance(sizes: Sequence[int]) -> float:
    return max(sizes) * len(sizes) / sum(sizes) if sum(sizes) else 1.0
