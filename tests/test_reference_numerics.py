"""The edge-list oracle on difficult numbers: infinities, NaN, 16 bits, zero vectors; dropout."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gat_ext import Graph, reference, testing
from gat_ext.reference import edges
from gat_ext.testing import reference_inputs, sample_graph, sample_inputs

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SCORES = list(reference.SCORES)


def test_row_of_minus_infinity_is_as_empty():
    graph = Graph(torch.tensor([[0, 1, 0, 2], [0, 0, 1, 1]]), num_nodes=3)
    inputs = sample_inputs("dot", graph, requires_grad=True)["masked"]
    out, weights, lse = reference.edge_attention(
        graph, **inputs, return_weights=True, return_lse=True
    )
    assert (out[0] == 0).all() and (weights[:2] == 0).all() and (lse[0] == -torch.inf).all()
    leaves = [t for t in inputs.values() if isinstance(t, torch.Tensor)]
    for grad in torch.autograd.grad(out[0].sum() + weights[:2].sum(), leaves):
        assert (grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_large_scores_stay_finite(offset, dtype):
    graph = sample_graph("unsorted")
    scores = torch.randn(graph.num_edges, 2, dtype=dtype)
    shifted = scores + offset
    alpha = reference.edge_softmax(graph, shifted)
    torch.testing.assert_close(alpha, reference.edge_softmax(graph, shifted - offset))
    value = torch.ones(graph.num_src, 2, 1, dtype=dtype)
    zeros = torch.zeros(8, 2, dtype=dtype)
    out, lse = reference.gat_attention(graph, value, zeros, zeros, bias=shifted, return_lse=True)
    has_edges = graph.in_degrees() > 0
    torch.testing.assert_close(out[has_edges], torch.ones_like(out[has_edges]))
    assert ((lse[has_edges] - offset).abs() < 10).all()


def test_nan_reaches_its_destinations_only():
    graph = sample_graph("unsorted")
    x = torch.randn(8, 1, 2, dtype=torch.float64)
    x[3] = torch.nan
    src, dst = graph.edge_index
    touched = torch.zeros(8, dtype=torch.bool)
    touched[dst[src == 3]] = True
    touched[3] = graph.in_degrees()[3] > 0  # its own query
    for top_k in (None, 1):
        out = reference.dot_attention(graph, x, x, x, top_k=top_k)
        assert torch.equal(out.isnan().any(-1).squeeze(-1), touched)


def test_equal_values_give_score_gradients_of_zero():
    graph = sample_graph("complete")
    scores = torch.randn(25, 2, dtype=torch.float64, requires_grad=True)
    zeros = torch.zeros(5, 2, dtype=torch.float64)
    value = torch.full((5, 2, 3), 0.7, dtype=torch.float64)
    reference.gat_attention(graph, value, zeros, zeros, bias=scores).square().sum().backward()
    torch.testing.assert_close(scores.grad, torch.zeros_like(scores), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("score", SCORES)
def test_computes_in_the_dtype_of_the_inputs(score, dtype):
    graph = sample_graph("unsorted")
    inputs = sample_inputs(score, graph, dtype=dtype)["everything"]
    truth = reference.edge_attention(graph, **reference_inputs(graph, inputs, torch.float64))
    out = reference.edge_attention(graph, **reference_inputs(graph, inputs))
    assert out.dtype == dtype and truth.dtype == torch.float64
    tolerance = 8 * testing.tolerance(dtype)["rtol"]
    torch.testing.assert_close(out.double(), truth, rtol=tolerance, atol=tolerance)


def test_zero_vectors_are_orthogonal_to_all():
    graph = sample_graph("complete")
    for dtype in (torch.float64, torch.float16):
        x = torch.zeros(5, 1, 3, dtype=dtype)
        x[0] = 1
        x.requires_grad_()
        out, weights = reference.cosine_attention(graph, x, beta=3.0, return_weights=True)
        assert out.isfinite().all() and (weights[graph.edge_index[1] == 1] == 0.2).all()
        (grad,) = torch.autograd.grad(out.square().sum(), x)
        assert grad.isfinite().all() and (grad[0] != 0).any()


# ---- dropout


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # published test vectors of philox4x32 with 10 rounds
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    words = edges.philox(np.array(counter, dtype=np.uint64).reshape(4, 1), key)
    assert [int(word[0]) for word in words] == expected


def test_dropout_mask_rate_and_scale():
    mask = reference.dropout_mask(torch.tensor([-3]), 4000, 5, 0.3, torch.float64)
    assert mask.unique().tolist() == [0, 1 / 0.7]
    assert abs((mask == 0).double().mean() - 0.3) < 0.01
    assert torch.equal(
        mask[:10, :3], reference.dropout_mask(torch.tensor([-3]), 10, 3, 0.3, mask.dtype)
    )
    assert not torch.equal(
        mask, reference.dropout_mask(torch.tensor([4]), 4000, 5, 0.3, mask.dtype)
    )
    for p, value in ((0.0, 1.0), (1.0, 0.0)):
        assert (reference.dropout_mask(torch.tensor([1]), 50, 2, p, torch.float32) == value).all()
