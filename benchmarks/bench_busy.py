"""The epoch of ``bench_epoch.py`` beside other work, and under a CPU quota.

    python benchmarks/run.py busy --graph cora --heads 8 --channels 8 --threads 2

Each library has a process of its own. ``mean`` is the mean over the epochs of a round, because
beside other work a few epochs may take most of the time; ``× quiet`` is its median over rounds,
each over the same library's on the quiet machine in the same round. The busy process computes on
one CPU without a pause. The quota, of one CPU, is that of a cgroup which the benchmark makes below
its own, and needs the rights for.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import bench_epoch
from peers import PEERS, Remote
from report import FAILED, LEFT_OUT, Row
from session import Point, Session
from worker import sentence

ON_REQUEST = True
CONDITIONS = ("quiet", "beside a busy process", "quota of one CPU")
_ITEM = "gat_epoch"
_PERIOD = 100_000  # microseconds


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """A process that computes without a pause."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def quota_of_one_cpu() -> Iterator[Path]:
    """A cgroup with this quota, below that of this process.

    Raises:
        OSError: no right to make it.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            top = Path("/sys/fs/cgroup") / ("cpu" if controllers else "")
            folder = Path(tempfile.mkdtemp(prefix="gat-ext-", dir=top / path.lstrip("/")))
            break
    else:
        raise OSError("no cgroup has the CPU controller")
    try:
        if (folder / "cpu.max").exists():
            (folder / "cpu.max").write_text(f"{_PERIOD} {_PERIOD}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (folder / "cpu.cfs_quota_us").write_text(str(_PERIOD))
        yield folder
    finally:
        folder.rmdir()


def measure(session: Session) -> Iterator[list[Row]]:
    """Rows of every library for each condition."""
    options, item = session.options, bench_epoch.ITEMS[_ITEM]
    peers = [
        peer
        for peer in options.peers
        if peer not in session.missing and PEERS[peer].family in item.build
    ]
    rows = {c: {p: _row(session, p, c) for p in peers} for c in CONDITIONS}
    workers: dict[str, dict[str, Remote]] = {c: {} for c in CONDITIONS}
    with contextlib.ExitStack() as stack:
        try:
            group = stack.enter_context(quota_of_one_cpu())
        except OSError as error:
            for row in rows[CONDITIONS[2]].values():
                row.status, row.note = LEFT_OUT, f"no cgroup can be made: {sentence(error)}"
        for condition in CONDITIONS:
            for peer, row in rows[condition].items():
                if row.status == LEFT_OUT:
                    continue
                try:
                    worker = stack.enter_context(session.remote(peer))
                    if condition == CONDITIONS[2]:
                        (group / "cgroup.procs").write_text(str(worker.process_id))
                    session.prove(
                        Point(
                            row.label,
                            Path(bench_epoch.__file__),
                            _ITEM,
                            item,
                            peer,
                            options.setting,
                        ),
                        row,
                        worker,
                    )
                    worker.sample(options.min_seconds)
                    workers[condition][peer] = worker
                except Exception as error:  # a library may raise anything
                    row.status, row.note = FAILED, sentence(error)
        for _ in range(options.rounds):
            for condition, started in workers.items():
                beside = busy_process() if condition == CONDITIONS[1] else contextlib.nullcontext()
                with beside:
                    for peer, worker in started.items():
                        for part, value in worker.sample(max(options.min_seconds, 1.0)).items():
                            rows[condition][peer].samples.setdefault(part, []).append(value)
    for condition in CONDITIONS:
        for peer, row in rows[condition].items():
            quiet = rows[CONDITIONS[0]][peer]
            if row.timed and quiet.timed:
                pairs = zip(row.samples["mean"], quiet.samples["mean"], strict=True)
                row.figures = {"mean [ms]": row.median("mean")}
                row.figures["× quiet"] = statistics.median(a / b for a, b in pairs)
        yield list(rows[condition].values())


def _row(session: Session, peer: str, condition: str) -> Row:
    setting = session.options.setting
    title = f"{bench_epoch.ITEMS[_ITEM].title}, {condition}"
    return Row("busy", _ITEM, title, PEERS[peer].title, peer=peer, setting=asdict(setting))
