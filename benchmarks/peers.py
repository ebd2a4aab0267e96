"""The peers that run the same case, and what a benchmark module hands them.

A peer is a family (the library, and how it holds a graph), run as it is or compiled. A benchmark
module ``bench_*.py`` has ``ITEMS: dict[str, Item]``; an item knows its tensors and how each family
runs them.
"""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from cases import DTYPES, Case, Setting
from torch import Tensor


@dataclass
class Program:
    """What a peer runs: ``function(*args)``.

    Attributes:
        leaves: the tensors whose gradients are computed and compared, by name. A key of several
            names is one tensor that stands for all of them (tied weights): its gradient is the sum
            of theirs.
        update: the optimizer's step, where the item has one.
    """

    function: Callable[..., Tensor]
    args: tuple[Any, ...]
    leaves: dict[tuple[str, ...], Tensor]
    update: Callable[[], object] | None = None


@dataclass(frozen=True)
class Item:
    """One row of a benchmark: a layer, an operator.

    Attributes:
        title: what the table is headed with.
        tensors: the inputs, weights and "grad_out" of a case, drawn from a generator.
        build: the program of each family for a case that has its tensors.
        gathers: how many passes over E rows of ``heads * channels`` the forward cannot do without.
        projections: number of dense products of width ``heads * channels`` beside the attention.
        dense_bytes: what the masked N×N computation needs at its peak.
        dropout: attention dropout where the setting asks for none in particular.
        notes: by family, what a reader has to know to compare.
    """

    title: str
    tensors: Callable[[Case, torch.Generator], dict[str, Tensor]]
    build: Mapping[str, Callable[[Case], Program]]
    dense_bytes: Callable[[Setting, int], int]
    gathers: int = 1
    projections: int = 0
    dropout: float = 0.0
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A column of the comparison.

    Attributes:
        modules: what has to be importable, the library first.
        install: what to do where it is not.
    """

    title: str
    family: str
    modules: tuple[str, ...]
    install: str
    compiled: bool = False


_PYG = "pip install 'gat_ext[test]'"
PEERS: dict[str, Peer] = {
    "gat_ext": Peer("gat_ext", "gat_ext", ("gat_ext",), "pip install ."),
    "gat_ext-compiled": Peer(
        "gat_ext compiled", "gat_ext", ("gat_ext",), "pip install .", compiled=True
    ),
    "pyg": Peer("PyG eager", "pyg", ("torch_geometric",), _PYG),
    "pyg-compiled": Peer("PyG compiled", "pyg", ("torch_geometric",), _PYG, compiled=True),
    "dense": Peer("dense torch", "dense", ("torch",), "pip install torch"),
    "dgl": Peer(
        "DGL",
        "dgl",
        ("dgl", "dgl.nn.pytorch"),
        "name an interpreter that has it with --python dgl=PATH",
    ),
}


def probe(name: str) -> dict[str, str]:
    """Versions of the peer's libraries.

    Raises:
        ImportError: it cannot run here; the message says why and what to do.
    """
    peer = PEERS[name]
    if peer.family == "dgl":
        os.environ.setdefault("DGLBACKEND", "pytorch")
    for module in peer.modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # DGL raises whatever its shared libraries do
            why = [*str(error).strip().splitlines(), type(error).__name__][0]
            raise ImportError(f"cannot import {module}: {why} ({peer.install})") from error
    library = importlib.import_module(peer.modules[0])
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        peer.modules[0]: getattr(library, "__version__", "unknown"),
    }


# ---- how each family holds a graph


def _gat_ext_graph(edge_index: Tensor, num_nodes: int) -> Any:
    from gat_ext import Graph

    graph = Graph(edge_index, num_nodes)
    graph.transpose()
    return graph


def _pyg_graph(edge_index: Tensor, num_nodes: int) -> Any:
    return edge_index


def _dense_mask(edge_index: Tensor, num_nodes: int) -> Tensor:
    """``[N_dst, N_src]``: log of the number of edges, which added to scores counts multi-edges."""
    counts = torch.zeros(num_nodes, num_nodes, dtype=torch.float64)
    src, dst = edge_index
    counts.index_put_((dst, src), counts.new_ones(()), accumulate=True)
    return counts.log_()


def _dgl_graph(edge_index: Tensor, num_nodes: int) -> Any:
    import dgl

    graph = dgl.graph((edge_index[0], edge_index[1]), num_nodes=num_nodes).int()
    graph.create_formats_()
    return graph


_GRAPHS: dict[str, Callable[[Tensor, int], Any]] = {
    "gat_ext": _gat_ext_graph,
    "pyg": _pyg_graph,
    "dense": _dense_mask,
    "dgl": _dgl_graph,
}


def graph_of(family: str, case: Case) -> Any:
    """The case's graph as the family takes it, with all that is built once for a graph."""
    graph = _GRAPHS[family](case.edge_index, case.num_nodes)
    return graph.to(DTYPES[case.setting.dtype]) if family == "dense" else graph
