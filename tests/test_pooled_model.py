"""PooledModel: attention networks whose pooled nodes give the logits of graphs."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from gat_ext import Graph, SparseFeatures, explain, models
from gat_ext.models import GAT, PooledModel
from gat_ext.models.pooled import POOLINGS
from gat_ext.nn import AttentionPool, Pool

# A path of three nodes, an edge, a node alone.
EDGES = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])
BATCH, POINTERS = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 3, 5, 6])
X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
NAMES = models.available()


def make(name, **options):
    torch.manual_seed(0)
    return PooledModel.preset(models.build(name), 5, 3, **options)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", NAMES)
def test_logits_of_every_network_and_pooling(name, pooling):
    """Each graph's are those of the graph alone, and every parameter learns."""
    model = make(name, pooling=pooling)
    out = model(X, EDGES, BATCH)
    assert out.shape == (3, 3)
    assert torch.equal(out, model(X, Graph(EDGES, num_nodes=6), node_ptr=POINTERS))
    for g, (first, end) in enumerate(pairwise(POINTERS.tolist())):
        edges = EDGES[:, BATCH[EDGES[0]] == g] - first
        assert_close(model(X[first:end], edges), out[g : g + 1])
    assert_close(model(SparseFeatures(X), EDGES, BATCH), out)
    out.square().sum().backward()
    fixed = {"gate_nn.bias"}  # a constant on all gates of a graph
    for key, parameter in model.named_parameters():
        if not any(key.endswith(end) for end in fixed):
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", NAMES)
def test_sizes(name):
    heads = {} if name == "agnn" else {"heads": 2}
    model = make(name, num_layers=4, hidden_channels=6, **heads)
    assert len(model.network.layers) == 4
    assert model.head.weight.shape == (3, 6 if name == "agnn" else 12)
    assert model(X, EDGES, BATCH, num_graphs=5).shape == (5, 3)


@pytest.mark.parametrize("name", NAMES)
def test_attention_is_recorded(name):
    model = make(name)
    layers = model.attention_weights(X, EDGES)
    assert len(layers) == 3
    with explain.record_attention(model) as recorded:
        model.eval()(X, EDGES, BATCH)
    for (edges, alpha), record in zip(layers, recorded, strict=True):
        assert torch.equal(edges, record.edge_index) and assert_close(alpha, record.alpha) is None


@pytest.mark.parametrize("name", NAMES)
def test_edge_mask_removes_edges(name):
    model = make(name)
    without = model(X, EDGES[:, :4], BATCH)
    masked = model(X, EDGES, BATCH, edge_mask=torch.tensor([1.0, 1, 1, 1, 0, 0]))
    assert_close(masked[0], without[0])
    assert not torch.allclose(masked[1], model(X, EDGES, BATCH)[1])


def test_own_parts_and_batches_of_features():
    gate = torch.nn.Linear(4, 2)
    network = GAT(5, 8, 4, dropout=0.0, attn_dropout=0.0)
    model = PooledModel(network, AttentionPool(gate), activation=None)
    h = network(X, EDGES)
    assert_close(model(X, EDGES, BATCH), AttentionPool(gate)(h, BATCH))
    several = torch.stack([X, X.flip(0)])
    out = model(several, EDGES, BATCH)
    assert_close(out, torch.stack([model(one, EDGES, BATCH) for one in several]))


@pytest.mark.parametrize("name", NAMES)
def test_reset_parameters(name):
    """Everything is drawn again, also inside containers."""

    def new():
        model = make(name, pooling="attention", regression=True)
        model.pool.nn = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(64, 64))
        return model

    model, expected = new(), new().state_dict()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(7.0)
    model.reset_parameters()
    for key, value in model.state_dict().items():
        assert not (value == 7).any(), key
        assert_close(value.std(correction=0), expected[key].std(correction=0), rtol=0.5, atol=0.2)
    assert torch.equal(model.head[1].deviation, torch.ones(3))


@pytest.mark.parametrize(
    "name", [n if n == "gat" else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_compiles(name):
    torch._dynamo.reset()
    model = make(name, pooling="attention", num_layers=2)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    x = X.clone().requires_grad_()
    for edges in (EDGES, EDGES[:, :4]):
        outs = [one(x, edges, node_ptr=POINTERS) for one in (compiled, model)]
        assert_close(*outs)
        assert_close(*(torch.autograd.grad(out.sin().sum(), x)[0] for out in outs))
    torch._dynamo.reset()


def test_mistakes():
    with pytest.raises(TypeError, match="network is a Linear; expected a model of gat_ext"):
        PooledModel(torch.nn.Linear(5, 5), Pool())
    with pytest.raises(TypeError, match="pool is a str; expected a module"):
        PooledModel(GAT(5, 8, 4), "mean")
    with pytest.raises(TypeError, match="head is a int; expected a module"):
        PooledModel(GAT(5, 8, 4), Pool(), 3)
    with pytest.raises(ValueError, match="pooling is 'max'; expected one of 'sum', 'mean'"):
        make("gat", pooling="max")
    with pytest.raises(TypeError, match="AGNN has no heads; leave heads out"):
        make("agnn", heads=2)
    with pytest.raises(ValueError, match="num_outputs is 0; expected at least 1"):
        PooledModel.preset(GAT, 5, 0)
    for sizes in ({"hidden_channels": 0}, {"heads": 0}, {"num_layers": 0}):
        (name,) = sizes
        words = "out_channels" if name == "hidden_channels" else name
        with pytest.raises(ValueError, match=f"{words} is 0; expected at least 1"):
            make("gat", **sizes)
    model = make("gat")
    model.network.layers[0].register_forward_hook(lambda *_: pytest.fail("a layer ran"))
    with pytest.raises(ValueError, match=r"batch has shape \[5\]; expected \[6\]"):
        model(X, EDGES, BATCH[1:])
    with pytest.raises(IndexError, match="batch has the value -1; expected 0 to 1"):
        model(X, EDGES, BATCH - 1)
    with pytest.raises(ValueError, match="node_ptr goes from 0 to 5; expected 0 to 6"):
        model(X, EDGES, node_ptr=POINTERS[:3])
    with pytest.raises(TypeError, match="x is a list; a model expects a"):
        model(X.tolist(), EDGES, BATCH)
    with pytest.raises(ValueError, match=r"x has shape \[5\]; .* expects \[N, 5\]"):
        model(X[0], EDGES, BATCH)
