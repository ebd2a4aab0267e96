"""LinkNeighborLoader: seed edges, negatives, and their places in a batch."""

from __future__ import annotations

import pytest
import torch
from sampled import random_graph
from scipy.stats import chisquare

from gat_ext import Graph, models
from gat_ext.sampling import LinkNeighborLoader, MappedGraph
from gat_ext.sampling.negatives import are_edges, draw_pairs

GRAPH = random_graph(100, 700)
X = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
EDGES = GRAPH.edge_index


def loader(**options) -> LinkNeighborLoader:
    defaults = {"data": (GRAPH, X), "num_neighbors": [4, 3], "batch_size": 50}
    return LinkNeighborLoader(**{**defaults, **options})


def codes(pairs: torch.Tensor) -> torch.Tensor:
    return pairs[0] * 100 + pairs[1]


def test_all_edges_are_seeds():
    batches = list(loader())
    pairs = [batch.n_id[batch.edge_label_index] for batch in batches]
    assert torch.equal(torch.cat(pairs, dim=1), EDGES)
    for batch in batches:
        assert batch.edge_label is None and batch.batch_size == 50
        assert batch.blocks[-1].num_dst == batch.num_sampled_nodes[0]
        assert batch.edge_label_index.max() < batch.num_sampled_nodes[0]
        assert batch.n_id.unique().numel() == batch.n_id.numel()
        assert torch.equal(batch.x, X[batch.n_id])


@pytest.mark.parametrize("amount", [1, 2, 0.5])
def test_binary_negatives(amount):
    for options in (
        {"neg_sampling_ratio": amount},
        {"neg_sampling": {"mode": "binary", "amount": amount}},
    ):
        for batch in loader(**options):
            pairs = batch.n_id[batch.edge_label_index]
            count = int(50 * amount)
            assert batch.edge_label.tolist() == [1.0] * 50 + [0.0] * count
            assert torch.equal(pairs[:, :50], EDGES[:, batch.input_id])
            assert not torch.isin(codes(pairs[:, 50:]), codes(EDGES)).any()


@pytest.mark.parametrize("amount", [1, 3])
def test_triplets(amount):
    for batch in loader(neg_sampling={"mode": "triplet", "amount": amount}):
        src, pos = batch.n_id[batch.src_index], batch.n_id[batch.dst_pos_index]
        assert torch.equal(torch.stack([src, pos]), EDGES[:, batch.input_id])
        neg = batch.n_id[batch.dst_neg_index]
        assert neg.shape == ((50,) if amount == 1 else (50, amount))
        pairs = torch.stack([src.repeat_interleave(amount), neg.flatten()])
        assert not torch.isin(codes(pairs), codes(EDGES)).any()
        assert batch.edge_label is None and batch.edge_label_index is None


def test_labels():
    label = torch.arange(700) % 4
    batch = next(iter(loader(edge_label=label)))
    assert torch.equal(batch.edge_label, label[:50])
    batch = next(iter(loader(edge_label=label, neg_sampling="binary")))
    assert batch.edge_label.tolist() == [*(label[:50] + 1).tolist(), *[0] * 50]


def test_negatives_are_uniform_among_pairs_without_an_edge():
    graph = Graph(torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]]))
    pairs = draw_pairs(graph, None, 22_000, torch.Generator().manual_seed(0))
    found = torch.bincount(pairs[0] * 4 + pairs[1], minlength=16)
    taken = graph.edge_index[0] * 4 + graph.edge_index[1]
    assert (found[taken] == 0).all()
    free = torch.ones(16, dtype=torch.bool).index_fill(0, taken, False)
    assert chisquare(found[free]).pvalue > 1e-4


def test_a_complete_graph_has_no_negatives_but_ends():
    full = Graph(torch.cartesian_prod(torch.arange(4), torch.arange(4)).t())
    pairs = draw_pairs(full, None, 10, torch.Generator())
    assert pairs.shape == (2, 10) and are_edges(full, pairs).all()


def test_are_edges():
    pairs = torch.cartesian_prod(torch.arange(100), torch.arange(100)).t()
    assert torch.equal(are_edges(GRAPH, pairs), torch.isin(codes(pairs), codes(EDGES)))


@pytest.mark.parametrize("mode", ["binary", "triplet"])
def test_times(mode):
    node_time = torch.arange(100)
    pairs = EDGES[:, (EDGES < 60).all(dim=0)]
    time = pairs.max(dim=0).values + 20
    batch_of = loader(
        edge_label_index=pairs,
        edge_label_time=time,
        node_time=node_time,
        neg_sampling={"mode": mode, "amount": 2},
    )
    for batch in batch_of:
        owner = batch.input_id[batch.batch]
        assert (node_time[batch.n_id] <= time[owner]).all()
        if mode == "binary":
            ends = batch.edge_label_index[:, : batch.batch_size]
            assert torch.equal(batch.n_id[ends], pairs[:, batch.input_id])
            assert torch.equal(batch.batch[ends[0]], torch.arange(batch.batch_size))
            assert torch.equal(batch.edge_label_time[: batch.batch_size], time[batch.input_id])
        else:
            rows = torch.arange(batch.batch_size).unsqueeze(1).expand(-1, 2)
            assert torch.equal(batch.batch[batch.dst_neg_index], rows)


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"rank": 1, "world_size": 2}])
def test_equal_for_any_number_of_workers_and_ranks(options):
    common = {"shuffle": True, "neg_sampling": "binary"}
    alone, other = list(loader(**common)), list(loader(**common, **options))
    alone = alone[1::2] if "rank" in options else alone
    assert len(alone) == len(other) > 0
    for a, b in zip(alone, other, strict=True):
        for name in ("x", "n_id", "edge_label_index", "edge_label", "input_id"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_training_separates_edges_from_negatives():
    torch.manual_seed(0)
    half = torch.arange(100) < 50  # edges are within two halves
    src = torch.randint(100, (900,))
    dst = torch.where(half[src], torch.randint(50, (900,)), torch.randint(50, 100, (900,)))
    graph = Graph(torch.stack([src, dst]), 100)
    x = torch.cat([half.float().unsqueeze(1), torch.randn(100, 3)], dim=1)
    model = models.GAT(4, 8, 8, dropout=0.0, attn_dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    batches = LinkNeighborLoader((graph, x), [5, 5], batch_size=300, neg_sampling_ratio=1)
    for _ in range(12):
        for batch in batches:
            src, dst = model(batch.x, batch.blocks)[batch.edge_label_index]
            score = (src * dst).sum(-1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(score, batch.edge_label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    positive, negative = score[batch.edge_label == 1], score[batch.edge_label == 0]
    assert positive.mean() > negative.mean() + 0.5


def test_batches_in_the_form_of_pyg():
    pyg = pytest.importorskip("torch_geometric")
    data = pyg.data.Data(
        x=X, edge_index=EDGES, edge_label_index=EDGES[:, :5], edge_label=torch.ones(5)
    )
    for given in ("triplet", pyg.sampler.NegativeSampling("binary", 2)):
        for batch in loader(
            data=data, form="pyg", neg_sampling=given, edge_label_index=EDGES[:, :120]
        ):
            assert torch.equal(batch.x, X[batch.n_id]) and batch.validate()
            assert torch.equal(batch.n_id[batch.edge_index], EDGES[:, batch.e_id])
            if given == "triplet":
                assert "edge_label" not in batch and "edge_label_index" not in batch
                src, dst = batch.n_id[batch.src_index], batch.n_id[batch.dst_pos_index]
            else:
                count = batch.input_id.numel()
                assert batch.edge_label.sum() == count == batch.edge_label.numel() / 3
                src, dst = batch.n_id[batch.edge_label_index[:, :count]]
            assert torch.equal(torch.stack([src, dst]), EDGES[:, batch.input_id])
    assert data.edge_label.numel() == 5


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"edge_label_index": torch.zeros(3, 2).long()}, ValueError, r"shape \[3, 2\]"),
        ({"edge_label_index": torch.zeros(2, 2)}, TypeError, "edge_label_index is torch.float32"),
        ({"edge_label_index": torch.tensor([[0], [100]])}, IndexError, r"index\[1\]\[0\] is 100"),
        ({"data": MappedGraph(GRAPH.rowptr, GRAPH.col)}, ValueError, "edge_label_index is missing"),
        ({"edge_label": torch.ones(3)}, ValueError, r"edge_label has shape \[3\]"),
        ({"edge_label": torch.ones(700), "neg_sampling": "binary"}, TypeError, "class numbers"),
        ({"edge_label": torch.arange(-1, 699), "neg_sampling": "binary"}, ValueError, "class -1"),
        ({"edge_label": torch.ones(700), "neg_sampling": "triplet"}, ValueError, "no labels"),
        ({"neg_sampling": "binry"}, ValueError, "did you mean 'binary'"),
        ({"neg_sampling": 2}, TypeError, "neg_sampling is a int"),
        ({"neg_sampling": {"amount": 2}}, ValueError, "expected the keys"),
        ({"neg_sampling": {"mode": "triplet", "amount": 0.5}}, ValueError, "an integer above 0"),
        ({"neg_sampling_ratio": -1}, ValueError, "a number above 0"),
        ({"neg_sampling": "binary", "neg_sampling_ratio": 1}, ValueError, "both given"),
        ({"node_time": torch.arange(100)}, ValueError, "edge_label_time is missing"),
        ({"edge_label_time": torch.arange(700)}, ValueError, "edge_label_time was given"),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error, match=text):
        loader(**options)
