"""DGL's weights: layers that DGL 1.1.3 drew, and what they returned, rounded to four digits."""

from __future__ import annotations

import pytest
import torch
from layers import over, plain_cases
from torch.testing import assert_close

from gat_ext import nn
from gat_ext.interop import from_dgl

EDGES = torch.tensor([[0, 1, 2, 2, 0, 1], [1, 2, 0, 1, 2, 0]])
X = torch.tensor(
    [
        [1.541, -0.2934, -2.1788, 0.5684],
        [-1.0845, -1.3986, 0.4033, 0.838],
        [-0.7193, -0.4033, -0.5966, 0.182],
    ]
)
GAT = {  # dgl.nn.GATConv(4, 1, 2, residual=True)
    "attn_l": torch.tensor([[[2.0023], [-0.1542]]]),
    "attn_r": torch.tensor([[[-0.9643], [1.138]]]),
    "fc.weight": torch.tensor(
        [[-1.5932, 0.3418, 2.7119, 0.7156], [1.008, -0.9506, -0.0196, 0.5291]]
    ),
    "res_fc.weight": torch.tensor(
        [[-0.0043, -0.0771, -0.9174, -0.5318], [0.4648, 0.1455, 1.1063, -0.0092]]
    ),
    "res_fc.bias": torch.zeros(2),
}
GAT_OUT = torch.tensor([[4.6524, -1.5544], [-1.5306, 0.4807], [3.4272, 0.3515]])
GATV2 = {  # dgl.nn.GATv2Conv(4, 1, 2, residual=True)
    "attn": torch.tensor([[[-1.4474], [-0.0683]]]),
    "fc_src.weight": torch.tensor(
        [[1.6042, 0.6269, 1.6248, 0.5865], [-0.4055, 1.0696, 0.323, 0.0731]]
    ),
    "fc_src.bias": torch.zeros(2),
    "fc_dst.weight": torch.tensor(
        [[-0.1373, -0.386, -1.609, 0.5128], [-0.0924, 0.3781, 0.2726, 1.3426]]
    ),
    "fc_dst.bias": torch.zeros(2),
    "res_fc.weight": torch.tensor(
        [[0.9699, 1.0, -0.6958, -0.975], [0.9043, 0.5371, -0.0346, 0.374]]
    ),
    "res_fc.bias": torch.zeros(2),
}
GATV2_OUT = torch.tensor([[0.0847, 0.9309], [-5.2725, -2.4066], [-2.1391, -2.013]])
OF_DGL = {"GATConv": (GAT, GAT_OUT), "GATv2Conv": (GATV2, GATV2_OUT)}


@pytest.mark.parametrize("prefix", ["", "layers.0."])
@over([case for case in plain_cases("dgl") if case.name != "EdgeGATConv"])  # see its own tests
def test_layers_of_dgl(case, prefix):
    state, expected = OF_DGL[case.name]
    layer = case.make(4, 1, residual=True, add_self_loops=False)
    holder = layer
    if prefix:
        holder = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([layer])})
    holder.load_state_dict(from_dgl({prefix + key: tensor for key, tensor in state.items()}))
    assert_close(layer(X, EDGES), expected, rtol=1e-3, atol=1e-3)


def test_two_projections_and_what_is_beside():
    weights = {
        "gat.fc_src.weight": torch.ones(2, 4),
        "gat.fc_dst.weight": torch.ones(2, 3),
        "gat.attn_l": torch.ones(1, 1, 2),
        "gat.attn_r": torch.ones(1, 1, 2),
        "gat.bias": torch.ones(2),
        "gate.bias": torch.ones(1),
        "agnn.beta": torch.ones(1),
    }
    converted = from_dgl(weights)
    assert converted["gate.bias"] is weights["gate.bias"]
    assert "agnn.beta" in converted and len(converted) == len(weights)
    layer = torch.nn.ModuleDict({"gat": nn.GATConv((4, 3), 2), "agnn": nn.AGNNConv()})
    layer.load_state_dict({k: v for k, v in converted.items() if not k.startswith("gate.")})


def test_parameters_without_a_counterpart():
    with pytest.raises(ValueError, match=r"gat\.extra of DGL's layer has no counterpart"):
        from_dgl(dict.fromkeys(("gat.attn_l", "gat.fc.weight", "gat.extra"), torch.ones(1)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("model.pt", "state_dict is a str; from_dgl expects the state_dict of a model"),
        (torch.nn.Linear(2, 2), r"state_dict is a Linear; .*: model\.state_dict\(\)"),
        (None, "state_dict is a NoneType"),
        ({"model": {"attn_l": X}}, r"state_dict\['model'\] is a dict; .* its entry of the model"),
        ({"epoch": 3}, r"state_dict\['epoch'\] is a int; from_dgl expects tensors"),
        ({0: X}, "state_dict has the key 0; from_dgl expects names"),
    ],
)
def test_what_is_no_state_dict(given, message):
    with pytest.raises(TypeError, match=message):
        from_dgl(given)


def test_other_modules_with_such_names_keep_theirs():
    """Attention pooling, and layers of DGL's that are not converted."""
    names = "pool.attn", "pool.proj.weight", "egat.attn", "egat.fc_node_src.weight", "attn_l"
    weights = {**dict.fromkeys(names, torch.ones(1)), "pool._extra_state": {"step": 3}}
    assert from_dgl(weights) == weights


def test_a_part_of_the_edge_features_of_dgl_is_refused():
    names = "gat.fc.weight", "gat.attn_l", "gat.attn_edge"
    with pytest.raises(ValueError, match=r"gat\.attn_edge of DGL's layer has no counterpart"):
        from_dgl(dict.fromkeys(names, torch.ones(1)))
