"""The layers of a PyG model on the kernels here."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class PatchReport(NamedTuple):
    """What :func:`patch_pyg` did.

    Attributes:
        swapped: (name of the module, its class) of each layer that now runs on the kernels here.
        left: (name of the module, why) of each layer of these classes that stayed as it was.
    """

    swapped: tuple[tuple[str, str], ...]
    left: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        """One line for each layer."""
        lines = [f"swapped {name or '(the model)'}: {kind}" for name, kind in self.swapped]
        lines += [f"left {name or '(the model)'}: {why}" for name, why in self.left]
        return "\n".join(lines or ["no attention layers of PyG"])


def patch_pyg(model: nn.Module) -> PatchReport:
    """Has the attention layers of a PyG model run on the kernels here, in place.

    These are the layers that have the name of one of :mod:`gat_ext.nn`. They and their linear maps
    stay the objects they are, with their parameters, buffers, hooks, mode, device and names, so
    optimizers and checkpoints go on as before; they remain instances of PyG's classes, too.

    PyG's explainers work: edge masks (GNNExplainer) go into the kernels; where a hook asks for
    messages (AttentionExplainer), or a method of the layer was replaced, that call is computed by
    PyG's own code. ``to_hetero`` works before or after. It and the explainers know PyG's classes
    only, not the layers of :mod:`gat_ext.nn`.

    Args:
        model: any module, or a layer itself.

    Returns:
        What was swapped and what was left, and why; print it.

    Raises:
        ImportError: torch_geometric is not installed.

    Example:
        >>> import pytest
        >>> pyg = pytest.importorskip("torch_geometric.nn")
        >>> model = pyg.Sequential("x, edge_index", [(pyg.GATConv(16, 8, heads=2), "x, edge_index -> x")])
        >>> print(patch_pyg(model))
        swapped module_0: GATConv
    """
    try:
        from gat_ext.interop import pyg
    except ImportError as error:
        raise ImportError(
            f"patch_pyg needs PyTorch Geometric: pip install torch_geometric ({error})"
        ) from error
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
