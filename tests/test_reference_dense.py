"""The dense oracle: against torch's own attention, the definitions, and the edge-list oracle."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from gat_ext import Graph, reference
from gat_ext.reference import dense
from gat_ext.testing import complete_graph, sample_graph

EXACT = {"rtol": 1e-12, "atol": 1e-12}
NOTES = Path(__file__).parents[1] / "docs" / "notes"
MATRICES = ["no_edges", "isolated", "self_loops", "star", "path", "complete"]  # without multi-edges


def normal(*shape: int, requires_grad: bool = False) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=requires_grad)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# ---- dense self-attention is torch's


@pytest.mark.parametrize(("num_dst", "num_src"), [(6, 6), (4, 7), (7, 4), (1, 1)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_complete_graph_is_scaled_dot_product_attention(num_dst, num_src, scale):
    query, key = normal(num_dst, 2, 3, requires_grad=True), normal(num_src, 2, 3)
    value = normal(num_src, 2, 5)
    batched = (t.transpose(0, 1) for t in (query, key, value))
    theirs = scaled_dot_product_attention(*batched, scale=scale).transpose(0, 1)
    graph = complete_graph(num_src, num_dst)
    dense = reference.dense_self_attention(query, key, value, scale=scale)
    edges = reference.dot_attention(graph, query, key, value, scale=scale)
    upstream = torch.randn_like(theirs)
    (expected,) = torch.autograd.grad(theirs, query, upstream)
    for ours in (dense, edges):
        torch.testing.assert_close(ours, theirs, **EXACT)
        torch.testing.assert_close(torch.autograd.grad(ours, query, upstream)[0], expected, **EXACT)


@pytest.mark.parametrize("name", MATRICES)
def test_masked_graph_is_masked_scaled_dot_product_attention(name):
    graph = sample_graph(name).add_self_loops()  # torch returns NaN for an empty row
    mask = reference.dense_mask(graph)
    query, key, value = (normal(graph.num_nodes, 2, 3) for _ in range(3))
    batched = (t.transpose(0, 1) for t in (query, key, value))
    theirs = scaled_dot_product_attention(*batched, attn_mask=mask).transpose(0, 1)
    torch.testing.assert_close(
        reference.dense_self_attention(query, key, value, mask), theirs, **EXACT
    )
    torch.testing.assert_close(reference.dot_attention(graph, query, key, value), theirs, **EXACT)


def test_qkv_is_multihead_attention():
    layer = torch.nn.MultiheadAttention(8, 2, bias=False, batch_first=True).double()
    with torch.no_grad():
        layer.out_proj.weight.copy_(torch.eye(8))
    x, mask = normal(5, 8), torch.rand(5, 5) > 0.4
    mask |= torch.eye(5, dtype=torch.bool)
    theirs, _ = layer(x[None], x[None], x[None], attn_mask=~mask)
    ours = reference.dense_qkv_attention(x, layer.in_proj_weight, 2, mask)
    torch.testing.assert_close(ours, theirs[0], **EXACT)
    with pytest.raises(ValueError, match=r"24 rows.*3 \* num_heads = 15"):
        reference.dense_qkv_attention(x, layer.in_proj_weight, 5)


# ---- scores, by definition


def test_concatenated_and_split_scores_agree():
    x, y, weight, att = normal(4, 3), normal(6, 3), normal(2, 5, 3), normal(2, 10)
    concat = reference.dense_concat_scores(x, y, weight, att, 0.1)
    split = reference.dense_split_scores(x, y, weight, att, 0.1)
    torch.testing.assert_close(concat, split, **EXACT)
    i, j, h = 3, 1, 1
    pair = torch.cat([weight[h] @ x[i], weight[h] @ y[j]])
    one = torch.nn.functional.leaky_relu(att[h] @ pair, 0.1)
    torch.testing.assert_close(concat[h, i, j], one, **EXACT)


def test_bahdanau_scores():
    query, key = normal(3, 4), normal(5, 6)
    w1, w2, v = normal(2, 7, 4), normal(2, 7, 6), normal(2, 7)
    scores = reference.dense_bahdanau_scores(query, key, w1, w2, v)
    for h, i, j in ((0, 0, 0), (1, 2, 4), (0, 1, 3)):
        one = v[h] @ torch.tanh(w1[h] @ query[i] + w2[h] @ key[j])
        torch.testing.assert_close(scores[h, i, j], one, **EXACT)


def test_cosine_scores():
    query, key, beta = normal(3, 2, 4), normal(5, 2, 4), normal(2)
    expected = torch.cosine_similarity(query[:, None], key[None], dim=-1).permute(2, 0, 1)
    scores = reference.dense_cosine_scores(query, key, beta)
    torch.testing.assert_close(scores, beta[:, None, None] * expected, **EXACT)
    assert (reference.dense_cosine_scores(query * 0, key) == 0).all()


# ---- softmax, soft and hard


def test_softmax_equals_torch_for_full_rows():
    scores, mask = normal(2, 6, 5) * 100, torch.rand(6, 5) > 0.3
    mask[:, 0] = True
    alpha, lse = reference.dense_softmax(scores, mask)
    masked = scores.masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(alpha, masked.softmax(-1), **EXACT)
    torch.testing.assert_close(lse, masked.logsumexp(-1), **EXACT)


def test_empty_rows_are_zero_with_zero_gradients():
    scores = normal(1, 3, 4, requires_grad=True)
    with torch.no_grad():
        scores[0, 1] = -torch.inf
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[2] = False
    alpha, lse = reference.dense_softmax(scores, mask)
    assert (alpha[0, 1:] == 0).all() and (lse[0, 1:] == -torch.inf).all()
    (first,) = torch.autograd.grad((alpha * alpha).sum(), scores, create_graph=True)
    (second,) = torch.autograd.grad((first * first).sum(), scores)
    for grad in (first, second):
        assert (grad[0, 1:] == 0).all() and (grad[0, 0] != 0).any() and grad.isfinite().all()


def test_no_sources():
    out = reference.dense_self_attention(normal(3, 2, 4), normal(0, 2, 4), normal(0, 2, 4))
    assert out.shape == (3, 2, 4) and (out == 0).all()


@pytest.mark.parametrize("k", [1, 2, 3, 9])
def test_hard_attention_by_definition(k):
    scores, value, mask = normal(2, 5, 6), normal(6, 2, 3), torch.rand(5, 6) > 0.4
    mask[4] = False
    scores[0, 0, :4] = scores[0, 0].max() + 1  # ties
    ours = reference.dense_hard_attention(scores, value, k, mask)
    for h in range(2):
        for i in range(5):
            allowed = [j for j in range(6) if mask[i, j]]
            kept = sorted(allowed, key=lambda j: -scores[h, i, j].item())[:k]
            alpha = scores[h, i, kept].softmax(0)
            expected = (alpha[:, None] * value[kept, h]).sum(0)
            torch.testing.assert_close(ours[i, h], expected, **EXACT)


def test_soft_attention_is_hard_attention_with_all_kept():
    scores, value = normal(2, 5, 6), normal(6, 2, 3)
    soft = reference.dense_soft_attention(scores, value)
    torch.testing.assert_close(reference.dense_hard_attention(scores, value, 6), soft, **EXACT)


# ---- dense and edge-list agree


def compare(graph: Graph, scores: torch.Tensor, value: torch.Tensor, attention) -> None:
    """Soft and hard attention of a dense score matrix and of a graph operator."""
    mask = reference.dense_mask(graph)
    out, lse = attention(return_lse=True)
    torch.testing.assert_close(out, reference.dense_soft_attention(scores, value, mask), **EXACT)
    torch.testing.assert_close(lse.t(), reference.dense_softmax(scores, mask)[1], **EXACT)
    for k in (1, 2):
        hard = reference.dense_hard_attention(scores, value, k, mask)
        torch.testing.assert_close(attention(top_k=k), hard, **EXACT)


@pytest.mark.parametrize("name", MATRICES)
def test_dense_and_edge_list_agree(name):
    graph = sample_graph(name)
    n = graph.num_nodes
    query, key, value = normal(n, 2, 3), normal(n, 2, 3), normal(n, 2, 4)

    def dot(**options):
        return reference.dot_attention(graph, query, key, value, **options)

    def cosine(**options):
        return reference.cosine_attention(graph, query, key, value, beta=1.5, **options)

    compare(graph, reference.dense_dot_scores(query, key), value, dot)
    compare(graph, reference.dense_cosine_scores(query, key, 1.5), value, cosine)

    x, weight, att = normal(n, 5), normal(2, 4, 5), normal(2, 8)
    projected = torch.einsum("hfc,nc->nhf", weight, x)
    dst_term, src_term = (projected * att[:, :4]).sum(-1), (projected * att[:, 4:]).sum(-1)

    def gat(**options):
        return reference.gat_attention(graph, projected, dst_term, src_term, **options)

    compare(graph, reference.dense_concat_scores(x, x, weight, att), projected, gat)


def test_mask_holds_no_multi_edges():
    with pytest.raises(ValueError, match="2 edges from 0 to 1"):
        reference.dense_mask(sample_graph("multi_edges"))


# ---- documented examples


def test_every_dense_formula_is_in_reference():
    names = {name for name in vars(dense) if name.startswith("dense_")}
    assert names == {name for name in reference.__all__ if name.startswith("dense_")}


def test_examples_in_the_docstrings():
    result = doctest.testmod(dense)
    assert result.attempted > 10 and result.failed == 0


def test_note_from_dense_formulas_to_the_graph_operators():
    text = (NOTES / "dense_to_graph.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```pycon\n(.*?)```", text, re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {}, "dense_to_graph.md", None, None)
    try:
        result = doctest.DocTestRunner().run(test)
    finally:
        torch.set_printoptions(profile="default")
    assert result.attempted > 40 and result.failed == 0
