"""One keyword of a public function, constructor or method has a value of any other kind.

The call is refused with a sentence, or works as with the plain number that the value equals. A
layer or model whose constructor accepted it computes, or refuses its input. No argument is
modified, and the call with good arguments gives the same result afterwards.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import resource
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from calls import Call, connected_graph, contents, draw_call, results_of
from fuzzing import F64, SCALARS
from random_calls import REFUSALS, Note
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

import gat_ext
from gat_ext import Graph, SparseFeatures, datasets, explain, interop, models, training


class Text(str):
    """A string of another class."""


class Number:
    """Converts to a number, and is none."""

    def __index__(self) -> int:
        return 1

    def __float__(self) -> float:
        return 0.5


VALUES: list[Any] = [
    *SCALARS, False, 1, 2, 4, -2, 0.0, 1.0, 1e-3, -0.5, 2**31, 2**31 - 1, -(2**63), 10**400,
    "mean", "max", "sum", "dst", "sample", "dot", "cpu", "meta", "0", "mean\0", "é" * 3,
    Text("sum"), np.bool_(True), np.float64(math.nan), np.int8(-1), np.uint64(2**63),
    np.array(1), np.array([1, 2]),
    np.array("x"), np.zeros((0, 2)), Fraction(1, 2), Number(), range(2), (1,), (1, 2), (-1, -1),
    [0, 1], [None], {"a": 1}, {1}, frozenset(), slice(None), Ellipsis, NotImplemented, lambda: None,
    int, torch.int32, torch.device("cpu"), torch.strided, Path("x"), b"", bytearray(2),
    torch.tensor(1), torch.tensor(True), torch.tensor(math.nan), torch.zeros(0), torch.zeros(2, 0),
    torch.ones(2, 2), torch.ones(1, 1, 1), torch.tensor([[0], [1]]), torch.tensor(1 + 1j),
    torch.ones(2, device="meta"), torch.eye(2).to_sparse(), Graph(torch.tensor([[0], [1]])),
]  # fmt: skip
"""Of every kind, the likely ones too."""

OUT_OF_MEMORY = ("memory", "allocate", "overflow", "too large", "maximum", "exceed", "int64_t")
MEMORY = 2 * 2**30


def prepare() -> None:
    """Limits the memory, because sizes may be of any size."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


# ---- calls


def constructor(kind: Any, *sizes: Any, **more: Any) -> Callable[[Random], Call]:
    """The constructor, and a forward pass where it makes a layer of nodes."""
    names = list(inspect.signature(kind).parameters)
    given = dict(zip(names, sizes, strict=False)) | more
    x, edges = torch.randn(4, 3), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 3]])

    def make_and_call(**options: Any) -> Any:
        made = kind(**options)
        if isinstance(made, nn.Module) and ("x" in inspect.signature(made.forward).parameters):
            with_edges = [torch.ones(4, 2)] if getattr(made, "edge_dim", None) is not None else []
            return made.eval()(x, edges, *with_edges)
        return list(made.parameters()) if isinstance(made, nn.Module) else made

    make_and_call.__signature__ = inspect.signature(kind)  # type: ignore[attr-defined]
    return lambda rnd: Call(kind.__name__, make_and_call, dict(given))


def method(title: str, function: Callable[..., Any], /, **given: Any) -> Callable[[Random], Call]:
    """A function with fixed arguments."""
    return lambda rnd: Call(title, function, dict(given))


def graph_method(rnd: Random) -> Call:
    """A method of Graph or SparseFeatures."""
    graph, x = connected_graph(rnd), SparseFeatures(torch.eye(3))
    scipy = __import__("scipy.sparse").sparse
    return rnd.choice(
        [
            Call("Graph.to", graph.to, {"device": "cpu"}),
            Call("Graph.reorder", graph.reorder, {"method": rnd.choice(["degree", "rcm"])}),
            Call("Graph.batch", Graph.batch, {"graphs": [graph, graph]}),
            Call("Graph.from_scipy", Graph.from_scipy, {"matrix": scipy.eye(3).tocsr()}),
            Call("Graph.from_torch_sparse", Graph.from_torch_sparse,
                 {"matrix": torch.eye(3).to_sparse_csr()}),
            Call("SparseFeatures.dropout", x.dropout, {"p": 0.0, "training": False}),
            Call("SparseFeatures.linear", x.linear, {"weight": torch.ones(2, 3)}),
        ]
    )  # fmt: skip


LAYER = {"in_channels": 3, "out_channels": 2}
MODEL = {"in_channels": 3, "hidden_channels": 2, "out_channels": 2}
CALLS: list[Callable[[Random], Call]] = [
    *[draw_call] * 20,
    graph_method,
    constructor(gat_ext.nn.GATConv, 3, 2, edge_dim=2),
    constructor(gat_ext.nn.GATConv, 3, 2, 2),
    constructor(gat_ext.nn.GATv2Conv, 3, 2, edge_dim=2),
    constructor(gat_ext.nn.TransformerConv, 3, 2, 2),
    constructor(gat_ext.nn.AGNNConv),
    constructor(gat_ext.nn.WalkAgent, 3, 4, (3, 3)),
    constructor(models.GAT, 3, 2, 2),
    constructor(models.GATv2, 3, 2, 2),
    constructor(models.AGNN, 3, 2, 2),
    constructor(models.GraphTransformer, 3, 2, 2),
    constructor(models.GAM, 3, 2, step_channels=(3, 3), hidden_channels=4),
    constructor(models.GAMMemory, 3, 2, step_channels=(3, 3), hidden_channels=4),
    constructor(models.AttentionWalk, 4, 4, 2),
    constructor(SparseFeatures, torch.eye(3)),
    constructor(Graph, torch.tensor([[0, 1], [1, 1]])),
    method("models.build", models.build, name="gat"),
    method("models.build_graphs", models.build_graphs, name="gam"),
    method("load", datasets.load, name="karate"),
    method("load sbm", lambda **options: datasets.load("sbm", **options), num_nodes=300),
    method("load_graphs", datasets.load_graphs, name="shapes", num_graphs=12),
    method("recipe", training.recipe, model="gat", dataset="cora"),
    method("from_dgl", interop.from_dgl, state_dict={"fc.weight": torch.ones(2, 3)}),
    method("patch_pyg", interop.patch_pyg, model=nn.Identity()),
    method("record_attention", explain.record_attention, model=nn.Identity()),
]
SBM = inspect.signature(datasets.sbm.sbm).parameters
SHAPES = inspect.signature(datasets.shapes.shapes).parameters


def keywords_of(call: Call) -> list[str]:
    """All keywords of a function, those of ``**options`` too."""
    function = getattr(call.function, "forward", call.function)
    names = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if "attention" in call.name and call.layer is None:
        options = inspect.signature(gat_ext.functional.edge_attention).parameters
        names += ["dropout_p", "seed", "top_k", "edge_mask", "return_weights", "return_lse"]
        assert set(names[-6:]) <= set(options)
    names += {"load sbm": [*SBM], "load_graphs": [*SHAPES]}.get(call.name, [])
    return list(dict.fromkeys([*names, *call.given]))


# ---- the judge


def attack(rnd: Random, note: Note) -> None:
    """Draws a call, and replaces or adds one keyword."""
    call = rnd.choice(CALLS)(rnd)
    name, value = rnd.choice(keywords_of(call)), rnd.choice(VALUES)
    note(f"{call}\n{name}={value!r} of type {type(value).__name__}")
    state = torch.get_rng_state()
    expected = result(call, {})
    assert expected is not None, "the call with good arguments is refused"
    before = contents(call.given)
    torch.set_rng_state(state)
    found = result(call, {name: value})
    plain = plain_of(value)
    if found is not None and plain is not None:
        torch.set_rng_state(state)
        same = result(call, {name: plain})
        assert same is not None, f"{plain!r} is refused, and its equal is not"
        assert equal(found, same), f"differs from the result of {plain!r}"
    torch.set_rng_state(state)
    again = result(call, {})
    assert again is not None and equal(again, expected), "good arguments have another result now"
    assert contents(call.given) == before, "an argument was modified"


def result(call: Call, changed: dict[str, Any]) -> list[Tensor] | None:
    """The tensors of a result, or None if the call was refused."""
    try:
        return results_of_any(call.run(**changed))
    except REFUSALS as error:
        assert type(error) in REFUSALS and str(error), repr(error)
    except (MemoryError, OverflowError):
        pass
    except FileNotFoundError:
        assert "root" in changed
    except RuntimeError as error:
        assert any(words in str(error) for words in OUT_OF_MEMORY), repr(error)
    return None


def results_of_any(value: Any) -> list[Tensor]:
    """The tensors of a result of any kind."""
    if isinstance(value, (datasets.NodeDataset, datasets.GraphDataset)):
        return [t for t in vars(value).values() if isinstance(t, Tensor)]
    if isinstance(value, (list, tuple)):
        return [t for part in value for t in results_of_any(part)]
    if isinstance(value, (Tensor, Graph)):
        return [] if is_lazy(value) else results_of(value)
    return []


def plain_of(value: Any) -> Any:
    """The plain number or string that a value of another kind equals, or None."""
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    return str(value) if isinstance(value, Text) else None


def equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    """Bitwise, except that NaN equals NaN."""
    if len(ours) != len(theirs):
        return False
    pairs = zip(ours, theirs, strict=True)
    return all(a.shape == b.shape and a.dtype == b.dtype and same_values(a, b) for a, b in pairs)


def same_values(a: Tensor, b: Tensor) -> bool:
    if a.device.type == "meta":
        return b.device.type == "meta"
    with contextlib.suppress(RuntimeError):
        return bool(torch.allclose(a.to(F64), b.to(F64), 0, 0, equal_nan=True))
    return torch.equal(a, b)
