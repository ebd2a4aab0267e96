"""Turns errors that a person can mend, and Ctrl-C, into one line."""

from __future__ import annotations

import pickle
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIG_IGN, SIGINT, default_int_handler, getsignal, signal
from threading import current_thread, main_thread
from typing import NoReturn

import typer
from rich.console import Console

from gat_ext.distributed import RankError
from gat_ext.training.checkpointed import Interrupted

_OF_THE_USER = (
    OSError,
    ImportError,
    ValueError,
    TypeError,
    FloatingPointError,
    MemoryError,
    pickle.UnpicklingError,
)
_ONCE = ("--resume", "--overwrite")  # options not to repeat


def fail(error: BaseException | str) -> NoReturn:
    """Ends the command with one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"Error: {text}", file=sys.stderr)
    raise typer.Exit(1)


@contextmanager
def explained(console: Console, processes: int = 1) -> Iterator[None]:
    """Explains errors of a command, and how to continue after Ctrl-C.

    Args:
        console: to print to.
        processes: number of processes that run the command.
    """
    try:
        yield
    except Interrupted:
        again = [argument for argument in sys.argv[1:] if argument not in _ONCE]
        command = f"gat-ext {shlex.join([*again, '--resume'])}"
        start = "" if processes == 1 else f" start the {processes} processes again, with"
        console.print(f"Interrupted. To go on:{start} {command}")
        raise typer.Exit(130) from None
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        raise typer.Exit(130) from None
    except (*_OF_THE_USER, RankError) as error:
        fail(error)
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        fail(f"out of memory; a smaller network or data set may fit: {error}")


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes Ctrl-C an exception, which releases locks, unless the process ignores it."""
    before = getsignal(SIGINT)
    if before in (None, SIG_IGN) or current_thread() is not main_thread():
        yield
        return
    signal(SIGINT, default_int_handler)
    try:
        yield
    finally:
        signal(SIGINT, before)
