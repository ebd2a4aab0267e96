"""Processes of torch.distributed (Gloo, on the loopback) that run functions of the tests."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = 60.0  # seconds for one call
PRELOAD = [
    *("pytest", "matplotlib.pyplot", "torch._dynamo", "torch.distributed.checkpoint"),
    *("gat_ext.training.cli", "short_lived"),
]
"""What a process has imported from which others are forked"""


class Processes:
    """A number of processes, each with a group for every smaller number of them.

    A function that they run is called as ``function(group, rank, size, *arguments)`` in each of the
    first ``size`` processes; it raises if a check fails.
    """

    def __init__(self, count: int, preload: Sequence[str] = ()) -> None:
        """Starts the processes; they wait for calls.

        With ``preload`` they are forked from a process that has imported these modules.
        """
        self.count, self.failed = count, False
        self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        context = multiprocessing.get_context("forkserver" if preload else "spawn")
        if preload:
            context.set_forkserver_preload(list(preload))
        self._pipes, self._processes = [], []
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, rank, count, self._store.port), daemon=True
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
        """The results of all processes; raises AssertionError with the tracebacks of failures."""
        self.failed = True  # until all of them answer
        module = function.__module__.rpartition(".")[2]
        call = module, function.__qualname__, size, arguments
        for pipe in self._pipes[:size]:
            pipe.send(call)
        results, failures = [], []
        for rank, pipe in enumerate(self._pipes[:size]):
            if not pipe.poll(TIMEOUT):
                self.close()
                raise AssertionError(f"rank {rank} of {size} gave no result in {TIMEOUT} s")
            good, value = pipe.recv()
            (results if good else failures).append(value)
        if failures:
            raise AssertionError("\n".join(failures))
        self.failed = False
        return results

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(10)


class Pool:
    """Four processes for all tests of a session, started again after a failure."""

    def __init__(self) -> None:
        self._processes: Processes | None = None

    def alive(self) -> Processes:
        """Processes that wait for a call."""
        if self._processes is not None and self._processes.failed:
            self.close()
        if self._processes is None:
            self._processes = Processes(4, PRELOAD)
        return self._processes

    def close(self) -> None:
        """Ends the processes."""
        if self._processes is not None:
            self._processes.close()
            self._processes = None


def _serve(pipe: Any, rank: int, count: int, port: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    timeout = timedelta(seconds=TIMEOUT / 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=timeout)
    groups = {size: dist.new_group(list(range(size)), timeout) for size in range(1, count + 1)}
    while True:
        try:
            module, name, size, arguments = pipe.recv()
        except EOFError:
            return
        try:
            function = importlib.import_module(module)
            for part in name.split("."):
                function = getattr(function, part)
            torch.manual_seed(0)
            pipe.send((True, function(groups[size], rank, size, *arguments)))
        except BaseException:
            pipe.send((False, f"rank {rank} of {size}:\n{traceback.format_exc()}"))
