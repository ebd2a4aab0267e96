"""The four scores of edge attention on the device: inputs, and the operator in every library.

Tensors by name, as ``gat_ext.functional.edge_attention`` calls them; keys are the values of the
scores "additive_v2" and "cosine", as in their layers. A peer is a function of the tensors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import dense
import torch
import torch.nn.functional as F
from bench_operators import OPERATORS
from cuda_cases import Case, Edges
from torch import Tensor

from gat_ext import functional

Tensors = dict[str, Tensor]
Function = Callable[[Tensors], Tensor]

SCORES = ("additive", "additive_v2", "dot", "cosine")
PEERS = ("dense", "pyg", "pyg-compiled")
DENSE_NODES = 20_000

_SOURCE, _DESTINATION, _ATT = ("value", "key", "src_term"), ("query", "dst_term"), ("att",)
_INPUTS = {
    "additive": ("value", "dst_term", "src_term"),
    "additive_v2": ("query", "key", "att"),
    "dot": ("query", "key", "value"),
    "cosine": ("query", "key", "dst_term", "src_term"),
}


class LeftOutError(Exception):
    """A peer is not asked to do what it cannot; the message says why."""


def end_of(name: str) -> str:
    """Whose rows a tensor has: "source", "destination", or "none" for att."""
    return "source" if name in _SOURCE else "destination" if name in _DESTINATION else "none"


def draw(
    score: str, case: Case, heads: int, channels: int, dtype: torch.dtype, seed: int
) -> Tensors:
    """Inputs that require gradients, and "grad_out"; scores are of order one."""
    generator = torch.Generator(case.device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=case.device).to(dtype)

    counts = {"source": case.spec.num_src, "destination": case.spec.num_dst}
    tensors: Tensors = {}
    for name in _INPUTS[score]:
        if name in _ATT:
            tensors[name] = normal(heads, channels) / math.sqrt(channels)
        elif name.endswith("term"):
            tensors[name] = normal(counts[end_of(name)], heads)
        else:
            tensors[name] = normal(counts[end_of(name)], heads, channels)
    if score == "cosine":
        for row, term in (("query", "dst_term"), ("key", "src_term")):
            tensors[term] = tensors[row].float().norm(dim=-1).clamp(min=1e-6).reciprocal().to(dtype)
    leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    return leaves | {"grad_out": normal(case.spec.num_dst, heads, channels)}


def leaves_of(tensors: Tensors) -> Tensors:
    """The tensors that get gradients."""
    return {name: tensor for name, tensor in tensors.items() if name != "grad_out"}


def value_of(tensors: Tensors) -> Tensor:
    """``[N_src, H, F]``, what is summed."""
    return tensors["value"] if "value" in tensors else tensors["key"]


def scale_of(score: str, tensors: Tensors) -> float:
    """The factor of the score."""
    return tensors["key"].shape[-1] ** -0.5 if score == "dot" else 1.0


# ---- gat_ext


def _native(score: str, case: Case, tensors: Tensors) -> Tensor:
    inputs = {name: t for name, t in leaves_of(tensors).items() if name != "value"}
    out = functional.edge_attention(
        case.graph,
        value_of(tensors),
        score=score,
        scale=scale_of(score, tensors),
        negative_slope=dense.SLOPE,
        **inputs,
    )
    assert isinstance(out, Tensor)
    return out


def with_dropout(score: str, case: Case, tensors: Tensors, p: float, seed: Tensor) -> Tensor:
    """gat_ext's operator with dropout on the weights, decided by a seed on the device."""
    inputs = {name: t for name, t in leaves_of(tensors).items() if name != "value"}
    out = functional.edge_attention(
        case.graph, value_of(tensors), score=score, dropout_p=p, seed=seed, **inputs
    )
    assert isinstance(out, Tensor)
    return out


# ---- PyG: gather to the edges, its softmax, scatter to the destinations

_RECIPES = {"additive": "gat_attention", "additive_v2": "gatv2_attention", "dot": "dot_attention"}


def pyg_attention(score: str, edges: Edges, inputs: Tensors) -> Tensor:
    """The operator from PyG's parts; only ``edges`` and the inputs are arguments, for the compiler."""
    if score in _RECIPES:
        return OPERATORS[_RECIPES[score]].run["pyg"](edges, **inputs)
    softmax, sddmm, spmm = (
        OPERATORS[name].run["pyg"] for name in ("edge_softmax", "sddmm", "spmm")
    )
    scores = sddmm(edges, inputs["query"], inputs["key"])
    scores = scores * inputs["dst_term"][edges.dst] * inputs["src_term"][edges.src]
    return spmm(edges, inputs["key"], softmax(edges, scores))


def _pyg(score: str, case: Case, *, compiled: bool) -> Function:
    import torch_geometric  # noqa: F401  the error, where it is missing, belongs here

    function = pyg_attention
    if compiled:
        torch._dynamo.reset()
        function = torch.compile(pyg_attention, dynamic=False)
    edges = case.edges
    return lambda tensors: function(score, edges, leaves_of(tensors))


# ---- dense: scores of all pairs under the mask


def _dense(score: str, case: Case, dtype: torch.dtype) -> Function:
    nodes = max(case.spec.num_src, case.spec.num_dst)
    if nodes > DENSE_NODES:
        raise LeftOutError(f"N×N of {nodes:,} nodes")
    return functools.partial(_dense_attention, score, case.dense_mask(dtype))


def _dense_attention(score: str, mask: Tensor, t: Tensors) -> Tensor:
    if score == "dot":
        query, key, value = (t[name].transpose(0, 1)[None] for name in ("query", "key", "value"))
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[None, None])
        return out[0].transpose(0, 1)
    if score == "additive":
        scores = dense.additive(t["dst_term"], t["src_term"])
    elif score == "additive_v2":
        scores = dense.additive_v2(t["query"], t["key"], t["att"])
    else:
        terms = t["dst_term"].t().unsqueeze(2) * t["src_term"].t().unsqueeze(1)
        scores = torch.einsum("ihd,jhd->hij", t["query"], t["key"]) * terms
    return dense.attend(scores, mask, value_of(t))


def make(library: str, score: str, case: Case, dtype: torch.dtype) -> Function:
    """The operator of a library on a graph.

    Raises:
        LeftOutError: it could not, whatever the device.
        ImportError: the library is missing.
    """
    if library == "gat_ext":
        return functools.partial(_native, score, case)
    if library == "dense":
        return _dense(score, case, dtype)
    return _pyg(score, case, compiled=library == "pyg-compiled")
