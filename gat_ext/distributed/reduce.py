"""Sums, losses and scores of the nodes of all processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from gat_ext.distributed.failures import naming_the_dead


def _processes(group: Any) -> int:
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(x: Tensor, group: Any = None) -> Tensor:
    """The elementwise sum of the tensors of all processes, on all of them; differentiable.

    The gradient sums over the processes, too, because each of them reads the result.

    Example:
        >>> import torch
        >>> from gat_ext.distributed import sum_over_processes
        >>> sum_over_processes(torch.tensor([1.0, 2.0]))  # in one process
        tensor([1., 2.])
    """
    if _processes(group) == 1:
        return x
    total: Tensor = _Sum.apply(x, group)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = x.detach().clone(memory_format=torch.contiguous_format)
        with naming_the_dead(group):
            dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return _Sum.apply(grad.contiguous(), ctx.group), None  # type: ignore[no-untyped-call]


def mean(x: Tensor, group: Any = None) -> Tensor:
    """The mean of the rows [N, …] of all processes; differentiable."""
    count = sum_over_processes(x.new_tensor([x.shape[0]], dtype=torch.float64), group)
    return sum_over_processes(x.sum(0), group) / count.item()


def global_mean(total: Tensor, count: Tensor | int, group: Any = None) -> Tensor:
    """Σ total / Σ count over the processes, with a gradient for DistributedDataParallel.

    The value is the same on all processes. DistributedDataParallel averages the gradients of
    parameters over the processes, so each process differentiates the sum over its own nodes, times
    the number of processes: the average is the gradient of the value.

    Args:
        total: number; the sum of a loss over own nodes.
        count: over how many.
        group: the processes; None: all of them.

    Returns:
        A number; NaN if no process counts anything.
    """
    size = _processes(group)
    sums = torch.stack([total.detach().double(), torch.as_tensor(count).double().to(total.device)])
    if size > 1:
        with naming_the_dead(group):
            dist.all_reduce(sums, group=group)
    value = (sums[0] / sums[1]).to(total.dtype)
    share = total * (size / sums[1]).to(total.dtype)
    return value + (share - share.detach())  # the same bits everywhere, whatever the own share


def cross_entropy(
    logits: Tensor, labels: Tensor, mask: Tensor | None = None, group: Any = None
) -> Tensor:
    r"""The mean cross-entropy over the labelled nodes of all processes.

    Args:
        logits: [N, C], of own nodes.
        labels: int64 [N], -100 for nodes that do not count; or probabilities [N, C].
        mask: bool [N], the nodes that count; None: all.
        group: the processes; None: all of them.

    Returns:
        A number, the same on all processes; its gradient is as :func:`global_mean` says: that of
        the mean once gradients are averaged over the processes.

    Example:
        >>> import torch
        >>> from gat_ext.distributed import cross_entropy
        >>> cross_entropy(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]))  # in one process
        tensor(0.6931)
    """
    if mask is not None:
        logits, labels = logits[mask], labels[mask]
    total = F.cross_entropy(
        logits.float() if logits.dtype in _HALF else logits, labels, reduction="sum"
    )
    count = labels.shape[0] if labels.is_floating_point() else (labels != _IGNORED).sum()
    return global_mean(total, count, group)


def binary_cross_entropy(
    logits: Tensor, labels: Tensor, mask: Tensor | None = None, group: Any = None
) -> Tensor:
    """As :func:`cross_entropy`, of labels [N, C] of 0 and 1: the mean over nodes and classes."""
    if mask is not None:
        logits, labels = logits[mask], labels[mask]
    logits = logits.float() if logits.dtype in _HALF else logits
    total = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum")
    return global_mean(total, labels.numel(), group)


_HALF = (torch.bfloat16, torch.float16)
_IGNORED = -100  # the label that torch ignores


def accuracy(
    logits: Tensor, labels: Tensor, mask: Tensor | None = None, group: Any = None
) -> float:
    """The share of nodes of all processes whose largest logit is that of their label.

    Args:
        logits: [N, C], of own nodes.
        labels: int64 [N].
        mask: bool [N], the nodes that count; None: all.
        group: the processes; None: all of them.
    """
    if mask is not None:
        logits, labels = logits[mask], labels[mask]
    right = (logits.argmax(-1) == labels).sum()
    return float(global_mean(right.double(), labels.shape[0], group))


def average_gradients(module: nn.Module, group: Any = None) -> None:
    """Averages the gradients of parameters over the processes, as DistributedDataParallel does.

    For programs without it. A parameter without a gradient counts as 0; if no process has one, it
    stays without.
    """
    size = _processes(group)
    if size == 1:
        return
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        return
    present = torch.tensor([float(p.grad is not None) for p in parameters])
    flat = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().double() for p in parameters]
    )
    flat = torch.cat([flat, present.to(flat)])
    with naming_the_dead(group):
        dist.all_reduce(flat, group=group)
    counts = flat[-len(parameters) :].tolist()
    means = (flat[: -len(parameters)] / size).split([p.numel() for p in parameters])
    for parameter, total, count in zip(parameters, means, counts, strict=True):
        if count:
            parameter.grad = total.view_as(parameter).to(parameter.dtype)
