"""PyG's attention layers on the operators here, for code that imports layers from PyG.

:class:`GATConv`, :class:`GATv2Conv`, :class:`TransformerConv`, :class:`AGNNConv`,
:class:`SuperGATConv`, :class:`RGATConv`, :class:`HEATConv`, :class:`HGTConv`, :class:`FAConv`,
:class:`HANConv` and :class:`PointTransformerConv` are subclasses of PyG's layers of these names,
with their arguments, parameters, state_dicts and results. Unlike the layers of :mod:`gat_ext.nn`,
they work with ``to_hetero``, the explainers and ``isinstance``:

    from gat_ext.interop.pyg import GATConv  # instead of torch_geometric.nn

Attention and sum are one operator, which sees no messages. So PyG's own code computes a call if
hooks read messages (as those of AttentionExplainer), if a derived class or an object has its own
``message`` or a similar method, or if ``aggr``, ``flow`` or ``decomposed_layers`` are not the
defaults. Edge masks of explanations go to the operator.

This module imports torch_geometric, and raises ImportError if it is missing or too old.
"""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from gat_ext import nn
from gat_ext.nn.base import AttentionConv
from gat_ext.nn.first_call import FirstCall
from gat_ext.nn.linear import Projection
from gat_ext.nn.typed import TypedLinear

try:
    import torch_geometric
    from torch_geometric import nn as pyg
    from torch_geometric.nn.dense import linear
except ImportError as error:
    raise ImportError(
        f"gat_ext.interop.pyg needs PyTorch Geometric: pip install torch_geometric ({error})"
    ) from error

__all__ = [
    "AGNNConv",
    "FAConv",
    "GATConv",
    "GATv2Conv",
    "HANConv",
    "HEATConv",
    "HGTConv",
    "PointTransformerConv",
    "RGATConv",
    "SuperGATConv",
    "TransformerConv",
]

OLDEST, NEWEST = (2, 3), (2, 8)


def check_version(version: str) -> tuple[int, int]:
    """(major, minor) of a version of PyG.

    Raises:
        ImportError: it is older than the oldest that is tested. A newer one is a UserWarning.
    """
    major, minor = map(int, re.match(r"(\d+)\.(\d+)", version).groups())  # type: ignore[union-attr]
    tested = f"PyG {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    if (major, minor) < OLDEST:
        raise ImportError(f"PyG {version} is installed; gat_ext.interop needs {tested}")
    if (major, minor) > NEWEST:
        message = f"PyG {version} is newer than what gat_ext.interop was tested with, {tested}"
        warnings.warn(message, stacklevel=2)
    return major, minor


VERSION = check_version(torch_geometric.__version__)

# Maps of GATConv and GATv2Conv, and the version of PyG that has them first. Before it, the layer of
# gat_ext reads None: one map for both ends of an edge was stored as lin_src and lin_dst, and there
# was no residual.
_ABSENT = {name for name, since in {"lin": (2, 5), "res": (2, 6)}.items() if since > VERSION}

# Hooks of MessagePassing that see messages, which the operators never compute.
_HOOKS = tuple(
    f"_{step}_forward_{when}"
    for step in ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
    for when in ("pre_hooks", "hooks")
)
_METHODS = ("message", "explain_message", "aggregate", "update", "edge_update", "edge_updater")
_OVERRIDES = (*_METHODS, "propagate", "message_and_aggregate")
_GENERATED = ("propagate", "edge_updater")
_ASKED = "return_attention_weights"


class _Fused:
    """Chooses who computes each call of a layer, and passes on the mask of an explanation."""

    classes: ClassVar[dict[type, type]] = {}  # of PyG: the class that replaces it
    fused: type[torch.nn.Module]
    plain: type[torch.nn.Module]
    overrides: ClassVar[bool] = False  # a derived class with a method that only PyG's code calls
    known_to_pyg = True
    feat_dropout = 0.0  # which PyG's layers do not have

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers a class with the bases (_Fused, ours, PyG's), and gives it ours' signature."""
        if _Fused not in cls.__bases__:
            skipped: Any = AttentionConv if issubclass(cls, AttentionConv) else _Fused
            super(skipped, cls).__init_subclass__(**kwargs)
            # Else it would inherit those that PyG generated from the messages of its own class.
            general = {name: getattr(pyg.MessagePassing, name) for name in _GENERATED}
            own = cls.__mro__[: cls.__mro__.index(_Fused.classes[cls.plain])]
            methods = {item for kind in own for item in vars(kind).items() if item[0] in _OVERRIDES}
            overridden = dict(methods - general.items())
            cls.overrides = bool(overridden)
            for name in general.keys() - overridden.keys():
                setattr(cls, name, general[name])
            return
        super().__init_subclass__(**kwargs)
        _, cls.fused, cls.plain = cls.__bases__
        _Fused.classes[cls.plain] = cls
        forward = cls.fused.forward
        # Until 2.8 all of PyG's layers returned weights for False, too; these two still do.
        false_asks = VERSION < (2, 8) or cls.plain in (pyg.TransformerConv, pyg.FAConv)
        names = [*inspect.signature(forward).parameters]
        false_asks = false_asks and _ASKED in names
        cls._false_at = names.index(_ASKED) - 1 if false_asks else None  # type: ignore[attr-defined]

        @functools.wraps(forward)
        def wrapped(self: _Fused, *args: Any, **kwargs: Any) -> Any:
            return self._forward(args, kwargs)

        cls.forward = wrapped  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes the arguments of PyG's layer."""
        kind = type(self)
        if kind is _Fused.classes[kind.plain]:
            # Built as PyG's own, for which PyG generates code that depends on the class.
            object.__setattr__(self, "__class__", kind.plain)
        try:
            kind.plain.__init__(self, *args, **kwargs)  # type: ignore[arg-type]
        finally:
            object.__setattr__(self, "__class__", kind)
        if kind.overrides:
            return
        _adapt(self)
        if (why := _settings(self)) is not None:
            warnings.warn(f"{kind.__name__} {why}, so PyG's own code computes it", stacklevel=2)

    def _forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._messages_are_looked_at():
            return self.plain.forward(self, *args, **kwargs)  # type: ignore[arg-type]
        position: int | None = self._false_at  # type: ignore[attr-defined]
        if position is not None and (False in (kwargs.get(_ASKED), *args[position:])):
            args, kwargs = args[:position], kwargs | {_ASKED: True}
        if self.explain:  # type: ignore[attr-defined]
            kwargs["edge_mask"] = self._mask_of_explanation()
        return self.fused.forward(self, *args, **kwargs)  # type: ignore[arg-type]

    def _set_jittable_templates(self, raise_on_error: bool = False) -> None:
        """Does nothing: a copy needs only the ``propagate`` that PyG made for its own class."""

    def _messages_are_looked_at(self) -> bool:
        own = vars(self)
        if self.overrides or _settings(self) is not None:
            return True
        if any(own[name] for name in _HOOKS) or any(name in own for name in _METHODS):
            return True
        # PyG itself puts one of its two versions there when an explanation begins and ends.
        propagate = getattr(own.get("propagate"), "__func__", None)
        if propagate is None:
            return False
        its_own = (
            getattr(kind, f"_{name}_propagate", None)
            for kind in (self.plain, type(self))
            for name in ("orig", "jinja")
        )
        return propagate not in its_own

    def _mask_of_explanation(self) -> Tensor:
        mask: Tensor | None = self._edge_mask  # type: ignore[attr-defined]
        if mask is None:
            raise ValueError(
                f"{self} is to be explained, but has no edge mask; use an Explainer of PyG, or "
                "torch_geometric.explain.algorithm.utils.set_masks"
            )
        return mask.sigmoid() if self._apply_sigmoid else mask  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        """As PyG's, and whether the operators here compute it."""
        computed_here = not self.overrides and _settings(self) is None
        name = self.fused.__repr__(self)  # type: ignore[arg-type]
        return f"{name}{' [gat_ext]' if computed_here else ''}"


def _or_none(self: Any, name: str) -> Any:
    """None for a map that the layers of this version of PyG lack."""
    return None if name in _ABSENT else super(_Fused, self).__getattr__(name)  # type: ignore[misc]


class GATConv(_Fused, nn.GATConv, pyg.GATConv):  # type: ignore[misc]
    """PyG's GATConv on the operator of :class:`gat_ext.nn.GATConv`.

    Example:
        >>> import torch_geometric.nn
        >>> from gat_ext.interop.pyg import GATConv
        >>> layer = GATConv(16, 8, heads=2)
        >>> layer, isinstance(layer, torch_geometric.nn.GATConv)
        (GATConv(16, 8, heads=2) [gat_ext], True)
    """

    if _ABSENT:
        __getattr__ = _or_none

    def _forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before PyG 2.5 one tensor goes through the sources' map at both ends of an edge."""
        x = args[0] if args else kwargs.get("x")
        if VERSION < (2, 5) and isinstance(x, Tensor) and self.lin_src is not self.lin_dst:
            return pyg.GATConv.forward(self, *args, **kwargs)
        return super()._forward(args, kwargs)


class GATv2Conv(_Fused, nn.GATv2Conv, pyg.GATv2Conv):  # type: ignore[misc]
    """PyG's GATv2Conv on the operator of :class:`gat_ext.nn.GATv2Conv`."""

    if _ABSENT:
        __getattr__ = _or_none


class TransformerConv(_Fused, nn.TransformerConv, pyg.TransformerConv):  # type: ignore[misc]
    """PyG's TransformerConv on the operator of :class:`gat_ext.nn.TransformerConv`."""


class AGNNConv(_Fused, nn.AGNNConv, pyg.AGNNConv):  # type: ignore[misc]
    """PyG's AGNNConv on the operator of :class:`gat_ext.nn.AGNNConv`."""


class SuperGATConv(_Fused, nn.SuperGATConv, pyg.SuperGATConv):  # type: ignore[misc]
    """PyG's SuperGATConv on the operator of :class:`gat_ext.nn.SuperGATConv`."""


class RGATConv(_Fused, nn.RGATConv, pyg.RGATConv):  # type: ignore[misc]
    """PyG's RGATConv on the operator of :class:`gat_ext.nn.RGATConv`."""


class HEATConv(_Fused, nn.HEATConv, pyg.HEATConv):  # type: ignore[misc]
    """PyG's HEATConv on the operator of :class:`gat_ext.nn.HEATConv`."""


class HGTConv(_Fused, nn.HGTConv, pyg.HGTConv):  # type: ignore[misc]
    """PyG's HGTConv on the operator of :class:`gat_ext.nn.HGTConv`."""

    def _forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """PyG's own code explains: its mask is one of the edges of all relations."""
        if self.explain:
            return pyg.HGTConv.forward(self, *args, **kwargs)
        return super()._forward(args, kwargs)


class FAConv(_Fused, nn.FAConv, pyg.FAConv):  # type: ignore[misc]
    """PyG's FAConv on the operators of :class:`gat_ext.nn.FAConv`."""


class PointTransformerConv(_Fused, nn.PointTransformerConv, pyg.PointTransformerConv):  # type: ignore[misc]
    """PyG's PointTransformerConv on the operators of :class:`gat_ext.nn.PointTransformerConv`."""


class HANConv(_Fused, nn.HANConv, pyg.HANConv):  # type: ignore[misc]
    """PyG's HANConv on the operator of :class:`gat_ext.nn.HANConv`, except while it is explained.

    An explanation has one mask, for which PyG's own code has to find the edges.
    """

    def _messages_are_looked_at(self) -> bool:
        return bool(self.explain) or super()._messages_are_looked_at()


class Linear(linear.Linear):  # type: ignore[misc]
    """PyG's linear map, with the product of :mod:`gat_ext.nn`'s."""

    forward = Projection.forward


class HeteroLinear(linear.HeteroLinear):  # type: ignore[misc]
    """PyG's linear map for each type, with the products of :mod:`gat_ext.nn`'s."""

    forward = TypedLinear.forward


_OF_TYPES: Any = linear.HeteroDictLinear
_MAPS: dict[type, type] = {linear.Linear: Linear, linear.HeteroLinear: HeteroLinear}


def kind_of(module: torch.nn.Module) -> str | None:
    """The name of a convolution's class, or of the layer of :func:`swap` from which it derives."""
    if not isinstance(module, pyg.MessagePassing):
        return None
    derived = (plain.__name__ for plain in _Fused.classes if isinstance(module, plain))
    return next(derived, type(module).__name__)


def reason_to_leave(module: Any) -> str | None:
    """Why a convolution cannot be swapped; None if it can."""
    kind = type(module)
    if not isinstance(module, tuple(_Fused.classes)):
        return "has no counterpart in gat_ext"
    if isinstance(module, _Fused) and not module.overrides:
        return "is already patched"
    if kind not in _Fused.classes:
        return f"is of the derived class {kind.__name__}, which may compute something else"
    return _settings(module)


def _settings(module: Any) -> str | None:
    """Which setting of a layer the operators lack; None if they have them all."""
    if module.flow != "source_to_target":
        return f"has flow={module.flow!r}"
    if module.aggr not in ("add", "sum"):
        return f"has aggr={module.aggr!r}"
    if isinstance(module, pyg.HGTConv) and VERSION < (2, 4):
        return "has other parameters before PyG 2.4"
    if module.decomposed_layers != 1:
        return f"has decomposed_layers={module.decomposed_layers}"
    return None


class _FirstCall(FirstCall):
    """Gives PyG's lazy maps their sizes."""

    def take_size(self, lin: torch.nn.Module, x: Any) -> None:
        """As the hook of PyG's lazy map, which is an attribute of it until it has a size."""
        if not _is_lazy(lin):
            return
        of_types = isinstance(x, Mapping)
        sizes = {name: int(rows.shape[-1]) for name, rows in (x if of_types else {"": x}).items()}
        # Of numbers, not of symbols while compiling.
        empty = {name: torch.empty(1, size) for name, size in sizes.items()}
        lin.initialize_parameters(lin, (empty if of_types else empty[""],))  # type: ignore[operator]


def _is_lazy(lin: torch.nn.Module | None) -> bool:
    return isinstance(lin, (*_MAPS, _OF_TYPES)) and "_hook" in vars(lin)


def _children(module: Any) -> list[Any]:
    """The modules of a layer, and those that it has by types."""
    children = list(module._modules.values())
    dictionaries = [child for child in children if isinstance(child, torch.nn.ModuleDict)]
    return children + [child for each in dictionaries for child in each.values()]


def _swap_maps(module: Any, new_of: dict[type, type]) -> None:
    for child in _children(module):
        if isinstance(child, _OF_TYPES):
            _swap_maps(child.lins, new_of)
        elif type(child) in new_of:
            child.__class__ = new_of[type(child)]


def _adapt(module: Any) -> None:
    """Gives linear maps of PyG the package's products, and lazy ones a first call."""
    _swap_maps(module, _MAPS)
    if any(map(_is_lazy, _children(module))):
        object.__setattr__(module, "_first_call", _FirstCall(module))


def swap(module: Any) -> None:
    """Gives a layer one of the classes above, and its linear maps of PyG the package's products."""
    _adapt(module)
    module.__class__ = _Fused.classes[type(module)]


def unswap(module: Any) -> bool:
    """Makes a layer of one of the classes above PyG's again; False for any other module."""
    plain = next((plain for plain, kind in _Fused.classes.items() if type(module) is kind), None)
    if plain is None:
        return False
    _swap_maps(module, dict(zip(_MAPS.values(), _MAPS, strict=True)))
    vars(module).pop("_first_call", None)
    module.__class__ = plain
    return True
