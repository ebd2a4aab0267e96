"""The process that runs one peer: a JSON request a line on standard input, answers on output.

Requests name an ``op``: ``probe`` (versions, or why the peer cannot run), ``prepare`` (build a
program for the case in a file), ``result`` (run it once, write its result and gradients to a file),
``sample`` (times), ``memory`` (peak of a step), ``limits`` and ``limits_sample`` (the machine). An
answer is ``{"ok": ...}`` or ``{"error": sentence}``. What libraries print goes to standard error.
It runs under any interpreter that has torch and the peer's library.
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

# The package built in place; an installed one comes first.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from cases import Case
from measure import Limits, peak_memory, sample, step
from peers import PEERS, Program, probe


class Worker:
    """Holds the program of the last ``prepare``."""

    def __init__(self) -> None:
        self._program: Program | None = None
        self._case: Case | None = None
        self._limits: Limits | None = None

    def answer(self, op: str, **request: Any) -> Any:
        return getattr(self, f"op_{op}")(**request)

    def op_probe(self, peer: str) -> dict[str, str]:
        return probe(peer)

    def op_prepare(
        self,
        peer: str,
        bench: str,
        item: str,
        case: str,
        dropout: float = 0.0,
        dtype: str | None = None,
    ) -> list[list[str]]:
        """Builds the program; answers with the groups of its leaves."""
        self._program = self._case = None
        gc.collect()
        torch.manual_seed(0)
        self._case = Case.load(case, dtype)
        self._case.dropout = dropout
        program = load_bench(Path(bench)).ITEMS[item].build[PEERS[peer].family](self._case)
        if PEERS[peer].compiled:
            torch._dynamo.reset()
            program.function = torch.compile(program.function, dynamic=False)
        self._program = program
        return [list(names) for names in program.leaves]

    def op_result(self, path: str) -> None:
        program, case = self._ready()
        update, program.update = program.update, None  # the weights stay as the case has them
        out = step(program, case.tensors["grad_out"]).out
        program.update = update
        grads = {"+".join(names): leaf.grad for names, leaf in program.leaves.items()}
        torch.save({"out": out.detach(), "grads": grads}, path)

    def op_sample(self, min_seconds: float) -> dict[str, list[float]]:
        program, case = self._ready()
        return sample(program, case.tensors["grad_out"], min_seconds)

    def op_memory(self) -> dict[str, int | bool]:
        program, case = self._ready()
        return peak_memory(program, case.tensors["grad_out"])

    def op_limits(self, case: str) -> None:
        self._limits = Limits(Case.load(case))

    def op_limits_sample(self) -> dict[str, float]:
        if self._limits is None:
            raise RuntimeError("limits_sample before limits")
        return self._limits.sample()

    def _ready(self) -> tuple[Program, Case]:
        if self._program is None or self._case is None:
            raise RuntimeError("no program: prepare has to come first")
        return self._program, self._case


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


def sentence(error: Exception) -> str:
    """The first line of an error, after its type where that tells something."""
    first = next(iter(str(error).strip().splitlines()), "")
    return first if isinstance(error, ImportError) else f"{type(error).__name__}: {first}"


def main(threads: int, memory: int) -> None:
    """Answers until the input ends.

    More than ``memory`` bytes of data is an error here, before the system's out-of-memory killer.
    """
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(threads)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = {"ok": worker.answer(**json.loads(line))}
        except Exception as error:
            answer = {"error": sentence(error)}
        channel.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(threads=int(sys.argv[1]), memory=int(sys.argv[2]))
