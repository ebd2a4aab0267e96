"""Sample graphs, sample inputs, devices and tolerances for tests of the operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gat_ext.graph import Graph
from gat_ext.reference import dropout_mask, inverse_norm, score_inputs

# ---- graphs


def _empty(num_src: int, num_dst: int) -> Graph:
    return Graph(torch.empty((2, 0), dtype=torch.int64), num_src=num_src, num_dst=num_dst)


def _random(num_src: int, num_dst: int, num_edges: int, seed: int) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    src = torch.randint(num_src, (num_edges,), generator=generator)
    dst = torch.randint(num_dst, (num_edges,), generator=generator)
    return Graph(torch.stack([src, dst]), num_src=num_src, num_dst=num_dst)


def _isolated() -> Graph:
    return Graph(torch.tensor([[1, 4, 1, 3], [3, 3, 1, 1]]), num_nodes=6)


def _multi_edges() -> Graph:
    src, dst = [0, 1, 0, 0, 2, 1, 0], [1, 1, 1, 2, 2, 1, 2]
    return Graph(torch.tensor([src, dst]), num_nodes=3)


def _self_loops() -> Graph:
    return Graph(torch.tensor([[0, 1, 2, 0, 2, 3], [0, 1, 2, 2, 0, 3]]), num_nodes=4)


def _long_row() -> Graph:
    """A destination and a source with more edges than a kernel handles in one tile."""
    generator = torch.Generator().manual_seed(5)
    ends = torch.randint(60, (2, 21_000), generator=generator)
    ends[1, :12_000] = 7
    ends[0, 12_000:] = 11
    return Graph(ends, num_nodes=60)


def _star() -> Graph:
    """Node 0 has edges from and to every other node."""
    leaves, hub = torch.arange(1, 9), torch.zeros(8, dtype=torch.int64)
    return Graph(torch.stack([torch.cat([leaves, hub]), torch.cat([hub, leaves])]), num_nodes=9)


def _path() -> Graph:
    return Graph(torch.stack([torch.arange(5), torch.arange(1, 6)]), num_nodes=6)


def complete_graph(num_src: int, num_dst: int | None = None) -> Graph:
    """Edges from every source to every destination, self-loops included, in row-major order.

    Example:
        >>> complete_graph(2).edge_index.tolist()
        [[0, 1, 0, 1], [0, 0, 1, 1]]
    """
    num_dst = num_src if num_dst is None else num_dst
    dst, src = torch.ones(num_dst, num_src).nonzero().t()
    return Graph(torch.stack([src, dst]), num_src=num_src, num_dst=num_dst)


GRAPHS: dict[str, Callable[[], Graph]] = {
    "no_nodes": lambda: _empty(0, 0),
    "no_edges": lambda: _empty(5, 5),
    "no_sources": lambda: _empty(0, 3),
    "no_destinations": lambda: _empty(3, 0),
    "single_node": lambda: complete_graph(1),
    "isolated": _isolated,
    "multi_edges": _multi_edges,
    "self_loops": _self_loops,
    "more_sources": lambda: _random(9, 4, 17, seed=1),
    "more_destinations": lambda: _random(4, 9, 17, seed=2),
    "star": _star,
    "unsorted": lambda: _random(8, 8, 24, seed=3),
    "complete": lambda: complete_graph(5),
    "path": _path,
    "long_row": _long_row,
}
"""Builders of the sample graphs by name."""

SMALL_GRAPHS = tuple(name for name in GRAPHS if name != "long_row")
"""Names of the graphs small enough for finite differences."""


def sample_graph(
    name: str, device: torch.device | str = "cpu", index_dtype: torch.dtype | None = None
) -> Graph:
    """A graph of ``GRAPHS`` on a device, with a given index dtype.

    Raises:
        ValueError: unknown name.

    Example:
        >>> sample_graph("path")
        Graph(num_nodes=6, num_edges=5, index_dtype=torch.int32, device='cpu')
    """
    if name not in GRAPHS:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(map(repr, GRAPHS))}")
    graph = GRAPHS[name]()
    return Graph(
        graph.edge_index.to(device),
        num_src=graph.num_src,
        num_dst=graph.num_dst,
        index_dtype=index_dtype,
    )


# ---- devices and tolerances


def devices() -> list[str]:
    """The available devices: "cpu", and "cuda" if there is a GPU.

    Example:
        >>> "cpu" in devices()
        True
    """
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """``rtol`` and ``atol`` for ``torch.testing.assert_close`` of a result of order one.

    16-bit results may differ by the rounding of the result, because sums are float32; others by the
    rounding of short sums.

    Raises:
        ValueError: not a dtype of the operators.

    Example:
        >>> tolerance(torch.float64)
        {'rtol': 1e-12, 'atol': 1e-12}
    """
    bounds = {
        torch.float64: 1e-12,
        torch.float32: 1e-5,
        torch.float16: 4e-3,
        torch.bfloat16: 1.6e-2,
    }
    if dtype not in bounds:
        raise ValueError(f"dtype is {dtype}; expected one of {', '.join(map(str, bounds))}")
    return {"rtol": bounds[dtype], "atol": bounds[dtype]}


# ---- inputs


class _Sampler:
    """Draws tensors in float64 on the CPU: the same values for all devices and dtypes."""

    def __init__(
        self, dtype: torch.dtype, device: torch.device | str, seed: int, requires_grad: bool
    ) -> None:
        self.dtype, self.device, self.requires_grad = dtype, device, requires_grad
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def leaf(self, values: Tensor) -> Tensor:
        return values.to(self.device, self.dtype).requires_grad_(self.requires_grad)


def sample_inputs(
    score: str,
    graph: Graph,
    heads: int = 2,
    channels: int = 4,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
    seed: int = 0,
    *,
    requires_grad: bool = False,
) -> dict[str, dict[str, Any]]:
    """Arguments of ``edge_attention`` for a score, by the name of the option that they test.

    Every entry has ``score``, ``value`` and the inputs in :func:`score_inputs
    <gat_ext.reference.score_inputs>`, plus the option of its name:

    - "plain"; "bias"; "masked" (a bias with -inf, of all in-edges of destination 0 too);
      "negative_slope"; "scale"; "hard" and "top_k" (1 and 2 kept); "dropout"; "everything";
    - for scores that read key: "edge_feat", "edge_in_value", "edge_map" and "edge_map_in_value"
      (linear edge features), and "uneven" (more value channels than key channels); for scores that
      read src_term: "edge_term".

    Args:
        score: a name in ``reference.SCORES``.
        graph: the graph.
        heads: H.
        channels: D, and F except for "uneven".
        dtype: dtype of all tensors; values are rounded from float64.
        device: device of all tensors; None: the graph's.
        seed: seed of the values.
        requires_grad: True for leaves that require gradients.

    Returns:
        Keyword arguments for ``functional.edge_attention``, without the graph. For the reference,
        convert them with :func:`reference_inputs`.

    Raises:
        ValueError: unknown score.

    Example:
        >>> inputs = sample_inputs("additive", sample_graph("path"))
        >>> sorted(inputs["bias"])
        ['bias', 'dst_term', 'score', 'src_term', 'value']
    """
    device = graph.device if device is None else device
    draw = _Sampler(dtype, device, seed, requires_grad)
    base = {"score": score} | _node_inputs(draw, score, graph, heads, channels)
    bias = draw.normal(graph.num_edges, heads)
    masked = bias.masked_fill(draw.normal(graph.num_edges, heads) > 1, -torch.inf)
    masked[(graph.edge_index[1] == 0).cpu()] = -torch.inf
    seed_tensor = torch.tensor([2**40 + seed], device=device)
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "bias": {"bias": draw.leaf(bias)},
        "masked": {"bias": draw.leaf(masked)},
        "negative_slope": {"negative_slope": -0.3},
        "scale": {"scale": 0.6},
        "hard": {"top_k": 1},
        "top_k": {"top_k": 2, "bias": draw.leaf(bias)},
        "dropout": {"dropout_p": 0.4, "seed": seed_tensor},
    }
    options |= _edge_inputs(draw, score, graph, heads, channels)
    everything: dict[str, Any] = {}
    for name in (
        "bias",
        "negative_slope",
        "scale",
        "top_k",
        "dropout",
        "edge_in_value",
        "edge_term",
    ):
        everything |= options.get(name, {})
    return {name: base | option for name, option in {**options, "everything": everything}.items()}


def _node_inputs(
    draw: _Sampler, score: str, graph: Graph, heads: int, channels: int
) -> dict[str, Tensor]:
    reads = score_inputs(score)
    num_dst, num_src = graph.num_dst, graph.num_src
    query, key = draw.normal(num_dst, heads, channels), draw.normal(num_src, heads, channels)
    inputs = {"value": draw.normal(num_src, heads, channels), "query": query, "key": key}
    inputs["att"] = draw.normal(heads, channels)
    inputs["dst_term"], inputs["src_term"] = (
        draw.normal(num_dst, heads),
        draw.normal(num_src, heads),
    )
    if "query" in reads:
        # Terms next to queries and keys have the size of inverse norms, so that a score that
        # multiplies them by a dot product is of order one.
        inputs["dst_term"] = inverse_norm(query) * inputs["dst_term"].sign()
        inputs["src_term"] = inverse_norm(key) * inputs["src_term"].sign()
    return {name: draw.leaf(tensor) for name, tensor in inputs.items() if name in ("value", *reads)}


def _edge_inputs(
    draw: _Sampler, score: str, graph: Graph, heads: int, channels: int
) -> dict[str, dict[str, Any]]:
    reads = score_inputs(score)
    inputs: dict[str, dict[str, Any]] = {}
    if "key" in reads:
        edge_feat = draw.leaf(draw.normal(graph.num_edges, heads, channels))
        uneven = draw.leaf(draw.normal(graph.num_src, heads, channels + 3))
        inputs["edge_feat"] = {"edge_feat": edge_feat}
        inputs["edge_in_value"] = {"edge_feat": edge_feat, "edge_in_value": True}
        inputs["uneven"] = {"value": uneven}
        edge_attr = draw.leaf(draw.normal(graph.num_edges, 5))
        edge_map = draw.leaf(draw.normal(heads, channels, 5))
        inputs["edge_map"] = {"edge_attr": edge_attr, "edge_map": edge_map}
        inputs["edge_map_in_value"] = inputs["edge_map"] | {"edge_in_value": True}
    if "src_term" in reads:
        inputs["edge_term"] = {"edge_term": draw.leaf(draw.normal(graph.num_edges, heads))}
    return inputs


def reference_inputs(
    graph: Graph, inputs: dict[str, Any], dtype: torch.dtype | None = None
) -> dict[str, Any]:
    """Converts arguments of ``functional.edge_attention`` for ``reference.edge_attention``.

    Replaces ``dropout_p`` and ``seed`` by their dropout mask.

    Args:
        graph: the graph.
        inputs: the arguments.
        dtype: dtype of floating-point tensors; None keeps their own. Values are not rounded, so
            float64 gives exact results for inputs of a narrower dtype. Converted tensors are new
            leaves.

    Example:
        >>> graph = sample_graph("path")
        >>> inputs = sample_inputs("dot", graph, dtype=torch.bfloat16)["dropout"]
        >>> reference_inputs(graph, inputs, torch.float64)["dropout_mask"].dtype
        torch.float64
    """
    result = {name: value for name, value in inputs.items() if name not in ("dropout_p", "seed")}
    if dtype is not None:
        for name, value in result.items():
            if isinstance(value, Tensor):
                result[name] = value.detach().to(dtype).requires_grad_(value.requires_grad)
    if inputs.get("dropout_p", 0) > 0:
        value = result["value"]
        result["dropout_mask"] = dropout_mask(
            inputs["seed"], graph.num_edges, value.shape[1], inputs["dropout_p"], value.dtype
        )
    return result
