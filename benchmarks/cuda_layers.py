"""Whole layers on the device, projections included, against PyG's; the truth is PyG's in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from bench_layers import LAYERS, Sizes, draw, make_layer
from compare import difference, tolerance
from cuda_cases import Case
from cuda_check import Verdict
from cuda_plan import Row
from torch import Tensor, nn

# Channels of the features that a layer projects.
IN_CHANNELS = 128

Tensors = dict[str, Tensor]


@dataclass
class LayerCase:
    """The weights and inputs of a layer, in one dtype.

    Attributes:
        sets: "x" ``[N, IN_CHANNELS]``, a leaf, and "grad_out" ``[N, heads * channels]``.
    """

    name: str
    case: Case
    sizes: Sizes
    weights: Tensors
    sets: list[Tensors]

    def program(self, library: str) -> tuple[Callable[[Tensors], Tensor], dict[str, nn.Parameter]]:
        """The layer of a library as a function of a set of inputs, and its parameters."""
        if library == "pyg-compiled":
            torch._dynamo.reset()
        family = "gat_ext" if library == "gat_ext" else "pyg"
        with torch.device(self.case.device):
            module, parameters = make_layer(self.name, family, self.sizes, self.weights)
        function = torch.compile(module, dynamic=False) if library == "pyg-compiled" else module
        graph = self.case.graph if family == "gat_ext" else self.case.edge_index
        leaves = {"+".join(names): leaf for names, leaf in parameters.items()}
        return lambda tensors: function(tensors["x"], graph), leaves

    def results(self, library: str) -> Tensors:
        """Output and gradients for the first set of inputs."""
        function, parameters = self.program(library)
        tensors = self.sets[0]
        out = function(tensors)
        leaves = {"x": tensors["x"], **parameters}
        grads = torch.autograd.grad(out, list(leaves.values()), tensors["grad_out"])
        named = {f"grad {name}": g for name, g in zip(leaves, grads, strict=True)}
        return {"out": out.detach(), **named}

    def in_float64(self) -> LayerCase:
        """The same numbers, as a truth to compare with."""
        first = {name: t.detach().double() for name, t in self.sets[0].items()}
        first["x"].requires_grad_()
        weights = {name: t.double() for name, t in self.weights.items()}
        return replace(self, weights=weights, sets=[first])


def make_layer_case(row: Row, case: Case, sets: int) -> LayerCase:
    """Draws weights and ``sets`` sets of inputs."""
    name = row.layer
    assert name is not None
    generator = torch.Generator().manual_seed(1)
    sizes = Sizes(IN_CHANNELS, row.channels, row.heads)
    drawn = draw(LAYERS[name].shapes(sizes), row.dtype, generator)
    weights = {key: weight.to(case.device) for key, weight in drawn.items()}
    on_device = torch.Generator(case.device).manual_seed(2)
    dtype = getattr(torch, row.dtype)

    def normal(channels: int) -> Tensor:
        shape = (case.spec.num_src, channels)
        return torch.randn(shape, generator=on_device, device=case.device).to(dtype)

    inputs = [
        {"x": normal(IN_CHANNELS).requires_grad_(), "grad_out": normal(row.heads * row.channels)}
        for _ in range(sets)
    ]
    return LayerCase(name, case, sizes, weights, inputs)


def judge_layer(got: Tensors, want: Tensors, dtype: str, library: str) -> Verdict:
    """Output and every gradient against the truth."""
    errors = {name: difference(got[name], truth) for name, truth in want.items()}
    limit = tolerance(dtype, library)
    for name, error in errors.items():
        if not error <= limit:
            return Verdict(errors, f"'{name}' is off by {error:.1e} of its norm")
    return Verdict(errors, None)
