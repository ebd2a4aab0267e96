"""With equal values the weights do not matter: query and key get gradients of rounding size.

Rounding is that of float32 for 16-bit inputs, too.
"""

from __future__ import annotations

import pytest
import torch

from gat_ext import functional
from gat_ext.reference import SCORES, score_inputs
from gat_ext.testing import sample_graph, sample_inputs


def gradients(graph, inputs, dtype):
    """Gradients of the features that a score reads, from the same values in a dtype."""
    given = {
        n: t.detach().to(dtype) if isinstance(t, torch.Tensor) else t for n, t in inputs.items()
    }
    read = [given[n].requires_grad_() for n in ("query", "key")]
    out = functional.edge_attention(graph, **given)
    upstream = torch.linspace(0.5, 3, 8).to(torch.bfloat16).to(dtype).expand_as(out)
    return torch.autograd.grad(out, read, upstream), upstream[0, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("graph_name", ["complete", "unsorted", "long_row"])
@pytest.mark.parametrize("score", [s for s in SCORES if "query" in score_inputs(s)])
def test_gradients_are_rounding(score, graph_name, dtype):
    graph = sample_graph(graph_name)
    inputs = sample_inputs(score, graph, 2, 8, torch.bfloat16)["plain"]
    message = torch.linspace(-1.3, 1.7, 8).to(torch.bfloat16)
    inputs["value"] = message.expand(graph.num_src, 2, 8).clone()
    narrow, _ = gradients(graph, inputs, dtype)
    wide, upstream = gradients(graph, inputs, torch.float32)
    # An edge adds alpha (<g, v> - <g, out>) times an input; rounding adds up along a row, and over
    # the rows that read a source.
    terms = float((upstream.abs() * message.abs()).sum())
    largest = max(float(inputs[n].abs().max()) for n in ("query", "key", "att") if n in inputs)
    rounding = torch.finfo(torch.float32).eps * terms * largest
    longest = float(torch.cat([graph.in_degrees(), graph.out_degrees()]).max())
    for in_16_bits, in_32_bits in zip(narrow, wide, strict=True):
        assert in_32_bits.abs().max() <= 10 * rounding * longest**0.5
        assert in_16_bits.abs().max() <= 10 * max(rounding, float(in_32_bits.abs().max()))
