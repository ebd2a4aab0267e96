"""Sparse features give the results of dense ones."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from layers import all_cases, over, plain_cases
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.testing import assert_close

from gat_ext import Graph, SparseFeatures, models, nn
from gat_ext.models.features import dropout_features, input_features
from gat_ext.nn.features import as_features, dropout

GRAPH = Graph(torch.randint(30, (2, 150), generator=torch.Generator().manual_seed(0)), num_nodes=30)


def features(dtype=torch.float64, rows=30, columns=40, seed=1):
    """A matrix with a tenth of its elements nonzero, an empty row and an empty column."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator, dtype=dtype)
    x[torch.rand(rows, columns, generator=generator) > 0.1] = 0
    x[3], x[:, 5] = 0, 0
    return x


def sparse_forms(x):
    return {
        "csr": x.to_sparse_csr(),
        "csc": x.to_sparse_csc(),
        "coo": x.to_sparse_coo(),
        "features": SparseFeatures(x),
    }


def gradients(module, out):
    module.zero_grad()
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    (out * weights).sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_same(module, dense, others, graph=GRAPH):
    expected = module(dense, graph)
    truth = gradients(module, expected)
    bounds = {"rtol": 1e-12, "atol": 1e-12} if expected.dtype == torch.float64 else {}
    for form, x in others.items():
        out = module(x, graph)
        assert_close(out, expected, **bounds, msg=lambda m, f=form: f"{f}: {m}")
        assert_close(gradients(module, out), truth, **bounds, msg=lambda m, f=form: f"{f}: {m}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@over([case for case in all_cases("sparse") if not case.has_edges])
def test_layers(case, dtype):
    torch.manual_seed(0)
    x = features(dtype)
    assert_same(case.make(40).to(dtype), x, sparse_forms(x))


@over(plain_cases("sparse", "pairs", "lazy"))
def test_pairs_and_sizes_taken_from_the_first_input(case):
    graph = Graph(torch.tensor([[0, 5, 29, 3], [0, 1, 1, 9]]), num_src=30, num_dst=10)
    x_src, x_dst = features(), features(rows=10, columns=7, seed=2)
    options = {"add_self_loops": False} if case.replaces_loops else {}
    layer = case.make((-1, -1), **options).double()
    pair = (x_src.to_sparse_csr(), SparseFeatures(x_dst))
    layer(pair, graph)
    assert_same(layer, (x_src, x_dst), {"pair": pair, "mixed": (x_src, pair[1])}, graph)


@pytest.mark.parametrize("name", ["gat", "gatv2", "agnn", "transformer"])
def test_models(name):
    torch.manual_seed(0)
    model = models.build(name)(40, 8, 3).double().eval()
    x = features()
    dense = x.clone().requires_grad_()  # not constant: never converted to sparse
    assert_same(model, dense, {"constant": x, **sparse_forms(x)})
    for ours, theirs in zip(
        model.attention_weights(x.to_sparse_csr(), GRAPH),
        model.attention_weights(dense, GRAPH),
        strict=True,
    ):
        assert_close(ours, theirs)


def test_linear_gradients_and_entries_stored_twice():
    index = torch.tensor([[0, 0, 2, 0], [1, 1, 0, 2]])
    values = torch.randn(4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def sparse(values, weight, bias):
        return SparseFeatures(
            torch.sparse_coo_tensor(index, values, (3, 3), check_invariants=True)
        ).linear(weight, bias)

    dense = torch.zeros(3, 3, dtype=torch.float64).index_put((index[0], index[1]), values, True)
    assert_close(sparse(values, weight, bias), F.linear(dense, weight, bias))
    assert torch.autograd.gradcheck(sparse, (values, weight, bias))


@pytest.mark.parametrize("make", [SparseFeatures, torch.clone], ids=["sparse", "dense"])
def test_dropout(make):
    x = make(torch.ones(200, 300))
    torch.manual_seed(0)
    dropped = dropout_features(x, 0.4, training=True)
    values = dropped if isinstance(dropped, torch.Tensor) else dropped.values
    assert_close(values.unique(), torch.tensor([0.0, 1 / 0.6]))
    share = (values != 0).double().mean().item()
    assert abs(share - 0.6) < 4 * (0.24 / 60_000) ** 0.5
    assert dropout_features(x, 0.4, training=False) is x
    assert dropout_features(x, 0.0, training=True) is x
    everything = dropout_features(x, 1.0, training=True)
    assert not (everything if isinstance(everything, torch.Tensor) else everything.values).any()


def test_dropout_of_sparse_features_keeps_the_graph():
    x = SparseFeatures(features())
    assert x.dropout(0.4).graph is x.graph
    assert x.dropout(0.4, training=False) is x


def test_dropout_has_the_gradient_of_what_it_kept():
    x = torch.ones(50, 60, dtype=torch.float64, requires_grad=True)
    out = dropout(x, 0.4, training=True)
    out.sum().backward()
    assert_close(x.grad, out.detach())


def test_writes_to_constant_features_are_noticed():
    x = features(torch.float32)
    first = input_features(x)
    assert isinstance(first, SparseFeatures)
    assert input_features(x) is first
    x[:, 5] = 7.0
    assert (input_features(x).values == 7.0).sum() == 30
    dense = torch.ones(5, 5)
    assert input_features(dense) is dense
    with torch.inference_mode():
        made_there = features(torch.float32)
    assert input_features(made_there) is made_there


@pytest.mark.parametrize("form", ["csr", "coo"])
def test_the_graph_of_a_sparse_tensor_is_built_once_and_goes_with_it(form):
    x = sparse_forms(features())[form]
    assert input_features(x).graph is input_features(x).graph
    tensor = weakref.ref(x)
    del x
    gc.collect()
    assert tensor() is None


def uncoalesced():
    return torch.sparse_coo_tensor(
        [[0, 0, 1], [1, 1, 0]], [1.0, 1.0, 4.0], (2, 3), check_invariants=True
    )


@pytest.mark.parametrize(
    ("make", "write"),
    [
        (lambda d: d.to_sparse_csr(), lambda x, other: x.mul_(10)),
        (lambda d: d.to_sparse_csr(), lambda x, other: x.values().mul_(10)),
        (lambda d: d.to_sparse_csr(), lambda x, other: x.copy_(other.to_sparse_csr())),
        (lambda d: d.to_sparse_coo(), lambda x, other: x.add_(other.to_sparse_coo())),
        (lambda d: uncoalesced(), lambda x, other: x.mul_(10)),
        (lambda d: uncoalesced(), lambda x, other: x._values().mul_(10)),
    ],
    ids=["csr mul", "csr values", "csr copy", "coo add", "uncoalesced mul", "uncoalesced values"],
)
def test_writes_to_sparse_tensors_are_noticed(make, write):
    x = make(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]]))
    weight = torch.tensor([[1.0, 2.0, 4.0]])
    before = as_features(x).linear(weight)
    write(x, torch.tensor([[5.0, 0.0, 0.0], [0.0, 6.0, 7.0]]))
    after = as_features(x).linear(weight)
    assert_close(after, x.to_dense() @ weight.t())
    assert not torch.equal(after, before)


def test_scipy_matrices():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    row, column, value = [2, 0, 2, 0], [1, 3, 1, 0], [1.0, 2.0, 3.0, 4.0]  # unsorted, one twice
    matrix = scipy_sparse.coo_array((value, (row, column)), shape=(4, 5))
    weight = torch.randn(6, 5, dtype=torch.float64)
    dense = torch.from_numpy(matrix.toarray())
    for form in ("coo", "csr", "csc"):
        x = SparseFeatures(matrix.asformat(form))
        assert x.shape == (4, 5)
        assert_close(x.linear(weight), F.linear(dense, weight))


def test_gradients_reach_the_values_of_a_sparse_tensor():
    weight = torch.randn(6, 40, dtype=torch.float64)
    x = features().to_sparse_csr().requires_grad_()
    as_features(x).linear(weight).sum().backward()
    dense = features().requires_grad_()
    F.linear(dense, weight).sum().backward()
    stored = features() != 0
    assert_close(x.grad.to_dense()[stored], dense.grad[stored])


def test_models_leave_fake_tensors_dense():
    with FakeTensorMode():
        x = torch.zeros(30, 40)
        assert input_features(x) is x


def test_conversion():
    x = SparseFeatures(features())
    assert (x.shape, x.dtype, x.dim()) == ((30, 40), torch.float64, 2)
    assert x.to(torch.float32).dtype == torch.float32
    assert repr(x) == f"SparseFeatures(30, 40, nnz={x.values.numel()})"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: SparseFeatures([[1.0]]), TypeError, "got a list"),
        (lambda: SparseFeatures(torch.ones(3, 3).long()), TypeError, "int64"),
        (lambda: SparseFeatures(features()).dropout(1.5), ValueError, "1.5"),
        (lambda: SparseFeatures(features()).linear(torch.ones(2, 3)), ValueError, r"\[C', 40\]"),
        (
            lambda: nn.GATConv(40, 4)(features().to_sparse_bsr((1, 4)), GRAPH),
            TypeError,
            "sparse_bsr",
        ),
        (lambda: nn.AGNNConv()(features().to_sparse_csr(), GRAPH), TypeError, "project x first"),
        (lambda: SparseFeatures(torch.ones(3)), ValueError, r"shape \[3\]"),
        (lambda: nn.GATConv(39, 4)(features().to_sparse_csr(), GRAPH), ValueError, r"\[N, 39\]"),
        (lambda: nn.GATConv(40, 4)(features().to_sparse_csr(), GRAPH), TypeError, "float64"),
        (lambda: nn.AGNNConv()(SparseFeatures(features()), GRAPH), TypeError, "SparseFeatures"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
