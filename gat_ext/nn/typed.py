"""Linear maps and parameters of types: of rows with a vector of types, and of dictionaries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter

from gat_ext.functional import checks
from gat_ext.graph.cache import cached
from gat_ext.graph.order import inverse
from gat_ext.nn.features import SparseFeatures
from gat_ext.nn.linear import linear, reset_
from gat_ext.ops import linear_maps
from gat_ext.ops.state import is_tracing


def check_rows(types: Tensor, count: int, name: str, what: str) -> None:
    """Raises unless ``types`` is int64 [count]; arguments as of :func:`check_types`."""
    checks.index_vector(types, name, f"a vector, the {what}")
    if types.shape[0] != count:  # the message is built here, because a count may be a symbol
        raise ValueError(f"{name} has shape {list(types.shape)}; expected [{count}], the {what}")


def check_types(types: Tensor, count: int, name: str, what: str, num_types: int) -> None:
    """Raises unless ``types`` is int64 [count], from 0 to num_types - 1.

    Values are read once until they are modified; a trace does not read them.

    Args:
        types: the types of nodes or edges.
        count: the number of nodes or edges.
        name: of the argument, in errors.
        what: "type of each node", for example, in errors.
        num_types: number of types.
    """
    check_rows(types, count, name, what)
    if not is_tracing():
        key = ("types", num_types, name)
        cached((types,), key, lambda: checks.in_range(types, num_types, name, "their number"))


class TypedLinear(nn.Module):
    """W_t x + b_t of rows x of type t, with the parameters and initial weights of PyG's layer.

    Args:
        in_channels: size of the rows; -1 is for :class:`LazyTypedLinear`.
        out_channels: size of the results.
        num_types: number of types.
        bias: add a learned bias for each type.
    """

    bias: nn.Parameter | None

    def __init__(self, in_channels: int, out_channels: int, num_types: int, bias: bool) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.num_types = in_channels, out_channels, num_types
        self._create_weight()
        empty = nn.Parameter(torch.empty(num_types, out_channels)) if bias else None
        self.register_parameter("bias", empty)
        self.reset_parameters()

    def _create_weight(self) -> None:
        shape = self.num_types, self.in_channels, self.out_channels
        self.weight = nn.Parameter(torch.empty(shape))

    def reset_parameters(self) -> None:
        """Draws both from U(±1 / sqrt(in_channels))."""
        if self.in_channels < 1:
            return
        bound = math.sqrt(6 / ((1 + math.sqrt(5) ** 2) * self.in_channels))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_channels)
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor | SparseFeatures, type_vec: Tensor) -> Tensor:
        """Maps x [N, in_channels], or [N, B, in_channels] of a batch.

        While tracing, and for sparse x, it computes the products of all types.
        """
        num_types, bias = self.num_types, self.bias
        if isinstance(x, SparseFeatures) or is_tracing():
            rows = self.weight.transpose(1, 2).flatten(0, 1)
            if isinstance(x, SparseFeatures):
                of_all = x.linear(rows)
            else:
                of_all = linear_maps.linear(x.flatten(0, -2), rows)
            of_all = of_all.view(*x.shape[:-1], num_types, self.out_channels)
            index = type_vec.view(-1, *[1] * (of_all.dim() - 1))
            index = index.expand(*of_all.shape[:-2], 1, of_all.shape[-1])
            out = of_all.gather(-2, index).squeeze(-2)
        else:
            order, place, counts = cached(
                (type_vec,), ("by type", num_types), lambda: _by_type(type_vec, num_types)
            )
            width = x.shape[-1]
            parts = [
                linear_maps.linear(part.reshape(-1, width), weight.t())
                for part, weight in zip(x[order].split(counts.tolist()), self.weight, strict=True)
            ]
            out = torch.cat(parts).view(*x.shape[:-1], self.out_channels)[place]
        if bias is None:
            return out
        of_nodes = bias[type_vec]
        return out + (of_nodes if out.dim() == 2 else of_nodes.unsqueeze(1))

    def extra_repr(self) -> str:
        """The sizes."""
        sizes = f"{self.in_channels}, {self.out_channels}, num_types={self.num_types}"
        return f"{sizes}, bias={self.bias is not None}"


def _by_type(types: Tensor, num_types: int) -> tuple[Tensor, Tensor, Tensor]:
    """(rows by type, the place of each row among them, number of rows of each type)."""
    order = types.argsort(stable=True)
    return order, inverse(order), torch.bincount(types, minlength=num_types).cpu()


class LazyTypedLinear(LazyModuleMixin, TypedLinear):  # type: ignore[misc]
    """A ``TypedLinear`` that takes in_channels from its first input."""

    cls_to_become = TypedLinear

    def _create_weight(self) -> None:
        self.weight = UninitializedParameter()  # type: ignore[assignment]

    def initialize_parameters(self, x: Tensor | SparseFeatures, *_: Tensor) -> None:
        """Takes the size of x."""
        if self.has_uninitialized_params():  # type: ignore[no-untyped-call]
            with torch.no_grad():
                self.in_channels = int(x.shape[-1])
                shape = self.num_types, self.in_channels, self.out_channels
                self.weight.materialize(shape)  # type: ignore[attr-defined]
                self.reset_parameters()


class DictLinear(nn.Module):
    """W_t x + b_t of the rows of each type of a dictionary, with the parameters of PyG's layer.

    Args:
        in_channels: size of the rows of each type; -1 is for :class:`LazyDictLinear`.
        out_channels: size of the results.
    """

    def __init__(self, in_channels: Mapping[str, int], out_channels: int) -> None:
        super().__init__()
        self.lins = nn.ModuleDict(
            {
                name: linear(size, out_channels, bias=True, glorot=False)
                for name, size in in_channels.items()
            }
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets the map of each type."""
        reset_(*self.lins.values())

    def forward(self, x_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps the rows [N_t, in_channels] of the types that the dictionary has."""
        return {name: lin(x_dict[name]) for name, lin in self.lins.items() if name in x_dict}


class LazyDictLinear(LazyModuleMixin, DictLinear):  # type: ignore[misc]
    """A ``DictLinear`` that takes the sizes of some types from its first input."""

    cls_to_become = DictLinear

    def initialize_parameters(self, x_dict: Mapping[str, Tensor]) -> None:
        """Takes the sizes of the types that the dictionary has; draws as PyG's, twice."""
        for name, x in x_dict.items():
            lin = self.lins[name]
            if isinstance(lin, LazyModuleMixin):
                known = not lin.has_uninitialized_params()  # type: ignore[no-untyped-call]
                lin._infer_parameters(lin, (x,))  # type: ignore[no-untyped-call]
                reset_(None if known else lin)


def parameter_name(key: str) -> str:
    """The name that PyG gives the parameter of a type; that of a name is the name itself.

    Example:
        >>> parameter_name("a__v1.0__b"), parameter_name("get"), parameter_name("<get>")
        ('a__v1#0__b', '<get>', '<get>')
    """
    return (f"<{key}>" if hasattr(nn.ParameterDict, key) else key).replace(".", "#")


def parameters_of_types(keys: Iterable[str], *shape: int) -> nn.ParameterDict:
    """Uninitialised parameters of one shape, in the order of the keys, named as PyG's."""
    parameters = nn.ParameterDict()
    for key in keys:
        parameters[parameter_name(key)] = nn.Parameter(torch.empty(shape))
    return parameters
