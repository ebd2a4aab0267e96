"""How many bytes the operators must move: the model that the shares of bandwidth are measured by.

``gathered``: what passes between memory and the multiprocessors if no row that an edge gathers is
still in a cache, with every per-node tensor read or written once. ``unique``: every tensor once,
however many edges use a row of it; no kernel moves less. Real traffic lies between.

With ``R = H·F·itemsize`` (a row of features), ``T = H·itemsize`` (a row of terms), ``S = 4·H`` or
``8·H`` (a row of statistics: lse, delta) and ``I`` bytes an index:

forward, for each edge: I, the value row R, for "dot" the key row R, for the scores with terms the
source's T. For each destination: row pointer 8, out R, lse S, the query R where there is one, the
destination's T where there is one. The value is the key for "additive_v2" and "cosine".

backward of "additive": for each destination, delta (reads R of the gradient and R of the output,
writes S); a pass over the sources (for each edge two I, the gradient R, T and 2·S of the
destination, and S written; for each source 8, R and T read and written); a pass that sums what was
written (S for each edge; 8 and T for each destination).

backward of the others: delta as above; a pass over the destinations that gathers what the forward
gathers (for each destination 8, the query R and its gradient R, the gradient R, lse and delta 2·S,
T read and written where there is one); a pass over the sources (for each edge I, the gradient R,
the query R, 2·S and, where there are terms, T; for each source 8, and every row of the source read
and written).

Left out: att (a few hundred bytes), and copies that an implementation keeps for the backward.
"""

from __future__ import annotations

from dataclasses import dataclass

FORWARD, BOTH = "forward", "forward+backward"
MODES = (FORWARD, BOTH)


@dataclass(frozen=True)
class Reads:
    """What a score reads beside the value.

    Attributes:
        rows: feature rows gathered from a source: value, and key where it is another tensor.
        query: 1 where the destination has a row of features.
        terms: 1 where both ends have a term a head.
    """

    rows: int
    query: int
    terms: int


READS = {
    "additive": Reads(rows=1, query=0, terms=1),
    "additive_v2": Reads(rows=1, query=1, terms=0),
    "dot": Reads(rows=2, query=1, terms=0),
    "cosine": Reads(rows=1, query=1, terms=1),
}


@dataclass(frozen=True)
class Sizes:
    """Of one case. ``sources`` counts those that have an edge."""

    edges: int
    sources: int
    destinations: int
    heads: int
    channels: int
    itemsize: int
    index_bytes: int = 4

    @property
    def row(self) -> int:
        return self.heads * self.channels * self.itemsize

    @property
    def term(self) -> int:
        return self.heads * self.itemsize

    @property
    def statistic(self) -> int:
        return self.heads * max(self.itemsize, 4)


@dataclass(frozen=True)
class Traffic:
    """Bytes of a mode, by both counts."""

    gathered: int
    unique: int

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.gathered + other.gathered, self.unique + other.unique)


def _pass(edges: int, streamed: int, gathered: int, nodes: int, once: int) -> Traffic:
    """A pass: bytes streamed and gathered for each edge, how many nodes those come from, the rest."""
    rest = edges * streamed + once
    return Traffic(rest + edges * gathered, rest + min(edges, nodes) * gathered)


def forward(score: str, s: Sizes) -> Traffic:
    reads = READS[score]
    per_destination = 8 + (1 + reads.query) * s.row + s.statistic + reads.terms * s.term
    return _pass(
        s.edges,
        streamed=s.index_bytes,
        gathered=reads.rows * s.row + reads.terms * s.term,
        nodes=s.sources,
        once=s.destinations * per_destination,
    )


def backward(score: str, s: Sizes) -> Traffic:
    delta = s.destinations * (2 * s.row + s.statistic)
    parts = _backward_additive(s) if score == "additive" else _backward_others(READS[score], s)
    return parts + Traffic(delta, delta)


def _backward_additive(s: Sizes) -> Traffic:
    by_source = _pass(
        s.edges,
        streamed=2 * s.index_bytes + s.statistic,
        gathered=s.row + s.term + 2 * s.statistic,
        nodes=s.destinations,
        once=s.sources * (8 + 2 * s.row + 2 * s.term),
    )
    sums = s.edges * s.statistic + s.destinations * (8 + s.term)
    return by_source + Traffic(sums, sums)


def _backward_others(reads: Reads, s: Sizes) -> Traffic:
    per_destination = 8 + 3 * s.row + 2 * s.statistic + 2 * reads.terms * s.term
    by_destination = _pass(
        s.edges,
        streamed=s.index_bytes,
        gathered=reads.rows * s.row + reads.terms * s.term,
        nodes=s.sources,
        once=s.destinations * per_destination,
    )
    by_source = _pass(
        s.edges,
        streamed=s.index_bytes,
        gathered=2 * s.row + 2 * s.statistic + reads.terms * s.term,
        nodes=s.destinations,
        once=s.sources * (8 + 2 * reads.rows * s.row + 2 * reads.terms * s.term),
    )
    return by_destination + by_source


def traffic(score: str, mode: str, sizes: Sizes) -> Traffic:
    """Bytes of a mode of a score."""
    only_forward = forward(score, sizes)
    return only_forward if mode == FORWARD else only_forward + backward(score, sizes)
