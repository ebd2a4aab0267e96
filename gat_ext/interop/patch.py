"""The layers of a PyG model on the operators here, and back."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn


class PatchReport(NamedTuple):
    """What :func:`patch_pyg` did.

    Attributes:
        swapped: (name of the module, its class) of each layer that now runs on the operators here.
        left: (name of the module, why) of each of PyG's convolutions that stayed as it was.
    """

    swapped: tuple[tuple[str, str], ...]
    left: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        """One line for each layer."""
        lines = [f"swapped {name or '(the model)'}: {kind}" for name, kind in self.swapped]
        lines += [f"left {name or '(the model)'}: {why}" for name, why in self.left]
        return "\n".join(lines or ["no attention layers of PyG"])


def patch_pyg(model: nn.Module) -> PatchReport:
    """Has the attention layers of a PyG model run on the operators here, in place.

    These are the layers that have the name of one of :mod:`gat_ext.nn`. They become instances of
    the classes of :mod:`gat_ext.interop.pyg`, which derive from PyG's; they and their linear maps
    stay the objects they are, with their parameters, buffers, hooks, mode, device and names, so
    optimizers and checkpoints go on as before. Their repr ends in ``[gat_ext]``.

    PyG's explainers and ``to_hetero`` work, before or after. Edge masks (GNNExplainer) go to the
    operators; where a hook asks for messages (AttentionExplainer), or a method of the layer was
    replaced, PyG's own code computes the call.

    PyG 2.3 to 2.8 are supported; under a newer one a warning says that it was not tested.

    Args:
        model: any module, or a layer itself.

    Returns:
        What was swapped and what was left, and why; print it.

    Raises:
        TypeError: model is no module.
        ImportError: torch_geometric is not installed, or is too old.

    Example:
        >>> import pytest
        >>> pyg = pytest.importorskip("torch_geometric.nn")
        >>> layer = pyg.GATConv(16, 8, heads=2)
        >>> model = pyg.Sequential("x, edge_index", [(layer, "x, edge_index -> x")])
        >>> print(patch_pyg(model))
        swapped module_0: GATConv
    """
    _check_model(model, "patch_pyg")
    from gat_ext.interop import pyg

    swapped, left = [], []
    for name, module in model.named_modules():
        kind = pyg.kind_of(module)
        if kind is None:
            continue
        why = pyg.reason_to_leave(module)
        if why is None:
            pyg.swap(module)
            swapped.append((name, kind))
        else:
            left.append((name, f"{kind} {why}"))
    return PatchReport(tuple(swapped), tuple(left))


def unpatch_pyg(model: nn.Module) -> tuple[str, ...]:
    """Has the layers that :func:`patch_pyg` swapped run on PyG's own code again, in place.

    Layers that were built by a class of :mod:`gat_ext.interop.pyg` become PyG's, too; those of
    classes derived from these stay.

    Args:
        model: any module, or a layer itself.

    Returns:
        The names of these layers in the model.

    Raises:
        TypeError: model is no module.
        ImportError: torch_geometric is not installed, or is too old.

    Example:
        >>> import pytest
        >>> pyg = pytest.importorskip("torch_geometric.nn")
        >>> model = torch.nn.ModuleDict({"conv": pyg.AGNNConv()})
        >>> _ = patch_pyg(model)
        >>> unpatch_pyg(model)
        ('conv',)
    """
    _check_model(model, "unpatch_pyg")
    from gat_ext.interop import pyg

    return tuple(name for name, module in model.named_modules() if pyg.unswap(module))


def _check_model(model: Any, function: str) -> None:
    if isinstance(model, nn.Module):
        return
    what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
    raise TypeError(
        f"model is {what}; {function} expects a torch.nn.Module, a model that was built"
    )
