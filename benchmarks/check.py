"""Compares outputs and all gradients with another library's in float64, before timing.

A peer runs a small graph of the same kind in float64, where formulas agree to 1e-9. Then its
results on the timed case, in the case's dtype, are compared with float64 on a part of that graph,
or on all of a small graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from cases import DATASETS, Case, Setting
from peers import Item
from torch import Tensor

# Norm of the difference over the norm of the tensor. Over all entries, because a score that
# rounding moves across the kink of leaky_relu legitimately changes the gradients of its two rows.
_TOLERANCE = {"float64": 1e-9, "float32": 3e-4}
# gat_ext sums 16-bit numbers in float32. Libraries that sum in 16 bits lose digits on long rows,
# which is visible in the error and is not a wrong formula.
_HALF, _HALF_SUMS = 0.1, 0.5

_SMALL_NODES = 200
_PART_EDGES, _LONGEST_ROW, _CANDIDATES = 50_000, 200_000, 32

Groups = list[list[str]]


class WrongResultError(Exception):
    """A result differs from the reference; the message is one sentence."""


def small_setting(setting: Setting) -> Setting | None:
    """The setting in float64 with a small graph of the same kind; None for data sets."""
    if setting.graph in DATASETS:
        return None
    graph = setting.graph if not setting.graph.endswith("-size") else "power-law"
    nodes = min(_SMALL_NODES, setting.nodes)
    return replace(setting, graph=graph, nodes=nodes, degree=min(setting.degree, 10),
                   dtype="float64", order="")  # fmt: skip


@dataclass
class Part:
    """A part of a case, in float64, and the rows whose results equal those of the whole case.

    Attributes:
        case: the nodes and edges on which the checked results depend.
        here: checked rows of the part, by kind of tensor: "out", "node", "edge".
        there: the same rows in the whole case.
        whole: True if the part is the whole case.
    """

    case: Case
    here: dict[str, Tensor]
    there: dict[str, Tensor]
    whole: bool


def take_part(case: Case, item: Item) -> Part | None:
    """The whole case if it is small, else a part; None if it is large and the item is not local.

    The part has the outputs of the longest row and of random nodes, and the gradients of these
    nodes, which need all in-edges of the nodes and of their destinations.
    """
    if case.num_edges <= _PART_EDGES:
        return Part(case.to_dtype("float64"), {}, {}, whole=True)
    if not item.local:
        return None
    src, dst = case.edge_index.long()
    device, nodes = src.device, case.num_nodes
    degrees = torch.bincount(dst, minlength=nodes)
    generator = torch.Generator(device).manual_seed(0)
    picks = torch.randint(nodes, (_CANDIDATES,), generator=generator, device=device).unique()
    leaving = torch.isin(src, picks)
    cost = degrees.new_zeros(nodes).index_add_(0, src[leaving], degrees[dst[leaving]])[picks]
    order = cost.argsort()
    fits = cost[order].cumsum(0) <= _PART_EDGES
    fits[0] = True
    picks = picks[order[fits]].sort().values
    reached = dst[torch.isin(src, picks)]
    longest = degrees.argmax().reshape(1)
    longest = longest[degrees[longest] <= _LONGEST_ROW]
    rows = torch.cat([picks, reached, longest]).unique()
    edges = torch.isin(dst, rows).nonzero().squeeze(1)
    members = torch.cat([src[edges], rows]).unique()

    def restricted(name: str, tensor: Tensor) -> Tensor:
        kind = item.rows.get("out" if name == "grad_out" else name)
        index = {"node": members, "edge": edges}.get(kind or "")
        return tensor if index is None else tensor[index]

    index = torch.searchsorted(members, torch.stack([src[edges], dst[edges]]))
    part = replace(
        case,
        num_nodes=len(members),
        edge_index=index,
        tensors={name: restricted(name, t) for name, t in case.tensors.items()},
    )
    here = {"node": torch.searchsorted(members, picks)}
    there = {"node": picks}
    at_picks = torch.isin(dst[edges], picks).nonzero().squeeze(1)
    here["edge"], there["edge"] = at_picks, edges[at_picks]
    if item.rows["out"] == "node":
        checked = torch.cat([picks, longest])
        here["out"], there["out"] = torch.searchsorted(members, checked), checked
    else:
        here["out"], there["out"] = here["edge"], there["edge"]
    return Part(part.to_dtype("float64"), here, there, whole=False)


def restrict(tensors: Mapping[str, Tensor], own: Groups, every: Iterable[str]) -> dict[str, Tensor]:
    """The tensors, restricted to weights that a peer can express.

    Names of one group get the value of the first, because the peer has one weight for all; names
    that it lacks get 0.
    """
    result = dict(tensors)
    for group in own:
        result |= {name: tensors[group[0]] for name in group}
    known = {name for group in own for name in group}
    return result | {name: torch.zeros_like(tensors[name]) for name in every if name not in known}


def difference(got: Tensor, want: Tensor) -> float:
    """``||got - want|| / ||want||``; infinite if shapes differ or an entry is not finite."""
    if got.shape != want.shape:
        return math.inf
    distance = torch.linalg.vector_norm(got.double() - want.double()).item()
    scale = torch.linalg.vector_norm(want.double()).item()
    if not math.isfinite(distance):
        return math.inf
    return distance / scale if scale > 0 else distance


def compare(
    got: Mapping[str, Tensor], want: Mapping[str, Tensor], part: Part, item: Item
) -> dict[str, float]:
    """The difference of each result of a case from a part's; infinite if not finite."""
    errors = {}
    for name, full in got.items():
        members = name.removeprefix("grad ").split("+")
        if not bool(full.isfinite().all()):
            errors[name] = math.inf
            continue
        if name == "out":
            truth, kind = want["out"], "out"
        else:
            truth = torch.stack([want[f"grad {member}"] for member in members]).sum(0)
            kind = item.rows.get(members[0], "weight")
        if part.whole:
            errors[name] = difference(full, truth)
        elif kind in part.here:  # a weight's gradient depends on the whole graph
            errors[name] = difference(full[part.there[kind]], truth[part.here[kind]])
    return errors


def tolerance(dtype: str, peer: str) -> float:
    """The largest difference that rounding of a peer explains."""
    half = _HALF if peer.startswith("gat_ext") else _HALF_SUMS
    return _TOLERANCE.get(dtype, half)


def refuse_unequal(errors: Mapping[str, float], dtype: str, peer: str, against: str) -> None:
    """Raises WrongResultError for the worst tensor unless all are within tolerance."""
    name, worst = max(errors.items(), key=lambda entry: entry[1])
    limit = tolerance(dtype, peer)
    if not worst <= limit:
        raise WrongResultError(
            f"'{name}' differs from {against} in float64 by {worst:.1e} of its norm; "
            f"the tolerance in {dtype} is {limit:.0e}"
        )
