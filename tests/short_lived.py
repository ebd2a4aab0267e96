"""Processes of torch.distributed that may die: forked from one that has imported everything."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from processes import PRELOAD


class End(NamedTuple):
    """How a process ended: its exit code, negative for a signal, and what it printed."""

    code: int
    out: str
    err: str


class ShortLived:
    """Starts processes with the variables of torchrun, and the store in this process.

    Args:
        folder: for what the processes print.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        self._started = 0

    @contextmanager
    def start(self, function: Callable[..., Any], size: int, *arguments: Any, **settings: Any):
        """Starts ``function(*arguments)`` in ``size`` processes; gives a function that ends them.

        Args:
            function: of a test module.
            size: number of processes.
            *arguments: of the function.
            **settings: environment variables.
        """
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._started += 1
        variables = {
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
        }
        processes, files = [], []
        for rank in range(size):
            of_rank = {"RANK": str(rank), "LOCAL_RANK": str(rank)} | variables | settings
            names = [self.folder / f"{self._started}-{rank}.{kind}" for kind in ("out", "err")]
            module = function.__module__.rpartition(".")[2]
            call = (of_rank, list(map(str, names)), module, function.__qualname__, arguments)
            processes.append(self._context.Process(target=_run, args=call, daemon=True))
            files.append(names)
            processes[-1].start()

        def ended(seconds: float = 40) -> list[End]:
            """How all of them ended, within a number of seconds."""
            limit = time.monotonic() + seconds
            for process in processes:
                process.join(max(0.0, limit - time.monotonic()))
            running = [rank for rank, process in enumerate(processes) if process.is_alive()]
            texts = [[file.read_text() if file.exists() else "" for file in f] for f in files]
            assert not running, f"ranks {running} of {size} still run after {seconds} s: {texts}"
            return [End(p.exitcode, *text) for p, text in zip(processes, texts, strict=True)]

        ended.processes = processes
        try:
            yield ended
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.join(10)

    def run(self, function: Callable[..., Any], size: int, *arguments: Any, **settings: Any):
        """How ``size`` processes of ``function(*arguments)`` ended."""
        with self.start(function, size, *arguments, **settings) as ended:
            return ended()


def _run(
    variables: dict[str, str], files: list[str], module: str, name: str, arguments: Any
) -> None:
    os.environ.update(variables)
    for descriptor, path in zip((1, 2), files, strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    code: Any = 0
    try:
        getattr(importlib.import_module(module), name)(*arguments)
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def join_group(timeout: float = 20.0) -> int:
    """Joins the processes that were started together; the rank."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
    return dist.get_rank()


def command(arguments: list[str]) -> None:
    """Runs gat-ext."""
    from gat_ext.training.cli import main

    sys.argv[:] = ["gat-ext", *arguments]
    main()
