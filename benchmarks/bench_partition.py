"""Methods of ``gat_ext.distributed.partition`` on a graph: what they cut, and how long they take.

    python benchmarks/run.py partition --graph mesh --nodes 500000

``cut`` is the share of edges between parts, ``halo`` the rows that all parts receive over the
number of nodes, ``edges`` and ``nodes`` the largest part over the mean, ``parts [ms]`` the time in
which ``make_parts`` then builds all parts. Each method is timed once. Before a row is reported, the
parts are checked: every edge is in one of them, and its ends in numbers of the part lead back to
those of the graph.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from cases import Case, make_case
from report import LEFT_OUT, WRONG, Row
from session import Session
from torch import Tensor

from gat_ext.distributed import Part, make_parts, partition

PARTS = (2, 4, 8, 16, 64)
METHODS = ("metis", "kaminpar", "range")
ON_REQUEST = True


def measure(session: Session) -> Iterator[list[Row]]:
    """A row for each method and number of parts."""
    case = make_case(session.options.setting)
    methods: dict[str, dict[str, Any]] = {name: {} for name in METHODS}
    if case.setting.graph == "mesh" and not (case.setting.shuffle or case.setting.order):
        methods["coordinates"] = {"coordinates": mesh_coordinates(case.num_nodes)}
    for name, options in methods.items():
        yield [_row(case, name, parts, options) for parts in PARTS]


def mesh_coordinates(num_nodes: int) -> Tensor:
    """Column and row of each node of the mesh of ``cases.py``."""
    width = max(math.ceil(math.sqrt(num_nodes)), 1)
    node = torch.arange(num_nodes)
    return torch.stack([node % width, node // width], dim=1).float()


def wrong_edges(edge_index: Tensor, parts: Sequence[Part]) -> int:
    """Number of edges that are in no part, or whose numbers there lead to other nodes."""
    found = torch.full_like(edge_index, -1)
    for part in parts:
        src, dst = part.edge_index
        sources = torch.cat([part.src_nodes, part.halo])
        found[:, part.edges] = torch.stack([sources[src], part.dst_nodes[dst]])
    return int((found != edge_index).any(dim=0).sum())


def _row(case: Case, method: str, parts: int, options: dict[str, Any]) -> Row:
    edge_index = case.edge_index.long()
    title = f"partition by {method}: {case.setting.graph}"
    title += f", N = {case.num_nodes:,}, E = {case.num_edges:,}"
    row = Row("partition", method, title, f"{parts} parts", edges=case.num_edges)
    start = time.perf_counter()
    try:
        found = partition(edge_index, parts, method, num_nodes=case.num_nodes, **options)
    except ImportError as error:
        row.status, row.note = LEFT_OUT, str(error)
        return row
    row.samples["total"] = [1e3 * (time.perf_counter() - start)]
    start = time.perf_counter()
    built = make_parts(edge_index, found.assignment, parts)
    building = 1e3 * (time.perf_counter() - start)
    if wrong := wrong_edges(edge_index, built):
        row.status, row.note = WRONG, f"{wrong} edges are not those of the graph"
        return row
    report = found.report
    row.figures = {"cut": report.cut_fraction, "halo": report.halo_fraction}
    row.figures |= {"edges": report.edge_balance, "nodes": report.node_balance}
    row.figures |= {"parts [ms]": building}
    return row
