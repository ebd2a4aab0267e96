"""Linear maps of the layers: sparse inputs, lazy sizes and PyG's initialisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gat_ext.nn.features import SparseFeatures
from gat_ext.ops import linear_maps
from gat_ext.ops.head_terms import head_terms
from gat_ext.ops.state import has_global_hooks


def reset_(*parts: nn.Module | Tensor | None) -> None:
    """Resets linear maps, and tensors with Glorot's distribution, in the given order."""
    for part in parts:
        if isinstance(part, nn.Module):
            part.reset_parameters()  # type: ignore[operator]
        elif part is not None:
            glorot_(part)


def reset_children(module: nn.Module) -> None:
    """Resets the parameters of the modules inside a module; of containers, those within them."""
    for child in module.children():
        if hasattr(child, "reset_parameters"):
            reset_(child)
        else:
            reset_children(child)


def glorot_(tensor: Tensor) -> None:
    """Draws from U(±sqrt(6 / (rows + columns))) of the last two dimensions (Glorot and Bengio)."""
    bound = math.sqrt(6 / (tensor.shape[-2] + tensor.shape[-1]))
    nn.init.uniform_(tensor, -bound, bound)


class _TakesSparse(nn.Linear):
    def forward(self, x: Tensor | SparseFeatures) -> Tensor:
        """Maps [N, in_features] to [N, out_features]."""
        if isinstance(x, SparseFeatures):
            return x.linear(self.weight, self.bias)
        return linear_maps.linear(x, self.weight, self.bias)

    @property
    def in_channels(self) -> int:
        """PyG's name for in_features."""
        return self.in_features

    @property
    def out_channels(self) -> int:
        """PyG's name for out_features."""
        return self.out_features


class Projection(_TakesSparse):
    """``torch.nn.Linear`` that takes sparse features, too."""


class LazyProjection(_TakesSparse, nn.LazyLinear):
    """A ``Projection`` that takes in_features from its first input; its bias has a size at once."""

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
    """A ``Projection`` with Glorot's initialisation."""

    def reset_parameters(self) -> None:
        """Resets the parameters; draws as many random numbers as PyG's."""
        glorot_(self.weight)
        if self.bias is not None:
            bound = self.in_features**-0.5
            nn.init.uniform_(self.bias, -bound, bound)


class LazyGlorotLinear(LazyProjection):
    """A ``GlorotLinear`` that takes in_features from its first input."""

    cls_to_become = GlorotLinear  # type: ignore[assignment]

    def reset_parameters(self) -> None:
        """Resets the parameters, if their shape is known."""
        if self.in_features > 0:
            GlorotLinear.reset_parameters(self)  # type: ignore[arg-type]


def linear(in_channels: int, out_channels: int, *, bias: bool, glorot: bool = True) -> nn.Linear:
    """Creates a linear map; with ``in_channels`` -1 the first input sets the size."""
    if in_channels == -1:
        lazy = LazyGlorotLinear if glorot else LazyProjection
        return lazy(out_channels, bias=bias)
    kind = GlorotLinear if glorot else Projection
    return kind(in_channels, out_channels, bias=bias)


def weight_of(lin: nn.Module) -> Tensor | None:
    """The stored weight [out, in] of a projection; None if it has no size yet.

    None, too, if the weight is recomputed at each access (``torch.nn.utils.parametrize``), or if a
    module without a weight replaced the projection.
    """
    parametrized = "weight" in lin._modules.get("parametrizations", ())  # type: ignore[operator]
    weight = None if parametrized else getattr(lin, "weight", None)
    known = isinstance(weight, Tensor) and not isinstance(weight, UninitializedParameter)
    return weight if known else None


def is_plain_product(lin: nn.Module) -> bool:
    """True if a call of this projection only multiplies by its weight and runs no hooks."""
    return (
        type(lin).forward is _TakesSparse.forward
        and weight_of(lin) is not None
        and "forward" not in vars(lin)
        and not (lin._forward_hooks or lin._forward_pre_hooks)
        and not (lin._backward_hooks or lin._backward_pre_hooks)
        and not has_global_hooks()
    )


def dot_heads(x: Tensor, *att: Tensor) -> tuple[Tensor, ...]:
    """Dot products of x [N, H, C] and each of K vectors att [1, H, C], by head: K × [N, H]."""
    # Under autocast to float16, torch.cat raises for bfloat16 vectors.
    # The views give gradients the strides of att, which DistributedDataParallel expects.
    vectors = [a.flatten().view(a.shape) for a in att]
    joined = [a if a.dtype == x.dtype else a.to(x.dtype) for a in vectors]
    return head_terms(x, joined[0] if len(joined) == 1 else torch.cat(joined)).unbind(0)
