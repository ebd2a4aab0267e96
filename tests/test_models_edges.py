"""Models with edge features: as their layers, in every way of calling."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from gat_ext import Graph, explain, models, nn

F64 = torch.float64
NODES, EDGE_DIM = 9, 3
NAMES = ["GAT", "GATv2", "GraphTransformer"]
EDGES = torch.randint(NODES, (2, 30), generator=torch.Generator().manual_seed(0))
X = torch.randn(NODES, 5, dtype=F64, generator=torch.Generator().manual_seed(1))
ATTR = torch.randn(30, EDGE_DIM, dtype=F64, generator=torch.Generator().manual_seed(2))


def make(name, edge_dim=EDGE_DIM, **options):
    torch.manual_seed(3)
    return getattr(models, name)(5, 4, 2, edge_dim=edge_dim, **options).double().eval()


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_reads_edge_attr(name):
    model = make(name, num_layers=3)
    hidden = X
    for position, layer in enumerate(model.layers):
        assert layer.edge_dim == EDGE_DIM
        hidden = layer(hidden, EDGES, ATTR)
        if position < 2:
            hidden = model.activation(model.norms[position](hidden))
    out = model(X, EDGES, edge_attr=ATTR)
    assert_close(out, hidden)
    assert_close(model(X, Graph(EDGES, NODES), edge_attr=ATTR), out)
    assert not torch.allclose(model(X, EDGES, edge_attr=2 * ATTR), out)
    gradients = torch.autograd.grad(
        model(X, EDGES, edge_attr=ATTR).square().sum(), list(model.parameters())
    )
    assert all(g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_attention_reads_edge_attr(name):
    model = make(name)
    with explain.record_attention(model) as recorded:
        model(X, EDGES, edge_attr=ATTR)
    given = model.attention_weights(X, EDGES, edge_attr=ATTR)
    for (_, alpha), record in zip(given, recorded, strict=True):
        assert_close(record.alpha, alpha)
    others = model.attention_weights(X, EDGES, edge_attr=2 * ATTR)
    assert not torch.allclose(given[0][1], others[0][1])


@pytest.mark.parametrize("name", NAMES)
def test_one_feature_of_a_sparse_matrix(name):
    model = make(name, edge_dim=1)
    order = (EDGES[1] * NODES + EDGES[0]).unique()
    rows, cols = order // NODES, order % NODES
    values = torch.arange(1.0, len(order) + 1, dtype=F64)
    shape, indices = (NODES, NODES, 1), torch.stack([rows, cols])
    matrix = torch.sparse_coo_tensor(indices, values[:, None], shape, check_invariants=True)
    expected = model(X, indices.flip(0), edge_attr=values)
    assert_close(model(X, matrix.coalesce()), expected)
    alpha = model.attention_weights(X, matrix.coalesce())[0][1]
    assert_close(alpha, model.attention_weights(X, indices.flip(0), edge_attr=values)[0][1])


@pytest.mark.parametrize("name", NAMES)
def test_size_from_the_first_call(name):
    model = getattr(models, name)(5, 4, 2, edge_dim=-1)
    x, attr = X.float(), ATTR.float()
    assert model(x, EDGES, edge_attr=attr).shape == (NODES, 2)
    assert all(layer.lin_edge.weight.shape[1] == EDGE_DIM for layer in model.layers)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", NAMES)
def test_masks_batches_and_compile(name):
    model = make(name)
    mask = torch.rand(30, dtype=F64, generator=torch.Generator().manual_seed(4))
    out = model(X, EDGES, edge_attr=ATTR, edge_weight=mask)
    batch = torch.stack([X, 2 * X])
    assert_close(model(batch, EDGES, edge_attr=ATTR, edge_weight=mask)[0], out)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_close(compiled(X, EDGES, edge_attr=ATTR, edge_weight=mask), out)
    reordered = nn.Reordered(model, "degree")
    assert_close(reordered(X, EDGES, edge_attr=ATTR, edge_weight=mask), out)


@pytest.mark.parametrize("name", NAMES)
def test_bad_edge_attr(name):
    with pytest.raises(ValueError, match="edge_attr"):
        make(name)(X, EDGES, edge_attr=ATTR[:-1])
    with pytest.raises(ValueError, match="edge_attr"):
        make(name)(X, EDGES, edge_attr=ATTR[:, :2])
    with pytest.raises(ValueError, match="edge_dim is -3"):
        make(name, edge_dim=-3)


def test_models_without_edge_features():
    with pytest.raises(ValueError, match="AGNN weighs neighbours by the similarity"):
        models.AGNN(5, 4, 2).double()(X, EDGES, edge_attr=ATTR)
    with pytest.warns(UserWarning, match="ignores edge_attr"):
        make("GAT", edge_dim=None)(X, EDGES, edge_attr=ATTR)
    with pytest.raises(ValueError, match="edge_dim"):
        make("GATv2", edge_dim=None)(X, EDGES, edge_attr=ATTR)
