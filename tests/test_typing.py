"""Result types of the functions, as a type checker and as a call see them.

``assert_type`` does nothing when called; ``mypy tests/test_typing.py`` checks it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from typing_extensions import assert_type

from gat_ext import Graph, functional
from gat_ext.functional import (
    cosine_attention,
    dot_attention,
    edge_attention,
    gat_attention,
    gatv2_attention,
    options,
)
from gat_ext.functional.options import (
    WithLse,
    WithWeights,
    WithWeightsAndLse,
)
from gat_ext.models import GAM, GAMMemory
from gat_ext.models.walks import CallOptions

GRAPH = Graph(torch.tensor([[0, 1, 0], [1, 1, 0]]))
X = torch.ones(2, 1, 4)
TERM = torch.zeros(2, 1)


def test_a_call_without_flags_returns_a_tensor() -> None:
    results = [
        assert_type(gat_attention(GRAPH, X, TERM, TERM, dropout_p=0.5), Tensor),
        assert_type(gatv2_attention(GRAPH, X, X, X[0], bias=TERM.new_zeros(3, 1)), Tensor),
        assert_type(dot_attention(GRAPH, X, X, X, top_k=1), Tensor),
        assert_type(cosine_attention(GRAPH, X, edge_mask=torch.ones(3)), Tensor),
        assert_type(edge_attention(GRAPH, X, score="dot", query=X, key=X, scale=0.5), Tensor),
    ]
    assert all(type(result) is Tensor for result in results)


def test_weights() -> None:
    results = [
        assert_type(gat_attention(GRAPH, X, TERM, TERM, return_weights=True), WithWeights),
        assert_type(gatv2_attention(GRAPH, X, X, X[0], return_weights=True), WithWeights),
        assert_type(dot_attention(GRAPH, X, X, X, return_weights=True), WithWeights),
        assert_type(cosine_attention(GRAPH, X, return_weights=True), WithWeights),
        assert_type(
            edge_attention(GRAPH, X, score="dot", query=X, key=X, return_weights=True), WithWeights
        ),
    ]
    assert all(type(result) is WithWeights for result in results)


def test_lse() -> None:
    results = [
        assert_type(gat_attention(GRAPH, X, TERM, TERM, return_lse=True), WithLse),
        assert_type(gatv2_attention(GRAPH, X, X, X[0], return_lse=True), WithLse),
        assert_type(dot_attention(GRAPH, X, X, X, return_lse=True), WithLse),
        assert_type(cosine_attention(GRAPH, X, return_lse=True), WithLse),
        assert_type(
            edge_attention(GRAPH, X, score="dot", query=X, key=X, return_lse=True), WithLse
        ),
    ]
    assert all(type(result) is WithLse for result in results)


def test_both_and_unknown() -> None:
    both = dot_attention(GRAPH, X, X, X, return_weights=True, return_lse=True)
    assert type(assert_type(both, WithWeightsAndLse)) is WithWeightsAndLse
    for flag in (False, True):
        some = dot_attention(GRAPH, X, X, X, return_weights=flag)
        assert type(assert_type(some, Tensor | WithWeights)) is (WithWeights if flag else Tensor)


def named(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    "function",
    [gat_attention, gatv2_attention, dot_attention, cosine_attention],
    ids=lambda function: function.__name__,
)
def test_signatures_name_the_options(function: Callable[..., Any]) -> None:
    complete = named(functional.edge_attention)
    shared = set(options.ForAny.__annotations__)
    assert {name: named(function)[name] for name in shared} == {n: complete[n] for n in shared}
    assert not any(p.kind is p.VAR_KEYWORD for p in named(function).values())


def test_types_of_edge_attention_list_its_arguments() -> None:
    listed = set(options.InputsForAny.__annotations__) | {"graph", "value", "score"}
    assert listed == set(named(functional.edge_attention))


def test_signatures_of_walking_models() -> None:
    assert named(GAMMemory).keys() == named(GAM).keys()
    assert named(GAMMemory)["num_agents"].default == 10 != named(GAM)["num_agents"].default
    assert set(CallOptions.__annotations__) < named(GAM.forward).keys() == named(GAM.predict).keys()
    assert set(named(GAM)) - {"num_types", "num_classes"} < named(GAM.preset).keys()
