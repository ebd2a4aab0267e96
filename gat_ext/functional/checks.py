"""Argument checks shared by the public operators."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from gat_ext import _C
from gat_ext.graph import Graph
from gat_ext.graph.protocol import GraphLike
from gat_ext.graph.sharded import ShardedGraph
from gat_ext.graph.traced import TracedGraph
from gat_ext.ops.arguments import DIMS
from gat_ext.ops.checks import choice as choice
from gat_ext.ops.checks import flag as flag
from gat_ext.ops.scores import TRAITS
from gat_ext.ops.state import have_tangents, in_functorch, is_dispatched

_HAS_CUDA = _C.build_info()["cuda"]


_INT64_MAX = 2**63 - 1


def is_graph(graph: Any) -> None:
    """Raises TypeError unless ``graph`` is a Graph, a DistGraph, or a TracedGraph while tracing."""
    if not isinstance(graph, (Graph, TracedGraph, ShardedGraph)):
        raise TypeError(
            f"graph is a {type(graph).__name__}; expected a gat_ext.Graph: build one from an "
            "edge_index with Graph(edge_index)"
        )


def is_whole(graph: Any, caller: str) -> None:
    """Raises unless ``graph`` is a Graph of all nodes; ``caller`` is named in the error."""
    is_graph(graph)
    if isinstance(graph, ShardedGraph):
        raise NotImplementedError(
            f"{caller} is not available on a DistGraph, because it reads the whole graph; pass the "
            "Graph itself"
        )


def no_transform(operator: str, *inputs: Tensor) -> None:
    """Raises NotImplementedError inside torch.func and for tangents, which would be dropped."""
    if in_functorch() or have_tangents(*inputs):
        raise NotImplementedError(
            f"{operator} has no forward-mode derivative and does not support torch.func (grad, "
            "vmap, jvp, ...); use torch.autograd.grad, or torch.autograd.functional.jvp for a "
            "Jacobian-vector product, which runs reverse mode twice"
        )


def floating(tensor: Any, name: str) -> None:
    """Raises TypeError unless ``tensor`` is a dense floating-point tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}; expected a torch.Tensor")
    if not tensor.is_floating_point():
        raise TypeError(
            f"{name} has dtype {tensor.dtype}; expected float32, float64, bfloat16 or float16"
        )
    if tensor.layout != torch.strided:
        raise TypeError(
            f"{name} has layout {tensor.layout}; expected a dense tensor: convert it with "
            ".to_dense()"
        )


def numbers(tensor: Any, name: str) -> None:
    """Raises TypeError unless it is a dense tensor of real numbers, integers or booleans."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}; expected a torch.Tensor")
    if tensor.is_complex() or tensor.is_quantized:
        raise TypeError(f"{name} has dtype {tensor.dtype}; expected real numbers or booleans")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} has layout {tensor.layout}; expected a dense tensor")


def autocast_is_on(device: torch.device) -> bool:
    """True if dtypes may differ on a device, because operators cast their inputs."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def same_kind(a: Tensor, a_name: str, b: Tensor, b_name: str) -> None:
    """Raises unless two tensors agree in dtype and device; under autocast dtypes may differ."""
    floating(a, a_name)
    floating(b, b_name)
    if a.dtype != b.dtype and not autocast_is_on(a.device):
        raise TypeError(
            f"{a_name} has dtype {a.dtype} and {b_name} has dtype {b.dtype}; expected the same "
            "dtype: cast one of them with .to()"
        )
    if a.device != b.device:
        raise ValueError(
            f"{a_name} is on {a.device} and {b_name} is on {b.device}; expected the same device: "
            "move one of them with .to()"
        )


def on_graph_device(graph: GraphLike, tensor: Tensor, name: str) -> None:
    """Raises unless ``graph`` is a Graph and the tensor is on its device."""
    is_graph(graph)
    if tensor.device != graph.device:
        raise ValueError(
            f"{name} is on {tensor.device} and the graph is on {graph.device}; expected the same "
            "device: move one of them with .to()"
        )
    if tensor.is_cuda and not _HAS_CUDA:
        raise RuntimeError(
            f"{name} is on {tensor.device}, but this build of gat_ext has no CUDA kernels; install "
            "nvcc and run GAT_EXT_CUDA=1 pip install --no-build-isolation ."
        )


def node_features(graph: GraphLike, tensor: Tensor, name: str, count_name: str) -> None:
    """Raises unless the shape is [N, H, F] or [N, F], where N is num_src or num_dst."""
    floating(tensor, name)
    on_graph_device(graph, tensor, name)
    count: int = getattr(graph, count_name)
    if tensor.dim() not in (2, 3) or tensor.shape[0] != count:
        raise ValueError(
            f"{name} has shape {list(tensor.shape)}; expected [{count}, H, F] or [{count}, F], "
            f"because the graph has {count_name} = {count}"
        )


def edge_values(graph: GraphLike, tensor: Tensor, name: str) -> None:
    """Raises unless the shape is [E, H] or [E]."""
    floating(tensor, name)
    on_graph_device(graph, tensor, name)
    if tensor.dim() not in (1, 2) or tensor.shape[0] != graph.num_edges:
        raise ValueError(
            f"{name} has shape {list(tensor.shape)}; expected [{graph.num_edges}, H] or "
            f"[{graph.num_edges}], because the graph has {graph.num_edges} edges"
        )


def same_tail(a: Tensor, a_name: str, b: Tensor, b_name: str) -> None:
    """Raises if two tensors differ in more than their first dimension."""
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"{a_name} has shape {list(a.shape)} and {b_name} has shape {list(b.shape)}; "
            "expected the same sizes in all dimensions except the first"
        )


def rows_of_heads(tensor: Any, name: str) -> None:
    """Raises unless the shape is [N, H, D]."""
    floating(tensor, name)
    if tensor.dim() != 3:
        raise ValueError(f"{name} has shape {list(tensor.shape)}; expected [N, H, D]")


def heads(tensor: Tensor, count: int, name: str, other: str) -> None:
    """Raises unless the number of heads of a per-edge tensor is 1 or count."""
    # Sizes may be symbols, which no tuple holds.
    if tensor.shape[1] != 1 and tensor.shape[1] != count:
        raise ValueError(
            f"{name} has {tensor.shape[1]} heads and {other} has {count}; expected {count} or 1"
        )


def attention_inputs(
    graph: GraphLike,
    value: Tensor,
    score: str,
    inputs: dict[str, Tensor | None],
    edge_in_value: bool,
) -> None:
    """Raises unless the inputs fit the score, each other and the graph."""
    is_graph(graph)
    choice(score, tuple(TRAITS), "score")
    flag(edge_in_value, "edge_in_value")
    required, optional = TRAITS[score].required, TRAITS[score].optional
    for name, tensor in inputs.items():
        if tensor is None and name in required:
            raise ValueError(
                f"{name} is None; score {score!r} expects {', '.join(required)}: pass {name}"
            )
        if tensor is not None and name not in (*required, *optional):
            raise ValueError(
                f"{name} was given, but score {score!r} does not use it; leave {name} out"
            )
    floating(value, "value")
    on_graph_device(graph, value, "value")
    if value.dim() != 3 or value.shape[0] != graph.num_src:
        raise ValueError(
            f"value has shape {list(value.shape)}; expected [{graph.num_src}, H, F], "
            f"because the graph has num_src = {graph.num_src}"
        )
    edge_feat, edge_attr = inputs["edge_feat"], inputs["edge_attr"]
    one, both = edge_attr is not None, (edge_attr is None) == (inputs["edge_map"] is None)
    if not both or (one and edge_feat is not None):
        raise ValueError(
            "edge_attr and edge_map go together, in place of edge_feat; expected both or none"
        )
    query = inputs["query"]
    channels = query.shape[-1] if isinstance(query, Tensor) and query.dim() == 3 else 0
    sizes = {"n": graph.num_dst, "m": graph.num_src, "E": graph.num_edges}
    features = edge_attr.shape[-1] if isinstance(edge_attr, Tensor) and edge_attr.dim() == 2 else 0
    sizes |= {"H": value.shape[1], "D": channels, "K": features}
    for name, tensor in inputs.items():
        if tensor is None:
            continue
        same_kind(value, "value", tensor, name)
        expected = tuple(map(sizes.__getitem__, DIMS[name]))
        if tensor.shape != expected:
            shapes = str(list(expected))
            if name == "bias":
                if tensor.shape == (graph.num_edges,) or tensor.shape == (graph.num_edges, 1):
                    continue  # of all heads
                shapes += f", [{graph.num_edges}, 1] or [{graph.num_edges}]"
            if name == "edge_attr":
                shapes = f"[{graph.num_edges}, K]"
            raise ValueError(
                f"{name} has shape {list(tensor.shape)}; expected {shapes} for "
                f"value of shape {list(value.shape)} on {graph!r}"
            )
    none = edge_feat is None and edge_attr is None
    if edge_in_value and (none or channels != value.shape[2]):
        raise ValueError(
            f"edge_in_value adds edge_feat to value and expects {value.shape[2]} channels; "
            + ("edge_feat was not given" if none else f"edge_feat has {channels}")
        )


def edge_features(graph: GraphLike, tensor: Any, name: str, channels: int | None) -> None:
    """Raises unless it is [E, channels], on the graph's device; None accepts any channels."""
    edge_values(graph, tensor, name)
    if tensor.dim() != 2 or (channels is not None and tensor.shape[1] != channels):
        wanted = "channels" if channels is None else channels
        raise ValueError(
            f"{name} has shape {list(tensor.shape)}; expected [{graph.num_edges}, {wanted}]"
        )


def temperature(beta: Any, query: Tensor) -> float | Tensor:
    """Returns beta, a number or a tensor [] or [H] for query [N, H, D]; raises for others."""
    if not isinstance(beta, Tensor):
        return number(beta, "beta")
    same_kind(query, "query", beta, "beta")
    if beta.numel() != 1 and beta.shape != query.shape[1:2]:
        raise ValueError(
            f"beta has shape {list(beta.shape)}; expected a number, or a tensor of shape [] or "
            f"[{query.shape[1]}], one for each head"
        )
    return beta


def number(x: Any, name: str) -> float:
    """Returns a finite number as a float; raises for anything else."""
    if torch.compiler.is_compiling():  # x may be a symbol
        return x  # type: ignore[no-any-return]
    if type(x) is float and math.isfinite(x):
        return x
    if isinstance(x, Tensor) or not isinstance(x, Real):
        hint = f": pass {name}.item(), or multiply an input by it to learn it"
        raise TypeError(
            f"{name} is a {type(x).__name__}; expected a number"
            + (hint if isinstance(x, Tensor) else "")
        )
    try:
        finite = math.isfinite(x)
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError(f"{name} is {x}; expected a finite number")
    return float(x)


def probability(p: Any, name: str) -> float:
    """Returns a number in [0, 1] as a float; raises for anything else."""
    share = number(p, name)
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {p}; expected a probability from 0 to 1")
    return share


def positive_integer(k: Any, name: str) -> int:
    """Returns an integer of at least 1, clamped to int64; raises for anything else."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"{name} is {k!r}; expected an integer of at least 1")
    return min(k, _INT64_MAX)


def indices(
    graph: Graph, tensor: Any, name: str, count: int | None = None, *, shape: str = "[B]"
) -> None:
    """Raises unless it is an int64 vector on the graph's device, of ``count`` elements if given."""
    expected = shape if count is None else f"[{count}], because the graph has {count} nodes"
    index_vector(tensor, name, expected, count)
    on_graph_device(graph, tensor, name)


def index_vector(tensor: Any, name: str, expected: str, count: int | None = None) -> None:
    """Raises unless it is a dense int64 vector, of ``count`` elements if given."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}; expected a torch.Tensor")
    if tensor.dtype != torch.int64:
        raise TypeError(f"{name} has dtype {tensor.dtype}; expected int64: use .long()")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} has layout {tensor.layout}; expected a dense tensor")
    if tensor.dim() != 1 or (count is not None and tensor.shape[0] != count):
        raise ValueError(f"{name} has shape {list(tensor.shape)}; expected {expected}")


def node_pointers(node_ptr: Tensor, num_nodes: int, *, at_least: int) -> int:
    """G, the number of graphs of an int64 vector node_ptr [G + 1].

    Raises:
        ValueError: it does not go from 0 to num_nodes with at least so many nodes in each graph,
            which in a trace is not looked at; or there is no graph.
    """
    count = node_ptr.shape[0] - 1
    if count < 1:
        raise ValueError(
            f"node_ptr has shape {list(node_ptr.shape)}; expected [G + 1], the first node of each "
            "graph, then the number of nodes"
        )
    if torch.compiler.is_compiling() or is_dispatched():
        return count
    first, last = node_ptr[0].item(), node_ptr[-1].item()
    if (first, last) != (0, num_nodes):
        raise ValueError(
            f"node_ptr goes from {first} to {last}; expected 0 to {num_nodes}, the number of nodes"
        )
    sizes = node_ptr.diff()
    if int(sizes.min()) < at_least:
        number = int(sizes.argmin())
        raise ValueError(
            f"graph {number} has {int(sizes[number])} nodes by node_ptr; expected at least "
            f"{at_least}"
        )
    return count


def in_range(tensor: Tensor, bound: int, name: str, what: str) -> None:
    """Raises IndexError unless all indices are at least 0 and below the bound; one pass."""
    if tensor.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = torch.stack(torch.aminmax(tensor)).tolist()
    if low < 0 or high >= bound:
        raise IndexError(
            f"{name} has the value {low if low < 0 else high}; expected 0 to {bound - 1}, because "
            f"{what} is {bound}"
        )


def seed(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns an int64 tensor of one element, moved to the device; raises for anything else."""
    if (
        not isinstance(tensor, Tensor)
        or tensor.dtype != torch.int64
        or tensor.layout != torch.strided
        or tensor.numel() != 1
    ):
        given = type(tensor).__name__
        if isinstance(tensor, Tensor):
            given = f"{tensor.dtype} tensor of shape {list(tensor.shape)}"
        raise TypeError(
            f"seed is a {given}; expected an int64 tensor of one element, such as torch.tensor([7])"
        )
    return tensor if tensor.device == device else tensor.to(device)
