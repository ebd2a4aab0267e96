"""PyG's layers that compute with the kernels here. Imports torch_geometric."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric import nn as pyg
from torch_geometric.nn.dense import linear

from gat_ext import nn
from gat_ext.nn.linear import Projection

# Hooks of MessagePassing that see messages, which the kernels never make.
_HOOKS = tuple(
    f"_{step}_forward_{when}"
    for step in ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
    for when in ("pre_hooks", "hooks")
)
_METHODS = ("message", "explain_message", "aggregate", "update", "edge_update", "edge_updater")


class _Fused:
    """Decides for each call of a layer who computes it, and hands PyG's mask of an explanation to the kernels."""

    classes: ClassVar[dict[type, type]] = {}  # of PyG: the class that replaces it
    fused: type[torch.nn.Module]
    plain: type[torch.nn.Module]
    feat_dropout = 0.0  # which PyG's layers do not have

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers a class with the bases (_Fused, ours, PyG's), and gives it ours' signature."""
        super().__init_subclass__(**kwargs)
        if _Fused in cls.__bases__:
            _, cls.fused, cls.plain = cls.__bases__
            _Fused.classes[cls.plain] = cls

        @functools.wraps(cls.fused.forward)
        def forward(self: _Fused, *args: Any, **kwargs: Any) -> Any:
            return self._forward(args, kwargs)

        cls.forward = forward  # type: ignore[attr-defined]

    def _forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._messages_are_looked_at():
            return self.plain.forward(self, *args, **kwargs)  # type: ignore[arg-type]
        if self.explain:  # type: ignore[attr-defined]
            kwargs["edge_mask"] = self._mask_of_explanation()
        return self.fused.forward(self, *args, **kwargs)  # type: ignore[arg-type]

    def _set_jittable_templates(self, raise_on_error: bool = False) -> None:
        """Nothing: a copy needs no other ``propagate`` than the one that PyG made for its own class."""

    def _messages_are_looked_at(self) -> bool:
        own = vars(self)
        if own["flow"] != "source_to_target":
            return True  # turned round since it was swapped
        if any(own[name] for name in _HOOKS) or any(name in own for name in _METHODS):
            return True
        # PyG itself puts one of its two versions there when an explanation begins and ends.
        propagate = getattr(own.get("propagate"), "__func__", None)
        its_own = (getattr(self.plain, f"_{name}_propagate", None) for name in ("orig", "jinja"))
        return propagate is not None and propagate not in its_own

    def _mask_of_explanation(self) -> Tensor:
        mask: Tensor | None = self._edge_mask  # type: ignore[attr-defined]
        if mask is None:
            raise ValueError(
                f"{self} is to be explained, but has no edge mask; use an Explainer of PyG, or "
                "torch_geometric.explain.algorithm.utils.set_masks"
            )
        return mask.sigmoid() if self._apply_sigmoid else mask  # type: ignore[attr-defined]


class GATConv(_Fused, nn.GATConv, pyg.GATConv):  # type: ignore[misc]
    """PyG's GATConv on the kernels of :class:`gat_ext.nn.GATConv`."""


class GATv2Conv(_Fused, nn.GATv2Conv, pyg.GATv2Conv):  # type: ignore[misc]
    """PyG's GATv2Conv on the kernels of :class:`gat_ext.nn.GATv2Conv`."""


class TransformerConv(_Fused, nn.TransformerConv, pyg.TransformerConv):  # type: ignore[misc]
    """PyG's TransformerConv on the kernels of :class:`gat_ext.nn.TransformerConv`."""


class AGNNConv(_Fused, nn.AGNNConv, pyg.AGNNConv):  # type: ignore[misc]
    """PyG's AGNNConv on the kernels of :class:`gat_ext.nn.AGNNConv`."""


class Linear(linear.Linear):  # type: ignore[misc]
    """PyG's linear map, with the product of :mod:`gat_ext.nn`'s."""

    forward = Projection.forward


def kind_of(module: torch.nn.Module) -> str | None:
    """The name of the layer's class, of a layer of PyG that could be swapped, or of a class derived from one."""
    if isinstance(module, _Fused):
        return None
    return next((plain.__name__ for plain in _Fused.classes if isinstance(module, plain)), None)


def reason_to_leave(module: Any) -> str | None:
    """Why a layer cannot be swapped; None if it can."""
    if type(module) not in _Fused.classes:
        return f"is of the derived class {type(module).__name__}, which may compute something else"
    if module.flow != "source_to_target":
        return f"has flow={module.flow!r}"
    if module.aggr not in ("add", "sum"):
        return f"has aggr={module.aggr!r}"
    if module.decomposed_layers != 1:
        return f"has decomposed_layers={module.decomposed_layers}"
    return None


def swap(module: Any) -> None:
    """Makes the layer one of the classes above, and its linear maps of PyG such that take the package's products."""
    for child in module._modules.values():
        if type(child) is linear.Linear:
            child.__class__ = Linear
    module.__class__ = _Fused.classes[type(module)]
