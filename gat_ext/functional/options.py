"""The results of the attention functions, and the keyword arguments that all of them share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

from torch import Tensor
from typing_extensions import NotRequired, Required, TypedDict

_Function = TypeVar("_Function", bound=Callable[..., Any])


class WithWeights(NamedTuple):
    """Result of edge_attention with ``return_weights``: out [N_dst, H, F], weights [E, H]."""

    out: Tensor
    weights: Tensor


class WithLse(NamedTuple):
    """Result of edge_attention with ``return_lse``: out [N_dst, H, F], lse [N_dst, H]."""

    out: Tensor
    lse: Tensor


class WithWeightsAndLse(NamedTuple):
    """Result of edge_attention with ``return_weights`` and ``return_lse``; shapes as above."""

    out: Tensor
    weights: Tensor
    lse: Tensor


AttentionResult = Tensor | WithWeights | WithLse | WithWeightsAndLse


class Options(TypedDict, total=False):
    """What every score takes; see :func:`gat_ext.functional.edge_attention`."""

    bias: Tensor | None
    dropout_p: float
    seed: Tensor | None
    top_k: int | None
    edge_mask: Tensor | None


class ForOut(Options):
    """Options of a call that returns out alone."""

    return_weights: NotRequired[Literal[False]]
    return_lse: NotRequired[Literal[False]]


class ForWeights(Options):
    """Options of a call that returns WithWeights."""

    return_weights: Required[Literal[True]]
    return_lse: NotRequired[Literal[False]]


class ForLse(Options):
    """Options of a call that returns WithLse."""

    return_weights: NotRequired[Literal[False]]
    return_lse: Required[Literal[True]]


class ForBoth(Options):
    """Options of a call that returns WithWeightsAndLse."""

    return_weights: Required[Literal[True]]
    return_lse: Required[Literal[True]]


class ForAny(Options, total=False):
    """Options of a call with flags that a type checker does not know."""

    return_weights: bool
    return_lse: bool


class ScoreInputs(TypedDict, total=False):
    """What some scores take; see :func:`gat_ext.functional.edge_attention`."""

    query: Tensor | None
    key: Tensor | None
    att: Tensor | None
    dst_term: Tensor | None
    src_term: Tensor | None
    edge_term: Tensor | None
    edge_feat: Tensor | None
    edge_attr: Tensor | None
    edge_map: Tensor | None
    edge_in_value: bool
    negative_slope: float
    scale: float


class InputsForOut(ScoreInputs, ForOut):
    """Keyword arguments of an edge_attention that returns out alone."""


class InputsForWeights(ScoreInputs, ForWeights):
    """Keyword arguments of an edge_attention that returns WithWeights."""


class InputsForLse(ScoreInputs, ForLse):
    """Keyword arguments of an edge_attention that returns WithLse."""


class InputsForBoth(ScoreInputs, ForBoth):
    """Keyword arguments of an edge_attention that returns WithWeightsAndLse."""


class InputsForAny(ScoreInputs, ForAny):
    """Keyword arguments of an edge_attention with flags that a type checker does not know."""


def with_options_of(
    complete: Callable[..., Any], options: type
) -> Callable[[_Function], _Function]:
    """Names the options in the signature of a function that passes them on as ``**options``.

    ``help``, and completion in notebooks, then list them with their defaults.

    Args:
        complete: function with all options in its own signature.
        options: TypedDict of the options.
    """
    keys = vars(options)["__required_keys__"] | vars(options)["__optional_keys__"]
    named = [p for p in inspect.signature(complete).parameters.values() if p.name in keys]

    def decorate(function: _Function) -> _Function:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *named]
        )
        return function

    return decorate
