"""Exact results for all nodes, layer by layer, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gat_ext.graph import Graph
from gat_ext.sampling import checks
from gat_ext.sampling.sampler import NeighborSampler
from gat_ext.sampling.storage import MappedGraph

Stage = Callable[[Tensor, Graph, Tensor | None], Tensor]


@torch.no_grad()
def inference(
    model: Any,
    x: Tensor,
    graph: Graph | MappedGraph,
    *,
    batch_size: int = 4096,
    edge_attr: Tensor | None = None,
    device: torch.device | str | None = None,
    allocate: Callable[[int, tuple[int, ...], torch.dtype], Tensor] | None = None,
) -> Tensor:
    """The result of a model in evaluation mode for all nodes, with all neighbours.

    Each layer is computed for all nodes before the next, a batch of destinations at a time, so the
    result is ``model(x, graph)`` except for rounding. Memory: the input and the result of a layer,
    and what a batch of destinations and the sources of their edges take.

    Args:
        model: a model of :mod:`gat_ext.models`, or another with ``layers`` and a method
            ``stage(position, x, block, edge_attr=None)``; or a sequence of functions
            ``f(x, block, edge_attr)``, one for each layer, which return [num_dst, C'] for x
            [num_src, C], whose first rows are those of the destinations.
        x: [N, C], on the CPU; may be mapped from a file.
        graph: a Graph with num_src = num_dst on the CPU, or a MappedGraph.
        batch_size: number of destinations of a batch.
        edge_attr: [E, ...], features of the edges.
        device: where batches are computed; default: the device of the model's parameters.
        allocate: returns memory for the result of a layer, for its position, shape and dtype, such
            as a tensor mapped from a file; default: ``torch.empty``.

    Returns:
        [N, C'], on the CPU.

    Raises:
        TypeError: model has no stages, or an argument has another type.
        ValueError: a shape does not match.

    Example:
        >>> from gat_ext.models import GAT
        >>> graph, x = Graph(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])), torch.randn(4, 5)
        >>> model = GAT(5, 2, 3).eval()
        >>> torch.allclose(inference(model, x, graph, batch_size=2), model(x, graph), atol=1e-6)
        True
    """
    size = checks.integer(batch_size, "batch_size", 1)
    sampler = NeighborSampler(graph, [-1])
    checks.rows(x, sampler.num_nodes, "x", "node")
    if edge_attr is not None:
        checks.rows(edge_attr, graph.col.shape[0], "edge_attr", "edge")
    stages = _stages(model)
    target = _device(model, device)
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        if modules:
            model.eval()
        for position, stage in enumerate(stages):
            x = _layer(stage, x, sampler, edge_attr, size, target, position, allocate)
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
    return x


def _layer(
    stage: Stage,
    x: Tensor,
    sampler: NeighborSampler,
    edge_attr: Tensor | None,
    batch_size: int,
    device: torch.device,
    position: int,
    allocate: Callable[[int, tuple[int, ...], torch.dtype], Tensor] | None,
) -> Tensor:
    """The result of one stage for all nodes."""
    out: Tensor | None = None
    for first in range(0, max(sampler.num_nodes, 1), batch_size):
        seeds = torch.arange(first, min(first + batch_size, sampler.num_nodes))
        found = sampler.sample(seeds)
        rows = None if edge_attr is None else edge_attr[found.e_id[0]].to(device)
        part = stage(x[found.n_id].to(device), found.blocks[0].to(device), rows).cpu()
        if part.dim() < 1 or part.shape[0] != seeds.shape[0]:
            raise ValueError(
                f"stage {position} of the model returned shape {list(part.shape)}; expected "
                f"[{seeds.shape[0]}, C], a row for each destination"
            )
        if out is None:
            shape = (sampler.num_nodes, *part.shape[1:])
            make = allocate or (lambda _, shape, dtype: torch.empty(shape, dtype=dtype))
            out = make(position, shape, part.dtype)
            _check_memory(out, shape, part.dtype)
        out[first : first + batch_size] = part
    assert out is not None
    return out


def _check_memory(given: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    kind = type(given).__name__
    if isinstance(given, Tensor):
        if given.shape == shape and given.dtype == dtype:
            return
        kind = f"{list(given.shape)} of {given.dtype}"
    raise ValueError(f"allocate returned {kind}; expected a tensor {list(shape)} of {dtype}")


def _stages(model: Any) -> list[Stage]:
    if isinstance(model, Sequence) and all(map(callable, model)) and len(model):
        return list(model)
    if not hasattr(model, "stage") or not hasattr(model, "layers"):
        hint = ": pass model.module" if hasattr(model, "module") else ""
        raise TypeError(
            f"model is a {type(model).__name__}; expected a model of gat_ext.models on nodes, or a "
            f"list of functions f(x, block, edge_attr), one for each layer{hint}"
        )

    def stage_at(position: int) -> Stage:
        return lambda x, block, rows: model.stage(position, x, block, edge_attr=rows)

    return [stage_at(position) for position in range(len(model.layers))]


def _device(model: Any, given: torch.device | str | None) -> torch.device:
    if given is not None:
        return torch.device(given)
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    parameter = next(iter(parameters), None)
    return torch.device("cpu") if parameter is None else parameter.device
