"""Layers load checkpoints of older versions of PyG, and take the arguments of PyG's base class."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from gat_ext import nn

EDGES = torch.randint(12, (2, 50), generator=torch.Generator().manual_seed(0))
X = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))


def old_checkpoints(state):
    """Converts a state_dict of GATConv to the names and shapes of older versions of PyG."""
    weight, att_src, att_dst = state["lin.weight"], state["att_src"], state["att_dst"]
    bias = {"bias": state["bias"]}
    return {
        "2.3": {"lin_src.weight": weight, "att_src": att_src, "att_dst": att_dst, **bias},
        "2.0": {
            **{"lin_src.weight": weight, "lin_dst.weight": weight.clone()},
            **{"att_src": att_src, "att_dst": att_dst},
            **bias,
        },
        "1.7": {
            **{"lin_l.weight": weight, "lin_r.weight": weight, "att_l": att_src},
            **{"att_r": att_dst},
            **bias,
        },
        "1.5": {"weight": weight.t(), "att": torch.cat([att_dst, att_src], -1), **bias},
    }


@pytest.mark.parametrize("version", ["2.3", "2.0", "1.7", "1.5"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_of_older_versions(version, prefix):
    layer = nn.GATConv(6, 4, heads=2)
    saved = {prefix + k: v for k, v in old_checkpoints(layer.state_dict())[version].items()}
    names = set(saved)
    fresh = nn.GATConv(6, 4, heads=2)
    holder = torch.nn.ModuleDict({"module": fresh}) if prefix else fresh
    holder.load_state_dict(saved)
    assert set(saved) == names  # the given dict is unchanged
    assert_close(fresh(X, EDGES), layer(X, EDGES))


@pytest.mark.parametrize("version", ["now", "1.7"])
def test_checkpoints_of_two_projections(version):
    layer, fresh = nn.GATConv((6, 5), 4, heads=2), nn.GATConv((6, 5), 4, heads=2)
    old = {"lin_src": "lin_l", "lin_dst": "lin_r", "att_src": "att_l", "att_dst": "att_r"}
    state = layer.state_dict()
    if version == "1.7":
        renamed = (key.split(".") for key in state)
        names = [".".join([old.get(first, first), *rest]) for first, *rest in renamed]
        state = dict(zip(names, state.values(), strict=True))
        assert "lin_l.weight" in state and "lin_src.weight" not in state
    fresh.load_state_dict(state)
    pair = X, torch.randn(12, 5)
    assert_close(fresh(pair, EDGES), layer(pair, EDGES))


def test_two_different_projections_are_refused():
    state = nn.GATConv((6, 6), 4, heads=2).state_dict()
    with pytest.raises(
        RuntimeError, match=r"(?s)Missing key.*lin\.weight.*Unexpected key.*lin_src"
    ):
        nn.GATConv(6, 4, heads=2).load_state_dict(state)


def test_arguments_of_message_passing():
    nn.GATConv(6, 4, aggr="add", flow="source_to_target")
    nn.AGNNConv(aggr="sum")
    for make in (nn.GATConv, nn.GATv2Conv, nn.TransformerConv):
        with pytest.raises(ValueError, match="aggr is 'max'; expected 'add' or 'sum'"):
            make(6, 4, aggr="max")
        with pytest.raises(ValueError, match=r"flow is 'target_to_source'.*flip"):
            make(6, 4, flow="target_to_source")
        with pytest.raises(TypeError, match="unknown argument 'head'"):
            make(6, 4, head=3)
