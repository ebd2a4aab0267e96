"""Attacks gat_ext with random cases, and shows each that does not hold with the command to repeat.

    python tests/attack/run.py                                  every attack, 8 seconds each
    python tests/attack/run.py kills files --seconds 3600       two of them for an hour each
    python tests/attack/run.py --seed 7                         other cases
    python tests/attack/run.py files --seed 7 --case 1234       one case, and what it does
    python tests/attack/run.py files --seed 7 --case 0:1235     all up to it, in one process

An attack is a file ``attack_NAME.py`` of this folder. The first line of its docstring says what is
tried, the rest what must hold. It defines

    def attack(rnd: Random, note: Note) -> None     one case: draws it from rnd, asserts what holds
    def prepare() -> None                           optional: what each process does first

``note`` takes text that describes the case. Seed, attack and number of a case determine all that it
draws, torch's random numbers included. Cases run in a forked process, one after the other, because
a case may end its process or never end itself: both are reported like an assertion that fails, and
the next case starts in a new process. That, and a length in seconds rather than a list of cases, is
why this is a script and no pytest module. The exit status is 1 if a case did not hold.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import faulthandler
import importlib
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

# Waiting threads sleep: attacks start more of them than there are cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

FOLDER = Path(__file__).resolve().parent
THREADS = torch.get_num_threads()
HANGS = 120.0  # seconds for a case, after which it is considered to hang
MOST_FAILURES = 5  # after which an attack stops


@dataclass
class Attack:
    """A module of this folder, and where its cases come from."""

    name: str
    module: ModuleType
    seed: int

    def random(self, case: int) -> random.Random:
        """The random numbers of a case."""
        return random.Random(f"{self.seed} {self.name} {case}")

    def again(self, case: int) -> str:
        """The command that repeats a case."""
        return f"python tests/attack/run.py {self.name} --seed {self.seed} --case {case}"


@dataclass
class Outcome:
    """What became of the cases: how many ran, and what was wrong with each that did not hold."""

    cases: int = 0
    seconds: float = 0.0
    failures: dict[int, str] = field(default_factory=dict)


def discover(folder: Path = FOLDER) -> dict[str, Path]:
    """The attacks of a folder by name; ``attack_files.py`` is "files"."""
    return {p.stem.removeprefix("attack_"): p for p in sorted(folder.glob("attack_*.py"))}


def title_of(path: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def imported(path: Path) -> ModuleType:
    """The module of an attack, which may import those of its folder and of the tests."""
    for place in (str(path.parent.parent), str(path.parent)):
        if place not in sys.path:
            sys.path.insert(0, place)
    torch.set_num_threads(1)  # OpenMP's threads would be missing in a fork, which waits for them
    return importlib.import_module(path.stem)


# ---- the process that runs cases


def work(attack: Attack, cases: range, seconds: float, shown: bool, connection: Connection) -> None:
    """Runs cases until the time is over, and sends (case, failure or None) after each."""
    os.setsid()  # so that what a case has started ends with this process
    faulthandler.enable()
    warnings.simplefilter("ignore")
    if not shown:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    torch.set_num_threads(THREADS)
    if hasattr(attack.module, "prepare"):
        attack.module.prepare()
    end = time.monotonic() + seconds
    for case in cases:
        connection.send((case, None))
        failure = run_case(attack, case, shown)
        if failure is not None:
            connection.send((case, failure))
        if time.monotonic() >= end:
            break
    connection.send(None)
    connection.close()
    os._exit(0)  # without the end of modules that threads may still use


def run_case(attack: Attack, case: int, shown: bool) -> str | None:
    """Why the case does not hold, or None."""
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if shown:
            print(text, flush=True)

    rnd = attack.random(case)
    torch.manual_seed(rnd.getrandbits(63))
    try:
        attack.module.attack(rnd, note)
    except Exception:
        return "\n".join([*notes, traceback.format_exc(limit=-6)])
    return None


# ---- the process that watches


def watch(
    attack: Attack, cases: range, seconds: float, shown: bool = False, hangs: float = HANGS
) -> Outcome:
    """Runs the cases of an attack in processes, until the time is over or too many have failed."""
    outcome, start = Outcome(), time.monotonic()
    while cases and len(outcome.failures) < MOST_FAILURES:
        left = seconds - (time.monotonic() - start)
        if left <= 0:
            break
        last = cases.start
        with forked(attack, cases, left, shown) as (process, connection):
            ended = False
            while not ended:
                try:
                    if not connection.poll(hangs):
                        outcome.failures[last] = f"does not end within {hangs:g} s"
                        break
                    message = connection.recv()
                except (EOFError, ConnectionResetError):
                    process.join()
                    outcome.failures[last] = ending_of(process.exitcode)
                    break
                if message is None:
                    ended = True
                elif message[1] is None:
                    last, outcome.cases = message[0], outcome.cases + 1
                else:
                    outcome.failures[message[0]] = message[1]
                    if len(outcome.failures) >= MOST_FAILURES:
                        break
        if ended:
            break
        cases = range(last + 1, cases.stop)
    outcome.seconds = time.monotonic() - start
    return outcome


@contextlib.contextmanager
def forked(
    attack: Attack, cases: range, seconds: float, shown: bool
) -> Iterator[tuple[Any, Connection]]:
    """A process that runs cases; it ends, with all that it started, at the end of the block."""
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(attack, cases, seconds, shown, theirs))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        ours.close()


def ending_of(status: int | None) -> str:
    """How a process ended."""
    if status is not None and status < 0:
        return f"ends its process by {signal.Signals(-status).name}; stderr has the stack"
    return f"ends its process with exit status {status}"


# ---- command line


def report(attack: Attack, outcome: Outcome, whole: bool) -> None:
    """Prints a line, and what is to be known of each failure."""
    held = f"{len(outcome.failures)} did NOT hold" if outcome.failures else "all held"
    print(f"{attack.name:10} {outcome.cases:7} cases in {outcome.seconds:6.1f} s: {held}")
    for case, what in outcome.failures.items():
        print(f"\n  case {case}: {attack.again(case)}")
        print("    " + "\n    ".join(what.strip().splitlines()[-60:]) + "\n")
    if outcome.failures and whole:
        print("  A case that holds alone fails because of one before it: --case 0:NUMBER\n")
    sys.stdout.flush()


def parse_cases(text: str) -> range:
    """``7`` is one case, ``3:7`` are four."""
    first, colon, last = text.partition(":")
    return range(int(first), int(last) if colon else int(first) + 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the attacks that the command line names; the exit status."""
    parser = argparse.ArgumentParser(
        prog="tests/attack/run.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    paths = discover()
    parser.epilog = "attacks:\n" + "\n".join(f"  {n:10} {title_of(p)}" for n, p in paths.items())
    parser.add_argument("names", nargs="*", metavar="NAME", help="attacks; default: all")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each attack (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (%(default)s)")
    parser.add_argument("--case", type=parse_cases, help="number, or FIRST:END, of one attack")
    args = parser.parse_args(argv)
    for name in args.names:
        if name not in paths:
            parser.error(f"unknown attack {name!r}; expected one of {', '.join(paths)}")
    if args.case is not None and len(args.names) != 1:
        parser.error("--case needs the name of one attack")
    failed = False
    for name in args.names or paths:
        attack = Attack(name, imported(paths[name]), args.seed)
        if args.case is None:
            outcome = watch(attack, range(sys.maxsize), args.seconds)
        else:
            outcome = watch(attack, args.case, float("inf"), shown=len(args.case) == 1)
        report(attack, outcome, args.case is None)
        failed = failed or bool(outcome.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
