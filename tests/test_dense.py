"""The dense steps of a layer: torch's values and gradients, the block cache, Philox dropout."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from gat_ext.nn import GATConv, TransformerConv
from gat_ext.nn.features import dropout
from gat_ext.ops import linear_maps
from gat_ext.ops.registry import ops
from gat_ext.reference.edges import philox

F64 = torch.float64
LARGE = 600  # rows and columns of a result in the block cache


def draw(*shape, dtype=F64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64).to(dtype).requires_grad_()


def inverse_norm(x, eps=1e-12):
    norm = torch.linalg.vector_norm(x, dim=-1)
    return torch.where(norm > eps, 1 / norm, 0)


# Operator, its formula, its tensors.
STEPS = {
    "linear": (ops.linear, F.linear, lambda n: (draw(n, 5), draw(n, 5, seed=1), draw(n, seed=2))),
    "linear without bias": (
        lambda x, w: ops.linear(x, w, None),
        F.linear,
        lambda n: (draw(n, 5), draw(n, 5, seed=1)),
    ),
    "add": (ops.add, torch.add, lambda n: (draw(n, n), draw(n, n, seed=1))),
    "add a row": (ops.add, torch.add, lambda n: (draw(n, n), draw(n, seed=1))),
    "scale": (ops.scale, torch.mul, lambda n: (draw(n, 2, n), draw(n, 2, 1, seed=1))),
    "inverse_norm": (
        lambda x: ops.inverse_norm(x, 1e-12),
        inverse_norm,
        lambda n: (draw(n, 2, n),),
    ),
    "relu": (ops.relu, F.relu, lambda n: (draw(n, 2, n),)),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("size", [0, 1, 7, LARGE])
def test_values_and_gradients_equal_torch(name, size):
    ours, theirs, make = STEPS[name]
    tensors = make(size)
    out, expected = ours(*tensors), theirs(*tensors)
    assert_close(out, expected)
    grad = torch.randn_like(expected)
    for mine, other in zip(
        torch.autograd.grad(out, tensors, grad),
        torch.autograd.grad(expected, tensors, grad),
        strict=True,
    ):
        assert_close(mine, other)


@pytest.mark.parametrize("name", STEPS)
def test_first_and_second_derivatives(name):
    function, _, make = STEPS[name]
    tensors = make(3)
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


def test_opcheck():
    x, weight, bias = draw(4, 5), draw(3, 5, seed=1), draw(3, seed=2)
    seed = torch.tensor([7])
    torch.library.opcheck(ops.linear.default, (x, weight, bias))
    torch.library.opcheck(ops.linear.default, (x, weight, None))
    torch.library.opcheck(
        ops.linear_backward.default, (draw(4, 3, seed=3), x, weight, [True, False, True])
    )
    torch.library.opcheck(ops.add.default, (x, draw(5, seed=1)))
    torch.library.opcheck(ops.scale.default, (x, draw(4, 1, seed=1)))
    torch.library.opcheck(ops.inverse_norm.default, (x, 1e-12))
    torch.library.opcheck(ops.relu.default, (x,))
    torch.library.opcheck(ops.relu_backward.default, (x, x.detach().relu()))
    torch.library.opcheck(ops.dropout.default, (x, seed, 0.3))


def test_zero_vector_has_no_inverse_norm_and_no_gradient():
    x = torch.zeros(2, 3, dtype=F64, requires_grad=True)
    out = ops.inverse_norm(x, 1e-12)
    assert not out.any()
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert not grad.any()


@pytest.mark.parametrize("large", [False, True])
def test_short_vectors_of_sixteen_bits_have_finite_gradients(large):
    """The cubes of the inverse norms overflow float16; the factors do not."""
    x = (draw(40_000 if large else 100, 1, 16) * 0.003).detach().half().requires_grad_()
    (ours,) = torch.autograd.grad(linear_maps.inverse_norm(x, 1e-12).float().mean() * 100, x)
    exact = x.detach().double().requires_grad_()
    (theirs,) = torch.autograd.grad(inverse_norm(exact).mean() * 100, exact)
    assert_close(ours.double(), theirs, rtol=5e-2, atol=1e-2)


@pytest.mark.parametrize("needed", list(itertools.product([False, True], repeat=3)))
def test_opcheck_of_the_gradient_of_linear(needed):
    """Results that are not requested share no memory."""
    torch.library.opcheck(
        ops.linear_backward.default,
        (torch.randn(6, 4), torch.randn(6, 3), torch.randn(4, 3), list(needed)),
    )


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"x has shape \[2, 3\], weight \[4, 5\]"):
        ops.linear(torch.ones(2, 3), torch.ones(4, 5), None)
    with pytest.raises(ValueError, match=r"p is 1\.5"):
        ops.dropout(torch.ones(2), torch.tensor([1]), 1.5)


# ---- choice of the operator


@pytest.fixture
def calls(monkeypatch):
    """The names of the package's operators that were called."""
    names = []

    class Recorder:
        def __getattr__(self, name):
            names.append(name)
            return getattr(ops, name)

    monkeypatch.setattr(linear_maps, "ops", Recorder())
    return names


def test_large_results_come_from_the_block_cache(calls):
    x, weight = torch.ones(LARGE, LARGE), torch.ones(LARGE, LARGE)
    first = linear_maps.linear(x, weight)
    address = first.data_ptr()
    del first
    assert linear_maps.linear(x, weight).data_ptr() == address
    assert calls == ["linear", "linear"]


def test_small_and_other_tensors_use_torch(calls):
    large = torch.ones(LARGE, LARGE)
    assert_close(linear_maps.linear(torch.ones(2, 3), torch.ones(4, 3)), torch.full((2, 4), 3.0))
    assert_close(linear_maps.add(torch.ones(2, 3), torch.ones(3)), torch.full((2, 3), 2.0))
    assert linear_maps.add(large, torch.ones(LARGE, dtype=F64)).dtype == F64
    assert linear_maps.linear(torch.ones(2, LARGE, LARGE), large).shape == (2, LARGE, LARGE)
    with pytest.raises(RuntimeError):
        linear_maps.linear(large, large.double())
    assert calls == []


def test_autocast_rounds_the_product(calls):
    x, weight = torch.randn(LARGE, LARGE), torch.randn(LARGE, LARGE)
    with torch.autocast("cpu", torch.bfloat16):
        out = linear_maps.linear(x, weight)
    assert out.dtype == torch.bfloat16 and calls == ["linear"]
    assert_close(out, F.linear(x.bfloat16(), weight.bfloat16()))


@pytest.mark.parametrize("layer", [GATConv, TransformerConv])
def test_layers_use_it_and_keep_hooks(layer, calls):
    conv = layer(64, 32, heads=4)
    seen = []
    projection = conv.lin if layer is GATConv else conv.lin_key
    projection.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    x = torch.randn(4000, 64, requires_grad=True)
    conv(x, torch.randint(4000, (2, 8000))).sum().backward()
    assert seen == [(4000, 128)]
    assert {"linear", "linear_backward", "add"} <= set(calls)
    assert x.grad.isfinite().all()


# ---- dropout


def multipliers(n, p, seed):
    """Element 64 b + 16 w + c is decided by word w of counter 16 b + c."""
    blocks = -(-n // 64)
    counter = np.zeros((4, 16 * blocks), dtype=np.uint64)
    counter[0] = np.arange(16 * blocks, dtype=np.uint64)
    words = np.stack(philox(counter, seed % 2**64)).reshape(4, blocks, 16)
    kept = words.transpose(1, 0, 2).reshape(-1)[:n] >= np.uint64(p * 2**32)
    return torch.from_numpy(kept) / (1 - p) if p < 1 else torch.zeros(n)


@pytest.mark.parametrize("n", [0, 1, 15, 63, 64, 65, 1000, 70_001])
@pytest.mark.parametrize("p", [0.25, 0.6, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16, torch.float16], ids=str)
def test_dropout_numbers(n, p, dtype):
    x = draw(n, dtype=dtype).detach()
    out = ops.dropout(x, torch.tensor([-5]), p)
    assert out.dtype == dtype
    assert_close(
        out.double(),
        x.double() * multipliers(n, p, -5),
        rtol=1e-2 if dtype.itemsize == 2 else 1e-6,
        atol=0,
    )


def test_dropout_is_the_same_for_any_number_of_threads_and_instruction_set(tmp_path):
    x, seed = torch.randn(300, 1001), torch.tensor([11])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ops.dropout(x, seed, 0.4)
        torch.set_num_threads(3)
        assert torch.equal(ops.dropout(x, seed, 0.4), one)
    finally:
        torch.set_num_threads(before)
    script = (
        "import torch; from gat_ext.ops.sparse import ops; "
        "print(ops.dropout(torch.ones(2000), torch.tensor([11]), 0.4).nonzero().flatten().tolist())"
    )
    kept = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={"GAT_EXT_ISA": isa, "PYTHONPATH": ":".join(filter(None, sys.path))},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for isa in ("baseline", "avx2")
    ]
    assert kept[0] == kept[1]
    assert kept[0].strip() == str(
        ops.dropout(torch.ones(2000), seed, 0.4).nonzero().flatten().tolist()
    )


def test_dropout_follows_torchs_generator_and_differentiates():
    x = draw(50, 60)
    torch.manual_seed(3)
    first = dropout(x, 0.4, training=True)
    second = dropout(x, 0.4, training=True)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.4, training=True), first)
    assert not torch.equal(first, second)
    assert torch.autograd.gradcheck(lambda t: ops.dropout(t, torch.tensor([9]), 0.4), (draw(5, 6),))
    assert torch.autograd.gradgradcheck(
        lambda t: ops.dropout(t, torch.tensor([9]), 0.4), (draw(5, 6),)
    )


def test_dropout_compiles_to_the_same():
    seed = torch.tensor([2])
    compiled = torch.compile(
        lambda x: ops.dropout(x, seed, 0.5) + 1, backend="aot_eager", fullgraph=True
    )
    x = torch.ones(40, 3)
    assert torch.equal(compiled(x), ops.dropout(x, seed, 0.5) + 1)


@pytest.mark.parametrize(
    "shape", [(40, 8), (40, 64), (40, 100), (40,), (40, 3, 5), (40, 0)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16], ids=str)
def test_dropout_of_some_rows_draws_their_numbers(shape, dtype):
    """Rows with numbers get the multipliers that they have in the tensor of all rows."""
    x, seed = torch.randn(shape, dtype=dtype), torch.tensor([7])
    rows = torch.tensor([3, 39, 0, 17, 18, 18])
    everything = ops.dropout(x, seed, 0.4)
    assert torch.equal(ops.dropout(x[rows], seed, 0.4, rows), everything[rows])
    none = rows[:0]
    assert ops.dropout(x[none], seed, 0.4, none).shape == (0, *shape[1:])


def test_dropout_of_some_rows_differentiates_and_traces():
    rows, seed = torch.tensor([4, 1, 90]), torch.tensor([9])
    x = draw(3, 6)
    assert torch.autograd.gradcheck(lambda t: ops.dropout(t, seed, 0.4, rows), (x,))
    assert torch.autograd.gradgradcheck(lambda t: ops.dropout(t, seed, 0.4, rows), (x,))
    torch.library.opcheck(ops.dropout.default, (x, seed, 0.3, rows))
    threads = torch.get_num_threads()
    many, numbers = torch.randn(3000, 70), torch.randperm(9000)[:3000]
    try:
        torch.set_num_threads(1)
        one = ops.dropout(many, seed, 0.4, numbers)
        torch.set_num_threads(3)
        assert torch.equal(ops.dropout(many, seed, 0.4, numbers), one)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("numbers", "error", "message"),
    [
        (torch.zeros(4).long(), ValueError, "numbers for dropout"),
        (torch.zeros(3).int(), TypeError, "numbers for dropout have dtype"),
        (torch.zeros(6).long()[::2], ValueError, "not contiguous"),
    ],
)
def test_dropout_refuses_wrong_numbers(numbers, error, message):
    with pytest.raises(error, match=message):
        ops.dropout(torch.ones(3, 2), torch.tensor([1]), 0.5, numbers)
