"""gat-ext train is killed (SIGKILL, SIGTERM, SIGINT) at random moments, and resumed until done.

Metrics and weights are those of a run that nothing interrupted, and no partial file is left. A kill
by Ctrl-C ends with its own exit code and without a traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

import sklearn.linear_model
import sklearn.model_selection  # noqa: F401
import torch
from random_calls import Note
from torch.utils._pytree import tree_leaves

import gat_ext_cli
from gat_ext import datasets
from gat_ext.training import checkpoint, checkpointed, embedding_plots, plots, walk_plots
from gat_ext.training.files import replacing

KILLS = 4  # of a run, at most; then it may end
TOO_LONG = 60.0  # seconds for a run
SMALL = ["--hidden", "4", "--threads", "1"]
SHAPES = ["--dataset", "shapes", "--folds", "2", "--epochs", "2", "--subset", "24"]
RUNS = {
    "gat": ["gat", "--dataset", "karate", "--epochs", "20", "--seeds", "2", *SMALL],
    "gatv2": ["gatv2", "--dataset", "karate", "--epochs", "15", "--seeds", "3", *SMALL],
    "agnn": ["agnn", "--dataset", "karate", "--epochs", "20", "--seeds", "2", *SMALL],
    "transformer": ["transformer", "--dataset", "karate", "--epochs", "15", "--seeds", "2", *SMALL],
    "reordered": ["gat", "--dataset", "karate", "--reorder", "degree", "--epochs", "25", *SMALL],
    "embeddings": ["attention-walk", "--dataset", "karate", "--epochs", "20", "--dim", "8",
                   "--threads", "1"],
    "gam": ["gam", *SHAPES, "--hidden", "4", "--threads", "1"],
    "gam-mem": ["gam-mem", *SHAPES, "--hidden", "4", "--threads", "1"],
}  # fmt: skip

PICTURES = [
    (plots, "curves"), (plots, "attention"), (walk_plots, "curves"), (walk_plots, "walks"),
    (embedding_plots, "context"),
]  # fmt: skip
whole: dict[str, tuple[float, Any]] = {}
"""Of each run: the seconds that it takes, and its results, without interruption."""


def prepare() -> None:
    """Makes runs write a checkpoint often, so that there is something to break."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, gat_ext_cli._exit)  # as its main does; forks inherit it
    checkpointed.CHECKPOINT_SECONDS = 0.01
    checkpointed.CHECKPOINT_SHARE = 1
    for module, name in PICTURES:
        setattr(module, name, picture)
    # Imports what the commands would import, once instead of in each fork.
    torch.use_deterministic_algorithms(True)
    datasets.load("karate")
    plots.require()


def picture(*what: Any) -> None:
    """In place of a picture, whose drawing takes longer than the training."""
    with replacing(what[-1]) as file:
        file.write(b"picture")


def start(arguments: list[str], out: Path, errors: Path) -> int:
    """Starts the command in a forked process, which has imported everything."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        sink = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        sys.argv = ["gat-ext", "train", *arguments, "--out", str(out)]
        try:
            gat_ext_cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    """The exit code of a process, negative for a signal; None if it goes on for longer."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.001)


def results_of(out: Path) -> tuple[Any, list[str], list[Any]]:
    """Metrics without times, names of files, and weights of all trainings."""
    metrics = json.loads((out / "metrics.json").read_text())
    for name in ("seeds", "folds"):
        for training in metrics.get(name, []):
            training.pop("seconds")
    state = checkpoint.load(out / "checkpoint.pt")
    weights = [t.numpy().tobytes() for t in tree_leaves(state["best_models"])]
    return metrics, sorted(path.name for path in out.iterdir()), weights


def uninterrupted(name: str, folder: Path) -> tuple[float, Any]:
    """Seconds and results of the whole run; made once."""
    if name not in whole:
        began = time.monotonic()
        code = wait(start(RUNS[name], folder / "whole", folder / "output"), TOO_LONG)
        assert code == 0, (folder / "output").read_text()[-3000:]
        whole[name] = time.monotonic() - began, results_of(folder / "whole")
    return whole[name]


def attack(rnd: Random, note: Note) -> None:
    """Kills a run a few times."""
    name = rnd.choice(list(RUNS))
    folder = Path(tempfile.mkdtemp())
    try:
        seconds, expected = uninterrupted(name, folder)
        out, output = folder / "out", folder / "output"
        for number in range(KILLS + 1):
            resume = ["--resume"] if (out / "checkpoint.pt").exists() else []
            child = start([*RUNS[name], *resume], out, output)
            moment = rnd.random() * seconds * 1.1 if number < KILLS else TOO_LONG
            code = wait(child, moment)
            if code is not None:
                note(f"{name}: ends with {code}")
                assert code == 0, output.read_text()[-3000:]
                break
            assert number < KILLS, "it does not end"
            by = rnd.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            os.kill(child, by)
            code = wait(child, TOO_LONG)
            note(f"{name}: {by.name} after {moment:.3f} s: {code}")
            assert code in (130, 0) if by == signal.SIGINT else code in (-by, 0)
            if by == signal.SIGINT:
                assert "Traceback" not in output.read_text(), output.read_text()[-3000:]
            if code == 0:
                break
        assert results_of(out) == expected
    finally:
        shutil.rmtree(folder)
