"""The worker that runs one peer, in the process of ``run.py`` or in its own.

In its own process it reads a JSON request from each line: ``op`` names a method of ``Worker``, the
rest are its arguments. An answer is ``{"ok": ...}`` or ``{"error": sentence}``; output of libraries
goes to standard error. It runs in any interpreter with torch and the peer's library.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import resource
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

# For a package built in place; an installed one has priority.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import peers
import timing
from cases import Case
from peers import PEERS
from torch import Tensor

_SHARE = 0.9  # of the free memory at the start: the limit of a process


class Worker:
    """Holds the program of the last :meth:`prepare`."""

    def __init__(self) -> None:
        self._program: timing.Program | None = None
        self._grad_out: Tensor | None = None

    def probe(self, peer: str) -> dict[str, str]:
        return peers.probe(peer)

    def prepare(self, peer: str, bench: str | Path, item: str, case: str | Case) -> list[list[str]]:
        """Builds the program of a case, or of one in a file; returns the groups of leaf names."""
        self._program = self._grad_out = None
        gc.collect()
        if not isinstance(case, Case):
            case = Case.load(Path(case))
        if case.setting.threads:
            torch.set_num_threads(case.setting.threads)
        torch.manual_seed(0)
        case.tensors = {name: t.detach().clone() for name, t in case.tensors.items()}
        program = load_bench(Path(bench)).ITEMS[item].build[PEERS[peer].family](case)
        self._threads = case.setting.threads
        self._grad_out = case.tensors["grad_out"]
        if PEERS[peer].way == "compiled":
            torch._dynamo.reset()
            program.function = torch.compile(program.function, dynamic=False)
        elif PEERS[peer].way == "replayed":
            timing.capture(program, self._grad_out)
        self._program = program
        return [list(names) for names in program.leaves]

    def result(self) -> dict[str, Tensor]:
        """The output, and "grad NAME" for each leaf; tied names are joined by "+"."""
        out, grads = timing.run(*self._ready())
        return {"out": out, **{f"grad {name}": grad for name, grad in grads.items()}}

    def save_result(self, path: str) -> None:
        torch.save(self.result(), path)

    def sample(self, min_seconds: float) -> dict[str, float]:
        program, grad_out = self._ready()
        if self._threads:
            torch.set_num_threads(self._threads)
        return timing.sample(program, grad_out, min_seconds)

    def memory(self) -> dict[str, int]:
        return timing.peak_memory(*self._ready())

    def close(self) -> None:
        self._program = self._grad_out = None

    def _ready(self) -> tuple[timing.Program, Tensor]:
        if self._program is None or self._grad_out is None:
            raise RuntimeError("no program: prepare has to come first")
        return self._program, self._grad_out


def load_bench(path: Path) -> ModuleType:
    """The benchmark module of a file."""
    if path.stem in sys.modules:
        return sys.modules[path.stem]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def sentence(error: BaseException) -> str:
    """The first line of an error, with its type unless the type is known."""
    first = next(iter(str(error).strip().splitlines()), "")
    known = isinstance(error, (ImportError, peers.PeerError))
    return first if known else f"{type(error).__name__}: {first}"


def limit_memory() -> None:
    """Limits memory, so that a shortage raises an error before the system kills the process."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(_SHARE * available_memory())
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def available_memory() -> int:
    """Bytes of memory that are still available."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def main(threads: int) -> None:
    """Answers requests until the input ends."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(threads)
    limit_memory()
    worker = Worker()
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        try:
            answer = {"ok": getattr(worker, request.pop("op"))(**request)}
        except Exception as error:
            answer = {"error": sentence(error)}
        channel.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(threads=int(sys.argv[1]))
