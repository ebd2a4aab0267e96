"""Errors of layers and models for tracers that cannot run them.

torch.compile, torch.export, ``make_fx`` and ``torch.func`` trace the operators. TorchScript does
not, nor does ``torch.fx.symbolic_trace``, which runs Python code on placeholders; PyG's
``to_hetero`` traces around a layer, but distinguishes only PyG's own from other modules.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any, ClassVar, NoReturn

import torch
from torch import nn
from torch.fx import Proxy

from gat_ext.graph.sharded import ShardedGraph
from gat_ext.ops.state import break_graph


def check_is_no_proxy(module: nn.Module, *values: Any) -> None:
    """Raises TypeError if a value is the placeholder of a symbolic trace."""
    for value in values:
        if isinstance(value, Proxy):
            if _is_pygs(value):
                _raise_unknown_to_pyg(module)
            raise TypeError(
                f"torch.fx cannot trace {type(module).__name__} of {_room(module)}, which reads "
                "its inputs; use torch.export.export, or a torch.fx.Tracer that makes it a leaf"
            )


def _is_pygs(proxy: Proxy) -> bool:
    return type(proxy.tracer).__module__.startswith("torch_geometric.")


def _raise_unknown_to_pyg(module: nn.Module) -> NoReturn:
    kinds = (k for k in type(module).__mro__ if k.__module__.startswith("gat_ext.nn.conv."))
    layer = next((k.__name__ for k in kinds), "the layers")
    raise TypeError(
        f"to_hetero of PyG transforms PyG's layers only, and {type(module).__name__} of "
        f"{_room(module)} is none; import {layer} from gat_ext.interop.pyg instead"
    )


def _room(module: nn.Module) -> str:
    """Its room: gat_ext.nn or gat_ext.models, for example."""
    return ".".join(type(module).__module__.split(".")[:2])


_CALL_OF_MODULE = nn.Module.__call__


def _call(self: TracedModule, *args: Any, **kwargs: Any) -> Any:
    """Runs the module; raises TypeError in a transformation of PyG that does not know it."""
    tracing = nn.Module.__call__ is not _CALL_OF_MODULE  # torch.fx replaces it during a trace
    # A compiled layer may have become PyG's since, which knows itself.
    if tracing and not getattr(self, "known_to_pyg", True):
        for value in (*args, *kwargs.values()):
            if isinstance(value, Proxy) and _is_pygs(value):
                _raise_unknown_to_pyg(self)
    if torch.compiler.is_compiling() and _contains_shards((*args, *kwargs.values())):
        # The compiler cannot trace the exchange of rows: the module runs as it is written.
        break_graph(_SHARDS)
        return torch.compiler.disable(nn.Module.__call__)(self, *args, **kwargs)
    return nn.Module.__call__(self, *args, **kwargs)


_SHARDS = "modules run eagerly over a DistGraph; compile without fullgraph"


def _contains_shards(values: tuple[Any, ...]) -> bool:
    """True if a value, or one of a dict, is a DistGraph."""
    for value in values:
        inner = value.values() if isinstance(value, dict) else (value,)
        if any(isinstance(each, ShardedGraph) for each in inner):
            return True
    return False


class TracedModule(nn.Module):
    """Base class of layers and models: what TorchScript and PyG's transformations are told.

    Attributes:
        known_to_pyg: whether PyG's transformations treat it as a layer of their own.
    """

    known_to_pyg: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Gives each class a ``__call__`` of its own.

        torch.compile limits the recompilations of a code object, whichever classes share it.
        """
        super().__init_subclass__(**kwargs)
        inherited = cls.__call__
        if (
            inherited is nn.Module.__call__
            or getattr(inherited, "__code__", None) == _call.__code__
        ):
            call = FunctionType(_call.__code__.replace(), globals(), "__call__")
            cls.__call__ = call  # type: ignore[method-assign]

    def _slow_forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises NotImplementedError; a trace of TorchScript calls it in place of forward."""
        self.__prepare_scriptable__()

    def __prepare_scriptable__(self) -> NoReturn:
        """Raises NotImplementedError: torch.jit.script calls it for every module first."""
        others = "; for TorchScript, unpatch_pyg(model) first" if self.known_to_pyg else ""
        raise NotImplementedError(
            "TorchScript (torch.jit.trace, torch.jit.script, torch.onnx.export with dynamo=False) "
            f"is not supported by {type(self).__name__} of {_room(self)}; use torch.export.export "
            f"or torch.compile, and torch.onnx.export with dynamo=True for ONNX{others}"
        )
