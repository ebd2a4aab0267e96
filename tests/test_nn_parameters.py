"""Parameters of the layers: names, distributions and lazy sizes are PyG's."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as pyg
from beside_pyg import EDGES, PROJECTING, both, normal
from layers import LAYERS, layers_that, random_edges
from torch.testing import assert_close

from gat_ext import nn


def test_every_layer_has_a_row():
    assert set(nn.__all__) - {"Reordered", "WalkAgent", "Pool", "AttentionPool"} == set(LAYERS)


@pytest.mark.parametrize("name", layers_that("pyg", typed=True))
def test_state_dict_loads_in_both_directions(name):
    for options in [*LAYERS[name].plain, *LAYERS[name].edge]:
        ours, theirs = both(name, options)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())
        assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", layers_that("pyg"))
def test_initial_distributions(name):
    """Bounds and spread of new and of reset parameters equal PyG's."""
    torch.manual_seed(0)
    arguments, options = (), {}
    if name in PROJECTING:
        arguments, options = (64, 32), {"heads": 8}
        options |= {"edge_dim": 16} if LAYERS[name].supports("edge_attr") else {}
    ours = getattr(nn, name)(*arguments, **options)
    theirs = getattr(pyg, name)(*arguments, **options)
    before = [p.detach().clone() for p in ours.parameters()]
    for _ in range(2):
        for (key, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            spread = b.std(correction=0)
            assert abs(a.std(correction=0) - spread) <= 0.12 * spread + 1e-8, key
            if a.numel() > 1000:
                assert_close(a.abs().max(), b.abs().max(), rtol=0.02, atol=0)
        ours.reset_parameters()
    for after, old in zip(ours.parameters(), before, strict=True):
        constant = bool((old == old.flatten()[0]).all())
        assert torch.equal(after, old) == constant


def test_reset_restores_beta():
    layer = nn.AGNNConv()
    torch.nn.init.constant_(layer.beta, 3.0)
    layer.reset_parameters()
    assert layer.beta.item() == 1


LAZY = [(-1, (9, 9)), ((-1, -1), (9, 6))]


@pytest.mark.parametrize(("in_channels", "sizes"), LAZY, ids=str)
@pytest.mark.parametrize("name", PROJECTING)
def test_sizes_from_the_first_input(name, in_channels, sizes):
    if in_channels != -1 and not LAYERS[name].supports("pairs"):
        pytest.skip("has one projection for both ends")
    options = {"GATConv": {"residual": True}, "GATv2Conv": {"residual": True}}.get(name, {})
    layer = getattr(nn, name)(in_channels, 4, 2, **options)
    assert repr(layer) == repr(getattr(pyg, name)(in_channels, 4, 2, **options))
    x, known = normal(9, 5, dtype=torch.float32), 5
    if in_channels != -1:
        x, known = (x, normal(sizes[1], 7, dtype=torch.float32)), (5, 7)
    edge_index = random_edges(*sizes)
    out = layer(x, edge_index)
    assert not any(torch.nn.parameter.is_lazy(p) for p in layer.parameters())
    same = getattr(pyg, name)(known, 4, 2, **options)
    same.load_state_dict(layer.state_dict())
    assert_close(out, same(x, edge_index))
    with pytest.raises(ValueError, match=r"expects \[N, 5\]"):
        layer(tuple(t[:, :4] for t in x) if isinstance(x, tuple) else x[:, :4], edge_index)
    glorot = (6 / (5 + 8)) ** 0.5 if name != "TransformerConv" else 5**-0.5
    weights = next(p for key, p in layer.named_parameters() if key.endswith("weight"))
    assert weights.shape == (8, 5) and 0.8 * glorot < weights.abs().max() <= glorot


@pytest.mark.parametrize("name", PROJECTING)
def test_lazy_layer_loads_a_state_dict(name):
    lazy = getattr(nn, name)(-1, 4)
    theirs = getattr(pyg, name)(5, 4)
    lazy.load_state_dict(theirs.state_dict())
    x = normal(9, 5, dtype=torch.float32)
    assert_close(lazy(x, EDGES), theirs(x, EDGES))
