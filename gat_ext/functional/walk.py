"""The walk operators, in which agents move along the edges of a graph.

From node ``i`` an agent moves to the source of one of the in-edges of ``i``, that is, to one of the
neighbours that ``i`` attends to; ``graph.reverse()`` gives the other direction. Agents walk in
parallel, on one graph or on several in a block-diagonal graph. The random number of agent ``b`` at
step ``t`` is Philox(seed; b, t), so walks are equal for any number of threads, on CPU and GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gat_ext.functional import checks
from gat_ext.graph import Graph
from gat_ext.ops import walk  # noqa: F401  registers gradients
from gat_ext.ops.registry import draw_seed, ops

__all__ = ["random_walk", "walk_step"]

_MODES = ("sample", "greedy")
_MOST_STEPS = 2**48
_SMALLER = 2.0**-64  # a sum of as many numbers of float64 as there are bytes, times this, is finite

# Resolved once: resolution of the overload can take longer than a step.
_walk_step, _random_walk = ops.walk_step.default, ops.random_walk.default


def walk_step(
    graph: Graph,
    current: Tensor,
    rank: Tensor,
    node_type: Tensor,
    *,
    mode: str = "sample",
    seed: Tensor | None = None,
    step: int = 0,
) -> tuple[Tensor, Tensor]:
    r"""Moves agents by one step, by their ranks of node types; returns log-probabilities too.

    .. math::
        p_j = \mathrm{rank}_{b, \mathrm{type}(j)} \Big/
              \sum_{k \in N(c_b)} \mathrm{rank}_{b, \mathrm{type}(k)}

    over the neighbours of the agent's node :math:`c_b`; a neighbour with several edges counts once
    for each edge.

    Args:
        graph: the graph, with num_src = num_dst = N.
        current: int64 [B], the node of each agent.
        rank: float32 or float64 [B, R], finite and at least 0: each agent's preference for each
            type, such as a softmax.
        node_type: int64 [N], from 0 to R - 1.
        mode: ``"sample"`` draws j with probability p_j; ``"greedy"`` takes the neighbour of the
            highest rank, the first in CSR order if several have it.
        seed: int64 tensor of one element, which determines the draws; None draws one from torch's
            generator.
        step: number of this step in the walk, at least 0; the random numbers depend on it.

    Returns:
        next, int64 [B], and log_prob [B], the log-probability of the move, in the dtype of rank and
        differentiable in rank any number of times, in both modes. An agent without neighbours
        stays, with log_prob 0. If all neighbours have rank 0, the draw is uniform and log_prob is
        -log(degree). In these two cases the gradient is 0. If a neighbour's rank is negative or
        NaN, or the sum of their ranks is infinite, the agent stays and log_prob is NaN.

    Raises:
        TypeError: a tensor has the wrong dtype, step is not an integer, or seed is not an int64
            tensor of one element.
        ValueError: shapes or devices do not match, num_src is not num_dst, mode is unknown, or step
            is negative.
        IndexError: an agent's node, or the type of one of its neighbours, is out of range. On a GPU
            this checks all of current and node_type and synchronises; under torch.compile it is
            skipped there, and such an agent stays, with log_prob NaN.

    Cost: two passes over the in-edges of the agents' nodes; the gradient adds O(B R).

    Source: Lee, Rossi, Kong, "Graph Classification using Structural Attention", KDD 2018, section 3
    and algorithm 1.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import walk_step
        >>> graph = Graph(torch.tensor([[0, 2], [1, 1]]))
        >>> rank, node_type = torch.tensor([[0.2, 0.6]]), torch.tensor([0, 0, 1])
        >>> walk_step(graph, torch.tensor([1]), rank, node_type, mode="greedy")
        (tensor([2]), tensor([-0.2877]))
    """
    checks.choice(mode, _MODES, "mode")
    _check_square(graph)
    if isinstance(step, bool) or not isinstance(step, int):
        raise TypeError(f"step is a {type(step).__name__}; expected an integer")
    if not 0 <= step < _MOST_STEPS:
        raise ValueError(f"step is {step}; expected an integer from 0 to {_MOST_STEPS - 1}")
    given = current, rank, node_type
    checks.no_transform("walk_step", rank)
    if graph.rowptr.is_cuda:
        _check_step(graph, *given)
    seed = _seed(seed, graph.device)
    agents = graph.rowptr, graph.col, current
    try:
        log_prob, moved = _walk_step(*agents, rank, node_type, seed, step, mode == "greedy")
    except (RuntimeError, TypeError, ValueError, IndexError):
        # The operator checks its inputs and, on the CPU, the indices that it reads. To check
        # everything here first would take as long as a step of some hundred agents, so this runs
        # only after a failure, to name the caller's argument.
        _check_step(graph, *given)
        raise
    return moved, log_prob


def random_walk(
    graph: Graph,
    start: Tensor,
    length: int,
    *,
    weight: Tensor | None = None,
    seed: Tensor | None = None,
) -> Tensor:
    r"""Random walks: each step draws an in-edge of the current node and moves to its source.

    .. math:: p_j = w_{ij} \Big/ \sum_{k \in N(i)} w_{ik}

    Args:
        graph: the graph, with num_src = num_dst.
        start: int64 [B], the first node of each walk.
        length: number of steps, at least 0.
        weight: [E], finite and at least 0, such as the attention weights of one head of a layer;
            None means 1.
        seed: int64 tensor of one element, which determines the draws; None draws one from torch's
            generator.

    Returns:
        int64 [B, length + 1], the nodes of each walk, from ``start`` on. A walk stays at a node
        without neighbours, or whose in-edges have weight 0. Not differentiable.

    Raises:
        TypeError: start is not int64, weight not floating-point, length not an integer, or seed no
            int64 tensor of one element.
        ValueError: shapes or devices do not match, num_src is not num_dst, length is negative, or a
            weight is negative, NaN or infinite. The check of the weights waits for a GPU, and is
            left out within torch.compile.
        IndexError: start is out of range; checked under the same terms.

    Cost: O(1) a step without weights; with them O(E) once, and O(log degree) a step.

    Example:
        >>> import torch
        >>> from gat_ext import Graph
        >>> from gat_ext.functional import random_walk
        >>> ring = Graph(torch.tensor([[1, 2, 0], [0, 1, 2]]))
        >>> random_walk(ring, torch.tensor([0, 2]), 3)
        tensor([[0, 1, 2, 0],
                [2, 0, 1, 2]])
    """
    _check_square(graph)
    if isinstance(length, bool) or not isinstance(length, int):
        raise TypeError(f"length is a {type(length).__name__}; expected an integer")
    if not 0 <= length < _MOST_STEPS:
        raise ValueError(
            f"length is {length}; expected a number of steps from 0 to {_MOST_STEPS - 1}"
        )
    checks.indices(graph, start, "start", None)
    if weight is not None:
        checks.edge_values(graph, weight, "weight")
        if weight.dim() != 1:
            raise ValueError(
                f"weight has shape {list(weight.shape)}; expected [{graph.num_edges}]: select one "
                "head, such as weight[:, 0]"
            )
        weight = _finite_sums(weight)
        weight = weight if graph.edge_id is None else weight.index_select(0, graph.edge_id)
    checks.in_range(start, graph.num_nodes, "start", "the number of nodes")
    walks: Tensor = _random_walk(
        graph.rowptr, graph.col, weight, start, length, _seed(seed, start.device)
    )
    return walks


def _seed(seed: Tensor | None, device: torch.device) -> Tensor:
    if seed is None:
        return draw_seed(device)
    return checks.seed(seed, device)


def _check_square(graph: Graph) -> None:
    if not isinstance(graph, Graph):
        checks.is_whole(graph, "a walk")
    if graph.num_src != graph.num_dst:
        raise ValueError(
            f"graph is {graph!r}; a walk expects num_src = num_dst, because its nodes are both "
            "sources and destinations"
        )


def _check_step(graph: Graph, current: Tensor, rank: Tensor, node_type: Tensor) -> None:
    checks.indices(graph, current, "current", None)
    checks.indices(graph, node_type, "node_type", graph.num_nodes)
    _check_rank(graph, rank, current.shape[0])
    checks.in_range(current, graph.num_nodes, "current", "the number of nodes")
    checks.in_range(node_type, rank.shape[1], "node_type", "the number of columns of rank")


def _check_rank(graph: Graph, rank: Tensor, num_agents: int) -> None:
    checks.floating(rank, "rank")
    checks.on_graph_device(graph, rank, "rank")
    narrow = rank.dtype not in (torch.float32, torch.float64)
    if narrow and not torch.is_autocast_enabled(rank.device.type):
        raise TypeError(f"rank has dtype {rank.dtype}; expected float32 or float64: use .float()")
    if rank.dim() != 2 or rank.shape[0] != num_agents:
        raise ValueError(
            f"rank has shape {list(rank.shape)}; expected [{num_agents}, R], a row for each of the "
            f"{num_agents} agents of current"
        )


def _finite_sums(weight: Tensor) -> Tensor:
    """The weights in float64, validated; scaled by a power of two if a sum of them would be inf."""
    wide = weight.detach().double()
    if torch.compiler.is_compiling():
        return wide * torch.where(wide.sum().isinf(), _SMALLER, 1.0)
    if wide.numel() == 0:
        return wide
    low, high = torch.stack(torch.aminmax(wide)).tolist()
    if not (low >= 0 and high < float("inf")):  # NaN compares as false
        raise ValueError(
            f"weight has values from {low} to {high}; expected finite numbers of at least 0"
        )
    return wide * _SMALLER if high * wide.numel() == float("inf") else wide
