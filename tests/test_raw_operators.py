"""The attention operator called directly: every input of every score, each gradient by itself.

Memory is NaN until it is written, so that a gradient that a kernel forgets is seen. Run on the
CPU's kernels, the emulated ones of CUDA and, where there is one, a GPU, against the reference.
"""

from __future__ import annotations

import pytest
import torch
from attention_calls import raw_arguments
from torch.testing import assert_close

from gat_ext import reference
from gat_ext.ops.registry import ops
from gat_ext.testing import devices, sample_graph

H, D, K = 2, 5, 3
F64 = torch.float64
OPTIONAL = {
    "bias": "bias",
    "edge_term": "src_term",  # and the input with which a score reads it
    "edge_feat": "key",
    "edge_attr": "key",
    "edge_feat in value": "key",
    "edge_attr in value": "key",
}
RETURNS = [r.name for r in ops.edge_attention.default._schema.returns]
EVERY = [
    (score, option)
    for score in reference.SCORES
    for option in ("", *OPTIONAL)
    if option in ("", "bias") or OPTIONAL[option] in reference.score_inputs(score)
]


@pytest.fixture(autouse=True)
def poisoned():
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


def inputs_of(score, option, graph, device):
    generator = torch.Generator().manual_seed(2)
    n, m, e = graph.num_dst, graph.num_src, graph.num_edges
    shapes = {"value": (m, H, D)}
    every = {"query": (n, H, D), "key": (m, H, D), "att": (H, D), "dst_term": (n, H)}
    every |= {"src_term": (m, H)}
    shapes |= {name: every[name] for name in reference.score_inputs(score) if name in every}
    name, _, in_value = option.partition(" in ")
    of_edges = {"bias": (e, H), "edge_term": (e, H), "edge_feat": (e, H, D), "edge_attr": (e, K)}
    if name:
        shapes[name] = of_edges[name]
    if name == "edge_attr":
        shapes["edge_map"] = (H, D, K)
    tensors = {
        k: torch.randn(shape, generator=generator, dtype=F64, device="cpu").to(device)
        for k, shape in shapes.items()
    }
    return tensors, {"score": score, "edge_in_value": bool(in_value)}


def gradients(call, tensors, of):
    leaves = {k: t.detach().requires_grad_(k in of) for k, t in tensors.items()}
    out, weights, lse = call(leaves)
    loss = out.square().sum() + (weights * weights.cos()).sum()
    loss = loss + lse.masked_fill(lse == -torch.inf, 0).square().sum()
    grads = torch.autograd.grad(loss, [leaves[k] for k in of])
    return [out.detach(), weights.detach(), lse.detach()], dict(zip(of, grads, strict=True))


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("name", ["unsorted", "isolated", "more_sources"])
@pytest.mark.parametrize(("score", "option"), EVERY, ids=str)
def test_every_input_of_every_score(score, option, name, device):
    graph = sample_graph(name, device)
    tensors, constants = inputs_of(score, option, graph, device)

    def raw(leaves):
        results = ops.edge_attention(*raw_arguments(leaves | constants, graph))
        return tuple(results[RETURNS.index(r)] for r in ("out", "weights", "lse"))

    def by_reference(leaves):
        return reference.edge_attention(
            graph, **leaves, **constants, return_weights=True, return_lse=True
        )

    found, grads = gradients(raw, tensors, list(tensors))
    expected, of_reference = gradients(by_reference, tensors, list(tensors))
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)
    for key, theirs in of_reference.items():
        assert_close(grads[key], theirs, msg=lambda text, key=key: f"{key}: {text}")
    for key in tensors:  # a kernel may leave out what is not needed, and nothing else
        alone = gradients(raw, tensors, [key])[1][key]
        assert_close(
            alone, grads[key], rtol=1e-13, atol=1e-13, msg=lambda t, key=key: f"{key}: {t}"
        )
