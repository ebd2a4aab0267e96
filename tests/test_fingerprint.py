"""The fingerprint of tensors: equal for equal contents, different after every small change."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import distributed

from gat_ext import _C
from gat_ext.graph import contents
from gat_ext.nn import GATConv

SIZES = [0, 1, 7, 64, 1000, 40_000, 600_000]


@pytest.fixture
def one_thread_again():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def finalized(x):
    """SplitMix64, of NumPy's unsigned numbers."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def expected(values):
    place = np.arange(values.size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    terms = finalized(
        values.ravel().astype(np.int64).view(np.uint64) + (place ^ (place >> np.uint64(32)))
    )
    return int(terms.sum(dtype=np.uint64))


def edges_of(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-5, 2**31 - 1, (2, size), generator=generator)


@pytest.mark.parametrize("size", SIZES)
def test_fingerprint_ignores_strides_and_offsets(size, one_thread_again):
    edges = edges_of(size)
    number = expected(edges.numpy())
    forms = {
        "int64": edges,
        "int32": edges.int(),
        "transposed": edges.t().contiguous().t(),
        "narrowed": torch.cat([edges, edges], 1)[:, :size],
        "strided": edges.repeat_interleave(2, dim=1)[:, ::2],
        "expanded": edges.reshape(2, 1, size),
        "flat": edges.flatten(),
    }
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        found = {name: _C.fingerprint(form) for name, form in forms.items()}
        assert found == dict.fromkeys(forms, number)
    assert {_C.fingerprint_by_torch(form) for form in forms.values()} == {number}


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_fingerprint_is_the_same_for_any_instruction_set(isa, tmp_path):
    script = (
        "import torch\nfrom gat_ext import _C\n"
        "values = torch.arange(300_001) * 7919 % 100_003\n"
        "print(_C.isa(), _C.fingerprint(values), _C.fingerprint(values.int()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "GAT_EXT_ISA": isa},
        cwd=tmp_path,  # without the source tree
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    number = str(expected(np.arange(300_001) * 7919 % 100_003))
    assert done.stdout.split()[1:] == [number, number]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.bool])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 1001])
def test_features_differ_by_their_bits(dtype, size):
    x = torch.rand(size + 1).mul(2).to(dtype)[1:]  # not aligned to 64 bits
    number = _C.fingerprint(x)
    assert number == _C.fingerprint_by_torch(x)
    for place in range(min(size, 20)):
        other = x.clone()
        other[place] = 1 - other[place].float()
        if not torch.equal(other, x):
            assert _C.fingerprint(other) != _C.fingerprint(x.clone())
    if dtype.is_floating_point:
        assert _C.fingerprint(torch.zeros(size)) != _C.fingerprint(-torch.zeros(size))


def test_a_non_tensor_is_refused():
    with pytest.raises(TypeError, match=r"torch\.Tensor"):
        _C.fingerprint([0, 1])


# ---- changes that a weaker hash misses


@pytest.mark.parametrize("use", ["number", "compiled", "eager"])
def test_two_values_change_places(use):
    """With one multiplication both terms change by the same amount, so the sum stays."""
    source, destination = 613_311, 739_031  # of one edge, and of another
    edges = torch.zeros(2, 700_000, dtype=torch.int64)
    other = edges.clone()
    edges.view(-1)[destination] = 1
    other.view(-1)[source] = 1
    if use == "number":
        assert _C.fingerprint(edges) != _C.fingerprint(other)
        return
    layer, x = GATConv(1, 1, add_self_loops=False), torch.ones(2, 1)
    called = torch.compile(layer, backend="eager") if use == "compiled" else layer
    with torch.no_grad():
        before = called(x, edges)
        edges.numpy()[...] = other.numpy()
        after = called(x, edges)
        assert torch.equal(after, layer(x, other)) and not torch.equal(before, after)


def test_the_same_change_in_two_places_never_cancels():
    """Swaps of two values: the changes of the terms of a million places are all different.

    With one multiplication, one pair in 2^32 would be equal: about a hundred here.
    NumPy's terms are those of the fingerprint, as tested above.
    """
    places = 1 << 20
    place = torch.arange(places) * (0x9E3779B97F4A7C15 - 2**64)
    place ^= (place >> 32) & 0xFFFFFFFF
    place = place.numpy().view(np.uint64)
    for a, b in ((0, 1), (0, 2), (0, 1 << 20), (1000, 1007)):
        change = finalized(place + np.uint64(a)) - finalized(place + np.uint64(b))
        assert np.unique(change).size == places


def test_small_edits_change_the_fingerprint():
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, 50, (2, 300), generator=generator)
    seen = {_C.fingerprint(edges): edges.clone()}
    flat = edges.view(-1)
    for step in range(20_000):
        i, j = torch.randint(600, (2,), generator=generator).tolist()
        if step % 3 == 0:
            flat[i] = (flat[i] + 1) % 50
        elif step % 3 == 1:
            flat[[i, j]] = flat[[j, i]]
        else:
            flat[i], flat[j] = (flat[i] + 1) % 50, (flat[j] - 1) % 50
        number = _C.fingerprint(edges)
        assert torch.equal(seen.setdefault(number, edges.clone()), edges)
    assert len(seen) > 15_000


# ---- when contents are read


@pytest.mark.parametrize("capturing", [False, True])
@pytest.mark.parametrize("initialised", [False, True])
def test_contents_on_a_gpu_are_read_only_while_versions_miss_writes(
    monkeypatch, initialised, capturing
):
    monkeypatch.setattr(distributed, "is_initialized", lambda: initialised)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    on_gpu = SimpleNamespace(is_cpu=False, device=torch.device("cuda"))
    for large in (False, True):
        assert contents._is_read(on_gpu, large) == (initialised and not capturing)
    edges, read = torch.empty(2, 6, dtype=torch.int64, device="meta"), []
    monkeypatch.setattr(_C, "fingerprint", lambda t: read.append(t))
    contents.state_of(edges)
    assert len(read) == initialised
