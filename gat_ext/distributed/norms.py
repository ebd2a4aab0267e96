"""Normalisations of node features with the statistics of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gat_ext.distributed.reduce import _processes, sum_over_processes


def normalise(norm: nn.Module, x: Tensor, group: Any = None) -> Tensor:
    """Applies a normalisation to the rows of own nodes, with statistics of all processes.

    BatchNorm1d, and GraphNorm and PairNorm of PyG (Cai et al. 2021; Zhao, Akoglu 2020), which take
    statistics of nodes; any other module, such as LayerNorm, is applied as it is.

    Args:
        norm: the module; its parameters and running statistics are used and updated.
        x: [N, C], of own nodes.
        group: the processes; None: all of them.

    Raises:
        ValueError: BatchNorm1d in training, and all processes together have one row or none.
    """
    if _processes(group) == 1:
        out: Tensor = norm(x)
        return out
    kind = type(norm).__name__
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

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the rows of own nodes [N, C]."""
        return normalise(self.norm, x, self.group)


def convert_norms(module: nn.Module, group: Any = None) -> nn.Module:
    """Replaces normalisations over nodes within a module by :class:`GlobalNorm`, in place.

    Models of gat_ext need no conversion: they normalise globally when given a DistGraph.

    Returns:
        The module; a GlobalNorm if the module itself is a normalisation.
    """
    if isinstance(module, GlobalNorm):
        return module
    if isinstance(module, nn.BatchNorm1d) or type(module).__name__ in ("GraphNorm", "PairNorm"):
        return GlobalNorm(module, group)
    for name, child in module.named_children():
        setattr(module, name, convert_norms(child, group))
    return module


def _moments(x: Tensor, group: Any) -> tuple[float, Tensor]:
    """(number of rows of all processes, their mean [C])."""
    ones = x.new_full((1,), x.shape[0], dtype=torch.float64)
    count = sum_over_processes(ones, group).item()
    return count, sum_over_processes(x.sum(0), group) / max(count, 1)


def _batch_norm(norm: nn.BatchNorm1d, x: Tensor, group: Any) -> Tensor:
    if not (norm.training or norm.running_mean is None):
        kept: Tensor = norm(x)
        return kept
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
    return out * norm.weight + norm.bias if norm.affine else out


def _graph_norm(norm: Any, x: Tensor, group: Any) -> Tensor:
    """γ (x - α mean) / sqrt(var + ε) + β, with var of x - α mean: Cai et al. 2021, eq. 6."""
    count, mean = _moments(x, group)
    shifted = x - mean * norm.mean_scale
    variance = sum_over_processes(shifted.square().sum(0), group) / max(count, 1)
    out: Tensor = norm.weight * shifted / (variance + norm.eps).sqrt() + norm.bias
    return out


def _pair_norm(norm: Any, x: Tensor, group: Any) -> Tensor:
    """S (x - mean) / sqrt(ε + mean of squared norms): Zhao, Akoglu 2020, eq. 10 and 11."""
    count, mean = _moments(x, group)
    centred = x - mean
    if norm.scale_individually:
        out: Tensor = norm.scale * centred / (norm.eps + centred.norm(2, -1, keepdim=True))
        return out
    squares = sum_over_processes(centred.square().sum(), group) / max(count, 1)
    out = norm.scale * centred / (norm.eps + squares).sqrt()
    return out
