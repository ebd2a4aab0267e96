"""Training on a graph in parts: several processes of one thread against one process of one thread.

    python benchmarks/run.py distributed --graph mesh --nodes 500000

Each process holds its part of the graph, read from files, and trains two layers with
DistributedDataParallel over Gloo on the loopback. ``speed-up`` is the time of one process over that
of several, the median of the ratios within a round; ``memory`` the peak of the largest process
beyond that before it read the graph, over that of the single process; ``sent`` the megabytes that
all processes send in a step. Before a row is reported, the losses of all steps are compared with
those of the single process.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from cases import Case, make_case
from report import FAILED, WRONG, Row
from session import Session

from gat_ext.distributed import partition, save

MODELS = ("gat", "gatv2", "agnn", "transformer")
RUNS = ((2, "overlap"), (2, "gather"), (2, "sequential"))
ON_REQUEST = True
WORKER = Path(__file__).parent / "part_worker.py"
TOLERANCE = 1e-4  # relative, of float32 losses


class Processes:
    """The processes of one run."""

    def __init__(self, folder: Path, size: int, config: dict[str, Any], timeout: float) -> None:
        self.timeout = timeout
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_WAIT_POLICY": "PASSIVE"}
        self.processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    str(WORKER),
                    json.dumps(
                        {"rank": rank, "size": size, "port": port, "folder": str(folder)} | config
                    ),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for rank in range(size)
        ]
        self._answers()

    def ask(self, request: str) -> list[dict[str, float]]:
        """The answers of all processes."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(request + "\n")
            process.stdin.flush()
        return self._answers()

    def _answers(self) -> list[dict[str, float]]:
        found = []
        for process in self.processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"a process ended with status {process.wait(10)}")
            found.append(json.loads(line))
        return found

    def close(self) -> None:
        """Ends the processes."""
        for process in self.processes:
            process.kill()
            process.communicate()


def measure(session: Session) -> Iterator[list[Row]]:
    """Rows of each model: one process, then several."""
    case = make_case(session.options.setting)
    with tempfile.TemporaryDirectory() as folder:
        folders = {size: Path(folder) / str(size) for size in {1, *(size for size, _ in RUNS)}}
        for size, place in folders.items():
            method = "metis" if size > 1 else "range"
            edges = case.edge_index.long()
            found = partition(edges, size, method, num_nodes=case.num_nodes)
            save(place, edges, found)
        for model in MODELS:
            yield _rows(session, case, folders, model)


def _rows(session: Session, case: Case, folders: dict[int, Path], model: str) -> list[Row]:
    setting, options = case.setting, session.options
    config = {"model": model, "channels": setting.width, "heads": setting.heads, "threads": 1}
    runs = [(1, "gather"), *RUNS]
    title = f"training of two layers, {model}: {setting.graph}, N = {case.num_nodes:,}, "
    title += f"E = {case.num_edges:,}, {setting.heads} × {setting.channels}"
    rows = [
        Row(
            "distributed",
            model,
            title,
            f"{size} process{'es' if size > 1 else ''}" + (f", {mode}" if size > 1 else ""),
            edges=case.num_edges,
        )
        for size, mode in runs
    ]
    started: list[Processes] = []
    try:
        for size, mode in runs:
            given = config | {"mode": mode}
            started.append(Processes(folders[size], size, given, options.timeout))
        _time(rows, started, options.rounds)
    except (RuntimeError, OSError) as error:
        for row in rows:
            row.status, row.note = FAILED, str(error)
    finally:
        for processes in started:
            processes.close()
    return rows


def _time(rows: list[Row], started: list[Processes], rounds: int) -> None:
    """Interleaved rounds of a step of each run, after one as warm-up."""
    samples: list[list[list[dict[str, float]]]] = [[] for _ in rows]
    for _ in range(rounds + 1):
        for processes, found in zip(started, samples, strict=True):
            found.append(processes.ask("step"))
    for row, found in zip(rows, samples, strict=True):
        losses = [step[0]["loss"] for step in found]
        wanted = [step[0]["loss"] for step in samples[0]]
        close = torch.allclose(torch.tensor(losses), torch.tensor(wanted), rtol=TOLERANCE)
        if not close:
            row.status, row.note = WRONG, f"losses {losses}; expected {wanted}"
            continue
        row.samples["total"] = [1e3 * max(rank["seconds"] for rank in step) for step in found[1:]]
        row.figures["sent [MB]"] = sum(rank["sent"] for rank in found[-1]) / 1e6
    peaks = [max(a["memory"] for a in processes.ask("memory")) for processes in started]
    for row, peak in zip(rows, peaks, strict=True):
        if row.timed:
            pairs = zip(rows[0].samples["total"], row.samples["total"], strict=True)
            row.figures["speed-up"] = statistics.median(one / own for one, own in pairs)
            row.figures["memory [MB]"] = peak / 1e6
            row.figures["memory"] = peak / peaks[0]
