"""Options and fixtures: slow tests, folder of published data, file server, old pickles."""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# Waiting threads take the cores of other processes in parallel runs: those of OpenMP sleep, and
# OpenBLAS, whose threads cannot, has none. Both read this when torch and numpy are loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Inductor compiles scalar code: to find out which vectors work, it compiles and loads ten programs,
# which takes longer than the tests. The operators are called, not generated.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "0")

import pytest
import torch
from default_device import default_device
from old_pickles import python2_dumps
from processes import Pool, Processes


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")
    parser.addoption(
        "--device",
        metavar="DEVICE",
        help="run tests that name no device on this one, and of those with a device only its own",
    )
    parser.addoption(
        "--cuda-emulation",
        metavar="LIBRARY",
        help="run CPU tensors on the emulated CUDA kernels of tests/cuda_emulation/build.py",
    )


def pytest_configure(config: pytest.Config) -> None:
    # xdist would begin with the files of most tests, but the slowest files have few, and one of
    # them at the end leaves the other processes without work.
    config.option.loadscopereorder = False
    library = config.getoption("--cuda-emulation")
    if library is not None:
        import gat_ext  # noqa: F401  registers the operators that the library then replaces

        torch.ops.load_library(library)


@pytest.fixture(autouse=True)
def device_of_the_test(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    device = request.config.getoption("--device")
    if device is None or "device" in request.fixturenames:
        yield
    else:
        with default_device(device, monkeypatch):
            yield


@pytest.fixture(scope="session")
def pool_of_processes() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture
def processes(pool_of_processes: Pool) -> Processes:
    """Four processes of torch.distributed, which run functions of the tests."""
    return pool_of_processes.alive()


@pytest.fixture
def operators_of_the_cpu() -> set[str]:
    """The operators without CUDA kernels, which torch's operators replace or compose."""
    names = (
        "linear linear_backward add scale relu relu_backward dropout inverse_norm csr_of_edges "
        "csr_transpose draw_starts neighbor_sample csr_with_loops winner_weights winner_features"
    )
    return {f"gat_ext::{name}" for name in names.split()}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    device = config.getoption("--device")
    if device is not None:
        given = [getattr(item, "callspec", None) for item in items]
        other = [c is not None and c.params.get("device", device) != device for c in given]
        config.hook.pytest_deselected(
            items=[i for i, left_out in zip(items, other, strict=True) if left_out]
        )
        items[:] = [i for i, left_out in zip(items, other, strict=True) if not left_out]
    if config.getoption("--run-slow"):
        return
    seen: Counter[str] = Counter()
    kept, slow = [], []
    for item in items:
        one_in = item.get_closest_marker("one_in")
        test = item.nodeid.partition("[")[0]
        left_out = one_in and not config.option.keyword and seen[test] % one_in.args[0] > 0
        seen[test] += 1
        (slow if left_out or item.get_closest_marker("slow") else kept).append(item)
    if config.getoption("--cuda-emulation") and not config.option.keyword:
        kept, left_out = sampled(kept)
        slow += left_out
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = kept


def sampled(items: list[Any]) -> tuple[list[Any], list[Any]]:
    """Divides the cases of each test: the first of each value of an axis and every 11th; the rest.

    The rest are other combinations of the same values, which run on the kernels of the CPU. Tests
    that need the emulator (fixture ``emulated``) run nowhere else and keep all of their cases.
    """
    values: dict[str, set[tuple[str, int]]] = defaultdict(set)
    number: Counter[str] = Counter()
    kept, left_out = [], []
    for item in items:
        test = item.nodeid.partition("[")[0]
        axes = item.callspec.params if hasattr(item, "callspec") else {}
        case = {(name, id(value)) for name, value in axes.items()}
        new = not case <= values[test] or number[test] % 11 == 0
        new |= "emulated" in item.fixturenames
        number[test] += 1
        values[test] |= case
        (kept if new else left_out).append(item)
    return kept, left_out


def pytest_collection_finish() -> None:
    gc.freeze()  # later collections do not visit modules and tests, which stay


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of published data files, from GAT_EXT_DATA."""
    given = os.environ.get("GAT_EXT_DATA")
    if not given:
        pytest.skip("needs the published data files: GAT_EXT_DATA is not set to a folder with them")
    folder = Path(given)
    assert folder.is_dir(), f"GAT_EXT_DATA is {given!r}, which is no folder"
    return folder


@pytest.fixture
def calls_of_pyg(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by a layer with every call that PyG's own code computes."""
    pyg = pytest.importorskip("torch_geometric.nn")
    calls: list[Any] = []
    names = "GATConv GATv2Conv TransformerConv AGNNConv SuperGATConv RGATConv HEATConv FAConv"
    for kind in (
        getattr(pyg, name) for name in f"{names} HANConv HGTConv PointTransformerConv".split()
    ):

        def counted(self: Any, *inputs: Any, forward: Any = kind.forward, **options: Any) -> Any:
            calls.append(self)
            return forward(self, *inputs, **options)

        monkeypatch.setattr(kind, "forward", counted)
    return calls


class FileServer:
    """Serves ``folder`` on the loopback address and lists the requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        requests = self.requests

        class Handler(SimpleHTTPRequestHandler):
            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                requests.append(self.path)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Handler, directory=str(folder))
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Closes the port; later requests fail."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Resets torch's number of threads for each test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def file_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of an empty folder, with another folder as the data sets' cache and no proxy."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("GAT_EXT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GAT_EXT_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = FileServer(folder)
    yield server
    server.stop()


@pytest.fixture(scope="session", name="python2_dumps")
def python2_dumps_of_tests() -> Callable[[Any], bytes]:
    """A function that pickles as Python 2 did."""
    return python2_dumps
