"""The native module: build information, and the error for a wrong version of torch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import gat_ext
from gat_ext import _C
from gat_ext.ops import native


def test_build_info():
    info = _C.build_info()
    assert info["torch"] == torch.__version__.split("+")[0]
    assert isinstance(info["cuda"], bool) and info["openmp"] > 0 and info["compiler"]
    assert _C.isa() in ("baseline", "avx2", "avx512")


def test_threads_follow_torch():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert _C.num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_another_torch_is_named(monkeypatch):
    monkeypatch.setattr(native.metadata, "requires", lambda name: ["numpy", "torch==1.2.3"])
    with pytest.raises(ImportError) as error:
        native.check_torch()
    message = str(error.value)
    assert "built against torch 1.2.3" in message
    assert f"torch {torch.__version__.split('+')[0]} is installed" in message
    assert "pip install torch==1.2.3" in message


def test_the_torch_of_the_build_is_accepted(monkeypatch):
    version = torch.__version__.split("+")[0]
    monkeypatch.setattr(
        native.metadata, "requires", lambda name: [f"torch=={version}", "numpy; extra == 'x'"]
    )
    native.check_torch()


def test_a_torch_without_the_cuda_of_the_build_is_named(monkeypatch):
    def missing(name):
        raise ImportError("libc10_cuda.so: cannot open shared object file: No such file")

    monkeypatch.setattr(native.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"built for a torch with CUDA.*libc10_cuda"):
        native.load(Path("."))


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", gat_ext.__version__)


def test_emulated_kernels_are_registered_on_request(request, operators_of_the_cpu):
    library = request.config.getoption("--cuda-emulation")
    if library is None:
        pytest.skip("needs --cuda-emulation")
    names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("gat_ext::")]
    assert len(names) >= 9
    for name in set(names) - operators_of_the_cpu:
        lines = torch._C._dispatch_dump(name).splitlines()
        assert "cuda_emulation" in next(line for line in lines if line.startswith("CPU:")), name


def test_memory_of_results_is_reused():
    graph = gat_ext.Graph(torch.tensor([[0], [1]]), num_nodes=3000)
    x = torch.ones(3000, 128)
    first = gat_ext.functional.spmm(graph, x)
    address, copy = first.data_ptr(), first.clone()
    second = gat_ext.functional.spmm(graph, 2 * x)
    assert second.data_ptr() != address  # the first one is still in use
    assert torch.equal(first, copy)
    del first
    third = gat_ext.functional.spmm(graph, x)
    assert third.data_ptr() == address
    assert torch.equal(third, copy)
    third.resize_(9000, 128)  # results are ordinary tensors
    assert third.data_ptr() != address
    gat_ext.empty_cache()
    assert torch.equal(third.view(-1)[: copy.numel()], copy.view(-1))


def test_operators_skip_python_where_nothing_is_recorded():
    """Each operator whose gradient Python registers; csrc/torch/autograd.cpp lists them."""
    sources = (Path(gat_ext.__file__).parent / "ops").glob("*.py")
    text = "".join(path.read_text() for path in sources)
    names = set(re.findall(r'register_autograd\(\s*"(gat_ext::\w+)"', text))
    assert len(names) > 15
    for name in names:
        for key in ("AutogradCPU", "AutogradCUDA"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(name, key), (name, key)
