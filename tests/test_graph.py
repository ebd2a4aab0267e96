"""Graph: construction, checks, transpose, derived graphs. Converters are in test_graph_io.py."""

from __future__ import annotations

import copy
import doctest
import io
import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import gat_ext.graph
from gat_ext import Graph
from gat_ext.graph.csr import index_dtype_for
from gat_ext.graph.degrees import largest_degrees
from gat_ext.testing import GRAPHS, devices, sample_graph

INDEX_DTYPES = [torch.int32, torch.int64]
SQUARE = [name for name in GRAPHS if GRAPHS[name]().num_src == GRAPHS[name]().num_dst]
BIPARTITE = [name for name in GRAPHS if name not in SQUARE]


def edges(graph: Graph) -> list[tuple[int, int]]:
    return list(map(tuple, graph.edge_index.t().tolist()))


def assert_consistent(graph: Graph, edge_index: torch.Tensor) -> None:
    """Edges, CSR, order and transpose equal those of slow loops."""
    src, dst = edge_index.tolist()
    by_dst = sorted(range(len(dst)), key=lambda e: dst[e])  # sorted() is stable
    assert graph.rowptr.tolist() == np.searchsorted(sorted(dst), range(graph.num_dst + 1)).tolist()
    assert graph.col.tolist() == [src[e] for e in by_dst]
    order = list(range(len(dst))) if graph.edge_id is None else graph.edge_id.tolist()
    assert order == by_dst
    assert (graph.edge_id is None) == (dst == sorted(dst))
    by_src = sorted(range(len(src)), key=lambda k: src[by_dst[k]])
    rowptr, col, pos, edge_id = graph.transpose()
    assert rowptr.tolist() == np.searchsorted(sorted(src), range(graph.num_src + 1)).tolist()
    assert pos.tolist() == by_src
    assert col.tolist() == [dst[by_dst[k]] for k in by_src]
    assert edge_id.tolist() == [by_dst[k] for k in by_src]
    assert (edge_id is pos) == (graph.edge_id is None)
    for tensor in (graph.col, graph.edge_id, col, pos, edge_id):
        assert tensor is None or (tensor.dtype == graph.index_dtype and tensor.is_contiguous())
    assert graph.rowptr.dtype == rowptr.dtype == graph.edge_index.dtype == torch.int64
    assert torch.equal(graph.edge_index.cpu(), edge_index.long().cpu())


# ---- construction


@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
def test_native_sort_is_stable_on_any_number_of_threads(index_dtype):
    generator = torch.Generator().manual_seed(0)
    src, dst = torch.randint(70, (2, 100_000), generator=generator).to(index_dtype)
    ascending, order = torch.sort(dst, stable=True)
    rowptr = torch.searchsorted(ascending, torch.arange(71, dtype=index_dtype))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            built = torch.ops.gat_ext.csr_of_edges(src, dst, 70)
            for ours, theirs in zip(built, (rowptr, src[order], order), strict=True):
                assert torch.equal(ours.long(), theirs.long())
            t_rowptr, t_col, pos = torch.ops.gat_ext.csr_transpose(built[0], built[1], 70)
            by_src, expected = torch.sort(src[order], stable=True)
            assert torch.equal(pos.long(), expected)
            assert torch.equal(t_col, ascending[expected])
            bounds = torch.arange(71, dtype=index_dtype)
            assert torch.equal(t_rowptr, torch.searchsorted(by_src, bounds))
    finally:
        torch.set_num_threads(before)


def test_opcheck_of_native_sorts():
    src, dst = torch.tensor([[2, 0, 1, 0], [1, 0, 1, 2]])
    torch.library.opcheck(torch.ops.gat_ext.csr_of_edges.default, (src, dst, 3))
    rowptr, col, _ = torch.ops.gat_ext.csr_of_edges(src, dst, 3)
    torch.library.opcheck(torch.ops.gat_ext.csr_transpose.default, (rowptr, col, 3))


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("index_dtype", INDEX_DTYPES)
@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "long_row"])
def test_csr_and_transpose_of_sample_graphs(name, index_dtype, device):
    graph = sample_graph(name, device, index_dtype)
    assert graph.index_dtype == index_dtype and graph.device.type == device
    assert_consistent(graph, GRAPHS[name]().edge_index)


@given(st.data(), st.integers(0, 6), st.integers(0, 6), st.sampled_from(INDEX_DTYPES))
@settings(max_examples=150, deadline=None)
def test_csr_and_transpose_of_any_graph(data, num_src, num_dst, dtype):
    most = 12 if num_src and num_dst else 0
    pair = st.tuples(st.integers(0, max(num_src - 1, 0)), st.integers(0, max(num_dst - 1, 0)))
    pairs = data.draw(st.lists(pair, max_size=most))
    edge_index = torch.tensor(pairs, dtype=dtype).reshape(-1, 2).t()
    graph = Graph(edge_index, num_src=num_src, num_dst=num_dst)
    assert graph.index_dtype == torch.int32 and graph.num_edges == len(pairs)
    assert_consistent(graph, edge_index)


def test_number_of_nodes():
    edge_index = torch.tensor([[0, 4], [1, 2]])
    assert Graph(edge_index).num_nodes == 5
    assert Graph(edge_index, 7).num_nodes == 7
    assert Graph(edge_index, np.int64(7)).num_nodes == 7
    assert Graph(edge_index[:, :0]).num_nodes == 0
    bipartite = Graph(edge_index, num_src=5, num_dst=3)
    assert (bipartite.num_src, bipartite.num_dst) == (5, 3)
    with pytest.raises(ValueError, match=r"num_src=5 and num_dst=3"):
        _ = bipartite.num_nodes


@pytest.mark.parametrize(
    ("largest", "wanted", "expected"),
    [
        (10, None, torch.int32),
        (10, torch.int64, torch.int64),
        (2**31 - 2, None, torch.int32),
        (2**31 - 1, None, torch.int64),
        (2**31 - 2, torch.int32, torch.int32),
    ],
)
def test_index_dtype(largest, wanted, expected):
    assert index_dtype_for(largest, wanted) == expected


BAD_GRAPHS = {
    "a list": (([[0], [1]],), {}, TypeError, r"a list.*torch\.as_tensor"),
    "bool": ((torch.ones(2, 3, dtype=torch.bool),), {}, TypeError, r"torch\.bool.*nonzero"),
    "float": ((torch.zeros(2, 3),), {}, TypeError, r"torch\.float32.*int32"),
    "uint8": ((torch.zeros(2, 3, dtype=torch.uint8),), {}, TypeError, "torch.uint8"),
    "sparse": ((torch.eye(3).to_sparse(),), {}, TypeError, "from_torch_sparse"),
    "pairs": ((torch.zeros(5, 2, dtype=torch.int64),), {}, ValueError, r"\[5, 2\].*\[2, E\]"),
    "flat": ((torch.zeros(4, dtype=torch.int64),), {}, ValueError, r"\[4\].*\[2, E\]"),
    "too large": (
        (torch.tensor([[0, 3], [1, 1]]), 3),
        {},
        IndexError,
        r"\[0, 1\] is 3.*num_nodes=3",
    ),
    "source": (
        (torch.tensor([[0, 2], [1, 5]]),),
        {"num_src": 2, "num_dst": 6},
        IndexError,
        r"edge_index\[0, 1\] is 2.*num_src=2",
    ),
    "destination": (
        (torch.tensor([[0, 2], [1, 5]]),),
        {"num_src": 3, "num_dst": 5},
        IndexError,
        r"edge_index\[1, 1\] is 5.*num_dst=5",
    ),
    "negative": ((torch.tensor([[0, 1], [1, -7]]),), {}, IndexError, r"edge_index\[1, 1\] is -7"),
    "one count": ((torch.tensor([[0], [1]]),), {"num_src": 2}, ValueError, "num_dst=None"),
    "all counts": (
        (torch.tensor([[0], [1]]), 2),
        {"num_src": 2, "num_dst": 2},
        ValueError,
        "num_nodes only",
    ),
    "negative count": ((torch.tensor([[0], [1]]), -1), {}, ValueError, "num_nodes is -1"),
    "bool count": ((torch.tensor([[0], [1]]), True), {}, TypeError, "num_nodes is True"),
    "float count": ((torch.tensor([[0], [1]]), 2.0), {}, TypeError, "num_nodes is 2.0"),
    "index dtype": (
        (torch.tensor([[0], [1]]),),
        {"index_dtype": torch.int16},
        ValueError,
        r"torch\.int16",
    ),
}


@pytest.mark.parametrize("case", BAD_GRAPHS)
def test_bad_input_is_refused(case):
    args, kwargs, error, message = BAD_GRAPHS[case]
    with pytest.raises(error, match=message):
        Graph(*args, **kwargs)


def test_too_narrow_index_dtype_is_refused():
    with pytest.raises(ValueError, match=f"has {2**31 - 1} nodes"):
        index_dtype_for(2**31 - 1, torch.int32)


@pytest.mark.parametrize("dtype", INDEX_DTYPES)
def test_shares_no_memory_with_the_edges(dtype):
    edge_index = torch.tensor([[2, 0, 1], [0, 1, 2]], dtype=dtype)
    graph = Graph(edge_index, index_dtype=dtype)
    edge_index.zero_()
    graph.edge_index.zero_()
    assert graph.edge_index.tolist() == [[2, 0, 1], [0, 1, 2]]


def test_non_contiguous_edges():
    pairs = torch.tensor([[2, 0], [0, 0], [1, 2]])
    graph = Graph(pairs.t())
    assert_consistent(graph, pairs.t().contiguous())


@pytest.mark.parametrize("name", ["rowptr", "col", "edge_id", "num_src", "num_edges", "anything"])
def test_is_immutable(name):
    with pytest.raises(AttributeError):
        setattr(sample_graph("path"), name, None)


def test_transpose_is_built_once():
    graph = sample_graph("unsorted")
    assert graph.transpose() is graph.transpose()


def test_made_in_inference_mode_serves_training():
    with torch.inference_mode():
        edge_index = torch.tensor([[0, 1, 2, 0], [2, 2, 0, 0]])
        graph = Graph(edge_index)
        graph.transpose()
        parts = (graph, graph.add_self_loops(), Graph.batch([graph, graph]), graph.reverse())
    for part in parts:
        tensors = (part.rowptr, part.col, part.edge_id, *part.transpose())
        assert not any(t.is_inference() for t in tensors if t is not None)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
def test_copies(duplicate):
    graph = sample_graph("unsorted")
    graph.transpose()
    assert_consistent(duplicate(graph), graph.edge_index)


def test_torch_save_and_load():
    buffer = io.BytesIO()
    torch.save(sample_graph("unsorted"), buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert torch.equal(loaded.edge_index, sample_graph("unsorted").edge_index)


def test_repr_has_one_count_or_two():
    assert "num_nodes=6, num_edges=5" in repr(sample_graph("path"))
    assert "num_src=9, num_dst=4" in repr(sample_graph("more_sources"))
    assert not hasattr(Graph, "__len__")


def test_traced_by_torch_compile():
    def gather(x, graph):
        return x.index_select(0, graph.transpose().col) * graph.num_edges

    x, graph = torch.randn(8, 3), sample_graph("unsorted")
    compiled = torch.compile(gather, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, graph), gather(x, graph))


# ---- other graphs


def test_to_device_keeps_the_transpose():
    graph = sample_graph("unsorted")
    assert graph.to("cpu") is graph
    bare = graph.to("meta")
    assert bare.device.type == "meta" and bare._transpose is None
    graph.transpose()
    moved = graph.to("meta")
    assert moved._transpose is not None and moved.edge_id.device.type == "meta"
    assert moved.transpose().edge_id.device.type == "meta"
    path = sample_graph("path")
    path.transpose()
    moved = path.to("meta")
    assert moved.transpose().edge_id is moved.transpose().pos


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", GRAPHS)
def test_same_graph_when_built_or_moved_on_a_gpu(name):
    graph = sample_graph(name)
    graph.transpose()
    for there in (graph.to("cuda"), sample_graph(name, "cuda")):
        for ours, theirs in zip(graph.transpose(), there.transpose(), strict=True):
            assert torch.equal(ours, theirs.cpu())
        assert torch.equal(graph.col, there.col.cpu())
        assert torch.equal(graph.edge_index, there.edge_index.cpu())


@pytest.mark.parametrize("name", GRAPHS)
def test_degrees(name):
    graph = sample_graph(name)
    src, dst = graph.edge_index
    expected = torch.bincount(src, minlength=graph.num_src)
    assert torch.equal(graph.in_degrees(), torch.bincount(dst, minlength=graph.num_dst))
    assert torch.equal(graph.out_degrees(), expected)
    graph.transpose()
    assert torch.equal(graph.out_degrees(), expected)


@pytest.mark.parametrize("name", GRAPHS)
def test_self_loops(name):
    graph = sample_graph(name)
    before, looped = edges(graph), edges(graph.add_self_loops())
    assert looped[: len(before)] == before
    nodes = range(min(graph.num_src, graph.num_dst))
    assert looped[len(before) :] == [(i, i) for i in nodes if (i, i) not in before]
    bare = graph.add_self_loops().remove_self_loops()
    assert edges(bare) == [(u, v) for u, v in before if u != v]
    assert (bare.num_src, bare.num_dst) == (graph.num_src, graph.num_dst)


@pytest.mark.parametrize("name", SQUARE)
def test_to_undirected(name):
    graph = sample_graph(name)
    before, after = edges(graph), edges(graph.to_undirected())
    present = set(before)
    assert after == before + [(v, u) for u, v in before if (v, u) not in present]
    assert {(v, u) for u, v in after} == set(after)
    assert graph.to_undirected().to_undirected().num_edges == len(after)


@pytest.mark.parametrize("name", GRAPHS)
def test_reverse(name):
    graph = sample_graph(name)
    turned = graph.reverse()
    assert edges(turned) == [(v, u) for u, v in edges(graph)]
    assert (turned.num_src, turned.num_dst) == (graph.num_dst, graph.num_src)


@pytest.mark.parametrize("name", BIPARTITE)
def test_undirected_needs_equal_sides(name):
    with pytest.raises(ValueError, match="expects them to be equal"):
        sample_graph(name).to_undirected()


@pytest.mark.parametrize(
    "names", [["path"], ["path", "star"], list(GRAPHS), ["no_nodes", "no_edges"]]
)
def test_batch_is_block_diagonal(names):
    graphs = [sample_graph(name) for name in names]
    batch = Graph.batch(graphs)
    blocks, num_src, num_dst = [], 0, 0
    for graph in graphs:
        blocks.append(graph.edge_index + torch.tensor([[num_src], [num_dst]]))
        num_src, num_dst = num_src + graph.num_src, num_dst + graph.num_dst
    union = Graph(torch.cat(blocks, dim=1), num_src=num_src, num_dst=num_dst)
    assert (batch.num_src, batch.num_dst) == (num_src, num_dst)
    assert torch.equal(batch.rowptr, union.rowptr) and torch.equal(batch.col, union.col)
    assert torch.equal(batch.edge_index, union.edge_index)
    assert (batch.edge_id is None) == (union.edge_id is None)
    assert batch.edge_id is None or torch.equal(batch.edge_id, union.edge_id)


def test_index_dtype_stays_wide():
    wide = sample_graph("unsorted", index_dtype=torch.int64)
    derived = (
        wide.add_self_loops(),
        wide.reverse(),
        wide.reorder("degree")[0],
        wide.to_undirected(),
    )
    for graph in (*derived, Graph.batch([sample_graph("path"), wide])):
        assert graph.index_dtype == torch.int64


def test_batch_errors():
    path = sample_graph("path")
    with pytest.raises(ValueError, match="at least one"):
        Graph.batch([])
    with pytest.raises(TypeError, match="a Tensor at position 1"):
        Graph.batch([path, path.edge_index])
    with pytest.raises(ValueError, match="cpu, meta"):
        Graph.batch([path, path.to("meta")])


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 6), st.sampled_from(INDEX_DTYPES))
def test_subgraph_of_any_nodes(data, num_nodes, dtype):
    numbers = st.integers(0, max(num_nodes - 1, 0))
    pairs = data.draw(st.lists(st.tuples(numbers, numbers), max_size=12 if num_nodes else 0))
    nodes = data.draw(st.permutations(range(num_nodes)))[: data.draw(st.integers(0, 6))]
    edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t()
    graph = Graph(edge_index, num_nodes=num_nodes, index_dtype=dtype)
    part, positions = graph.subgraph(torch.tensor(nodes, dtype=dtype))
    kept = [e for e, (i, j) in enumerate(pairs) if i in nodes and j in nodes]
    assert positions.tolist() == kept and positions.dtype == torch.int64
    assert part.num_nodes == len(nodes) and part.index_dtype == dtype
    assert edges(part) == [(nodes.index(pairs[e][0]), nodes.index(pairs[e][1])) for e in kept]
    assert_consistent(part, part.edge_index)
    again, same = graph.subgraph(nodes)
    assert edges(again) == edges(part) and torch.equal(same, positions)


def test_subgraph_of_a_mask():
    graph = sample_graph("unsorted")
    mask = torch.tensor([True, False, True, True, False, False, True, False])
    part, positions = graph.subgraph(mask)
    expected, kept = graph.subgraph(mask.nonzero().flatten())
    assert edges(part) == edges(expected) and torch.equal(positions, kept)
    assert graph.subgraph(torch.zeros(8, dtype=torch.bool))[0].num_nodes == 0
    whole, every = graph.subgraph(torch.ones(8, dtype=torch.bool))
    assert edges(whole) == edges(graph) and every.tolist() == list(range(graph.num_edges))


@pytest.mark.parametrize(
    ("nodes", "error", "message"),
    [
        ([0, 2, 0], ValueError, "nodes has node 0 more than once; expected distinct nodes"),
        ([1, 8], IndexError, r"nodes\[1\] is 8; expected node numbers from 0 to 7"),
        ([-1], IndexError, r"nodes\[0\] is -1; expected"),
        ([0.0], TypeError, "nodes has dtype torch.float32; expected torch.int64, torch.int32 or"),
        (torch.tensor([[0]]), ValueError, r"nodes has shape \[1, 1\]; expected node numbers \[M\]"),
        (torch.tensor(3), ValueError, r"nodes has shape \[\]"),
        (torch.ones(7, dtype=torch.bool), ValueError, r"a mask of shape \[7\]; expected \[8\]"),
    ],
)
def test_subgraph_refuses(nodes, error, message):
    with pytest.raises(error, match=message):
        sample_graph("unsorted").subgraph(nodes)


def test_subgraph_of_a_bipartite_graph():
    with pytest.raises(
        ValueError, match="num_src=9 and num_dst=4; num_nodes expects them to be equal"
    ):
        sample_graph("more_sources").subgraph([0])


def test_pin_memory(monkeypatch):
    """All tensors are those that torch pins; without a GPU its error is raised."""
    graph = sample_graph("unsorted")
    if torch.cuda.is_available():
        pinned = graph.pin_memory()
        assert pinned.col.is_pinned() and pinned.rowptr.is_pinned() and pinned.edge_id.is_pinned()
        moved = pinned.to("cuda", non_blocking=True)
        torch.cuda.synchronize()
        assert torch.equal(moved.edge_index.cpu(), graph.edge_index)
    else:
        with pytest.raises(RuntimeError, match="accelerator"):
            graph.pin_memory()
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    graph.transpose()
    pinned = graph.pin_memory()
    assert_consistent(pinned, graph.edge_index)
    for part, other in zip(pinned.transpose(), graph.transpose(), strict=True):
        assert torch.equal(part, other) and part.data_ptr() != other.data_ptr()
    assert pinned.col.data_ptr() != graph.col.data_ptr()
    assert pinned.edge_id.data_ptr() != graph.edge_id.data_ptr()


def test_data_loaders_pin_graphs(monkeypatch):
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    graph = sample_graph("unsorted")
    found, _ = pin_memory((graph, torch.ones(8, 2)))
    assert isinstance(found, Graph) and found is not graph and edges(found) == edges(graph)


def test_examples_in_the_docstrings():
    result = doctest.testmod(gat_ext.graph.graph)
    assert result.attempted > 10 and result.failed == 0


def test_largest_degrees():
    """Read once; that of the sources once the transpose is known."""
    graph = Graph(torch.tensor([[0, 0, 0, 2, 1], [1, 0, 2, 2, 2]]), num_src=4, num_dst=5)
    with torch.inference_mode():
        first = largest_degrees(graph)
    assert first.tolist() == [3, -1] and first.dtype == torch.int64 and not first.is_inference()
    assert largest_degrees(graph) is first
    graph.transpose()
    both = largest_degrees(graph)
    assert both.tolist() == [3, 3] and largest_degrees(graph) is both
    assert largest_degrees(Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=0))[0] == 0
