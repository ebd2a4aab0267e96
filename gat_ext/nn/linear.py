"""Linear maps of the layers, and how their parameters start.

They accept sparse features, take the number of inputs from the first input where it is -1, and are
initialised as PyG's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gat_ext.nn.features import SparseFeatures
from gat_ext.ops import linear_maps


def reset_(*parts: nn.Module | Tensor | None) -> None:
    """Draws new parameters for linear maps and, by Glorot's distribution, for vectors, in order."""
    for part in parts:
        if isinstance(part, nn.Module):
            part.reset_parameters()  # type: ignore[operator]
        elif part is not None:
            glorot_(part)


def glorot_(tensor: Tensor) -> None:
    """Uniform in ±sqrt(6 / (rows + columns)) of the last two dimensions (Glorot and Bengio)."""
    bound = math.sqrt(6 / (tensor.shape[-2] + tensor.shape[-1]))
    nn.init.uniform_(tensor, -bound, bound)


class _TakesSparse(nn.Linear):
    def forward(self, x: Tensor | SparseFeatures) -> Tensor:
        """[N, out_features] of [N, in_features]."""
        if isinstance(x, SparseFeatures):
            return x.linear(self.weight, self.bias)
        return linear_maps.linear(x, self.weight, self.bias)

    @property
    def in_channels(self) -> int:
        """in_features, by the name that it has in PyG's layers."""
        return self.in_features

    @property
    def out_channels(self) -> int:
        """out_features, by the name that it has in PyG's layers."""
        return self.out_features


class Projection(_TakesSparse):
    """``torch.nn.Linear`` that takes sparse features, too."""


class LazyProjection(_TakesSparse, nn.LazyLinear):
    """A ``Projection`` that takes its number of inputs from its first input.

    The bias has its size before, as PyG's.
    """

    cls_to_become = Projection  # type: ignore[assignment]

    def __init__(self, out_features: int, bias: bool) -> None:
        super().__init__(out_features, bias=False)
        if bias:
            self.bias = nn.Parameter(torch.empty(out_features))  # type: ignore[assignment]

    def initialize_parameters(self, x: Tensor | SparseFeatures) -> None:  # type: ignore[override]
        """Takes the size of x."""
        if self.has_uninitialized_params():  # type: ignore[no-untyped-call]
            with torch.no_grad():
                self.in_features = int(x.shape[-1])  # of a symbol while compiling
                self.weight.materialize((self.out_features, self.in_features))
                self.reset_parameters()


class GlorotLinear(Projection):
    """A ``Projection`` whose weight starts with Glorot's distribution."""

    def reset_parameters(self) -> None:
        """Draws new parameters, as many random numbers as PyG's."""
        glorot_(self.weight)
        if self.bias is not None:
            bound = self.in_features**-0.5
            nn.init.uniform_(self.bias, -bound, bound)


class LazyGlorotLinear(LazyProjection):
    """A ``GlorotLinear`` that takes its number of inputs from its first input."""

    cls_to_become = GlorotLinear  # type: ignore[assignment]

    def reset_parameters(self) -> None:
        """Draws new parameters, once their shape is known."""
        if self.in_features > 0:
            GlorotLinear.reset_parameters(self)  # type: ignore[arg-type]


def linear(in_channels: int, out_channels: int, *, bias: bool, glorot: bool = True) -> nn.Linear:
    """A linear map; of ``in_channels`` -1 the size is that of the first input."""
    if in_channels == -1:
        lazy = LazyGlorotLinear if glorot else LazyProjection
        return lazy(out_channels, bias=bias)
    kind = GlorotLinear if glorot else Projection
    return kind(in_channels, out_channels, bias=bias)


def weight_of(lin: nn.Module) -> Tensor | None:
    """The weight [out, in] of a projection as it is stored; None where it has no size yet.

    None, too, where the weight is recomputed each time (``torch.nn.utils.parametrize``), or where
    the projection was replaced by a module without a weight.
    """
    parametrized = "weight" in lin._modules.get("parametrizations", ())  # type: ignore[operator]
    weight = None if parametrized else getattr(lin, "weight", None)
    known = isinstance(weight, Tensor) and not isinstance(weight, UninitializedParameter)
    return weight if known else None


def is_plain_product(lin: nn.Module) -> bool:
    """Whether a call of this projection is the product with its weight alone, without hooks."""
    return (
        type(lin).forward is _TakesSparse.forward
        and weight_of(lin) is not None
        and "forward" not in vars(lin)
        and not (lin._forward_hooks or lin._forward_pre_hooks)
        and not (lin._backward_hooks or lin._backward_pre_hooks)
    )
