"""What code written for PyG's layers does with them beside calling them."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as pyg
from layers import full_cases, layers_that, over
from torch.nn.utils import prune
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from gat_ext import nn

PROJECTING = layers_that("pyg", "projections")
EDGES = torch.randint(9, (2, 39), generator=torch.Generator().manual_seed(0))


@over(full_cases("pyg"))
@pytest.mark.parametrize("channels", [64, (64, 32), -1])
def test_the_seed_gives_the_weights_of_pyg(case, channels):
    """Lazy layers included; the next random numbers are the same, so experiments do not change."""
    case = case._replace(options=case.options | ({"heads": 8} if case.layer.full else {}))
    x = torch.randn(9, 64)
    if channels == (64, 32):
        pairs = case.layer.supports("pairs", "pyg_pairs")
        x, channels = ((x, torch.randn(9, 32)), channels) if pairs else (x, 64)
    attr = case.edge_attr(EDGES.shape[1])
    drawn = []
    for make in (case.make, case.make_pyg):
        torch.manual_seed(0)
        layer = make(channels, 32)
        layer(x, EDGES, *attr)
        layer.reset_parameters()
        drawn.append([*layer.parameters(), torch.rand(3)])
    for ours, theirs in zip(*drawn, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", PROJECTING)
def test_lazy_layers_exchange_checkpoints_before_their_first_call(name):
    arguments = (-1, 4)
    ours, theirs = getattr(nn, name)(*arguments), getattr(pyg, name)(*arguments)
    x = torch.randn(9, 5)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(getattr(nn, name)(*arguments).state_dict())
    theirs(x, EDGES)
    ours.load_state_dict(theirs.state_dict())
    assert_close(ours(x, EDGES), theirs(x, EDGES))


@pytest.mark.parametrize("name", layers_that("pyg", "projections", "edge_attr"))
def test_edge_features_of_any_size(name):
    """edge_dim -1 is the size of the first ones."""
    ours, theirs = (getattr(library, name)(5, 4, heads=2, edge_dim=-1) for library in (nn, pyg))
    x, attr = torch.randn(9, 5), torch.randn(EDGES.shape[1], 3)
    theirs(x, EDGES, attr)
    ours(x, EDGES, attr)
    ours.load_state_dict(theirs.state_dict())
    assert_close(ours(x, EDGES, attr), theirs(x, EDGES, attr))
    with pytest.raises(ValueError, match=rf"edge_attr has shape .*; expected \[{len(attr)}, 3\]"):
        ours(x, EDGES, torch.randn(EDGES.shape[1], 2))
    with pytest.raises(ValueError, match=r"edge_attr has shape .*, 0\]; expected .* at least 1"):
        getattr(nn, name)(5, 4, edge_dim=-1)(x, EDGES, torch.randn(EDGES.shape[1], 0))
    with pytest.raises(ValueError, match="edge_dim is 0; expected at least 1, or -1"):
        getattr(nn, name)(5, 4, edge_dim=0)


TOOLS = {
    "hook": lambda lin: lin.register_forward_hook(lambda _, given, out: 2 * out),
    "weight_norm": torch.nn.utils.weight_norm,
    "spectral_norm": torch.nn.utils.spectral_norm,
    "parametrization": lambda lin: torch.nn.utils.parametrizations.weight_norm(lin),
    "prune": lambda lin: prune.l1_unstructured(lin, "weight", 0.5),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_on_the_projection_of_edges(tool):
    """Which is not called where it is nothing but a product."""
    ours, theirs = (library.GATConv(5, 4, heads=2, edge_dim=3) for library in (nn, pyg))
    ours.load_state_dict(theirs.state_dict())
    x, attr = torch.randn(9, 5), torch.randn(EDGES.shape[1], 3)
    for layer in (ours, theirs):
        torch.manual_seed(0)
        TOOLS[tool](layer.lin_edge)
    for _ in range(2):  # the second step with what the first one left
        results = [layer(x, EDGES, attr) for layer in (ours, theirs)]
        assert_close(*results)
        for out in results:
            out.square().sum().backward()
    for mine, other in zip(ours.lin_edge.parameters(), theirs.lin_edge.parameters(), strict=True):
        assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-4)


class Adapted(torch.nn.Module):
    """A projection without a weight of its own, as low-rank adapters are."""

    def __init__(self, lin):
        super().__init__()
        self.inner, self.more = lin, torch.nn.Linear(lin.in_channels, lin.out_channels)

    def forward(self, x):
        return self.inner(x) + self.more(x)


@over(full_cases("pyg", "projections"))
def test_projections_can_be_replaced(case):
    ours, theirs = case.make(), case.make_pyg()
    for layer in (ours, theirs):
        for child in [n for n, m in layer.named_children() if n.startswith("lin")]:
            setattr(layer, child, Adapted(getattr(layer, child)))
    ours.load_state_dict(theirs.state_dict())
    x, attr = torch.randn(9, 5), case.edge_attr(EDGES.shape[1])
    assert_close(ours(x, EDGES, *attr), theirs(x, EDGES, *attr))


def test_methods_of_message_passing_are_refused():
    """Nothing would call them."""
    with pytest.raises(TypeError, match=r"Mine defines message, update, which .* override forward"):

        class Mine(nn.GATConv):
            def message(self, x_j, alpha):
                return x_j

            def update(self, out):
                return out

    class Other(nn.GATConv):
        def forward(self, x, edge_index):
            return super().forward(x, edge_index) + self.message()

        def message(self):
            return 1

    assert (Other(5, 4).aggr, Other(5, 4).flow) == ("add", "source_to_target")


INPLACE = {
    "add": (lambda h, x: h.add_(x), lambda h, x: h + x),
    "relu": (lambda h, x: torch.relu_(h), lambda h, x: torch.relu(h)),
    "zero": (lambda h, x: h.zero_(), lambda h, x: 0 * h),
}
BARE = {  # whose result is that of the operator itself
    "GATConv": lambda: nn.GATConv(5, 5, bias=False),
    "GATv2Conv": lambda: nn.GATv2Conv(5, 5, bias=False),
    "TransformerConv": lambda: nn.TransformerConv(5, 5, root_weight=False),
    "AGNNConv": nn.AGNNConv,
    "SuperGATConv": lambda: nn.SuperGATConv(5, 5, bias=False, attention_type="SD"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("how", INPLACE)
@pytest.mark.parametrize("name", BARE)
def test_results_may_be_written_to(name, how, dtype):
    layer = BARE[name]().to(dtype)
    x = torch.randn(9, 5).to(dtype).requires_grad_()

    def gradients(change):
        learned = [x, *(p for n, p in layer.named_parameters() if "skip" not in n)]
        return torch.autograd.grad(change(layer(x, EDGES), x).square().sum(), learned)

    for ours, theirs in zip(*map(gradients, INPLACE[how]), strict=True):
        assert torch.equal(ours, theirs)


HOOKS = {
    "checkpoint": lambda run, x: checkpoint(run, x, use_reentrant=False),
    "on the CPU": lambda run, x: _within(torch.autograd.graph.save_on_cpu(), run, x),
    "as they are": lambda run, x: _within(
        torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t), run, x
    ),
    "copies": lambda run, x: _within(
        torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t), run, x
    ),
}


def _within(context, run, x):
    with context:
        return run(x)


@pytest.mark.parametrize("hooks", HOOKS)
def test_written_results_that_hooks_save(hooks):
    layer = nn.GATConv(5, 5, bias=False)
    x = torch.randn(9, 5, requires_grad=True)
    results = []
    for change in INPLACE["add"]:
        out = HOOKS[hooks](lambda x, change=change: change(layer(x, EDGES), x), x)
        results.append(torch.autograd.grad(out.sigmoid().sin().sum(), [x, *layer.parameters()]))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def test_parametrized_weights_are_computed_once():
    """Spectral normalisation takes a step of its iteration each time."""
    calls = []

    class Counted(torch.nn.Module):
        def forward(self, weight):
            calls.append(1)
            return 2 * weight

    layer = nn.GATConv(5, 4, edge_dim=3)
    for projection in (layer.lin, layer.lin_edge):
        torch.nn.utils.parametrize.register_parametrization(projection, "weight", Counted())
    calls.clear()
    layer(torch.randn(9, 5), EDGES, torch.randn(EDGES.shape[1], 3))
    assert len(calls) == 2


def test_written_results_with_dropout_and_a_graph_that_is_kept():
    layer = nn.GATConv(5, 5, bias=False, dropout=0.5)
    x = torch.randn(9, 5, requires_grad=True)
    results = []
    for change in INPLACE["add"]:
        torch.manual_seed(0)
        total = change(layer(x, EDGES), x).square().sum()
        results += [torch.autograd.grad(total, x, retain_graph=True)[0] for _ in range(2)]
    assert all(torch.equal(results[0], other) for other in results[1:])
