"""What the tests share: the slow tests' switch, the folder of real data, a file server."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes; runs only with --run-slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the published files of data sets (``planetoid/``): GAT_EXT_DATA, else ``shared/data`` beside the checkout."""
    given = os.environ.get("GAT_EXT_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the published data files: {folder} is not a folder; set GAT_EXT_DATA to one that has them")
    return folder


class FileServer:
    """Serves ``folder`` on the loopback address and lists what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        requests = self.requests

        class Handler(SimpleHTTPRequestHandler):
            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                requests.append(self.path)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port; requests are refused from then on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def file_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of an empty folder, with the data sets' cache in another and no proxy in between."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("GAT_EXT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GAT_EXT_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = FileServer(folder)
    yield server
    server.stop()
