"""partition: the part of each node of a graph, so that few rows are exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gat_ext.distributed.cut import Assignment, Whole, check_parts, check_whole
from gat_ext.distributed.methods import METHODS, READ_EDGES, Problem, capped
from gat_ext.distributed.part import Part, make_part, make_parts
from gat_ext.distributed.report import PartitionReport, report_of
from gat_ext.graph import Graph

GIVEN = "given"


@dataclass(frozen=True, eq=False, repr=False)
class Partition:
    """The part of each node of a graph.

    Attributes:
        assignment: int64 [N]; a pair ([N_src], [N_dst]) if sources and destinations are two sets.
        parts: number of parts; some may have no nodes.
        method: how it was chosen.
        report: the sizes of the parts, a table if printed.

    Example:
        >>> from gat_ext.distributed import partition
        >>> found = partition(torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), 2, "range")
        >>> found, found.assignment.tolist(), found.report.cut_edges
        (Partition(parts=2, method='range', nodes=4), [0, 0, 1, 1], 0)
    """

    assignment: Tensor | tuple[Tensor, Tensor]
    parts: int
    method: str
    report: PartitionReport

    def part(self, graph: Graph | Tensor, rank: int) -> Part:
        """The part ``rank`` of the graph; as :func:`make_part`."""
        return make_part(graph, self.assignment, rank, self.parts)

    def parts_of(self, graph: Graph | Tensor) -> list[Part]:
        """All parts of the graph; as :func:`make_parts`."""
        return make_parts(graph, self.assignment, self.parts)

    def __repr__(self) -> str:
        """The counts and the method."""
        both = self.assignment if isinstance(self.assignment, tuple) else (self.assignment,)
        nodes = sum(part.shape[0] for part in both)
        return f"Partition(parts={self.parts}, method={self.method!r}, nodes={nodes})"


def partition(
    graph: Graph | Tensor,
    parts: int,
    method: str = "metis",
    *,
    coordinates: Tensor | Sequence[Tensor] | None = None,
    assignment: Assignment | None = None,
    num_nodes: int | None = None,
    seed: int = 0,
) -> Partition:
    """Chooses the part of each node.

    The work of a part is that of its edges, so a node weighs 1 + its number of incoming edges, and
    parts get about equal weights; a node that is heavier than a part counts as a full one. A method
    that reads edges cuts few of them, each pair of nodes weighing the number of edges between them,
    in both directions.

    ===============  ==============================================================================
    ``metis``        METIS (Karypis and Kumar 1998), by pymetis
    ``kaminpar``     KaMinPar (Gottesbüren et al. 2021), by kaminpar: faster for many parts
    ``range``        contiguous ranges of node numbers, for graphs that are numbered by locality
    ``coordinates``  recursive bisection of ``coordinates`` (Berger and Bokhari 1987), for meshes
    ``given``        ``assignment``
    ===============  ==============================================================================

    Args:
        graph: a Graph, or an edge_index [2, E], int32 or int64. The sources and destinations of a
            Graph with ``num_src != num_dst`` are two sets, each with parts of its own.
        parts: number of parts. If there are not more nodes than parts, METIS and KaMinPar give
            each node a part of its own.
        method: one of the above.
        coordinates: [N, d], any floating dtype; sources, then destinations, if these are two sets,
            or a pair.
        assignment: as for :func:`make_part`.
        num_nodes: number of nodes of an edge_index; None: the largest number plus one.
        seed: of the random numbers of METIS and KaMinPar, from 0 to 2³¹ - 2; the result is
            determined by it and the arguments.

    Raises:
        TypeError: an argument is not of these types.
        ValueError: a shape, a number or the method is invalid, or an argument is missing or not
            read by the method.
        IndexError: an edge, or a part in ``assignment``, is out of range.
        ImportError: the library of the method is not installed.

    Example:
        >>> from gat_ext.distributed import partition
        >>> line = torch.stack([torch.arange(9), torch.arange(1, 10)])
        >>> partition(line, 2, "coordinates", coordinates=torch.rand(10, 1)).report.parts
        2
    """
    check_parts(parts)
    _check_arguments(method, coordinates, assignment, seed)
    if method == GIVEN:
        assert assignment is not None
        if num_nodes is not None and isinstance(graph, Tensor):
            graph = Graph(graph, num_nodes)
        return _result(check_whole(graph, assignment, parts), method)
    if isinstance(graph, Graph) and num_nodes is not None and num_nodes != graph.num_nodes:
        raise ValueError(
            f"num_nodes is {num_nodes} for a Graph of {graph.num_nodes} nodes; expected the same: "
            "leave it out"
        )
    if not isinstance(graph, Graph):
        graph = Graph(graph, num_nodes)
    problem = _problem(graph, parts, coordinates)
    if problem.num_nodes == 0 or parts == 1:
        found = torch.zeros(problem.num_nodes, dtype=torch.int64)
    elif method in READ_EDGES and parts >= problem.num_nodes:
        found = torch.arange(problem.num_nodes)
    elif method in READ_EDGES and not bool((problem.edge_index[0] != problem.edge_index[1]).any()):
        found = METHODS["range"](problem, parts, seed)  # nothing to cut
    else:
        found = METHODS[method](problem, int(parts), int(seed))
    sets = found.split(problem.sets)
    return _result(check_whole(graph, sets[0] if len(sets) == 1 else sets, parts), method)


def _result(whole: Whole, method: str) -> Partition:
    both = (whole.src.part, whole.dst.part)
    assignment = both[0] if whole.src is whole.dst else both
    return Partition(assignment, whole.parts, method, report_of(whole))


def _problem(graph: Graph, parts: int, coordinates: Tensor | Sequence[Tensor] | None) -> Problem:
    graph = graph.to("cpu")
    edge_index, in_degrees = graph.edge_index, graph.in_degrees()
    sets: tuple[int, ...] = (graph.num_dst,)
    if graph.num_src != graph.num_dst:
        sets = (graph.num_src, graph.num_dst)
        edge_index[1] += graph.num_src
        in_degrees = torch.cat([in_degrees.new_zeros(graph.num_src), in_degrees])
    placed = None if coordinates is None else _checked_coordinates(coordinates, sum(sets))
    return Problem(edge_index, capped(in_degrees + 1, parts), sets, placed)


# ---- checks


def _check_arguments(method: str, coordinates: Any, assignment: Any, seed: int) -> None:
    names = (*METHODS, GIVEN)
    if method not in names:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(map(repr, names))}")
    for name, value, reader in (
        ("coordinates", coordinates, "coordinates"),
        ("assignment", assignment, GIVEN),
    ):
        if (method == reader) != (value is not None):
            done = "is missing" if value is None else "is given"
            raise ValueError(
                f"method is {method!r} and {name} {done}; expected {name} with "
                f"method={reader!r} and no other"
            )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed is a {type(seed).__name__}; expected an int")
    if not 0 <= seed < 2**31 - 1:
        raise ValueError(f"seed is {seed}; expected 0 to 2³¹ - 2")


def _checked_coordinates(given: Tensor | Sequence[Tensor], num_nodes: int) -> Tensor:
    pieces = [given] if isinstance(given, Tensor) else given
    for piece in pieces:
        if not isinstance(piece, Tensor) or not piece.is_floating_point():
            kind = piece.dtype if isinstance(piece, Tensor) else type(piece).__name__
            raise TypeError(
                f"coordinates is a {kind}; expected a floating-point tensor [N, d], or a pair"
            )
        if piece.dim() != 2 or piece.shape[1] == 0 or piece.shape[1] != pieces[0].shape[1]:
            raise ValueError(
                f"coordinates has shape {list(piece.shape)}; expected [N, d] with d of at least 1: "
                "pass coordinates.unsqueeze(1) for one dimension"
            )
    placed = torch.cat([piece.detach().cpu().double() for piece in pieces])
    if placed.shape[0] != num_nodes:
        raise ValueError(
            f"coordinates has {placed.shape[0]} rows for {num_nodes} nodes; expected a row for "
            "each: pass num_nodes if the last nodes have no edges"
        )
    if not bool(placed.isfinite().all()):
        row = int((~placed.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(f"coordinates[{row}] is not finite; expected finite numbers")
    return placed
