"""Checks of the arguments of samplers and loaders."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from gat_ext.graph import Graph
from gat_ext.ops.checks import choice as choice
from gat_ext.ops.checks import flag as flag
from gat_ext.sampling.storage import MappedGraph


def sampled_graph(graph: Any) -> int:
    """The number of nodes; raises unless it is a square graph on the CPU."""
    if not isinstance(graph, (Graph, MappedGraph)):
        raise TypeError(
            f"graph is a {type(graph).__name__}; expected a gat_ext.Graph or a MappedGraph: build "
            "one from an edge_index with Graph(edge_index)"
        )
    if isinstance(graph, Graph) and graph.num_src != graph.num_dst:
        raise ValueError(
            f"graph is {graph!r}; sampling expects num_src = num_dst, because sources are "
            "destinations of the next hop"
        )
    if graph.col.device.type != "cpu":
        raise ValueError(f"graph is on {graph.col.device}; expected it on the CPU: graph.to('cpu')")
    return graph.num_nodes


def integer(value: Any, name: str, least: int | None = None) -> int:
    """The value as an int of 64 bits, of at least ``least``."""
    if isinstance(value, (bool, Tensor)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r} of type {type(value).__name__}; expected an int")
    whole = operator.index(value)
    low = -(2**63) if least is None else least
    if not low <= whole < 2**63:
        raise ValueError(f"{name} is {whole}; expected a number from {low} to {2**63 - 1}")
    return whole


def fanouts(num_neighbors: Any) -> list[int]:
    """The fan-outs as a list of integers of at least -1, one at least."""
    if isinstance(num_neighbors, (str, dict)) or not hasattr(num_neighbors, "__iter__"):
        raise TypeError(
            f"num_neighbors is a {type(num_neighbors).__name__}; expected a list of integers, one "
            "for each hop"
        )
    found = [integer(n, f"num_neighbors[{i}]", -1) for i, n in enumerate(num_neighbors)]
    if not found:
        raise ValueError("num_neighbors is empty; expected the number of neighbours of each hop")
    return found


def nodes(given: Any, name: str) -> Tensor:
    """Node numbers as a contiguous int64 vector on the CPU; their range is not checked."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} is a {type(given).__name__}; expected an int64 tensor [S]")
    if given.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} has dtype {given.dtype}; expected torch.int64 node numbers")
    if given.dim() != 1:
        raise ValueError(f"{name} has shape {list(given.shape)}; expected a vector [S]")
    found: Tensor = given.to("cpu", torch.int64).contiguous()
    return found


def in_range(given: Tensor, num_nodes: int, name: str) -> None:
    """Raises IndexError unless all node numbers are from 0 to num_nodes - 1."""
    outside = (given < 0) | (given >= num_nodes)
    if bool(outside.any()):
        place = int(outside.nonzero()[0])
        raise IndexError(
            f"{name}[{place}] is {int(given[place])}; expected node numbers from 0 to "
            f"{num_nodes - 1}"
        )


def input_nodes(given: Any, num_nodes: int) -> Tensor:
    """The seeds of an epoch, int64 [S]: None for all nodes, a bool mask [N], or node numbers."""
    if given is None:
        return torch.arange(num_nodes)
    if not isinstance(given, Tensor):
        try:
            given = torch.as_tensor(given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"input_nodes is {given!r:.60}; expected an int64 tensor [S] or a bool mask "
                f"[{num_nodes}]; the graph has nodes of one type, which has no name"
            ) from error
        given = given.long() if given.numel() == 0 else given
    if given.dtype == torch.bool:
        if given.shape != (num_nodes,):
            raise ValueError(
                f"input_nodes is a mask of shape {list(given.shape)}; expected [{num_nodes}]"
            )
        chosen: Tensor = given.cpu().nonzero().flatten()
        return chosen
    found = nodes(given, "input_nodes")
    in_range(found, num_nodes, "input_nodes")
    return found


def rows(tensor: Any, count: int, name: str, of: str) -> None:
    """Raises unless it is a dense tensor on the CPU with ``count`` rows."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        kind = tensor.layout if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{name} is {kind}; expected a dense torch.Tensor with a row for each {of}")
    if tensor.dim() == 0 or tensor.shape[0] != count:
        raise ValueError(
            f"{name} has shape {list(tensor.shape)}; expected [{count}, ...], a row for each {of}"
        )
    on_cpu(tensor, name)


def on_cpu(tensor: Tensor, name: str) -> None:
    """Raises ValueError unless the tensor is on the CPU."""
    if tensor.device.type != "cpu":
        raise ValueError(f"{name} is on {tensor.device}; expected it on the CPU: {name}.cpu()")


def times(given: Any, count: int, name: str) -> Tensor | None:
    """A contiguous int64 vector [count], or None."""
    if given is None:
        return None
    rows(given, count, name, "time")
    if given.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} has dtype {given.dtype}; expected torch.int64: round or scale it")
    if given.dim() != 1:
        raise ValueError(f"{name} has shape {list(given.shape)}; expected [{count}]")
    found: Tensor = given.to(torch.int64).contiguous()
    return found


def weights(given: Any, count: int, name: str = "edge_weight") -> Tensor | None:
    """A contiguous float32 vector [count], or None; values are checked when they are read."""
    if given is None:
        return None
    rows(given, count, name, "edge")
    if not given.is_floating_point():
        raise TypeError(
            f"{name} has dtype {given.dtype}; expected floating-point numbers: use .float()"
        )
    if given.dim() != 1:
        raise ValueError(f"{name} has shape {list(given.shape)}; expected [{count}]")
    found: Tensor = given.detach().float().contiguous()
    return found
