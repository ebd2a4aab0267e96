"""Self-loops of a sorted graph are replaced in its order, as by a new sort of its edges."""

from __future__ import annotations

import pytest
import torch

from gat_ext import Graph
from gat_ext.graph.self_loops import with_self_loops


def edges_with_loops(num_src: int, num_dst: int, count: int, loops: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    src = torch.randint(max(num_src, 1), (count,), generator=generator)
    dst = torch.randint(max(num_dst, 1), (count,), generator=generator)
    both = torch.stack([src, dst])[:, src != dst]
    if loops:
        own = torch.randint(min(num_src, num_dst), (1, loops), generator=generator).expand(2, -1)
        both = torch.cat([both, own], dim=1)
    return both[:, torch.randperm(both.shape[1], generator=generator)]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("num_src", "num_dst"), [(30, 30), (50, 20), (20, 50), (7, 0), (0, 7)])
@pytest.mark.parametrize("loops", [0, 9])
@pytest.mark.parametrize("ordered", [False, True])
def test_equals_a_sort_of_the_edges(dtype, num_src, num_dst, loops, ordered):
    smallest = min(num_src, num_dst)
    edges = edges_with_loops(num_src, num_dst, 200 if smallest else 0, loops if smallest else 0)
    if ordered:
        edges = edges[:, edges[1].argsort(stable=True)]
    graph = Graph(edges, num_src=num_src, num_dst=num_dst, index_dtype=dtype)
    found = with_self_loops(graph, num_src, num_dst)
    sorted_again = with_self_loops(edges, num_src, num_dst)
    assert torch.equal(found.graph.edge_index, sorted_again.graph.edge_index)
    assert torch.equal(found.graph.rowptr, sorted_again.graph.rowptr)
    assert torch.equal(found.graph.col.long(), sorted_again.graph.col.long())
    assert found.graph.index_dtype == dtype
    assert found[2:] == sorted_again[2:]
    assert (found.kept is None) == (sorted_again.kept is None)
    if found.kept is not None:
        assert torch.equal(found.kept, sorted_again.kept)


def test_equal_on_any_number_of_threads():
    edges = edges_with_loops(2000, 2000, 100_000, 500)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(with_self_loops(Graph(edges, 2000), 2000, 2000))
    for other in results[1:]:
        for name in ("rowptr", "col", "edge_id"):
            assert torch.equal(getattr(results[0].graph, name), getattr(other.graph, name))


def test_only_self_loops():
    graph = Graph(torch.tensor([[1, 1, 0], [1, 1, 0]]), 3)
    found = with_self_loops(graph, 3, 3)
    assert found.graph.edge_index.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert found.kept.tolist() == [] and found.num_given == 3


@pytest.mark.parametrize("loops", [0, 5])
def test_the_operator_is_registered_correctly(loops):
    graph = Graph(edges_with_loops(9, 9, 30, loops), 9)
    parts = graph.rowptr, graph.col, graph.edge_id, 9
    torch.library.opcheck(torch.ops.gat_ext.csr_with_loops.default, parts)
    with pytest.raises(ValueError, match="num_loops is 10; expected a number from 0 to 9"):
        torch.ops.gat_ext.csr_with_loops(*parts[:3], 10)
