"""Layers and models on blocks, and inference, against the full graph."""

from __future__ import annotations

import pytest
import torch
from sampled import random_graph

from gat_ext import Graph, SparseFeatures, models, nn
from gat_ext.sampling import MappedGraph, NeighborLoader, inference

GRAPH = random_graph(150, 900)
X = torch.randn(150, 6, generator=torch.Generator().manual_seed(1))
EDGE_ATTR = torch.randn(900, 3, generator=torch.Generator().manual_seed(2))


def make(name: str, edge_dim: int | None = None):
    torch.manual_seed(0)
    if name == "agnn":
        return models.AGNN(6, 8, 4, num_layers=2).eval()
    kind = models.build(name)
    return kind(6, 8, 4, heads=2, num_layers=2, edge_dim=edge_dim).eval()


@pytest.mark.parametrize("edge_dim", [None, 3])
@pytest.mark.parametrize("name", models.available())
def test_all_neighbours_give_the_results_of_the_graph(name, edge_dim):
    if name == "agnn" and edge_dim:
        pytest.skip("AGNN has no edge features")
    model, edge_attr = make(name, edge_dim), EDGE_ATTR if edge_dim else None
    full = model(X, GRAPH, edge_attr=edge_attr)
    loader = NeighborLoader((GRAPH, X), [-1, -1], batch_size=40, edge_attr=edge_attr)
    for batch in loader:
        out = model(batch.x, batch.blocks, edge_attr=batch.edge_attr)
        assert torch.allclose(out, full[batch.n_id[: batch.batch_size]], atol=1e-5)


@pytest.mark.parametrize("name", models.available())
def test_gradients_equal_those_of_the_graph(name):
    model, weight = make(name).double(), torch.randn(150, 4, dtype=torch.float64)
    parameters = [p for p in model.parameters() if p.requires_grad]
    full = torch.autograd.grad((model(X.double(), GRAPH) * weight).sum(), parameters)
    total = [torch.zeros_like(p) for p in parameters]
    for batch in NeighborLoader((GRAPH, X.double(), weight), [-1, -1], batch_size=64):
        loss = (model(batch.x, batch.blocks) * batch.y).sum()
        for sums, grad in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            sums += grad
    for mine, theirs in zip(total, full, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-9)


def test_layers_take_pairs_and_blocks():
    conv = nn.GATConv(6, 4, heads=2).eval()
    full = conv(X, GRAPH)
    for batch in NeighborLoader((GRAPH, X), [-1], batch_size=64):
        (block,) = batch.blocks
        out = conv((batch.x, batch.x[: block.num_dst]), block)
        assert torch.allclose(out, full[batch.n_id[: batch.batch_size]], atol=1e-6)


def test_attention_weights_of_blocks():
    batch = next(iter(NeighborLoader((GRAPH, X), [3, 2], batch_size=8)))
    model = make("gatv2")
    for (edges, alpha), block in zip(
        model.attention_weights(batch.x, batch.blocks), batch.blocks, strict=True
    ):
        total = torch.zeros(block.num_dst, alpha.shape[1]).index_add_(0, edges[1], alpha)
        assert torch.allclose(total, torch.ones_like(total), atol=1e-6)


def test_no_seeds_give_no_rows():
    batch = next(iter(NeighborLoader((GRAPH, X), [3, 2], batch_size=8)))
    empty = [Graph(torch.zeros(2, 0).long(), num_src=n, num_dst=0) for n in (8, 0)]
    for name in models.available():
        assert make(name)(batch.x[:8], empty).shape == (0, 4)


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    src, dst = GRAPH.edge_index
    y = (torch.zeros(150).index_add(0, dst, X[src, 0]) > 0).long()
    model = models.GAT(6, 8, 2, dropout=0.0, attn_dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    loader = NeighborLoader((GRAPH, X, y), [10, 10], batch_size=32, shuffle=True)
    means = []
    for _ in range(15):
        losses = []
        for batch in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(batch.x, batch.blocks), batch.y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    assert means[-1] < 0.6 * means[0]


# ---- inference


@pytest.mark.parametrize("name", models.available())
@pytest.mark.parametrize("batch_size", [1, 37, 150, 1000])
def test_inference_equals_the_full_graph(name, batch_size):
    model = make(name).train()
    found = inference(model, X, GRAPH, batch_size=batch_size)
    assert model.training, "the mode is restored"
    assert torch.allclose(found, model.eval()(X, GRAPH), atol=1e-6)


def test_inference_with_edge_features_and_batch_norm():
    torch.manual_seed(0)
    model = models.GAT(6, 8, 4, num_layers=3, heads=2, norm="batch", edge_dim=3, residual=True)
    model(X, GRAPH, edge_attr=EDGE_ATTR)  # statistics of the normalisation
    found = inference(model, X, GRAPH, batch_size=40, edge_attr=EDGE_ATTR)
    assert torch.allclose(found, model.eval()(X, GRAPH, edge_attr=EDGE_ATTR), atol=1e-6)


def test_inference_from_and_to_files(tmp_path):
    MappedGraph.save(tmp_path, GRAPH, x=X)
    mapped, model, made = MappedGraph.open(tmp_path), make("gat"), []

    def allocate(position, shape, dtype):
        size = shape[0] * shape[1]
        path = str(tmp_path / f"layer{position}.bin")
        made.append(torch.from_file(path, shared=True, size=size, dtype=dtype).view(shape))
        return made[-1]

    found = inference(model, mapped.arrays["x"], mapped, batch_size=40, allocate=allocate)
    assert len(made) == 2 and found.data_ptr() == made[1].data_ptr()
    assert torch.allclose(found, model(X, GRAPH), atol=1e-6)


def test_inference_of_functions():
    conv = nn.GATConv(6, 4).eval()
    found = inference([lambda x, block, _: conv((x, x[: block.num_dst]), block)], X, GRAPH)
    assert torch.allclose(found, conv(X, GRAPH), atol=1e-6)


def test_inference_without_nodes():
    empty = Graph(torch.zeros(2, 0).long(), 0)
    assert inference(make("gat"), X[:0], empty).shape == (0, 4)


# ---- errors


def batch_of(hops: int):
    return next(iter(NeighborLoader((GRAPH, X), [3] * hops, batch_size=8)))


@pytest.mark.parametrize("hops", [1, 3])
def test_wrong_number_of_blocks(hops):
    batch = batch_of(hops)
    with pytest.raises(ValueError, match=f"got {hops} blocks; expected 2, one for each attention"):
        make("gat")(batch.x, batch.blocks)


def test_wrong_blocks():
    batch, model = batch_of(2), make("gat")
    with pytest.raises(ValueError, match="expected equal numbers, the outermost block first"):
        model(batch.x[: batch.blocks[1].num_src], batch.blocks[::-1])
    with pytest.raises(TypeError, match=r"blocks\[1\] is a Tensor; expected a gat_ext.Graph"):
        model(batch.x, [batch.blocks[0], torch.zeros(2, 1).long()])
    with pytest.raises(ValueError, match="a row for each source of the first block"):
        model(batch.x[1:], batch.blocks)
    with pytest.raises(TypeError, match="x is a SparseFeatures"):
        model(SparseFeatures(batch.x), batch.blocks)
    with pytest.raises(TypeError, match="edge_attr is a Tensor"):
        model(batch.x, batch.blocks, edge_attr=EDGE_ATTR)
    with pytest.raises(ValueError, match="edge_attr has 1 tensors; expected 2"):
        model(batch.x, batch.blocks, edge_attr=[EDGE_ATTR])


def test_a_layer_without_rows_of_destinations():
    batch = batch_of(1)
    with pytest.raises(ValueError, match=r"pass a pair, as \(x, x\[:8\]\) with a block"):
        nn.GATConv(6, 4)(batch.x, batch.blocks[0])
    with pytest.raises(TypeError, match=r"edge_index is a list; .*: pass one block to each layer"):
        nn.GATConv(6, 4)(batch.x, batch.blocks)


def test_wrong_arguments_of_inference():
    with pytest.raises(TypeError, match="model is a Linear"):
        inference(torch.nn.Linear(6, 4), X, GRAPH)
    with pytest.raises(TypeError, match=r"model is a DataParallel; .*: pass model.module"):
        inference(torch.nn.DataParallel(make("gat")), X, GRAPH)
    for given in (None, torch.empty(3, 16), torch.empty(150, 16, dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"allocate returned .*; expected a tensor .150, 16"):
            inference(make("gat"), X, GRAPH, allocate=lambda *_, given=given: given)
    with pytest.raises(ValueError, match="x has shape"):
        inference(make("gat"), X[:9], GRAPH)
    with pytest.raises(ValueError, match="stage 0 of the model returned shape"):
        inference([lambda x, block, _: x], X, GRAPH, batch_size=10)
