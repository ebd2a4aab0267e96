"""The libraries that run an item, in this process or in another interpreter.

A peer is a family (a library with its form of a graph) run in one way: eager, compiled by
torch.compile, or replayed as a CUDA graph. A benchmark ``bench_*.py`` defines items
(``ITEMS: dict[str, Item]``); an item draws its tensors and builds each family's program.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from cases import Case, Setting, make_case
from timing import Program
from torch import Tensor

BASE = "gat_ext"


@dataclass(frozen=True)
class Item:
    """A layer, an operator or an epoch to measure.

    Attributes:
        title: title of the table.
        tensors: draws the inputs, weights and "grad_out" of a case on the generator's device.
        build: for each family, builds the program of a case with its tensors.
        rows: "node" or "edge" for tensors with such rows; all others are weights. "out" is the
            result and determines "grad_out".
        local: True if a result depends only on the in-edges of its node, as in a single layer.
        gathers: rows of ``heads * channels`` that the forward pass gathers for each edge.
        projections: number of dense products of that width in addition to the attention.
        dense_bytes: peak bytes of the dense family, by setting and number of nodes.
        dropout: attention dropout while timing, if the setting has None.
        score: score of an operator that computes nothing else.
        on_request: runs only if named on the command line.
        notes: by family, what to know for a comparison.
    """

    title: str
    tensors: Callable[[Case, torch.Generator], dict[str, Tensor]]
    build: Mapping[str, Callable[[Case], Program]]
    rows: Mapping[str, str]
    local: bool = True
    gathers: int = 1
    projections: int = 0
    dense_bytes: Callable[[Setting, int], int] = lambda setting, nodes: 0
    dropout: float = 0.0
    score: str | None = None
    on_request: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)

    def case(self, setting: Setting) -> Case:
        """The case of a setting, with this item's tensors."""
        case = make_case(setting)
        case.tensors = self.tensors(case, torch.Generator(setting.device).manual_seed(setting.seed))
        return case


@dataclass(frozen=True)
class Peer:
    """A column of the comparison.

    Attributes:
        modules: modules that must be importable, the library first.
        install: what to do if they are not.
        way: "eager", "compiled" or "replayed".
    """

    title: str
    family: str
    modules: tuple[str, ...]
    install: str
    way: str = "eager"

    @property
    def needs_gpu(self) -> bool:
        return self.way == "replayed" or self.family == "triton"


_OURS = ("gat_ext", ("gat_ext",), "pip install .")
_PYG = ("pyg", ("torch_geometric",), "pip install 'gat_ext[test]'")
PEERS: dict[str, Peer] = {
    "gat_ext": Peer("gat_ext", *_OURS),
    "gat_ext-compiled": Peer("gat_ext compiled", *_OURS, way="compiled"),
    "gat_ext-replayed": Peer("gat_ext in a CUDA graph", *_OURS, way="replayed"),
    "pyg": Peer("PyG eager", *_PYG),
    "pyg-compiled": Peer("PyG compiled", *_PYG, way="compiled"),
    "dense": Peer("dense torch", "dense", ("torch",), "pip install torch"),
    "dgl": Peer(
        "DGL", "dgl", ("dgl", "dgl.nn.pytorch"), "name an interpreter with DGL: --python dgl=PATH"
    ),
    "triton": Peer("Triton", "triton", ("triton",), "pip install triton"),
}


class PeerError(Exception):
    """A request to a peer failed; the message is one sentence."""


def probe(name: str) -> dict[str, str]:
    """Versions of the peer's libraries.

    Raises:
        ImportError: the peer cannot run here; the message says why and what to do.
    """
    peer = PEERS[name]
    if peer.family == "dgl":
        os.environ.setdefault("DGLBACKEND", "pytorch")
    for module in peer.modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # DGL raises any error of its shared libraries
            why = [*str(error).strip().splitlines(), type(error).__name__][0]
            raise ImportError(f"cannot import {module}: {why} ({peer.install})") from error
    library = importlib.import_module(peer.modules[0])
    version = getattr(library, "__version__", "unknown")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        peer.modules[0]: version,
    }


# ---- the form of a graph in each family


def _gat_ext_graph(case: Case) -> Any:
    from gat_ext import Graph

    graph = Graph(case.edge_index, case.num_nodes)
    graph.transpose()
    return graph


def _dense_mask(case: Case) -> Tensor:
    """``[N, N]``: log of the number of edges; added to scores, it counts multi-edges."""
    shape = (case.num_nodes, case.num_nodes)
    counts = torch.zeros(shape, dtype=torch.float64, device=case.edge_index.device)
    src, dst = case.edge_index.long()
    counts.index_put_((dst, src), counts.new_ones(()), accumulate=True)
    return counts.log_().to(case.dtype)


def _dgl_graph(case: Case) -> Any:
    import dgl

    graph = dgl.graph((case.edge_index[0], case.edge_index[1]), num_nodes=case.num_nodes).int()
    graph.create_formats_()
    return graph


def _triton_graph(case: Case) -> Any:
    from triton_attention import Adjacency

    return Adjacency.of_edges(case.edge_index, case.num_nodes)


_HOLD: dict[str, Callable[[Case], Any]] = {
    "gat_ext": _gat_ext_graph,
    "pyg": lambda case: case.edge_index.long(),
    "dense": _dense_mask,
    "dgl": _dgl_graph,
    "triton": _triton_graph,
}


def graph_of(family: str, case: Case) -> Any:
    """The case's graph in the family's form, with everything that is built once per graph."""
    return _HOLD[family](case)


# ---- peers in processes of their own


class Remote:
    """A worker (see ``worker.py``) in another interpreter.

    As a context manager, it ends the process on exit.

    Args:
        python: the interpreter.
        threads: threads of torch and of OpenMP.
        timeout: seconds to wait for an answer.

    Raises:
        PeerError: the interpreter cannot be run.
    """

    def __init__(self, python: str, threads: int, timeout: float) -> None:
        self._timeout = timeout
        self._folder = tempfile.TemporaryDirectory()
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  see close
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        worker = Path(__file__).resolve().parent / "worker.py"
        try:
            self._process = subprocess.Popen(
                [python, str(worker), str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=env,
                text=True,
                bufsize=1,
            )
        except OSError as error:
            self._log.close()
            raise PeerError(f"cannot run the interpreter {python}: {error.strerror}") from error

    @property
    def process_id(self) -> int:
        return self._process.pid

    def ask(self, op: str, **request: Any) -> Any:
        """The worker's answer.

        Raises:
            PeerError: the worker answered with an error, ended, or took too long; a worker that
                took too long is killed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **request}) + "\n")
        except BrokenPipeError:
            raise PeerError(self._how_it_ended()) from None
        ready, _, _ = select.select([self._process.stdout], [], [], self._timeout)
        if not ready:
            self._process.kill()
            self._process.wait()
            raise PeerError(f"no answer to '{op}' within {self._timeout:g} s; raise --timeout")
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(self._how_it_ended())
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["ok"]

    def prepare(self, peer: str, bench: Path, item: str, case: Case) -> list[list[str]]:
        path = Path(self._folder.name) / "case.pt"
        case.save(path)
        answer = self.ask("prepare", peer=peer, bench=str(bench), item=item, case=str(path))
        path.unlink()
        return answer

    def result(self) -> dict[str, Tensor]:
        path = Path(self._folder.name) / "result.pt"
        self.ask("save_result", path=str(path))
        return torch.load(path, weights_only=True)

    def sample(self, min_seconds: float) -> dict[str, float]:
        return self.ask("sample", min_seconds=min_seconds)

    def memory(self) -> dict[str, int]:
        return self.ask("memory")

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        last = self._log.read().strip().splitlines()[-1:]
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        return f"its process ended {how}: {last[0] if last else 'nothing on standard error'}"

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()
        self._folder.cleanup()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
