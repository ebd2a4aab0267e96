"""Random calls with good arguments, of operators, Graph, layers, models, walkers and explanations.

For the attacks on arguments and on memory. Every call gives the same result when it is repeated.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import fuzzing
import torch
from fuzzing import F64, Values, shuffled_graph
from layers import all_cases
from random_calls import by_reference, exact_arguments, tensors_of
from torch import Tensor

from gat_ext import Graph, SparseFeatures, explain, functional, models, nn
from gat_ext.explain import LayerAttention


class Call(NamedTuple):
    """A function and its arguments by name.

    Attributes:
        layer: name of the layer that the reference can compute, if it is one.
    """

    name: str
    function: Callable[..., Any]
    given: dict[str, Any]
    layer: str | None = None

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.given.items())
        return f"{self.name}({given})"

    def run(self, **changed: Any) -> Any:
        """The result, with some arguments changed."""
        return self.function(**{**self.given, **changed})

    def tensors(self) -> list[str]:
        """The names of the arguments that are tensors."""
        return [name for name, value in self.given.items() if isinstance(value, Tensor)]

    def by_reference(self, **changed: Any) -> list[Tensor] | None:
        """What the reference returns in float64, if it has the function."""
        given = {**self.given, **changed}
        if self.layer is not None:
            with by_reference(self.layer):
                return tensors_of(self.function(**given))
        if self.function not in map(functional.__dict__.get, functional.__all__):
            return None
        names = list(inspect.signature(self.function).parameters)
        leading = [n for n in names[:3] if n in given] if "walk" in self.name else names[:2]
        args = tuple(given.pop(name) for name in leading)
        function, args, given = exact_arguments(self.function, args, given)
        return tensors_of(function(*args, **given))


def named(function: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> Call:
    """The call with all arguments by name."""
    names = inspect.signature(function).parameters
    return Call(function.__name__, function, dict(zip(names, args, strict=False)) | given)


def operator_call(rnd: Random) -> Call:
    """An operator, or Graph."""
    draws = [
        *(fuzzing.attention_call, fuzzing.attention_call, fuzzing.named_call),
        *(fuzzing.sparse_call, fuzzing.sparse_call, fuzzing.walk_call, fuzzing.graph_call),
    ]
    call = named(*rnd.choice(draws)(rnd))
    attends = "attention" in call.name
    if attends and rnd.random() < 0.3:
        graph = call.given["graph"]
        heads = call.given["value" if "value" in call.given else "query"].shape[1:2]
        first = next(v for v in call.given.values() if isinstance(v, Tensor))
        shape = (graph.num_edges, *rnd.choice([(), heads]))
        call.given["edge_mask"] = torch.rand(shape, dtype=F64).to(first.dtype)
    return call


CASES = all_cases()


def layer_call(rnd: Random) -> Call:
    """A layer in one of its variants."""
    case, draw = rnd.choice(CASES), Values(rnd, rnd.choice([F64, torch.float32]))
    pairs = rnd.random() < 0.3 and case.layer.supports("pairs") and "share" not in str(case)
    graph = shuffled_graph(rnd, square=not pairs)
    layer = case.make((3, 4) if pairs else 3, rnd.randint(1, 4)).to(draw.dtype).eval()
    x: Any = draw.normal(graph.num_src, 3)
    if pairs:
        x = x, draw.normal(graph.num_dst, case.layer.ends(3, 4)[1])
    given = {"x": x, "edge_index": rnd.choice([graph, graph.edge_index])}
    if case.has_edges:
        given["edge_attr"] = draw.normal(graph.num_edges, case.options["edge_dim"])
    supports = case.layer.supports
    if rnd.random() < 0.4 and supports("edge_mask"):
        given["edge_weight"] = draw.normal(graph.num_edges, *rnd.choice([(), (case.heads,)]))
    if rnd.random() < 0.3 and supports("weights"):
        given["return_attention_weights"] = True
    if not pairs and rnd.random() < 0.2 and supports("batch"):
        given["x"] = draw.normal(2, graph.num_src, 3)
    return Call(str(case), layer, given, case.name)


def model_call(rnd: Random) -> Call:
    """A model of layers."""
    name, draw = rnd.choice(models.available()), Values(rnd, rnd.choice([F64, torch.float32]))
    graph = shuffled_graph(rnd, square=True)
    model = models.build(name)(5, rnd.randint(1, 4), 3, num_layers=rnd.randint(1, 3))
    given = {"x": draw.normal(graph.num_nodes, 5), "graph": rnd.choice([graph, graph.edge_index])}
    if rnd.random() < 0.3:
        given["edge_weight"] = draw.normal(graph.num_edges).abs()
    return Call(name, model.to(draw.dtype).eval(), given)


def connected_graph(rnd: Random) -> Graph:
    """A ring with random edges: walks never end early."""
    ring = torch.arange(rnd.randint(2, 6))
    more = torch.randint(len(ring), (2, rnd.randint(0, 6)))
    return Graph(torch.cat([torch.stack([ring, ring.roll(1)]), more], dim=1), len(ring))


def walker_call(rnd: Random) -> Call:
    """Agents that walk, a model of them, or embeddings of walks."""
    seed, graph = torch.tensor([rnd.getrandbits(62)]), connected_graph(rnd)
    types = torch.randint(3, (graph.num_nodes,))
    which = rnd.randrange(4)
    if which == 0:
        agent = nn.WalkAgent(3, 4, (3, 3), attribute_channels=rnd.choice([None, 2]))
        given = {"graph": graph, "node_type": types, "num_steps": rnd.randint(1, 3), "seed": seed}
        given |= {"start": torch.randint(graph.num_nodes, (rnd.randint(0, 3),))}
        if agent.attribute_channels is not None:
            given["attributes"] = torch.randn(graph.num_nodes, 2)
        return Call("WalkAgent", agent, given)
    if which == 1:
        embedding = models.AttentionWalk(graph.num_nodes, 4, window=3)
        return Call("AttentionWalk", embedding.loss, {"graph": graph, "num_pairs": 8, "seed": seed})
    kind = (models.GAM, models.GAMMemory)[which - 2]
    graph, types = Graph.batch([graph, graph]), torch.cat([types, types])
    model = kind(3, 2, num_steps=2, num_agents=2, hidden_channels=4, step_channels=(3, 3))
    pointers = torch.tensor([0, graph.num_nodes // 2, graph.num_nodes])
    given = {"graph": graph, "node_type": types, "node_ptr": pointers, "seed": seed}
    if rnd.random() < 0.5:
        given["graphs"] = torch.tensor(rnd.choice([[1], [0, 1]]))
    return Call(kind.__name__, model.eval(), given)


def explain_call(rnd: Random) -> Call:
    """A measure of recorded attention, a method of SparseFeatures, or a layer on a new order."""
    graph, draw = connected_graph(rnd), Values(rnd, rnd.choice([F64, torch.float32]))
    edges, alpha = graph.edge_index, draw.normal(graph.num_edges, 2).abs()
    record: LayerAttention = explain.match_edges((edges, alpha), edges)
    node = rnd.randrange(graph.num_nodes)
    x = draw.normal(graph.num_nodes, 5).detach()
    features = SparseFeatures(x * (torch.rand_like(x) < 0.5))
    layer = nn.GATConv(5, 3).to(draw.dtype)
    return rnd.choice(
        [
            Call("match_edges", explain.match_edges,
                 {"attention": (edges, alpha), "adjacency": edges}),
            Call("attention_entropy", explain.attention_entropy, {"attention": record}),
            Call("attention_rollout", explain.attention_rollout,
                 {"attention": [record, record], "nodes": torch.tensor([node])}),
            Call("top_edges", explain.top_edges, {"attention": [record], "node": node, "k": 2}),
            Call("SparseFeatures",
                 lambda matrix: SparseFeatures(matrix).linear(torch.eye(5, dtype=F64)),
                 {"matrix": x.double()}),
            Call("linear of features", features.linear,
                 {"weight": draw.normal(3, 5), "bias": draw.normal(3)}),
            Call("layer on features", layer, {"x": features, "edge_index": edges}),
            Call("Reordered", nn.Reordered(layer, "degree"), {"x": x, "edge_index": edges}),
        ]
    )  # fmt: skip


DRAWS = {
    operator_call: 45,
    layer_call: 25,
    model_call: 12,
    walker_call: 9,
    explain_call: 9,
}
"""Functions that draw a call, and how many of 100 they draw."""


def draw_call(rnd: Random) -> Call:
    """Any of them."""
    (draw,) = rnd.choices(list(DRAWS), list(DRAWS.values()))
    return draw(rnd)


def results_of(result: Any) -> list[Tensor]:
    """All tensors of a result, in the order in which they are in it."""
    if isinstance(result, (tuple, list)):
        return [t for part in result for t in results_of(part)]
    return [] if result is None or isinstance(result, (int, float, str)) else tensors_of(result)


def contents(given: dict[str, Any]) -> dict[str, bytes]:
    """The bytes of all dense arguments, also those inside of graphs, to see modifications."""
    found = {}
    for name, value in given.items():
        for number, t in enumerate(results_of(value) if isinstance(value, tuple) else [value]):
            if isinstance(t, Graph):
                t = torch.cat([t.rowptr, t.col])
            if type(t) is Tensor and t.layout == torch.strided and t.device.type == "cpu":
                with contextlib.suppress(RuntimeError):  # of a tensor without a storage
                    plain = t.detach().resolve_neg().resolve_conj().contiguous()
                    found[f"{name} {number}"] = plain.view(-1).view(torch.uint8).numpy().tobytes()
    return found
