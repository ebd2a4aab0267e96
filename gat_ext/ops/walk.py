"""The walk operators for torch: fake kernels, double backward of walk_step, autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gat_ext.ops.registry import Grads, register_autocast


@torch.library.register_fake("gat_ext::walk_step")
def _(
    rowptr: Tensor,
    col: Tensor,
    current: Tensor,
    rank: Tensor,
    node_type: Tensor,
    seed: Tensor,
    step: int,
    greedy: bool,
) -> tuple[Tensor, Tensor]:
    shape = (current.shape[0],)
    return rank.new_empty(shape), current.new_empty(shape)


@torch.library.register_fake("gat_ext::walk_step_backward")
def _(
    rowptr: Tensor,
    col: Tensor,
    current: Tensor,
    moved: Tensor,
    rank: Tensor,
    node_type: Tensor,
    grad: Tensor,
) -> Tensor:
    return torch.empty_like(rank, memory_format=torch.contiguous_format)


@torch.library.register_fake("gat_ext::random_walk")
def _(
    rowptr: Tensor, col: Tensor, weight: Tensor | None, start: Tensor, length: int, seed: Tensor
) -> Tensor:
    return start.new_empty((start.shape[0], length + 1))


def _backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _double_backward(ctx: Any, upstream: Tensor) -> Grads:
    # out_k = g ([k = m] / r_m - n_k / Z), m the type moved to, n_k the neighbours of type k, Z =
    # sum_k n_k r_k; with upstream u:
    #   d/dg   = u_m / r_m - s / Z                           s = sum_k u_k n_k
    #   d/dr_k = g (s n_k / Z^2 - [k = m] u_m / r_m^2)
    # and 0 if Z is 0: the agent has no neighbours, or none with a rank above 0.
    rowptr, col, current, moved, rank, node_type, grad = ctx.saved_tensors
    counts = _neighbours_by_type(rowptr, col, current, rank, node_type)
    total = (counts * rank).sum(dim=1)
    alive = total != 0
    total = torch.where(alive, total, 1)
    kind = node_type[moved].unsqueeze(1)
    rank_moved = torch.where(alive, rank.gather(1, kind).squeeze(1), 1)
    chosen = upstream.gather(1, kind).squeeze(1) / rank_moved
    share = (upstream * counts).sum(dim=1) / total
    grad_grad = torch.where(alive, chosen - share, 0)
    alive_grad = torch.where(alive, grad, 0)
    grad_rank = (alive_grad * share / total).unsqueeze(1) * counts
    grad_rank = grad_rank.scatter_add(1, kind, -(alive_grad * chosen / rank_moved).unsqueeze(1))
    return *([None] * 4), grad_rank, None, grad_grad


def _neighbours_by_type(
    rowptr: Tensor, col: Tensor, current: Tensor, rank: Tensor, node_type: Tensor
) -> Tensor:
    """The number of neighbours of each type for each agent: [B, R], in the dtype of rank."""
    begin, degree = rowptr[current], rowptr[current + 1] - rowptr[current]
    agent = torch.arange(current.shape[0], device=current.device).repeat_interleave(degree)
    first = degree.cumsum(0) - degree
    position = torch.arange(agent.shape[0], device=current.device) - first[agent] + begin[agent]
    slot = agent * rank.shape[1] + node_type[col[position].long()]
    ones = torch.ones_like(slot, dtype=rank.dtype)
    flat = torch.zeros(rank.numel(), dtype=rank.dtype, device=rank.device)
    return flat.index_add(0, slot, ones).view(rank.shape)


torch.library.register_autograd(
    "gat_ext::walk_step_backward", _double_backward, setup_context=_backward_setup
)
register_autocast("walk_step", to_lower=False)


# An operator, because a trace cannot contain a generator or a check of sizes.
@torch.library.custom_op(
    "gat_ext::draw_starts",
    mutates_args=(),
    schema="(Tensor node_ptr, Tensor? graphs, int num_agents, Tensor seed) -> Tensor",
)
def draw_starts(node_ptr: Tensor, graphs: Tensor | None, num_agents: int, seed: Tensor) -> Tensor:
    """A random node of its graph for each agent, int64 [G, M], determined by the seed."""
    generator = torch.Generator().manual_seed(int(seed))
    sizes, first = node_ptr.diff(), node_ptr[:-1]
    if graphs is not None:
        sizes, first = sizes[graphs], first[graphs]
    if sizes.numel() and int(sizes.min()) < 1:
        number = int(sizes.argmin())
        graph = number if graphs is None else int(graphs[number])
        raise ValueError(
            f"graph {graph} has {int(sizes[number])} nodes; expected at least one, to start from"
        )
    # Always drawn on the CPU, so that starts are the same for every device.
    uniform = torch.rand(sizes.shape[0], num_agents, dtype=torch.float64, generator=generator)
    return first.unsqueeze(1) + (uniform.to(sizes.device) * sizes.unsqueeze(1)).long()


@draw_starts.register_fake
def _(node_ptr: Tensor, graphs: Tensor | None, num_agents: int, seed: Tensor) -> Tensor:
    num_graphs = node_ptr.shape[0] - 1 if graphs is None else graphs.shape[0]
    return node_ptr.new_empty((num_graphs, num_agents), dtype=torch.int64)
