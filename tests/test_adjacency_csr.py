"""adjacency_csr, the sort of traced programs: its results, its cache, and that they sort once."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch._dynamo.backends.common import aot_autograd

import gat_ext
from gat_ext import _C, Graph, functional
from gat_ext.graph.degrees import largest_degrees
from gat_ext.models import GAT
from gat_ext.nn import GATConv
from gat_ext.ops.registry import ops

MANY = 1 << 14  # edges from which on the CPU caches
NAMES = ("rowptr", "col", "edge_id", "t_rowptr", "t_col", "t_pos", "t_edge_id")
SIZES = [(6, 6), (6, 9), (9, 6), (1, 1), (300, 200)]


def edges_of(num_src, num_edges, seed=0, num_dst=None):
    generator = torch.Generator().manual_seed(seed)
    ends = num_src, num_src if num_dst is None else num_dst
    return torch.stack([torch.randint(n, (num_edges,), generator=generator) for n in ends])


def sort(edges, num_src, num_dst=None, *, self_loops=False, narrow=True, transpose=True):
    """The results of the operator by name."""
    given = (edges.rowptr, edges.col, edges.edge_id) if isinstance(edges, Graph) else (edges,)
    given += (None,) * (3 - len(given))
    counts = num_src, num_src if num_dst is None else num_dst
    return dict(
        zip(NAMES, ops.adjacency_csr(*given, *counts, self_loops, narrow, transpose), strict=True)
    )


def by_torch(edges, num_src, num_dst, *, self_loops, narrow, transpose):
    """As sort, by the kernel for devices that have none of their own."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.XPU)
    given = edges, None, None, num_src, num_dst, self_loops, narrow, transpose
    return dict(zip(NAMES, ops.adjacency_csr.default.redispatch(keys, *given), strict=True))


def expected(edges, num_src, num_dst, self_loops):
    """The parts of a Graph of the attended slots, with slots in place of its edges."""
    loops = torch.arange(min(num_src, num_dst) if self_loops else 0)
    slots = torch.cat([edges.long(), loops.expand(2, -1)], dim=1)
    attended = torch.ones(slots.shape[1], dtype=torch.bool)
    if self_loops:
        attended[: edges.shape[1]] = edges[0] != edges[1]
    kept, rest = attended.nonzero().flatten(), (~attended).nonzero().flatten()
    graph = Graph(slots[:, kept], num_src=num_src, num_dst=num_dst)
    t, order = graph.transpose(), torch.arange(kept.numel())
    edge_id = order if graph.edge_id is None else graph.edge_id.long()
    zeros, behind = torch.zeros_like(rest), torch.arange(kept.numel(), slots.shape[1])
    return {
        **{"rowptr": graph.rowptr, "col": torch.cat([graph.col, zeros])},
        **{"edge_id": torch.cat([kept[edge_id], rest]), "t_rowptr": t.rowptr},
        **{"t_col": torch.cat([t.col, zeros]), "t_pos": torch.cat([t.pos, behind])},
        "t_edge_id": torch.cat([kept[t.edge_id], rest]),
    }


# ---- results


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("kernel", [sort, by_torch])
def test_results_are_those_of_a_graph(kernel, self_loops, narrow):
    for num_src, num_dst in SIZES:
        for num_edges in (0, 1, 40, 3 * MANY):
            edges = edges_of(num_src, num_edges, num_dst=num_dst)
            wanted = expected(edges, num_src, num_dst, self_loops)
            forms = [edges, edges.int(), edges.t().contiguous().t(), edges.repeat(1, 2)]
            forms[-1] = forms[-1][:, :num_edges]
            for form in forms:
                options = {"self_loops": self_loops, "narrow": narrow}
                found = kernel(form, num_src, num_dst, transpose=True, **options)
                index = torch.int32 if narrow else torch.int64
                for name in NAMES:
                    rows = name.endswith("rowptr")
                    assert found[name].dtype == (torch.int64 if rows else index), name
                    assert torch.equal(found[name].long(), wanted[name].long()), name
                first = kernel(form, num_src, num_dst, transpose=False, **options)
                for name in NAMES[:3]:
                    assert torch.equal(first[name], found[name])
                assert all(first[name].shape == (0,) for name in NAMES[3:])


@pytest.mark.parametrize("self_loops", [True, False])
def test_a_csr_has_the_results_of_its_edges(self_loops):
    for num_edges in (0, 40, 3 * MANY):
        edges = edges_of(50, num_edges)
        ascending = edges[:, edges[1].sort(stable=True).indices]
        for each in (edges, ascending):
            graph = Graph(each, num_nodes=50)
            found, wanted = (sort(form, 50, self_loops=self_loops) for form in (graph, each))
            for name in NAMES:
                assert torch.equal(found[name], wanted[name]), name


def test_slots_that_are_no_edges_are_not_read_and_have_results_of_0():
    """With NaN in their rows of every tensor of edges."""
    edges = torch.tensor([[0, 1, 2, 2, 1], [1, 1, 0, 2, 2]])
    unread = torch.tensor([1, 3])
    csr = sort(edges, 3, self_loops=True)
    other = edges[:, edges[0] != edges[1]]
    graph = Graph(torch.cat([other, torch.arange(3).expand(2, -1)], 1), num_nodes=3)
    read = torch.tensor([0, 2, 4, 5, 6, 7])
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    for score in ("additive", "additive_v2", "dot", "cosine"):
        inputs = {"bias": torch.randn(8, 2, dtype=torch.float64)}
        if score == "additive":
            inputs |= {"edge_term": torch.randn(8, 2, dtype=torch.float64)}
            inputs |= {"dst_term": x.sum(-1), "src_term": x.mean(-1)}
        elif score == "cosine":
            inputs |= {"dst_term": x.norm(dim=-1).reciprocal()}
            inputs |= {"src_term": inputs["dst_term"]}
        else:
            inputs |= {"edge_attr": torch.randn(8, 5, dtype=torch.float64)}
            inputs |= {"edge_map": torch.randn(2, 4, 5, dtype=torch.float64)}
        if score == "additive_v2":
            inputs |= {"att": torch.randn(2, 4, dtype=torch.float64)}
        inputs = {name: t.requires_grad_() for name, t in inputs.items()}
        results = {}
        for of in ("slots", "graph"):
            given = {
                name: t[read] if of == "graph" and t.shape[0] == 8 else t
                for name, t in inputs.items()
            }
            if of == "slots":
                given = {
                    name: t.index_fill(0, unread, torch.nan) if t.shape[0] == 8 else t
                    for name, t in given.items()
                }
            parts = csr.values() if of == "slots" else _parts(graph)
            arguments = gat_ext.ops.arguments.EdgeAttention(
                **dict(zip(NAMES, parts, strict=True)),
                **dict(value=x, score=score, edge_in_value=False, **given),
                **dict(negative_slope=0.2, scale=1.0, dropout_p=0.0, top_k=2),
                **dict(return_weights=True, return_lse=True),
            )
            found = gat_ext.ops.arguments.Results(*ops.edge_attention(*arguments))
            weights = found.weights[read] if of == "slots" else found.weights
            loss = found.out.sin().sum() + weights.cumsum(0).sin().sum()
            gradients = torch.autograd.grad(loss, list(inputs.values()))
            results[of] = found.out, found.lse, found.weights, *gradients
        (out, lse, weights, *gradients), (w_out, w_lse, w_weights, *w_gradients) = (
            results["slots"],
            results["graph"],
        )
        assert torch.equal(out, w_out) and torch.equal(lse, w_lse)
        assert torch.equal(weights[read], w_weights) and not weights[unread].any()
        for name, ours, theirs in zip(inputs, gradients, w_gradients, strict=True):
            torch.testing.assert_close(ours, theirs, msg=name)
            if ours.shape[0] == 8:
                assert not ours[unread].any(), name


def _parts(graph):
    t = graph.transpose()
    return graph.rowptr, graph.col, graph.edge_id, t.rowptr, t.col, t.pos, t.edge_id


def test_known_degrees_change_no_result():
    graph = Graph(edges_of(6, 20), num_nodes=6)
    x = torch.randn(6, 2, 4, requires_grad=True)
    parts = dict(zip(NAMES, _parts(graph), strict=True))
    found = []
    for degrees in (None, largest_degrees(graph)):
        arguments = gat_ext.ops.arguments.EdgeAttention(
            **dict(parts, degrees=degrees, value=x, score="dot", edge_in_value=False),
            **dict(negative_slope=0.2, scale=1.0, dropout_p=0.0, top_k=0),
            **dict(return_weights=False, return_lse=False),
        )
        out = ops.edge_attention(*arguments)[0]
        found.append((out, *torch.autograd.grad(out.sin().sum(), x)))
    assert all(map(torch.equal, *found))
    with pytest.raises(ValueError, match=r"degrees has shape \[3\]; expected \[2\]"):
        ops.edge_attention(*arguments._replace(degrees=torch.zeros(3, dtype=torch.int64)))


# ---- errors


@pytest.mark.parametrize("kernel", [sort, by_torch])
def test_node_numbers_out_of_range(kernel, monkeypatch):
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")  # else a GPU reports them at a later call
    options = {"self_loops": True, "narrow": True, "transpose": True}
    for edges, message in (
        ([[0, 1, 6], [1, 2, 3]], r"edge_index\[0\] contains 6; expected .* below num_src=6"),
        ([[0, 1, 5], [1, 2, 4]], r"edge_index\[1\] contains 4; expected .* below num_dst=4"),
        ([[0, -3, 5], [1, 2, 3]], r"edge_index\[0\] contains -3; expected .* at least 0"),
        ([[0, 1, 5], [1, 2, -1]], r"edge_index\[1\] contains -1; expected .* at least 0"),
        ([[0, 2**32 + 1], [1, 0]], r"edge_index\[0\] contains 4294967297; expected .*"),
    ):
        with pytest.raises(IndexError, match=message):
            kernel(torch.tensor(edges), 6, 4, **options)


def test_wrong_kinds_of_edges_are_refused():
    with pytest.raises(TypeError, match="edge_index has dtype Float; expected int32 or int64"):
        sort(torch.ones(2, 3), 4)
    with pytest.raises(ValueError, match=r"edge_index has shape \[3, 2\]; expected \[2, E\]"):
        sort(torch.ones(3, 2, dtype=torch.int64), 4)
    with pytest.raises(ValueError, match="expected narrow=False"):
        sort(torch.ones(2, 3, dtype=torch.int64), 2**31)


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("form", ["csr", "edge_index"])
def test_opcheck(form, self_loops, narrow):
    edges = edges_of(6, 20)
    graph = Graph(edges, num_nodes=6)
    given = (graph.rowptr, graph.col, graph.edge_id) if form == "csr" else (edges, None, None)
    for transpose in (False, True):
        torch.library.opcheck(
            ops.adjacency_csr.default, (*given, 6, 6, self_loops, narrow, transpose)
        )


# ---- programs


class Counting:
    """A backend that counts the operators of the forward and backward programs."""

    def __init__(self):
        self.counts = {"forward": [], "backward": []}

    def compiler(self, part):
        def compile(module, _):
            self.counts[part] += [str(node.target) for node in module.graph.nodes]
            return make_boxed_func(module)

        return compile

    def __call__(self, *given):
        backend = aot_autograd(
            fw_compiler=self.compiler("forward"),
            bw_compiler=self.compiler("backward"),
            partition_fn=min_cut_rematerialization_partition,  # as Inductor
        )
        return backend(*given)

    def number(self, part, name):
        return sum(name in target for target in self.counts[part])


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_program_sorts_once(dynamic):
    """For three layers, and not again in the backward program."""
    torch._dynamo.reset()
    backend, model = Counting(), GAT(5, 8, 3, num_layers=3, dropout=0.5)
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend=backend)
    compiled(torch.randn(10, 5, requires_grad=True), edges_of(10, 30)).sum().backward()
    assert backend.number("forward", "gat_ext.edge_attention") == 3
    assert backend.number("backward", "gat_ext.edge_attention_backward") == 3
    sorts = [backend.number(part, "adjacency_csr") for part in ("forward", "backward")]
    assert sorts == [1, 0]
    assert backend.number("backward", "csr_transpose") == 0


def test_a_graph_is_not_sorted_again():
    torch._dynamo.reset()
    graph = Graph(edges_of(10, 30), num_nodes=10)
    layer = GATConv(5, 4, add_self_loops=False)
    for transposes in (1, 0):
        backend = Counting()
        compiled = torch.compile(layer, fullgraph=True, backend=backend)
        compiled(torch.randn(10, 5), graph).sum().backward()
        assert backend.number("forward", "adjacency_csr") == 0
        assert backend.number("forward", "csr_transpose") == transposes
        graph.transpose()


# ---- the cache of the CPU


@pytest.fixture
def empty_cache(request):
    if request.config.getoption("--cuda-emulation"):
        pytest.skip("a GPU has no cache")
    gat_ext.empty_cache()
    yield
    gat_ext.empty_cache()


def test_writes_are_noticed():
    edges = edges_of(100, MANY)

    def check():
        again, fresh = sort(edges, 100), sort(edges.clone(), 100)
        assert all(torch.equal(again[name], fresh[name]) for name in NAMES)
        return again

    before = check()
    edges[0] = 0
    edges[1].fill_(2)  # a view
    after = check()
    assert not torch.equal(before["rowptr"], after["rowptr"])
    edges.resize_(2, MANY + 3)
    edges.fill_(1)
    check()
    edges.numpy()[0] = 5  # without a version
    assert check()["col"].eq(5).all()
    graph = Graph(edges_of(100, MANY), num_nodes=100)
    for part in (graph.col, graph.edge_id):
        sort(graph, 100)
        part.numpy()[:2] = part[:2].flip(0).numpy()
        parts = graph.rowptr, graph.col.clone(), graph.edge_id.clone()
        fresh = sort(Graph._from_csr(parts, 100), 100)
        assert all(torch.equal(sort(graph, 100)[name], fresh[name]) for name in NAMES)


def test_results_are_not_shared():
    """Programs write to the results that they no longer need."""
    edges = edges_of(100, MANY)
    first = sort(edges, 100)
    wanted = {name: tensor.clone() for name, tensor in first.items()}
    for found in (first, sort(edges, 100), sort(edges, 100)):
        assert all(torch.equal(found[name], wanted[name]) for name in NAMES)
        for tensor in found.values():
            tensor.fill_(-7)


def test_results_are_cached_by_sizes_and_options():
    edges = edges_of(90, MANY)
    options = [
        {"num_src": n, "self_loops": loops, "narrow": narrow, "transpose": transpose}
        for n in (90, 100)
        for loops in (False, True)
        for narrow in (False, True)
        for transpose in (False, True)
    ]
    wanted = [sort(edges.clone(), **each) for each in options]
    for _ in range(2):
        for each, results in zip(options, wanted, strict=True):
            found = sort(edges, **each)
            assert all(torch.equal(found[name], results[name]) for name in NAMES)
            assert all(found[name].dtype == results[name].dtype for name in NAMES)


def test_the_cache_keeps_no_edges_alive():
    for form in (lambda: edges_of(100, MANY), lambda: Graph(edges_of(100, MANY), num_nodes=100)):
        edges = form()
        alive = weakref.ref(edges.rowptr if isinstance(edges, Graph) else edges)
        sort(edges, 100)
        del edges
        gc.collect()
        assert alive() is None


def test_inference_mode():
    with torch.inference_mode():
        edges = edges_of(100, MANY)
        before = sort(edges, 100)["col"]
        edges[0] = 0
        after = sort(edges, 100)["col"]
    assert not torch.equal(after, before) and not after.any()
    x = torch.randn(100, 1, 4, requires_grad=True)  # what it cached serves a gradient
    compiled = torch.compile(lambda x, e: _attend(x, e), backend="eager")
    with torch.inference_mode():
        compiled(x, edges.clone())
    compiled(x, edges.clone()).sum().backward()


def _attend(x, edges):
    return functional.dot_attention(Graph(edges, num_nodes=x.shape[0]), x, x, x)


def test_empty_cache_drops_sorted_edges(empty_cache):
    edges = edges_of(100, MANY)
    wanted = sort(edges, 100)
    assert _C.graph_cache_size() == 1
    gat_ext.empty_cache()
    assert _C.graph_cache_size() == 0
    assert torch.equal(sort(edges, 100)["col"], wanted["col"]) and _C.graph_cache_size() == 1
    few = edges_of(100, 50)  # takes longer to look up than to sort
    sort(few, 100)
    assert _C.graph_cache_size() == 1


def test_sorted_edges_are_bounded(empty_cache):
    """With so many nodes the CSR of a list of edges takes 64 MiB: the 16 used last are kept."""
    first, *others = [torch.zeros(2, MANY, dtype=torch.int64) for _ in range(20)]
    for edges in others:
        sort(edges, 2**22)
        sort(first, 2**22)
    assert _C.graph_cache_size() == 16
    del edges, others
    kept = torch.zeros(2, MANY, dtype=torch.int64)
    sort(kept, 3)  # drops results of freed tensors
    assert _C.graph_cache_size() == 2
