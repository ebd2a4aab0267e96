"""The scores as torch composes them, where the fused operator cannot go: differentiable any number of times.

The formulas of csrc/core/scores, over gathered rows. ``gat_ext.reference`` has its own: it is what these are tested against.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import leaky_relu

from gat_ext import _C

WITH_TERM = frozenset(name for name, read in _C.score_inputs().items() if "query" in read)
"""Scores that read features of both ends of an edge"""


class ScoreInputs(NamedTuple):
    """Of every edge and head; None for what the score does not read.

    Attributes:
        query: [E, H, D], x of the destination.
        key: [E, H, D], y of the source.
        att: [H, D].
        dst_term: [E, H], a.
        src_term: [E, H], b.
        slope: of leaky_relu.
        scale: of the score.
    """

    query: Tensor | None
    key: Tensor | None
    att: Tensor | None
    dst_term: Tensor | None
    src_term: Tensor | None
    slope: float
    scale: float


def _additive(s: ScoreInputs) -> Tensor:
    assert s.dst_term is not None and s.src_term is not None
    return leaky_relu(s.dst_term + s.src_term, s.slope)


def _additive_v2(s: ScoreInputs) -> Tensor:
    assert s.query is not None and s.key is not None and s.att is not None
    return (leaky_relu(s.query + s.key, s.slope) * s.att).sum(-1)


def _dot(s: ScoreInputs) -> Tensor:
    assert s.query is not None and s.key is not None
    return finish_dot((s.query * s.key).sum(-1), s)


def finish_dot(products: Tensor, s: ScoreInputs) -> Tensor:
    """The score of dot products [E, H], where they were computed without gathered rows."""
    scores = s.scale * products
    if s.dst_term is None or s.src_term is None:
        return scores
    return scores * s.dst_term * s.src_term


SCORES: dict[str, Callable[[ScoreInputs], Tensor]] = {
    "additive": _additive,
    "additive_v2": _additive_v2,
    "dot": _dot,
    "cosine": _dot,
}

DOT_PRODUCTS = frozenset(name for name, formula in SCORES.items() if formula is _dot)
"""Scores whose sum over features is a dot product, which sddmm computes without gathered rows"""
