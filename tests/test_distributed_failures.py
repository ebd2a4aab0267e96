"""Processes that die, hang, raise or have the wrong parts: errors that say so, in time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from short_lived import ShortLived, command, join_group
from torch import Tensor
from typer.testing import CliRunner

from gat_ext import datasets
from gat_ext.distributed import (
    DistGraph,
    RankError,
    cross_entropy,
    exchange,
    failures,
    liveness,
    load_checkpoint,
    make_part,
    partition,
    report_failure,
    save,
    save_checkpoint,
)
from gat_ext.models import GAT
from gat_ext.training import dist_loop
from gat_ext.training.cli import app
from gat_ext.training.processes import Launch, launched


@pytest.fixture(scope="module")
def short_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShortLived]:
    yield ShortLived(tmp_path_factory.mktemp("printed"))


EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]])


def own_part(assignment: list[int], parts: int, rank: int) -> DistGraph:
    return DistGraph(make_part(EDGES, torch.tensor(assignment), rank, parts))


def at_call(number: int, what) -> None:
    """Calls a function before the exchange of a number is waited for."""
    wait, calls = exchange.Pending.wait, []

    def waiting(pending) -> list[Tensor]:
        calls.append(pending)
        if len(calls) == number:
            what()
        return wait(pending)

    exchange.Pending.wait = waiting


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def raise_error() -> None:
    raise ValueError("no such luck")


TROUBLE = {"killed": kill_me, "raises": raise_error, "hangs": lambda: time.sleep(60)}


def train_with_trouble(folder: str, trouble: str) -> None:
    """Epochs with a checkpoint each; rank 1 has trouble in the middle of an exchange."""
    rank = join_group(timeout=5.0 if trouble == "hangs" else 30.0)
    failures._PATIENCE = 3.0
    torch.manual_seed(0)
    model = GAT(4, 3, 2, heads=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    graph = own_part([0, 0, 1, 1, 2, 2], 3, rank)
    if trouble == "killed":
        failures._PATIENCE = 60.0  # nobody waits: the process is known to have ended
    if rank == 1:
        at_call(11, TROUBLE[trouble])  # in the third epoch
    ddp = torch.nn.parallel.DistributedDataParallel(model)
    start = time.monotonic()
    try:
        for epoch in range(100):
            loss = cross_entropy(ddp(torch.ones(2, 4), graph), torch.tensor([0, 1]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            save_checkpoint(folder, ddp, optimizer, epoch=epoch)
    except RankError as error:
        print(f"{time.monotonic() - start:.1f} s", error.ranks, error)
        raise SystemExit(3) from error
    except ValueError as error:
        report_failure(error)
        raise SystemExit(4) from error


def resume_after_trouble(folder: str) -> None:
    join_group()
    model = GAT(4, 3, 2, heads=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    print(*load_checkpoint(folder, model, optimizer), optimizer.state_dict()["state"][0]["step"])


@pytest.mark.parametrize(
    ("trouble", "code", "words"),
    [
        ("killed", -signal.SIGKILL, "rank 1 ended or does not answer. Start all"),
        (
            "raises",
            4,
            "rank 1 ended or does not answer. Rank 1 said: ValueError: no such luck",
        ),
        ("hangs", None, "rank 1 ended or does not answer. Start all"),
    ],
)
def test_the_others_name_a_process_in_trouble(short_lived, tmp_path, trouble, code, words):
    with short_lived.start(train_with_trouble, 3, str(tmp_path), trouble) as ended:
        if trouble == "hangs":
            for rank in (0, 2):
                ended.processes[rank].join(20)
            ended.processes[1].kill()
        ends = ended(20)
    assert code is None or ends[1].code == code, ends[1]
    for rank in (0, 2):
        assert ends[rank].code == 3, ends[rank].err
        assert "(1,)" in ends[rank].out and words in ends[rank].out, ends[rank].out
    for end in (
        short_lived.run(resume_after_trouble, 2, str(tmp_path)) if trouble == "killed" else []
    ):
        assert end.code == 0, end.err
        assert end.out == "1 {} tensor(2.)\n"


def test_whether_a_process_has_ended():
    mine = liveness.identity()
    machine, number, start = mine.rsplit(" ", 2)
    assert not liveness.has_ended(mine)
    assert liveness.has_ended(f"{machine} {number} {int(start) - 1}")  # its number was used again
    assert not liveness.has_ended(f"elsewhere {number} {int(start) - 1}")
    child = subprocess.Popen(["true"])
    name = f"{machine} {child.pid} {liveness._state_and_start(child.pid)[1]}"
    wait_for(lambda: liveness.has_ended(name))  # also while nobody has collected its exit code
    child.wait()
    assert liveness.has_ended(name)


# ---- parts that do not belong together


def wrong_parts() -> None:
    rank = join_group()
    for case in WRONG:
        build_wrong_part(case, rank)


def build_wrong_part(case: str, rank: int) -> None:
    size = dist.get_world_size()
    assignment, parts, number = [0, 0, 1, 1, 2, 2], 3, rank
    if case == "number":
        parts = 4
    if case == "swapped":
        number = (rank + 1) % size
    if case == "two partitions" and rank == 2:
        assignment = [0, 1, 1, 1, 2, 2]
    edges = EDGES[:, :-1] if case == "other edges" and rank == 2 else EDGES
    try:
        DistGraph(make_part(edges, torch.tensor(assignment), number, parts))
    except ValueError as error:
        print(error)


WRONG = {
    "number": "one of 4 parts, but the group has 3 processes; expected a process for each part",
    "swapped": "rank 0 has part 1; expected part 0",
    "two partitions": "the parts of ranks 0 and 2 are of two partitions",
    "other edges": "are of two partitions",
}


def test_parts_that_do_not_belong_together(short_lived):
    for end in short_lived.run(wrong_parts, 3):
        assert end.code == 0, end
        for line, words in zip(end.out.splitlines(), WRONG.values(), strict=True):
            assert words in line


def read_parts(folder: str, *more: str) -> None:
    command(["train", "gat", "--parts", folder, "--epochs", "2", *more])


def test_folders_of_other_parts(short_lived, tmp_path):
    data = datasets.load("karate")
    for name, method in (("metis", "range"), ("other", "given")):
        more = {"assignment": torch.arange(34) % 2} if method == "given" else {}
        save(tmp_path / name, data, partition(data.graph, 2, method, **more))
    right, mixed = tmp_path / "metis", tmp_path / "mixed"
    shutil.copytree(right, mixed)
    shutil.rmtree(mixed / "part-0001")
    shutil.copytree(tmp_path / "other" / "part-0001", mixed / "part-0001")
    out = ("--out", str(tmp_path / "run"))
    for folder, size, words in (
        (right, 3, "holds 2 parts; expected 3: start 2 processes"),
        (mixed, 2, "parts of two partitions are mixed"),
    ):
        ends = short_lived.run(read_parts, size, str(folder), *out)
        assert [end.code for end in ends] == [1] * size, ends
        assert all(line.startswith("Error: ") for e in ends for line in e.err.splitlines()), ends
        assert all(words in end.err for end in ends), ends
        assert not (tmp_path / "run").exists()


# ---- the command


def train(folder: str, *more: str) -> None:
    failures._PATIENCE = 3.0
    patience = ["--epochs", "100000", "--patience", "100000"]
    command(["train", "gat", "--dataset", "karate", *patience, "--out", folder, *more])


def train_with_an_error(folder: str) -> None:
    epochs, train_epoch = [], dist_loop.DistTrainer._train_epoch

    def failing(trainer):
        epochs.append(1)
        if len(epochs) == 3 and os.environ["RANK"] == "1":
            raise OSError("the disk is gone")
        return train_epoch(trainer)

    dist_loop.DistTrainer._train_epoch = failing
    train(folder)


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_the_command_after_a_kill(short_lived, tmp_path):
    out = tmp_path / "run"
    with short_lived.start(train, 3, str(out)) as ended:
        wait_for((out / "checkpoint.pt").exists)
        time.sleep(0.3)
        ended.processes[1].kill()
        ends = ended(20)
    assert [end.code for end in ends] == [1, -signal.SIGKILL, 1], ends
    for rank in (0, 2):
        (line,) = ends[rank].err.splitlines()
        assert line.startswith(f"Error: rank {rank}: rank 1 ended or does not answer."), line
    assert {p.name for p in out.iterdir()} == {"checkpoint.pt"}
    resumed, written = (
        ("--resume", "--epochs", "100001"),
        (out / "checkpoint.pt").stat().st_mtime_ns,
    )
    with short_lived.start(train, 2, str(out), *resumed) as ended:
        wait_for(lambda: (out / "checkpoint.pt").stat().st_mtime_ns > written)
        ended.processes[1].terminate()  # SIGTERM stops all of them after an epoch
        ends = ended(20)
    assert [end.code for end in ends] == [130, 130], ends
    assert "To go on: start the 2 processes again, with gat-ext train gat" in ends[0].out
    assert (ends[1].out, ends[1].err) == ("", "")


def test_the_command_after_an_error(short_lived, tmp_path):
    ends = short_lived.run(train_with_an_error, 3, str(tmp_path / "run"))
    assert [end.code for end in ends] == [1, 1, 1], ends
    assert ends[1].err == "Error: the disk is gone\n"
    for rank in (0, 2):
        (line,) = ends[rank].err.splitlines()
        assert "rank 1 ended" in line and "Rank 1 said: OSError: the disk is gone." in line


def alone(folder: str) -> None:
    os.environ["WORLD_SIZE"] = "2"
    train(folder, "--rank-timeout", "1")


def test_a_process_whose_others_do_not_start(short_lived, tmp_path):
    (end,) = short_lived.run(alone, 1, str(tmp_path / "run"))
    assert end.code == 1 and not (tmp_path / "run").exists()
    last = end.err.splitlines()[-1]
    assert last.startswith("Error: rank 0: the 2 processes did not find each other at 127.0.0.1:")


def refused(folder: str) -> None:
    for number, (arguments, _) in enumerate(REFUSED):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)
        try:
            command(["train", *arguments, "--out", folder])
        except SystemExit as error:
            print("*** ends with", error.code, file=sys.stderr)


REFUSED = [
    (("hgt",), "hgt to classify nodes of several types trains in one process"),
    (("gam",), "gam to classify graphs trains in one process"),
    (("attention-walk",), "attention-walk to embed nodes trains in one process"),
    (("gat", "--dataset", "shapes"), "gat to classify graphs by pooling trains in one process"),
    (("gat", "--dataset", "ppi"), "in batches of graphs"),
    (("gat", "--reorder", "degree"), "a partition puts neighbours together"),
    (("gat", "--mode", "over"), "choose one of overlap"),
    (("gat", "--partition-method", "mets"), "choose one of metis"),
    (("hgt", "--parts", "."), "leave it out"),
]


def test_refusals_are_printed_once(short_lived, tmp_path):
    ends = short_lived.run(refused, 2, str(tmp_path / "run"), COLUMNS="300")
    printed = [end.err.split("*** ends with 2\n") for end in ends]
    for (_, words), *texts in zip([*REFUSED, ((), "")], *printed, strict=True):
        (text,) = [text for text in texts if text] or [""]
        assert words in text and "Traceback" not in text, text
    assert not any(end.out for end in ends) and not (tmp_path / "run").exists()


def test_variables_of_torchrun():
    given = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    assert launched(given) == Launch(1, 2, 1)
    assert launched({**given, "WORLD_SIZE": "1"}) == Launch()
    for change, words in (
        ({"RANK": ""}, "RANK is not set"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({"RANK": "2"}, "expected a RANK below it"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
    ):
        with pytest.raises(ValueError, match=words):
            launched(given | change)


def test_parts_in_one_process(tmp_path):
    data = datasets.load("karate")
    for parts in (1, 2):
        save(tmp_path / str(parts), data, partition(data.graph, parts, "range"))
    arguments = ["train", "--epochs", "2", "--out", str(tmp_path / "run"), "--parts"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "1")])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("rank 0 of 1: 34 nodes, 156 edges, 0 halo rows\n")
    for folder, words in (("2", "holds 2 parts; expected 1: start 2"), ("3", "holds no partition")):
        result = CliRunner().invoke(app, [*arguments, str(tmp_path / folder), "--overwrite"])
        assert result.exit_code == 1 and words in result.output, result.output
    digits = ["--dataset", "digits", "--overwrite"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "1"), *digits])
    assert result.exit_code == 1 and "has parts of karate; expected digits" in result.output
