"""Are results right? A float64 computation on a part of the graph that is closed under what it needs.

The output, and the gradients of what a destination owns, need the in-edges of that destination. The
gradients of what a source owns need its out-edges and all in-edges of the destinations there. Small
graphs are taken whole. Beside that, every entry of every result has to be finite, in memory that
was filled with NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from cuda_cases import Case
from cuda_operators import Tensors, end_of, leaves_of, scale_of, value_of
from dense import SLOPE
from torch import Tensor

from gat_ext.reference import SCORES

# Largest error of a tensor, by norm, and of one of its rows.
BOUNDS = {
    "float64": (1e-9, 1e-8),
    "float32": (1e-4, 1e-3),
    "bfloat16": (1.5e-2, 5e-2),
    "float16": (2e-3, 1e-2),
}
# Peers are judged by norm only. Many sum 16-bit numbers in 16 bits, which goes wrong on long rows
# without their formula being wrong: there, only outputs of short rows count.
PEER_BOUNDS = {"float64": 1e-9, "float32": 3e-3, "bfloat16": 0.3, "float16": 0.3}
_SHORT_ROW = 64
_MOST_ROWS, _CANDIDATES = 256, 64
_MOST_EDGES = 4_000_000


@dataclass
class Part:
    """Destinations with all their in-edges, and the sources all of whose out-edges are among those.

    Attributes:
        rows: destinations, ascending. ``dst`` counts in them.
        sources: ascending.
        src: the source of each edge.
        whole: whether this is the whole graph.
    """

    rows: Tensor
    sources: Tensor
    src: Tensor
    dst: Tensor
    whole: bool

    @property
    def short(self) -> Tensor:
        """Which rows have few edges."""
        return torch.bincount(self.dst, minlength=len(self.rows)) <= _SHORT_ROW


def edge_budget(heads: int, channels: int, free: int) -> int:
    """How many edges float64 can take: about ten arrays of a row of features each."""
    return min(_MOST_EDGES, free // (10 * 8 * heads * channels))


def take_part(case: Case, budget: int, seed: int = 0) -> Part:
    """The whole graph where its edges are within the budget, else a sample with the longest row."""
    everything = case.spec.num_edges <= budget
    device = case.device
    degrees = case.rowptr.diff()
    if everything:
        rows = torch.arange(case.spec.num_dst, device=device)
        sources = torch.arange(case.spec.num_src, device=device)
    else:
        generator = torch.Generator(device).manual_seed(seed)
        sources, reached = _sample_sources(case, degrees, 3 * budget // 4, generator)
        rows = torch.cat([_sample_rows(degrees, budget // 4, generator), reached]).unique()
    positions, dst = _in_edges(case.rowptr, rows)
    return Part(rows, sources, case.edge_index[0, positions], dst, everything)


def _sample_rows(degrees: Tensor, budget: int, generator: torch.Generator) -> Tensor:
    """The longest row if it fits, the first, the last, and some at random."""
    count, device = len(degrees), degrees.device
    picks = torch.randint(count, (_MOST_ROWS,), generator=generator, device=device)
    ends = torch.tensor([0, count - 1], device=device)
    rows = torch.cat([degrees.argmax().reshape(1), ends, picks])
    fits = degrees[rows] <= budget
    rows = rows[fits]
    return rows[degrees[rows].cumsum(0) <= budget]


def _sample_sources(
    case: Case, degrees: Tensor, budget: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sources whose neighbourhoods fit, the cheapest first, and the destinations that they reach."""
    src, dst = case.edge_index
    num_src = case.spec.num_src
    picks = torch.randint(num_src, (_CANDIDATES,), generator=generator, device=case.device)
    most_used = torch.bincount(src, minlength=num_src).argmax().reshape(1)
    candidates = torch.cat([most_used, picks]).unique()
    edges = _edges_of(src, candidates, num_src)
    cost = torch.zeros(num_src, dtype=torch.int64, device=case.device)
    cost.index_add_(0, src[edges], degrees[dst[edges]])
    ordered = candidates[cost[candidates].argsort()]
    sources = ordered[cost[ordered].cumsum(0) <= budget].sort().values
    return sources, dst[_edges_of(src, sources, num_src)].unique()


def _edges_of(src: Tensor, sources: Tensor, num_src: int) -> Tensor:
    flags = torch.zeros(num_src, dtype=torch.bool, device=src.device)
    flags[sources] = True
    return flags[src].nonzero().squeeze(1)


def _in_edges(rowptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the in-edges of the rows, and which row each belongs to."""
    counts = rowptr[rows + 1] - rowptr[rows]
    local = torch.arange(len(rows), device=rows.device).repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    within = torch.arange(len(local), device=rows.device) - before[local]
    return rowptr[rows][local] + within, local


# ---- the truth


def truth(score: str, tensors: Tensors, part: Part) -> Tensors:
    """In float64: "out" of the part's rows, "grad NAME" of its rows or sources, of att if whole."""
    nodes, src = part.src.unique(return_inverse=True)
    index = {"source": nodes, "destination": part.rows, "none": slice(None)}
    leaves = {
        name: tensor.detach()[index[end_of(name)]].double().requires_grad_()
        for name, tensor in leaves_of(tensors).items()
    }
    out = _attention(score, leaves, src, part.dst, len(part.rows))
    grad_out = tensors["grad_out"][part.rows].double()
    grads = torch.autograd.grad(out, list(leaves.values()), grad_out)
    result = {"out": out.detach()}
    for name, grad in zip(leaves, grads, strict=True):
        if end_of(name) == "source":
            whole = grad.new_zeros((len(part.sources), *grad.shape[1:]))
            known = torch.isin(part.sources, nodes)  # a source without edges gets 0
            whole[known] = grad[torch.searchsorted(nodes, part.sources[known])]
            result[f"grad {name}"] = whole
        elif end_of(name) == "destination" or part.whole:
            result[f"grad {name}"] = grad
    return result


def _attention(score: str, t: Tensors, src: Tensor, dst: Tensor, num_rows: int) -> Tensor:
    def at(name: str, index: Tensor) -> Tensor | None:
        return t[name][index] if name in t else None

    scores = SCORES[score](
        at("query", dst), at("key", src), t.get("att"), at("dst_term", dst), at("src_term", src),
        SLOPE, scale_of(score, t),
    )  # fmt: skip
    top = scores.new_full((num_rows, scores.shape[1]), -math.inf)
    top.scatter_reduce_(0, dst.unsqueeze(1).expand_as(scores), scores.detach(), "amax")
    weights = (scores - top[dst]).exp()
    sums = torch.zeros_like(top).index_add(0, dst, weights)
    alpha = (weights / sums[dst]).unsqueeze(-1)
    value = value_of(t)
    return value.new_zeros((num_rows, *value.shape[1:])).index_add(0, dst, alpha * value[src])


# ---- comparison


@dataclass
class Verdict:
    """What a comparison found.

    Attributes:
        errors: by tensor, norm of the difference over the norm of the truth.
        problem: None where all is well, else a sentence.
    """

    errors: dict[str, float]
    problem: str | None

    @property
    def worst(self) -> float:
        return max(self.errors.values(), default=0.0)


def _select(name: str, full: Tensor, part: Part) -> Tensor:
    end = "destination" if name == "out" else end_of(name.removeprefix("grad "))
    if end == "none":
        return full
    return full[part.rows if end == "destination" else part.sources]


def judge(got: Tensors, want: Tensors, part: Part, dtype: str) -> Verdict:
    """gat_ext's results against the truth: all finite, each tensor and each row near it."""
    by_norm, by_row = BOUNDS[dtype]
    errors: dict[str, float] = {}
    for name, full in got.items():
        if not bool(full.isfinite().all()):
            count = int((~full.isfinite()).sum())
            return Verdict({name: math.inf}, f"'{name}' has {count:,} entries that are not finite")
        if name not in want:
            continue
        ours = _select(name, full, part)
        errors[name] = norm_error(ours, want[name])
        row = row_error(ours, want[name], by_own=name == "out")
        if not (errors[name] <= by_norm and row <= by_row):
            return Verdict(
                errors,
                f"'{name}' is off by {errors[name]:.1e} of its norm (bound {by_norm:.0e}), a row "
                f"by {row:.1e} (bound {by_row:.0e})",
            )
    return Verdict(errors, None)


def judge_peer(got: Tensors, want: Tensors, part: Part, dtype: str) -> Verdict:
    """A peer's results, by the looser measure."""
    errors = {
        name: norm_error(_select(name, full, part), want[name])
        for name, full in got.items()
        if name in want
    }
    counted = errors
    if dtype in ("bfloat16", "float16"):
        short = part.short
        out = _select("out", got["out"], part)
        counted = {"out": norm_error(out[short], want["out"][short])} if short.any() else {}
    for name, error in counted.items():
        if not error <= PEER_BOUNDS[dtype]:
            return Verdict(errors, f"'{name}' is off by {error:.1e} of its norm")
    return Verdict(errors, None)


def norm_error(got: Tensor, want: Tensor) -> float:
    """``||got - want|| / ||want||``; infinite where it is not a number."""
    distance = torch.linalg.vector_norm(got.double() - want).item()
    scale = torch.linalg.vector_norm(want).item()
    error = distance / scale if scale > 0 else distance
    return error if math.isfinite(error) else math.inf


def row_error(got: Tensor, want: Tensor, *, by_own: bool) -> float:
    """The largest error of a row over its norm, or over the usual norm where that is larger.

    A gradient may cancel to nothing in a row, an average does not: it is judged ``by_own`` norm.
    """
    if len(want) == 0:
        return 0.0
    distance = (got.double() - want).flatten(1).norm(dim=1)
    scale = want.flatten(1).norm(dim=1)
    usual = scale.square().mean().sqrt()
    floor = usual * 1e-6 if by_own else usual
    error = (distance / torch.maximum(scale, floor).clamp(min=1e-300)).max().item()
    return error if math.isfinite(error) else math.inf
