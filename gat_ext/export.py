"""Programs of layers and models for other runtimes: ONNX files, and torch.export with any sizes.

A program for ONNX consists of ONNX's own operators: while it is exported, by :func:`to_onnx` or by
``torch.onnx.export`` with ``dynamo=True``, layers and ``gat_ext.functional`` compute the formulas
of ``gat_ext.ops.scores`` in torch's operators, on the edges as they are given. A program of
:func:`to_program` has the operators of gat_ext.

Uses ``models``, ``nn`` and ``ops``.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from gat_ext.models import AttentionWalk
from gat_ext.models.walks import WalkModel
from gat_ext.nn import Reordered, WalkAgent
from gat_ext.ops.state import exporting_to_onnx

__all__ = ["largest_difference", "to_onnx", "to_program"]

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def to_program(
    model: nn.Module,
    args: tuple[Any, ...],
    path: str | os.PathLike[str] | None = None,
    *,
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> ExportedProgram:
    """The program of a model by ``torch.export``, for any numbers of nodes and edges.

    It has the operators of gat_ext, so it runs as fast as the model and is loaded after ``import
    gat_ext``; AOTInductor compiles it for C++.

    Args:
        model: a layer or a model, in evaluation mode.
        args: positional arguments of an example call: tensors, and dictionaries, lists or tuples
            of them. Edges are given as an edge_index [2, E].
        path: file to write, which ``torch.export.load`` loads; by convention, ``.pt2``.
        kwargs: keyword arguments of the call.
        dynamic_shapes: as of ``torch.export.export``; None lets the second dimension of an
            edge_index (integers [2, E]) and the first one of all other tensors vary.

    Returns:
        The program.

    Raises:
        TypeError: model is not a module, or has walking agents or no inputs; the arguments are not
            those of its forward, or one of them is a Graph.
        ValueError: the model is in training mode or a ``Reordered``; or a dimension that varies has
            the size 0 or 1 in the example, which torch.export treats as constants.

    Example:
        >>> import torch
        >>> from gat_ext.export import to_program
        >>> from gat_ext.models import GAT
        >>> edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> program = to_program(GAT(4, 8, 2).eval(), (torch.randn(3, 4), edge_index))
        >>> program.module()(torch.randn(9, 4), torch.tensor([[8, 3], [0, 0]])).shape
        torch.Size([9, 2])
    """
    program = _exported(model, args, kwargs, dynamic_shapes)
    if path is not None:
        torch.export.save(program, path)
    return program


def to_onnx(
    model: nn.Module,
    args: tuple[Any, ...],
    path: str | os.PathLike[str] | None = None,
    *,
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    **options: Any,
) -> Any:
    """The ONNX program of a model, for any numbers of nodes and edges.

    It consists of operators of ONNX, mostly Gather and ScatterElements, and gathers rows of
    features for each edge: a layer allocates E·H·F numbers, which the operators of gat_ext avoid.
    An index in edge_index that is not a node is not reported as in gat_ext, but by the runtime, if
    at all.

    ``torch.onnx.export(model, args, dynamo=True, dynamic_shapes=…)`` returns the same program.

    Args:
        model: as of :func:`to_program`.
        args: likewise.
        path: ``.onnx`` file to write.
        kwargs: as of :func:`to_program`.
        dynamic_shapes: likewise.
        **options: of ``torch.onnx.export``, such as input_names, output_names, opset_version.

    Returns:
        The ``torch.onnx.ONNXProgram``.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        TypeError, ValueError: as :func:`to_program`.

    Example:
        >>> import torch
        >>> from gat_ext.export import to_onnx
        >>> from gat_ext.nn import GATConv
        >>> edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> given = torch.randn(3, 4), edge_index
        >>> program = to_onnx(GATConv(4, 2).eval(), given)
        >>> [name.name for name in program.model.graph.inputs]
        ['x', 'edge_index']
    """
    _require("onnx", "onnxscript")
    with exporting_to_onnx():
        program = _exported(model, args, kwargs, dynamic_shapes)
    onnx = torch.onnx.export(program, dynamo=True, **{"verbose": False, **options})
    assert onnx is not None
    if path is not None:
        onnx.save(path)
    return onnx


def largest_difference(
    path: str | os.PathLike[str],
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
) -> float:
    """The largest difference between the results of a file and of its model.

    Args:
        path: of :func:`to_onnx` (``.onnx``), which onnxruntime runs on the CPU, or of
            :func:`to_program`.
        model: that was exported.
        args: positional arguments of a call, of any sizes.
        kwargs: keyword arguments of the call.

    Returns:
        The largest absolute difference over all numbers of all results; inf if one of them is NaN
        or infinite, and the other one is not the same.

    Raises:
        ImportError: onnxruntime is not installed, for an ONNX file.
        ValueError: the results have other shapes, or are not as many.

    Example:
        >>> import tempfile, torch
        >>> from gat_ext.export import largest_difference, to_program
        >>> from gat_ext.nn import GATConv
        >>> layer, path = GATConv(4, 2).eval(), tempfile.mkdtemp() + "/layer.pt2"
        >>> given = torch.randn(3, 4), torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> _ = to_program(layer, given, path)
        >>> largest_difference(path, layer, given) < 1e-6
        True
    """
    call = _call(model, args, kwargs)
    with torch.no_grad():
        wanted = _tensors(model(*call.args, **call.kwargs))
        if Path(path).suffix == ".onnx":
            found = _run_onnx(path, _tensors((call.args, call.kwargs)))
        else:
            found = _tensors(torch.export.load(path).module()(*call.args, **call.kwargs))
    shapes = [[list(t.shape) for t in results] for results in (wanted, found)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{path} has results of shapes {shapes[1]}; expected those of the model, {shapes[0]}: "
            "it is of another model"
        )
    return max(map(_difference, wanted, found), default=0.0)


def _difference(wanted: Tensor, found: Tensor) -> float:
    a, b = wanted.cpu().double(), found.double()
    same = (a == b) | (a.isnan() & b.isnan())
    distance = torch.where(same, 0, (a - b).abs()).nan_to_num(torch.inf, torch.inf)
    return float(distance.max()) if distance.numel() else 0.0


def _run_onnx(path: str | os.PathLike[str], inputs: list[Tensor]) -> list[Tensor]:
    _require("onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    feed = {n: t.cpu().numpy() for n, t in zip(names, inputs, strict=True)}
    return [torch.from_numpy(found) for found in session.run(None, feed)]


def _require(*names: str) -> None:
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ImportError(
                f"ONNX needs the package {name}, which is not installed: "
                "pip install 'gat_ext[onnx]'"
            )


# ---- the export, its checks, and which dimensions vary


def check(model: nn.Module) -> None:
    """Raises as :func:`to_program` for a model that cannot be exported."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
    for name, part in model.named_modules():
        _check_part(f"model.{name}" if name else "model", part)


def _call(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None
) -> inspect.BoundArguments:
    """The arguments in the order of the signature, which is that of the inputs of a program."""
    return inspect.signature(model.forward).bind(*args, **(kwargs or {}))


def _exported(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None, shapes: Any
) -> ExportedProgram:
    check(model)
    call = _call(model, args, kwargs)
    if shapes is None:
        shapes = pytree.tree_map_with_path(_varying, dict(call.arguments))
        for name, parameter in call.signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                shapes |= shapes.pop(name, {})
    with torch.no_grad():
        return torch.export.export(
            model, call.args, call.kwargs, dynamic_shapes=shapes, strict=False
        )


def _check_part(name: str, part: nn.Module) -> None:
    """Raises for a module that cannot be exported."""
    what = f"{name} is a {type(part).__name__}"
    if isinstance(part, (WalkModel, WalkAgent)):
        raise TypeError(
            f"{what}, whose agents draw random numbers at each step; expected a model of attention "
            "layers"
        )
    if isinstance(part, AttentionWalk):
        raise TypeError(
            f"{what}, whose embeddings are of the nodes of one graph, with no inputs to compute "
            "them from; save the tensor that model() returns"
        )
    if isinstance(part, Reordered):
        raise ValueError(
            f"{what}, which reads the values of the edges; export {name}.module, whose results are "
            "the same"
        )
    if part.training:
        raise ValueError(
            f"{what} in training mode; expected evaluation mode: call model.eval() first"
        )


def _varying(path: tuple[Any, ...], value: Any) -> dict[int, Any] | None:
    """The dimension that varies, of an argument at a path."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return None
    integers = not value.is_floating_point() and value.dtype != torch.bool
    dim = 1 if integers and value.dim() == 2 and value.shape[0] == 2 else 0
    if value.shape[dim] < 2:
        name = f"{path[0].key}{pytree.keystr(path[1:])}"
        raise ValueError(
            f"{name} has shape {list(value.shape)}; expected an example with at least 2 in "
            f"dimension {dim}, which varies: torch.export treats the sizes 0 and 1 as constants"
        )
    return {dim: Dim.DYNAMIC}


def _tensors(values: Any) -> list[Tensor]:
    return [each for each in pytree.tree_leaves(values) if isinstance(each, Tensor)]
