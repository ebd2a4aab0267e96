"""The formulas of csrc/core/scores in torch's operators, differentiable any number of times.

Used where the fused operator does not apply. The tests compare them with the separate formulas of
``gat_ext.reference``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from gat_ext import _C
from gat_ext.ops.pointwise import leaky_relu


class Traits(NamedTuple):
    """The inputs that a score reads, as csrc/core/scores/score.h defines them.

    Attributes:
        has_term: True if the score sums a term of query and key over their channels.
        required: names of the required inputs.
        optional: names of the optional per-edge inputs.
    """

    has_term: bool
    required: tuple[str, ...]
    optional: tuple[str, ...]

    @classmethod
    def of(cls, has_term: bool, has_weight: bool, has_node_terms: bool) -> Traits:
        """From the traits of the native score."""
        features = ("query", "key") if has_term else ()
        weight = ("att",) if has_weight else ()
        terms = ("dst_term", "src_term") if has_node_terms else ()
        of_edges = ("edge_feat", "edge_attr", "edge_map") if has_term else ()
        optional = (*of_edges, *(("edge_term",) if has_node_terms else ()), "bias")
        return cls(has_term, (*features, *weight, *terms), optional)


TRAITS = {name: Traits.of(*traits) for name, traits in _C.score_traits().items()}
"""The traits of each score by name."""


class ScoreInputs(NamedTuple):
    """Inputs of a score for each edge and head; None if the score does not read them.

    Attributes:
        query: [E, H, D], x of the destination.
        key: [E, H, D], y of the source.
        att: [H, D].
        dst_term: [E, H], a.
        src_term: [E, H], b.
        slope: negative slope of leaky_relu.
        scale: factor of the score.
    """

    query: Tensor | None
    key: Tensor | None
    att: Tensor | None
    dst_term: Tensor | None
    src_term: Tensor | None
    slope: float
    scale: float

    @property
    def features(self) -> tuple[Tensor, Tensor]:
        """Query and key."""
        assert self.query is not None and self.key is not None
        return self.query, self.key

    @property
    def node_terms(self) -> tuple[Tensor, Tensor]:
        """dst_term and src_term."""
        assert self.dst_term is not None and self.src_term is not None
        return self.dst_term, self.src_term


class Formula(NamedTuple):
    """A score as ``finish(sum over the channels of term)``.

    Attributes:
        term: computes [E, H, D] from the inputs; None for a score without a term.
        finish: computes [E, H] from the sum, which is None without a term, and the inputs.
    """

    term: Callable[[ScoreInputs], Tensor] | None
    finish: Callable[[Tensor | None, ScoreInputs], Tensor]

    def of_edges(self, s: ScoreInputs) -> Tensor:
        """The scores [E, H]."""
        return self.finish(None if self.term is None else self.term(s).sum(-1), s)


def _product(s: ScoreInputs) -> Tensor:
    query, key = s.features
    return query * key


def _additive_v2_term(s: ScoreInputs) -> Tensor:
    query, key = s.features
    assert s.att is not None
    return leaky_relu(query + key, s.slope) * s.att


def _additive(_: Tensor | None, s: ScoreInputs) -> Tensor:
    a, b = s.node_terms
    return leaky_relu(a + b, s.slope)


def _sum(acc: Tensor | None, _: ScoreInputs) -> Tensor:
    assert acc is not None
    return acc


def _dot(acc: Tensor | None, s: ScoreInputs) -> Tensor:
    assert acc is not None
    return s.scale * acc


def _cosine(acc: Tensor | None, s: ScoreInputs) -> Tensor:
    a, b = s.node_terms
    return _dot(acc, s) * a * b


def _supergat_mx(acc: Tensor | None, s: ScoreInputs) -> Tensor:
    a, b = s.node_terms
    assert acc is not None
    return leaky_relu((a + b) * acc.sigmoid(), s.slope)


SCORES: dict[str, Formula] = {
    "additive": Formula(None, _additive),
    "additive_v2": Formula(_additive_v2_term, _sum),
    "dot": Formula(_product, _dot),
    "cosine": Formula(_product, _cosine),
    "supergat_mx": Formula(_product, _supergat_mx),
}
"""The formula of each score by name."""

DOT_PRODUCTS = frozenset(name for name, formula in SCORES.items() if formula.term is _product)
"""Scores whose sum over the channels is an sddmm, which gathers no rows."""


def accumulated_channels(arguments: Any) -> int:
    """Channels of out_acc: those of value, and of linear edge features whose sums are apart."""
    channels: int = arguments.value.shape[2]
    edge_attr = arguments.edge_attr
    apart = edge_attr is not None and arguments.edge_in_value and arguments.score in DOT_PRODUCTS
    return channels + (edge_attr.shape[1] if apart else 0)
