"""A score is added where CONTRIBUTING says and nowhere else.

tests/cpp/new_score adds one to the kernels; these tests add its formulas, and look for code that
knows a score by name.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from gat_ext import functional, reference
from gat_ext.ops import scores
from gat_ext.testing import reference_inputs, sample_graph, sample_inputs

ROOT = Path(__file__).parents[1]
MAY_NAME_SCORES = {
    "ops/scores.py",
    "reference/attention.py",
    "functional/additive.py",  # a function for each score with inputs of its own
    "functional/similarity.py",
    "functional/supergat.py",
    "nn/relations.py",  # names of RGATConv's mods, one of which is "additive"
}


def test_no_module_knows_a_score_by_name():
    for path in (ROOT / "gat_ext").rglob("*.py"):
        if path.relative_to(ROOT / "gat_ext").as_posix() in MAY_NAME_SCORES:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            known = isinstance(node, ast.Constant) and node.value in set(scores.SCORES)
            assert not known, f"{path}:{node.lineno} knows the score {node.value!r}; ask TRAITS"


def test_no_kernel_or_binding_knows_a_score_by_name():
    headers = [p for p in (ROOT / "csrc/core/scores").glob("*.h") if p.stem in scores.SCORES]
    types = [re.search(r"^struct (\w+)", p.read_text(), re.M)[1] for p in headers]
    assert len(types) == len(scores.SCORES)
    known = re.compile(rf"\b({'|'.join(types)})\b|\"({'|'.join(scores.SCORES)})\"")
    for path in (ROOT / "csrc").rglob("*.*"):
        if path.parent.name != "scores":
            assert not known.search(path.read_text()), path


@pytest.fixture
def decay(monkeypatch):
    """A score that reads all inputs, defined by its two formulas in Python."""
    name, finish = "decay", lambda acc, s: s.scale * (s.dst_term - (acc + s.src_term).exp())
    term = lambda s: s.att * (s.query - s.key).square()  # noqa: E731

    def formula(query, key, att, dst, src, slope, scale):
        return scale * (dst - torch.exp((att * (query - key) ** 2).sum(-1) + src))

    monkeypatch.setitem(scores.SCORES, name, scores.Formula(term, finish))
    monkeypatch.setitem(scores.TRAITS, name, scores.Traits.of(True, True, True))
    monkeypatch.setitem(reference.SCORES, name, formula)
    return name


def test_a_new_formula_has_every_option(decay):
    """In torch.func.jvp, which uses torch's own operators and needs no kernel."""
    graph = sample_graph("unsorted")
    for variant, inputs in sample_inputs(decay, graph, 2, 3).items():
        inputs = inputs | {"att": -inputs["att"].abs()}
        value = inputs.pop("value")

        def attend(value, module, given):
            return module.edge_attention(graph, value, **given)

        found, tangent = torch.func.jvp(
            lambda v, i=inputs: attend(v, functional, i), (value,), (value,)
        )
        exact = reference_inputs(graph, inputs | {"value": value})
        assert_close(found, reference.edge_attention(graph, **exact), msg=variant)
        assert tangent.isfinite().all()


def test_a_new_score_lacks_and_refuses_inputs_by_its_traits(decay):
    graph = sample_graph("unsorted")
    inputs = sample_inputs(decay, graph, 2, 3)["plain"]
    for name in ("query", "key", "att", "dst_term", "src_term"):
        with pytest.raises(ValueError, match=f"{name} is None; score 'decay' expects"):
            functional.edge_attention(graph, **(inputs | {name: None}))
