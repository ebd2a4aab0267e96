"""HANConv beside PyG's, on nodes and edges of several types."""

from __future__ import annotations

import copy

import pytest
import torch
import torch_geometric.nn as pyg
from beside_pyg import TOLERANCE, compare, normal, parameters
from forms import SparseTensor
from test_nn import LargestTensor
from torch.testing import assert_close
from torch_geometric.explain.algorithm.utils import set_masks

from gat_ext import Graph, SparseFeatures, interop, nn, reference
from gat_ext.interop import pyg as interop_pyg

F64 = torch.float64
SIZES = {"author": 7, "paper": 9, "term": 4}
CHANNELS = {"author": 5, "paper": 6, "term": 3}
RELATIONS = [("author", "writes", "paper"), ("paper", "cites", "paper"), ("term", "in", "paper")]
RELATIONS += [("paper", "by", "author")]
METADATA = list(SIZES), [*RELATIONS, ("paper", "has", "term")]  # no call has edges into terms


def edges_of(num_edges=20):
    generator = torch.Generator().manual_seed(0)
    ends = {r: (SIZES[r[0]], SIZES[r[2]] - 1) for r in RELATIONS}
    return {
        r: torch.stack([torch.randint(n, (num_edges,), generator=generator) for n in sizes])
        for r, sizes in ends.items()
    }


EDGES = edges_of()


def features(dtype=F64, sizes=SIZES):
    return {
        name: normal(size, CHANNELS[name], dtype=dtype, seed=seed)
        for seed, (name, size) in enumerate(sizes.items())
    }


def layers(dtype=F64, library=nn, channels=CHANNELS, out_channels=6, **options):
    theirs = pyg.HANConv(channels, out_channels, METADATA, **options).to(dtype)
    ours = library.HANConv(channels, out_channels, METADATA, **options).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours).removesuffix(" [gat_ext]") == repr(theirs)
    return ours, theirs


def joined(result):
    """Results and weights of all types as one vector; both None for the same types."""
    out, weights = result
    assert [name for name in out if out[name] is None] == ["term"] and weights["term"] is None
    return torch.cat([part[name].flatten() for part in (out, weights) for name in METADATA[0][:2]])


def in_form(form):
    def convert(relation, edges):
        rows, cols = edges.flip(0)
        shape = SIZES[relation[2]], SIZES[relation[0]]
        if form == "Graph":
            return Graph(edges, num_src=shape[1], num_dst=shape[0])
        if form == "SparseTensor":
            return SparseTensor(rows, cols, None, shape)
        return edges.int() if form == "int32" else edges

    return {relation: convert(relation, edges) for relation, edges in EDGES.items()}


CASES = [
    ({}, "edge_index"),
    ({"heads": 3}, "int32"),
    ({"heads": 2, "negative_slope": 0.05}, "Graph"),
    ({"heads": 6}, "SparseTensor"),
]


@pytest.mark.parametrize("library", [nn, interop_pyg], ids=["nn", "interop"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("options", "form"), CASES, ids=str)
def test_equals_pyg(options, form, dtype, library):
    """Results, semantic weights and all gradients."""
    torch.manual_seed(0)
    ours, theirs = layers(dtype, library, **options)
    x = features(dtype)
    results = ours(x, in_form(form), True), theirs(x, EDGES, True)
    leaves = [(name, (t, t)) for name, t in x.items()] + parameters(ours, theirs)
    compare([joined(result) for result in results], leaves, dtype)
    assert_close(ours(x, in_form(form)), results[0][0])


def test_parameters_of_the_seed_and_of_the_first_call():
    for channels in (CHANNELS, -1, {"author": -1, "paper": 6, "term": -1}):
        drawn = []
        for library in (nn, pyg):
            torch.manual_seed(0)
            layer = library.HANConv(channels, 6, METADATA, 2)
            layer(features(torch.float32), EDGES)
            drawn.append([*layer.named_parameters(), ("the next", torch.rand(3))])
        assert_close(dict(drawn[0]), dict(drawn[1]), rtol=0, atol=0)
    lazy = nn.HANConv(-1, 6, METADATA)
    lazy.load_state_dict(layers(torch.float32)[1].state_dict())
    assert lazy(features(torch.float32), EDGES)["paper"].shape == (9, 6)


def test_gradcheck_and_gradgradcheck():
    torch.manual_seed(0)
    layer = nn.HANConv(CHANNELS, 4, METADATA, 2).double()
    few = {relation: edges[:, :5] for relation, edges in EDGES.items()}

    def call(*x):
        out, weights = layer(dict(zip(SIZES, x, strict=True)), few, True)
        return out["paper"], out["author"], weights["paper"]

    x = tuple(features().values())
    assert torch.autograd.gradcheck(call, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, x, fast_mode=True)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("library", [nn, interop_pyg], ids=["nn", "interop"])
def test_compiles_once_for_all_sizes(library):
    torch._dynamo.reset()
    layer = library.HANConv(-1, 6, METADATA, 2)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for number, num_edges in enumerate((20, 31, 50)):
        x = features(torch.float32, {name: size + 3 * number for name, size in SIZES.items()})
        edges = edges_of(num_edges)
        with torch._dynamo.config.patch(error_on_recompile=number > 1):
            out = compiled(x, edges, True)
        assert_close(out, layer(x, edges, True))
        leaves = [*x.values(), layer.q]
        ours, theirs = (
            torch.autograd.grad(joined(result).sin().sum(), leaves)
            for result in (out, layer(x, edges, True))
        )
        assert_close(ours, theirs)


def test_patched_layers_of_pyg(calls_of_pyg):
    model = torch.nn.ModuleDict({"conv": pyg.HANConv(-1, 6, METADATA, 2)})
    model["conv"](features(torch.float32), EDGES)
    expected = model["conv"](features(torch.float32), EDGES)
    calls_of_pyg.clear()
    assert interop.patch_pyg(model).swapped == (("conv", "HANConv"),)
    assert_close(model["conv"](features(torch.float32), EDGES), expected)
    assert not calls_of_pyg
    one = EDGES[RELATIONS[0]]
    set_masks(model, torch.rand(one.shape[1]), one)
    explained = model["conv"](features(torch.float32), {RELATIONS[0]: one})
    assert calls_of_pyg and not torch.allclose(explained["paper"], expected["paper"])
    other = copy.deepcopy(model)
    interop.unpatch_pyg(other)
    assert not any(type(m).__module__.startswith("gat_ext") for m in other.modules())


def test_batches_sparse_features_and_dropout():
    layer = nn.HANConv(CHANNELS, 6, METADATA, 2, dropout=0.5).double().eval()
    x = features()
    both = {name: torch.stack([t, 2 * t, -t]) for name, t in x.items()}
    out, weights = layer(both, EDGES, True)
    for place, element in enumerate((1, 2, -1)):
        alone, beta = layer({name: element * t for name, t in x.items()}, EDGES, True)
        assert_close(out["paper"][place], alone["paper"])
        assert_close(weights["paper"][:, place], beta["paper"])
    sparse = {name: SparseFeatures(t.detach()) for name, t in x.items()}
    assert_close(layer(sparse, EDGES)["author"], layer(x, EDGES)["author"])
    runs = []
    layer.train()
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(layer(x, EDGES)["paper"])
    assert torch.equal(runs[0], runs[1]) and not torch.allclose(runs[0], runs[2])


@pytest.mark.parametrize("asked", ["out", "weights", "both"])
def test_blocks_of_many_nodes_equal_pyg(asked):
    """Of more rows than a block has; derivatives after the first are composed."""
    torch.manual_seed(0)
    num_nodes, relations = 5000, [("a", name, "a") for name in ("to", "by", "in")]
    edges = {r: torch.randint(num_nodes, (2, 3000)) for r in relations}
    theirs, ours = (lib.HANConv(5, 4, (["a"], relations), 2).double() for lib in (pyg, nn))
    ours.load_state_dict(theirs.state_dict())
    x = normal(num_nodes, 5)

    def result_of(layer):
        out, weights = layer({"a": x}, edges, True)
        wanted = {"out": [out["a"]], "weights": [weights["a"]], "both": [out["a"], weights["a"]]}
        return torch.cat([t.flatten() for t in wanted[asked]])

    assert type(ours({"a": x}, edges)["a"].grad_fn).__name__ == "_BlockwiseBackward"
    compare([result_of(ours), result_of(theirs)], [("x", (x, x)), *parameters(ours, theirs)], F64)
    seconds = []
    for layer in (ours, theirs):
        (first,) = torch.autograd.grad(result_of(layer).sin().sum(), x, create_graph=True)
        wanted = [x, layer.q, layer.k_lin.weight, layer.proj["a"].weight]
        seconds.append(torch.autograd.grad(first.square().sum(), wanted))
    assert_close(*seconds)


def test_no_nodes_and_no_edges():
    x = features()
    empty = {**EDGES, RELATIONS[0]: torch.empty(2, 0, dtype=torch.int64)}
    ours, theirs = layers()
    assert_close(ours(x, empty)["paper"], theirs(x, empty)["paper"])
    none = {"paper": x["paper"], "author": x["author"][:0]}
    into = {RELATIONS[3]: torch.empty(2, 0, dtype=torch.int64)}
    out, weights = ours(none, into, True)
    assert out["author"].shape == (0, 6) and weights["author"] is None and out["paper"] is None


def test_nothing_has_a_row_of_features_for_every_edge():
    largest, edges = [], {r: torch.randint(4, (2, 900)) for r in RELATIONS}
    for library in (nn, pyg):
        layer, x = library.HANConv(CHANNELS, 64, METADATA, 2), features(torch.float32)
        with LargestTensor() as seen:
            sum(t.square().sum() for t in layer(x, edges).values() if t is not None).backward()
        largest.append(seen.elements)
    assert largest[0] < 0.2 * 900 * 64 <= largest[1]


X = features(torch.float32)
LAYER = nn.HANConv(CHANNELS, 6, METADATA, 2)
BAD = {
    "heads": (
        lambda: nn.HANConv(5, 7, METADATA, 2),
        ValueError,
        "out_channels is 7 and heads is 2",
    ),
    "metadata": (lambda: nn.HANConv(5, 6, ["a"]), TypeError, r"metadata is \['a'\]; expected"),
    "pairs": (lambda: nn.HANConv(5, 6, (["a"], [("a", "a")])), TypeError, "metadata is"),
    "channels": (lambda: nn.HANConv({"a": 0}, 6, (["a"], [])), ValueError, "in_channels is 0"),
    "aggr": (lambda: nn.HANConv(5, 6, METADATA, aggr="max"), ValueError, "aggr is 'max'"),
    "tensor": (lambda: LAYER(X["paper"], EDGES), TypeError, "x_dict is a Tensor; HANConv"),
    "list": (lambda: LAYER(X, [EDGES]), TypeError, "edge_index_dict is a list; HANConv"),
    "node type": (lambda: LAYER({**X, "venue": X["paper"]}, EDGES), ValueError, "type 'venue'"),
    "edge type": (
        lambda: LAYER(X, {("term", "in", "author"): EDGES[RELATIONS[2]]}),
        ValueError,
        r"has the type \('term', 'in', 'author'\); HANConv.* its metadata: \('author', 'writes'",
    ),
    "no x": (
        lambda: LAYER({"paper": X["paper"]}, {RELATIONS[0]: EDGES[RELATIONS[0]]}),
        ValueError,
        "but x_dict has no 'author'",
    ),
    "sizes": (
        lambda: LAYER({**X, "term": X["paper"]}, EDGES),
        ValueError,
        r"x_dict\['term'\] has shape \[9, 6\]; HANConv.* expects \[N, 3\]",
    ),
    "dtype": (
        lambda: LAYER({**X, "term": X["term"].double()}, EDGES),
        TypeError,
        r"x_dict\['term'\] has dtype torch.float64",
    ),
    "batches": (
        lambda: LAYER({**X, "term": X["term"].expand(2, -1, -1)}, EDGES),
        ValueError,
        r"batches of the shapes .*'term': \[2\]",
    ),
    "index": (
        lambda: LAYER(X, {RELATIONS[0]: EDGES[RELATIONS[0]] + 3}),
        IndexError,
        "num_src=7",
    ),
    "flag": (lambda: LAYER(X, EDGES, "yes"), TypeError, "return_semantic_attention_weights"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("batch", [(), (2,)])
def test_weights_multiply_the_attention(batch):
    """Of one relation, whose β is 1: relu of the weighted sum."""
    relation = ("author", "writes", "paper")
    torch.manual_seed(0)
    layer = nn.HANConv(CHANNELS, 6, (list(SIZES), [relation]), heads=2).double()
    x = {kind: torch.randn(*batch, SIZES[kind], CHANNELS[kind]).double() for kind in SIZES}
    weight = torch.randn(20, 2, dtype=F64, requires_grad=True)

    def attend(**options):
        return layer(x, {relation: EDGES[relation]}, **options)["paper"]

    out = attend(edge_weight={relation: weight})
    src, dst = EDGES[relation]
    for element in range(batch[0]) if batch else [...]:
        z = {k: layer.proj[k](x[k][element]).view(-1, 2, 3) for k in ("author", "paper")}
        key = "__".join(relation)
        terms = (
            (z["author"] * layer.lin_src[key]).sum(-1),
            (z["paper"] * layer.lin_dst[key]).sum(-1),
        )
        alpha = reference.edge_softmax(
            Graph(EDGES[relation], num_src=7, num_dst=9),
            torch.nn.functional.leaky_relu(terms[0][src] + terms[1][dst], 0.2),
        )
        sums = torch.zeros(9, 2, 3, dtype=F64)
        sums = sums.index_add(0, dst, (alpha * weight).unsqueeze(-1) * z["author"][src])
        assert_close(out[element], sums.flatten(1).relu())
    (grad,) = torch.autograd.grad(out.sum(), weight)
    assert grad.abs().sum() > 0
    assert_close(attend(edge_mask={relation: torch.ones(20, dtype=torch.bool)}), attend())
    with pytest.raises(ValueError, match="edge_weight has the key"):
        attend(edge_weight={("paper", "cites", "paper"): weight})
    with pytest.raises(ValueError, match=r"expected \[20\]"):
        attend(edge_mask={relation: weight[1:]})
    with pytest.raises(TypeError, match="expected a dictionary"):
        attend(edge_mask=weight)
