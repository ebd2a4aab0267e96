"""Losses, scores and normalisations over the nodes of several processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from processes import Processes
from torch import nn
from torch.nn import functional as F

from gat_ext.distributed import (
    accuracy,
    average_gradients,
    binary_cross_entropy,
    convert_norms,
    cross_entropy,
    global_mean,
    normalise,
    sum_over_processes,
)
from gat_ext.distributed.norms import GlobalNorm

SIZE = 3
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


def rows_of(rank: int, size: int) -> slice:
    """Rows of 11 in all; the last of three processes has none."""
    bounds = {1: [0, 11], 2: [0, 3, 11], 3: [0, 7, 11, 11]}[size]
    return slice(bounds[rank], bounds[rank + 1])


def check_loss(group: Any, rank: int, size: int, kind: str) -> None:
    torch.manual_seed(0)
    x, mask = torch.randn(11, 4, dtype=torch.float64), torch.rand(11) < 0.7
    classes = torch.randint(3, (11,))
    several = (torch.rand(11, 3) < 0.4).double()
    layer = nn.Linear(4, 3).double()
    mine = rows_of(rank, size)
    if kind == "classes":
        wanted = F.cross_entropy(layer(x)[mask], classes[mask])
        grads = torch.autograd.grad(wanted, list(layer.parameters()))
        loss = cross_entropy(layer(x[mine]), classes[mine], mask[mine], group)
    else:
        wanted = F.binary_cross_entropy_with_logits(layer(x)[mask], several[mask])
        grads = torch.autograd.grad(wanted, list(layer.parameters()))
        loss = binary_cross_entropy(layer(x[mine]), several[mine], mask[mine], group)
    torch.testing.assert_close(loss, wanted, **CLOSE)
    loss.backward()
    average_gradients(layer, group)
    for parameter, grad in zip(layer.parameters(), grads, strict=True):
        torch.testing.assert_close(parameter.grad, grad, **CLOSE)
    right = (layer(x)[mask].argmax(1) == classes[mask]).double().mean()
    assert accuracy(layer(x[mine]), classes[mine], mask[mine], group) == pytest.approx(float(right))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kind", ["classes", "several"])
def test_losses_and_their_gradients(processes: Processes, kind: str, size: int) -> None:
    processes.run(check_loss, size, kind)


def check_nothing_counts(group: Any, rank: int, size: int) -> None:
    loss = cross_entropy(torch.ones(2, 3), torch.zeros(2).long(), torch.zeros(2).bool(), group)
    assert loss.isnan()
    assert global_mean(torch.tensor(4.0), 2, group) == 2


def test_a_loss_of_no_node_is_nan(processes: Processes) -> None:
    processes.run(check_nothing_counts, 2)


def check_sum(group: Any, rank: int, size: int) -> None:
    x = torch.full((2,), float(rank + 1), dtype=torch.float64, requires_grad=True)
    total = sum_over_processes(x, group)
    assert total.tolist() == [6.0, 6.0]
    # Each process reads the total: the gradient of the sum of what they all compute from it.
    (grad,) = torch.autograd.grad((total**3).sum() * (rank + 1), x, create_graph=True)
    torch.testing.assert_close(grad, torch.full((2,), 3 * 36.0 * 6, dtype=torch.float64))
    (second,) = torch.autograd.grad(grad.sum(), x)
    torch.testing.assert_close(second, torch.full((2,), 6 * 6.0 * 6 * 3, dtype=torch.float64))


def test_sum_is_differentiable_twice(processes: Processes) -> None:
    processes.run(check_sum, 3)


def make_norm(kind: str) -> nn.Module:
    if kind.startswith("batch"):
        options: dict[str, Any] = {"batch plain": {"affine": False}} | {
            "batch mean": {"momentum": None},
            "batch of the call": {"track_running_stats": False},
        }
        return nn.BatchNorm1d(4, **options.get(kind, {})).double()
    pyg = pytest.importorskip("torch_geometric.nn")
    if kind == "graph":
        return pyg.GraphNorm(4).double()
    return pyg.PairNorm(scale=1.5, scale_individually=kind == "pair individually")


KINDS = ("batch", "batch plain", "batch mean", "batch of the call", "graph", "pair")
KINDS += ("pair individually", "layer")


def check_norm(group: Any, rank: int, size: int, kind: str, train: bool) -> None:
    torch.manual_seed(0)
    norms = [nn.LayerNorm(4).double() if kind == "layer" else make_norm(kind) for _ in range(2)]
    for norm in norms:
        torch.manual_seed(1)
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
        norm.train(train)
    alone, shared = norms
    x = 3 + 2 * torch.randn(11, 4, dtype=torch.float64)
    factor = torch.randn(11, 4, dtype=torch.float64)
    mine = rows_of(rank, size)
    for _ in range(2):  # running statistics
        whole, own = x.clone().requires_grad_(), x[mine].clone().requires_grad_()
        wanted = alone(whole)
        found = normalise(shared, own, group)
        torch.testing.assert_close(found, wanted[mine], **CLOSE)
        (wanted * factor).sum().backward()
        (found * factor[mine]).sum().backward()
        torch.testing.assert_close(own.grad, whole.grad[mine], **CLOSE)
    for ours, theirs in zip(shared.parameters(), alone.parameters(), strict=True):
        grad = torch.zeros_like(ours) if ours.grad is None else ours.grad
        torch.testing.assert_close(sum_over_processes(grad, group), theirs.grad, **CLOSE)
    for ours, theirs in zip(shared.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_normalisations(processes: Processes, kind: str, train: bool) -> None:
    for size in (1, 2, 3):
        processes.run(check_norm, size, kind, train)


def check_too_few_rows(group: Any, rank: int, size: int) -> None:
    with pytest.raises(ValueError, match="have 1 rows; expected more than 1"):
        normalise(nn.BatchNorm1d(4), torch.ones(rank, 4), group)


def test_batch_norm_of_one_row(processes: Processes) -> None:
    processes.run(check_too_few_rows, 2)


def test_conversion_replaces_norms_of_nodes() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sequential(nn.LayerNorm(4)))
    assert convert_norms(model) is model
    assert isinstance(model[1], GlobalNorm) and isinstance(model[2][0], nn.LayerNorm)
    assert convert_norms(model)[1] is model[1]
    assert isinstance(convert_norms(nn.BatchNorm1d(3)), GlobalNorm)
    x = torch.randn(5, 4)
    torch.testing.assert_close(model[1](x), model[1].norm(x))
