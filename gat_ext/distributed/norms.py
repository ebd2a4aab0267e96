"""Normalisations of node features with the statistics of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gat_ext.distributed.reduce import _processes, sum_over_processes


def normalise(norm: nn.Module, x: Tensor, group: Any = None) -> Tensor:
    """Applies a normalisation to the rows of own nodes, with statistics of all processes.

    BatchNorm1d, and BatchNorm, GraphNorm and PairNorm of PyG (Cai et al. 2021; Zhao, Akoglu 2020),
    which take statistics of nodes; a module without statistics of nodes, such as LayerNorm, is
    applied as it is.

    Args:
        norm: the module; its parameters and running statistics are used and updated.
        x: [N, C], of own nodes.
        group: the processes; None: all of them.

    Raises:
        ValueError: BatchNorm1d in training, and all processes together have one row or none; or
            the module contains a normalisation with other statistics of nodes, or is not one itself
            and contains one.
    """
    if _processes(group) == 1:
        out: Tensor = norm(x)
        return out
    kind = type(norm).__name__
    if kind == "BatchNorm" and isinstance(getattr(norm, "module", None), nn.BatchNorm1d):
        norm = norm.module  # type: ignore[assignment]
    _check(norm)
    if isinstance(norm, nn.BatchNorm1d):
        return _batch_norm(norm, x, group)
    if kind == "GraphNorm":
        return _graph_norm(norm, x, group)
    if kind == "PairNorm":
        return _pair_norm(norm, x, group)
    out = norm(x)
    return out


class GlobalNorm(nn.Module):
    """A normalisation with the statistics of all processes; see :func:`normalise`.

    Args:
        norm: BatchNorm1d, or GraphNorm or PairNorm of PyG.
        group: the processes; None: all of them.
    """

    def __init__(self, norm: nn.Module, group: Any = None) -> None:
        """Stores both."""
        super().__init__()
        self.norm, self.group = norm, group

    def forward(self, x: Tensor, batch: Tensor | None = None, batch_size: Any = None) -> Tensor:
        """Normalises the rows of own nodes [N, C]; the others, as models of PyG pass, are None."""
        if batch is not None:
            raise ValueError(
                f"batch has shape {list(batch.shape)}; expected None, because statistics are those "
                "of one graph in several processes"
            )
        return normalise(self.norm, x, self.group)


def convert_norms(module: nn.Module, group: Any = None) -> nn.Module:
    """Replaces normalisations over nodes within a module by :class:`GlobalNorm`, in place.

    Models of gat_ext need no conversion: they normalise globally when given a DistGraph.

    Returns:
        The module; a GlobalNorm if the module itself is a normalisation.

    Raises:
        ValueError: a normalisation takes statistics of nodes that :func:`normalise` does not know.
    """
    for child in module.modules():
        _check_known(child)
    if isinstance(module, GlobalNorm):
        return module
    if _takes_statistics(module):
        return GlobalNorm(module, group)
    for name, child in module.named_children():
        setattr(module, name, convert_norms(child, group))
    return module


def _takes_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm1d) or type(module).__name__ in ("GraphNorm", "PairNorm")


def _check(norm: nn.Module) -> None:
    """Raises ValueError if the module would take statistics of own nodes alone."""
    for child in norm.modules():
        _check_known(child)
        if child is not norm and _takes_statistics(child):
            raise ValueError(
                f"{type(norm).__name__} contains {child}, which takes statistics of nodes; "
                "expected a normalisation alone: apply convert_norms to the module, and call it"
            )


def _check_known(module: nn.Module) -> None:
    kind = type(module).__name__
    if kind in _UNKNOWN or (kind == "LayerNorm" and getattr(module, "mode", None) == "graph"):
        raise ValueError(
            f"{module} takes statistics of the nodes of this process alone; expected BatchNorm, "
            "GraphNorm, PairNorm, or a normalisation of each node, such as LayerNorm with "
            "mode='node'"
        )


_UNKNOWN = ("InstanceNorm", "GraphSizeNorm", "MeanSubtractionNorm", "DiffGroupNorm")  # of PyG


def _wide(x: Tensor) -> Tensor:
    """Float32 in place of 16 bits, whose sums over nodes would lose digits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _moments(x: Tensor, group: Any) -> tuple[float, Tensor]:
    """(number of rows of all processes, their mean [C])."""
    ones = x.new_full((1,), x.shape[0], dtype=torch.float64)
    count = sum_over_processes(ones, group).item()
    return count, sum_over_processes(x.sum(0), group) / max(count, 1)


def _batch_norm(norm: nn.BatchNorm1d, x: Tensor, group: Any) -> Tensor:
    if not (norm.training or norm.running_mean is None):
        kept: Tensor = norm(x)
        return kept
    dtype, x = x.dtype, _wide(x)
    count, mean = _moments(x, group)
    if count <= 1:
        raise ValueError(
            f"{norm} is in training, and all processes together have {count:.0f} rows; expected "
            "more than 1"
        )
    centred = x - mean
    variance = sum_over_processes(centred.square().sum(0), group) / count
    if norm.training and norm.track_running_stats and norm.running_mean is not None:
        assert norm.num_batches_tracked is not None and norm.running_var is not None
        norm.num_batches_tracked.add_(1)
        share = norm.momentum
        if share is None:
            share = 1 / float(norm.num_batches_tracked)
        with torch.no_grad():
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
            unbiased = variance * (count / (count - 1))
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)
    out = centred * (variance + norm.eps).rsqrt()
    return (out * norm.weight + norm.bias if norm.affine else out).to(dtype)


def _graph_norm(norm: Any, x: Tensor, group: Any) -> Tensor:
    """γ (x - α mean) / sqrt(var + ε) + β, with var of x - α mean: Cai et al. 2021, eq. 6."""
    dtype, x = x.dtype, _wide(x)
    count, mean = _moments(x, group)
    shifted = x - mean * norm.mean_scale
    variance = sum_over_processes(shifted.square().sum(0), group) / max(count, 1)
    out: Tensor = norm.weight * shifted / (variance + norm.eps).sqrt() + norm.bias
    return out.to(dtype)


def _pair_norm(norm: Any, x: Tensor, group: Any) -> Tensor:
    """S (x - mean) / sqrt(ε + mean of squared norms): Zhao, Akoglu 2020, eq. 10 and 11."""
    dtype, x = x.dtype, _wide(x)
    count, mean = _moments(x, group)
    centred = x - mean
    if norm.scale_individually:
        out: Tensor = norm.scale * centred / (norm.eps + centred.norm(2, -1, keepdim=True))
        return out.to(dtype)
    squares = sum_over_processes(centred.square().sum(), group) / max(count, 1)
    out = norm.scale * centred / (norm.eps + squares).sqrt()
    return out.to(dtype)
