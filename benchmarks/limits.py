"""The limits of the machine, measured together with the peers, and the bytes that a pass moves.

On the CPU the limit of the operators is the time of gathering the same rows over the same edges; on
a GPU it is the bandwidth of a large copy. Both are measured on both devices, with torch only.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from cases import Case
from timing import Program, elapsed, sample
from torch import Tensor

_COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}


@functools.cache
def _copy_buffers(device: str) -> tuple[Tensor, Tensor]:
    count = _COPY_BYTES[device] // 4
    return torch.ones(count, device=device), torch.zeros(count, device=device)


class Limits:
    """Lower bounds of any implementation on this machine, for one case.

    Args:
        projections: number of dense products of width ``heads * channels`` in an item.
    """

    def __init__(self, case: Case, projections: int = 0) -> None:
        # embedding_bag is fast only for 32 and 16 bits; so use float32 with as many bytes.
        wide = case.setting.dtype == "float64"
        width, device = case.setting.width * (2 if wide else 1), case.edge_index.device
        dtype = torch.float32 if wide else case.dtype
        self._rows = torch.randn(case.num_nodes, width, device=device).to(dtype)
        src, dst = case.edge_index
        counts = torch.bincount(dst, minlength=case.num_nodes)
        self._rowptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(src.dtype)
        self._col = src.clone()
        self._projection: tuple[Program, Tensor] | None = None
        if projections:
            x = case.tensors["x"].detach().clone().requires_grad_()
            weight = torch.randn(case.setting.width, x.shape[1], device=device).to(x.dtype)
            leaves = {("x",): x, ("weight",): weight.requires_grad_()}
            grad_out = torch.randn(case.num_nodes, case.setting.width, device=device).to(x.dtype)
            self._projection = Program(F.linear, (x, weight), leaves), grad_out

    def sample(self) -> dict[str, float]:
        """GB/s of a large copy (read plus written), and milliseconds of the others.

        "gather" reads and sums a row for each edge; "projection forward" and "projection backward"
        are one dense product.
        """
        device = self._rows.device
        source, target = _copy_buffers(device.type)
        copied = elapsed(lambda: target.copy_(source), device)
        gathered = elapsed(self._gather, device)
        found = {"copy": 2 * source.nbytes / copied / 1e6, "gather": gathered}
        if self._projection:
            times = sample(*self._projection, 0.0)
            found |= {f"projection {part}": times[part] for part in ("forward", "backward")}
        return found

    def _gather(self) -> Tensor:
        return F.embedding_bag(
            self._col, self._rows, self._rowptr, mode="sum", include_last_offset=True
        )


# ---- bytes


@dataclass(frozen=True)
class Sizes:
    """Counts of a case, and bytes of a row of features, of terms and of statistics."""

    edges: int
    nodes: int
    row: int
    term: int
    statistic: int
    index: int = 4

    @staticmethod
    def of(case: Case) -> Sizes:
        heads, item = case.setting.heads, case.dtype.itemsize
        row = case.setting.width * item
        return Sizes(case.num_edges, case.num_nodes, row, heads * item, heads * max(item, 4))


def bytes_moved(score: str, gathers: int, s: Sizes) -> dict[str, int]:
    """Bytes of the forward pass, and of forward and backward ("total").

    Counts the index and every gathered row once per edge, and every other tensor once; rows that
    are still in a cache are counted, too. The inputs of the score come from the extension. A row of
    statistics is a maximum and a sum per head, or a delta.

    Args:
        score: a name in ``gat_ext.ops.scores.TRAITS``.
        gathers: rows that an edge gathers from its source: the value, and the key if it is another
            tensor.
        s: counts and bytes of the case.
    """
    from gat_ext.ops.scores import TRAITS

    reads = TRAITS[score].required
    query, terms = "query" in reads, ("dst_term" in reads) * s.term
    gathered = s.index + gathers * s.row + terms
    once = 8 + (1 + query) * s.row + 2 * s.statistic + terms
    forward = s.edges * gathered + s.nodes * once
    delta = s.nodes * (2 * s.row + s.statistic)
    if query:
        # The pass by destination gathers the rows of the forward pass; then the pass by source.
        by_dst = s.edges * gathered + s.nodes * (8 + 3 * s.row + 3 * s.statistic + 2 * terms)
        by_src = s.edges * (s.index + 2 * s.row + 3 * s.statistic + terms)
        by_src += s.nodes * (8 + 2 * gathers * s.row + 2 * terms)
    else:
        # The pass by source writes a gradient per edge and head; then their sums.
        by_src = s.edges * (2 * s.index + s.row + terms + 4 * s.statistic)
        by_src += s.nodes * (8 + 2 * s.row + 2 * terms)
        by_dst = s.edges * s.statistic + s.nodes * (8 + terms)
    return {"forward": forward, "total": forward + delta + by_dst + by_src}
