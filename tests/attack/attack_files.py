"""Checkpoints, zips, pickles and text files with bytes flipped, cut, joined, or made to run code.

Each is refused with an error that names it, on one line, or is read. No code runs, nothing is
written, and no more than 400 MiB are taken.
"""

from __future__ import annotations

import copy
import io
import pickle
import resource
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from old_pickles import python2_dumps
from random_calls import Note
from test_damaged_checkpoints import FAULTS, RUNS, interrupt
from test_hostile_files import PICKLES, damaged, damaged_headers
from test_planetoid import parts
from test_ppi import write_single, write_split
from test_tudataset import write as write_tu
from test_tudataset import zipped
from test_unpickle import ATTACKS
from typer.testing import CliRunner

from gat_ext import training
from gat_ext.datasets import load, load_graphs
from gat_ext.training import checkpoint
from gat_ext.training.cli import app

MEMORY = 400 * 2**20
REFUSALS = (ValueError, FileNotFoundError, pickle.UnpicklingError)
Files = dict[str, bytes]
CLI = ["train", "gat", "--dataset", "karate", "--epochs", "3", "--threads", "1", "-q"]

good: dict[str, Files] = {}
states: dict[str, dict[str, Any]] = {}
started: list[str] = []
"""Programs and connections that were started, which no file may."""


def prepare() -> None:
    """Makes good files, and limits the memory."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        make_files(Path(name))
    sys.addaudithook(watch)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def watch(event: str, arguments: Any) -> None:
    """Records what a file that runs code would do."""
    if event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"):
        started.append(event)


def make_files(folder: Path) -> None:
    """Fills ``good``: folders of data sets and runs, by what reads them."""
    written = {
        "tu": write_tu(folder / "tu"),
        "ppi": write_split(folder / "ppi"),
        "ppi of one graph": write_single(folder / "single"),
    }
    for name, place in list(written.items()):
        archive = {"tu": "TINY.zip", "ppi": "ppi.zip"}.get(name)
        if archive is not None:
            inside = "TINY/" if name == "tu" else ""
            written[f"{name} zip"] = zipped(place, folder / f"{name} zip" / archive, inside).parent
    for name, place in written.items():
        good[name] = {path.name: path.read_bytes() for path in place.iterdir()}
    planetoid = {f"ind.cora.{part}": python2_dumps(value) for part, value in parts().items()}
    planetoid["ind.cora.test.index"] = b"513\n510\n511\n"
    good["planetoid"] = planetoid
    for name, make in RUNS.items():
        run = make(folder / name)
        interrupt(run)
        good[name] = {"checkpoint.pt": run.checkpoint_path.read_bytes()}
        states[name] = checkpoint.load(run.checkpoint_path)
    CliRunner().invoke(app, [*CLI, "--out", str(folder / "cli")])
    good["cli"] = {"checkpoint.pt": (folder / "cli" / "checkpoint.pt").read_bytes()}


# ---- readers


def resume(kind: str) -> Callable[[Path], Any]:
    """Continues a run, or loads it."""

    def read(folder: Path) -> None:
        run = RUNS[kind](folder)
        run.resume()
        run.train(lambda trainer: None)

    return read


def resume_by_command(folder: Path) -> None:
    """As a person does; the command's error becomes an exception."""
    done = CliRunner().invoke(app, [*CLI, "--out", str(folder), "--resume"])
    if done.exit_code == 1:
        assert done.output.startswith("Error: ") and done.output.count("\n") == 1, done.output
        raise ValueError(done.output.strip())
    assert done.exit_code == 0, (done.exit_code, done.output, done.exception)


READERS: dict[str, Callable[[Path], Any]] = {
    "tu": lambda folder: load_graphs("tu:TINY", folder),
    "tu zip": lambda folder: load_graphs("tu:TINY", folder),
    "ppi": lambda folder: load("ppi", folder),
    "ppi zip": lambda folder: load("ppi", folder),
    "ppi of one graph": lambda folder: load("ppi", folder),
    "planetoid": lambda folder: load("cora", folder),
    "nodes": resume("nodes"),
    "graphs": resume("graphs"),
    "embeddings": resume("embeddings"),
    "cli": resume_by_command,
}


# ---- damage

NUMBERS = [
    b"-1",
    b"0",
    b"99999999999999999999",
    b"1e308",
    b"nan",
    b"",
    b"1" * 5000,
    b"0x1",
    b"\xd9\xa1",
]


def in_text(content: bytes, rnd: Random) -> bytes:
    """Another number, line or separator."""
    lines = content.split(b"\n")
    line = rnd.randrange(len(lines))
    fields = lines[line].replace(b",", b" ").split() or [b""]
    fields[rnd.randrange(len(fields))] = rnd.choice(NUMBERS)
    how = rnd.randrange(4)
    if how == 0:
        lines[line] = rnd.choice([b",", b"\0", b"\r", b"\xff\xfe"]).join(fields)
    elif how == 1:
        lines[line : line + 1] = []
    elif how == 2:
        lines[line : line + 1] = [lines[line]] * rnd.choice([2, 50_000])
    else:
        lines[line] = b", ".join(fields)
    return b"\n".join(lines)


def joined(content: bytes, rnd: Random) -> bytes:
    """The beginning of a file and the end of another."""
    other = rnd.choice(list(rnd.choice(list(good.values())).values()))
    return content[: rnd.randrange(len(content) + 1)] + other[rnd.randrange(len(other) + 1) :]


def with_code(rnd: Random, mark: Path) -> bytes:
    """A pickle that runs code, or asks for much memory, perhaps in the middle of another one."""
    if rnd.random() < 0.5:
        return b"\x80\x02" + rnd.choice(list(PICKLES.values())) + b"."
    payload = pickle.dumps(rnd.choice(list(ATTACKS.values()))(mark), rnd.choice([0, 2, 4]))
    whole = rnd.choice(list(good["planetoid"].values()))
    cut = rnd.randrange(len(whole))
    return rnd.choice([payload, whole[:cut] + payload[:-1] + whole[cut:], payload[:-1] + whole])


def with_code_in_checkpoint(content: bytes, rnd: Random, mark: Path) -> bytes:
    """The same in the archive of a checkpoint."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            new.writestr(name, with_code(rnd, mark) if name.endswith(".pkl") else old.read(name))
    return made.getvalue()


def faulty_state(kind: str, rnd: Random, note: Note) -> bytes:
    """A checkpoint with one or two faults in its structure."""
    state = copy.deepcopy(states[kind])
    for name in rnd.sample(list(FAULTS), rnd.randint(1, 2)):
        note(name)
        try:
            FAULTS[name][0](state)
        except (KeyError, TypeError, IndexError, AttributeError, StopIteration):
            note("  not possible after the first")
    made = io.BytesIO()
    torch.save(state, made)
    return made.getvalue()


def attack(rnd: Random, note: Note) -> None:
    """Damages one file of a folder, and reads the folder."""
    kind = rnd.choice(list(READERS))
    files = dict(good[kind])
    name = rnd.choice(list(files))
    with tempfile.TemporaryDirectory() as place:
        folder, mark = Path(place, "files"), Path(place, "mark")
        files[name] = changed(rnd, kind, name, files[name], mark, note)
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        read = READERS[kind]
        if name == "checkpoint.pt" and rnd.random() < 0.3:
            read = training.load
        judge(read, folder, files, note)
        assert not list(Path(place).glob("mark*")), "code of the file ran"
        assert not started, started


def changed(rnd: Random, kind: str, name: str, content: bytes, mark: Path, note: Note) -> bytes:
    """Other content for a file."""
    ways = ["bytes", "bytes", "joined"]
    if kind in states:
        ways += ["structure", "code"]
    elif kind == "planetoid":
        ways += ["code"]
    elif name.endswith(".zip"):
        ways += ["headers", "headers"]
    if name.endswith((".txt", ".json", ".index")):
        ways += ["text", "text"]
    way = rnd.choice(ways)
    note(f"{kind}: {name}, {way}")
    if way == "structure":
        return faulty_state(kind, rnd, note)
    if way == "code":
        in_archive = kind != "planetoid"
        return with_code_in_checkpoint(content, rnd, mark) if in_archive else with_code(rnd, mark)
    return {"bytes": damaged, "joined": joined, "headers": damaged_headers, "text": in_text}[way](
        content, rnd
    )


def judge(read: Callable[[Path], Any], folder: Path, files: Files, note: Note) -> None:
    """Reads, and looks at the error and the folder."""
    try:
        read(folder)
    except REFUSALS as error:
        text = str(error)
        note(text[:300])
        assert type(error) in REFUSALS, repr(error)
        named = str(folder) in text or text.startswith(("ppi: ", "cora: ", "tu:TINY: "))
        assert named and "\n" not in text and len(text) < 2000, repr(error)
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert found == files, "a refused file is not what it was"
