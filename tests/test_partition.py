"""Parts of a graph, partitions, and parts in files."""

from __future__ import annotations

import builtins
import json

import pytest
import torch

from gat_ext import Graph
from gat_ext.distributed import PartitionReport, make_part, make_parts, partition


def oracle(edge_index, src_part, dst_part, rank, parts, shared):
    """The fields of a part, from loops over the edges."""
    edges = list(zip(*edge_index.tolist(), strict=True))
    src_part, dst_part = src_part.tolist(), dst_part.tolist()
    src_nodes = [n for n, part in enumerate(src_part) if part == rank]
    dst_nodes = [n for n, part in enumerate(dst_part) if part == rank]

    def needs(receiver, owner):
        return sorted(
            {u for u, v in edges if dst_part[v] == receiver and src_part[u] == owner}
            if owner != receiver
            else set()
        )

    received = [needs(rank, owner) for owner in range(parts)]
    sent = [needs(receiver, rank) for receiver in range(parts)]
    halo = [u for rows in received for u in rows]
    groups = [
        [e for e, (u, v) in enumerate(edges) if dst_part[v] == rank and src_part[u] == owner]
        for owner in range(parts)
    ]
    own, groups[rank] = groups[rank], []
    order = [e for group in groups for e in group] + own
    place = {u: len(src_nodes) + k for k, u in enumerate(halo)}
    place |= {u: k for k, u in enumerate(src_nodes)}
    plain = [e for e, (u, v) in enumerate(edges) if u != v]
    return {
        "rank": rank,
        "parts": parts,
        "src_nodes": src_nodes,
        "dst_nodes": dst_nodes,
        "halo": halo,
        "recv_sizes": tuple(map(len, received)),
        "send": [src_nodes.index(u) for rows in sent for u in rows],
        "send_sizes": tuple(map(len, sent)),
        "edge_index": [
            [place[edges[e][0]] for e in order],
            [dst_nodes.index(edges[e][1]) for e in order],
        ],
        "halo_edges": tuple(map(len, groups)),
        "edges": order,
        "num_edges": len(edges),
        "num_src": len(src_part),
        "num_dst": len(dst_part),
        "plain": {e: k for k, e in enumerate(plain)},
        "num_plain": len(plain),
        "is_bipartite": not shared,
    }


def check(part, expected):
    plain = expected.pop("plain")
    for name, value in expected.items():
        found = getattr(part, name)
        if isinstance(found, torch.Tensor):
            assert found.dtype == torch.int64 and found.is_contiguous(), name
            found = found.tolist()
        assert found == value, name
    if part.num_plain == part.num_edges:
        assert part.plain_edges is None
    else:
        assert part.plain_edges.shape == part.edges.shape
        for edge, position in zip(part.edges.tolist(), part.plain_edges.tolist(), strict=True):
            assert plain.get(edge, position) == position


def drawn(seed):
    """(edge_index, assignment, parts) with multi-edges, self-loops, and parts without nodes."""
    generator = torch.Generator().manual_seed(seed)

    def number(low, high):
        return int(torch.randint(low, high, (), generator=generator))

    parts, num_src = number(1, 7), number(1, 14)
    shared = seed % 3 != 0
    num_dst = num_src if shared else number(1, 14)
    size = (number(0, 60),)
    edges = [torch.randint(n, size, generator=generator) for n in (num_src, num_dst)]
    if seed % 4 == 0:  # no self-loops
        keep = edges[0] != edges[1]
        edges = [row[keep] for row in edges]
    draw = [torch.randint(parts, (n,), generator=generator) for n in (num_src, num_dst)]
    if seed % 5 == 0:  # all in one part
        draw = [torch.full_like(part, parts - 1) for part in draw]
    return torch.stack(edges), draw[0] if shared else tuple(draw), parts


def same(one, other):
    for name, value in vars(one).items():
        found = getattr(other, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, found), name
        else:
            assert value == found, name


# ---- parts


@pytest.mark.parametrize("seed", range(60))
def test_parts_agree_with_loops_over_the_edges(seed):
    edge_index, assignment, parts = drawn(seed)
    shared = isinstance(assignment, torch.Tensor)
    src_part, dst_part = (assignment, assignment) if shared else assignment
    together = make_parts(edge_index, assignment, parts)
    assert len(together) == parts
    for rank, part in enumerate(together):
        check(part, oracle(edge_index, src_part, dst_part, rank, parts, shared))
        same(part, make_part(edge_index.int(), assignment, rank, parts))
    assert len({part.identity for part in together}) == 1


@pytest.mark.parametrize("seed", range(8))
def test_aggregation_by_parts_is_that_of_the_graph(seed):
    edge_index, assignment, parts = drawn(seed)
    pair = (assignment, assignment) if isinstance(assignment, torch.Tensor) else assignment
    x = torch.arange(1.0, len(pair[0]) + 1) ** 2
    expected = torch.zeros(len(pair[1])).index_add(0, edge_index[1], x[edge_index[0]])
    found = torch.full_like(expected, -1)
    together = make_parts(edge_index, assignment, parts)
    for part in together:
        rows = torch.cat([x[part.src_nodes], *received(together, part.rank, x)])
        result = torch.zeros(part.num_own_dst)
        found[part.dst_nodes] = result.index_add(0, part.edge_index[1], rows[part.edge_index[0]])
        assert torch.equal(rows[part.num_own_src :], x[part.halo])
    assert torch.equal(found, expected)


def received(together, rank, x):
    """The rows that each part sends to one, by owner."""
    for part in together:
        rows = x[part.src_nodes][part.send]
        yield rows.split(part.send_sizes)[rank]


def test_a_graph_is_its_edge_index():
    edge_index, assignment = torch.tensor([[2, 0, 1, 1], [1, 1, 0, 1]]), torch.tensor([1, 0, 1])
    for one, other in zip(
        make_parts(edge_index, assignment, 2),
        make_parts(Graph(edge_index, 3), assignment, 2),
        strict=True,
    ):
        same(one, other)


@pytest.mark.parametrize("nodes", [0, 3])
def test_no_edges(nodes):
    edge_index = torch.zeros((2, 0), dtype=torch.int64)
    for part in make_parts(edge_index, torch.zeros(nodes, dtype=torch.int64), 3):
        assert part.num_own_dst == (nodes if part.rank == 0 else 0)
        assert (part.num_halo, part.num_sent, part.num_own_edges, part.peers) == (0, 0, 0, ())
        assert part.plain_edges is None and part.num_plain == 0


def test_counts_peers_and_bytes():
    ring = torch.tensor([[0, 1, 2, 3, 3], [1, 2, 3, 0, 3]])
    part = make_part(ring, torch.tensor([0, 0, 1, 2]), 1, 3)
    assert (part.num_own_src, part.num_own_edges, part.num_halo_edges) == (1, 1, 1)
    assert (part.num_halo, part.num_sent, part.peers) == (1, 1, (0, 2))
    # nodes, once; halo and send; edge_index, edges and plain_edges
    assert part.nbytes == 8 * (1 + 1 + 1 + 2 + 1 + 1)
    assert part.to("cpu") is part
    moved = part.to("meta")
    assert moved.halo.is_meta and moved.dst_nodes is moved.src_nodes and not moved.is_bipartite


def test_identity_depends_on_the_assignment_and_all_sizes():
    edge_index, assignment = torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1, 1])
    one = make_part(edge_index, assignment, 0, 2).identity
    assert one == make_part(edge_index, assignment, 1, 2).identity
    others = [
        make_part(edge_index, assignment, 0, 3),
        make_part(edge_index[:, :1], assignment, 0, 2),
        make_part(edge_index, torch.tensor([0, 1, 0]), 0, 2),
        make_part(edge_index, torch.tensor([0, 1, 1, 1]), 0, 2),
        make_part(edge_index, (assignment, assignment), 0, 2),
    ]
    assert len({one, *(other.identity for other in others)}) == 6


MISTAKES = [
    ({"parts": 0}, ValueError, "parts is 0; expected at least 1"),
    ({"parts": 2.0}, TypeError, "parts is a float"),
    ({"parts": 2**40}, ValueError, "use fewer parts"),
    ({"rank": 2}, ValueError, "rank is 2; expected 0 to 1"),
    ({"rank": -1}, ValueError, "rank is -1"),
    ({"rank": True}, TypeError, "rank is a bool"),
    ({"assignment": torch.tensor([0, 2, 1])}, IndexError, r"assignment\[1\] is 2; expected parts"),
    ({"assignment": torch.tensor([0, 1])}, IndexError, "expected node numbers below num_nodes=2"),
    ({"assignment": torch.zeros(3)}, TypeError, "dtype torch.float32; expected torch.int64"),
    ({"assignment": torch.zeros(3, 1).long()}, ValueError, r"shape \[3, 1\]; expected \[N\]"),
    ({"assignment": "metis"}, TypeError, "assignment is a str; expected an int64 tensor"),
    ({"assignment": [0, 1, 1]}, TypeError, "assignment is a list"),
    ({"assignment": [0, 1]}, TypeError, r"assignment\[0\] is a int; expected an int64 tensor"),
    ({"assignment": (torch.tensor([0]), torch.tensor([0, 1]))}, IndexError, "num_src=1"),
    ({"graph": torch.zeros(2, 3)}, TypeError, "edge_index has dtype torch.float32"),
    ({"graph": torch.zeros(3, 3).long()}, ValueError, "edge_index has shape"),
    ({"graph": torch.tensor([[-1], [0]])}, IndexError, "expected node numbers of at least 0"),
    ({"graph": Graph(torch.tensor([[0], [1]]), 4)}, ValueError, "a part for each node"),
]


@pytest.mark.parametrize(("changes", "kind", "words"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_of_parts(changes, kind, words):
    right = {
        "graph": torch.tensor([[0, 1, 2], [1, 2, 0]]),
        "assignment": torch.tensor([0, 1, 1]),
        "rank": 0,
        "parts": 2,
    }
    make_part(**right)
    with pytest.raises(kind, match=words):
        make_part(**{**right, **changes})


# ---- partitions

METHODS = ["metis", "kaminpar", "range", "coordinates"]


def cut_by(method, graph, parts, seed=0, num_nodes=None):
    """A partition by a method, if its library is installed."""
    if method in ("metis", "kaminpar"):
        pytest.importorskip({"metis": "pymetis"}.get(method, method))
    options = {}
    if method == "coordinates":
        nodes = graph.num_src + (graph.num_dst if graph.num_src != graph.num_dst else 0)
        generator = torch.Generator().manual_seed(7)
        options = {"coordinates": torch.rand(nodes, 2, generator=generator)}
    return partition(graph, parts, method, seed=seed, **options)


def blocks(number=4, size=12):
    """Complete graphs in a ring, with an edge from one to the next; nodes shuffled."""
    pairs = [
        (b * size + i, b * size + j)
        for b in range(number)
        for i in range(size)
        for j in range(size)
    ]
    pairs += [(b * size, (b + 1) % number * size) for b in range(number)]
    generator = torch.Generator().manual_seed(1)
    names = torch.randperm(number * size, generator=generator)
    edges = names[torch.tensor(pairs).t()]
    labels = torch.empty(number * size, dtype=torch.int64)
    labels[names] = torch.arange(number * size) // size
    return Graph(edges[:, torch.randperm(edges.shape[1], generator=generator)]), labels


@pytest.mark.parametrize("method", ["metis", "kaminpar"])
def test_methods_find_the_blocks(method):
    graph, labels = blocks()
    found = cut_by(method, graph, 4)
    assert found.report.cut_edges == 4
    pairs = torch.stack([labels, found.assignment]).unique(dim=1)
    assert pairs.shape[1] == 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_weights_are_balanced_and_equal_for_a_seed(method, parts):
    generator = torch.Generator().manual_seed(3)
    edges = torch.randint(400, (2, 4000), generator=generator)
    edges[1, :800] = 17  # a node of a fifth of all edges
    graph = Graph(edges, 400)
    found = cut_by(method, graph, parts, seed=5)
    assert found.assignment.dtype == torch.int64 and found.assignment.shape == (400,)
    assert torch.equal(found.assignment, cut_by(method, graph, parts, seed=5).assignment)
    weight = torch.bincount(found.assignment, 1 + graph.in_degrees().double(), minlength=parts)
    mean, heaviest = 4400 / parts, 1 + int(graph.in_degrees().max())
    if method in ("metis", "kaminpar"):
        assert weight.max() <= 1.1 * max(mean, heaviest)
    else:  # a node is in the part of its middle
        assert weight.max() <= mean + heaviest


@pytest.mark.parametrize("method", ["metis", "kaminpar"])
def test_every_seed_is_a_draw_of_its_own(method):
    generator = torch.Generator().manual_seed(6)
    graph = Graph(torch.randint(500, (2, 4000), generator=generator), 500)
    found = [cut_by(method, graph, 4, seed=seed).assignment for seed in (0, 1, 2, 2**31 - 2)]
    assert torch.stack(found).unique(dim=0).shape[0] == 4


@pytest.mark.parametrize("method", ["metis", "kaminpar"])
def test_nodes_heavier_than_a_part_fill_one_each(method):
    generator = torch.Generator().manual_seed(4)
    edges = torch.randint(200, (2, 3000), generator=generator)
    edges[1] %= 3  # all edges lead to three nodes
    found = cut_by(method, Graph(edges, 200), 8)
    assert found.assignment[:3].unique().numel() == 3
    others = torch.bincount(found.assignment[3:], minlength=8)
    assert others.max() <= 60 and (others == 0).sum() <= 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sizes", [(0, 0), (3, 0), (3, 6), (1, 1), (9, 0)])
def test_few_nodes_and_many_parts(method, sizes):
    nodes, edges = sizes
    generator = torch.Generator().manual_seed(0)
    graph = Graph(torch.randint(max(nodes, 1), (2, edges), generator=generator), nodes)
    for parts in (1, 2, 8, 50):
        found = cut_by(method, graph, parts)
        assert found.assignment.shape == (nodes,)
        assert sum(part.num_own_edges for part in found.parts_of(graph)) == edges


@pytest.mark.parametrize("method", METHODS)
def test_two_sets_of_nodes(method):
    generator = torch.Generator().manual_seed(2)
    edges = torch.stack([torch.randint(n, (300,), generator=generator) for n in (40, 25)])
    graph = Graph(edges, num_src=40, num_dst=25)
    found = cut_by(method, graph, 3)
    assert [part.shape[0] for part in found.assignment] == [40, 25]
    parts = found.parts_of(graph)
    assert sum(part.num_own_edges for part in parts) == 300
    assert found.report.nodes == tuple(part.num_own_src + part.num_own_dst for part in parts)
    assert found.report.edge_balance < 1.5
    check_report(found.report, parts)


def check_report(report, parts):
    assert report.edges == tuple(part.num_own_edges for part in parts)
    assert report.halo == tuple(part.num_halo for part in parts)
    assert report.sent == tuple(part.num_sent for part in parts)
    assert report.peers == tuple(len(part.peers) for part in parts)
    assert report.cut_edges == sum(part.num_halo_edges for part in parts)
    assert report.num_src == parts[0].num_src


@pytest.mark.parametrize("seed", range(12))
def test_the_report_is_that_of_the_parts(seed):
    edge_index, assignment, parts = drawn(seed)
    found = partition(edge_index, parts, "given", assignment=assignment)
    together = found.parts_of(edge_index)
    check_report(found.report, together)
    same(found.part(edge_index, parts - 1), together[-1])
    edges = edge_index.shape[1]
    assert found.report.cut_fraction == (found.report.cut_edges / edges if edges else 0)
    largest = max(part.num_own_edges for part in together)
    assert found.report.edge_balance == pytest.approx(largest * parts / edges if edges else 1)
    assert PartitionReport.from_dict(json.loads(json.dumps(found.report.to_dict()))) == found.report
    assert len(str(found.report).splitlines()) == parts + 3


def test_ranges_and_bisection_of_a_line():
    line = torch.stack([torch.arange(99), torch.arange(1, 100)])
    found = partition(line, 4, "range")
    assert found.assignment.diff().min() == 0 and found.report.cut_edges == 3
    shuffled = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    place = torch.empty(100).index_copy_(0, shuffled, torch.arange(100.0))
    found = partition(shuffled[line], 4, "coordinates", coordinates=place.unsqueeze(1))
    assert found.report.cut_edges == 3
    assert max(found.report.nodes) - min(found.report.nodes) <= 1


def test_bisection_cuts_the_longest_axis_in_proportion():
    place = torch.cartesian_prod(torch.arange(30.0), torch.arange(4.0))
    edges = torch.zeros((2, 0), dtype=torch.int64)
    found = partition(edges, 3, "coordinates", coordinates=place, num_nodes=120)
    assert torch.equal(found.assignment, place[:, 0].long() // 10)


def test_multi_edges_weigh_more():
    pytest.importorskip("pymetis")
    ring = torch.stack([torch.arange(8), (torch.arange(8) + 1) % 8])
    heavy = ring[:, [0, 1, 2, 4, 5, 6]].repeat(1, 9)  # all but 3-4 and 7-0
    found = partition(torch.cat([ring, heavy], dim=1), 2)
    assert found.assignment[:4].unique().numel() == found.assignment[4:].unique().numel() == 1


@pytest.mark.parametrize(("method", "module"), [("metis", "pymetis"), ("kaminpar", "kaminpar")])
def test_a_missing_library_is_named(method, module, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == module:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=rf"needs {module}.*gat_ext\[distributed\]"):
        partition(torch.tensor([[0, 1, 2], [1, 2, 3]]), 2, method)


EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])
MISTAKES_OF_PARTITIONS = [
    ((EDGES, 2, "metsi"), {}, ValueError, "method is 'metsi'; expected one of 'metis', 'kaminpar'"),
    ((EDGES, 0), {}, ValueError, "parts is 0"),
    ((EDGES, 2), {"seed": -1}, ValueError, "seed is -1"),
    ((EDGES, 2), {"seed": 2**31}, ValueError, "expected 0 to 2³¹ - 2"),
    ((EDGES, 2), {"seed": 1.0}, TypeError, "seed is a float"),
    ((EDGES, 2, "given"), {}, ValueError, "assignment is missing"),
    ((EDGES, 2, "coordinates"), {}, ValueError, "coordinates is missing"),
    ((EDGES, 2, "range"), {"coordinates": torch.zeros(3, 1)}, ValueError, "coordinates is given"),
    ((EDGES, 2, "range"), {"assignment": torch.zeros(3)}, ValueError, "assignment is given"),
    ((EDGES, 2, "coordinates"), {"coordinates": torch.zeros(3)}, ValueError, r"shape \[3\]"),
    ((EDGES, 2, "coordinates"), {"coordinates": torch.zeros(4, 2)}, ValueError, "4 rows for 3"),
    ((EDGES, 2, "coordinates"), {"coordinates": EDGES}, TypeError, "expected a floating-point"),
    (
        (EDGES, 2, "coordinates"),
        {"coordinates": torch.tensor([[0.0], [1.0], [float("nan")]])},
        ValueError,
        r"coordinates\[2\] is not finite",
    ),
    ((EDGES.float(), 2, "range"), {}, TypeError, "edge_index has dtype"),
    ((EDGES, 2, "range"), {"num_nodes": 2}, IndexError, "num_nodes=2"),
    ((Graph(EDGES), 2, "range"), {"num_nodes": 4}, ValueError, "leave it out"),
]


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "words"), MISTAKES_OF_PARTITIONS, ids=lambda v: str(v)[:30]
)
def test_mistakes_of_partitions(arguments, options, kind, words):
    with pytest.raises(kind, match=words):
        partition(*arguments, **options)
