"""Bad arguments of the layers raise errors that name the argument."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from layers import LAYERS, layers_that

from gat_ext import Graph, nn

PAIR = torch.tensor([[0, 1], [1, 2]])
X = torch.ones(3, 5)
BAD = [
    (lambda: nn.GATConv(5, 0), ValueError, "out_channels is 0"),
    (lambda: nn.GATConv(0, 4), ValueError, "in_channels is 0"),
    (lambda: nn.GATConv(5, 2, heads=2**63), ValueError, "heads is 9223372036854775808; .* at most"),
    (lambda: nn.GATv2Conv(5, 10**30), ValueError, "out_channels is 1000.* at most 2147483647"),
    (lambda: nn.TransformerConv((5, -2), 4), ValueError, r"in_channels is \(5, -2\)"),
    (lambda: nn.GATv2Conv(5, 4, heads=0), ValueError, "heads is 0"),
    (lambda: nn.GATv2Conv(5, 4, edge_dim=0), ValueError, "edge_dim is 0"),
    (lambda: nn.GATv2Conv((5, 7), 4, share_weights=True), ValueError, r"in_channels is \(5, 7\)"),
    (lambda: nn.TransformerConv(5, 4, dropout=2.0), ValueError, "dropout is 2.0"),
    (lambda: nn.GATConv(5, 4, feat_dropout=-0.1), ValueError, "feat_dropout is -0.1"),
    (lambda: nn.GATConv(5, 4, fill_value="median"), ValueError, "'median'; .* 'mean'"),
    (
        lambda: nn.GATConv(5, 4, edge_dim=2, fill_value=torch.ones(3))(X, PAIR, torch.ones(2, 2)),
        ValueError,
        r"fill_value has shape \[3\]; expected \[2\]",
    ),
    (lambda: nn.GATConv(5, 4)(torch.ones(3, 6), PAIR), ValueError, r"\[3, 6\]; .* \[N, 5\]"),
    (lambda: nn.GATConv((5, 7), 4)(X, PAIR), ValueError, r"destinations has shape \[3, 5\]"),
    (lambda: nn.GATConv(5, 4)(torch.ones(5), PAIR), ValueError, r"\[5\]; .* \[N, 5\], or \[B"),
    (lambda: nn.GATConv(5, 4)(X.double(), PAIR), TypeError, "float64, .* has torch.float32"),
    (lambda: nn.GATConv(5, 4)([[1.0] * 5], PAIR), TypeError, "x is a list"),
    (lambda: nn.GATConv(5, 4)((X, [1.0]), PAIR), TypeError, "destinations is a list"),
    (lambda: nn.GATConv(5, 4)(torch.ones(2, 5), PAIR), IndexError, "is 2"),
    (lambda: nn.GATConv(5, 4)(X, torch.tensor([[1, -1], [2, -1]])), IndexError, "is -1"),
    (
        lambda: nn.GATConv(5, 4)(X, torch.tensor([[0, 1, 7], [0, 2, 7]])),
        IndexError,
        r"\[0, 2\] is 7",
    ),
    (lambda: nn.GATConv(5, 4)(X, PAIR.float()), TypeError, "dtype torch.float32"),
    (lambda: nn.GATConv(5, 4)(X, PAIR.tolist()), TypeError, "edge_index is a list"),
    (lambda: nn.GATConv(5, 4)(X, PAIR.numpy()), TypeError, "ndarray.*torch.from_numpy"),
    (
        lambda: nn.GATConv(5, 4)(X, SimpleNamespace(edge_index=PAIR)),
        TypeError,
        "SimpleNamespace.*pass its edge_index, or Graph.from_pyg",
    ),
    (lambda: nn.GATConv(5, 4)(X, torch.zeros(3, 2, dtype=torch.int64)), ValueError, r"\[3, 2\]"),
    (
        lambda: nn.GATConv(5, 4)(torch.ones(4, 5), Graph(PAIR, num_nodes=3)),
        ValueError,
        "x has 4 rows for the sources",
    ),
    (lambda: nn.GATConv(5, 4)(X, PAIR, size=(3, 4)), ValueError, r"size is \(3, 4\)"),
    (lambda: nn.GATConv(5, 4)((X, None), PAIR, size=(4, 3)), ValueError, r"size is \(4, 3\)"),
    (
        lambda: nn.GATConv(5, 4, edge_dim=2)(X, PAIR, torch.ones(2, 3)),
        ValueError,
        "edge_attr has shape",
    ),
    (lambda: nn.GATv2Conv(5, 4)((X, None), PAIR), ValueError, "destinations"),
    (lambda: nn.GATv2Conv(5, 4)(X, PAIR, torch.ones(2, 2)), ValueError, "edge_attr was given"),
    (lambda: nn.TransformerConv(5, 4)((X, None), PAIR), ValueError, "destinations"),
    (lambda: nn.TransformerConv(5, 4, edge_dim=2)(X, PAIR), ValueError, "edge_attr is None"),
    (
        lambda: nn.TransformerConv(5, 4)(X, PAIR, torch.ones(2, 2)),
        ValueError,
        "edge_attr was given",
    ),
    (lambda: nn.AGNNConv()(torch.ones(3), PAIR), ValueError, r"\[3\]; .* \[N, C\], or \[B, N"),
    (lambda: nn.AGNNConv()([1.0], PAIR), TypeError, "x is a list"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_refused(case):
    call, error, words = BAD[case]
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("name", layers_that("lazy"))
@pytest.mark.parametrize("size", [torch.tensor([3, -1]), np.array([3, -1]), (X, 5), X])
def test_sizes_that_have_no_truth_value(name, size):
    for sizes in ({"in_channels": size}, {"in_channels": 5, "edge_dim": size}):
        if "edge_dim" in sizes and not LAYERS[name].supports("edge_attr"):
            continue
        with pytest.raises(TypeError, match=f"{list(sizes)[-1]} is (?s:.*); expected an int"):
            LAYERS[name].kind(**sizes, out_channels=4)


@pytest.mark.parametrize("size", [X, torch.zeros(2, 0), 3, "34", (3,), (3, 3, 3), (X, 3), (3.0, 3)])
def test_sizes_of_a_call(size):
    layer = nn.GATConv(5, 4)
    with pytest.raises(
        TypeError, match=r"size is (?s:.*); expected \(N_src, N_dst\), two integers"
    ):
        layer(X, PAIR, size=size)
    assert layer(X, PAIR, size=[np.int64(3), 3]).shape == (3, 4)


# ---- edge features that GATConv, as PyG's, ignores


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.GATConv(5, 4)

    def forward(self, x, edges, edge_attr):
        return self.conv(x, edges, edge_attr)  # the line to blame


@pytest.mark.parametrize("through_a_model", [False, True])
def test_ignored_edge_features_are_warned_of_once(through_a_model):
    module = Net() if through_a_model else nn.GATConv(5, 4)
    layer = module.conv if through_a_model else module
    expected = layer(X, PAIR)
    with pytest.warns(UserWarning, match=r"GATConv.* ignores edge_attr.* edge_dim") as found:
        out = module(X, PAIR, torch.ones(2, 3))
    assert torch.equal(out, expected)
    (warning,) = found
    assert warning.filename == __file__
    line = Path(__file__).read_text().splitlines()[warning.lineno - 1]
    assert ("the line to blame" in line) if through_a_model else ("out = module" in line)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(X, PAIR, torch.ones(2, 3))
        copy.deepcopy(layer)(X, PAIR, torch.ones(2, 3))
        pickle.loads(pickle.dumps(layer))(X, PAIR, torch.ones(2, 3))
        nn.GATConv(5, 4)(X, PAIR)
        nn.GATConv(5, 4, edge_dim=3)(X, PAIR, torch.ones(2, 3))
        nn.GATConv(5, 4)(X, torch.eye(3).to_sparse())  # its values are no edge features


def test_a_warning_blames_the_caller_of_forward_too():
    with pytest.warns(UserWarning, match="ignores edge_attr") as found:
        nn.GATConv(5, 4).forward(X, PAIR, torch.ones(2, 3))
    assert found[0].filename == __file__


def test_a_layer_that_ignores_edge_features_compiles():
    layer = nn.GATConv(5, 4)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X, PAIR, torch.ones(2, 3)), layer(X, PAIR))
