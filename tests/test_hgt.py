"""HGTConv on several types of nodes and relations, next to PyG's."""

from __future__ import annotations

import copy
import pickle

import pytest
import scipy.sparse
import torch
import torch_geometric.nn as pyg
from beside_pyg import TOLERANCE, compare, normal, parameters
from forms import SparseTensor
from test_nn import LargestTensor, count_graphs
from torch.testing import assert_close
from torch_geometric import EdgeIndex

from gat_ext import Graph, interop, nn
from gat_ext.explain import record_attention
from gat_ext.interop import pyg as interop_pyg
from gat_ext.nn import hetero
from gat_ext.ops.stacked import stacked_linear

F64 = torch.float64
TYPES = ["paper", "author", "venue", "get"]
WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")
WRITTEN, HOLDS = ("paper", "written_by", "author"), ("venue", "v1.0", "paper")
META = (TYPES, [WRITES, CITES, WRITTEN, HOLDS, ("get", "to", "get")])
COUNTS = {"paper": 11, "author": 7, "venue": 9}
SIZES = {"paper": 8, "author": 5, "venue": 3, "get": 2}
KINDS = {"own sizes": (SIZES, 8), "skips": (8, 8), "long rows": (40, 4)}


def edges_of(relation, count, seed):
    """Isolated nodes and multi-edges; venues 0 to 3 alone have papers."""
    generator = torch.Generator().manual_seed(seed)
    src = 4 if relation == HOLDS else COUNTS[relation[0]]
    ends = torch.randint(src, (count,), generator=generator)
    return torch.stack(
        [ends, torch.randint(COUNTS[relation[2]] - 2, (count,), generator=generator)]
    )


EDGES = {r: edges_of(r, 20 + i, i) for i, r in enumerate((WRITES, CITES, WRITTEN, HOLDS))}


def inputs(sizes=SIZES, dtype=F64):
    sizes = dict.fromkeys(COUNTS, sizes) if isinstance(sizes, int) else sizes
    return {
        kind: normal(n, sizes[kind], dtype=dtype, seed=i)
        for i, (kind, n) in enumerate(COUNTS.items())
    }


def both(sizes=SIZES, width=8, heads=2, dtype=F64, library=nn):
    torch.manual_seed(0)
    theirs = pyg.HGTConv(sizes, width, META, heads)
    after = torch.rand(3)
    torch.manual_seed(0)
    ours = library.HGTConv(sizes, width, META, heads)
    assert torch.equal(torch.rand(3), after)
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    return ours.to(dtype), theirs.to(dtype)


def joined(out):
    assert set(out) == {"paper", "author"}
    return torch.cat([out[kind] for kind in ("paper", "author")])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_pyg(kind, dtype):
    """Also without a relation, with one without edges, and as a subclass of PyG's."""
    for library in (nn, interop_pyg):
        ours, theirs = both(*KINDS[kind], dtype=dtype, library=library)
        assert repr(ours).removesuffix(" [gat_ext]") == repr(theirs)
        xs = inputs(KINDS[kind][0], dtype)
        leaves = [*((name, (x, x)) for name, x in xs.items()), *parameters(ours, theirs)]
        fewer = {r: e for r, e in EDGES.items() if r != CITES}
        for edges in (EDGES, fewer, EDGES | {WRITES: EDGES[WRITES][:, :0]}):
            compare((joined(ours(xs, edges)), joined(theirs(xs, edges))), leaves, dtype)


def test_a_patched_model_exchanges_code_with_pyg(calls_of_pyg):
    for sizes in (SIZES, -1):
        torch.manual_seed(0)
        theirs = pyg.HGTConv(sizes, 8, META, 2)
        ours = copy.deepcopy(theirs)
        assert interop.patch_pyg(ours).swapped == (("", "HGTConv"),)
        xs = inputs(dtype=torch.float32)
        torch.manual_seed(1)
        out = torch.compile(ours, backend="eager")(xs, EDGES)
        torch.manual_seed(1)
        assert not calls_of_pyg
        assert_close(joined(out), joined(theirs(xs, EDGES)))
        calls_of_pyg.clear()
        assert interop.unpatch_pyg(ours) == ("",)
        assert [type(m) for m in ours.modules()] == [type(m) for m in theirs.modules()]
        assert torch.equal(joined(ours(xs, EDGES)), joined(theirs(xs, EDGES)))
        calls_of_pyg.clear()


def test_sizes_of_the_first_input():
    torch.manual_seed(0)
    theirs = pyg.HGTConv(-1, 8, META, 2)
    xs = inputs(dtype=torch.float32)
    theirs(xs, EDGES)
    for compiled in (False, True):
        torch.manual_seed(0)
        ours = nn.HGTConv(-1, 8, META, 2)
        call = torch.compile(ours, fullgraph=True, backend="eager") if compiled else ours
        assert_close(joined(call(xs, EDGES)), joined(theirs(xs, EDGES)))
    loaded = nn.HGTConv(-1, 8, META, 2)
    loaded.load_state_dict(theirs.state_dict())
    assert torch.equal(joined(loaded(xs, EDGES)), joined(ours(xs, EDGES)))
    copied = pickle.loads(pickle.dumps(copy.deepcopy(ours)))
    assert torch.equal(joined(copied(xs, EDGES)), joined(ours(xs, EDGES)))


def test_derivatives_with_masks():
    layer = nn.HGTConv({"paper": 2, "author": 3, "venue": 2, "get": 2}, 2, META, 2).double()
    xs = inputs({"paper": 2, "author": 3, "venue": 2})
    mask = torch.rand(EDGES[WRITES].shape[1], dtype=F64, requires_grad=True)

    def call(p_rel, skip, mask, *given):
        features = dict(zip(xs, given, strict=True))
        return joined(layer(features, EDGES, edge_mask={WRITES: mask}))

    leaves = layer.p_rel["author__writes__paper"], layer.skip["paper"], mask, *xs.values()
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


def test_compiled_in_one_graph_for_all_sizes():
    layer = nn.HGTConv(SIZES, 8, META, 2)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    xs = inputs(dtype=torch.float32)
    for more in (0, 3):
        given = {kind: torch.cat([x, x[:more]]) for kind, x in xs.items()}
        results = [
            torch.autograd.grad(joined(call(given, EDGES)).square().sum(), [*xs.values()])
            for call in (compiled, layer)
        ]
        assert_close(*results)
    with pytest.raises(IndexError):
        compiled({**xs, "author": xs["author"][:3]}, EDGES)


def test_the_graph_is_cached_until_edges_are_modified(monkeypatch):
    made = count_graphs(monkeypatch)
    first, second = nn.HGTConv(SIZES, 8, META, 2), nn.HGTConv(SIZES, 4, META)
    xs, edges = inputs(dtype=torch.float32), {r: e.clone() for r, e in EDGES.items()}
    before = first(xs, edges)
    second(xs, edges), first(xs, dict(reversed(edges.items())))
    assert len(made) == 1
    edges[CITES][0] = (edges[CITES][0] + 1) % COUNTS["paper"]
    after = first(xs, edges)
    assert len(made) == 2 and not torch.allclose(before["paper"], after["paper"])
    assert torch.equal(before["author"], after["author"])


def test_weights_and_masks():
    """Weights sum to one over the edges of all relations; a mask scales what it masks."""
    layer, xs = nn.HGTConv(SIZES, 8, META, 2).double(), inputs()
    out, weights = layer(xs, EDGES, return_attention_weights=True)
    assert {r: w.shape for r, w in weights.items()} == {
        r: (e.shape[1], 2) for r, e in EDGES.items()
    }
    into = [r for r in EDGES if r[2] == "paper"]
    total = torch.zeros(COUNTS["paper"], 2, dtype=F64)
    for relation in into:
        total.index_add_(0, EDGES[relation][1], weights[relation])
    assert_close(total, (total > 0).double())
    keep = {WRITES: torch.arange(EDGES[WRITES].shape[1]) % 2 == 0}
    masked, left = layer(xs, EDGES, edge_mask=keep, return_attention_weights=True)
    assert_close(left[WRITES], weights[WRITES] * keep[WRITES].unsqueeze(1))
    assert_close(left[CITES], weights[CITES])
    assert_close(masked["author"], out["author"])
    ones = {r: torch.ones(e.shape[1], 2 if r == CITES else 1).double() for r, e in EDGES.items()}
    ones[HOLDS] = ones[HOLDS].flatten()
    ones.pop(WRITES)
    ones[WRITTEN] = ones[WRITTEN].expand(-1, 2)
    assert_close(layer(xs, EDGES, edge_weight=ones), out)
    with record_attention(layer) as records:
        assert torch.equal(layer(xs, EDGES)["paper"], out["paper"])
    assert [r.name for r in records] == ["__".join(r) for r in EDGES]
    assert all(torch.equal(r.alpha, w) for r, w in zip(records, weights.values(), strict=True))


def test_forms_of_edges():
    """Each relation in a form of its own."""
    layer, xs = nn.HGTConv(SIZES, 8, META, 2), inputs(dtype=torch.float32)
    edges = {
        r: e.unique(dim=1)[:, torch.randperm(e.unique(dim=1).shape[1])] for r, e in EDGES.items()
    }
    sizes = {r: (COUNTS[r[2]], COUNTS[r[0]]) for r in edges}
    src, dst = edges[HOLDS]
    forms = {
        WRITES: Graph(edges[WRITES], num_src=COUNTS["author"], num_dst=COUNTS["paper"]),
        CITES: EdgeIndex(edges[CITES].clone()),
        WRITTEN: SparseTensor(*edges[WRITTEN].flip(0), sparse_sizes=sizes[WRITTEN]),
        HOLDS: scipy.sparse.coo_matrix((torch.ones(len(src)), (dst, src)), shape=sizes[HOLDS]),
    }
    assert_close(joined(layer(xs, forms)), joined(layer(xs, edges)))


@pytest.mark.parametrize("change", ["hook", "parametrized"])
def test_changed_maps_of_the_features(change):
    """A hook, or a weight that is computed at each access, is not bypassed."""
    ours, theirs = both()
    for layer in (ours, theirs):
        lin = layer.kqv_lin.lins["author"]
        if change == "hook":
            lin.register_forward_hook(lambda _, given, out: 2 * out)
        else:
            torch.nn.utils.parametrizations.weight_norm(lin)
    xs = inputs()
    leaves = [(name, (x, x)) for name, x in xs.items()]
    compare((joined(ours(xs, EDGES)), joined(theirs(xs, EDGES))), leaves, F64)


def test_rows_of_used_sources_alone_and_none_for_edges():
    sizes = {kind: COUNTS[kind] for kind in COUNTS}
    stacked = hetero.stack_relations(
        EDGES, [*EDGES], sizes, ["paper", "author"], torch.device("cpu")
    )
    assert [None if rows is None else rows.tolist() for rows in stacked.rows] == [
        *(None, None, None),
        [0, 1, 2, 3],
    ]
    assert (stacked.graph.num_src, stacked.graph.num_dst) == (7 + 11 + 11 + 4, 18)
    many = {WRITES: torch.randint(7, (2, 5000))}
    layer, xs = nn.HGTConv(SIZES, 16, META, 2), inputs(dtype=torch.float32)
    with LargestTensor() as largest:
        layer(xs, many)["paper"].sum().backward()
    assert largest.elements <= 2 * 5000


def test_stacked_products():
    """As concatenated ones, with second derivatives; a bias and a gradient may be missing."""
    first, second = normal(4, 3), normal(5, 2)
    weights, bias = (normal(6, 3), normal(6, 2, seed=2)), normal(6)
    fixed = torch.ones(4, 3, dtype=F64)
    parts = [(first, weights[0], bias), (second, weights[1], None), (fixed, weights[0], None)]

    def call(x, y, w, v, b):
        return stacked_linear([(x, w, b), (y, v, None), (fixed, w, None)])

    leaves = first, second, *weights, bias
    out = stacked_linear(parts)
    assert_close(out, torch.cat([torch.nn.functional.linear(*part) for part in parts]))
    assert out.grad_fn.name() == "_StackedBackward"
    assert torch.autograd.gradcheck(call, leaves) and torch.autograd.gradgradcheck(call, leaves)


def test_bitwise_identical_on_any_number_of_threads():
    torch.manual_seed(0)
    count = {"paper": 6000, "author": 5000}
    layer = nn.HGTConv({"paper": 48, "author": 200, "venue": 1, "get": 1}, 48, META, 2)
    xs = {"paper": torch.randn(6000, 48), "author": torch.randn(5000, 200)}
    edges = {
        r: torch.stack([torch.randint(count[r[0]], (20000,)), torch.randint(count[r[2]], (20000,))])
        for r in (WRITES, CITES, WRITTEN)
    }
    results = []
    torch.use_deterministic_algorithms(True)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            layer.zero_grad()
            out = joined(layer(xs, edges))
            out.square().sum().backward()
            grads = [p.grad for p in layer.parameters() if p.grad is not None]
            results.append([out.detach(), *grads])
    finally:
        torch.use_deterministic_algorithms(False)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_types_without_edges():
    layer, xs = nn.HGTConv(SIZES, 8, META, 2), inputs(dtype=torch.float32)
    none = layer(xs, {})
    assert torch.equal(none["author"][0], none["author"][1])
    assert list(layer({"venue": xs["venue"]}, {})) == []
    got = layer({"get": torch.randn(2, 2)}, {("get", "to", "get"): torch.tensor([[0], [1]])})
    assert {kind: out.shape for kind, out in got.items()} == {"get": (2, 8)}


def call(edges=EDGES, xs=None, **options):
    return nn.HGTConv(SIZES, 8, META, 2)(xs or inputs(dtype=torch.float32), edges, **options)


XS = inputs(dtype=torch.float32)
PAIR = [("a", "to", "a")]
ONES = {WRITES: torch.ones(3)}
BAD = {
    "metadata": (lambda: nn.HGTConv(4, 4, ["a"]), TypeError, "expected .node types, relations"),
    "pair": (lambda: nn.HGTConv(4, 4, (["a"], [("a", "a")])), TypeError, "a relation of metadata"),
    "type": (lambda: nn.HGTConv(4, 4, (["b"], PAIR)), ValueError, "expected 'a' among them"),
    "twice": (lambda: nn.HGTConv(4, 4, (["a", "a"], PAIR)), ValueError, "node type 'a' twice"),
    "dot": (lambda: nn.HGTConv(4, 4, (["a.b"], [])), ValueError, "rename the type"),
    "method": (lambda: nn.HGTConv(4, 4, (["keys"], [])), ValueError, "rename the type"),
    "sizes": (lambda: nn.HGTConv({"b": 4}, 4, (["a"], PAIR)), ValueError, "has the keys .'b'."),
    "heads": (lambda: nn.HGTConv(4, 4, (["a"], PAIR), 3), ValueError, "a multiple of heads"),
    "option": (lambda: nn.HGTConv(4, 4, (["a"], PAIR), group="sum"), TypeError, "'group'"),
    "aggr": (lambda: nn.HGTConv(4, 4, (["a"], PAIR), aggr="max"), ValueError, "aggr is 'max'"),
    "list": (lambda: call(xs=[1]), TypeError, "x_dict is a list; expected a dictionary"),
    "relation": (
        lambda: call({("paper", "writes", "paper"): EDGES[CITES]}),
        ValueError,
        r"edge_index_dict has the key \('paper', 'writes', 'paper'\); expected keys of",
    ),
    "features": (
        lambda: call({WRITES: EDGES[WRITES]}, {"paper": XS["paper"]}),
        ValueError,
        "x_dict has only 'paper'; expected features of 'author', too",
    ),
    "channels": (
        lambda: call(xs=XS | {"author": XS["author"][:, :4]}),
        ValueError,
        r"x_dict\['author'\] has shape \[7, 4\]; .* expects \[N, 5\]",
    ),
    "dtype": (
        lambda: call(xs=XS | {"author": XS["author"].double()}),
        TypeError,
        r"x_dict\['author'\] has dtype torch.float64",
    ),
    "sparse": (
        lambda: call(xs=XS | {"author": XS["author"].detach().to_sparse()}),
        TypeError,
        r"x_dict\['author'\] is sparse",
    ),
    "source": (
        lambda: call({WRITES: EDGES[WRITES] + torch.tensor([[7], [0]])}),
        IndexError,
        r"\('author', 'writes', 'paper'\)\] has the source \d+; expected 0 to 6",
    ),
    "destination": (
        lambda: call({WRITES: EDGES[WRITES] - torch.tensor([[0], [20]])}),
        IndexError,
        r"has the destination -\d+; expected 0 to 10",
    ),
    "graph": (
        lambda: call({WRITES: Graph(EDGES[WRITES], num_nodes=11)}),
        ValueError,
        "x_dict has 7 rows for 'author' and 11 for 'paper'",
    ),
    "edges": (
        lambda: call({WRITES: EDGES[WRITES].t()}),
        ValueError,
        r"edge_index_dict\[\('author', 'writes', 'paper'\)\]: edge_index has shape",
    ),
    "mask": (lambda: call(edge_mask=ONES), ValueError, r"has shape \[3\]; expected \[20\] or"),
    "masks": (lambda: call(edge_mask=torch.ones(3)), TypeError, "edge_mask is a Tensor; expected"),
    "key of a mask": (
        lambda: call({CITES: EDGES[CITES]}, edge_weight=ONES),
        ValueError,
        "edge_weight has the key .* expected relations of edge_index_dict",
    ),
    "both": (lambda: call(edge_mask=ONES, edge_weight=ONES), ValueError, "two names of one"),
    "asked": (lambda: call(return_attention_weights=1), TypeError, "return_attention_weights"),
}


@pytest.mark.parametrize("bad", BAD)
def test_refusals(bad):
    make, error, message = BAD[bad]
    with pytest.raises(error, match=message):
        make()


def test_weights_of_one_column_and_of_other_heads():
    writes, by = ("a", "writes", "p"), ("p", "by", "a")
    layer = nn.HGTConv(8, 8, (["a", "p"], [writes, by]), heads=2)
    x = {"a": torch.randn(4, 8), "p": torch.randn(6, 8)}
    edges = {r: torch.randint(4, (2, 9)) for r in (writes, by)}
    weight = torch.rand(9, 1)
    out = layer(x, edges, edge_weight={writes: weight})
    for same in ({writes: weight[:, 0]}, {writes: weight.expand(9, 2), by: torch.ones(9)}):
        assert_close(layer(x, edges, edge_weight=same), out)
    with pytest.raises(ValueError, match=r"edge_weight.*writes.* has 3 heads"):
        layer(x, edges, edge_weight={writes: torch.rand(9, 3)})
    with pytest.raises(TypeError, match=r"edge_weight.*writes"):
        layer(x, edges, edge_weight={writes: weight.double()})
    with pytest.raises(ValueError, match="differ when joined"):
        nn.HGTConv(8, 8, (["a", "a__x"], [("a", "x__x", "a"), ("a__x", "x", "a")]))
